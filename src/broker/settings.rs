//! Whether the server that runs keeps what it acknowledges: its settings are read back, not believed.

use std::fmt;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use clap::ValueEnum;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::message::MAX_PAYLOAD;

const LIMIT: Duration = Duration::from_secs(5);
const MOST: usize = 4 << 20;

/// A setting of the server that this install lives with, although it may lose or refuse messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Allowance {
    /// It acknowledges before it syncs to disk: a power cut loses messages that were answered with 200
    SyncInterval,
    /// It takes requests that are not strictly right, by which one flow can reach another's messages
    NotStrict,
    /// Its `max_payload` is below 8 MiB: large messages are refused
    MaxPayload,
    /// Its monitoring cannot be asked: nobody knows its settings
    Unchecked,
}

impl fmt::Display for Allowance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SyncInterval => "sync-interval",
            Self::NotStrict => "not-strict",
            Self::MaxPayload => "max-payload",
            Self::Unchecked => "unchecked",
        })
    }
}

/// What the server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Whether each write is synced to disk before it is acknowledged.
    pub sync_always: bool,
    /// Whether requests are read strictly.
    pub strict: bool,
    /// The largest payload in bytes.
    pub max_payload: usize,
}

#[derive(Deserialize)]
struct Jsz {
    #[serde(default)]
    disabled: bool,
    config: Option<JetStreamConfig>,
}

#[derive(Deserialize)]
struct JetStreamConfig {
    #[serde(default)]
    sync_always: bool,
    #[serde(default)]
    strict: bool,
}

#[derive(Deserialize)]
struct Varz {
    max_payload: usize,
}

/// Asks a server's monitoring, at an address such as `http://nats:8222`.
///
/// # Errors
/// It does not answer, or says something else.
pub async fn read(monitoring: &str) -> anyhow::Result<Settings> {
    let base = monitoring.trim_end_matches('/');
    let jsz: Jsz = get(&format!("{base}/jsz?config=true")).await?;
    let varz: Varz = get(&format!("{base}/varz")).await?;
    let config =
        jsz.config.filter(|_| !jsz.disabled).context("the server runs without JetStream: enable it")?;
    Ok(Settings { sync_always: config.sync_always, strict: config.strict, max_payload: varz.max_payload })
}

async fn get<T: serde::de::DeserializeOwned>(url: &str) -> anyhow::Result<T> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
    let asked = async {
        let answer = client.get(url.parse().with_context(|| format!("'{url}' is no address"))?).await?;
        anyhow::ensure!(answer.status().is_success(), "it answers {}", answer.status());
        let body = Limited::new(answer.into_body(), MOST).collect().await;
        Ok(body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes())
    };
    let body = tokio::time::timeout(LIMIT, asked).await.context("it does not answer")?;
    let body = body.with_context(|| format!("cannot ask {url}"))?;
    serde_json::from_slice(&body).with_context(|| format!("{url} says what cannot be understood"))
}

/// What is wrong with a server's settings and not allowed; empty where all is well.
#[must_use]
pub fn objections(settings: &Settings, allowed: &[Allowance]) -> Vec<String> {
    let wrong = [
        (
            !settings.sync_always,
            Allowance::SyncInterval,
            "it acknowledges before it syncs: set `jetstream.sync_interval: always`".to_owned(),
        ),
        (
            !settings.strict,
            Allowance::NotStrict,
            "it does not read requests strictly: remove `jetstream.strict: false`".to_owned(),
        ),
        (
            settings.max_payload < MAX_PAYLOAD,
            Allowance::MaxPayload,
            format!("its `max_payload` is {} bytes: set 8MB", settings.max_payload),
        ),
    ];
    let objections = wrong.into_iter().filter(|(wrong, allowance, _)| *wrong && !allowed.contains(allowance));
    objections.map(|(_, allowance, text)| format!("{text}, or allow '{allowance}' by --nats-allow")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_may_lose_messages_is_refused_unless_the_install_allows_it_by_name() {
        let good = Settings { sync_always: true, strict: true, max_payload: MAX_PAYLOAD };
        assert_eq!(objections(&good, &[]), Vec::<String>::new());
        let bad = Settings { sync_always: false, strict: false, max_payload: 1 << 20 };
        assert_eq!(objections(&bad, &[]).len(), 3);
        assert_eq!(
            objections(&bad, &[Allowance::NotStrict, Allowance::MaxPayload]),
            [
                "it acknowledges before it syncs: set `jetstream.sync_interval: always`, or allow 'sync-interval' by \
              --nats-allow"
            ]
        );
    }
}
