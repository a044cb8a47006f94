//! What the schemas of several kinds share: rules, bounds, and fields kept as the user wrote them.
//!
//! The messages follow one form: the field in backquotes, "must", and an example. A rule sits as deep as it
//! can, because the server forgives an old object that breaks a newer rule only in the parts that an update
//! leaves alone.

use kube::core::{Message, Rule};
use schemars::{Schema, SchemaGenerator, json_schema};

/// A DNS label: what most names in Kubernetes are.
const DNS_LABEL: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$";
/// A DNS subdomain: the names of Secrets, ConfigMaps and accounts.
const DNS_SUBDOMAIN: &str = "^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\\\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$";
/// A name that stays readable as a JSON key and as part of an environment variable.
const VARIABLE: &str = "^[A-Za-z]([A-Za-z0-9_.-]*[A-Za-z0-9])?$";

/// A rule and the message of its failure.
pub(crate) fn rule(rule: impl Into<String>, message: impl Into<String>) -> Rule {
    Rule::new(rule).message(Message::Message(message.into()))
}

/// A name that is a DNS label.
pub(crate) fn dns_label(field: &str, example: &str) -> Rule {
    rule(
        format!("self.matches('{DNS_LABEL}')"),
        format!(
            "`{field}` must be a DNS label: lower-case letters, digits and `-` inside, such as `{example}`"
        ),
    )
}

/// The name of another object, which may have dots.
pub(crate) fn object_name(field: &str, what: &str) -> Rule {
    rule(
        format!("self.matches('{DNS_SUBDOMAIN}')"),
        format!("`{field}` must be the name of {what}: lower-case letters, digits, `-` and `.` inside"),
    )
}

/// A name that becomes a JSON key and part of an environment variable's name.
pub(crate) fn variable(field: &str, example: &str) -> Rule {
    rule(
        format!("self.matches('{VARIABLE}')"),
        format!(
            "`{field}` must begin with a letter and hold only letters, digits and `_`, `-` or `.` inside, such as \
             `{example}`"
        ),
    )
}

/// The same for each item of a list.
pub(crate) fn variables(field: &str, example: &str) -> Rule {
    rule(
        format!("self.all(v, v.matches('{VARIABLE}'))"),
        format!(
            "each of `{field}` must begin with a letter and hold only letters, digits and `_`, `-` or `.` inside, \
             such as `{example}`"
        ),
    )
}

/// A container image, in the grammar that every container runtime has: a reference that breaks it would be refused only
/// when a pod is there.
pub(crate) fn image() -> Rule {
    const HOST: &str = "[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?";
    const PART: &str = "[a-z0-9]+(([._]|__|-+)[a-z0-9]+)*";
    const TAG: &str = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}";
    const DIGEST: &str = "[A-Za-z][A-Za-z0-9]*([-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}";
    let registry = format!("({HOST}([.]{HOST})*|[[][0-9a-fA-F:]+[]])(:[0-9]+)?/");
    rule(
        format!("self.matches('^({registry})?{PART}(/{PART})*(:{TAG})?(@{DIGEST})?$')"),
        "`image` must be an image reference, without `https://` and in lower case, such as \
         `registry.example/orders:1.4`",
    )
}

/// The first word of a command is a program.
pub(crate) fn command() -> Rule {
    rule(
        "self.size() == 0 || self[0].trim() != ''",
        "`command` must begin with a program, such as `[catalina.sh, run]`",
    )
}

/// An object's own name has no dots. Kubernetes has checked the other characters.
pub(crate) fn no_dots() -> Rule {
    of_new(
        "!self.metadata.name.contains('.')",
        "`metadata.name` must be a DNS label: put `-` where it has a dot, because it becomes part of other names",
    )
}

/// How long an object's own name may be. A generated name ends in five characters of the server's.
pub(crate) fn at_most(length: usize) -> Rule {
    of_new(
        &format!("self.metadata.name.size() <= {length}"),
        format!(
            "`metadata.name` must have at most {length} characters (`generateName` at most {}), because it becomes \
             part of other names",
            length - 5
        ),
    )
}

/// A rule for new objects only. A name cannot change, so whoever has an older one must be able to edit the
/// rest.
fn of_new(condition: &str, message: impl Into<String>) -> Rule {
    rule(format!("oldSelf.hasValue() || {condition}"), message).optional_old_self(true)
}

/// A field that only makes sense beside another one.
pub(crate) fn needs(field: &str, other: &str, why: &str) -> Rule {
    rule(
        format!("!has(self.{field}) || has(self.{other})"),
        format!("`{field}` must be left out, or `{other}` must be given: {why}"),
    )
    .field_path(format!(".{field}"))
}

/// Takes the words about a type away, where they would hide those about the field of that type.
pub(crate) fn undescribed(schema: &mut Schema) {
    schema.remove("description");
}

/// An object that is kept exactly as the user wrote it.
pub(crate) fn anything(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 100,
        "x-kubernetes-preserve-unknown-fields": true,
    })
}

/// A map of short strings.
pub(crate) fn string_map(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 253 },
    })
}

/// What the API conventions bound in a condition, which the type in `k8s-openapi` does not.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 32,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What the condition is about, for example `Ready`.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                },
                "status": {
                    "description": "Whether it holds: `True`, `False`, or `Unknown` while that is not known yet.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "The `metadata.generation` that this was said of. If it is lower than the \
                                    object's, the condition is about an older spec.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When `status` last changed, to the second.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": {
                    "description": "Why, in one word for programs, for example `DependencyNotReady`.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                },
                "message": {
                    "description": "Why, in words for people: what is the case and what to do about it.",
                    "type": "string",
                    "maxLength": 32768,
                },
            },
        },
    })
}

/// The remembered moves of a phase, bounded.
pub(crate) fn transitions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "counter": {
                "description": "How many moves there have been since the object was created. It only grows.",
                "type": "integer",
                "format": "int64",
                "minimum": 0,
            },
            "recent": {
                "description": "The last eight moves, oldest first.",
                "type": "array",
                "maxItems": super::transition::REMEMBERED,
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["counter"],
                "items": {
                    "type": "object",
                    "required": ["counter", "event", "time"],
                    "properties": {
                        "counter": {
                            "description": "The value of the counter at this move.",
                            "type": "integer",
                            "format": "int64",
                            "minimum": 0,
                        },
                        "event": {
                            "description": "What happened, for example `FlowStarted`.",
                            "type": "string",
                            "maxLength": 128,
                        },
                        "time": {
                            "description": "When it was seen, to the second.",
                            "type": "string",
                            "format": "date-time",
                        },
                    },
                },
            },
        },
    })
}
