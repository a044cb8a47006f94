//! What the scheduler counts. No label names an object.

use jiff::SignedDuration;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::broker::ticks::TickError;
use crate::metrics::Metrics;

/// What became of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
enum Outcome {
    Stored,
    Conflict,
    QueueFull,
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

/// The numbers of the scheduler.
#[derive(Clone, Debug)]
pub struct SchedulerMetrics {
    ticks: Family<OutcomeLabel, Counter>,
    skew: Histogram,
    /// How many flows have a schedule.
    pub(super) schedules: Gauge,
}

impl SchedulerMetrics {
    /// Adds them to the metrics of the process.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            ticks: Family::default(),
            skew: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
            schedules: Gauge::default(),
        };
        metrics.register(|all| {
            all.register("scheduler_ticks", "Due times by what became of them", own.ticks.clone());
            all.register(
                "scheduler_skew_seconds",
                "From the due time to the message on disk",
                own.skew.clone(),
            );
            all.register("scheduler_schedules", "Flows that have a schedule", own.schedules.clone());
        });
        own
    }

    pub(super) fn count(&self, stored: Result<u64, TickError>, skew: SignedDuration) {
        let outcome = match stored {
            Ok(_) => Outcome::Stored,
            Err(TickError::Conflict) => Outcome::Conflict,
            Err(TickError::Full) => Outcome::QueueFull,
            Err(TickError::Unknown) => Outcome::Unknown,
        };
        self.ticks.get_or_create(&OutcomeLabel { outcome }).inc();
        if stored.is_ok() {
            self.skew.observe(skew.as_secs_f64());
        }
    }
}
