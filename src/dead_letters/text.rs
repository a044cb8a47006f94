//! Text of unknown origin, made fit for people and terminals.

use std::fmt::Write as _;
use std::iter::{self, Peekable};

/// A text without what would command a terminal. In JSON it stays the same text: there it can stand in strings only.
#[must_use]
pub fn quiet(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !matches!(c, '\n' | '\r' | '\t') {
            // Writing to memory does not fail.
            let _ = write!(out, "\\u{:04x}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    out
}

/// JSON over several lines, quiet. Its own text is kept: through values, long numbers would come out as others.
#[must_use]
pub fn pretty(json: &str) -> String {
    let quiet = quiet(json);
    let mut rest = quiet.chars().filter(|c| !c.is_ascii_whitespace() || *c == ' ').peekable();
    let mut layout = Layout::default();
    while let Some(c) = rest.next() {
        if layout.quoted { layout.inside(c) } else { layout.outside(c, &mut rest) }
    }
    layout.out
}

/// JSON on its way.
#[derive(Default)]
struct Layout {
    out: String,
    depth: usize,
    /// Within a string, and there behind a backslash.
    quoted: bool,
    escaped: bool,
}

impl Layout {
    fn inside(&mut self, c: char) {
        self.out.push(c);
        self.quoted = self.escaped || c != '"';
        self.escaped = c == '\\' && !self.escaped;
    }

    fn outside(&mut self, c: char, rest: &mut Peekable<impl Iterator<Item = char>>) {
        match c {
            ' ' => {}
            '{' | '[' => {
                self.out.push(c);
                while rest.next_if_eq(&' ').is_some() {}
                self.depth += 1;
                if !matches!(rest.peek(), Some('}' | ']')) {
                    self.line();
                }
            }
            '}' | ']' => {
                self.depth = self.depth.saturating_sub(1);
                if !self.out.ends_with(['{', '[']) {
                    self.line();
                }
                self.out.push(c);
            }
            ',' => {
                self.out.push(c);
                self.line();
            }
            ':' => self.out.push_str(": "),
            _ => {
                self.quoted = c == '"';
                self.out.push(c);
            }
        }
    }

    fn line(&mut self) {
        /// Deeper levels are no further right.
        const DEEPEST: usize = 20;
        self.out.push('\n');
        self.out.extend(iter::repeat_n("  ", self.depth.min(DEEPEST)));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    #[test]
    fn json_is_laid_out_and_its_numbers_stay_as_they_are() {
        let json = r#"{"id":"a\\\"{,","n":[12345678901234567890.10, {} ,[ ]],"o":{"k":null}}"#;
        let lines = [
            "{",
            r#"  "id": "a\\\"{,","#,
            r#"  "n": ["#,
            "    12345678901234567890.10,",
            "    {},",
            "    []",
            "  ],",
            r#"  "o": {"#,
            r#"    "k": null"#,
            "  }",
            "}",
        ];
        assert_eq!(pretty(json), lines.join("\n"));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf =
            prop_oneof![Just(Value::Null), any::<i64>().prop_map(Into::into), ".*".prop_map(Into::into)];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map(".*", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_that_is_laid_out_is_the_same_json(value in any_json()) {
            prop_assert_eq!(serde_json::from_str::<Value>(&pretty(&value.to_string())).unwrap(), value);
        }
    }
}
