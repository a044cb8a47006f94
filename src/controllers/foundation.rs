//! The Secret that an install begins with: keys and credentials for the broker. It is made once, by whoever is first, and
//! the broker's own pod waits for it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use data_encoding::HEXLOWER;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client};

use crate::api::label;
use crate::broker::credentials::{Foundation, Issuer};
use crate::clock;
use crate::runtime::{Accidents, Fence, WriteError, Writer};

/// The part of the server's configuration that names the accounts.
const SERVER: &str = "auth.conf";
/// The seed of the account.
const ACCOUNT: &str = "account.nk";
/// The operator's credentials.
const OPERATOR: &str = "operator.creds";
/// The gateways' credentials.
const GATEWAY: &str = "gateway.creds";
/// What the ids of messages are derived from: nobody can guess one.
const MESSAGES: &str = "message.key";

const LIMIT: Duration = Duration::from_secs(10);

/// How the broker knows who is who.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// By tokens that the operator signs
    Jwt,
    /// It does not ask
    None,
}

/// What the operator takes from the Secret.
pub struct Keys {
    /// Makes credentials.
    pub issuer: Issuer,
    /// The operator's own credentials; empty where there are none.
    pub operator: String,
    /// What drain keys are derived from.
    pub key: Vec<u8>,
}

/// Reads the Secret, and makes it where there is none.
///
/// # Errors
/// The API server does not answer or refuses; or the Secret is there and lacks something.
pub async fn keys(client: &Client, namespace: &str, name: &str, auth: Auth) -> anyhow::Result<Keys> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let what = || format!("cannot read the Secret '{name}' in namespace '{namespace}'");
    let secret = if let Some(secret) = read(&api, name).await.with_context(what)? {
        secret
    } else {
        // Nobody else writes it, and only one creation succeeds.
        let writer = Writer::new(client.clone(), "millrace-foundation", Fence::open(), Accidents::default());
        match writer.put_new(&make(namespace, name, auth)?).await {
            Ok(()) => tracing::info!(namespace, name, "Made the Secret with the broker's keys"),
            Err(WriteError::Conflict) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot make the Secret '{name}'")),
        }
        read(&api, name)
            .await
            .with_context(what)?
            .context("the Secret with the broker's keys is gone again")?
    };
    let data = secret.data.unwrap_or_default();
    let text = |key: &str| data.get(key).map(|value| String::from_utf8_lossy(&value.0).into_owned());
    let needed = |key: &str| {
        text(key).with_context(|| {
            format!("the Secret '{name}' in namespace '{namespace}' lacks '{key}': restore it, or delete the Secret to \
                     begin anew (the broker's pod must then be restarted)")
        })
    };
    let issuer = match auth {
        Auth::Jwt => Issuer::new(&needed(ACCOUNT)?)?,
        Auth::None => Issuer::none(),
    };
    Ok(Keys {
        issuer,
        operator: text(OPERATOR).unwrap_or_default(),
        key: needed(MESSAGES)?.trim().as_bytes().to_vec(),
    })
}

/// The operator's credentials in the Secret; empty where the broker asks for none. Nothing is made.
///
/// # Errors
/// The API server does not answer or refuses; or there is no such Secret, or it lacks them.
pub async fn operator(client: &Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let what = || format!("cannot read the Secret '{name}' in namespace '{namespace}'");
    let secret = read(&api, name).await.with_context(what)?;
    let data = secret.and_then(|secret| secret.data).with_context(|| {
        format!(
            "there is no Secret '{name}' in namespace '{namespace}': say by --install-namespace and --broker-secret \
             where the install has it"
        )
    })?;
    let credentials = data
        .get(OPERATOR)
        .with_context(|| format!("the Secret '{name}' in namespace '{namespace}' lacks '{OPERATOR}'"))?;
    Ok(String::from_utf8_lossy(&credentials.0).into_owned())
}

async fn read(api: &Api<Secret>, name: &str) -> anyhow::Result<Option<Secret>> {
    let found = tokio::time::timeout(LIMIT, api.get_opt(name)).await;
    Ok(found.context("the API server did not answer in time")??)
}

fn make(namespace: &str, name: &str, auth: Auth) -> anyhow::Result<Secret> {
    let mut random = [0_u8; 32];
    rustls::crypto::ring::default_provider()
        .secure_random
        .fill(&mut random)
        .map_err(|_| anyhow::anyhow!("the system gives no random numbers"))?;
    let mut data = BTreeMap::from([(MESSAGES, HEXLOWER.encode(&random))]);
    match auth {
        Auth::Jwt => {
            let made = Foundation::new(clock::now().as_second())?;
            data.extend([
                (SERVER, made.server),
                (ACCOUNT, made.account),
                (OPERATOR, made.operator),
                (GATEWAY, made.gateway),
            ]);
        }
        Auth::None => {
            let open = "# Whoever reaches this server may do everything.\n".to_owned();
            data.extend([(SERVER, open), (OPERATOR, String::new()), (GATEWAY, String::new())]);
        }
    }
    let labels = [
        (label::NAME, "millrace"),
        (label::COMPONENT, "broker"),
        (label::PART_OF, "millrace"),
        (label::MANAGED_BY, "millrace"),
    ];
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(namespace.into()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            ..ObjectMeta::default()
        },
        data: Some(
            data.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).collect(),
        ),
        type_: Some("Opaque".into()),
        ..Secret::default()
    })
}
