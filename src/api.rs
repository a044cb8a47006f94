//! The four kinds of the group `millrace.dev`, and the pure rules that belong to them.
//!
//! Nothing here does I/O: controllers, gateway, runner and agent all share it.

pub mod cartridge;
pub mod child;
pub mod cluster;
pub mod condition;
pub mod container;
pub mod definition;
pub mod duration;
pub mod flow;
pub mod instance;
pub mod label;
pub mod name;
pub mod revision;
pub(crate) mod schema;
pub mod transition;
pub mod values;

/// The API group of all four kinds.
pub const GROUP: &str = "millrace.dev";
/// The one version that is served and stored.
pub const VERSION: &str = "v1alpha1";
