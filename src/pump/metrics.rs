//! What pumps count. All pumps of a process share it, and no label names an object.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

use crate::metrics::Metrics;

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Outcome {
    /// It was handled, and what came out is stored.
    Done,
    /// It failed, and is tried again.
    Retried,
    /// It became a dead letter.
    DeadLetter,
    /// It was given back without an attempt, since the pump ends.
    Returned,
    /// It was not its time yet.
    NotYet,
}

/// Why messages wait although they are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum Hold {
    /// The component accepts no connection.
    Refused,
    /// The next queue is full, or the broker does not answer.
    Publish,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: Outcome,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HoldLabel {
    why: Hold,
}

/// The numbers of all pumps of a process.
#[derive(Clone, Debug)]
pub struct PumpMetrics {
    deliveries: Family<OutcomeLabel, Counter>,
    published: Counter,
    held: Family<HoldLabel, Gauge>,
    in_flight: Gauge,
    /// How long attempts take.
    pub(super) attempts: Histogram,
}

/// Counts a message for as long as it lives.
pub(super) struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl PumpMetrics {
    /// Adds them to the metrics of the process.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let own = Self {
            deliveries: Family::default(),
            published: Counter::default(),
            held: Family::default(),
            in_flight: Gauge::default(),
            attempts: Histogram::new(exponential_buckets(0.001, 4.0, 9)),
        };
        metrics.register(|all| {
            all.register("pump_deliveries", "Deliveries by what became of them", own.deliveries.clone());
            all.register(
                "pump_published",
                "Messages that were stored for the next node",
                own.published.clone(),
            );
            all.register("pump_in_flight", "Messages that are being handled or held", own.in_flight.clone());
            all.register("pump_held", "Messages that wait although they are here", own.held.clone());
            all.register("pump_attempt_seconds", "How long attempts took", own.attempts.clone());
        });
        own
    }

    pub(super) fn count(&self, outcome: Outcome) {
        self.deliveries.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    pub(super) fn published(&self) {
        self.published.inc();
    }

    pub(super) fn fly(&self) -> Counted {
        Counted::new(&self.in_flight)
    }

    pub(super) fn hold(&self, why: Hold) -> Counted {
        Counted::new(&self.held.get_or_create(&HoldLabel { why }))
    }
}
