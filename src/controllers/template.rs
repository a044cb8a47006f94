//! A `podTemplate` of a node or a Cartridge: what a user merges over the pod, typed, and kept away from what is ours.

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use serde_json::{Map, Value};

use crate::api::GROUP;

/// What of a pod is ours.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    /// The user's container, of which some things are ours.
    pub main: &'static str,
    /// Whose it is: `node` or `cartridge`.
    pub whose: &'static str,
    /// Containers that are ours.
    pub containers: &'static [&'static str],
    /// Volumes that are ours.
    pub volumes: &'static [&'static str],
}

/// Reads a `podTemplate`.
///
/// # Errors
/// What is wrong with it, and what to do, in words.
pub fn parse(given: Option<&Map<String, Value>>, ours: Own) -> Result<Option<Box<PodTemplateSpec>>, String> {
    let Some(given) = given else { return Ok(None) };
    let given = Value::Object(given.clone());
    let template: PodTemplateSpec = serde_json::from_value(given.clone())
        .map_err(|e| format!("must have the form of a Deployment's `template`: {e}"))?;
    let read = serde_json::to_value(&template).unwrap_or_default();
    if let Some(unknown) = unknown(&given, &read, "") {
        return Err(format!("`{unknown}` is no field of a pod's template: correct or remove it"));
    }
    own(&template, ours).map_or(Ok(Some(Box::new(template))), Err)
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
fn own(template: &PodTemplateSpec, ours: Own) -> Option<String> {
    let meta = template.metadata.iter();
    let keys = meta.flat_map(|meta| meta.labels.iter().chain(&meta.annotations).flat_map(|map| map.keys()));
    let set = keys.into_iter().find(|key| {
        key.split_once('/').is_some_and(|(domain, _)| domain == GROUP || domain == "app.kubernetes.io")
    });
    if let Some(key) = set {
        return Some(format!("`metadata` must not set '{key}': Millrace sets it itself"));
    }
    template.spec.as_ref().and_then(|spec| own_spec(spec, ours))
}

fn own_spec(spec: &PodSpec, ours: Own) -> Option<String> {
    let Own { main, whose, .. } = ours;
    if spec.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        return Some("`spec.restartPolicy` must be left out: what ends is started again".into());
    }
    let mut containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    if let Some(own) = containers.find(|container| ours.containers.contains(&container.name.as_str())) {
        return Some(format!("must not hold a container '{}': that one is Millrace's own", own.name));
    }
    if spec.init_containers.iter().flatten().any(|container| container.name == main) {
        return Some(format!(
            "`spec.initContainers` must not hold '{main}': that is the {whose}'s container"
        ));
    }
    if let Some(volume) = spec.volumes.iter().flatten().find(|v| ours.volumes.contains(&v.name.as_str())) {
        return Some(format!("`spec.volumes` must not hold '{}': that one is Millrace's own", volume.name));
    }
    spec.containers
        .iter()
        .filter(|container| container.name == main)
        .find_map(|container| own_main(container, ours))
}

fn own_main(component: &Container, Own { whose, .. }: Own) -> Option<String> {
    if component.image.is_some() {
        return Some(format!("must not set the image of the {whose}'s container: set the {whose}'s `image`"));
    }
    if whose == "cartridge" {
        let probes = [&component.startup_probe, &component.liveness_probe, &component.readiness_probe];
        let refused = [
            ("command", component.command.is_some()),
            ("args", component.args.is_some()),
            ("probes", probes.into_iter().any(Option::is_some)),
        ];
        if let Some((field, _)) = refused.into_iter().find(|(_, given)| *given) {
            return Some(format!(
                "must not set `{field}` of the cartridge's container: set the cartridge's `{field}`"
            ));
        }
        let mut mounts = component.volume_mounts.iter().flatten();
        if mounts.any(|mount| {
            mount.mount_path.trim_end_matches('/') == "/run" || mount.mount_path.starts_with("/run/millrace")
        }) {
            return Some("must not mount anything at /run/millrace: Millrace's own files are there".into());
        }
    }
    let lifecycle = component.lifecycle.as_ref();
    if lifecycle.is_some_and(|lifecycle| lifecycle.pre_stop.is_some()) {
        return Some(format!("must not set `preStop` of the {whose}'s container: the {whose} drains there"));
    }
    let env = component.env.iter().flatten().find(|env| env.name.starts_with("MILLRACE_"));
    env.map(|env| format!("must not set the variable '{}': Millrace sets it itself", env.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OWN: Own = Own {
        main: "component",
        whose: "node",
        containers: &["millrace-agent"],
        volumes: &["millrace-broker"],
    };

    fn parsed(template: Value) -> Result<Option<Box<PodTemplateSpec>>, String> {
        let Value::Object(template) = template else { panic!("no object") };
        parse(Some(&template), OWN)
    }

    #[test]
    fn a_node_without_a_template_has_none() {
        assert_eq!(parse(None, OWN), Ok(None));
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
