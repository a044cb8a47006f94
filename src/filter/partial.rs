//! `match`: what a document must at least hold.
//!
//! An object must have at least these keys with values that match in turn; keys are keys, not paths. For a list, each of
//! its elements must match another element of the document's list, in any order. Scalars must be equal.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::path::Document;
use super::scalar::Scalar;
use super::tree::step;

/// What a value must at least hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Partial {
    /// It is this scalar.
    Scalar(Scalar),
    /// It is a list in which each of these matches an element of its own.
    List(Box<[Partial]>),
    /// It is an object with these fields.
    Fields(Fields),
}

/// Fields that an object must have.
#[derive(Clone, Debug, PartialEq)]
pub struct Fields(pub Box<[(Box<str>, Partial)]>);

impl Fields {
    /// Whether a document has them.
    pub fn are_in(&self, document: Document<'_>) -> bool {
        self.0.iter().all(|(key, partial)| document.field(key).is_some_and(|value| partial.is_in(value)))
    }
}

impl Partial {
    fn is_in(&self, value: &Value) -> bool {
        step();
        match self {
            Self::Scalar(scalar) => scalar.is(value),
            Self::List(wanted) => value.as_array().is_some_and(|elements| each_has_one(wanted, elements)),
            Self::Fields(fields) => value.is_object() && fields.are_in(Document::Whole(value)),
        }
    }
}

/// Whether each of those that are wanted matches an element of its own.
///
/// Whoever matches as many elements as there are wanted always finds a free one, so that no more need be looked for.
/// With that this takes |wanted| × |elements| comparisons and |wanted|³ steps.
fn each_has_one(wanted: &[Partial], elements: &[Value]) -> bool {
    if wanted.len() > elements.len() {
        return false;
    }
    if let [only] = wanted {
        return elements.iter().any(|element| only.is_in(element));
    }
    let mut choices = Vec::with_capacity(wanted.len());
    for partial in wanted {
        let fits = |(at, element): (usize, &Value)| partial.is_in(element).then_some(at);
        let fitting: Vec<usize> = elements.iter().enumerate().filter_map(fits).take(wanted.len()).collect();
        if fitting.is_empty() {
            return false;
        }
        choices.push(fitting);
    }
    let mut taken = BTreeMap::new();
    (0..wanted.len()).all(|one| place(one, &choices, &mut taken, &mut BTreeSet::new()))
}

/// Gives one of those that are wanted an element, moving others to their other choices where that makes room.
fn place(
    one: usize,
    choices: &[Vec<usize>],
    taken: &mut BTreeMap<usize, usize>,
    seen: &mut BTreeSet<usize>,
) -> bool {
    for element in choices.get(one).into_iter().flatten() {
        step();
        if !seen.insert(*element) {
            continue;
        }
        let holder = taken.get(element).copied();
        if holder.is_none_or(|holder| place(holder, choices, taken, seen)) {
            taken.insert(*element, one);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Whether some way to give each its own element works: the slow and obvious way.
    fn some_way_works(wanted: &[Partial], elements: &mut Vec<Value>) -> bool {
        let Some((first, rest)) = wanted.split_first() else { return true };
        (0..elements.len()).any(|at| {
            let element = elements.remove(at);
            let works = first.is_in(&element) && some_way_works(rest, elements);
            elements.insert(at, element);
            works
        })
    }

    fn partial(of: &[bool]) -> Partial {
        let field =
            |(at, is): (usize, &bool)| is.then(|| (at.to_string().into(), Partial::Scalar(Scalar::Null)));
        Partial::Fields(Fields(of.iter().enumerate().filter_map(field).collect()))
    }

    fn object(of: &[bool]) -> Value {
        of.iter().enumerate().filter(|(_, is)| **is).map(|(at, _)| (at.to_string(), Value::Null)).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1024))]

        #[test]
        fn each_has_one_exactly_if_some_way_works(
            wanted in prop::collection::vec(any::<[bool; 3]>(), 0..5),
            elements in prop::collection::vec(any::<[bool; 3]>(), 0..6),
        ) {
            let wanted: Vec<Partial> = wanted.iter().map(|of| partial(of)).collect();
            let mut elements: Vec<Value> = elements.iter().map(|of| object(of)).collect();
            prop_assert_eq!(each_has_one(&wanted, &elements), some_way_works(&wanted, &mut elements));
        }
    }
}
