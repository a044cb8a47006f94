//! How many dead letters each Flow has: looked at now and then, since nobody tells, and told as a metric and on the Flow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::TryStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use prometheus_client::metrics::gauge::Gauge;

use crate::api::flow::Flow;
use crate::broker::{Broker, subject};
use crate::metrics::Metrics;

/// How often it is looked. While nothing changes that is one small request.
const GLANCE: Duration = Duration::from_secs(5);

/// Dead letters by namespace and Flow.
type Counts = HashMap<(String, String), u64>;

/// How many there are of each Flow; none while that is not known.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    counts: Arc<Mutex<Option<Counts>>>,
    all: Gauge,
}

/// What a look at the stream has seen: as long as it is the same, nothing has come and nothing has gone.
type Mark = (u64, u64, u64);

impl DeadLetters {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let all = Gauge::default();
        metrics
            .register(|own| own.register("dead_letters", "Messages that no node could handle", all.clone()));
        Self { counts: Arc::default(), all }
    }

    /// How many a Flow has; none where that is not known.
    #[must_use]
    pub fn of(&self, namespace: &str, flow: &str) -> Option<u64> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (namespace.to_owned(), flow.to_owned());
        counts.as_ref().map(|counts| counts.get(&key).copied().unwrap_or_default())
    }

    /// Looks at them for as long as the task runs; `changed` hears of each Flow that has more or fewer than before.
    pub async fn watch(self, broker: Broker, changed: impl Fn(ObjectRef<Flow>)) {
        let mut mark = None;
        loop {
            broker.wait_connected().await;
            match look(&broker, mark).await {
                Ok(Some((now, counts))) => {
                    mark = Some(now);
                    self.all.set(i64::try_from(now.0).unwrap_or(i64::MAX));
                    self.learn(counts).into_iter().for_each(&changed);
                }
                Ok(None) => {}
                Err(error) => tracing::debug!(%error, "Could not count the dead letters"),
            }
            tokio::time::sleep(GLANCE).await;
        }
    }

    /// Takes note of how many there are now, and says which Flows that concerns.
    fn learn(&self, counts: Counts) -> Vec<ObjectRef<Flow>> {
        let mut known = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that have none may have been told that they have some, by who led before.
        let before = known.take();
        let all = before.iter().flat_map(HashMap::keys).chain(counts.keys());
        let concerned =
            all.filter(|key| before.as_ref().is_none_or(|before| before.get(*key) != counts.get(*key)));
        let mut named: Vec<_> =
            concerned.map(|(namespace, flow)| ObjectRef::new(flow).within(namespace)).collect();
        named.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        named.dedup();
        *known = Some(counts);
        named
    }
}

/// Counts them, where something has changed since `mark`.
async fn look(broker: &Broker, mark: Option<Mark>) -> anyhow::Result<Option<(Mark, Counts)>> {
    let stream = broker.jetstream.get_stream(subject::DEAD_LETTERS).await?;
    let state = &stream.cached_info().state;
    let now = (state.messages, state.first_sequence, state.last_sequence);
    if mark == Some(now) {
        return Ok(None);
    }
    let counted = stream.info_with_subjects(subject::ALL_DEAD_LETTERS).await?;
    let counted: Vec<(String, usize)> = counted.try_collect().await?;
    let mut counts = Counts::new();
    for (subject, count) in counted {
        let mut parts = subject.split('.').skip(2);
        if let (Some(namespace), Some(flow)) = (parts.next(), parts.next()) {
            *counts.entry((namespace.to_owned(), flow.to_owned())).or_default() += count as u64;
        }
    }
    Ok(Some((now, counts)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flows_whose_number_has_changed_are_named() {
        let letters = DeadLetters::new(&Metrics::default());
        assert_eq!(letters.of("shop", "orders"), None);
        let counts = |all: &[(&str, u64)]| -> Counts {
            all.iter().map(|(flow, count)| (("shop".to_owned(), (*flow).to_owned()), *count)).collect()
        };
        let named = |all| letters.learn(counts(all)).into_iter().map(|flow| flow.name).collect::<Vec<_>>();
        assert_eq!(named(&[("orders", 1), ("refunds", 2)]), ["orders", "refunds"]);
        assert_eq!(letters.of("shop", "orders"), Some(1));
        assert_eq!(named(&[("orders", 1), ("refunds", 3)]), ["refunds"]);
        assert_eq!(named(&[("refunds", 3)]), ["orders"]);
        assert_eq!((letters.of("shop", "orders"), letters.of("shop", "other")), (Some(0), Some(0)));
    }
}
