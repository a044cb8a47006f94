//! What holds for any filter and any document.

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::filter::Filter;

const FIELDS: [&str; 5] = ["a", "b", "a.b", "l", "b.a"];

fn matches(filter: &Value, document: &Value) -> bool {
    let filter = filter.as_object().unwrap();
    Filter::parse(filter).unwrap_or_else(|error| panic!("{error}: {filter:?}")).matches(document)
}

fn scalar() -> impl Strategy<Value = Value> {
    prop::sample::select(vec![
        json!(null),
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(1.0),
        json!(0.5),
        json!(-1),
        json!("x"),
        json!("y"),
        json!("1"),
        json!(""),
    ])
}

fn document() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 24, 4, |inner| {
        let key = prop::sample::select(vec!["a", "b", "a.b", "l", "id", "_id", "value"]).prop_map(str::to_owned);
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            3 => prop::collection::btree_map(key, inner, 0..5).prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(FIELDS.to_vec())
}

/// What a `match` can hold under a key.
fn partial() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn term() -> impl Strategy<Value = Value> {
    prop_oneof![
        (field(), scalar()).prop_map(|(field, value)| json!({"equals": {field: value}})),
        (field(), prop::collection::vec(scalar(), 1..4))
            .prop_map(|(field, values)| json!({"in": {field: values}})),
        field().prop_map(|field| json!({"exists": field})),
        (field(), scalar()).prop_map(|(field, value)| json!({"exists": format!("{field}[{value}]")})),
        field().prop_map(|field| json!({"missing": {"field": field}})),
        (field(), -1i64..2).prop_map(|(field, low)| json!({"range": {field: {"gte": low, "lt": 1.5}}})),
        (field(), prop::sample::select(vec!["x", "^$", "1", "."]))
            .prop_map(|(field, re)| json!({"regexp": {field: re}})),
        ("[ab]", partial()).prop_map(|(field, value)| json!({"match": {field: value}})),
        Just(json!({"ids": {"values": ["x", "1"]}})),
        Just(json!({"nothing": true})),
    ]
}

fn filter() -> impl Strategy<Value = Value> {
    term().prop_recursive(4, 24, 4, |inner| {
        let several = || prop::collection::vec(inner.clone(), 1..4);
        prop_oneof![
            several().prop_map(|filters| json!({"and": filters})),
            several().prop_map(|filters| json!({"or": filters})),
            inner.clone().prop_map(|filter| json!({"not": filter})),
            (several(), several())
                .prop_map(|(one, other)| json!({"bool": {"must": one, "should_not": other}})),
            (several(), several())
                .prop_map(|(one, other)| json!({"bool": {"should": one, "must_not": other}})),
            (field(), -2i64..2, inner.clone()).prop_map(
                |(field, index, query)| json!({"select": {"field": field, "index": index, "query": query}})
            ),
        ]
    })
}

fn filters() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(filter(), 1..5)
}

fn nots(filters: &[Value]) -> Vec<Value> {
    filters.iter().map(|filter| json!({"not": filter})).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn not_matches_exactly_what_its_filter_does_not(filter in filter(), document in document()) {
        prop_assert_eq!(matches(&json!({"not": filter}), &document), !matches(&filter, &document));
    }

    #[test]
    fn and_is_all_and_or_is_any(filters in filters(), document in document()) {
        let mut each = filters.iter().map(|filter| matches(filter, &document));
        prop_assert_eq!(matches(&json!({"and": filters}), &document), each.clone().all(|one| one));
        prop_assert_eq!(matches(&json!({"or": filters}), &document), each.any(|one| one));
    }

    #[test]
    fn not_moves_into_and_and_or(filters in filters(), document in document()) {
        let (and, nor) = (json!({"not": {"and": filters}}), json!({"not": {"or": filters}}));
        prop_assert_eq!(matches(&and, &document), matches(&json!({"or": nots(&filters)}), &document));
        prop_assert_eq!(matches(&nor, &document), matches(&json!({"and": nots(&filters)}), &document));
    }

    #[test]
    fn the_order_of_terms_does_not_matter(
        (filters, turned) in filters().prop_flat_map(|filters| (Just(filters.clone()), Just(filters).prop_shuffle())),
        (values, other) in prop::collection::vec(scalar(), 1..6)
            .prop_flat_map(|values| (Just(values.clone()), Just(values).prop_shuffle())),
        field in field(), document in document(),
    ) {
        for list in ["and", "or"] {
            prop_assert_eq!(matches(&json!({list: filters}), &document), matches(&json!({list: turned}), &document));
        }
        for part in ["must", "must_not", "should", "should_not"] {
            let bool = |filters: &[Value]| json!({"bool": {part: filters}});
            prop_assert_eq!(matches(&bool(&filters), &document), matches(&bool(&turned), &document));
        }
        let parse = |values: &[Value]| Filter::parse(json!({"in": {field: values}}).as_object().unwrap()).unwrap();
        prop_assert_eq!(parse(&values), parse(&other));
    }

    #[test]
    fn saying_it_twice_changes_nothing(filter in filter(), document in document()) {
        for twice in [json!({"and": [filter, filter]}), json!({"or": [filter, filter]}), json!({"not": {"not": filter}})] {
            prop_assert_eq!(matches(&twice, &document), matches(&filter, &document));
        }
    }

    #[test]
    fn in_is_an_or_of_equals(field in field(), values in prop::collection::vec(scalar(), 1..6), document in document()) {
        let equals: Vec<Value> = values.iter().map(|value| json!({"equals": {field: value}})).collect();
        prop_assert_eq!(matches(&json!({"in": {field: values}}), &document), matches(&json!({"or": equals}), &document));
    }

    #[test]
    fn missing_is_not_exists(field in field(), value in scalar(), document in document()) {
        for what in [field.to_owned(), format!("{field}[{value}]")] {
            prop_assert_eq!(matches(&json!({"missing": what}), &document), !matches(&json!({"exists": what}), &document));
        }
    }

    #[test]
    fn what_equals_something_exists(field in field(), value in scalar(), document in document()) {
        let equals = matches(&json!({"equals": {field: value}}), &document);
        let exists = matches(&json!({"exists": field}), &document);
        prop_assert!(!equals || exists);
    }

    #[test]
    fn bool_is_what_it_is_short_for(
        must in filters(), must_not in filters(), should in filters(), should_not in filters(), document in document(),
    ) {
        let bool = json!({"bool": {"must": must, "must_not": must_not, "should": should, "should_not": should_not}});
        let long = json!({"and": [
            {"and": must}, {"and": nots(&must_not)}, {"or": should}, {"or": nots(&should_not)},
        ]});
        prop_assert_eq!(matches(&bool, &document), matches(&long, &document));
    }

    #[test]
    fn a_select_is_its_query_on_an_object_with_that_element(
        query in filter(), index in -3i64..3, list in prop::collection::vec(document(), 0..4),
    ) {
        let filter = json!({"select": {"field": "l", "index": index, "query": query}});
        let at = if index < 0 { index + i64::try_from(list.len()).unwrap() } else { index };
        let element = usize::try_from(at).ok().and_then(|at| list.get(at));
        let expected = element.is_some_and(|element| matches(&query, &json!({"value": element})));
        prop_assert_eq!(matches(&filter, &json!({"l": list})), expected);
    }

    #[test]
    fn a_document_holds_itself(document in document()) {
        let more = json!({"a": document, "b": 1});
        prop_assert_eq!(matches(&json!({"match": {"a": document}}), &more), true);
    }
}
