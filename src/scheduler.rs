//! The scheduler: flows with a cron trigger get a message at each due time, exactly one.
//!
//! ```text
//!   schedule   the due times of a cron expression in a time zone
//!   due        what is due, pure
//!   timetable  when what is due next
//! ```

pub mod due;
pub mod schedule;
