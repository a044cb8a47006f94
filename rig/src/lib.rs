//! A real Kubernetes for the development, the tests and the demo of Millrace. Never shipped.
//!
//! ```text
//!   main                       the `rig` command
//!   node, node/…               a whole one-node cluster in namespaces of its own, with real pods; needs root
//!   plane        nats          what tests start: a control plane, a broker; on free ports, without root
//!   control_plane, pki         the command lines and certificates that node and plane share
//!   image        tools         container images without a container engine; what the machine must have
//!   supervisor   scratch       components on a leash; folders that last as long as their process
//!   program                    the one Go program that is every component (../kubernetes), built once
//! ```

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
