//! The examples of `docs/builtins.md`: each is run by the real runner, and gives what the page says.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod mill;

use async_nats::HeaderMap;
use millrace::broker::work::{FlowWork, Handler, NodeWork};
use serde_json::{Value, json};

use mill::{Component, Mill, Queues, Role, until};

/// A node of the page, and what it does with messages.
struct Example {
    node: Value,
    /// What it gets, and what it gives.
    messages: Vec<(Value, Vec<Value>)>,
}

/// The blocks of a page: which language, and what stands there.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).filter(|(language, _)| !language.is_empty()).collect()
}

fn examples() -> Vec<Example> {
    let page = include_str!("../docs/builtins.md");
    let mut all: Vec<Example> = vec![];
    let mut gets: Option<Value> = None;
    for (language, text) in blocks(page) {
        if language == "yaml" {
            all.push(Example { node: serde_saphyr::from_str(text).unwrap(), messages: vec![] });
            continue;
        }
        let value: Value = serde_json::from_str(text).unwrap();
        match gets.take() {
            None => gets = Some(value),
            Some(gets) => all.last_mut().unwrap().messages.push((gets, value.as_array().unwrap().clone())),
        }
    }
    all
}

/// Whether a message has all that the page shows of it.
fn shows(message: &Value, shown: &Value) -> bool {
    match (message, shown) {
        (Value::Object(message), Value::Object(shown)) => {
            shown.iter().all(|(key, shown)| message.get(key).is_some_and(|message| shows(message, shown)))
        }
        _ => message == shown,
    }
}

fn work(node: &Value, server: &str) -> NodeWork {
    let mut fields = node["fields"].as_object().cloned().unwrap_or_default();
    if let Some(url) =
        fields.get("url").and_then(Value::as_str).map(|url| url.replace("shop.example", server))
    {
        fields.insert("url".into(), url.into());
    }
    NodeWork {
        id: node["id"].as_str().unwrap().parse().unwrap(),
        handler: Handler::Builtin { name: node["builtin"].as_str().unwrap().into(), fields },
        targets: mill::plain(&["out"]),
        retry: mill::RETRY,
        timeout_millis: 10_000,
        in_flight: 16,
    }
}

#[tokio::test]
async fn each_example_of_the_page_gives_what_the_page_says() {
    let component = Component::start().await;
    let (examples, server) = (examples(), format!("127.0.0.1:{}", component.port));
    let names: Vec<_> = examples.iter().map(|example| example.node["builtin"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        ["filter", "http", "log", "split", "transform", "wait"],
        "every built-in has an example"
    );
    for Example { node, messages } in &examples {
        assert!(!messages.is_empty(), "{node} has a message");
        let (mill, work) = (Mill::start().await, work(node, &server));
        let id = work.id.to_string();
        mill.consumer("f", &id, Queues::default()).await;
        let told = FlowWork { uid: "uid-1".into(), revision: "r1".into(), nodes: vec![work] };
        let key = format!("$KV.desired.flow.{}.f", mill.namespace);
        let payload = serde_json::to_vec(&told).unwrap();
        mill.jetstream
            .publish_with_headers(key, HeaderMap::new(), payload.into())
            .await
            .unwrap()
            .await
            .unwrap();
        // The page's server is on this machine.
        let _runner = Role::runner(&mill, &[("MILLRACE_HTTP_ALLOW", "127.0.0.0/8")]);
        let mut given = 0;
        for (number, (gets, gives)) in messages.iter().enumerate() {
            mill.put("f", &id, &format!("m{number}"), gets["body"].clone()).await;
            mill.idle("f", &id).await;
            let out = until("what it gives", async || {
                let out = mill.queued("f", "out").await;
                (out.len() >= given + gives.len()).then_some(out)
            })
            .await;
            let new = &out[given..];
            let all = new.iter().zip(gives).all(|(message, shown)| shows(message, shown));
            assert!(new.len() == gives.len() && all, "{node}: {gets} gives {}", json!(new));
            given = out.len();
        }
        assert_eq!(mill.dead("f", &id).await.len(), 0, "{node}");
    }
}
