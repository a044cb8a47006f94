//! What a component says of the messages that it gets, followed from container to container and from pod to pod.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::house::SHOP;

/// Something died.
pub struct Accident {
    pub began: Timestamp,
    pub over: Timestamp,
}

/// Follows the logs of the pods of the node `enrich`.
pub struct Witness {
    task: JoinHandle<BTreeSet<String>>,
    stop: watch::Sender<bool>,
}

/// What it has heard: by the request's id, the times at which a message was seen, under the message's id.
pub struct Heard(BTreeMap<String, BTreeMap<String, Vec<Timestamp>>>);

impl Witness {
    pub fn start(mut kubectl: Command) -> Self {
        kubectl
            .args([
                "-n",
                SHOP,
                "logs",
                "-l",
                "millrace.dev/node=enrich",
                "-c",
                "component",
                "--follow",
                "--tail=-1",
            ])
            .args(["--prefix", "--timestamps", "--ignore-errors"])
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .stdout(Stdio::piped());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(follow(kubectl, stopped));
        Self { task, stop }
    }

    /// Ends, and gives what was heard.
    pub async fn end(self) -> Heard {
        self.stop.send_replace(true);
        let mut all = Heard(BTreeMap::new());
        for line in self.task.await.unwrap() {
            // [pod/orders-enrich-…/component] 2026-11-25T16:00:00.1Z /enrich MESSAGE "REQUEST"
            let words: Vec<_> = line.split(' ').collect();
            let [_, time, "/enrich", message, request] = words[..] else { continue };
            let request = request.trim_matches('"').to_owned();
            let times = all.0.entry(request).or_default().entry(message.to_owned()).or_default();
            times.push(time.parse().unwrap());
            times.sort();
        }
        all
    }
}

/// Each line once, however often it was read: a log is read again from its beginning when its pod's last one has ended.
async fn follow(kubectl: Command, mut stopped: watch::Receiver<bool>) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    let mut kubectl = tokio::process::Command::from(kubectl);
    while !*stopped.borrow_and_update() {
        let mut child = kubectl.kill_on_drop(true).spawn().unwrap();
        let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
        loop {
            tokio::select! {
                line = said.next_line() => match line {
                    Ok(Some(line)) => drop(lines.insert(line)),
                    _ => break,
                },
                _ = stopped.changed() => break,
            }
        }
        // Where there is no pod yet, or none any more, there is nothing to follow for a moment.
        let _ = tokio::time::timeout(Duration::from_millis(100), stopped.changed()).await;
    }
    lines
}

impl Heard {
    /// All of these requests were seen, each as one message.
    pub fn assert_complete(&self, requests: &[String]) {
        let missing: Vec<_> = requests.iter().filter(|request| !self.0.contains_key(*request)).collect();
        assert!(missing.is_empty(), "the component never said that it saw {missing:?}");
        let several: Vec<_> = self.0.iter().filter(|(_, messages)| messages.len() > 1).collect();
        assert!(several.is_empty(), "one request was seen as several messages: {several:?}");
    }

    /// A message was seen a second time only where something died between the two.
    pub fn assert_twice_only_after(&self, accidents: &[Accident]) {
        let between = |first: Timestamp, second: Timestamp| {
            accidents.iter().any(|accident| first <= accident.over && accident.began <= second)
        };
        let mut twice = 0;
        for (message, times) in self.0.values().flatten() {
            for pair in times.windows(2) {
                twice += 1;
                assert!(between(pair[0], pair[1]), "{message} was seen twice without a reason: {times:?}");
            }
        }
        println!("{twice} messages were seen twice, each because something died in between");
    }
}
