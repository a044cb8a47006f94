//! The control plane and the broker, as tests use them.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::Api;
use kube::api::PostParams;
use rig::{Error, Nats, Plane};

#[tokio::test]
async fn two_planes_run_side_by_side_and_share_nothing() {
    let (one, other) = tokio::join!(Plane::start(), Plane::start());
    let (one, other) = (one.unwrap(), other.unwrap());
    assert_ne!(one.server(), other.server());
    let namespace = one.namespace("only-here").await.unwrap();
    let exists = async |plane: &Plane| {
        let namespaces: Api<Namespace> = Api::all(plane.client().await.unwrap());
        namespaces.get_opt(&namespace).await.unwrap().is_some()
    };
    assert!(exists(&one).await);
    assert!(!exists(&other).await);
}

#[tokio::test]
async fn tests_share_a_plane_and_have_a_namespace_each() {
    let plane = Plane::shared().await.unwrap();
    assert_eq!(plane.server(), Plane::shared().await.unwrap().server());
    let (one, other) = (plane.namespace("mine").await.unwrap(), plane.namespace("mine").await.unwrap());
    assert_ne!(one, other);
    let client = plane.client().await.unwrap();
    let mut map = ConfigMap::default();
    map.metadata.name = Some("a".into());
    for namespace in [&one, &other] {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
}

#[tokio::test]
async fn the_components_say_the_version_that_was_built() {
    let plane = Plane::shared().await.unwrap();
    let output = plane.kubectl().args(["version", "-o", "json"]).output().unwrap();
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let built = format!("v{}", rig::KUBERNETES_VERSION);
    assert_eq!(version["clientVersion"]["gitVersion"], built.as_str());
    assert_eq!(version["serverVersion"]["gitVersion"], built.as_str());
}

#[tokio::test]
async fn a_component_that_dies_ends_the_start_at_once_with_its_name_and_the_end_of_its_log() {
    let error = Plane::start_with(&["--no-such-option"]).await.unwrap_err();
    let Error::Died { component, why, tail, .. } = error else { panic!("{error:?}") };
    assert_eq!((component.as_str(), why.as_str()), ("kube-apiserver", "exit code 1"));
    assert!(tail.contains("unknown flag: --no-such-option"), "{tail}");
}

#[test]
fn a_plane_ends_and_leaves_no_folder_when_its_holder_is_killed() {
    let (mut holder, folder) = plane_of_another_process();
    let names: Vec<_> = processes_that_name(&folder).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["etcd", "kube-apiserver", "kube-controller-manager", "supervise"]);
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually("the folder goes", || !folder.exists());
    assert_eq!(processes_that_name(&folder), []);
}

#[test]
fn a_component_that_dies_later_is_named_at_once_with_the_end_of_its_log() {
    let (holder, folder) = plane_of_another_process();
    let (_, etcd) = processes_that_name(&folder).into_iter().find(|(name, _)| name == "etcd").unwrap();
    assert!(Command::new("kill").args(["-KILL", &etcd.to_string()]).status().unwrap().success());
    let output = holder.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(said.starts_with("rig: etcd died (killed by signal killed); the last lines of"), "{said}");
    assert!(said.contains(folder.join("etcd.log").to_str().unwrap()), "{said}");
    assert!(!folder.exists());
}

/// A control plane that `rig plane` holds, and its folder.
fn plane_of_another_process() -> (Child, PathBuf) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rig"));
    let mut holder = command.arg("plane").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let kubeconfig = PathBuf::from(line.trim().strip_prefix("export KUBECONFIG=").unwrap());
    (holder, kubeconfig.parent().unwrap().to_owned())
}

#[tokio::test]
async fn the_broker_syncs_before_it_acknowledges_and_takes_messages_of_8_mib() {
    let nats = Nats::start().await.unwrap();
    let server: serde_json::Value = monitoring(&nats, "/varz");
    assert_eq!(server["max_payload"], 8 << 20);
    let jetstream: serde_json::Value = monitoring(&nats, "/jsz?config=true");
    assert_eq!(jetstream["config"]["sync_always"], true);
    assert_eq!(jetstream["config"]["strict"], true);
    let folder = nats.folder().to_owned();
    drop(nats);
    assert!(!folder.exists());
}

/// What the server's monitoring answers.
fn monitoring(nats: &Nats, path: &str) -> serde_json::Value {
    let address = nats.monitoring_url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

/// The processes with this folder on their command line, by name.
fn processes_that_name(folder: &Path) -> Vec<(String, u32)> {
    let name = |line: String| Some(Path::new(line.split('\0').next()?).file_name()?.to_str()?.to_owned());
    let mut processes: Vec<(String, u32)> = std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| Some((entry.path(), entry.file_name().to_str()?.parse().ok()?)))
        .filter_map(|(process, id)| Some((std::fs::read_to_string(process.join("cmdline")).ok()?, id)))
        .filter(|(line, _)| line.contains(folder.to_str().unwrap()))
        .filter_map(|(line, id)| Some((name(line)?, id)))
        .collect();
    processes.sort();
    processes
}

/// Waits for a condition that nothing announces.
fn eventually(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: not within 10 s");
}
