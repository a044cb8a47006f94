//! What is generated is what the code says, and the definitions keep the promises that hold for all of them.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use millrace::{api::definition, cli};
use serde_json::{Value, json};

/// Calls `see` with the path and schema of every property, item and map value below a schema, and its own.
fn walk(path: &str, schema: &Value, see: &mut dyn FnMut(&str, &Value)) {
    see(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), property, see);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], see);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], see);
    }
}

/// What `see` has to say of every schema of every kind; the paths begin with the kind.
fn complaints(mut see: impl FnMut(&str, &Value) -> Option<String>) -> Vec<String> {
    let mut all = vec![];
    for crd in definition::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk(crd["spec"]["names"]["kind"].as_str().unwrap(), root, &mut |path, schema| {
            all.extend(see(path, schema).map(|complaint| format!("{path}: {complaint}")));
        });
    }
    all
}

#[test]
fn the_files_in_crds_are_what_the_code_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("crds");
    let generated = cli::crds().unwrap();
    for (name, yaml) in &generated {
        let stored = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        assert!(
            stored == *yaml,
            "crds/{name} is not what src/api says; to write it again, run: make generate"
        );
    }
    let files = std::fs::read_dir(folder).unwrap().count();
    assert_eq!(files, generated.len(), "crds/ must hold the generated files and no others");
}

#[test]
fn the_printed_definitions_read_back_as_they_were() {
    for ((name, yaml), crd) in cli::crds().unwrap().iter().zip(definition::all()) {
        let read: k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition =
            serde_saphyr::from_str(yaml).unwrap();
        assert_eq!(read, crd, "{name}");
    }
}

#[test]
fn there_are_two_defaults_and_no_others() {
    let defaults = complaints(|_, schema| schema.get("default").map(Value::to_string));
    let status = json!({ "observedGeneration": -1 });
    assert_eq!(
        defaults,
        [
            format!("Flow.status: {status}"),
            format!("Cartridge.status: {status}"),
            "Cluster.spec.replicas: 1".to_owned(),
            format!("Cluster.status: {status}"),
            format!("Instance.status: {status}"),
        ]
    );
}

#[test]
fn every_field_is_explained() {
    let silent = complaints(|path, schema| {
        let is_field = !path.ends_with("[]") && !path.ends_with("{}") && path.contains('.');
        (is_field && schema["description"].as_str().is_none_or(|text| text.len() < 10))
            .then(|| "no words".into())
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_optional_field_of_a_spec_says_what_its_absence_means() {
    let silent = complaints(|path, schema| {
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let silent: Vec<_> = schema["properties"]
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(name, field)| {
                path.contains(".spec")
                    && !required.contains(&json!(name))
                    && !field["description"].as_str().unwrap_or_default().contains("Absent: ")
            })
            .map(|(name, _)| name.as_str())
            .collect();
        // A list of ways of which one is given explains itself.
        let ways = ["valueFrom", "startup", "liveness", "readiness"].iter().any(|way| path.ends_with(way));
        (!silent.is_empty() && !ways).then(|| silent.join(", "))
    });
    assert_eq!(silent, Vec::<String>::new());
}

#[test]
fn every_list_map_and_string_is_bounded() {
    let unbounded = complaints(|path, schema| {
        let has = |bound: &str| schema.get(bound).is_some();
        match schema["type"].as_str() {
            Some("string") if has("maxLength") || has("enum") || schema["format"] == "date-time" => None,
            Some("array") if has("maxItems") => None,
            Some("object") if has("properties") || has("maxProperties") || path.ends_with(".metadata") => {
                None
            }
            Some("integer" | "boolean" | "number") => None,
            // A number or a text.
            None if has("maxLength") => None,
            other => Some(format!("{other:?} without a bound")),
        }
    });
    // These three are Kubernetes' own.
    let unbounded: Vec<_> = unbounded.into_iter().filter(|path| !path.contains("apiVersion")).collect();
    assert_eq!(unbounded, Vec::<String>::new());
}

#[test]
fn no_status_needs_a_field() {
    for crd in definition::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let status = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"];
        assert_eq!(status.get("required"), None, "{}", crd["metadata"]["name"]);
    }
}

#[test]
fn no_rule_judges_a_status() {
    let rules = complaints(|path, schema| {
        let in_status = path.split('.').nth(1) == Some("status");
        (in_status && schema.get("x-kubernetes-validations").is_some()).then(|| "a rule".into())
    });
    assert_eq!(rules, Vec::<String>::new());
}

#[test]
fn what_users_write_freely_is_kept_as_it_is() {
    let mut kept = vec![];
    complaints(|path, schema| {
        if schema["x-kubernetes-preserve-unknown-fields"] == true {
            kept.push(path.to_owned());
        }
        None
    });
    assert_eq!(
        kept,
        [
            "Flow.spec.graph.edges[].condition",
            "Flow.spec.graph.nodes[].fields",
            "Flow.spec.graph.nodes[].podTemplate",
            "Cartridge.spec.podTemplate",
            "Cartridge.spec.values",
            "Cluster.spec.values",
            "Instance.spec.values",
        ]
    );
}

#[test]
fn every_message_names_a_field_and_says_what_must_be() {
    let unhelpful = complaints(|_, schema| {
        let messages = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
        let messages: Vec<_> =
            messages.map(|rule| rule["message"].as_str().unwrap_or_default().to_owned()).collect();
        let unhelpful = messages.iter().find(|message| !message.contains("must"))?;
        Some(unhelpful.clone())
    });
    assert_eq!(unhelpful, Vec::<String>::new());
}
