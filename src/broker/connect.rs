//! The connection to the broker, and the one way to publish: an answer only when the message is stored.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::{self, context::PublishErrorKind};
use async_nats::{Auth, AuthError, Client, ConnectErrorKind, ConnectOptions, Event, HeaderMap};
use bytes::Bytes;
use clap::Args;
use thiserror::Error;
use tokio::sync::watch;

/// How long the broker may take to answer.
pub(super) const LIMIT: Duration = Duration::from_secs(5);
/// The stream, or one subject of it, is full and takes nothing more.
const FULL: [u64; 3] = [10077, 10047, 10122];

/// How the broker is reached.
#[derive(Clone, Debug, Args)]
pub struct BrokerArgs {
    /// Address of the NATS server; several are separated by commas
    #[arg(long, env = "MILLRACE_NATS_URL", value_name = "URL")]
    pub nats_url: String,
    /// File with credentials; it is read at each connection, and an empty one means none
    #[arg(long, env = "MILLRACE_NATS_CREDENTIALS", value_name = "FILE")]
    pub nats_credentials: Option<PathBuf>,
    /// Prefix of the subjects of JetStream's API
    #[arg(long, env = "MILLRACE_NATS_JS_PREFIX", value_name = "PREFIX", default_value = "$JS.API")]
    pub nats_js_prefix: String,
}

/// Where credentials come from, at each connection anew.
#[derive(Clone)]
pub enum Credentials {
    /// There are none.
    None,
    /// From a file.
    File(PathBuf),
    /// From memory: those that this process has made itself.
    Text(Arc<str>),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Text(_) => f.write_str("Text(…)"),
        }
    }
}

impl Credentials {
    fn text(&self) -> Result<String, AuthError> {
        match self {
            Self::None => Ok(String::new()),
            Self::Text(text) => Ok(text.to_string()),
            Self::File(path) => std::fs::read_to_string(path).map_err(|error| {
                AuthError::new(format!("cannot read the credentials in {}: {error}", path.display()))
            }),
        }
    }
}

/// A connection, in the background: it is made and made again for as long as this lives.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Core NATS.
    pub client: Client,
    /// `JetStream`.
    pub jetstream: jetstream::Context,
    connections: watch::Receiver<u64>,
}

/// It makes no sense to go on.
#[derive(Debug, Error)]
pub enum ConnectError {
    /// The address cannot be understood.
    #[error("'{0}' is no address of a NATS server: give one such as nats://nats:4222")]
    Address(String, #[source] async_nats::ConnectError),
    /// It refuses the connection, or there is nothing to connect to.
    #[error("the message broker at '{0}' cannot be reached")]
    Away(String, #[source] async_nats::ConnectError),
    /// It says nothing.
    #[error("the message broker at '{0}' did not answer within {limit} s", limit = LIMIT.as_secs())]
    Silent(String),
}

/// A message that is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Its place in the stream.
    pub sequence: u64,
    /// Whether it was there already, under the same id.
    pub duplicate: bool,
}

/// Why a message is not known to be stored.
#[derive(Debug, Error)]
pub enum PublishError {
    /// The queue, or all of them together, have no room.
    #[error("the queue is full")]
    Full,
    /// No stream takes the subject.
    #[error("there is no queue for it")]
    NoStream,
    /// It is larger than the server takes.
    #[error("the message is too large")]
    TooLarge,
    /// The broker does not answer: the message may be stored or not.
    #[error("the message broker does not answer")]
    Unavailable,
    /// The subject's last sequence is another than the one that was expected.
    #[error("another has written meanwhile")]
    WrongLastSequence,
    /// Anything else.
    #[error("the message broker refuses: {0}")]
    Refused(String),
}

/// Connects by what the command line says.
///
/// # Errors
/// The address cannot be understood. A server that does not answer is no error: the connection is made when it does.
pub async fn connect(
    args: &BrokerArgs,
    name: &str,
    inbox_prefix: Option<&str>,
) -> Result<Broker, ConnectError> {
    let credentials = args.nats_credentials.clone().map_or(Credentials::None, Credentials::File);
    connect_with(args, credentials, name, inbox_prefix).await
}

/// Connects with these credentials.
///
/// # Errors
/// As for [`connect`].
pub async fn connect_with(
    args: &BrokerArgs,
    credentials: Credentials,
    name: &str,
    inbox_prefix: Option<&str>,
) -> Result<Broker, ConnectError> {
    let (made, connections) = watch::channel(0_u64);
    let mut options = options(credentials, name)
        .retry_on_initial_connect()
        .max_reconnects(None)
        .event_callback(move |event| {
            tell(&event);
            if matches!(event, Event::Connected) {
                made.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
    if let Some(prefix) = inbox_prefix {
        options = options.custom_inbox_prefix(prefix);
    }
    let client = options
        .connect(args.nats_url.split(',').collect::<Vec<_>>())
        .await
        .map_err(|error| ConnectError::Address(args.nats_url.clone(), error))?;
    Ok(broker(args, client, connections))
}

/// Connects for somebody who waits for it: at once, or not at all.
///
/// # Errors
/// As for [`connect`], and a server that refuses or does not answer.
pub async fn connect_now(
    args: &BrokerArgs,
    credentials: Credentials,
    name: &str,
) -> Result<Broker, ConnectError> {
    let options = options(credentials, name).connection_timeout(LIMIT).event_callback(|event| {
        if !matches!(event, Event::Connected) {
            tell(&event);
        }
        std::future::ready(())
    });
    // A password in the address is nobody's business.
    let address = || args.nats_url.rsplit('@').next().unwrap_or_default().to_owned();
    let connecting = options.connect(args.nats_url.split(',').collect::<Vec<_>>());
    let made = tokio::time::timeout(LIMIT, connecting).await.map_err(|_| ConnectError::Silent(address()))?;
    let client = made.map_err(|error| match error.kind() {
        ConnectErrorKind::ServerParse => ConnectError::Address(address(), error),
        ConnectErrorKind::TimedOut => ConnectError::Silent(address()),
        _ => ConnectError::Away(address(), error),
    })?;
    Ok(broker(args, client, watch::channel(1).1))
}

fn options(credentials: Credentials, name: &str) -> ConnectOptions {
    ConnectOptions::with_auth_callback(move |nonce| {
        let credentials = credentials.clone();
        async move { sign(&credentials.text()?, &nonce) }
    })
    .name(name)
    .reconnect_delay_callback(|attempts| {
        let pause = Duration::from_millis(50).saturating_mul(1 << attempts.min(6));
        pause.min(Duration::from_secs(2)).mul_f64(0.5 + 0.5 * fastrand::f64())
    })
    .request_timeout(Some(LIMIT))
    .client_capacity(256)
    .subscription_capacity(4096)
}

fn broker(args: &BrokerArgs, client: Client, connections: watch::Receiver<u64>) -> Broker {
    let jetstream = jetstream::context::ContextBuilder::new()
        .api_prefix(args.nats_js_prefix.clone())
        .timeout(LIMIT)
        .ack_timeout(LIMIT)
        .build(client.clone());
    Broker { client, jetstream, connections }
}

/// Proves to the server who we are.
fn sign(credentials: &str, nonce: &[u8]) -> Result<Auth, AuthError> {
    let mut auth = Auth::new();
    if credentials.trim().is_empty() {
        return Ok(auth);
    }
    let jwt =
        block(credentials, "NATS USER JWT").ok_or_else(|| AuthError::new("the credentials hold no JWT"))?;
    let seed =
        block(credentials, "USER NKEY SEED").ok_or_else(|| AuthError::new("the credentials hold no seed"))?;
    let key = nkeys::KeyPair::from_seed(&seed)
        .map_err(|_| AuthError::new("the seed in the credentials is none"))?;
    auth.signature = Some(key.sign(nonce).map_err(|_| AuthError::new("the seed cannot sign"))?);
    auth.jwt = Some(jwt);
    Ok(auth)
}

/// What stands between the lines that begin and end a block.
fn block(credentials: &str, name: &str) -> Option<String> {
    let (_, rest) = credentials.split_once(&format!("BEGIN {name}"))?;
    let (_, rest) = rest.split_once('\n')?;
    let (inside, _) = rest.split_once(&format!("END {name}"))?;
    Some(inside.trim_matches(|c: char| c == '-' || c.is_whitespace()).to_owned())
}

fn tell(event: &Event) {
    match event {
        Event::Connected => tracing::info!("Connected to the message broker"),
        Event::Disconnected => tracing::warn!("Lost the connection to the message broker"),
        Event::ServerError(error) => tracing::warn!(%error, "The message broker refused something"),
        Event::ClientError(error) => tracing::debug!(%error, "Could not reach the message broker"),
        Event::SlowConsumer(_) => tracing::warn!("Messages came faster than they were taken"),
        Event::LameDuckMode | Event::Draining | Event::Closed => {
            tracing::info!(%event, "The connection changes");
        }
    }
}

impl Broker {
    /// Whether the broker can be reached now.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Waits until it can.
    pub async fn wait_connected(&self) {
        let mut connections = self.connections.clone();
        while !self.connected() {
            tokio::select! {
                _ = connections.changed() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {}
            }
        }
    }

    /// Counts connections: it changes with each that is made.
    #[must_use]
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.connections.clone()
    }

    /// Publishes a message, and waits until it is stored.
    ///
    /// # Errors
    /// It is not, or nobody knows.
    pub async fn publish(
        &self,
        subject: String,
        headers: HeaderMap,
        payload: Bytes,
    ) -> Result<Published, PublishError> {
        // What waits in a buffer for a connection is not stored, and would be sent behind the back of who was told so.
        if !self.connected() {
            return Err(PublishError::Unavailable);
        }
        let sent = self.jetstream.publish_with_headers(subject, headers, payload).await;
        let stored = sent.map_err(|error| refused(&error))?.await.map_err(|error| refused(&error))?;
        Ok(Published { sequence: stored.sequence, duplicate: stored.duplicate })
    }
}

fn refused(error: &jetstream::context::PublishError) -> PublishError {
    let code = std::error::Error::source(error)
        .and_then(|source| source.downcast_ref::<jetstream::Error>())
        .map(|error| error.error_code().0);
    if code.is_some_and(|code| FULL.contains(&code)) {
        return PublishError::Full;
    }
    match error.kind() {
        PublishErrorKind::StreamNotFound => PublishError::NoStream,
        PublishErrorKind::TimedOut | PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => {
            PublishError::Unavailable
        }
        PublishErrorKind::MaxPayloadExceeded => PublishError::TooLarge,
        PublishErrorKind::WrongLastSequence | PublishErrorKind::WrongLastMessageId => {
            PublishError::WrongLastSequence
        }
        PublishErrorKind::Other => PublishError::Refused(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credentials_file_gives_its_two_blocks() {
        let text = "-----BEGIN NATS USER JWT-----\nabc.def\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY \
                    SEED-----\nSUAX\n------END USER NKEY SEED------\n";
        assert_eq!(block(text, "NATS USER JWT").as_deref(), Some("abc.def"));
        assert_eq!(block(text, "USER NKEY SEED").as_deref(), Some("SUAX"));
        assert_eq!(block(text, "OTHER"), None);
    }

    #[test]
    fn credentials_are_never_shown() {
        assert_eq!(format!("{:?}", Credentials::Text("SUAX".into())), "Text(…)");
    }
}
