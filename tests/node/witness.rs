//! What programs say in their logs, followed from container to container and from pod to pod.
#![allow(dead_code, reason = "each binary of tests uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::house::SHOP;

/// Something died.
pub struct Accident {
    pub began: Timestamp,
    pub over: Timestamp,
}

/// Follows the logs of one container of the selected pods, until it is dropped.
pub struct Witness {
    lines: Arc<Mutex<BTreeSet<String>>>,
    task: JoinHandle<()>,
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Witness {
    pub fn start(kubectl: impl Fn() -> std::process::Command, selector: &str, container: &str) -> Self {
        let logs = |how: &str| {
            let mut kubectl = Command::from(kubectl());
            kubectl
                .args(["-n", SHOP, "logs", "-l", selector, "-c", container, "--tail=-1", how])
                .args(["--prefix", "--timestamps", "--ignore-errors"])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .stdout(Stdio::piped())
                .kill_on_drop(true);
            kubectl
        };
        let lines = Arc::default();
        let task = tokio::spawn(read(logs("--previous"), logs("--follow"), Arc::clone(&lines)));
        Self { lines, task }
    }

    /// Each line with its time: `[pod/orders-enrich-…/component] 2026-11-25T16:00:00.1Z /enrich …`.
    fn heard(&self) -> Vec<(Timestamp, String)> {
        let lines = self.lines.lock().unwrap();
        let read = |line: &String| {
            let (_pod, rest) = line.split_once(' ')?;
            let (time, text) = rest.split_once(' ')?;
            Some((time.parse().ok()?, text.to_owned()))
        };
        lines.iter().filter_map(read).collect()
    }

    /// What a `log` node says that it got: the messages' ids by the requests' ids.
    pub fn arrived(&self, node: &str) -> BTreeMap<String, BTreeSet<String>> {
        let mut arrived: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (_, line) in self.heard() {
            let Ok(line) = serde_json::from_str::<Value>(&line) else { continue };
            if line["node"] == node && line["message"] == "Message" {
                let body: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
                let request = body["id"].as_str().unwrap().to_owned();
                arrived.entry(request).or_default().insert(line["id"].as_str().unwrap().to_owned());
            }
        }
        arrived
    }

    /// What the component says that it saw: the times, by the request's id and the message's.
    pub fn seen(&self) -> BTreeMap<String, BTreeMap<String, Vec<Timestamp>>> {
        let mut seen: BTreeMap<String, BTreeMap<String, Vec<Timestamp>>> = BTreeMap::new();
        for (time, line) in self.heard() {
            let ["/enrich", message, request] = line.split(' ').collect::<Vec<_>>()[..] else { continue };
            let messages = seen.entry(request.trim_matches('"').to_owned()).or_default();
            let times = messages.entry(message.to_owned()).or_default();
            times.push(time);
            times.sort();
        }
        seen
    }
}

/// Reads what a container that died has said last, and follows what its successor says, again and again. Each line counts
/// once, however often it was read. Once the node is gone, so is its kubectl.
async fn read(mut previous: Command, mut follow: Command, lines: Arc<Mutex<BTreeSet<String>>>) {
    while let (Ok(died), Ok(lives)) = (previous.spawn(), follow.spawn()) {
        for mut kubectl in [died, lives] {
            let mut said = BufReader::new(kubectl.stdout.take().unwrap()).lines();
            while let Ok(Some(line)) = said.next_line().await {
                lines.lock().unwrap().insert(line);
            }
        }
        // Where there is no pod, there is nothing to await: kubectl is not to be started without a pause.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A message was seen a second time only where something died between the two; says how many were.
pub fn assert_twice_only_after(
    accidents: &[Accident],
    seen: &BTreeMap<String, BTreeMap<String, Vec<Timestamp>>>,
) -> usize {
    let between = |first: Timestamp, second: Timestamp| {
        accidents.iter().any(|accident| first <= accident.over && accident.began <= second)
    };
    let mut twice = 0;
    for (message, times) in seen.values().flatten() {
        for pair in times.windows(2) {
            twice += 1;
            assert!(between(pair[0], pair[1]), "{message} was seen twice without a reason: {times:?}");
        }
    }
    twice
}
