//! Requests with unique ids, one after the other, until it is enough: few, so that it is about what is lost and not about
//! what is slow.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::common;

/// The pause between two requests, and the most of them: all are bounded.
const PAUSE: Duration = Duration::from_millis(40);
const MOST: usize = 20_000;
/// How long a request may take before it counts as not answered.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests that are being sent.
pub struct Traffic {
    counts: watch::Receiver<usize>,
    results: Arc<Mutex<(Vec<String>, Vec<String>)>>,
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Traffic {
    /// Begins to send, from two senders.
    pub fn start(url: &str) -> Self {
        let (counted, counts) = watch::channel(0);
        let (stop, stopped) = watch::channel(false);
        let results = Arc::<Mutex<(Vec<String>, Vec<String>)>>::default();
        let counted = Arc::new(counted);
        let tasks = (0..2).map(|sender| {
            let (url, results) = (url.to_owned(), results.clone());
            let (counted, stopped) = (counted.clone(), stopped.clone());
            tokio::spawn(async move {
                for number in 0..MOST {
                    if *stopped.borrow() {
                        return;
                    }
                    let id = format!("{sender}-{number}");
                    let accepted = send(&url, &id).await;
                    note(&results, id, accepted);
                    counted.send_modify(|count| *count += usize::from(accepted));
                    tokio::time::sleep(PAUSE).await;
                }
            })
        });
        let tasks = tasks.collect();
        Self { counts, results, stop, tasks }
    }

    /// Waits until so many more have been answered 2xx.
    pub async fn accepted_more(&self, more: usize) {
        let mut counts = self.counts.clone();
        let wanted = *counts.borrow() + more;
        let reached = counts.wait_for(|count| *count >= wanted);
        let reached = tokio::time::timeout(Duration::from_secs(120), reached).await;
        assert!(matches!(reached, Ok(Ok(_))), "requests were not answered 2xx again");
    }

    /// Ends, and gives the ids of those that were answered 2xx and of those that were not.
    pub async fn end(self) -> (Vec<String>, Vec<String>) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.unwrap();
        }
        let results = self.results.lock().unwrap();
        results.clone()
    }
}

fn note(results: &Mutex<(Vec<String>, Vec<String>)>, id: String, accepted: bool) {
    let mut results = results.lock().unwrap();
    if accepted { results.0.push(id) } else { results.1.push(id) }
}

/// Whether a request was answered 2xx.
async fn send(url: &str, id: &str) -> bool {
    let body = format!("{{\"id\":\"{id}\"}}").into_bytes();
    let json = [("content-type", "application/json")];
    let answer = tokio::time::timeout(LIMIT, common::request("POST", url, &json, body)).await;
    matches!(answer, Ok(Ok((status, _, _))) if (200..300).contains(&status))
}
