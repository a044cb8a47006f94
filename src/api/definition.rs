//! The CustomResourceDefinitions, as they are installed.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use serde_json::json;

use super::cartridge::Cartridge;
use super::cluster::Cluster;
use super::flow::Flow;
use super::instance::Instance;

/// All four, in the order in which they are best read.
#[must_use]
pub fn all() -> Vec<CustomResourceDefinition> {
    [Flow::crd(), Cartridge::crd(), Cluster::crd(), Instance::crd()].into_iter().map(finish).collect()
}

/// The name of a definition's file.
#[must_use]
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// What the derived schema cannot say.
fn finish(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    crd.metadata.labels.get_or_insert_default().insert("app.kubernetes.io/part-of".into(), "millrace".into());
    for version in &mut crd.spec.versions {
        let Some(root) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) else {
            continue;
        };
        tidy(root);
        // What the operator has seen is so: a rule, which came with a type of the specs, could only keep it from saying so.
        if let Some(status) = root.properties.as_mut().and_then(|all| all.get_mut("status")) {
            without_rules(status);
        }
        // Without a status, tools that wait for objects would read a new one as ready.
        set_default(root, &["status"], json!({ "observedGeneration": -1 }));
        if crd.spec.names.kind == "Cluster" {
            // Without a number, the `scale` subresource of a new object would have nothing to read.
            set_default(root, &["spec", "replicas"], json!(1));
        }
    }
    crd
}

/// Takes out what the derive adds for Rust's sake.
///
/// *Defaults*: what an absent field means is decided by the operator, so that a later version can decide better.
/// *Nullable*: a `null` then means an absent field, as everywhere in Kubernetes, and `has()` in a rule can be relied on.
/// *Formats* of Rust's numbers: the server does not know them and warns.
/// *Line ends* of the source: `kubectl explain` breaks lines by itself.
fn tidy(schema: &mut JSONSchemaProps) {
    if let Some(text) = &mut schema.description {
        *text = text.replace('\n', " ");
    }
    schema.default = None;
    schema.nullable = None;
    schema.format.take_if(|format| !matches!(format.as_str(), "int32" | "int64" | "date-time"));
    for part in parts(schema) {
        tidy(part);
    }
}

/// Takes the rules out.
fn without_rules(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_validations = None;
    for part in parts(schema) {
        without_rules(part);
    }
}

/// The schemas of the properties, the items and the values of a schema.
fn parts(schema: &mut JSONSchemaProps) -> impl Iterator<Item = &mut JSONSchemaProps> {
    let properties = schema.properties.iter_mut().flat_map(std::collections::BTreeMap::values_mut);
    let items: &mut [JSONSchemaProps] = match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => std::slice::from_mut(items),
        Some(JSONSchemaPropsOrArray::Schemas(items)) => items,
        None => &mut [],
    };
    let values = match &mut schema.additional_properties {
        Some(JSONSchemaPropsOrBool::Schema(values)) => Some(&mut **values),
        _ => None,
    };
    properties.chain(items).chain(values)
}

/// Sets the default of the property at a path.
fn set_default(schema: &mut JSONSchemaProps, path: &[&str], value: serde_json::Value) {
    match path.split_first() {
        None => schema.default = Some(JSON(value)),
        Some((first, rest)) => {
            if let Some(property) = schema.properties.as_mut().and_then(|all| all.get_mut(*first)) {
                set_default(property, rest, value);
            }
        }
    }
}
