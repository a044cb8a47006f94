//! Every reason for which a schema can refuse a spec: its rules, and its bounds but for the upper ones on texts and lists.

use std::collections::BTreeSet;
use std::fmt;

use millrace::api::definition;
use serde_json::Value;

/// Something that the server refuses, where, and what it then says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    pub kind: String,
    /// The field as the server names it, without the indices of lists and the keys of maps.
    pub place: String,
    /// A part of its words.
    pub says: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.kind, self.place, self.says)
    }
}

/// A field as the server names it, without indices and keys: `spec.graph.nodes[0].id` is `spec.graph.nodes.id`.
pub fn place(field: &str) -> String {
    let mut depth = 0;
    let outside = |c: &char| {
        depth += i32::from(*c == '[');
        let outside = depth == 0;
        depth -= i32::from(*c == ']');
        outside
    };
    field.chars().filter(outside).collect()
}

/// All of them. A reason that stands at several places, as those of a shared type do, is there once for each.
pub fn all() -> BTreeSet<Reason> {
    let mut all = BTreeSet::new();
    for crd in definition::all() {
        let crd = serde_json::to_value(crd).unwrap();
        let kind = crd["spec"]["names"]["kind"].as_str().unwrap();
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        walk("", root, &mut |place, says| {
            all.insert(Reason { kind: kind.to_owned(), place, says });
        });
    }
    all
}

fn walk(at: &str, schema: &Value, see: &mut dyn FnMut(String, String)) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        let place = format!("{at}{}", rule["fieldPath"].as_str().unwrap_or_default());
        let place = place.trim_start_matches('.').to_owned();
        // The server's word for the whole object.
        let place = if place.is_empty() { "<nil>".to_owned() } else { place };
        see(place, rule["message"].as_str().unwrap().to_owned());
    }
    // The statuses are the operator's to write, and Kubernetes itself checks metadata.
    if at.starts_with("spec") {
        bounds(at, schema, see);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        see(below(at, name.as_str().unwrap()), "Required value".to_owned());
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        if !(at.is_empty() && name == "status") {
            walk(&below(at, name), property, see);
        }
    }
    for items in ["items", "additionalProperties"] {
        if schema[items].is_object() {
            walk(at, &schema[items], see);
        }
    }
}

fn below(at: &str, name: &str) -> String {
    if at.is_empty() { name.to_owned() } else { format!("{at}.{name}") }
}

fn bounds(at: &str, schema: &Value, see: &mut dyn FnMut(String, String)) {
    let words = [
        ("enum", "supported values"),
        ("minimum", "should be greater than or equal to"),
        ("maximum", "should be less than or equal to"),
        ("minLength", "should be at least"),
        ("minItems", "should have at least"),
    ];
    for (_, says) in words.iter().filter(|(bound, _)| schema.get(bound).is_some()) {
        see(at.to_owned(), (*says).to_owned());
    }
    if matches!(schema["x-kubernetes-list-type"].as_str(), Some("map" | "set")) {
        see(at.to_owned(), "Duplicate value".to_owned());
    }
}
