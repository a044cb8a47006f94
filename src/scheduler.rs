//! The scheduler: flows with a cron trigger get a message at each due time, exactly one.
//!
//! ```text
//!   schedule    the due times of a cron expression in a time zone
//!   due         what is due, pure
//!   timetable   which flows have a schedule, and when each is due next, pure
//!   run         the loop that sleeps until then, and stores what is due
//! ```
//! It runs in the operator that leads. It reads of a Flow what everybody sees: it takes up the schedule of one whose nodes
//! are ready, the controller then arms its trigger, and from that time on it is fired.

pub mod due;
pub mod metrics;
pub mod run;
pub mod schedule;
pub mod test;
pub mod timetable;

pub use metrics::SchedulerMetrics;
pub use run::{Scheduler, Taken};
pub use timetable::TakenUp;
