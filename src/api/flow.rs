//! flow

pub mod phase;
