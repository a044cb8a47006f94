//! Reading the keywords that look at a document.

use std::ops::Bound;

use serde_json::{Map, Value};

use super::{Reader, list, object};
use crate::filter::error::{ParseError, Place};
use crate::filter::limits::{MATCH_LIST, VALUES};
use crate::filter::number::Number;
use crate::filter::partial::{Fields, Partial};
use crate::filter::path::Path;
use crate::filter::pattern::{Flags, Pattern, Room};
use crate::filter::scalar::Scalar;
use crate::filter::tree::Term;

/// Reads `equals`.
pub fn equals(value: &Value, place: &Place) -> Result<Term, ParseError> {
    let (field, value) = one_field(value, place)?;
    let place = place.key(field);
    let wrong =
        || place.error("must be a string, a number, true, false or null: use `match` for lists and objects");
    let scalar = Scalar::of(value).ok_or_else(wrong)?;
    Ok(Term::Equals(path(field, &place)?, scalar.owned()))
}

/// Reads `in`.
pub fn one_of(value: &Value, place: &Place) -> Result<Term, ParseError> {
    let (field, value) = one_field(value, place)?;
    let place = place.key(field);
    let wrong = "must be a string, a number, true, false or null";
    let scalars = values(value, &place, wrong, |value| Some(Scalar::of(value)?.owned()))?;
    Ok(Term::In(path(field, &place)?, scalars))
}

/// Reads `ids`.
pub fn ids(value: &Value, place: &Place) -> Result<Term, ParseError> {
    let wrong = || place.error("must be an object with values: write ids: {values: [\"a\", \"b\"]}");
    let value =
        value.as_object().filter(|ids| ids.len() == 1).and_then(|ids| ids.get("values")).ok_or_else(wrong)?;
    let place = place.key("values");
    values(value, &place, "must be a string", |value| value.as_str().map(Box::from)).map(Term::Ids)
}

/// Reads a list of values: sorted, each once.
fn values<T: Ord>(
    value: &Value,
    place: &Place,
    wrong: &str,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Box<[T]>, ParseError> {
    let list = list(value, place, "a list of values")?;
    if list.len() > VALUES {
        return Err(place.error(format!("has more than {VALUES} values: put several under `or`")));
    }
    let read = |(at, value)| read(value).ok_or_else(|| place.item(at).error(wrong));
    let mut values = list.iter().enumerate().map(read).collect::<Result<Vec<T>, _>>()?;
    values.sort_unstable();
    values.dedup();
    Ok(values.into())
}

/// Reads `range`.
pub fn range(value: &Value, place: &Place) -> Result<Term, ParseError> {
    let (field, value) = one_field(value, place)?;
    let place = place.key(field);
    let bounds = object(value, &place, "an object with gt, gte, lt or lte")?;
    let lower = bound(bounds, &place, ["gt", "gte"])?;
    let upper = bound(bounds, &place, ["lt", "lte"])?;
    if let Some(other) = bounds.keys().find(|key| !["gt", "gte", "lt", "lte"].contains(&key.as_str())) {
        return Err(place.key(other).error("is no bound: use gt, gte, lt or lte"));
    }
    if bounds.is_empty() {
        return Err(place.error("has no bound: use gt, gte, lt or lte"));
    }
    if is_empty(lower, upper) {
        return Err(place.error("no number is within these bounds: correct one, or use `nothing`"));
    }
    Ok(Term::Range(path(field, &place)?, (lower, upper)))
}

/// The bound of one side, which can exclude its number or include it.
fn bound(
    bounds: &Map<String, Value>,
    place: &Place,
    [excluding, including]: [&str; 2],
) -> Result<Bound<Number>, ParseError> {
    let read = |name: &str, value: &Value| {
        let number = value.as_number().and_then(Number::of);
        number.ok_or_else(|| place.key(name).error("must be a number, without quotes"))
    };
    match (bounds.get(excluding), bounds.get(including)) {
        (Some(_), Some(_)) => Err(place.error(format!("has both {excluding} and {including}: remove one"))),
        (Some(value), None) => read(excluding, value).map(Bound::Excluded),
        (None, Some(value)) => read(including, value).map(Bound::Included),
        (None, None) => Ok(Bound::Unbounded),
    }
}

/// Whether there is no number between two bounds: between two different numbers there always is one.
fn is_empty(lower: Bound<Number>, upper: Bound<Number>) -> bool {
    use Bound::{Excluded, Included, Unbounded};
    match (lower, upper) {
        (Unbounded, _) | (_, Unbounded) => false,
        (Included(low), Included(high)) => low > high,
        (Included(low) | Excluded(low), Included(high) | Excluded(high)) => low >= high,
    }
}

/// Reads `regexp`.
pub fn regexp(room: &mut Room, value: &Value, place: &Place) -> Result<Term, ParseError> {
    let (field, value) = one_field(value, place)?;
    let place = place.key(field);
    let (text, flags) = expression(value, &place)?;
    let path = path(field, &place)?;
    Ok(Term::Regexp(path, Pattern::parse(text, flags, room).map_err(|wrong| place.error(wrong))?))
}

fn expression<'a>(value: &'a Value, place: &Place) -> Result<(&'a str, Flags), ParseError> {
    let wrong = || place.error("must be a regular expression, or an object with value and flags");
    let object = match value {
        Value::String(text) => return Ok((text, Flags::default())),
        Value::Object(object) => object,
        _ => return Err(wrong()),
    };
    if let Some(other) = object.keys().find(|key| !["value", "flags"].contains(&key.as_str())) {
        return Err(place.key(other).error("is no part of it: use value and flags"));
    }
    let text = object.get("value").and_then(Value::as_str).ok_or_else(wrong)?;
    let flags = match object.get("flags") {
        Some(flags) => {
            flags.as_str().ok_or_else(|| place.key("flags").error("must be a string, such as \"i\""))?
        }
        None => "",
    };
    Ok((text, Flags::parse(flags).map_err(|wrong| place.key("flags").error(wrong))?))
}

/// Reads `match`.
pub fn partial(reader: &mut Reader, value: &Value, place: &Place) -> Result<Term, ParseError> {
    let wanted = object(value, place, "an object that documents are to hold")?;
    if wanted.is_empty() {
        return Err(place.error("is empty: say what documents are to hold"));
    }
    fields(reader, wanted, place).map(Term::Match)
}

fn fields(reader: &mut Reader, wanted: &Map<String, Value>, place: &Place) -> Result<Fields, ParseError> {
    let read =
        |(key, value): (&String, &Value)| Ok((key.as_str().into(), part(reader, value, &place.key(key))?));
    wanted.iter().map(read).collect::<Result<_, _>>().map(Fields)
}

fn part(reader: &mut Reader, value: &Value, place: &Place) -> Result<Partial, ParseError> {
    reader.nested(place, |reader| match value {
        Value::Object(wanted) => fields(reader, wanted, place).map(Partial::Fields),
        Value::Array(wanted) if wanted.len() > MATCH_LIST => {
            Err(place.error(format!("has more than {MATCH_LIST} elements: put several `match` under `and`")))
        }
        Value::Array(wanted) => {
            let parts = wanted.iter().enumerate().map(|(at, value)| part(reader, value, &place.item(at)));
            parts.collect::<Result<_, _>>().map(Partial::List)
        }
        scalar => match Scalar::of(scalar) {
            Some(scalar) => Ok(Partial::Scalar(scalar.owned())),
            None => Err(place.error("must be JSON")),
        },
    })
}

/// Reads `select`.
pub fn select(reader: &mut Reader, value: &Value, place: &Place) -> Result<Term, ParseError> {
    let wrong = || place.error("must be an object with field, index and query, and nothing else");
    let parts = value.as_object().filter(|parts| parts.len() == 3).ok_or_else(wrong)?;
    let part = |name: &str| parts.get(name).ok_or_else(wrong);
    let (field, index, query) = (part("field")?, part("index")?, part("query")?);
    let (of_field, of_index, of_query) = (place.key("field"), place.key("index"), place.key("query"));
    let field =
        field.as_str().ok_or_else(|| of_field.error("must be a list's path, such as \"body.items\""))?;
    let index = index.as_number().and_then(Number::of).and_then(Number::integer);
    let index =
        index.ok_or_else(|| of_index.error("must be an integer: 0 is the first element, -1 the last"))?;
    Ok(Term::Select(path(field, &of_field)?, index, Box::new(reader.one(query, &of_query)?)))
}

fn path(field: &str, place: &Place) -> Result<Path, ParseError> {
    Path::parse(field).map_err(|wrong| place.error(wrong))
}

/// The only field of a keyword, and what stands under it.
fn one_field<'a>(value: &'a Value, place: &Place) -> Result<(&'a str, &'a Value), ParseError> {
    let fields = object(value, place, "an object with one field")?;
    let mut entries = fields.iter();
    match (entries.next(), entries.next()) {
        (Some((field, value)), None) => Ok((field, value)),
        (None, _) => Err(place.error("must have one field: add it")),
        _ => Err(place.error("must have one field: write the keyword once for each, under `and`")),
    }
}
