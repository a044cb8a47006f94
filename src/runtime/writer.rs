//! The one writer to the Kubernetes API.
//!
//! Each write is fenced, has a time limit, and names what it expects: an update or a removal carries the uid and the
//! resourceVersion that were seen, so that a request of one who no longer leads cannot undo what its successor has done.
#![allow(clippy::disallowed_methods, reason = "this is the one room that writes")]

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::{Api, DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt as _};
use nix::sys::signal::{Signal, raise};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use thiserror::Error;

use super::consistency::Consistency;
use super::lease::{Fence, NotLeader};

mod same;

/// The hash of what was last applied: an object that has it, and holds all that was applied, needs no write.
pub const APPLIED: &str = "millrace.dev/applied";

/// How long a write may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What the operator may write to: any kind that lives in a namespace.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<K> Object for K where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// Why a write did not happen, or may not have.
#[derive(Debug, Error)]
pub enum WriteError {
    /// The object is another than the one that was seen: look again.
    #[error("the object has changed meanwhile")]
    Conflict,
    /// An object of this name belongs to somebody else.
    #[error("an object of this name belongs to somebody else")]
    Foreign,
    /// The object is gone.
    #[error("the object is gone")]
    Gone,
    /// The namespace is going: nothing can be made in it.
    #[error("the namespace is being deleted")]
    NamespaceEnding,
    /// The API server does not allow it: rights, quota, a policy.
    #[error("the API server does not allow it: {0}")]
    Forbidden(String),
    /// The API server takes no such object.
    #[error("the API server takes no such object: {0}")]
    Invalid(String),
    /// No answer came in time: it may have happened.
    #[error("the API server did not answer within {LIMIT:?}")]
    Timeout,
    /// Somebody else leads now.
    #[error(transparent)]
    NotLeader(#[from] NotLeader),
    /// Anything else.
    #[error("the request failed")]
    Other(#[source] Box<kube::Error>),
}

impl WriteError {
    /// One word for metrics.
    #[must_use]
    pub const fn category(&self) -> &'static str {
        match self {
            Self::Conflict => "Conflict",
            Self::Foreign => "Foreign",
            Self::Gone => "Gone",
            Self::NamespaceEnding => "NamespaceEnding",
            Self::Forbidden(_) => "Forbidden",
            Self::Invalid(_) => "Invalid",
            Self::Timeout => "Timeout",
            Self::NotLeader(_) => "NotLeader",
            Self::Other(_) => "Other",
        }
    }
}

impl From<kube::Error> for WriteError {
    fn from(error: kube::Error) -> Self {
        let kube::Error::Api(status) = &error else { return Self::Other(Box::new(error)) };
        let ending = || {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
        };
        if status.is_conflict() {
            Self::Conflict
        } else if status.is_not_found() {
            Self::Gone
        } else if status.is_forbidden() {
            if ending() { Self::NamespaceEnding } else { Self::Forbidden(status.message.clone()) }
        } else if status.is_invalid() {
            Self::Invalid(status.message.clone())
        } else {
            Self::Other(Box::new(error))
        }
    }
}

/// Accidents for tests: what they show must hold wherever a process ends.
#[derive(Clone, Copy, Debug, Default)]
pub struct Accidents {
    /// The process ends after this write.
    pub exit_after: Option<u64>,
    /// The process stands still before this write, after it has asked the fence.
    pub stop_before: Option<u64>,
}

/// Writes in the name of one controller.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    manager: &'static str,
    fence: Fence,
    accidents: Accidents,
    writes: Arc<AtomicU64>,
    consistency: Arc<Consistency>,
}

impl Writer {
    /// For a controller, named `millrace-…`.
    #[must_use]
    pub fn new(client: Client, manager: &'static str, fence: Fence, accidents: Accidents) -> Self {
        Self { client, manager, fence, accidents, writes: Arc::default(), consistency: Arc::default() }
    }

    /// The same, in the name of another controller: writes are counted together.
    #[must_use]
    pub fn named(&self, manager: &'static str) -> Self {
        Self { manager, ..self.clone() }
    }

    /// Whether a cache does not have our own last write of an object yet: whoever decides by it would do things twice.
    #[must_use]
    pub fn is_ahead_of<K: Resource<DynamicType = ()>>(
        &self,
        namespace: &str,
        name: &str,
        cached: Option<&ObjectMeta>,
    ) -> bool {
        self.consistency.is_behind(&K::kind(&()), namespace, name, cached, Instant::now())
    }

    /// The fence that is asked before each write: for those who write elsewhere in the name of the same leader.
    #[must_use]
    pub const fn fence(&self) -> &Fence {
        &self.fence
    }

    /// Asks the API server whether an object is still wanted as it was seen: before something is destroyed, for a cache may
    /// be old.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] where its spec is another or it is being deleted meanwhile, [`WriteError::Gone`] where it
    /// is gone; whatever the API server says.
    pub async fn confirm<K: Object>(&self, seen: &K) -> Result<(), WriteError> {
        let live = self.get::<K>(seen.meta()).await?.ok_or(WriteError::Gone)?;
        let wish = |meta: &ObjectMeta| (meta.uid.clone(), meta.generation, meta.deletion_timestamp.is_some());
        if wish(live.meta()) == wish(seen.meta()) { Ok(()) } else { Err(WriteError::Conflict) }
    }

    /// Makes an object of which only the metadata was seen what it should be. Writes nothing where the last one that was
    /// written is the same: what a person has changed in it by hand is not noticed.
    ///
    /// # Errors
    /// As for [`Writer::put`].
    pub async fn put_by_hash<K: Object>(
        &self,
        wanted: &K,
        seen: Option<&ObjectMeta>,
    ) -> Result<(), WriteError> {
        let applied = |meta: &ObjectMeta| meta.annotations.as_ref().and_then(|all| all.get(APPLIED).cloned());
        let there = seen.filter(|seen| same_owner(wanted.meta(), seen)).and_then(applied);
        if there.is_some() && there == applied(stamped(wanted).meta()) {
            return Ok(());
        }
        self.put(wanted, None).await
    }

    /// Makes an object, or makes the one that was seen what it should be. Writes nothing where it is so already.
    ///
    /// # Errors
    /// [`WriteError::Foreign`] where an object of this name has another owner; whatever the API server says.
    pub async fn put<K: Object>(&self, wanted: &K, live: Option<&K>) -> Result<(), WriteError> {
        let wanted = stamped(wanted);
        match live {
            Some(live) => self.apply(&wanted, live).await,
            None => match self.create(&wanted).await {
                // The cache is behind, or somebody else was first: the server knows.
                Err(WriteError::Conflict) => {
                    let live = self.get::<K>(wanted.meta()).await?.ok_or(WriteError::Conflict)?;
                    self.apply(&wanted, &live).await
                }
                done => done,
            },
        }
    }

    /// Makes an object that nobody has made yet.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] where there is one of its name; whatever the API server says.
    pub async fn put_new<K: Object>(&self, wanted: &K) -> Result<(), WriteError> {
        self.create(wanted).await
    }

    /// An apply that names a version makes an object that is not there, and is in conflict with one that is, whatever its
    /// version. A POST would make the fields those of another manager ("Update" is one, "Apply" another, under the same
    /// name), so that what is wanted no more would stay in the object for ever.
    async fn create<K: Object>(&self, wanted: &K) -> Result<(), WriteError> {
        /// No object ever has it: the store's first revision is that of nothing.
        const NO_VERSION: &str = "1";
        let mut body = serde_json::to_value(wanted).unwrap_or_default();
        body["metadata"]["resourceVersion"] = json!(NO_VERSION);
        let api: Api<K> = self.api(wanted.meta());
        let params = PatchParams::apply(self.manager).force();
        let made = self.write(api.patch(&wanted.name_any(), &params, &Patch::Apply(&body))).await?;
        self.remember(&made);
        Ok(())
    }

    async fn apply<K: Object>(&self, wanted: &K, live: &K) -> Result<(), WriteError> {
        if !same_owner(wanted.meta(), live.meta()) {
            return Err(WriteError::Foreign);
        }
        let mut body = serde_json::to_value(wanted).unwrap_or_default();
        if same::holds(&serde_json::to_value(live).unwrap_or_default(), &body) {
            return Ok(());
        }
        expect(&mut body, live.meta());
        let api: Api<K> = self.api(live.meta());
        let params = PatchParams::apply(self.manager).force();
        let written = self.write(api.patch(&live.name_any(), &params, &Patch::Apply(&body))).await?;
        self.remember(&written);
        Ok(())
    }

    /// Writes the status of an object, where it differs from the one that was seen.
    ///
    /// # Errors
    /// Whatever the API server says.
    pub async fn put_status<K: Object, S: Serialize + PartialEq>(
        &self,
        seen: &K,
        before: Option<&S>,
        status: &S,
    ) -> Result<(), WriteError> {
        if before == Some(status) {
            return Ok(());
        }
        let mut body = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {}, "status": status});
        expect(&mut body, seen.meta());
        let api: Api<K> = self.api(seen.meta());
        let params = PatchParams::apply(self.manager).force();
        let written = self.write(api.patch_status(&seen.name_any(), &params, &Patch::Apply(&body))).await?;
        self.remember(&written);
        Ok(())
    }

    /// Adds a finalizer to an object, and gives it as it is then. It must have been seen with all that others have set.
    ///
    /// # Errors
    /// Whatever the API server says.
    pub async fn add_finalizer<K: Object>(&self, seen: &K, finalizer: &str) -> Result<K, WriteError> {
        let others = seen.finalizers().iter().cloned();
        self.set_finalizers(seen, &others.chain([finalizer.to_owned()]).collect::<Vec<_>>()).await
    }

    /// Takes a finalizer from an object, and gives it as it is then.
    ///
    /// # Errors
    /// As for [`Writer::add_finalizer`].
    pub async fn remove_finalizer<K: Object>(&self, seen: &K, finalizer: &str) -> Result<K, WriteError> {
        let others = seen.finalizers().iter().filter(|it| *it != finalizer);
        self.set_finalizers(seen, &others.cloned().collect::<Vec<_>>()).await
    }

    async fn set_finalizers<K: Object>(&self, seen: &K, finalizers: &[String]) -> Result<K, WriteError> {
        let mut body = json!({"metadata": {"finalizers": finalizers}});
        expect(&mut body, seen.meta());
        let api: Api<K> = self.api(seen.meta());
        let params = PatchParams { field_manager: Some(self.manager.into()), ..PatchParams::default() };
        let written = self.write(api.patch(&seen.name_any(), &params, &Patch::Merge(&body))).await?;
        self.remember(&written);
        Ok(written)
    }

    /// Removes the object that was seen, and no other of its name. Its children go in the background.
    ///
    /// # Errors
    /// [`WriteError::Conflict`] where there is another of its name; whatever the API server says. One that is gone is no
    /// error.
    pub async fn delete<K: Object>(&self, seen: &ObjectMeta) -> Result<(), WriteError> {
        self.remove::<K>(seen, DeleteParams::default()).await
    }

    async fn remove<K: Object>(&self, seen: &ObjectMeta, how: DeleteParams) -> Result<(), WriteError> {
        let api: Api<K> = self.api(seen);
        let uid = || Preconditions { uid: seen.uid.clone(), resource_version: None };
        let params = DeleteParams {
            preconditions: Some(how.preconditions.clone().unwrap_or_else(uid)),
            propagation_policy: Some(PropagationPolicy::Background),
            ..how
        };
        let name = seen.name.clone().unwrap_or_default();
        let done = match self.write(api.delete(&name, &params)).await {
            Err(WriteError::Gone) => None,
            done => done?.left(),
        };
        match done {
            // It goes once its finalizers, or its time to end, are over.
            Some(going) if going.meta().deletion_timestamp.is_some() => self.remember(&going),
            _ => self.consistency.removed(&K::kind(&()), seen),
        }
        Ok(())
    }

    /// Removes the object exactly as it was seen: one whose owner has changed meanwhile, too, stays.
    ///
    /// # Errors
    /// As for [`Writer::delete`], and [`WriteError::Conflict`] where it has changed.
    pub async fn delete_exact<K: Object>(&self, seen: &ObjectMeta) -> Result<(), WriteError> {
        let exact = Preconditions { uid: seen.uid.clone(), resource_version: seen.resource_version.clone() };
        self.remove::<K>(seen, DeleteParams { preconditions: Some(exact), ..DeleteParams::default() }).await
    }

    /// Removes the object that was seen at once, without the time that it has to end: where nobody would wait for it.
    ///
    /// # Errors
    /// As for [`Writer::delete`].
    pub async fn delete_now<K: Object>(&self, seen: &ObjectMeta) -> Result<(), WriteError> {
        self.remove::<K>(seen, DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() })
            .await
    }

    /// Whether the object of this name is of the same owner, as the API server has it. One that is gone is.
    ///
    /// # Errors
    /// Whatever the API server says.
    pub async fn is_ours<K: Object>(&self, like: &K) -> Result<bool, WriteError> {
        Ok(self.get::<K>(like.meta()).await?.is_none_or(|found| same_owner(like.meta(), found.meta())))
    }

    /// Removes the object of this name, where it is ours: after a live look, since nobody watches its kind.
    ///
    /// # Errors
    /// Whatever the API server says. One that is gone or belongs to somebody else is no error.
    pub async fn delete_unwatched<K: Object>(&self, like: &ObjectMeta) -> Result<(), WriteError> {
        match self.get::<K>(like).await? {
            Some(found) if same_owner(like, found.meta()) => self.delete::<K>(found.meta()).await,
            _ => Ok(()),
        }
    }

    fn remember<K: Object>(&self, written: &K) {
        self.consistency.wrote(&K::kind(&()), written.meta(), Instant::now());
    }

    /// The object as the API server has it.
    async fn get<K: Object>(&self, meta: &ObjectMeta) -> Result<Option<K>, WriteError> {
        let api: Api<K> = self.api(meta);
        let name = meta.name.clone().unwrap_or_default();
        let found = tokio::time::timeout(LIMIT, api.get_opt(&name)).await;
        Ok(found.map_err(|_| WriteError::Timeout)??)
    }

    fn api<K: Object>(&self, meta: &ObjectMeta) -> Api<K> {
        Api::namespaced(self.client.clone(), meta.namespace.as_deref().unwrap_or_default())
    }

    /// One write: fenced, limited, and counted.
    async fn write<T>(&self, request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
        self.fence.check()?;
        let number = self.writes.fetch_add(1, Ordering::SeqCst) + 1;
        if self.accidents.stop_before == Some(number) {
            let _ = raise(Signal::SIGSTOP);
        }
        let done = tokio::time::timeout(LIMIT, request).await;
        if self.accidents.exit_after == Some(number) {
            std::process::exit(87);
        }
        Ok(done.map_err(|_| WriteError::Timeout)??)
    }
}

/// An object with the hash of what it is.
fn stamped<K: Object>(wanted: &K) -> K {
    let mut stamped = wanted.clone();
    stamped.annotations_mut().remove(APPLIED);
    let hash = same::hash(&serde_json::to_value(&stamped).unwrap_or_default());
    stamped.annotations_mut().insert(APPLIED.to_owned(), hash);
    stamped
}

/// Makes a write good for one version of one object only.
fn expect(body: &mut Value, seen: &ObjectMeta) {
    body["metadata"]["name"] = json!(seen.name);
    body["metadata"]["namespace"] = json!(seen.namespace);
    body["metadata"]["uid"] = json!(seen.uid);
    body["metadata"]["resourceVersion"] = json!(seen.resource_version);
}

/// Whether an object belongs to the owner of the one that is wanted: to the same controller, or both to none.
fn same_owner(wanted: &ObjectMeta, live: &ObjectMeta) -> bool {
    let controller = |meta: &ObjectMeta| {
        let owners = meta.owner_references.iter().flatten();
        owners
            .into_iter()
            .find(|owner| owner.controller == Some(true))
            .map(|owner: &OwnerReference| owner.uid.clone())
    };
    let ours = |meta: &ObjectMeta| {
        meta.labels
            .iter()
            .flatten()
            .any(|(key, value)| key == crate::api::label::MANAGED_BY && value == "millrace")
    };
    controller(wanted) == controller(live) && ours(live)
}
