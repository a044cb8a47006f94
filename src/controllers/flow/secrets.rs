//! The content of the Secrets that nodes' credentials come from, as hashes: a change replaces the node's pods.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use data_encoding::HEXLOWER;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use sha2::{Digest, Sha256};

/// How long the API server may take to show a Secret.
const PATIENCE: Duration = Duration::from_secs(10);

/// Hashes of Secrets. The watch holds their metadata only; the content of one that a Flow names is read when its version is
/// new, and what is kept is the hash.
pub struct SecretHashes {
    client: kube::Client,
    metadata: Store<PartialObjectMeta<Secret>>,
    known: Mutex<HashMap<(String, String), (String, String)>>,
}

/// A Secret could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The API server refuses or cannot.
    #[error("cannot read the Secret {0}")]
    Read(String, #[source] kube::Error),
    /// It does not answer.
    #[error("the API server did not show the Secret {0} within {PATIENCE:?}")]
    Timeout(String),
}

impl SecretHashes {
    /// None are known yet.
    #[must_use]
    pub fn new(client: kube::Client, metadata: Store<PartialObjectMeta<Secret>>) -> Self {
        Self { client, metadata, known: Mutex::default() }
    }

    /// The hash of a Secret's content; none where there is no such Secret.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub async fn hash(&self, namespace: &str, name: &str) -> Result<Option<String>, SecretError> {
        let reference = ObjectRef::new(name).within(namespace);
        let Some(seen) = self.metadata.get(&reference) else { return Ok(None) };
        if seen.metadata.deletion_timestamp.is_some() {
            return Ok(None);
        }
        let version = seen.metadata.resource_version.clone().unwrap_or_default();
        let key = (namespace.to_owned(), name.to_owned());
        if let Some((known, hash)) = self.known().get(&key)
            && *known == version
        {
            return Ok(Some(hash.clone()));
        }
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let read = tokio::time::timeout(PATIENCE, api.get_opt(name)).await;
        let read = read.map_err(|_| SecretError::Timeout(name.into()))?;
        let Some(secret) = read.map_err(|error| SecretError::Read(name.into(), error))? else {
            return Ok(None);
        };
        let (version, hash) = (secret.metadata.resource_version.clone().unwrap_or_default(), hash(&secret));
        self.known().insert(key, (version, hash.clone()));
        Ok(Some(hash))
    }

    fn known(&self) -> std::sync::MutexGuard<'_, HashMap<(String, String), (String, String)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(secret: &Secret) -> String {
    let mut sha = Sha256::new();
    for (key, value) in secret.data.iter().flatten() {
        for part in [key.as_bytes(), &value.0] {
            sha.update((part.len() as u64).to_be_bytes());
            sha.update(part);
        }
    }
    let mut hex = HEXLOWER.encode(&sha.finalize());
    hex.truncate(16);
    hex
}
