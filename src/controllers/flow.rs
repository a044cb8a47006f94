//! The controller of Flows.

pub mod build;
pub mod diagnosis;
pub mod plan;
pub mod route;
pub mod secrets;
pub mod snapshot;
pub mod template;
pub mod validate;
