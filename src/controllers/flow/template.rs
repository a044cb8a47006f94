//! A node's `podTemplate`: what a user merges over the pod, typed, and kept away from what is ours.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::Value;

use crate::api::GROUP;
use crate::api::flow::node::Node;

use super::build::{COMPONENT, OWN_VOLUMES};
use crate::controllers::pod::AGENT;

/// Reads the `podTemplate` of a node.
///
/// # Errors
/// What is wrong with it, and what to do, in words.
pub fn parse(node: &Node) -> Result<Option<Box<PodTemplateSpec>>, String> {
    let Some(given) = &node.pod_template else { return Ok(None) };
    let given = Value::Object(given.clone());
    let template: PodTemplateSpec = serde_json::from_value(given.clone())
        .map_err(|e| format!("must have the form of a Deployment's `template`: {e}"))?;
    let read = serde_json::to_value(&template).unwrap_or_default();
    if let Some(unknown) = unknown(&given, &read, "") {
        return Err(format!("`{unknown}` is no field of a pod's template: correct or remove it"));
    }
    own(&template).map_or(Ok(Some(Box::new(template))), Err)
}

/// The path of the first field that is not there after reading: Kubernetes does not know it.
fn unknown(given: &Value, read: &Value, path: &str) -> Option<String> {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(key, value)| {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match read.get(key) {
                Some(read) => unknown(value, read, &path),
                None if says_nothing(value) => None,
                None => Some(path),
            }
        }),
        (Value::Array(given), Value::Array(read)) => {
            let items = given.iter().zip(read).enumerate();
            items.into_iter().find_map(|(at, (value, read))| unknown(value, read, &format!("{path}[{at}]")))
        }
        _ => None,
    }
}

/// Whether a value reads the same as none.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// What of the template would change what is ours.
fn own(template: &PodTemplateSpec) -> Option<String> {
    let meta = template.metadata.iter();
    let keys = meta.flat_map(|meta| meta.labels.iter().chain(&meta.annotations).flat_map(|map| map.keys()));
    let ours = keys.into_iter().find(|key| {
        key.split_once('/').is_some_and(|(domain, _)| domain == GROUP || domain == "app.kubernetes.io")
    });
    if let Some(key) = ours {
        return Some(format!("`metadata` must not set '{key}': Millrace sets it itself"));
    }
    template.spec.as_ref().and_then(own_spec)
}

fn own_spec(spec: &PodSpec) -> Option<String> {
    let containers = || spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if containers().any(|container| container.name == AGENT) {
        return Some(format!("must not hold a container '{AGENT}': that one is Millrace's own"));
    }
    if spec.init_containers.iter().flatten().any(|container| container.name == COMPONENT) {
        return Some(format!(
            "`spec.initContainers` must not hold '{COMPONENT}': that is the node's container"
        ));
    }
    if let Some(volume) = spec.volumes.iter().flatten().find(|v| OWN_VOLUMES.contains(&v.name.as_str())) {
        return Some(format!("`spec.volumes` must not hold '{}': that one is Millrace's own", volume.name));
    }
    spec.containers.iter().filter(|container| container.name == COMPONENT).find_map(own_component)
}

fn own_component(component: &Container) -> Option<String> {
    if component.image.is_some() {
        return Some("must not set the image of the node's container: set the node's `image`".into());
    }
    let lifecycle = component.lifecycle.as_ref();
    if lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) {
        return Some("must not set `preStop` of the node's container: the node drains there".into());
    }
    let env = component.env.iter().flatten().find(|env| env.name.starts_with("MILLRACE_"));
    env.map(|env| format!("must not set the variable '{}': Millrace sets it itself", env.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parsed(template: Value) -> Result<Option<Box<PodTemplateSpec>>, String> {
        let Value::Object(template) = template else { panic!("no object") };
        parse(&Node { pod_template: Some(template), ..Node::default() })
    }

    #[test]
    fn a_node_without_a_template_has_none() {
        assert_eq!(parse(&Node::default()), Ok(None));
    }

    #[test]
    fn a_template_may_change_what_is_not_ours() {
        let template = json!({
            "metadata": {"labels": {"team": "orders"}, "annotations": {}},
            "spec": {
                "nodeSelector": {"disk": "ssd"},
                "containers": [{"name": "component", "volumeMounts": [{"name": "cache", "mountPath": "/cache"}]}],
                "volumes": [{"name": "cache", "emptyDir": {}}],
            },
        });
        let read = parsed(template.clone()).unwrap().unwrap();
        assert_eq!(read.spec.unwrap().node_selector.unwrap()["disk"], "ssd");
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        for (template, message) in [
            (
                json!({"spec": {"nodeSelecter": {}}, "sepc": {"a": 1}}),
                "`sepc` is no field of a pod's template: correct or remove it",
            ),
            (
                json!({"spec": {"containers": [{"name": "x", "portz": [1]}]}}),
                "`spec.containers[0].portz` is no field of a pod's template: correct or remove it",
            ),
            (
                json!({"spec": {"containers": [{"name": "millrace-agent"}]}}),
                "must not hold a container 'millrace-agent': that one is Millrace's own",
            ),
            (
                json!({"spec": {"initContainers": [{"name": "component"}]}}),
                "`spec.initContainers` must not hold 'component': that is the node's container",
            ),
            (
                json!({"spec": {"containers": [{"name": "component", "image": "other"}]}}),
                "must not set the image of the node's container: set the node's `image`",
            ),
            (
                json!({"spec": {"volumes": [{"name": "millrace-broker", "emptyDir": {}}]}}),
                "`spec.volumes` must not hold 'millrace-broker': that one is Millrace's own",
            ),
            (
                json!({"metadata": {"labels": {"millrace.dev/flow": "x"}}}),
                "`metadata` must not set 'millrace.dev/flow': Millrace sets it itself",
            ),
        ] {
            assert_eq!(parsed(template), Err(message.to_owned()));
        }
        let no_form = parsed(json!({"spec": []})).unwrap_err();
        assert!(no_form.starts_with("must have the form of a Deployment's `template`: "), "{no_form}");
    }
}
