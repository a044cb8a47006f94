//! The steps that the documents of Roboconf and of Apache Stratos ask for, one after the other, on a real node with real
//! processes: three tiers of small web servers.
//!
//! It needs root, and what `make program` builds.
#![cfg(feature = "node")]
#![allow(missing_docs, reason = "this is read as a story")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../node/house.rs"]
mod house;
mod load;
#[path = "../node/processes.rs"]
mod processes;
mod roboconf;
mod stratos;
mod wrong;

use async_nats::jetstream;
use house::{House, eventually};
use serde_json::Value;

/// A node with Millrace on it.
struct World {
    house: House,
    jetstream: jetstream::Context,
}

impl World {
    /// Runs kubectl in a namespace.
    fn kubectl(&self, namespace: &str, words: &[&str]) -> String {
        self.house.kubectl(&[&["-n", namespace], words].concat())
    }

    fn instance(&self, namespace: &str, name: &str) -> Value {
        let text = self.house.try_kubectl(&["-n", namespace, "get", "instance", name, "-o", "json"]);
        text.ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()
    }

    fn phase(&self, namespace: &str, name: &str) -> String {
        self.instance(namespace, name)["status"]["phase"].as_str().unwrap_or_default().to_owned()
    }

    /// What the Ready condition of an Instance says.
    fn says(&self, namespace: &str, name: &str) -> String {
        let instance = self.instance(namespace, name);
        let conditions = instance["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready =
            conditions.iter().find(|condition| condition["type"] == "Ready").cloned().unwrap_or_default();
        ready["message"].as_str().unwrap_or_default().to_owned()
    }

    async fn wait_phase(&self, namespace: &str, name: &str, phase: &str) {
        let reached = eventually(async || self.phase(namespace, name) == phase).await;
        assert!(
            reached,
            "{name} never became {phase}, but {}: {}",
            self.phase(namespace, name),
            self.says(namespace, name)
        );
    }

    async fn wait_says(&self, namespace: &str, name: &str, words: &str) {
        let reached = eventually(async || self.says(namespace, name).contains(words)).await;
        assert!(reached, "{name} never says '{words}', but: {}", self.says(namespace, name));
    }

    /// The first address of an Instance.
    fn address(&self, namespace: &str, name: &str) -> String {
        self.instance(namespace, name)["status"]["addresses"][0].as_str().unwrap_or_default().to_owned()
    }

    /// The address of a Cluster's Service.
    fn service(&self, namespace: &str, cluster: &str) -> String {
        let selector = format!("millrace.dev/cluster={cluster}");
        let path = "-o=jsonpath={.items[0].spec.clusterIP}";
        self.kubectl(namespace, &["get", "service", "-l", &selector, path])
    }

    /// What an application answers.
    async fn ask(&self, url: &str) -> Option<Value> {
        let (status, text) = common::get(url).await.ok()?;
        (status == 200).then(|| serde_json::from_str(&text).unwrap_or(Value::String(text.trim().to_owned())))
    }

    /// What was announced of an object.
    async fn events(&self, namespace: &str, plural: &str, name: &str) -> Vec<Value> {
        let subject = format!("millrace.event.{namespace}.{plural}.{name}");
        house::messages(&self.jetstream, "MILLRACE_EVENTS", &subject).await
    }

    async fn event_types(&self, namespace: &str, plural: &str, name: &str) -> Vec<String> {
        let events = self.events(namespace, plural, name).await;
        events
            .iter()
            .map(|event| event["type"].as_str().unwrap().trim_start_matches("dev.millrace.").to_owned())
            .collect()
    }

    /// The sequence of an announcement in the log: what happened before has a lower one.
    async fn sequence(&self, namespace: &str, name: &str, kind: &str) -> u64 {
        let stream = self.jetstream.get_stream("MILLRACE_EVENTS").await.unwrap();
        let subject = format!("millrace.event.{namespace}.instances.{name}");
        let mut from = 1;
        while let Ok(message) =
            stream.raw_message_builder().sequence(from).next_by_subject(&subject).send().await
        {
            let event: Value = serde_json::from_slice(&message.payload).unwrap();
            if event["type"] == format!("dev.millrace.{kind}") {
                return message.sequence;
            }
            from = message.sequence + 1;
        }
        panic!("{name} was never announced as {kind}");
    }

    /// Puts an example into a namespace, with the image of this test.
    fn example(&self, namespace: &str, file: &str) {
        let path = format!("{}/examples/three-tier/{file}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap().replace("rig.local/tier:1", "rig.local/tier:test");
        for object in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            self.house.apply_in(namespace, &object);
        }
    }

    /// Waits until the load balancer of a Cluster sends to exactly these.
    async fn balanced(&self, namespace: &str, cluster: &str, members: usize) {
        let selector = format!("millrace.dev/cluster={cluster}");
        let path =
            "-o=jsonpath={range .items[*].endpoints[?(@.conditions.ready==true)]}{.targetRef.name} {end}";
        let ready = || self.kubectl(namespace, &["get", "endpointslices", "-l", &selector, path]);
        let reached = eventually(async || ready().split_whitespace().count() == members).await;
        assert!(reached, "the load balancer of {cluster} sends to: {}", ready());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_of_roboconf_and_stratos_step_by_step() {
    let house = House::build().await;
    let jetstream = house.broker().await;
    let mut world = World { house, jetstream };
    let began = std::time::Instant::now();
    let done = |what: &str| println!("{what}: {:.0} s after the start", began.elapsed().as_secs_f64());
    wrong::begin(&world).await;
    roboconf::run(&mut world).await;
    done("Roboconf");
    stratos::run(&world).await;
    done("Stratos");
    load::run(&world).await;
    done("a client without retries");
    wrong::end(&world).await;
    done("what misbehaves");
    for role in ["operator", "member"] {
        for process in processes::of(role, world.house.address()) {
            println!("memory (PSS) of {role}: {} KiB", processes::memory(process).unwrap_or_default());
        }
    }
}
