//! Calls a controller's reconcile for each object that something has happened to: bounded, limited in time, and with a
//! pause after a failure that grows with each.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::runtime::controller::{self, Action};
use kube::runtime::reflector::{ObjectRef, Store};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use tokio_util::sync::CancellationToken;

use super::writer::WriteError;

use super::watch::Cached;
use crate::metrics::Metrics;

/// How long one reconcile may take.
const LIMIT: Duration = Duration::from_secs(60);
/// When to look at an object at which all is well, if nothing happens before: watches can miss things.
const RESYNC: Duration = Duration::from_secs(600);

/// What a reconcile came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// All is well, or somebody else must act: look again in some minutes.
    Settled,
    /// Look again after this.
    After(Duration),
}

/// Why a reconcile came to nothing: one word for metrics, and the whole story for the log.
#[derive(Debug)]
pub struct Failure {
    /// One of few words.
    pub category: &'static str,
    /// What happened.
    pub error: anyhow::Error,
}

impl Failure {
    /// A write has failed; `context` says which, in words.
    #[must_use]
    pub fn of_write(error: WriteError, context: impl Into<String>) -> Self {
        Self { category: error.category(), error: anyhow::Error::new(error).context(context.into()) }
    }
}

/// How often and for how long, by controller.
#[derive(Clone, Debug)]
pub struct DriveMetrics {
    total: Family<Outcome, Counter>,
    errors: Family<Reason, Counter>,
    time: Family<Name, Histogram, fn() -> Histogram>,
    active: Family<Name, Gauge>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Outcome {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Reason {
    controller: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Name {
    controller: &'static str,
}

impl DriveMetrics {
    /// Registers them, once for all controllers.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        let all = Self {
            total: Family::default(),
            errors: Family::default(),
            time: Family::new_with_constructor(histogram),
            active: Family::default(),
        };
        metrics.register(|registry| {
            registry.register("reconcile", "Reconciles by result", all.total.clone());
            registry.register("reconcile_errors", "Reconciles that failed, by reason", all.errors.clone());
            registry.register("reconcile_time_seconds", "How long reconciles take", all.time.clone());
            registry.register("reconcile_active", "Reconciles that are going on", all.active.clone());
        });
        all
    }
}

/// How often in a row an object has failed.
type Failures = Arc<Mutex<HashMap<(String, String), u32>>>;

/// Drives a controller until `stop`, which lets those that are going on come to their end.
///
/// `objects` are those that there is reason to look at, whose cache is `store`. So many are looked at at a time.
pub async fn drive<K, Fut>(
    name: &'static str,
    concurrency: u16,
    store: Store<K>,
    objects: impl Stream<Item = ObjectRef<K>> + Send + 'static,
    reconcile: impl Fn(Arc<K>) -> Fut + Send + Sync + Clone + 'static,
    metrics: DriveMetrics,
    stop: CancellationToken,
) where
    K: Cached,
    Fut: Future<Output = Result<Next, Failure>> + Send + 'static,
{
    let failures = Failures::default();
    let config = controller::Config::default().concurrency(concurrency);
    let requests = objects.take_until(stop.cancelled_owned()).map(Ok::<_, Infallible>);
    let each = move |object: Arc<K>, _: Arc<()>| {
        let (reconcile, metrics, failures) = (reconcile.clone(), metrics.clone(), failures.clone());
        async move { Ok::<_, Infallible>(run(name, object, reconcile, &metrics, &failures).await) }.boxed()
    };
    let never = |_, _: &Infallible, _: Arc<()>| Action::await_change();
    let runs = controller::applier(each, never, Arc::new(()), store, requests, config);
    runs.for_each(|_| std::future::ready(())).await;
}

/// One reconcile: whatever it does, something comes of it.
async fn run<K: Cached, Fut>(
    name: &'static str,
    object: Arc<K>,
    reconcile: impl Fn(Arc<K>) -> Fut,
    metrics: &DriveMetrics,
    failures: &Failures,
) -> Action
where
    Fut: Future<Output = Result<Next, Failure>>,
{
    let key =
        (object.meta().namespace.clone().unwrap_or_default(), object.meta().name.clone().unwrap_or_default());
    let active = metrics.active.get_or_create(&Name { controller: name }).clone();
    active.inc();
    let began = Instant::now();
    let work = AssertUnwindSafe(reconcile(object)).catch_unwind();
    let done = match tokio::time::timeout(LIMIT, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(_)) => Err(Failure { category: "Panic", error: anyhow::anyhow!("the reconcile panicked") }),
        Err(_) => Err(Failure { category: "Timeout", error: anyhow::anyhow!("no end within {LIMIT:?}") }),
    };
    active.dec();
    metrics.time.get_or_create(&Name { controller: name }).observe(began.elapsed().as_secs_f64());
    let result = if done.is_ok() { "success" } else { "error" };
    metrics.total.get_or_create(&Outcome { controller: name, result }).inc();
    let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
    match done {
        Ok(next) => {
            failures.remove(&key);
            match next {
                Next::Settled => Action::requeue(RESYNC.mul_f64(0.9 + 0.2 * fastrand::f64())),
                Next::After(pause) => Action::requeue(pause),
            }
        }
        Err(Failure { category, error }) => {
            let count = failures.entry(key.clone()).and_modify(|count| *count += 1).or_insert(1);
            let pause = backoff(*count, fastrand::f64());
            metrics.errors.get_or_create(&Reason { controller: name, reason: category }).inc();
            let (namespace, object) = key;
            // A conflict is how another's write is noticed: the next look has it.
            if category == "Conflict" {
                tracing::debug!(
                    controller = name,
                    namespace,
                    object,
                    "Looks again: something has changed meanwhile"
                );
            } else {
                tracing::warn!(
                    controller = name,
                    namespace,
                    object,
                    category,
                    error = format!("{error:#}"),
                    ?pause,
                    "Could not reconcile"
                );
            }
            Action::requeue(pause)
        }
    }
}

/// The pause after so many failures in a row; `chance` is between 0 and 1.
fn backoff(count: u32, chance: f64) -> Duration {
    const FIRST: Duration = Duration::from_millis(100);
    const MOST: Duration = Duration::from_secs(60);
    let pause = FIRST.saturating_mul(1 << count.saturating_sub(1).min(16)).min(MOST);
    pause.mul_f64(0.5 + 0.5 * chance)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_with_each_failure_up_to_a_minute_and_is_never_quite_the_same() {
        let all: Vec<_> = [1, 2, 3, 10, 11, 40, u32::MAX].map(|count| backoff(count, 1.0).as_millis()).into();
        assert_eq!(all, [100, 200, 400, 51_200, 60_000, 60_000, 60_000]);
        assert_eq!(backoff(1, 0.0), Duration::from_millis(50));
    }
}
