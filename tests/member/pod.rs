//! What makes a pod of an Instance, as processes of this machine: the agent, the launcher, and an application that the launcher
//! starts. The test is the kubelet and the operator.
#![allow(dead_code, reason = "each binary uses its part")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use millrace::broker::member::{MemberReport, MemberWork, SOCKET, Secrets, Setup, Stage};
use millrace::broker::seal::SealKey;
use millrace::broker::subject;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::mill::{LIMIT, Mill, Role, free_port, http, program};

/// The uid that the pod has.
pub const UID: &str = "pod-1";

pub struct Pod<'a> {
    mill: &'a Mill,
    /// The folder that agent and application share; hooks run in it.
    pub folder: TempDir,
    pub agent: Role,
    pub launcher: Option<Child>,
    /// The port of the application.
    pub port: u16,
    setup: Setup,
    seal: SealKey,
    url: String,
}

/// What an application is like that the launcher starts: it has the port `http`, unless `more` says something else.
pub fn setup(more: &Value) -> impl FnOnce(u16) -> Setup {
    let mut setup = json!({"wrapped": true});
    setup.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    move |port| {
        let text = setup.to_string().replace("\"PORT\"", &port.to_string());
        let mut setup: Setup = serde_json::from_str(&text).unwrap();
        if !text.contains("\"ports\"") {
            setup.ports = [("http".to_owned(), port)].into();
        }
        setup
    }
}

/// A hook that leaves its name in the file `hooks`.
pub fn noted(hook: &str) -> Value {
    json!({"exec": {"command": ["sh", "-c", format!("echo {hook} >> hooks")]}})
}

impl<'a> Pod<'a> {
    /// A pod whose agent has begun; the application's container has not.
    pub async fn new(mill: &'a Mill, setup: impl FnOnce(u16) -> Setup) -> Self {
        let url = mill.url.clone();
        Self::at(mill, url, setup).await
    }

    /// One whose agent reaches the broker by another address.
    pub async fn at(mill: &'a Mill, url: String, setup: impl FnOnce(u16) -> Setup) -> Self {
        let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
        let (setup, seal) = (setup(port), SealKey::of_instance(b"install", UID).unwrap());
        tokio::fs::write(folder.path().join("key"), seal.text()).await.unwrap();
        let agent = agent(mill, &folder, &setup, &url);
        Self { mill, folder, agent, launcher: None, port, setup, seal, url }
    }

    /// The agent's container begins anew.
    pub async fn another_agent(&mut self) {
        self.agent.child.kill().await.unwrap();
        self.agent = agent(self.mill, &self.folder, &self.setup, &self.url);
    }

    /// The application's container begins: the launcher, with this command.
    pub async fn launch(&mut self, command: &[&str], env: &[(&str, &str)]) {
        let path = |name: &str| self.folder.path().join(name);
        let child = Command::new(program("launch").await)
            .args(["run", "--socket"])
            .arg(path(SOCKET))
            .args(["--hold", &self.setup.drain_seconds.to_string(), "--"])
            .args(command)
            .env("PORT", self.port.to_string())
            .env("MILLRACE_INSTANCE", "web-0")
            .env("MILLRACE_IMPORTS", path("imports.json"))
            .env("MILLRACE_SECRETS", path("secrets"))
            .envs(env.iter().copied())
            .current_dir(self.folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        self.launcher = Some(child);
    }

    /// The same with the example's application.
    pub async fn tier(&mut self, env: &[(&str, &str)]) {
        let tier = program("tier").await;
        self.launch(&[tier.to_str().unwrap(), "web"], env).await;
    }

    /// The launcher's exit code and last words.
    pub async fn ended(&mut self) -> (Option<i32>, String) {
        let launcher = self.launcher.take().unwrap();
        let output = tokio::time::timeout(LIMIT, launcher.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("the launcher does not end")).unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    /// The operator wants something.
    pub async fn want(&self, work: &MemberWork) {
        let subject = subject::written(subject::DESIRED, &self.key());
        let payload = serde_json::to_vec(work).unwrap();
        self.mill.jetstream.publish(subject, payload.into()).await.unwrap().await.unwrap();
    }

    fn key(&self) -> String {
        subject::instance_key(&self.mill.namespace.parse().unwrap(), &"web-0".parse().unwrap())
    }

    /// What the agent says.
    pub async fn report(&self) -> Option<MemberReport> {
        let stream = self.mill.jetstream.get_stream("KV_observed").await.unwrap();
        let subject = subject::written(subject::OBSERVED, &self.key());
        let message = stream.direct_get_last_for_subject(subject).await.ok()?;
        Some(serde_json::from_slice(&message.payload).unwrap())
    }

    /// Waits until the application is so far, with this revision of its work.
    pub async fn reaches(&self, stage: Stage, revision: &str) -> MemberReport {
        self.says(&format!("{stage:?} with {revision}"), |report| {
            report.stage == stage && report.applied.as_deref() == Some(revision)
        })
        .await
    }

    /// Waits until the agent says why something is not as it should be.
    pub async fn complains(&self, words: &str) -> MemberReport {
        self.says(words, |report| report.problem.as_ref().is_some_and(|problem| problem.contains(words)))
            .await
    }

    pub async fn says(&self, what: &str, is_so: impl Fn(&MemberReport) -> bool) -> MemberReport {
        let end = Instant::now() + LIMIT;
        loop {
            let report = self.report().await;
            if let Some(report) = report.clone().filter(|report| is_so(report)) {
                return report;
            }
            assert!(Instant::now() < end, "waited in vain for {what}: {report:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What the application answers.
    pub async fn ask(&self, path: &str) -> Option<(u16, String)> {
        http("GET", &format!("http://127.0.0.1:{}{path}", self.port), &[]).await
    }

    /// What the application knows.
    pub async fn view(&self) -> Value {
        serde_json::from_str(&self.ask("/view").await.unwrap().1).unwrap()
    }

    /// The hooks that have run, in their order.
    pub fn hooks(&self) -> String {
        std::fs::read_to_string(self.file("hooks")).unwrap_or_default().lines().collect::<Vec<_>>().join(" ")
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Secret values as they come from the operator.
    pub fn sealed(&self, secrets: &Value) -> String {
        let secrets: Secrets = serde_json::from_value(secrets.clone()).unwrap();
        self.seal.seal(&serde_json::to_vec(&secrets).unwrap()).unwrap()
    }
}

fn agent(mill: &Mill, folder: &TempDir, setup: &Setup, url: &str) -> Role {
    let (setup, folder) = (serde_json::to_string(setup).unwrap(), folder.path().to_str().unwrap());
    let key = format!("{folder}/key");
    let env = [
        ("MILLRACE_NATS_URL", url),
        ("MILLRACE_INSTANCE", "web-0"),
        ("MILLRACE_MEMBER", &setup),
        ("MILLRACE_RUN_DIR", folder),
        ("MILLRACE_SEAL_KEY", &key),
        ("POD_UID", UID),
        ("POD_IP", "127.0.0.1"),
    ];
    Role::member(mill, &env)
}

/// What is wanted of the application: that it runs, or not, with these members of `db`.
pub fn work(revision: &str, run: bool, db: &[&str]) -> MemberWork {
    let member =
        |ip: &&str| json!({"name": format!("db-{}", ip.len()), "variables": {"ip": ip, "port": 5000}});
    let members: Vec<_> = db.iter().map(member).collect();
    serde_json::from_value(json!({
        "pod": UID, "revision": revision, "run": run, "imports": {"db": members},
    }))
    .unwrap()
}

impl Drop for Pod<'_> {
    fn drop(&mut self) {
        // The application is no child of the test's.
        let Some(id) = self.launcher.as_ref().and_then(Child::id) else { return };
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let own = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        for pid in own.chain([i32::try_from(id).unwrap()]) {
            let _ =
                nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
        }
    }
}
