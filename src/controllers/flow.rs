//! The controller of Flows.
