//! flow

pub mod graph;
pub mod phase;
