//! Millrace runs integration flows and application cartridges from four custom resources.
//!
//! # The four kinds
//! ```text
//!   Flow        a graph of nodes and the trigger that starts it
//!   Cartridge   a type: of application, or of record
//!      ▲ subscribes
//!   Cluster     a subscription: how many members, where, behind which address
//!      ▲ belongs to
//!   Instance    one member, or one record
//! ```
//!
//! # The house
//! One room has one purpose; whoever knows the purpose can name the file. Dependencies point down.
//! ```text
//!   main, cli     the program and its commands
//!   api           the four kinds and the pure rules that belong to them: no I/O, whoever needs them may use them
//! ```
//! Beside it stands `rig/`, a crate of its own: the real Kubernetes that tests and demo run on. It is never shipped.

pub mod api;
pub mod cli;
