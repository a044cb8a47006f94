//! What each keyword matches, from a table: one filter, document and answer a line, and why.

use serde_json::Value;

use crate::filter::Filter;

const TABLE: &str = include_str!("../../../tests/filters.jsonl");

fn rows() -> impl Iterator<Item = (&'static str, Value)> {
    TABLE.lines().filter(|line| !line.is_empty()).map(|line| (line, serde_json::from_str(line).unwrap()))
}

#[test]
fn every_row_of_the_table_holds() {
    for (line, row) in rows() {
        let filter = Filter::parse(row["filter"].as_object().unwrap())
            .unwrap_or_else(|error| panic!("{error}\n{line}"));
        assert_eq!(Some(filter.matches(&row["document"])), row["expected"].as_bool(), "{line}");
    }
}

#[test]
fn every_row_of_the_table_holds_turned_round() {
    for (line, row) in rows().filter(|(_, row)| row["filter"] != serde_json::json!({})) {
        let filter = serde_json::json!({"not": row["filter"]});
        let filter = Filter::parse(filter.as_object().unwrap()).unwrap();
        assert_eq!(Some(!filter.matches(&row["document"])), row["expected"].as_bool(), "{line}");
    }
}
