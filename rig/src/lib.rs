//! A real Kubernetes for development, tests and the demo. Never shipped.
mod control_plane;
pub mod error;
mod nats;
mod pki;
mod plane;
mod program;
mod scratch;
mod supervisor;

pub use error::{Error, Result};
pub use nats::Nats;
pub use plane::Plane;
pub use program::{KUBERNETES_VERSION, Program};
