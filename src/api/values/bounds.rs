//! How large a schema really is, once each of its references is replaced by what it points to.
//!
//! The library follows references as it checks, so forty short definitions of which each names the next one twice take
//! years. What is counted here is an upper bound of that work, which a user's schema must keep within.

use serde_json::Value;

use super::{FIELD, Violation, join};

/// The most JSON values in a schema.
const SIZE_MAX: usize = 10_000;
/// The most patterns in a schema; each may take milliseconds to compile.
const PATTERNS_MAX: usize = 100;
/// The deepest that a schema nests. The API server takes less from a client.
const DEPTH_MAX: usize = 128;

/// What `$schema` may say; the trailing `#` is optional.
const DRAFTS: [&str; 3] = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema",
];

/// Keys that, below the root, would move a reference's target to where this count does not see it.
const REFUSED: [&str; 2] = ["$id", "$schema"];
/// Keys that refer in other ways than this count follows.
const UNSUPPORTED: [&str; 2] = ["$dynamicRef", "$recursiveRef"];

/// How many JSON values a schema holds, with references replaced by what they point to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size(pub usize);

/// Measures a schema.
///
/// Wherever an object has a key `$ref` with a text, that is taken for a reference, even where it stands in an example: so
/// none is missed.
pub(super) fn measure(schema: &Value) -> Result<Size, Violation> {
    let mut walk = Walk { root: schema, path: vec![], followed: vec![], size: 0, patterns: 0 };
    walk.draft()?;
    walk.visit(schema)?;
    Ok(Size(walk.size))
}

/// How many JSON values there are, and how many bytes of text in them.
pub(super) fn weigh(value: &Value) -> (usize, usize) {
    let add = |(count, text): (usize, usize), below: (usize, usize)| (count + below.0, text + below.1);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => (1, 0),
        Value::String(text) => (1, text.len()),
        Value::Array(items) => items.iter().map(weigh).fold((1, 0), add),
        Value::Object(entries) => {
            let below = entries.iter().map(|(key, value)| add(weigh(value), (0, key.len())));
            below.fold((1, 0), add)
        }
    }
}

struct Walk<'a> {
    root: &'a Value,
    /// Where the walk is: a step for each level, such as `.items` or `[3]`.
    path: Vec<String>,
    /// The references that led there.
    followed: Vec<&'a str>,
    size: usize,
    patterns: usize,
}

impl<'a> Walk<'a> {
    fn draft(&mut self) -> Result<(), Violation> {
        let Some(draft) = self.root.get("$schema").and_then(Value::as_str) else { return Ok(()) };
        if DRAFTS.contains(&draft.trim_end_matches('#')) {
            return Ok(());
        }
        self.path.push(join("", "$schema"));
        self.wrong(format!(
            "'{draft}' must be left out, or be '{}', or that of 2019-09 or draft-07",
            DRAFTS[0]
        ))
    }

    fn visit(&mut self, value: &'a Value) -> Result<(), Violation> {
        self.size += 1;
        if self.size > SIZE_MAX {
            return self
                .wrong(format!("too large: at most {SIZE_MAX} JSON values, with references followed"));
        }
        if self.path.len() > DEPTH_MAX {
            return self.wrong(format!("too deep: at most {DEPTH_MAX} levels, with references followed"));
        }
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.step(format!("[{index}]"), |walk| walk.visit(item))),
            Value::Object(entries) => entries
                .iter()
                .try_for_each(|(key, value)| self.step(join("", key), |walk| walk.entry(key, value))),
        }
    }

    /// Does something one level deeper.
    fn step(
        &mut self,
        step: String,
        work: impl FnOnce(&mut Self) -> Result<(), Violation>,
    ) -> Result<(), Violation> {
        self.path.push(step);
        work(self)?;
        self.path.pop();
        Ok(())
    }

    fn entry(&mut self, key: &'a str, value: &'a Value) -> Result<(), Violation> {
        match value {
            Value::String(reference) if key == "$ref" => self.follow(reference)?,
            Value::String(_) if REFUSED.contains(&key) && self.path.len() > 1 => {
                return self.wrong("must be left out: only the root of a schema may have it".to_owned());
            }
            Value::String(_) if UNSUPPORTED.contains(&key) => {
                return self.wrong("must be left out: use '$ref'".to_owned());
            }
            Value::String(_) if key == "pattern" => self.patterns += 1,
            Value::Object(patterns) if key == "patternProperties" => self.patterns += patterns.len(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => {}
        }
        if self.patterns > PATTERNS_MAX {
            return self
                .wrong(format!("too many patterns: at most {PATTERNS_MAX}, with references followed"));
        }
        self.visit(value)
    }

    fn follow(&mut self, reference: &'a str) -> Result<(), Violation> {
        let pointer =
            reference.strip_prefix('#').filter(|pointer| pointer.is_empty() || pointer.starts_with('/'));
        let Some(pointer) = pointer.filter(|pointer| !pointer.contains('%')) else {
            return self
                .wrong(format!("'{reference}' must point inside of this schema, such as '#/$defs/port'"));
        };
        let Some(target) = self.root.pointer(pointer) else {
            return self.wrong(format!("'{reference}' must point to something that is in this schema"));
        };
        if self.followed.contains(&reference) {
            return self.wrong(format!("'{reference}' must not lead back to itself"));
        }
        self.followed.push(reference);
        self.visit(target)?;
        self.followed.pop();
        Ok(())
    }

    fn wrong(&self, problem: String) -> Result<(), Violation> {
        Err(Violation { path: format!("{FIELD}{}", self.path.concat()), problem })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_schema_is_as_large_as_what_its_references_stand_for() {
        let size = |schema: &Value| measure(schema).unwrap();
        assert_eq!(size(&json!(true)), Size(1));
        assert_eq!(size(&json!({"type": "string"})), Size(2));
        // The root, `items`, its `$ref` and what that stands for (2); `$defs`, and its one definition (2).
        assert_eq!(
            size(&json!({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "string"}}})),
            Size(8)
        );
    }

    #[test]
    fn values_weigh_what_they_hold() {
        assert_eq!(weigh(&json!(null)), (1, 0));
        assert_eq!(weigh(&json!({"ab": ["cde", 1], "f": "ö"})), (5, 8));
    }

    #[test]
    fn a_reference_to_the_root_leads_back_to_itself_only_from_below() {
        // `#` is being visited without having been followed: the second time round it is met.
        let schema = json!({"items": {"$ref": "#"}});
        let wrong = measure(&schema).unwrap_err();
        assert_eq!(wrong.to_string(), "spec.values.items.$ref.items.$ref: '#' must not lead back to itself");
    }
}
