//! Drives controllers. The only writer to the Kubernetes API.
//!
//! ```text
//!   lease         who leads, and until when it may begin to write
//!   watch         caches of what others write
//!   drive         calls reconcile: bounded, limited, with growing pauses
//!   writer        the one writer: fenced, conditional, silent where nothing is to be done
//!   index         which objects of a cache belong together
//!   consistency   which of our own writes a cache must have before anybody decides by it
//!   events        what people read in `kubectl describe`
//! ```

pub mod consistency;
pub mod drive;
pub mod events;
pub mod index;
pub mod lease;
pub mod watch;
pub mod writer;

pub use drive::{DriveMetrics, Failure, Next, drive};
pub use events::{Announcer, Note};
pub use index::Index;
pub use lease::{Election, Fence, Leadership};
pub use writer::{Accidents, WriteError, Writer};
