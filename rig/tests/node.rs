//! The node, as its user meets it: pods that run, components that are killed, commands that are interrupted.
//!
//! Every test has a node of its own in a folder of its own. They run one after the other, because two cores hold one
//! node well and three badly; only the test of two nodes side by side starts two.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rig::{Image, Node, Program, Up};
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

/// A node that is removed with all its traces when its test ends, however it ends.
struct Rig {
    node: Node,
    _folder: TempDir,
}

impl Rig {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { node: Node::at(folder.path().join(".rig")), _folder: folder }
    }

    async fn up(&self) -> Up {
        self.node.up(&Program::get().await.unwrap()).await.unwrap()
    }

    /// Runs the `rig` command on this node.
    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rig"));
        command.arg("--dir").arg(self.node.folder()).args(words);
        command
    }

    /// Runs kubectl and returns what it printed.
    fn kubectl(&self, words: &[&str]) -> String {
        let mut kubectl = Command::new(self.node.folder().join("bin/kubectl"));
        let output = kubectl.env("KUBECONFIG", self.node.kubeconfig()).args(words).output().unwrap();
        assert!(
            output.status.success(),
            "kubectl {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn apply(&self, manifest: &str) {
        let file = self.node.folder().join("manifest.yaml");
        fs::write(&file, manifest).unwrap();
        self.kubectl(&["apply", "-f", file.to_str().unwrap()]);
    }

    /// The process of a component, as the host counts.
    fn process(&self, component: &str) -> u32 {
        let inside =
            self.node.status().components.into_iter().find(|(name, _, _)| name == component).unwrap().1;
        let first = self.first_process();
        let namespace = fs::read_link(format!("/proc/{first}/ns/pid")).unwrap();
        processes()
            .into_iter()
            .filter(|process| {
                fs::read_link(format!("/proc/{process}/ns/pid")).is_ok_and(|ns| ns == namespace)
            })
            .find(|process| {
                let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
                status.lines().any(|l| l.starts_with("NSpid:") && l.ends_with(&format!("\t{inside}")))
            })
            .unwrap()
    }

    /// The node's first process, as the host counts.
    fn first_process(&self) -> u32 {
        self.memory().unwrap()["process"].as_u64().unwrap().try_into().unwrap()
    }

    /// What the node remembers of its process and its place on this machine.
    fn memory(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&fs::read(self.node.folder().join("node/memory.json")).ok()?).ok()
    }

    /// What there is of the node on the host beside its folder: processes, link, routes, control groups.
    fn traces(&self) -> BTreeSet<String> {
        let folder = self.node.folder().to_str().unwrap();
        let of_node = |process: &u32| {
            // Every process of a node sees the folder mounted, and no other does.
            fs::read_to_string(format!("/proc/{process}/mountinfo"))
                .is_ok_and(|mounts| mounts.contains(folder))
        };
        let processes = processes().into_iter().filter(of_node).map(|process| format!("process {process}"));
        let links = names("/sys/class/net").into_iter().filter(|link| {
            fs::read_to_string(format!("/sys/class/net/{link}/ifalias"))
                .is_ok_and(|alias| alias.contains(folder))
        });
        let mut traces: BTreeSet<_> = processes.chain(links.map(|link| format!("link {link}"))).collect();
        if let Some(slot) = self.memory().map(|memory| memory["slot"].as_u64().unwrap()) {
            let cgroups = names("/sys/fs/cgroup")
                .into_iter()
                .map(|h| format!("/sys/fs/cgroup/{h}/millrace-rig-{slot}"));
            traces.extend(cgroups.filter(|group| Path::new(group).exists()));
            let routes = Command::new("ip")
                .args(["route", "show", "dev", &format!("millrace{slot}")])
                .output()
                .unwrap();
            traces.extend(String::from_utf8_lossy(&routes.stdout).lines().map(ToOwned::to_owned));
        }
        traces
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let _ = self.node.down(true);
    }
}

/// What of the host no node may change.
fn host() -> Vec<String> {
    let read = |file: &str| fs::read_to_string(file).unwrap_or_default();
    let settings = ["vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops", "net/ipv4/ip_forward"];
    let mut host: Vec<_> = settings.map(|setting| read(&format!("/proc/sys/{setting}"))).into();
    host.push(read("/proc/self/mounts"));
    let packet_filter = Command::new("iptables-save").output().unwrap();
    host.extend(text(&packet_filter).lines().filter(|line| line.starts_with('-')).map(ToOwned::to_owned));
    host
}

fn names(folder: &str) -> Vec<String> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn processes() -> Vec<u32> {
    names("/proc").iter().filter_map(|name| name.parse().ok()).collect()
}

/// One test at a time.
async fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::const_new(());
    TURN.lock().await
}

/// Waits for a condition that nothing announces.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "{what}: not within 30 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn kill(signal: &str, process: u32) {
    assert!(Command::new("kill").args([signal, &process.to_string()]).status().unwrap().success());
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

const WEB: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {pod-security.kubernetes.io/enforce: restricted}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web, namespace: shop}
spec:
  serviceName: web
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      securityContext: {runAsNonRoot: true, fsGroup: 65532, seccompProfile: {type: RuntimeDefault}}
      containers:
      - name: probe
        image: rig.local/probe:1
        args: [serve, ':8080']
        readinessProbe: {httpGet: {port: 8080}, periodSeconds: 1}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
";

/// What the program `probe` prints.
fn probe(program: &Program, words: &[&str]) -> String {
    let output = Command::new(program.named("probe")).args(words).output().unwrap();
    assert!(output.status.success(), "probe {}: {}", words.join(" "), text(&output));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn pods_run_and_answer_from_the_host_and_their_claims_survive_them() {
    let _turn = turn().await;
    let program = Program::get().await.unwrap();
    let rig = Rig::new();
    // The image is written before the node is there, and imported by its start.
    let image = Image::new("rig.local/probe:1").add(program.named("probe"), "/probe").entrypoint(["/probe"]);
    assert!(!rig.node.add_image(&image).await.unwrap());
    // A caller whose files nobody else may read has a node all the same that anybody's containers can write in.
    let script =
        format!("umask 077; exec {} --dir {} up", env!("CARGO_BIN_EXE_rig"), rig.node.folder().display());
    let up = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert!(up.status.success(), "{}", text(&up));
    rig.apply(WEB);
    rig.kubectl(&["-n", "shop", "rollout", "status", "statefulset/web", "--timeout=60s"]);
    let field = |object: &str, path: &str| {
        rig.kubectl(&["-n", "shop", "get", object, "-o", &format!("jsonpath={{{path}}}")])
    };

    let (pod, service, port) = (
        field("pod/web-0", ".status.podIP"),
        field("service/web", ".spec.clusterIP"),
        field("service/web", ".spec.ports[0].nodePort"),
    );
    let node = rig.node.address().unwrap().to_string();
    for address in [format!("{pod}:8080"), service.clone(), format!("{node}:{port}")] {
        assert_eq!(probe(&program, &["get", &format!("http://{address}/")]), "web-0", "{address}");
    }
    assert_eq!(probe(&program, &["resolve", "web.shop.svc.cluster.local", &node]), service);
    assert_eq!(probe(&program, &["resolve", "web-0.web.shop.svc.cluster.local", &node]), pod);

    let exec =
        |words: &[&str]| rig.kubectl(&[&["-n", "shop", "exec", "web-0", "--", "/probe"], words].concat());
    assert_eq!(exec(&["get", "http://web.shop.svc.cluster.local/"]), "web-0");
    assert!(rig.kubectl(&["-n", "shop", "logs", "web-0"]).contains("serving on :8080"));
    assert_eq!(forwarded(&rig, &program), "web-0");

    assert_eq!(exec(&["append", "/data/log", "one"]), "one");
    rig.kubectl(&["-n", "shop", "delete", "pod", "web-0"]);
    rig.kubectl(&["-n", "shop", "rollout", "status", "statefulset/web", "--timeout=60s"]);
    assert_eq!(exec(&["append", "/data/log", "two"]), "one\ntwo");

    // Stopped and started again, it resumes: the same objects, the same volume, the pods back.
    assert!(rig.node.down(false).unwrap());
    assert!(matches!(rig.up().await, Up::Started { resumed: true, .. }));
    rig.kubectl(&["-n", "shop", "wait", "pod/web-0", "--for=condition=Ready", "--timeout=60s"]);
    eventually("the pod takes commands again", || {
        let mut kubectl = Command::new(rig.node.folder().join("bin/kubectl"));
        kubectl
            .env("KUBECONFIG", rig.node.kubeconfig())
            .args(["-n", "shop", "exec", "web-0", "--", "/probe", "echo", "x"]);
        kubectl.output().unwrap().status.success()
    });
    assert_eq!(exec(&["append", "/data/log", "three"]), "one\ntwo\nthree");
}

/// What the pod answers through `kubectl port-forward`.
fn forwarded(rig: &Rig, program: &Program) -> String {
    use std::io::{BufRead as _, BufReader};
    let mut kubectl = Command::new(rig.node.folder().join("bin/kubectl"))
        .env("KUBECONFIG", rig.node.kubeconfig())
        .args(["-n", "shop", "port-forward", "--address=127.0.0.1", "pod/web-0", ":8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(kubectl.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_whitespace().nth(2).unwrap();
    let answer = probe(program, &["get", &format!("http://{address}/")]);
    kubectl.kill().unwrap();
    kubectl.wait().unwrap();
    answer
}

#[tokio::test]
async fn down_leaves_nothing_on_the_host_after_twenty_pods() {
    let _turn = turn().await;
    let program = Program::get().await.unwrap();
    let (rig, before) = (Rig::new(), host());
    rig.up().await;
    // The node takes an image while it runs, too.
    let image = Image::new("rig.local/probe:1").add(program.named("probe"), "/probe").entrypoint(["/probe"]);
    assert!(rig.node.add_image(&image).await.unwrap());
    rig.kubectl(&[
        "create",
        "deployment",
        "many",
        "--image=rig.local/probe:1",
        "--replicas=20",
        "--",
        "/probe",
        "serve",
        ":8080",
    ]);
    rig.kubectl(&["rollout", "status", "deployment/many", "--timeout=120s"]);
    let traces = rig.traces();
    for kind in ["process", "link millrace", "10.88.", "/sys/fs/cgroup"] {
        assert!(traces.iter().any(|trace| trace.starts_with(kind)), "{kind} is not among {traces:?}");
    }
    assert!(rig.node.down(false).unwrap());
    assert_eq!(rig.traces(), BTreeSet::new());
    assert_eq!(host(), before);
    assert!(!rig.node.down(true).unwrap(), "it was down already");
    assert!(!rig.node.folder().exists());
}

#[tokio::test]
async fn two_nodes_run_side_by_side_and_each_has_its_own() {
    let _turn = turn().await;
    let (one, other) = (Rig::new(), Rig::new());
    one.up().await;
    other.up().await;
    assert_ne!(one.node.address(), other.node.address());
    for rig in [&one, &other] {
        assert_eq!(rig.kubectl(&["get", "nodes", "-o", "name"]), "node/rig");
    }
    one.kubectl(&["create", "namespace", "only-in-one"]);
    assert!(!other.kubectl(&["get", "namespaces", "-o", "name"]).contains("only-in-one"));
    one.node.down(true).unwrap();
    assert!(other.node.status().whole());
}

#[tokio::test]
async fn a_new_node_goes_around_what_is_in_its_place_and_a_kept_one_says_what_it_is() {
    let _turn = turn().await;
    let rig = Rig::new();
    rig.up().await;
    let place = rig.node.address().unwrap();
    let link = format!("millrace{}", place.octets()[2]);
    rig.node.down(false).unwrap();
    let ip = |words: &str| {
        assert!(Command::new("ip").args(words.split(' ')).status().unwrap().success(), "ip {words}");
    };

    ip(&format!("link add {link} type veth peer name foreign0"));
    let refused = text(&rig.command(&["up"]).output().unwrap());
    assert!(
        refused.contains(&format!("something else has a link named {link}; remove it with `ip link delete")),
        "{refused}"
    );
    assert_eq!(rig.traces(), BTreeSet::new());
    rig.node.down(true).unwrap();
    rig.up().await;
    assert_ne!(rig.node.address().unwrap(), place, "it went around the link");
    ip(&format!("link delete {link}"));

    rig.node.down(true).unwrap();
    let pods = format!("10.88.{}.0/24", place.octets()[2] * 4);
    ip(&format!("route add {pods} dev lo"));
    rig.up().await;
    assert_ne!(rig.node.address().unwrap(), place, "it went around the route");
    ip(&format!("route delete {pods} dev lo"));
}

#[tokio::test]
async fn what_was_killed_is_named_and_up_starts_the_node_again_with_its_state() {
    let _turn = turn().await;
    let rig = Rig::new();
    rig.up().await;
    assert!(matches!(rig.up().await, Up::Already));
    rig.kubectl(&["create", "configmap", "kept"]);
    for component in ["kubelet", "etcd"] {
        kill("-KILL", rig.process(component));
        eventually("the death is recorded", || !rig.node.status().whole());
        let status = rig.command(&["status"]).output().unwrap();
        assert!(!status.status.success());
        assert!(
            text(&status).contains(&format!("{component:<24} ended: killed by SIGKILL")),
            "{}",
            text(&status)
        );
        let up = rig.command(&["up"]).output().unwrap();
        assert!(up.status.success(), "{}", text(&up));
        assert!(text(&up).contains(&format!("{component} had died (killed by SIGKILL)")), "{}", text(&up));
        assert_eq!(rig.kubectl(&["get", "configmap", "kept", "-o", "name"]), "configmap/kept");
    }
    kill("-KILL", rig.first_process());
    eventually("the node is down", || !rig.node.status().running);
    let up = text(&rig.command(&["up"]).output().unwrap());
    assert!(up.contains("the node had ended; starting it again with its state"), "{up}");
    assert_eq!(rig.kubectl(&["get", "configmap", "kept", "-o", "name"]), "configmap/kept");
}

#[tokio::test]
async fn a_component_that_dies_during_the_start_is_named_at_once_and_nothing_is_left() {
    let _turn = turn().await;
    let (rig, before) = (Rig::new(), host());
    fs::create_dir_all(rig.node.folder().join("node")).unwrap();
    fs::write(rig.node.folder().join("node/etcd"), "not a folder").unwrap();
    let error = rig.node.up(&Program::get().await.unwrap()).await.unwrap_err().to_string();
    assert!(error.starts_with("etcd died (exit code"), "{error}");
    assert!(error.contains("not a directory"), "{error}");
    assert_eq!(rig.traces(), BTreeSet::new());
    assert_eq!(host(), before);
}

#[tokio::test]
async fn an_interrupted_up_leaves_nothing_half_started() {
    let _turn = turn().await;
    Program::get().await.unwrap();
    for signal in ["-INT", "-TERM", "-KILL"] {
        let rig = Rig::new();
        let mut up = start_until_the_api_server_runs(&rig);
        kill(signal, up.id());
        assert!(!up.wait().unwrap().success());
        if signal == "-KILL" {
            // The node ends all the same. Nobody was left to remove its control groups: the next command does.
            eventually("no process is left", || {
                !rig.traces().iter().any(|trace| trace.starts_with("process"))
            });
            rig.node.down(false).unwrap();
        }
        assert_eq!(rig.traces(), BTreeSet::new(), "{signal}");
        assert!(matches!(rig.up().await, Up::Started { .. }), "{signal}");
    }
}

fn start_until_the_api_server_runs(rig: &Rig) -> Child {
    let up = rig.command(&["up"]).stdout(Stdio::null()).spawn().unwrap();
    eventually("the API server was started", || {
        fs::read_to_string(rig.node.folder().join("node/record"))
            .is_ok_and(|record| record.contains("kube-apiserver"))
    });
    up
}

#[tokio::test]
async fn two_ups_at_once_make_one_node() {
    let _turn = turn().await;
    Program::get().await.unwrap();
    let rig = Rig::new();
    let [one, other] =
        [(); 2].map(|()| rig.command(&["up"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    let said = [one, other].map(|up| text(&up.wait_with_output().unwrap()));
    assert_eq!(said.iter().filter(|said| said.contains("The node is up after")).count(), 1, "{said:?}");
    assert_eq!(said.iter().filter(|said| said.contains("The node is up.")).count(), 1, "{said:?}");
    assert!(said.iter().any(|said| said.contains("waiting for another `rig`")), "{said:?}");
    assert!(rig.node.status().whole());
}

#[test]
fn an_image_needs_a_whole_name_and_absolute_paths() {
    let rig = Rig::new();
    let refused = |words: &[&str]| {
        let output = rig.command(&[&["image"], words].concat()).output().unwrap();
        assert!(!output.status.success());
        text(&output)
    };
    assert!(
        refused(&["app"])
            .contains("must be whole, with registry and tag, in lower case, for example `rig.local/app:1`")
    );
    assert!(
        refused(&["rig.local/app:1", "--add", "/bin/true:bin/true"]).contains("must be an absolute path")
    );
    assert!(refused(&["rig.local/app:1", "--add", "/no/such:/x"]).contains("failed to read /no/such"));
    assert!(refused(&["rig.local/App:1"]).contains("in lower case"));
    assert!(refused(&["rig.local/a pp:1"]).contains("must be whole"));
    assert!(refused(&["rig.local/app:1", "--user", "root"]).contains("one or two numbers"));
    assert!(refused(&["rig.local/app:1", "--env", "A"]).contains("a name, `=` and a value"));
    assert!(refused(&["rig.local/app:1", "--add", "/bin/true"]).contains("two parts with a colon"));
}
