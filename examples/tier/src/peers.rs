//! Those that this one asks: what its imports say.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

/// How long another may take to answer.
const LIMIT: Duration = Duration::from_secs(5);

/// Those that are asked, in turn.
pub struct Peers {
    tier: String,
    client: Client<HttpConnector, Empty<Bytes>>,
    turn: AtomicUsize,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    imports: Value,
    reads: u32,
    hooks: Vec<String>,
}

impl Peers {
    pub fn new(tier: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let peers = Self { tier: tier.into(), client, turn: AtomicUsize::default(), known: Mutex::default() };
        peers.reload();
        peers
    }

    /// Its own name: that of the Instance.
    pub fn name(&self) -> String {
        std::env::var("MILLRACE_INSTANCE").unwrap_or_else(|_| self.tier.clone())
    }

    /// Reads the imports. What cannot be read changes nothing.
    pub fn reload(&self) {
        let text = std::env::var("MILLRACE_IMPORTS").map(std::fs::read_to_string);
        let read = text.ok().and_then(Result::ok).and_then(|text| serde_json::from_str(&text).ok());
        let mut known = self.lock();
        known.reads += 1;
        if let Some(imports) = read {
            known.imports = imports;
        }
    }

    /// Takes note of a hook.
    pub fn hook(&self, name: &str) {
        self.lock().hooks.push(name.to_owned());
        crate::say(&format!("{}: hook {name}", self.name()));
    }

    /// What it knows.
    pub fn view(&self) -> Value {
        let known = self.lock();
        json!({
            "name": self.name(), "pid": std::process::id(), "imports": known.imports, "reads": known.reads,
            "hooks": known.hooks,
        })
    }

    /// Asks the next tier, where there is one, and says who answered.
    pub async fn ask(&self) -> Result<String, String> {
        let next = match self.tier.as_str() {
            "web" => "app",
            "app" => "db",
            _ => return Ok(self.name()),
        };
        let members = self.lock().imports[next].as_array().cloned().unwrap_or_default();
        if members.is_empty() {
            return Err(format!("no '{next}' is known"));
        }
        let member = &members[self.turn.fetch_add(1, Ordering::Relaxed) % members.len()];
        let (ip, port) = (member["ip"].as_str().unwrap_or_default(), &member["port"]);
        let address =
            format!("http://{ip}:{port}/").parse().map_err(|_| format!("'{ip}:{port}' is no address"))?;
        let answer = tokio::time::timeout(LIMIT, self.client.get(address)).await;
        let answer = answer.map_err(|_| format!("{next} is silent"))?.map_err(|error| error.to_string())?;
        let status = answer.status();
        let body = answer.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
        let line = String::from_utf8_lossy(&body).trim().to_owned();
        if status.is_success() { Ok(format!("{} > {line}", self.name())) } else { Err(line) }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
