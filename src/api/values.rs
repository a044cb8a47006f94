//! The JSON schema of a Cartridge, and the values of its Instances and Clusters that must fit it.
//!
//! Both are written by users, and are checked inside of the operator. So a schema is refused when it could reach out, or
//! cost more than its size promises: references stay inside of it, their expansion is bounded, and patterns take linear
//! time. Nothing here prints a value: it may be a secret.

mod bounds;

use std::fmt;

use jsonschema::{
    PatternOptions, ValidationError, Validator,
    error::ValidationErrorKind,
    paths::{Location, LocationSegment},
};
use serde_json::Value;
use thiserror::Error;

use self::bounds::Size;
use super::condition::bounded;

/// Where the schema stands in a Cartridge, and the values in an Instance and a Cluster.
const FIELD: &str = "spec.values";
/// How many violations are listed.
const LISTED: usize = 16;
/// The most bytes of one violation's text.
const PROBLEM_MAX: usize = 256;
/// The most bytes of a compiled pattern: room for `^\w{1,63}$`, none for `((a{100}){100}){100}`.
const PATTERN_MAX: usize = 4 << 20;
/// The most JSON values in a schema times those in what is checked: an error costs some 400 bytes, and in the worst case
/// each pair has one.
const WORK_MAX: usize = 500_000;
/// The most JSON values in a schema times the bytes of text in what is checked.
const TEXT_WORK_MAX: usize = 256 << 20;

/// What is said of a pattern that is refused.
const NO_PATTERN: &str = "is no regular expression, too large a one, or uses look-around or back-references, which are \
                          not supported because they can take for ever";

/// Where something is wrong, and how it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The field, for example `spec.values.hosts[3].port`.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.problem)
    }
}

/// Why a schema cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("correct the schema at {0}")]
pub struct InvalidSchema(pub Violation);

/// How values differ from what their schema asks for.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct InvalidValues {
    /// The first violations.
    pub violations: Vec<Violation>,
    /// How many there are beyond those.
    pub more: usize,
}

impl fmt::Display for InvalidValues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let listed: Vec<_> = self.violations.iter().map(Violation::to_string).collect();
        f.write_str(&listed.join("; "))?;
        if self.more > 0 { write!(f, "; and {} more", self.more) } else { Ok(()) }
    }
}

/// A schema that has been checked, ready to check values. To make one may cost tens of milliseconds: keep it.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    size: Size,
}

impl Schema {
    /// Checks a schema: a JSON schema of 2020-12 unless `$schema` names 2019-09 or draft-07.
    ///
    /// # Errors
    /// The first place where the schema is wrong, or not within the bounds.
    pub fn new(schema: &Value) -> Result<Self, InvalidSchema> {
        let size = bounds::measure(schema).map_err(InvalidSchema)?;
        let patterns = PatternOptions::regex().size_limit(PATTERN_MAX);
        let options = jsonschema::options().offline().with_pattern_options(patterns);
        let validator = options.build(schema).map_err(|error| InvalidSchema(violation_of_schema(&error)))?;
        Ok(Self { validator, size })
    }

    /// Checks values.
    ///
    /// # Errors
    /// Every violation, the first few of them in words.
    pub fn check(&self, values: &Value) -> Result<(), InvalidValues> {
        let (count, text) = bounds::weigh(values);
        if self.size.0.saturating_mul(count) > WORK_MAX || self.size.0.saturating_mul(text) > TEXT_WORK_MAX {
            let problem = "too large for a schema of this size: make either smaller".to_owned();
            let violations = vec![Violation { path: FIELD.to_owned(), problem }];
            return Err(InvalidValues { violations, more: 0 });
        }
        let mut errors = self.validator.iter_errors(values);
        let violations: Vec<_> = errors.by_ref().take(LISTED).map(|error| violation(&error)).collect();
        if violations.is_empty() { Ok(()) } else { Err(InvalidValues { violations, more: errors.count() }) }
    }
}

/// What is wrong with a value, in words that do not show it.
fn violation(error: &ValidationError<'_>) -> Violation {
    Violation { path: path(error.instance_path()), problem: bounded(&problem(error), PROBLEM_MAX) }
}

/// What is wrong with a schema. It holds no secrets, and its patterns are of the engine that Millrace uses.
fn violation_of_schema(error: &ValidationError<'_>) -> Violation {
    let problem = match error.kind() {
        ValidationErrorKind::Format { format } if format == "regex" => NO_PATTERN.to_owned(),
        ValidationErrorKind::Referencing(refused) => refused.to_string(),
        _ => problem(error),
    };
    Violation { path: path(error.instance_path()), problem: bounded(&problem, PROBLEM_MAX) }
}

/// The library's words but for the kinds whose words leave out what is expected. It has dozens of kinds, and may get more.
fn problem(error: &ValidationError<'_>) -> String {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            let reasons = context.iter().filter_map(|branch| branch.first()).take(LISTED).map(problem);
            format!("fits none of what is allowed: {}", reasons.collect::<Vec<_>>().join("; and "))
        }
        ValidationErrorKind::Enum { options } => format!("value is not one of {options}"),
        ValidationErrorKind::FalseSchema => "the schema allows nothing here".to_owned(),
        _ => error.masked().to_string(),
    }
}

/// A place as Kubernetes writes it: `spec.values.hosts[3]['a.b']`.
fn path(location: &Location) -> String {
    location.iter().fold(FIELD.to_owned(), |path, segment| match segment {
        LocationSegment::Property(key) => join(&path, &key),
        LocationSegment::Index(index) => format!("{path}[{index}]"),
    })
}

fn join(path: &str, key: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
    if !key.is_empty() && key.chars().all(plain) {
        format!("{path}.{key}")
    } else {
        format!("{path}['{key}']")
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn refused(schema: &Value) -> String {
        Schema::new(schema).unwrap_err().to_string()
    }

    fn violations(schema: &Value, values: &Value) -> String {
        Schema::new(schema).unwrap().check(values).unwrap_err().to_string()
    }

    /// Runs something, which must not take long: seconds in a debug build on a busy machine, for ever without its bound.
    fn soon<T>(work: impl FnOnce() -> T) -> T {
        let start = Instant::now();
        let result = work();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        result
    }

    fn device() -> Value {
        json!({
            "type": "object",
            "required": ["serial"],
            "additionalProperties": false,
            "properties": {
                "serial": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{6}$"},
                "ports": {"type": "array", "maxItems": 4, "items": {"$ref": "#/$defs/port"}},
                "mode": {"anyOf": [{"enum": ["router", "bridge"]}, {"type": "null"}]},
            },
            "$defs": {"port": {"type": "integer", "minimum": 1, "maximum": 65535}},
        })
    }

    #[test]
    fn values_that_fit_are_accepted() {
        let schema = Schema::new(&device()).unwrap();
        for values in
            [json!({"serial": "AB123456"}), json!({"serial": "AB123456", "ports": [80], "mode": null})]
        {
            assert_eq!(schema.check(&values), Ok(()));
        }
        assert_eq!(Schema::new(&json!({})).unwrap().check(&json!({"anything": [1]})), Ok(()));
    }

    #[test]
    fn every_violation_is_listed_with_its_path() {
        let values = json!({"ports": [80, 0, "x"], "mode": "hub", "extra": 1});
        let InvalidValues { mut violations, more } =
            Schema::new(&device()).unwrap().check(&values).unwrap_err();
        violations.sort_by_key(ToString::to_string);
        let listed: Vec<_> = violations.iter().map(ToString::to_string).collect();
        assert_eq!(
            listed,
            [
                "spec.values.mode: fits none of what is allowed: value is not one of [\"router\",\"bridge\"]; and value \
                 is not of type \"null\"",
                "spec.values.ports[1]: value is less than the minimum of 1",
                "spec.values.ports[2]: value is not of type \"integer\"",
                "spec.values: \"serial\" is a required property",
                "spec.values: Additional properties are not allowed ('extra' was unexpected)",
            ]
        );
        assert_eq!(more, 0);
    }

    #[test]
    fn a_value_is_never_shown() {
        let secret = "hunter2";
        for schema in [
            json!({"pattern": "^x$"}),
            json!({"type": "integer"}),
            json!({"enum": ["x"]}),
            json!({"const": "x"}),
            json!({"maxLength": 1}),
            json!({"minLength": 100}),
            json!({"not": {}}),
            json!(false),
            json!({"format": "ipv4"}),
            json!({"anyOf": [{"type": "integer"}, {"const": "x"}]}),
            json!({"oneOf": [{"type": "integer"}, {"const": "x"}]}),
            json!({"oneOf": [{}, {}]}),
            json!({"if": {}, "then": {"type": "integer"}}),
            json!({"multipleOf": 2, "type": "integer"}),
        ] {
            let said = violations(
                &json!({"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"a": schema.clone()}}),
                &json!({"a": secret}),
            );
            assert!(!said.contains(secret), "{schema}: {said}");
            assert!(said.starts_with("spec.values.a: "), "{schema}: {said}");
        }
    }

    #[test]
    fn violations_are_bounded_in_count_and_size() {
        let many: Vec<_> = (0..10_000).map(|_| json!("x".repeat(10))).collect();
        let schema = Schema::new(&json!({"items": {"type": "integer"}})).unwrap();
        let found = schema.check(&Value::Array(many)).unwrap_err();
        assert_eq!((found.violations.len(), found.more), (16, 9984));
        assert!(found.to_string().ends_with("; and 9984 more"));
        let long = violations(&json!({"pattern": "y".repeat(1000)}), &json!("x"));
        assert!(long.len() < 300, "{long}");
        assert!(long.ends_with('…'));
    }

    #[test]
    fn a_path_is_written_as_kubernetes_writes_it() {
        let schema = json!({"additionalProperties": {"items": {"additionalProperties": {"type": "string"}}}});
        let said = violations(&schema, &json!({"a": [{}, {"b.c/d": 1}]}));
        assert_eq!(said, "spec.values.a[1]['b.c/d']: value is not of type \"string\"");
    }

    #[test]
    fn a_wrong_schema_says_where_and_what() {
        for (schema, said) in [
            (json!([1]), "spec.values: value is not of types \"boolean\", \"object\""),
            (
                json!({"properties": {"a": {"type": "strin"}}}),
                "spec.values.properties.a.type: fits none of what is allowed: value is not one of \
                 [\"array\",\"boolean\",\"integer\",\"null\",\"number\",\"object\",\"string\"]; and value is not of \
                 type \"array\"",
            ),
            (
                json!({"properties": {"a": {"minimum": "1"}}}),
                "spec.values.properties.a.minimum: value is not of type \"number\"",
            ),
            (json!({"required": "a"}), "spec.values.required: value is not of type \"array\""),
            (json!({"items": {"pattern": "("}}), &format!("spec.values.items.pattern: {NO_PATTERN}")),
            (
                json!({"properties": {"a": {"$ref": "#/$defs/port"}}}),
                "spec.values.properties.a.$ref: '#/$defs/port' must point to something that is in this schema",
            ),
        ] {
            assert_eq!(refused(&schema), format!("correct the schema at {said}"));
        }
    }

    #[test]
    fn a_schema_never_reaches_out() {
        for reference in
            ["https://example.com/port.json", "file:///etc/passwd", "port.json", "#port", "urn:x:y"]
        {
            assert_eq!(
                refused(&json!({"properties": {"a": {"$ref": reference}}})),
                format!(
                    "correct the schema at spec.values.properties.a.$ref: '{reference}' must point inside of this \
                     schema, such as '#/$defs/port'"
                )
            );
        }
        for (key, value) in [
            ("$dynamicRef", "#a"),
            ("$recursiveRef", "#"),
            ("$id", "https://example.com/a"),
            ("$schema", "https://json-schema.org/draft/2020-12/schema"),
        ] {
            let said = refused(&json!({"items": {key: value}}));
            assert!(said.contains(&format!("spec.values.items.{key}: must be left out")), "{said}");
        }
        for schema in ["https://example.com/meta", "http://json-schema.org/draft-04/schema#"] {
            assert_eq!(
                refused(&json!({"$schema": schema})),
                format!(
                    "correct the schema at spec.values.$schema: '{schema}' must be left out, or be \
                     'https://json-schema.org/draft/2020-12/schema', or that of 2019-09 or draft-07"
                )
            );
        }
    }

    #[test]
    fn patterns_take_linear_time_or_are_refused() {
        let nested = Schema::new(&json!({"pattern": "^(a+)+$"})).unwrap();
        soon(|| nested.check(&json!("a".repeat(1 << 20) + "b")).unwrap_err());
        for pattern in ["^(?=a)b", "(a)\\1", "((((a{100}){100}){100}){100}){100}"] {
            for schema in [json!({"pattern": pattern}), json!({"patternProperties": {pattern: {}}})] {
                let said = soon(|| refused(&schema));
                assert!(said.contains("look-around or back-references"), "{said}");
            }
        }
        // What people write has room.
        Schema::new(&json!({"pattern": r"^\w{1,63}$", "patternProperties": {"^.{1,253}$": {}}})).unwrap();
    }

    #[test]
    fn references_that_multiply_or_turn_in_circles_are_refused() {
        let mut defs = json!({"d40": {"type": "string"}});
        for step in 0..40 {
            let next = json!({"$ref": format!("#/$defs/d{}", step + 1)});
            defs[format!("d{step}")] = json!({"allOf": [next, next]});
        }
        let said = soon(|| refused(&json!({"$ref": "#/$defs/d0", "$defs": defs})));
        assert!(said.contains("too large"), "{said}");
        for schema in [
            json!({"$ref": "#"}),
            json!({"properties": {"child": {"$ref": "#"}}}),
            json!({"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"items": {"$ref": "#/$defs/a"}}}}),
        ] {
            let said = refused(&schema);
            assert!(said.contains("must not lead back to itself"), "{said}");
        }
    }

    #[test]
    fn large_schemas_and_large_values_are_refused_before_they_cost() {
        let wide = json!({"allOf": vec![json!({"type": "string"}); 6000]});
        assert!(soon(|| refused(&wide)).contains("too large"));
        let patterns: Vec<_> = (0..200).map(|n| json!({"pattern": format!("^a{n}$")})).collect();
        assert!(soon(|| refused(&json!({"allOf": patterns}))).contains("too many patterns"));
        let mut deep = json!({});
        for _ in 0..300 {
            deep = json!({"items": deep});
        }
        assert!(soon(|| refused(&deep)).contains("too deep"));
        let schema = Schema::new(&json!({"items": {"allOf": vec![json!(false); 2000]}})).unwrap();
        let many = Value::Array(vec![json!(1); 100_000]);
        assert_eq!(
            soon(|| schema.check(&many)).unwrap_err().to_string(),
            "spec.values: too large for a schema of this size: make either smaller"
        );
    }

    #[test]
    fn the_costliest_that_is_accepted_stays_bearable() {
        let schema = Schema::new(&json!({"items": {"anyOf": vec![json!({"type": "string"}); 100]}})).unwrap();
        let values = Value::Array(vec![json!(1); 2000]);
        assert_eq!(soon(|| schema.check(&values)).unwrap_err().more, 1984);
    }
}
