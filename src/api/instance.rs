//! instance

pub mod phase;
