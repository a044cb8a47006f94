//! Who leads: one process writes, the others stand by.
//!
//! A Lease is renewed by PUT with the resourceVersion that was seen, so that two can never take it together. Another's
//! lease is over when *our* monotonic clock saw no change of it for its duration: the times that are written in it are for
//! people. Election alone fences nothing off, so that every write asks the [`Fence`] before it starts: its answer is no from
//! the moment on when our own clock says that the lease may be over, whatever else this process was doing.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::clock;

/// How long a lease lasts after its last renewal: nobody else leads before.
const DURATION: Duration = Duration::from_secs(15);
/// How long after the start of the last renewal the leader may still begin to write. What it has begun then has the rest
/// of the lease to arrive.
const DEADLINE: Duration = Duration::from_secs(10);
/// How often the lease is renewed, or looked at.
const RETRY: Duration = Duration::from_secs(2);

/// This process does not lead, or no longer.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("this process does not lead any more: its lease was not renewed in time")]
pub struct NotLeader;

/// Until when writes may begin.
#[derive(Clone, Debug)]
pub struct Fence(Arc<Mutex<Option<Instant>>>);

impl Fence {
    /// A fence that closes at a time, unless the lease is renewed before.
    #[must_use]
    pub fn until(end: Instant) -> Self {
        Self(Arc::new(Mutex::new(Some(end))))
    }

    /// A fence that is open for ever: for those who write what nobody else does.
    #[must_use]
    pub fn open() -> Self {
        Self(Arc::new(Mutex::new(None)))
    }

    /// Asks before a write begins.
    ///
    /// # Errors
    /// The lease may be over.
    pub fn check(&self) -> Result<(), NotLeader> {
        match *self.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(until) if Instant::now() >= until => Err(NotLeader),
            _ => Ok(()),
        }
    }

    fn extend(&self, until: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(until);
    }
}

/// The lease of one install.
#[derive(Clone)]
pub struct Election {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// What leading means: a fence for writes, and a token that is cancelled when it is over.
#[derive(Clone, Debug)]
pub struct Leadership {
    /// Asked before each write.
    pub fence: Fence,
    /// Cancelled when the lease is lost.
    pub lost: CancellationToken,
}

/// What is known of the lease: as it was last seen, and when it last changed before our eyes.
#[derive(Clone, Debug)]
struct Seen {
    version: Option<String>,
    changed: Instant,
}

/// What to do about the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    /// Nobody has it, or its holder has gone silent.
    Take,
    /// It is another's.
    Wait,
    /// It is ours.
    Renew,
}

impl Election {
    /// For the lease `name` in a namespace. `client` should be used for nothing else: renewals must not queue behind other
    /// requests.
    #[must_use]
    pub fn new(client: Client, namespace: &str, name: &str, identity: &str) -> Self {
        let api = Api::namespaced(client, namespace);
        Self { api, name: name.to_owned(), identity: identity.to_owned() }
    }

    /// Waits until this process leads, and goes on renewing until `stop`; then the lease is given back. None where it was
    /// told to stop before.
    pub async fn lead(self, stop: CancellationToken) -> Option<(Leadership, tokio::task::JoinHandle<()>)> {
        let mut seen = Seen { version: None, changed: Instant::now() };
        let (lease, began) = loop {
            let began = Instant::now();
            match self.attempt(&mut seen).await {
                Ok(Some(lease)) => break (lease, began),
                Ok(None) => {}
                Err(error) => tracing::warn!(%error, lease = self.name, "Could not look at the lease"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(RETRY.mul_f64(0.8 + 0.4 * fastrand::f64())) => {}
            }
        };
        tracing::info!(lease = self.name, identity = self.identity, "Leads");
        let leadership = Leadership { fence: Fence::until(began + DEADLINE), lost: CancellationToken::new() };
        let renewing = tokio::spawn(self.renew(lease, leadership.clone(), stop));
        Some((leadership, renewing))
    }

    /// Looks at the lease, and takes it where it may.
    async fn attempt(&self, seen: &mut Seen) -> Result<Option<Lease>, kube::Error> {
        let lease = within(self.api.get_opt(&self.name)).await?;
        let version = lease.as_ref().and_then(ResourceExt::resource_version);
        if version != seen.version {
            *seen = Seen { version, changed: Instant::now() };
        }
        let holder = lease.as_ref().and_then(|lease| lease.spec.as_ref());
        if decide(holder, seen.changed.elapsed(), &self.identity) == Decision::Wait {
            return Ok(None);
        }
        let taken = match lease {
            None => within(self.api.create(&PostParams::default(), &self.lease(None))).await,
            Some(lease) => within(self.put(self.lease(Some(&lease)))).await,
        };
        match taken {
            Ok(lease) => Ok(Some(lease)),
            // Another was faster.
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn renew(self, mut lease: Lease, leadership: Leadership, stop: CancellationToken) {
        let mut last = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return self.release(lease).await,
                () = tokio::time::sleep(RETRY) => {}
            }
            let began = Instant::now();
            // One that was frozen must not renew what it may have lost: only the answer can tell.
            match within(self.put(self.lease(Some(&lease)))).await {
                Ok(renewed) => {
                    lease = renewed;
                    last = began;
                    leadership.fence.extend(began + DEADLINE);
                }
                Err(kube::Error::Api(status)) if status.is_conflict() => match self.reread(&lease).await {
                    Some(same) => lease = same,
                    None => break,
                },
                Err(error) => tracing::warn!(%error, lease = self.name, "Could not renew the lease"),
            }
            if last.elapsed() >= DEADLINE {
                break;
            }
        }
        tracing::error!(lease = self.name, identity = self.identity, "Lost the lease");
        leadership.lost.cancel();
    }

    /// The lease as it is, where it is still ours: somebody may only have put a label on it.
    async fn reread(&self, known: &Lease) -> Option<Lease> {
        let lease = within(self.api.get_opt(&self.name)).await;
        match lease {
            Ok(lease) => lease.filter(|lease| {
                let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_ref());
                let turns = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
                holder == Some(&self.identity) && turns(lease) == turns(known)
            }),
            // Unknown: the deadline decides.
            Err(_) => Some(known.clone()),
        }
    }

    /// Gives the lease back, so that the next one need not wait for its end.
    async fn release(&self, mut lease: Lease) {
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
            spec.lease_duration_seconds = Some(1);
        }
        match within(self.put(lease)).await {
            Ok(_) => tracing::info!(lease = self.name, "Gave the lease back"),
            Err(error) => tracing::warn!(%error, lease = self.name, "Could not give the lease back"),
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this is part of the one room that writes")]
    async fn put(&self, lease: Lease) -> Result<Lease, kube::Error> {
        self.api.replace(&self.name, &PostParams::default(), &lease).await
    }

    /// The lease as it is when we hold it.
    fn lease(&self, before: Option<&Lease>) -> Lease {
        let now = MicroTime(clock::now());
        let mut lease = before.cloned().unwrap_or_default();
        lease.metadata.name = Some(self.name.clone());
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |turns| turns + 1));
        }
        spec.holder_identity = Some(self.identity.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }
}

/// Whether a lease may be taken, given how long it has not changed before our eyes.
fn decide(lease: Option<&LeaseSpec>, unchanged: Duration, me: &str) -> Decision {
    let Some(lease) = lease else { return Decision::Take };
    let holder = lease.holder_identity.as_deref().unwrap_or_default();
    let duration = lease.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    if holder.is_empty() {
        Decision::Take
    } else if holder == me {
        Decision::Renew
    } else if unchanged >= duration.map_or(DURATION, Duration::from_secs) {
        Decision::Take
    } else {
        Decision::Wait
    }
}

/// A request with a limit that leaves time for another one before the deadline.
async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, kube::Error> {
    const LIMIT: Duration = Duration::from_secs(4);
    tokio::time::timeout(LIMIT, request)
        .await
        .unwrap_or_else(|_| Err(kube::Error::Service("the API server did not answer within 4 s".into())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held_by(holder: &str) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.into()),
            lease_duration_seconds: Some(15),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_lease_is_taken_only_when_nobody_has_it_or_its_holder_has_gone_silent() {
        let seconds = Duration::from_secs;
        assert_eq!(decide(None, seconds(0), "a"), Decision::Take);
        assert_eq!(decide(Some(&held_by("")), seconds(0), "a"), Decision::Take);
        assert_eq!(decide(Some(&held_by("a")), seconds(99), "a"), Decision::Renew);
        assert_eq!(decide(Some(&held_by("b")), seconds(14), "a"), Decision::Wait);
        assert_eq!(decide(Some(&held_by("b")), seconds(15), "a"), Decision::Take);
    }

    #[test]
    fn a_fence_closes_by_itself_and_opens_with_a_renewal() {
        let fence = Fence::until(Instant::now());
        assert_eq!(fence.check(), Err(NotLeader));
        fence.extend(Instant::now() + DEADLINE);
        assert_eq!(fence.check(), Ok(()));
        assert_eq!(Fence::open().check(), Ok(()));
    }
}
