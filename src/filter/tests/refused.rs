//! What is refused, and with which words, from a table: one filter and error a line.

use std::fmt::Write;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use crate::filter::limits::{DEPTH, TERMS, VALUES};
use crate::filter::{Filter, ParseError};

const TABLE: &str = include_str!("../../../tests/refused.jsonl");

fn refusal(filter: &Value) -> Option<ParseError> {
    filter.as_object().and_then(|filter| Filter::parse(filter).err())
}

#[test]
fn every_wrong_filter_says_where_it_is_wrong_and_what_to_do() {
    let mut differences = String::new();
    for line in TABLE.lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        let seen = refusal(&row["filter"]).map(|error| error.to_string());
        if seen.as_deref() != row["error"].as_str() {
            writeln!(differences, "{line}\n  but: {seen:?}").unwrap();
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[test]
fn an_error_names_the_keyword_that_holds_it() {
    let error = refusal(&json!({"or": [{"exists": "a"}, {"range": {"b": {"gt": "5"}}}]})).unwrap();
    assert_eq!((&*error.path, &*error.keyword), ("or[1].range.b.gt", "range"));
    let error = refusal(&json!({"or": [{"exists": "a"}, 5]})).unwrap();
    assert_eq!((&*error.path, &*error.keyword), ("or[1]", "or"));
    let error = refusal(&json!({"bool": {"must": [{"foo": 1}]}})).unwrap();
    assert_eq!((&*error.path, &*error.keyword), ("bool.must[0].foo", "foo"));
    let error = refusal(&json!({"exists": "a", "missing": "b"})).unwrap();
    assert_eq!((&*error.path, &*error.keyword), ("", ""));
}

fn nots(count: usize) -> Value {
    let not = |filter, _| Value::Object(Map::from_iter([("not".to_owned(), filter)]));
    (0..count).fold(json!({"exists": "a"}), not)
}

#[test]
fn a_filter_can_reach_the_limits_but_not_pass_them() {
    assert_eq!(refusal(&nots(DEPTH - 1)), None);
    assert!(refusal(&nots(DEPTH)).is_some());
    let terms = |count: usize| json!({"or": vec![json!({"exists": "a"}); count]});
    assert_eq!(refusal(&terms(TERMS - 1)), None);
    assert!(refusal(&terms(TERMS)).is_some());
    let values = |count: usize| json!({"in": {"a": (0..count).collect::<Vec<_>>()}});
    assert_eq!(refusal(&values(VALUES)), None);
    assert!(refusal(&values(VALUES + 1)).is_some());
}

#[test]
fn a_filter_deeper_than_any_stack_is_refused_before_it_is_read() {
    let mut deep = nots(10_000);
    assert!(refusal(&deep).is_some());
    // Taken apart one by one: dropping it whole would need that stack.
    while let Some(inner) = deep.get_mut("not").map(Value::take) {
        deep = inner;
    }
}

/// Any JSON, made of words that filters are made of.
fn any_json() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "and",
        "or",
        "not",
        "bool",
        "must",
        "should_not",
        "equals",
        "exists",
        "missing",
        "in",
        "ids",
        "values",
        "range",
        "gt",
        "lte",
        "regexp",
        "value",
        "flags",
        "match",
        "select",
        "field",
        "index",
        "query",
        "nothing",
        "a",
        "a.b",
        "a[1]",
        "[",
        "(",
        "\\",
        "i",
        "",
        ".",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(Value::from),
        (-2i64..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 32, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map(word.clone().prop_map(str::to_owned), inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn any_json_is_a_filter_or_is_refused_in_one_short_line(filter in any_json(), document in any_json()) {
        let filter = if filter.is_object() { filter } else { json!({"and": [filter]}) };
        match Filter::parse(filter.as_object().unwrap()) {
            Ok(filter) => prop_assert_eq!(filter.matches(&document), filter.clone().matches(&document)),
            Err(error) => {
                let text = error.to_string();
                prop_assert!(!text.chars().any(char::is_control) && text.chars().count() < 500, "{}", text);
            }
        }
    }

    #[test]
    fn any_expression_is_read_or_refused(text in r"([\[\]()\\^\-&~|?*+{},:.$dwWDbBsx<>1a]){0,12}", on in ".{0,8}") {
        let filter = json!({"regexp": {"a": text}});
        if let Ok(filter) = Filter::parse(filter.as_object().unwrap()) {
            let document = json!({"a": on});
            prop_assert_eq!(filter.matches(&document), filter.clone().matches(&document));
        }
    }
}
