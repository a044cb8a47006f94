//! Fake agents of Instances: one task that does at once what each would do, and remembers when each application was started.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use async_nats::{Client, HeaderMap, jetstream};
use futures::StreamExt as _;
use millrace::broker::member::{MemberReport, MemberWork, Stage};

/// A start of an application.
#[derive(Clone, Debug)]
pub struct Start {
    /// Namespace and name of the Instance.
    pub instance: String,
    /// The members that it got, by import.
    pub imports: BTreeMap<String, Vec<String>>,
    /// When.
    pub at: Instant,
}

/// What the agents know.
#[derive(Default)]
pub struct Shared {
    pub starts: Vec<Start>,
    /// When each application was said to serve for the first time.
    pub served: HashMap<String, Instant>,
    /// The revision that each application has, and the members that it knows.
    pub knows: HashMap<String, BTreeMap<String, Vec<String>>>,
    /// Those that never answer on their ports.
    pub silent: BTreeSet<String>,
    running: HashMap<String, (String, u32)>,
}

/// All agents of a cluster.
#[derive(Clone)]
pub struct Agents {
    pub shared: Arc<Mutex<Shared>>,
    jetstream: jetstream::Context,
}

impl Agents {
    /// They hear of work from now on, for as long as the task runs.
    pub async fn start(url: &str) -> (Self, tokio::task::JoinHandle<()>) {
        let client: Client = async_nats::connect(url).await.unwrap();
        let agents = Self { shared: Arc::default(), jetstream: jetstream::new(client.clone()) };
        let mut works = client.subscribe("millrace.desired.instance.>").await.unwrap();
        client.flush().await.unwrap();
        let hearing = agents.clone();
        let task = tokio::spawn(async move {
            while let Some(message) = works.next().await {
                let key = message.subject.trim_start_matches("millrace.desired.").to_owned();
                if let Ok(work) = serde_json::from_slice::<MemberWork>(&message.payload) {
                    hearing.work(&key, work).await;
                }
            }
        });
        (agents, task)
    }

    async fn work(&self, key: &str, work: MemberWork) {
        let name = key.trim_start_matches("instance.").replace('.', "/");
        let names = |members: &Vec<millrace::broker::member::ImportedMember>| {
            members.iter().map(|member| member.name.clone()).collect::<Vec<_>>()
        };
        let imports: BTreeMap<_, _> =
            work.imports.iter().map(|(name, it)| (name.clone(), names(it))).collect();
        let mut said = vec![];
        {
            let mut shared = self.shared.lock().unwrap();
            let before =
                shared.running.get(&name).filter(|(pod, _)| *pod == work.pod).map(|(_, starts)| *starts);
            let report = |stage, starts| MemberReport {
                pod: work.pod.clone(),
                stage,
                applied: Some(work.revision.clone()),
                starts,
                problem: None,
            };
            shared.knows.insert(name.clone(), imports.clone());
            match (work.run, before) {
                (true, None) => {
                    shared.starts.push(Start { instance: name.clone(), imports, at: Instant::now() });
                    shared.running.insert(name.clone(), (work.pod.clone(), 1));
                    said.push(report(Stage::Running, 1));
                    if !shared.silent.contains(&name) {
                        shared.served.insert(name.clone(), Instant::now());
                        said.push(report(Stage::Serving, 1));
                    }
                }
                (true, Some(starts)) if !shared.silent.contains(&name) => {
                    said.push(report(Stage::Serving, starts));
                }
                (true, Some(starts)) => said.push(report(Stage::Running, starts)),
                (false, Some(starts)) => {
                    shared.running.remove(&name);
                    said.push(report(Stage::Down, starts));
                }
                (false, None) => said.push(report(Stage::Down, 0)),
            }
        }
        for report in said {
            self.say(key, &report).await;
        }
    }

    /// Says something in the name of an agent.
    pub async fn say(&self, key: &str, report: &MemberReport) {
        let payload = serde_json::to_vec(report).unwrap();
        let subject = format!("$KV.observed.{key}");
        let stored = self.jetstream.publish_with_headers(subject, HeaderMap::new(), payload.into()).await;
        // The broker may be away: the test says what that means.
        if let Ok(stored) = stored {
            let _ = stored.await;
        }
    }

    pub fn starts(&self) -> Vec<Start> {
        self.shared.lock().unwrap().starts.clone()
    }

    pub fn knows(&self, instance: &str) -> BTreeMap<String, Vec<String>> {
        self.shared.lock().unwrap().knows.get(instance).cloned().unwrap_or_default()
    }
}
