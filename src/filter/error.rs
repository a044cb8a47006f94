//! Where a filter is wrong, and how to put it right.

use std::fmt::{self, Write};

use thiserror::Error;

/// How many characters of what somebody wrote are repeated in a message.
const QUOTED: usize = 64;

/// A filter that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{}{message}", self.prefix())]
pub struct ParseError {
    /// Where, from the filter's root on, for example `or[2].range.body.total`. Empty at the root.
    pub path: String,
    /// The keyword that is wrong or holds what is wrong. Empty where there is none.
    pub keyword: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl ParseError {
    fn prefix(&self) -> String {
        if self.path.is_empty() { String::new() } else { format!("`{}`: ", self.path) }
    }
}

/// A place in a filter, as the way up to its root.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// The filter itself.
    Root,
    /// What stands under a keyword.
    Keyword(&'a Place<'a>, &'a str),
    /// What stands under a field or another key.
    Key(&'a Place<'a>, &'a str),
    /// An element of a list.
    Item(&'a Place<'a>, usize),
}

impl<'a> Place<'a> {
    /// The place under a keyword.
    pub fn keyword(&'a self, keyword: &'a str) -> Self {
        Self::Keyword(self, keyword)
    }

    /// The place under a key.
    pub fn key(&'a self, key: &'a str) -> Self {
        Self::Key(self, key)
    }

    /// The place of an element.
    pub fn item(&'a self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// An error at this place.
    pub fn error(&self, message: impl Into<String>) -> ParseError {
        ParseError { path: self.to_string(), keyword: shortened(self.nearest()), message: message.into() }
    }

    fn nearest(&self) -> &'a str {
        match self {
            Self::Root => "",
            Self::Keyword(_, keyword) => keyword,
            Self::Key(up, _) | Self::Item(up, _) => up.nearest(),
        }
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Keyword(Place::Root, key) | Self::Key(Place::Root, key) => f.write_str(&shortened(key)),
            Self::Keyword(up, key) | Self::Key(up, key) => write!(f, "{up}.{}", shortened(key)),
            Self::Item(up, index) => write!(f, "{up}[{index}]"),
        }
    }
}

/// Text from a filter as it can stand in a message: on one line, and not long.
pub fn shortened(text: &str) -> String {
    let mut short = String::new();
    for (at, character) in text.chars().enumerate() {
        if at == QUOTED {
            short.push('…');
            break;
        }
        if character.is_control() {
            let _ = write!(short, "{}", character.escape_default());
        } else {
            short.push(character);
        }
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_written_from_the_root_on() {
        let root = Place::Root;
        let or = root.keyword("or");
        let item = or.item(2);
        let range = item.keyword("range");
        let error = range.key("body.total").error("must be a number");
        assert_eq!((&*error.path, &*error.keyword), ("or[2].range.body.total", "range"));
        assert_eq!(error.to_string(), "`or[2].range.body.total`: must be a number");
        assert_eq!(item.error("must be a filter").keyword, "or");
        assert_eq!(root.error("a filter has one keyword").to_string(), "a filter has one keyword");
    }

    #[test]
    fn what_somebody_wrote_is_repeated_on_one_line_and_not_at_length() {
        assert_eq!(shortened("a\nb"), "a\\nb");
        assert_eq!(shortened(&"é".repeat(64)), "é".repeat(64));
        assert_eq!(shortened(&"é".repeat(65)), format!("{}…", "é".repeat(64)));
    }
}
