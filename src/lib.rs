//! Millrace.
pub mod api;
