//! cluster

pub mod phase;
