//! Strings, numbers, booleans and null: what a filter compares.

use serde_json::Value;

use super::number::Number;

/// A JSON value that is no list and no object. Its order is total: by type, then by value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scalar<S = Box<str>> {
    /// Null.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A string.
    String(S),
}

impl<'a> Scalar<&'a str> {
    /// The scalar that a value is, if it is one.
    pub fn of(value: &'a Value) -> Option<Self> {
        match value {
            Value::Null => Some(Self::Null),
            Value::Bool(bool) => Some(Self::Bool(*bool)),
            Value::Number(number) => Number::of(number).map(Self::Number),
            Value::String(string) => Some(Self::String(string)),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The same, to be kept.
    pub fn owned(self) -> Scalar {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(bool) => Scalar::Bool(bool),
            Self::Number(number) => Scalar::Number(number),
            Self::String(string) => Scalar::String(string.into()),
        }
    }
}

impl Scalar {
    /// The same, to be compared.
    pub fn borrowed(&self) -> Scalar<&str> {
        match self {
            Self::Null => Scalar::Null,
            Self::Bool(bool) => Scalar::Bool(*bool),
            Self::Number(number) => Scalar::Number(*number),
            Self::String(string) => Scalar::String(string),
        }
    }

    /// Whether a value is this scalar.
    pub fn is(&self, value: &Value) -> bool {
        super::tree::step();
        Scalar::of(value) == Some(self.borrowed())
    }
}
