//! How large a filter can be: within these limits any filter is read and evaluated in bounded time and memory.

/// The most terms: each keyword is one, and so is each value inside of a `match`.
pub const TERMS: usize = 1000;
/// How deep keywords can be nested, the values inside of a `match` included.
pub const DEPTH: usize = 32;
/// The most values of one `in` or `ids`.
pub const VALUES: usize = 1000;
/// The most elements of one list inside of a `match`: finding a place for each is cubic in this.
pub const MATCH_LIST: usize = 32;
/// The most bytes of a field's path.
pub const PATH_BYTES: usize = 1024;
/// The most parts of a field's path.
pub const PATH_PARTS: usize = 32;
/// The most bytes of a regular expression.
pub const PATTERN_BYTES: usize = 1024;
/// The most bytes of one compiled regular expression.
pub const PATTERN_SIZE: usize = 256 << 10;
/// The most bytes of all compiled regular expressions of one filter.
pub const PATTERN_TOTAL: usize = 512 << 10;
/// The most bytes of a text that is searched; no regular expression is found in a longer one. What an expression can cost
/// is its size times the text's: within both limits that is half a second for the worst, and a millisecond for most.
pub const PATTERN_TEXT: usize = 64 << 10;
/// The most bytes of the states that matching one regular expression keeps at hand.
pub const PATTERN_CACHE: usize = 256 << 10;
