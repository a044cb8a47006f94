//! The values of Secrets that members export, for those that import them. What was read is kept for as long as the Secret stays
//! as it is.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};

use crate::controllers::flow::secrets::SecretError;

/// How long the API server may take to show a Secret.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a Secret holds, as text.
pub type Data = Arc<BTreeMap<String, String>>;

/// By namespace and name: the version that was read, and what it held.
type Known = HashMap<(String, String), (String, Data)>;

/// Reads Secrets that are exported.
pub struct SecretValues {
    client: kube::Client,
    metadata: Store<PartialObjectMeta<Secret>>,
    known: Mutex<Known>,
}

impl SecretValues {
    /// None are known yet.
    #[must_use]
    pub fn new(client: kube::Client, metadata: Store<PartialObjectMeta<Secret>>) -> Self {
        Self { client, metadata, known: Mutex::default() }
    }

    /// What a Secret holds; none where there is no such Secret. Keys that hold no text are left out.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub async fn read(&self, namespace: &str, name: &str) -> Result<Option<Data>, SecretError> {
        let key = (namespace.to_owned(), name.to_owned());
        let seen = self.metadata.get(&ObjectRef::new(name).within(namespace));
        let Some(seen) = seen.filter(|seen| seen.metadata.deletion_timestamp.is_none()) else {
            self.known().remove(&key);
            return Ok(None);
        };
        let version = seen.metadata.resource_version.clone().unwrap_or_default();
        if let Some((known, data)) = self.known().get(&key)
            && *known == version
        {
            return Ok(Some(data.clone()));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let read = tokio::time::timeout(PATIENCE, api.get_opt(name)).await;
        let read = read.map_err(|_| SecretError::Timeout(name.into()))?;
        let Some(secret) = read.map_err(|error| SecretError::Read(name.into(), error))? else {
            return Ok(None);
        };
        let version = secret.metadata.resource_version.unwrap_or_default();
        let text =
            |(key, value): (String, k8s_openapi::ByteString)| Some((key, String::from_utf8(value.0).ok()?));
        let data: Data = Arc::new(secret.data.unwrap_or_default().into_iter().filter_map(text).collect());
        self.known().insert(key, (version, data.clone()));
        Ok(Some(data))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
