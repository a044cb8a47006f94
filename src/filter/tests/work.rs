//! How much work the worst filters within the limits are.

use std::cell::Cell;

use serde_json::{Map, Value, json};

use crate::filter::Filter;
use crate::filter::limits::{DEPTH, MATCH_LIST, PATH_PARTS, TERMS, VALUES};

thread_local! {
    static STEPS: Cell<u64> = const { Cell::new(0) };
}

/// Counts a step.
pub fn count() {
    STEPS.set(STEPS.get() + 1);
}

/// How many steps it takes to find out whether a document matches.
fn steps(filter: &Value, document: &Value) -> (bool, u64) {
    let filter = Filter::parse(filter.as_object().unwrap()).unwrap();
    STEPS.set(0);
    (filter.matches(document), STEPS.get())
}

/// How many values there are in a document, itself included.
fn size(value: &Value) -> u64 {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum::<u64>(),
        Value::Object(fields) => fields.values().map(size).sum(),
        _ => 0,
    }
}

fn number(of: usize) -> u64 {
    of.try_into().unwrap()
}

#[test]
fn a_field_costs_a_step_for_each_part_of_its_path() {
    assert_eq!(steps(&json!({"exists": "body.total"}), &json!({"body": {"total": 5}})), (true, 2));
    assert_eq!(steps(&json!({"exists": "body.total"}), &json!({"body": {}})), (false, 3));
    assert_eq!(steps(&json!({"equals": {"a": 1}}), &json!({"a": 1})), (true, 2));
}

#[test]
fn what_decides_ends_the_work() {
    let (one, never) = (json!({"exists": "a"}), json!({"match": {"list": [1, 2, 3]}}));
    assert_eq!(steps(&json!({"or": [one, never]}), &json!({"a": 1, "list": [3, 2, 1]})), (true, 1));
    assert_eq!(
        steps(&json!({"and": [{"not": one}, never]}), &json!({"a": 1, "list": [3, 2, 1]})),
        (false, 1)
    );
}

#[test]
fn the_most_values_cost_no_more_than_one() {
    let values: Vec<usize> = (0..VALUES).collect();
    assert_eq!(steps(&json!({"in": {"a": values}}), &json!({"a": VALUES})), (false, 1));
}

#[test]
fn the_most_searches_of_a_large_list_cost_their_product() {
    let list = vec![json!("w"); 10_000];
    let (found, steps) =
        steps(&json!({"or": vec![json!({"exists": "a[\"v\"]"}); TERMS - 1]}), &json!({"a": list}));
    assert!(!found);
    assert!(steps <= number(TERMS) * 10_002, "{steps}");
}

/// An object in which every key of `a`s and dots leads to another such object, but to no end.
fn bush(parts: usize) -> Value {
    let keys = (1..parts).map(|length| (["a"].repeat(length).join("."), bush(parts - length)));
    Value::Object(keys.collect::<Map<_, _>>())
}

#[test]
fn a_path_that_can_be_read_in_many_ways_visits_each_object_once() {
    let document = bush(14);
    assert_eq!(size(&document), 1 << 13);
    let path = ["a"].repeat(14).join(".");
    let (found, steps) = steps(&json!({"exists": path}), &document);
    assert!(!found);
    assert!(steps <= size(&document) * number(PATH_PARTS), "{steps}");
}

/// A `match` of lists in a list whose last elements only fit when all others move, and a document that lacks one.
#[test]
fn the_worst_match_costs_the_product_of_the_sizes_and_a_little() {
    // The element of a number below n has the fields 0..n, and so fits all that have more.
    let element = |n: usize| (0..n).map(|field| (field.to_string(), Value::Null)).collect::<Value>();
    let wanted: Vec<Value> = (0..24).map(element).collect();
    let mut elements: Vec<Value> = (0..24).map(element).rev().collect();
    elements.extend(vec![json!({}); 5000]);
    let filter = json!({"match": {"a": wanted}});
    let (found, enough) = steps(&filter, &json!({"a": elements}));
    assert!(found);
    elements.retain(|element| element.as_object().is_none_or(|fields| fields.len() != 23));
    let (found, lacking) = steps(&filter, &json!({"a": elements}));
    assert!(!found);
    let bound = 3 * size(&filter) * size(&json!(elements)) + number(MATCH_LIST.pow(3));
    assert!(enough <= bound && lacking <= bound, "{enough} {lacking} {bound}");
}

#[test]
fn a_match_that_fits_in_every_way_but_one_costs_the_cube_of_its_list() {
    // All want one of all elements but the last, and there is one element too few of them.
    let (wanted, element) = (vec![json!([1]); MATCH_LIST], json!([1]));
    let mut elements = vec![element; MATCH_LIST - 1];
    elements.push(json!([2]));
    let (found, steps) = steps(&json!({"match": {"a": wanted}}), &json!({"a": elements}));
    assert!(!found);
    assert!(steps <= 4 * number(MATCH_LIST.pow(3)), "{steps}");
}

#[test]
fn nested_selects_cost_a_step_each() {
    let mut query = json!({"exists": "value"});
    let mut document = json!("end");
    for _ in 0..DEPTH - 2 {
        query = json!({"select": {"field": "value", "index": -1, "query": query}});
        document = json!([0, document]);
    }
    let filter = json!({"select": {"field": "a", "index": -1, "query": query}});
    assert_eq!(steps(&filter, &json!({"a": [document]})), (true, number(DEPTH)));
}
