//! Millrace: integration flows and application cartridges on Kubernetes.
//!
//! ```text
//! api   the four kinds: their fields, the rules of their schemas, and their definitions; no I/O
//! cli   the command line
//! ```

pub mod api;
pub mod cli;
