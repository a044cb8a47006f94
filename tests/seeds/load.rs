//! A client that tries nothing twice, over new and over kept connections, while members come, go, roll and are evicted.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::World;
use crate::house::eventually;

const NS: &str = "lamp";
/// The pause between two requests of one client, and the most of them: all are bounded.
const PAUSE: Duration = Duration::from_millis(10);
const MOST: usize = 20_000;
const LIMIT: Duration = Duration::from_secs(10);

type Sender = SendRequest<Empty<bytes::Bytes>>;

/// Requests that are being sent.
struct Load {
    good: Arc<AtomicUsize>,
    bad: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(address: &str) -> Self {
        let load = Self { good: Arc::default(), bad: Arc::default(), stop: Arc::default(), tasks: vec![] };
        let client = |keeps: bool| {
            let (address, good, bad, stop) =
                (address.to_owned(), load.good.clone(), load.bad.clone(), load.stop.clone());
            tokio::spawn(async move {
                let mut kept: Option<Sender> = None;
                for _ in 0..MOST {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    match tokio::time::timeout(LIMIT, request(&address, kept.take())).await {
                        Ok(Ok(sender)) => {
                            good.fetch_add(1, Ordering::Relaxed);
                            kept = sender.filter(|_| keeps);
                        }
                        Ok(Err(why)) => {
                            bad.lock()
                                .unwrap()
                                .push(format!("{}: {why}", if keeps { "kept" } else { "new" }));
                        }
                        Err(_) => bad.lock().unwrap().push("no answer".into()),
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            })
        };
        let tasks = [true, true, false, false].map(client).into();
        Self { tasks, ..load }
    }

    async fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.unwrap();
        }
        (self.good.load(Ordering::Relaxed), self.bad.lock().unwrap().clone())
    }
}

/// One request; gives the connection back where it may be used again.
async fn request(address: &str, kept: Option<Sender>) -> Result<Option<Sender>, String> {
    let mut sender = match kept {
        Some(kept) if !kept.is_closed() => kept,
        _ => {
            let stream =
                TcpStream::connect(address).await.map_err(|error| format!("cannot connect: {error}"))?;
            let (sender, connection) =
                http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
            tokio::spawn(connection);
            sender
        }
    };
    let request = http::Request::get("/").header("host", address).body(Empty::new()).unwrap();
    let answer = sender.send_request(request).await.map_err(|error| format!("{error:?}"))?;
    let (status, closes) =
        (answer.status(), answer.headers().get("connection").is_some_and(|it| it == "close"));
    answer.into_body().collect().await.map_err(|error| error.to_string())?;
    if status.is_success() { Ok((!closes).then_some(sender)) } else { Err(format!("status {status}")) }
}

pub async fn run(world: &World) {
    world.kubectl(NS, &["wait", "mcl/web", "mcl/app", "mcl/db", "--for=condition=Ready", "--timeout=120s"]);
    let address = format!("{}:8080", world.service(NS, "web"));
    let load = Load::start(&address);
    world.kubectl(NS, &["scale", "mcl", "web", "--replicas=4"]);
    world.wait_phase(NS, "web-3", "Active").await;
    world.kubectl(NS, &["scale", "mcl", "web", "--replicas=2"]);
    let gone =
        eventually(async || world.phase(NS, "web-2").is_empty() && world.phase(NS, "web-3").is_empty()).await;
    assert!(gone);
    // A roll, of the tier that is asked and of the one behind it.
    for tier in ["web", "app"] {
        let change = r#"{"spec":{"env":[{"name":"VERSION","value":"2"}]}}"#;
        world.kubectl(NS, &["patch", "cartridge", tier, "--type=merge", "-p", change]);
        let rolled = eventually(async || {
            let pods = world
                .kubectl(NS, &["get", "pods", "-l", &format!("millrace.dev/cluster={tier}"), "-o", "json"]);
            let ready = world.kubectl(NS, &["get", "mcl", tier, "-o=jsonpath={.status.updatedReplicas}"]);
            pods.matches("\"VERSION\"").count() == 2 && ready == "2"
        });
        assert!(rolled.await, "{tier} never rolled");
        world.kubectl(NS, &["wait", &format!("mcl/{tier}"), "--for=condition=Ready", "--timeout=120s"]);
    }
    // An eviction, as a drain of the node asks for it.
    let pod = world.kubectl(
        NS,
        &["get", "pods", "-l", "millrace.dev/instance=web-0", "-o=jsonpath={.items[0].metadata.name}"],
    );
    let eviction = format!(
        r#"{{"apiVersion":"policy/v1","kind":"Eviction","metadata":{{"name":"{pod}","namespace":"{NS}"}}}}"#
    );
    let file = std::env::temp_dir().join(format!("millrace-eviction-{}.json", std::process::id()));
    std::fs::write(&file, eviction).unwrap();
    let path = format!("/api/v1/namespaces/{NS}/pods/{pod}/eviction");
    world.house.kubectl(&["create", "--raw", &path, "-f", file.to_str().unwrap()]);
    std::fs::remove_file(&file).unwrap();
    let replaced = eventually(async || {
        let path = "-o=jsonpath={.items[0].metadata.deletionTimestamp}";
        world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=web-0", path]).is_empty()
            && world.phase(NS, "web-0") == "Active"
    });
    assert!(replaced.await);
    world.balanced(NS, "web", 2).await;
    let (good, bad) = load.end().await;
    println!(
        "while members came, went, rolled and were evicted: {good} requests answered, {} not",
        bad.len()
    );
    assert_eq!(bad, [""; 0]);
    assert!(good > 500, "{good}");
    killed(world, &address).await;
}

/// A member is killed: only what it was answering just then is lost.
async fn killed(world: &World, address: &str) {
    let load = Load::start(address);
    let served = eventually(async || load.good.load(Ordering::Relaxed) > 100).await;
    assert!(served);
    let view = format!("http://{}:8080/env", world.address(NS, "web-0"));
    let name = world.ask(&view).await.unwrap()["MILLRACE_INSTANCE"].clone();
    let process = process_of(name.as_str().unwrap()).unwrap();
    kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
    let restarted = eventually(async || {
        let path = "-o=jsonpath={.items[0].status.containerStatuses[0].lastState.terminated.exitCode}";
        world.kubectl(NS, &["get", "pods", "-l", "millrace.dev/instance=web-0", path]) == "137"
    });
    assert!(restarted.await, "it was not started again");
    world.wait_phase(NS, "web-0", "Active").await;
    world.balanced(NS, "web", 2).await;
    let (good, bad) = load.end().await;
    println!("around a kill -9 of a member: {good} requests answered, {} not: {bad:?}", bad.len());
    assert!(bad.len() < 60, "{bad:?}");
}

/// The application's process of an Instance, as the host counts it.
fn process_of(instance: &str) -> Option<i32> {
    let wanted = format!("MILLRACE_INSTANCE={instance}");
    let numbers =
        std::fs::read_dir("/proc").ok()?.flatten().filter_map(|it| it.file_name().to_str()?.parse().ok());
    numbers.into_iter().find(|process: &i32| {
        let line = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let env = std::fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
        line.starts_with(b"/tier\0")
            && env.split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    })
}
