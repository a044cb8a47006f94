//! A filter as a tree: terms that look at a document, and what joins them.

use std::ops::{Bound, RangeBounds};

use serde_json::Value;

use super::number::Number;
use super::partial::Fields;
use super::path::{Document, Path};
use super::pattern::Pattern;
use super::scalar::Scalar;

/// A filter. `And` of nothing matches everything, and `Or` of nothing matches nothing.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// One condition on the document.
    Term(Term),
    /// All must match.
    And(Vec<Node>),
    /// One must match.
    Or(Vec<Node>),
    /// It must not match.
    Not(Box<Node>),
}

/// One condition on the document. What is not there, and what is of another type, does not match.
#[derive(Clone, Debug, PartialEq)]
pub enum Term {
    /// The field is this scalar.
    Equals(Path, Scalar),
    /// The field is one of these scalars, which are sorted, each once.
    In(Path, Box<[Scalar]>),
    /// The field is there.
    Exists(Path),
    /// The field is a list that has this scalar.
    Contains(Path, Scalar),
    /// The document's identity is one of these, which are sorted, each once.
    Ids(Box<[Box<str>]>),
    /// The field is a number in this range, which is not empty.
    Range(Path, (Bound<Number>, Bound<Number>)),
    /// The field is a string that this is found in.
    Regexp(Path, Pattern),
    /// The document has these fields.
    Match(Fields),
    /// The field is a list whose element at an index, from the end if it is negative, matches.
    Select(Path, i64, Box<Node>),
}

impl Node {
    /// Whether a document matches.
    pub fn matches(&self, document: Document<'_>) -> bool {
        match self {
            Self::Term(term) => term.matches(document),
            Self::And(nodes) => nodes.iter().all(|node| node.matches(document)),
            Self::Or(nodes) => nodes.iter().any(|node| node.matches(document)),
            Self::Not(node) => !node.matches(document),
        }
    }
}

impl Term {
    fn matches(&self, document: Document<'_>) -> bool {
        match self {
            Self::Equals(path, scalar) => path.find(document).is_some_and(|value| scalar.is(value)),
            Self::In(path, scalars) => path.find(document).is_some_and(|value| is_among(value, scalars)),
            Self::Exists(path) => path.find(document).is_some(),
            Self::Contains(path, scalar) => {
                list(path, document).is_some_and(|list| list.iter().any(|value| scalar.is(value)))
            }
            Self::Ids(ids) => {
                identity(document).is_some_and(|id| ids.binary_search_by(|one| (**one).cmp(id)).is_ok())
            }
            Self::Range(path, range) => {
                path.find(document).and_then(number).is_some_and(|number| range.contains(&number))
            }
            Self::Regexp(path, pattern) => {
                path.find(document).and_then(Value::as_str).is_some_and(|text| pattern.is_in(text))
            }
            Self::Match(fields) => fields.are_in(document),
            Self::Select(path, index, query) => list(path, document)
                .and_then(|list| element(list, *index))
                .is_some_and(|value| query.matches(Document::Element(value))),
        }
    }
}

fn is_among(value: &Value, scalars: &[Scalar]) -> bool {
    Scalar::of(value).is_some_and(|seen| scalars.binary_search_by(|one| one.borrowed().cmp(&seen)).is_ok())
}

fn list<'a>(path: &Path, document: Document<'a>) -> Option<&'a [Value]> {
    Some(path.find(document)?.as_array()?)
}

fn number(value: &Value) -> Option<Number> {
    Number::of(value.as_number()?)
}

/// The string `_id`, or `id` where there is no `_id`: stored documents have the former, messages the latter.
fn identity(document: Document<'_>) -> Option<&str> {
    document.field("_id").or_else(|| document.field("id"))?.as_str()
}

fn element(list: &[Value], index: i64) -> Option<&Value> {
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    list.get(if index < 0 { list.len().checked_sub(distance)? } else { distance })
}

/// A step of evaluation: a look-up in an object, or a comparison of two values. Tests count them.
#[inline]
pub fn step() {
    #[cfg(test)]
    super::tests::work::count();
}
