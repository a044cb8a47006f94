//! A real Kubernetes for development, tests and the demo. Never shipped.
mod control_plane;
mod error;
mod image;
mod nats;
mod node;
mod pki;
mod plane;
mod program;
mod scratch;
mod supervisor;
mod tools;

pub use error::{Error, Result};
pub use image::Image;
pub use nats::Nats;
pub use node::{Node, Status, Up};
pub use plane::Plane;
pub use program::{KUBERNETES_VERSION, Program};
