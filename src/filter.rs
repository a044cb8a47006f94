//! The filter language: conditions on JSON documents, written as JSON.
//!
//! It is the language of Koncorde. A filter is an object with one keyword:
//!
//! | keyword | matches a document when |
//! |---|---|
//! | `equals: {field: scalar}` | the field is that string, number, boolean or null |
//! | `in: {field: [scalar, …]}` | the field is one of them |
//! | `range: {field: {gt, gte, lt, lte}}` | the field is a number within these bounds |
//! | `regexp: {field: "re"}` or `{field: {value, flags}}` | the field is a string of at most 64 KiB that the expression is found in |
//! | `exists: "field"` or `'field["v"]'` or `{field: …}` | the field is there (null is); the array has that scalar |
//! | `missing: …` | `exists` does not match |
//! | `ids: {values: ["a", …]}` | its `_id`, or its `id` where there is no `_id`, is one of them |
//! | `match: {…}` | it holds at least all of this, in every depth |
//! | `select: {field, index, query}` | an array's element, which the query sees as `value`, matches it |
//! | `nothing: …` | never |
//! | `and: […]`, `or: […]`, `not: {…}` | all do, any does, the one does not |
//! | `bool: {must, must_not, should, should_not}` | all do, none does, at least one does, at least one does not |
//!
//! The empty filter matches everything. Numbers are compared exactly: 1 equals 1.0, and integers that no float can tell
//! apart differ. (A float in JSON text is the nearest that there is before anything is compared.) What is not there and
//! what has the wrong type does not match; `not` turns any answer round, whatever the reason for it.
//!
//! Fields are paths such as `body.total`. A key can have dots itself: in each object the shortest key is tried first, and
//! a longer one if the rest is not found below it. Lists are not descended into. In a `match` keys are keys, not paths, and
//! each element of a list must match an element of its own, in any order.
//!
//! Filters come from users and documents from strangers, so both have bounds: see [`limits`]. A filter costs at most its
//! size times the document's, with small factors, and regular expressions take time linear in the text.

mod error;
pub mod limits;
mod number;
mod parse;
mod partial;
mod path;
mod pattern;
mod scalar;
#[cfg(test)]
mod tests;
mod tree;

use serde_json::{Map, Value};

pub use self::error::ParseError;
use self::path::Document;
use self::tree::Node;

/// A condition on JSON documents.
///
/// Two filters are equal if they were written alike, up to the order of keys and of the values of `in` and `ids`.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    root: Node,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// It is none, or is beyond a limit: the first place that is wrong, and what to do about it.
    pub fn parse(filter: &Map<String, Value>) -> Result<Self, ParseError> {
        Ok(Self { root: parse::root(filter)? })
    }

    /// Whether a document matches.
    #[must_use]
    pub fn matches(&self, document: &Value) -> bool {
        self.root.matches(Document::Whole(document))
    }
}
