//! What launcher and agent say to each other.
//!
//! The launcher is the first process of an application's container; the agent lives in another container of the same pod. They
//! meet at a socket in a folder that both see.

pub mod wire;
