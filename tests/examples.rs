//! The examples, by the rules that the API server cannot check.

#![allow(clippy::unwrap_used, reason = "a helper that fails fails its test")]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use millrace::api::flow::{Flow, graph};
use millrace::api::values::Schema;
use millrace::controllers::flow::validate::validate;
use serde_json::Value;

fn objects() -> Vec<(PathBuf, Value)> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let folders = std::fs::read_dir(examples).unwrap().flatten().map(|entry| entry.path());
    let files =
        folders.flat_map(|folder| std::fs::read_dir(folder).unwrap().flatten().map(|entry| entry.path()));
    let documents = |file: PathBuf| {
        let text = std::fs::read_to_string(&file).unwrap();
        let objects: Vec<Value> =
            text.split("\n---\n").map(|part| serde_saphyr::from_str(part).unwrap()).collect();
        objects.into_iter().map(move |object| (file.clone(), object))
    };
    let files = files.filter(|file| file.extension().is_some_and(|end| end == "yaml"));
    files.flat_map(documents).collect()
}

fn of_kind(kind: &str) -> Vec<(PathBuf, Value)> {
    let found: Vec<_> = objects().into_iter().filter(|(_, object)| object["kind"] == kind).collect();
    assert!(!found.is_empty(), "no example of a {kind}");
    found
}

#[test]
fn every_flow_has_one_entry_and_no_cycle() {
    for (file, object) in of_kind("Flow") {
        let flow: Flow = serde_json::from_value(object).unwrap();
        let nodes: Vec<_> = flow.spec.graph.nodes.iter().map(|node| node.id.as_str()).collect();
        let edges: Vec<_> =
            flow.spec.graph.edges.iter().map(|edge| (edge.source.as_str(), edge.target.as_str())).collect();
        assert_eq!(graph::entry(&nodes, &edges), Ok(nodes[0]), "{}", file.display());
    }
}

#[test]
fn every_flow_can_be_acted_on() {
    for (file, object) in of_kind("Flow") {
        let flow: Flow = serde_json::from_value(object).unwrap();
        let refused = validate(&flow.spec).map(drop).map_err(|invalid| invalid.message);
        assert_eq!(refused, Ok(()), "{}", file.display());
    }
}

#[test]
fn the_values_of_every_record_fit_the_schema_of_its_cartridge() {
    let schemas: HashMap<_, _> = of_kind("Cartridge")
        .into_iter()
        .filter(|(_, cartridge)| cartridge["spec"]["values"].is_object())
        .map(|(_, cartridge)| {
            (cartridge["metadata"]["name"].clone(), Schema::new(&cartridge["spec"]["values"]).unwrap())
        })
        .collect();
    for (file, instance) in of_kind("Instance") {
        let schema = &schemas[&instance["spec"]["cartridge"]["name"]];
        assert_eq!(schema.check(&instance["spec"]["values"]), Ok(()), "{}", file.display());
    }
}
