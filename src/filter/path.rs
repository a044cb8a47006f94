//! Where in a document a field is.
//!
//! A path is a list of keys with dots between them. Keys may have dots themselves, so a path can be read in more than one
//! way: in each object the shortest key is tried first, and a longer one only if the rest of the path is not found below
//! it. For `a.b` that is the key `b` in the object `a`, and otherwise the key `a.b`. Lists are not descended into, and keys
//! are never positions in them. No part is empty: `.a`, `a.` and `a..b` are no paths.

use serde_json::Value;

use super::limits::{PATH_BYTES, PATH_PARTS};
use super::tree::step;

/// The name under which `select` shows an element.
const ELEMENT: &str = "value";

/// What a filter looks at.
#[derive(Clone, Copy, Debug)]
pub enum Document<'a> {
    /// A document as it is.
    Whole(&'a Value),
    /// A document with one field, `value`, which is this element of a list.
    Element(&'a Value),
}

impl<'a> Document<'a> {
    /// The field of a key, which is no path here.
    pub fn field(self, key: &str) -> Option<&'a Value> {
        step();
        match self {
            Self::Whole(value) => value.as_object()?.get(key),
            Self::Element(value) => (key == ELEMENT).then_some(value),
        }
    }
}

/// The path of a field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path {
    text: Box<str>,
    /// Where its parts end: each dot, and the end of the text.
    ends: Box<[usize]>,
}

impl Path {
    /// Reads a path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the field has no name: write its path, such as body.total".into());
        }
        if text.split('.').any(str::is_empty) {
            return Err(
                "a path has no empty part: write it like body.total, without a dot at its ends".into()
            );
        }
        let ends: Box<[usize]> = text.match_indices('.').map(|(at, _)| at).chain([text.len()]).collect();
        if text.len() > PATH_BYTES || ends.len() > PATH_PARTS {
            return Err(format!("a path has at most {PATH_PARTS} parts and {PATH_BYTES} bytes: shorten it"));
        }
        Ok(Self { text: text.into(), ends })
    }

    /// The value of the field, if it is there.
    pub fn find<'a>(&self, document: Document<'a>) -> Option<&'a Value> {
        self.find_from(document, 0, &self.ends)
    }

    /// Finds what is left of the path. An object of the document is visited at most once: one way of keys leads to it.
    fn find_from<'a>(&self, document: Document<'a>, start: usize, ends: &[usize]) -> Option<&'a Value> {
        let mut left = ends;
        while let Some((end, rest)) = left.split_first() {
            left = rest;
            let Some(value) = document.field(self.text.get(start..*end)?) else { continue };
            if rest.is_empty() {
                return Some(value);
            }
            if value.is_object()
                && let Some(found) = self.find_from(Document::Whole(value), end + 1, rest)
            {
                return Some(found);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn find<'a>(document: &'a Value, path: &str) -> Option<&'a Value> {
        Path::parse(path).unwrap().find(Document::Whole(document))
    }

    #[test]
    fn the_shortest_key_is_tried_first_and_longer_ones_when_it_leads_nowhere() {
        let both = json!({"a": {"b": 1}, "a.b": 2});
        assert_eq!(find(&both, "a.b"), Some(&json!(1)));
        let split = json!({"a": {"b": {"x": 0}, "b.c": 1}, "a.b": {"c": 2}, "a.b.c": 3});
        assert_eq!(find(&split, "a.b.c"), Some(&json!(1)));
        assert_eq!(find(&json!({"a": {"b": 0}, "a.b": {"c": 2}, "a.b.c": 3}), "a.b.c"), Some(&json!(2)));
        assert_eq!(find(&json!({"a": {"b": 0}, "a.b": 5, "a.b.c": 3}), "a.b.c"), Some(&json!(3)));
        assert_eq!(find(&json!({"a": {"b": 0}, "a.b": 5}), "a.b.c"), None);
    }

    #[test]
    fn lists_are_not_descended_into() {
        let list = json!({"a": [{"b": 1}], "0": 2});
        assert_eq!(find(&list, "a.b"), None);
        assert_eq!(find(&list, "a.0"), None);
        assert_eq!(find(&list, "0"), Some(&json!(2)));
        assert_eq!(find(&json!([{"b": 1}]), "b"), None);
    }

    #[test]
    fn an_element_is_seen_as_value() {
        let element = json!({"a": {"b": 1}});
        let find = |path| Path::parse(path).unwrap().find(Document::Element(&element));
        assert_eq!(find("value"), Some(&element));
        assert_eq!(find("value.a.b"), Some(&json!(1)));
        assert_eq!(find("a"), None);
        assert_eq!(find("value.value"), None);
    }

    #[test]
    fn what_is_no_path_is_refused() {
        for text in [".a", "a.", "a..b", "."] {
            assert!(Path::parse(text).unwrap_err().contains("no empty part"), "{text}");
        }
        assert!(Path::parse("").unwrap_err().contains("no name"));
        let long = ["a"; PATH_PARTS + 1].join(".");
        assert!(Path::parse(&long).unwrap_err().contains("shorten it"));
        assert!(Path::parse(&long[2..]).is_ok());
        assert!(Path::parse(&"a".repeat(PATH_BYTES)).is_ok());
        assert!(Path::parse(&"a".repeat(PATH_BYTES + 1)).is_err());
    }
}
