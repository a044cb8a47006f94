//! Where JavaScript and RE2 write regular expressions differently from the library that runs them.
//!
//! - `\d`, `\w` and `\b` know ASCII only. (The library's know all scripts, and are a hundred times larger.)
//! - Inside of a class `[`, `&&`, `--` and `~~` are characters, not operators on classes.
//! - `\<` and `\>` are characters, not ends of words.

/// Turns an expression of JavaScript or RE2 into one that means the same here.
pub fn translate(pattern: &str) -> String {
    let mut translation = Translation { out: String::with_capacity(pattern.len()), rest: pattern };
    while let Some(character) = translation.next() {
        match character {
            '\\' => translation.escape(),
            '[' => translation.class(),
            other => translation.out.push(other),
        }
    }
    translation.out
}

struct Translation<'a> {
    out: String,
    rest: &'a str,
}

impl Translation<'_> {
    fn next(&mut self) -> Option<char> {
        let mut characters = self.rest.chars();
        let next = characters.next();
        self.rest = characters.as_str();
        next
    }

    fn next_is(&mut self, expected: char) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn escape(&mut self) {
        match self.next() {
            Some('b') => self.out.push_str(r"(?-u:\b)"),
            Some('B') => self.out.push_str(r"(?-u:\B)"),
            Some(next @ ('<' | '>')) => self.out.push(next),
            other => self.set_or_other(other),
        }
    }

    fn set_or_other(&mut self, escaped: Option<char>) {
        match escaped {
            Some('d') => self.out.push_str("[0-9]"),
            Some('D') => self.out.push_str("[^0-9]"),
            Some('w') => self.out.push_str("[0-9A-Za-z_]"),
            Some('W') => self.out.push_str("[^0-9A-Za-z_]"),
            other => {
                self.out.push('\\');
                self.out.extend(other);
            }
        }
    }

    /// The rest of a class. A `-` waits until it is known what follows: before a set it is a character.
    fn class(&mut self) {
        self.out.push('[');
        if self.next_is('^') {
            self.out.push('^');
        }
        // At the start of a class these two are characters.
        for first in [']', '-'] {
            if self.next_is(first) {
                self.out.extend(['\\', first]);
                break;
            }
        }
        let mut dash = false;
        while let Some(character) = self.next() {
            let after_dash = std::mem::replace(&mut dash, character == '-');
            match character {
                ']' => return self.out.push(']'),
                '\\' => self.escape_in_class(after_dash),
                '[' => self.open_in_class(after_dash),
                '-' if after_dash => {
                    dash = false;
                    self.out.push_str(r"\-");
                }
                '&' | '~' => self.out.extend(['\\', character]),
                other => self.out.push(other),
            }
        }
    }

    fn escape_in_class(&mut self, after_dash: bool) {
        let escaped = self.next();
        if matches!(escaped, Some('d' | 'D' | 'w' | 'W' | 's' | 'S' | 'p' | 'P')) {
            self.settle(after_dash);
        }
        match escaped {
            Some(next @ ('<' | '>')) => self.out.push(next),
            other => self.set_or_other(other),
        }
    }

    /// A named set such as `[:alpha:]`, or else a bracket.
    fn open_in_class(&mut self, after_dash: bool) {
        let name = self.rest.strip_prefix(':').and_then(|rest| rest.split_once(":]"));
        match name {
            Some((name, rest))
                if name.chars().all(|letter| letter.is_ascii_alphabetic() || letter == '^') =>
            {
                self.rest = rest;
                self.settle(after_dash);
                self.out.extend(["[:", name, ":]"]);
            }
            _ => self.out.push_str(r"\["),
        }
    }

    /// Makes the `-` that was written last a character: a set does not end a range.
    fn settle(&mut self, after_dash: bool) {
        if after_dash {
            self.out.pop();
            self.out.push_str(r"\-");
        }
    }
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn found(pattern: &str, text: &str) -> bool {
        Regex::new(&translate(pattern)).unwrap_or_else(|error| panic!("{pattern}: {error}")).is_match(text)
    }

    #[test]
    fn digits_and_words_are_those_of_ascii() {
        assert!(found(r"^\d+$", "42") && !found(r"^\d+$", "٤٢"));
        assert!(found(r"^\D$", "٤") && !found(r"^\D$", "4"));
        assert!(found(r"^\w+$", "a_1") && !found(r"^\w+$", "é"));
        assert!(found(r"^\W$", "é") && found(r"^[^\w]$", "é") && !found(r"^[\W]$", "e"));
        assert!(found(r"\bcafe\b", "a cafe b") && found(r"\bcaf\b", "café") && found(r"a\Bb", "ab"));
    }

    #[test]
    fn a_set_in_a_class_is_no_end_of_a_range() {
        for character in ["a", "-", "."] {
            assert!(found(r"^[\w-.]$", character) && found(r"^[.-\w]$", character), "{character}");
            assert!(found(r"^[.-[:alpha:]]$", character), "{character}");
        }
        assert!(!found(r"^[\w-.]$", "+"));
        assert!(found(r"^[\d-]+$", "1-2") && found(r"^[-\d]+$", "1-2") && found(r"^[^-\d]$", "a"));
    }

    #[test]
    fn operators_on_classes_are_characters() {
        assert!(found("^[[]$", "[") && found("^[a[b]$", "[") && found(r"^[\[\]]+$", "[]"));
        assert!(found("^[a&&b]+$", "a&b") && found("^[a~~b]+$", "a~b"));
        assert!(found("^[+--]$", ",") && found("^[--/]$", ".") && !found("^[--/]$", ","));
        assert!(found("^[]a]+$", "]a") && found("^[^]a]$", "b") && !found("^[^]a]$", "]"));
        assert!(found("^[[:digit:]x]+$", "1x") && found("^[[:]$", ":"));
    }

    #[test]
    fn other_escapes_stay_what_they_are() {
        assert!(found(r"\<a\>", "<a>") && found(r"[\<\>]", ">") && found(r"^a\/b\.c\-$", "a/b.c-"));
        assert!(found(r"^\x41\u0042\t$", "AB\t") && found(r"\\d", r"\d") && found(r"^\s$", "\u{a0}"));
        assert!(Regex::new(&translate("a\\")).is_err() && Regex::new(&translate("[a")).is_err());
    }
}
