//! A spec that can be acted on, or why not: what the schema cannot check.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde_json::{Map, Value};

use crate::api::condition::Refusal;
use crate::api::flow::node::Node;
use crate::api::flow::{Edge, FlowSpec, graph};
use crate::api::name::NodeId;
use crate::broker::work::{Handler, NodeWork, RetryPolicy, Target};
use crate::filter::Filter;
use crate::jq;
use crate::runner::builtin;
use crate::scheduler::schedule::Schedule;

use super::build::OWN;
use crate::controllers::template;

/// Attempts after the first where a node does not say.
const RETRY_LIMIT: u32 = 8;
/// The pause before the second attempt where a node does not say.
const BACKOFF: Duration = Duration::from_secs(1);
/// The longest pause between attempts where a node does not say, unless its first one is longer.
const MAX_BACKOFF: Duration = Duration::from_secs(300);
/// How long an attempt may take where a node does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The component's port where a node does not say.
const PORT: u16 = 8080;
/// How many messages a pump handles at a time.
const IN_FLIGHT: u32 = 16;
/// The most bytes of `fields`: they travel in an annotation of the pod, and all of an object's annotations together may
/// have 256 KiB.
const FIELDS_MAX: usize = 128 << 10;

/// A Flow's spec that can be acted on.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidFlow {
    /// The node that gets what the trigger makes.
    pub entry: NodeId,
    /// The nodes in the order of their ids.
    pub nodes: BTreeMap<NodeId, ValidNode>,
}

/// A node that can be run.
#[derive(Clone, Debug, PartialEq)]
pub struct ValidNode {
    /// What it does with messages.
    pub work: NodeWork,
    /// What the user wrote, and the pod template in its typed form; none for a built-in.
    pub image: Option<ImageNode>,
}

/// A node that has pods of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageNode {
    /// As it is in the spec.
    pub node: Node,
    /// What the user merges over the pod.
    pub template: Option<Box<PodTemplateSpec>>,
}

/// Why a spec cannot be acted on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Whether it is wrong, or only too early.
    pub refusal: Refusal,
    /// What is wrong and what to do, all of it.
    pub message: String,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Problem {
    refusal: Refusal,
    message: String,
}

impl Problem {
    fn invalid(message: impl Into<String>) -> Self {
        Self { refusal: Refusal::InvalidSpec, message: message.into() }
    }

    fn early(message: impl Into<String>) -> Self {
        Self { refusal: Refusal::NotYetSupported, message: message.into() }
    }
}

/// Checks a spec.
///
/// # Errors
/// All that is wrong with it. What can never be comes before what this version cannot do.
pub fn validate(spec: &FlowSpec) -> Result<ValidFlow, Invalid> {
    let mut problems = vec![];
    let schedule = spec.trigger.cron.as_ref().map(Schedule::of).transpose();
    problems.extend(schedule.err().map(|wrong| Problem::invalid(format!("`spec.trigger.cron`: {wrong}"))));
    problems.extend(spec.graph.edges.iter().flat_map(check_edge));
    let entry = entry(spec).map_err(|problem| problems.push(problem)).ok();
    let mut nodes = BTreeMap::new();
    for node in &spec.graph.nodes {
        match valid_node(node, &spec.graph.edges) {
            Ok(valid) => drop(nodes.insert(valid.work.id.clone(), valid)),
            Err(wrong) => problems.extend(wrong),
        }
    }
    match entry {
        Some(entry) if problems.is_empty() => Ok(ValidFlow { entry, nodes }),
        _ => Err(all(problems)),
    }
}

/// All problems as one.
fn all(mut problems: Vec<Problem>) -> Invalid {
    problems.sort_by_key(|problem| problem.refusal != Refusal::InvalidSpec);
    let refusal = problems.first().map_or(Refusal::InvalidSpec, |problem| problem.refusal);
    let messages: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
    Invalid { refusal, message: messages.join("; ") }
}

fn check_edge(edge: &Edge) -> Vec<Problem> {
    let Edge { source, target, condition, transform } = edge;
    let about = |field: &str, why: &dyn std::fmt::Display| {
        Problem::invalid(format!("`{field}` of the edge from '{source}' to '{target}': {why}"))
    };
    let condition = condition.as_ref().and_then(|condition| Filter::parse(condition).err());
    let transform = transform.as_ref().and_then(|transform| jq::check(&transform.jq).err());
    let condition = condition.map(|error| about("condition", &error));
    condition.into_iter().chain(transform.map(|why| about("transform.jq", &why))).collect()
}

fn entry(spec: &FlowSpec) -> Result<NodeId, Problem> {
    let nodes: Vec<_> = spec.graph.nodes.iter().map(|node| node.id.as_str()).collect();
    let edges: Vec<_> = spec.graph.edges.iter().map(|e| (e.source.as_str(), e.target.as_str())).collect();
    let entry = graph::entry(&nodes, &edges).map_err(|e| Problem::invalid(format!("`spec.graph`: {e}")))?;
    entry.parse().map_err(|e| Problem::invalid(format!("`spec.graph.nodes`: {e}")))
}

fn valid_node(node: &Node, edges: &[Edge]) -> Result<ValidNode, Vec<Problem>> {
    let about =
        |field: &str, what: String| Problem::invalid(format!("`{field}` of node '{}': {what}", node.id));
    let id: NodeId =
        node.id.parse().map_err(|e| vec![Problem::invalid(format!("`spec.graph.nodes`: {e}"))])?;
    let mut problems = vec![];
    let handler = handler(node).map_err(|wrong| problems.push(wrong)).ok();
    let timing = timing(node).map_err(|(field, e)| problems.push(about(field, e))).ok();
    let template = template::parse(node.pod_template.as_ref(), OWN)
        .map_err(|e| problems.push(about("podTemplate", e)))
        .ok();
    match (handler, timing, template) {
        (Some(handler), Some((timeout, retry)), Some(template)) => {
            let image = node.image.as_ref().map(|_| ImageNode { node: node.clone(), template });
            let timeout_millis = millis(timeout);
            let targets = targets(node, edges);
            let work = NodeWork { id, handler, targets, retry, timeout_millis, in_flight: IN_FLIGHT };
            Ok(ValidNode { work, image })
        }
        _ => Err(problems),
    }
}

/// The edges that lead away from a node, in an order that does not depend on how they were written.
fn targets(node: &Node, edges: &[Edge]) -> Vec<Target> {
    // A target that is no name is no node: the graph's check says so.
    let target = |edge: &Edge| {
        let node = edge.target.parse().ok()?;
        let transform = edge.transform.as_ref().map(|transform| transform.jq.clone());
        Some(Target { node, condition: edge.condition.clone(), transform })
    };
    let mut targets: Vec<_> = edges.iter().filter(|edge| edge.source == node.id).filter_map(target).collect();
    targets.sort_by(|one, other| one.node.cmp(&other.node));
    targets
}

fn handler(node: &Node) -> Result<Handler, Problem> {
    let fields = node.fields.clone().unwrap_or_default();
    if let Some(name) = &node.builtin {
        if node.credentials.is_some() {
            return Err(Problem::early(format!(
                "`credentials` of node '{}': built-in nodes get none in this version: use an image",
                node.id
            )));
        }
        return builtin::check(name, &fields)
            .map(|()| Handler::Builtin { name: name.clone(), fields })
            .map_err(|wrong| of_builtin(node, &wrong));
    }
    let size = Value::Object(fields).to_string().len();
    if size > FIELDS_MAX {
        let id = &node.id;
        return Err(Problem::invalid(format!(
            "`fields` of node '{id}' must be at most {FIELDS_MAX} bytes as JSON, and has {size}: keep large data where the component can fetch it"
        )));
    }
    let path = format!("/{}", node.function.as_deref().unwrap_or_default());
    Ok(Handler::Component { port: node.port.unwrap_or(PORT), path })
}

fn of_builtin(node: &Node, wrong: &builtin::FieldError) -> Problem {
    Problem::invalid(format!("`{}` of node '{}': {}", wrong.field, node.id, wrong.message))
}

/// Time-out and retries, or the field that is wrong and why.
fn timing(node: &Node) -> Result<(Duration, RetryPolicy), (&'static str, String)> {
    let parse = |field, given: Option<&crate::api::duration::Duration>, absent| {
        given.map_or(Ok(absent), |text| text.parse().map_err(|e| (field, e.to_string())))
    };
    let timeout = parse("timeout", node.timeout.as_ref(), TIMEOUT)?;
    let retry = node.retry.as_ref();
    let backoff = parse("retry.backoff", retry.and_then(|retry| retry.backoff.as_ref()), BACKOFF)?;
    let max_backoff = retry.and_then(|retry| retry.max_backoff.as_ref());
    let max_backoff = parse("retry.maxBackoff", max_backoff, MAX_BACKOFF.max(backoff))?;
    if max_backoff < backoff {
        return Err(("retry.maxBackoff", "must be at least `retry.backoff`: it is the longest pause".into()));
    }
    let limit = retry.and_then(|retry| retry.limit).and_then(|limit| u32::try_from(limit).ok());
    let limit = limit.unwrap_or(RETRY_LIMIT);
    let (backoff_millis, max_backoff_millis) = (millis(backoff), millis(max_backoff));
    Ok((timeout, RetryPolicy { limit, backoff_millis, max_backoff_millis }))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The settings of a node as the file that its component reads.
#[must_use]
pub fn fields_file(fields: Option<&Map<String, Value>>) -> String {
    fields.map_or_else(|| "{}".into(), |fields| Value::Object(fields.clone()).to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(graph: &Value) -> FlowSpec {
        serde_json::from_value(json!({"trigger": {"webhook": {"methods": ["POST"]}}, "graph": graph}))
            .unwrap()
    }

    fn refused(graph: &Value) -> (Refusal, String) {
        let invalid = validate(&spec(graph)).unwrap_err();
        (invalid.refusal, invalid.message)
    }

    #[test]
    fn a_node_gets_the_documented_values_of_what_it_leaves_out() {
        let graph = json!({
            "nodes": [{"id": "a", "image": "erp:1"}, {"id": "b", "builtin": "log"}],
            "edges": [{"source": "a", "target": "b"}],
        });
        let valid = validate(&spec(&graph)).unwrap();
        assert_eq!(valid.entry, "a".parse().unwrap());
        let expected = NodeWork {
            id: "a".parse().unwrap(),
            handler: Handler::Component { port: 8080, path: "/".into() },
            targets: vec![Target { node: "b".parse().unwrap(), condition: None, transform: None }],
            retry: RetryPolicy { limit: 8, backoff_millis: 1000, max_backoff_millis: 300_000 },
            timeout_millis: 30_000,
            in_flight: 16,
        };
        assert_eq!(valid.nodes[&"a".parse().unwrap()].work, expected);
        let log = &valid.nodes[&"b".parse().unwrap()];
        assert_eq!((log.image.is_none(), log.work.targets.len()), (true, 0));
    }

    #[test]
    fn what_is_given_is_taken() {
        let graph = json!({"nodes": [{
            "id": "a", "image": "erp:1", "port": 9000, "function": "getOrders", "timeout": "1m30s",
            "retry": {"limit": 0, "backoff": "500ms", "maxBackoff": "20s"},
        }]});
        let work = validate(&spec(&graph)).unwrap().nodes.pop_first().unwrap().1.work;
        assert_eq!(work.handler, Handler::Component { port: 9000, path: "/getOrders".into() });
        assert_eq!(
            (work.timeout_millis, work.retry),
            (90_000, RetryPolicy { limit: 0, backoff_millis: 500, max_backoff_millis: 20_000 })
        );
    }

    #[test]
    fn what_is_wrong_with_an_edge_is_named() {
        let graph = json!({
            "nodes": [{"id": "a", "image": "x"}, {"id": "b", "image": "x"}],
            "edges": [{"source": "a", "target": "b", "condition": {"like": {"body": "x"}}, "transform": {"jq": "{"}}],
        });
        let (refusal, message) = refused(&graph);
        assert_eq!(refusal, Refusal::InvalidSpec);
        for part in
            ["`condition` of the edge from 'a' to 'b': ", "; `transform.jq` of the edge from 'a' to 'b': "]
        {
            assert!(message.contains(part), "{message}");
        }
    }

    #[test]
    fn what_this_version_cannot_do_is_named_and_never_left_out() {
        let graph =
            json!({"nodes": [{"id": "a", "builtin": "log", "credentials": {"secretRef": {"name": "x"}}}]});
        let (refusal, message) = refused(&graph);
        assert_eq!(refusal, Refusal::NotYetSupported);
        assert_eq!(
            message,
            "`credentials` of node 'a': built-in nodes get none in this version: use an image"
        );
    }

    #[test]
    fn a_schedule_that_cannot_be_followed_is_refused_with_the_reason() {
        let says = |cron: Value| {
            let mut spec = spec(&json!({"nodes": [{"id": "a", "image": "x"}]}));
            spec.trigger = serde_json::from_value(json!({ "cron": cron })).unwrap();
            validate(&spec).map_err(|invalid| invalid.message)
        };
        assert!(says(json!({"schedule": "*/3 * * * *", "timeZone": "Europe/Berlin"})).is_ok());
        let message = says(json!({"schedule": "0 0 30 2 *"})).unwrap_err();
        assert_eq!(
            message,
            "`spec.trigger.cron`: `schedule` '0 0 30 2 *' is never due: no day of any year fits it"
        );
        let message = says(json!({"schedule": "* * * * *", "timeZone": "Mars/Olympus"})).unwrap_err();
        assert!(
            message.starts_with("`spec.trigger.cron`: `timeZone` 'Mars/Olympus' is unknown"),
            "{message}"
        );
    }

    #[test]
    fn what_is_wrong_comes_before_what_is_too_early() {
        let graph = json!({
            "nodes": [
                {"id": "a", "builtin": "log", "credentials": {"secretRef": {"name": "x"}}}, {"id": "b", "image": "x"},
            ],
            "edges": [{"source": "a", "target": "b"}, {"source": "b", "target": "a"}],
        });
        let (refusal, message) = refused(&graph);
        assert_eq!(refusal, Refusal::InvalidSpec);
        assert!(
            message.starts_with("`spec.graph`: the edges form a cycle: remove one of a → b → a; "),
            "{message}"
        );
    }

    #[test]
    fn settings_that_fit_into_no_annotation_are_refused() {
        let graph = json!({"nodes": [{"id": "a", "image": "x", "fields": {"big": "x".repeat(FIELDS_MAX)}}]});
        let (_, message) = refused(&graph);
        assert!(
            message.starts_with("`fields` of node 'a' must be at most 131072 bytes as JSON"),
            "{message}"
        );
    }
}
