//! Regular expressions, with bounds on what they cost.
//!
//! They take time linear in the text: there is no look-around and no back-reference. What they mean is what they mean in
//! JavaScript and RE2; [`dialect`] bridges the differences.

mod dialect;

use regex::{Regex, RegexBuilder};

use super::limits::{PATTERN_BYTES, PATTERN_CACHE, PATTERN_SIZE, PATTERN_TEXT, PATTERN_TOTAL};

/// The sizes, in bytes, that a compiled expression is charged: the first that it fits into.
const SIZES: [usize; 4] = [PATTERN_SIZE >> 6, PATTERN_SIZE >> 4, PATTERN_SIZE >> 2, PATTERN_SIZE];

/// What the compiled expressions of a filter may still take, in bytes.
#[derive(Debug)]
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(PATTERN_TOTAL)
    }
}

/// How an expression is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    ignore_case: bool,
    lines: bool,
    dot_all: bool,
}

impl Flags {
    /// Reads JavaScript's flags: `i`, `m`, `s`, and `u`, which always holds.
    ///
    /// # Errors
    /// One of them is unknown, or there twice.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut flags = Self::default();
        for (at, flag) in text.char_indices() {
            match flag {
                'i' => flags.ignore_case = true,
                'm' => flags.lines = true,
                's' => flags.dot_all = true,
                'u' => {}
                _ => return Err("can hold the flags i, m, s and u: remove the others".into()),
            }
            if text.get(..at).is_some_and(|before| before.contains(flag)) {
                return Err(format!("holds the flag {flag} twice: remove one"));
            }
        }
        Ok(flags)
    }
}

/// A regular expression. Two are equal if they are written alike.
#[derive(Clone, Debug)]
pub struct Pattern {
    text: Box<str>,
    flags: Flags,
    regex: Regex,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text && self.flags == other.flags
    }
}

impl Pattern {
    /// Compiles an expression, and takes what it needs from the room that is left.
    ///
    /// # Errors
    /// It is none, or too large: what to do about it.
    pub fn parse(text: &str, flags: Flags, room: &mut Room) -> Result<Self, String> {
        if text.len() > PATTERN_BYTES {
            return Err(format!("is longer than {PATTERN_BYTES} bytes: shorten it"));
        }
        let translated = dialect::translate(text);
        for size in SIZES.into_iter().filter(|size| *size <= room.0) {
            match compile(&translated, flags, size) {
                Ok(regex) => {
                    room.0 -= size;
                    return Ok(Self { text: text.into(), flags, regex });
                }
                Err(regex::Error::CompiledTooBig(_)) => {}
                Err(error) => return Err(explained(&error)),
            }
        }
        Err(if room.0 >= PATTERN_SIZE {
            "is too large: repeat less, or shorten it".into()
        } else {
            "does not fit: the regular expressions of this filter are too large together".into()
        })
    }

    /// Whether it is found anywhere in a text that is not too long.
    pub fn is_in(&self, text: &str) -> bool {
        text.len() <= PATTERN_TEXT && self.regex.is_match(text)
    }
}

fn compile(pattern: &str, flags: Flags, size: usize) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .case_insensitive(flags.ignore_case)
        .multi_line(flags.lines)
        .dot_matches_new_line(flags.dot_all)
        .size_limit(size)
        .dfa_size_limit(PATTERN_CACHE)
        .build()
}

/// One line of the several that an error of the library has: the last says what is wrong.
fn explained(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("error: "))
        .unwrap_or("it cannot be read");
    format!("is no regular expression: {}", line.replace(", including look-ahead and look-behind,", ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str, flags: &str) -> Result<Pattern, String> {
        Pattern::parse(text, Flags::parse(flags)?, &mut Room::default())
    }

    #[test]
    fn everyday_expressions_fit() {
        for text in [
            r"^\w{1,63}$",
            r"^[^@\s]+@[^@\s]+\.[a-zA-Z]{2,}$",
            r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})$",
            r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$",
            r"^(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}$",
            r"^https?://[^/\s]+(/[^?#\s]*)?(\?[^#\s]*)?(#\S*)?$",
            r"^\p{Lu}\p{Ll}+$",
            r".{1,100}",
        ] {
            assert!(pattern(text, "").is_ok(), "{text}: {:?}", pattern(text, ""));
            assert!(pattern(text, "i").is_ok(), "{text}");
        }
    }

    #[test]
    fn what_would_cost_too_much_is_refused() {
        assert_eq!(
            pattern("((a{100}){100}){100}", "").unwrap_err(),
            "is too large: repeat less, or shorten it"
        );
        assert_eq!(pattern(&"a".repeat(1025), "").unwrap_err(), "is longer than 1024 bytes: shorten it");
        assert!(pattern(&"a".repeat(1024), "").is_ok());
    }

    #[test]
    fn all_expressions_of_a_filter_share_one_room() {
        let mut room = Room::default();
        let mut made = 0;
        let refused = loop {
            match Pattern::parse(r"^\p{L}+$", Flags::default(), &mut room) {
                Ok(_) => made += 1,
                Err(refused) => break refused,
            }
        };
        assert!((4..=64).contains(&made), "{made}");
        assert!(refused.ends_with("are too large together"), "{refused}");
    }

    #[test]
    fn two_expressions_are_equal_if_they_are_written_alike() {
        assert_eq!(pattern("a", "i"), pattern("a", "iu"));
        assert_ne!(pattern("a", "i"), pattern("a", ""));
        assert_ne!(pattern("a", ""), pattern("b", ""));
    }
}
