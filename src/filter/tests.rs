//! Tests of the language as a whole.

mod laws;
mod refused;
mod table;
pub mod work;
