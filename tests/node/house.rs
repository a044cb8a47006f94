//! A node with the chart installed.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::jetstream;
use rig::{Image, Node, Program};
use serde_json::Value;
use tempfile::TempDir;

use crate::processes;

/// The namespace of the install.
pub const SYSTEM: &str = "millrace-system";
/// The namespace of the flows. It enforces the strictest Pod Security Standard.
pub const SHOP: &str = "shop";

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The node. It is removed with all its traces when this is dropped.
pub struct House {
    node: Node,
    folder: TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.explain();
        }
        let _ = self.node.down(true);
    }
}

/// Where `make program` puts what it builds.
fn shipped() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let hosts = fs::read_dir(target.join("image")).into_iter().flatten().flatten();
    let found = hosts.map(|host| host.path().join("image")).find(|folder| folder.join("millrace").exists());
    found.unwrap_or_else(|| panic!("the shipped program is not there: run `make program`"))
}

impl House {
    /// Starts a node and installs the chart with helm.
    pub async fn build() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let node = Node::at(folder.path().join(".rig"));
        let program = Program::get().await.unwrap();
        node.up(&program).await.unwrap();
        let house = Self { node, folder };
        let (shipped, nats) = (shipped(), program.named("nats-server"));
        for (name, file) in [
            ("millrace", shipped.join("millrace")),
            ("component", shipped.join("component")),
            ("tier", shipped.join("tier")),
            ("root", shipped.join("tier")),
            ("nats-server", nats),
        ] {
            let path = format!("/{name}");
            let mut image =
                Image::new(format!("rig.local/{name}:test")).add(file, path.as_str()).entrypoint([path]);
            match name {
                "millrace" => image = image.add(shipped.join("launch"), "/launch"),
                "root" => image = image.user("0:0"),
                _ => {}
            }
            house.node.add_image(&image).await.unwrap();
        }
        house.helm();
        house.kubectl(&["create", "namespace", SHOP]);
        house.kubectl(&["label", "namespace", SHOP, "pod-security.kubernetes.io/enforce=restricted"]);
        house
    }

    fn helm(&self) {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/millrace");
        let values = Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/values.yaml");
        let mut helm = Command::new(self.node.folder().join("bin/helm"));
        helm.env("KUBECONFIG", self.node.kubeconfig())
            .args(["upgrade", "--install", "millrace"])
            .arg(chart)
            .args(["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "5m", "--values"])
            .arg(values)
            .args(["--set", "image.repository=rig.local/millrace,image.tag=test,log.format=json"])
            .args(["--set", "nats.image.repository=rig.local/nats-server,nats.image.tag=test"])
            .args(["--set", "gateway.drainDelaySeconds=2"]);
        let done = helm.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs kubectl and returns what it printed.
    pub fn kubectl(&self, words: &[&str]) -> String {
        self.try_kubectl(words).unwrap_or_else(|error| panic!("kubectl {}: {error}", words.join(" ")))
    }

    /// The same where it may fail.
    ///
    /// # Errors
    /// What kubectl says.
    pub fn try_kubectl(&self, words: &[&str]) -> Result<String, String> {
        let output = self.kubectl_command().args(words).output().map_err(|error| error.to_string())?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    pub fn apply(&self, object: &Value) {
        self.apply_in(SHOP, object);
    }

    pub fn apply_in(&self, namespace: &str, object: &Value) {
        let file = self.folder.path().join("object.json");
        fs::write(&file, object.to_string()).unwrap();
        self.kubectl(&["-n", namespace, "apply", "-f", file.to_str().unwrap()]);
    }

    pub fn patch(&self, flow: &str, change: &Value) {
        self.kubectl(&["-n", SHOP, "patch", "flow", flow, "--type=merge", "-p", &change.to_string()]);
    }

    /// Waits until a flow is in a phase.
    pub fn wait(&self, flow: &str, phase: &str) {
        let wanted = format!("--for=jsonpath={{.status.phase}}={phase}");
        self.kubectl(&["-n", SHOP, "wait", "flow", flow, &wanted, "--timeout=120s"]);
    }

    /// What the Ready condition of a flow says.
    pub fn message(&self, flow: &str) -> String {
        let path = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].message}";
        self.kubectl(&["-n", SHOP, "get", "flow", flow, path])
    }

    /// The address of the node.
    pub fn address(&self) -> std::net::Ipv4Addr {
        self.node.address().unwrap()
    }

    /// Where the gateway takes requests.
    pub fn gateway(&self) -> String {
        format!("{}:30080", self.node.address().unwrap())
    }

    pub fn pod_address(&self, part: &str) -> String {
        let selector = format!("app.kubernetes.io/component={part}");
        let path = "-o=jsonpath={.items[0].status.podIP}";
        self.kubectl(&["-n", SYSTEM, "get", "pods", "-l", &selector, path])
    }

    /// The broker as the operator sees it. A pod that takes its place has another address.
    pub async fn broker(&self) -> jetstream::Context {
        let path = "-o=jsonpath={.data.operator\\.creds}";
        let encoded = self.kubectl(&["-n", SYSTEM, "get", "secret", "millrace-broker", path]);
        let credentials = data_encoding::BASE64.decode(encoded.as_bytes()).unwrap();
        let credentials = String::from_utf8(credentials).unwrap();
        let options = async_nats::ConnectOptions::with_credentials(&credentials).unwrap();
        let client = options.connect(format!("{}:4222", self.pod_address("nats"))).await.unwrap();
        jetstream::new(client)
    }

    /// Kills one process of a role, as the kernel would that runs out of memory.
    pub fn kill(&self, role: &str) {
        let found = processes::of(role, self.node.address().unwrap());
        let process = *found.first().unwrap_or_else(|| panic!("no process of {role}"));
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(process), nix::sys::signal::Signal::SIGKILL)
            .unwrap();
        let gone = || !Path::new(&format!("/proc/{process}")).exists();
        let end = Instant::now() + PATIENCE;
        while !gone() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(gone(), "process {process} of {role} did not die");
    }

    /// Prints the memory of each role.
    pub fn print_memory(&self) {
        for role in ["operator", "gateway", "nats", "runner", "agent"] {
            for process in processes::of(role, self.node.address().unwrap()) {
                println!("memory (PSS) of {role}: {} KiB", processes::memory(process).unwrap_or_default());
            }
        }
    }

    /// Deletes the first pod that is selected, at once.
    pub fn delete_one_pod(&self, namespace: &str, selector: &str) {
        let path = "-o=jsonpath={.items[0].metadata.name}";
        let pod = self.kubectl(&["-n", namespace, "get", "pods", "-l", selector, path]);
        self.kubectl(&["-n", namespace, "delete", "pod", &pod, "--wait=true"]);
    }

    /// Waits until all pods that are selected are ready, and there are as many as wanted.
    pub async fn settled(&self, namespace: &str, selector: &str) {
        let ready = "-o=jsonpath={range .items[*]}{.metadata.deletionTimestamp}{range .status.containerStatuses[*]}{.ready} \
                     {end}{range .status.initContainerStatuses[*]}{.ready} {end}{end}";
        let settled = eventually(async || {
            let listed = self.try_kubectl(&["-n", namespace, "get", "pods", "-l", selector, ready]);
            listed.is_ok_and(|all| !all.is_empty() && all.split_whitespace().all(|word| word == "true"))
        });
        assert!(settled.await, "the pods of {selector} never became ready");
    }

    /// kubectl, ready for more words.
    pub fn kubectl_command(&self) -> Command {
        let mut kubectl = Command::new(self.node.folder().join("bin/kubectl"));
        kubectl.env("KUBECONFIG", self.node.kubeconfig());
        kubectl
    }

    fn explain(&self) {
        for words in [
            &["get", "pods", "-A", "-o", "wide"][..],
            &["-n", SHOP, "get", "flows", "-o", "wide"],
            &["get", "cartridges,mcl,instances", "-A", "-o", "wide"],
            &["-n", SYSTEM, "logs", "deployment/millrace-operator", "--tail=15"],
            &["-n", SHOP, "get", "events", "--sort-by=.lastTimestamp"],
        ] {
            let said = self.try_kubectl(words).unwrap_or_else(|error| error);
            eprintln!("$ kubectl {}\n{said}", words.join(" "));
        }
    }
}

/// All messages of a subject of a stream; none where there is no stream.
pub async fn messages(broker: &jetstream::Context, stream: &str, subject: &str) -> Vec<Value> {
    let Ok(stream) = broker.get_stream(stream).await else { return vec![] };
    let (mut all, mut from) = (vec![], 1);
    while let Ok(message) = stream.raw_message_builder().sequence(from).next_by_subject(subject).send().await
    {
        from = message.sequence + 1;
        all.push(serde_json::from_slice(&message.payload).unwrap());
    }
    all
}

/// Asks again and again, for as long as anything may take.
pub async fn eventually(mut holds: impl AsyncFnMut() -> bool) -> bool {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if holds().await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    false
}
