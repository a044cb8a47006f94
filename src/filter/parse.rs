//! Reading a filter.

mod exists;
mod terms;

use serde_json::{Map, Value};

use super::error::{ParseError, Place, shortened};
use super::limits::{DEPTH, TERMS};
use super::pattern::Room;
use super::tree::{Node, Term};

/// The keywords, for a message.
const KEYWORDS: &str =
    "and, bool, equals, exists, ids, in, match, missing, not, nothing, or, range, regexp, select";
/// Keywords of the language that this version does not know.
const NOT_YET: [&str; 4] = ["geoBoundingBox", "geoDistance", "geoDistanceRange", "geoPolygon"];
/// How many of too many keywords are named.
const NAMED: usize = 4;

/// Reads a whole filter. The empty one matches everything.
///
/// # Errors
/// The first place that is wrong.
pub fn root(filter: &Map<String, Value>) -> Result<Node, ParseError> {
    if filter.is_empty() {
        return Ok(Node::And(Vec::new()));
    }
    Reader::default().filter(filter, &Place::Root)
}

/// What has been read so far.
#[derive(Debug, Default)]
struct Reader {
    terms: usize,
    depth: usize,
    room: Room,
}

impl Reader {
    fn filter(&mut self, filter: &Map<String, Value>, place: &Place) -> Result<Node, ParseError> {
        let mut entries = filter.iter();
        match (entries.next(), entries.next()) {
            (Some((keyword, value)), None) => {
                self.nested(place, |reader| reader.keyword(keyword, value, &place.keyword(keyword)))
            }
            (None, _) => {
                Err(place
                    .error("holds no keyword: an empty filter, which matches everything, only stands alone"))
            }
            _ => Err(place.error(several(filter))),
        }
    }

    /// Counts a term, and reads it one level deeper.
    fn nested<T>(
        &mut self,
        place: &Place,
        read: impl FnOnce(&mut Self) -> Result<T, ParseError>,
    ) -> Result<T, ParseError> {
        if self.terms == TERMS {
            return Err(
                place.error(format!("is beyond the {TERMS} terms that a filter can have: simplify it"))
            );
        }
        if self.depth == DEPTH {
            return Err(place.error(format!("is nested deeper than {DEPTH} levels: flatten the filter")));
        }
        self.terms += 1;
        self.depth += 1;
        let result = read(self);
        self.depth -= 1;
        result
    }

    fn keyword(&mut self, keyword: &str, value: &Value, place: &Place) -> Result<Node, ParseError> {
        match keyword {
            "and" => self.filters(value, place).map(Node::And),
            "or" => self.filters(value, place).map(Node::Or),
            "not" => self.one(value, place).map(not),
            "bool" => self.bool(value, place),
            "nothing" => Ok(Node::Or(Vec::new())),
            "missing" => exists::read(value, place).map(Node::Term).map(not),
            _ => self.term(keyword, value, place).map(Node::Term),
        }
    }

    fn term(&mut self, keyword: &str, value: &Value, place: &Place) -> Result<Term, ParseError> {
        match keyword {
            "equals" => terms::equals(value, place),
            "exists" => exists::read(value, place),
            "ids" => terms::ids(value, place),
            "in" => terms::one_of(value, place),
            "match" => terms::partial(self, value, place),
            "range" => terms::range(value, place),
            "regexp" => terms::regexp(&mut self.room, value, place),
            "select" => terms::select(self, value, place),
            _ if NOT_YET.contains(&keyword) => Err(place.error("is not supported yet: use other keywords")),
            _ => Err(place.error(format!("is no keyword: use one of {KEYWORDS}"))),
        }
    }

    fn one(&mut self, value: &Value, place: &Place) -> Result<Node, ParseError> {
        self.filter(object(value, place, "a filter, such as {equals: {field: value}}")?, place)
    }

    fn filters(&mut self, value: &Value, place: &Place) -> Result<Vec<Node>, ParseError> {
        let filters = list(value, place, "a list of filters")?;
        filters.iter().enumerate().map(|(at, filter)| self.one(filter, &place.item(at))).collect()
    }

    /// What each part of a `bool` means is what Koncorde's documentation says.
    fn bool(&mut self, value: &Value, place: &Place) -> Result<Node, ParseError> {
        let parts = object(value, place, "an object with must, must_not, should or should_not")?;
        let mut nodes = Vec::with_capacity(parts.len());
        for (part, value) in parts {
            let place = place.key(part);
            match part.as_str() {
                "must" => nodes.extend(self.filters(value, &place)?),
                "must_not" => nodes.push(not(Node::Or(self.filters(value, &place)?))),
                "should" => nodes.push(Node::Or(self.filters(value, &place)?)),
                "should_not" => nodes.push(not(Node::And(self.filters(value, &place)?))),
                _ => return Err(place.error("is no part of it: use must, must_not, should or should_not")),
            }
        }
        if nodes.is_empty() {
            return Err(place.error("is empty: give it must, must_not, should or should_not"));
        }
        Ok(Node::And(nodes))
    }
}

fn not(node: Node) -> Node {
    Node::Not(Box::new(node))
}

fn several(filter: &Map<String, Value>) -> String {
    let named: Vec<String> = filter.keys().take(NAMED).map(|keyword| shortened(keyword)).collect();
    let more = if filter.len() > NAMED { ", …" } else { "" };
    format!("a filter has one keyword, this one has {}{more}: put them under `and`", named.join(", "))
}

fn object<'a>(value: &'a Value, place: &Place, what: &str) -> Result<&'a Map<String, Value>, ParseError> {
    value.as_object().ok_or_else(|| place.error(format!("must be {what}")))
}

/// A list, which is not empty.
fn list<'a>(value: &'a Value, place: &Place, what: &str) -> Result<&'a [Value], ParseError> {
    match value.as_array() {
        Some(list) if list.is_empty() => Err(place.error("is an empty list: add to it, or leave it out")),
        Some(list) => Ok(list),
        None => Err(place.error(format!("must be {what}"))),
    }
}
