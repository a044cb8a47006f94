//! jq: mappings that users write. An expression is a program, and may run for ever or eat all memory; so it is compiled
//! within limits, and run in a process of its own that can be killed.
//!
//! ```text
//!   (here)    compiles: what is refused when a Flow is applied
//!   worker    `millrace jq-worker`: the process that runs expressions
//!   pool      keeps workers, gives each flow its turn, and kills those that run away
//!   frame     what is said between the two
//!   json      writes results as JSON
//! ```

use std::thread;
use std::time::Duration;

use jaq_core::compile::Undefined;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Filter, data};
use jaq_json::Val;

mod frame;
pub mod json;
pub mod pool;
pub mod worker;

/// A compiled expression.
pub type Program = Filter<data::JustLut<Val>>;

/// How long one message may take.
pub const LIMIT: Duration = Duration::from_secs(5);
/// The memory that a worker may have, stack and program included, in bytes. Two of them fit beside the runner into the
/// limit of its container.
pub const MEMORY: u64 = 224 << 20;
/// The longest expression, in bytes.
pub const LONGEST: usize = 16 << 10;
/// The most tokens: each may nest what follows one deeper, and the compiler follows them down its stack.
const TOKENS: usize = 2000;
/// The stack for the deepest expression of so many tokens.
pub const STACK: usize = 64 << 20;
/// How much of an expression an error quotes.
const QUOTE: usize = 24;

/// Whether an expression can be run.
///
/// # Errors
/// What is wrong with it, and where.
pub fn check(text: &str) -> Result<(), String> {
    bounded(text)?;
    let text = text.to_owned();
    // A thread of its own for its stack. Even if the compiler panics, only that thread ends.
    let compiled = thread::Builder::new()
        .name("jq-check".into())
        .stack_size(STACK)
        .spawn(move || compile(&text).map(drop))
        .map_err(|error| format!("cannot be checked at the moment: {error}"))?;
    compiled.join().unwrap_or_else(|_| Err("cannot be compiled".into()))
}

/// Compiles an expression of which [`bounded`] says that it is harmless; its stack must have [`STACK`] bytes.
///
/// # Errors
/// What is wrong with it, and where.
pub fn compile(text: &str) -> Result<Program, String> {
    let (arena, file) = (Arena::default(), File { code: text, path: () });
    let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
    let modules = Loader::new(defs).load(&arena, file).map_err(|errors| {
        errors.into_iter().next().map_or_else(String::new, |(file, error)| load_error(file.code, error))
    })?;
    Compiler::default().with_funs(funs).compile(modules).map_err(|errors| {
        let mut all =
            errors.into_iter().flat_map(|(file, all)| all.into_iter().map(move |error| (file.code, error)));
        all.next()
            .map_or_else(String::new, |(code, (name, undefined))| undefined_error(code, name, undefined))
    })
}

/// Checks that an expression is short enough for the compiler to follow it.
///
/// # Errors
/// It is not.
pub fn bounded(text: &str) -> Result<(), String> {
    if text.len() > LONGEST {
        return Err(format!("must be at most {LONGEST} bytes long, and has {}", text.len()));
    }
    match tokens(text) {
        count if count > TOKENS => Err(format!(
            "must have at most {TOKENS} words and signs, and has {count}: split it over several nodes"
        )),
        _ => Ok(()),
    }
}

/// Not fewer than the tokens of an expression: each word counts, and each sign.
fn tokens(text: &str) -> usize {
    let (mut inside, mut count) = (false, 0);
    for c in text.chars() {
        let word = c.is_alphanumeric() || c == '_';
        if !(c.is_whitespace() || word && inside) {
            count += 1;
        }
        inside = word;
    }
    count
}

fn load_error(code: &str, error: load::Error<&str>) -> String {
    match error {
        load::Error::Io(all) => match all.into_iter().next() {
            Some((module, _)) => format!("cannot load the module '{module}': there are no modules here"),
            None => "cannot load a module".into(),
        },
        load::Error::Lex(all) => all
            .into_iter()
            .next()
            .map_or_else(String::new, |(expected, found)| unexpected(code, expected.as_str(), found)),
        load::Error::Parse(all) => all
            .into_iter()
            .next()
            .map_or_else(String::new, |(expected, found)| unexpected(code, expected.as_str(), found)),
    }
}

fn unexpected(code: &str, expected: &str, found: &str) -> String {
    format!("is no jq expression: expected {expected}{}", place(code, found))
}

fn undefined_error(code: &str, name: &str, undefined: Undefined) -> String {
    let what = match undefined {
        Undefined::Filter(0) => format!("there is no function '{name}' without arguments"),
        Undefined::Filter(1) => format!("there is no function '{name}' with one argument"),
        Undefined::Filter(arity) => format!("there is no function '{name}' with {arity} arguments"),
        other => format!("there is no {} '{name}'", other.as_str()),
    };
    format!("is no jq expression: {what}{}", place(code, name))
}

/// Where in an expression something is, and how it begins.
fn place(code: &str, found: &str) -> String {
    let offset = (found.as_ptr() as usize).wrapping_sub(code.as_ptr() as usize);
    let Some(before) = code.get(..offset).filter(|_| !found.is_empty()) else { return " at its end".into() };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let quote: String = found.chars().take(QUOTE).collect();
    format!(" in line {line}, column {column}, at '{quote}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        check(text).unwrap_err()
    }

    #[test]
    fn an_expression_that_can_be_run_is_accepted() {
        for text in [".", "{body: {total: .body.total}}", ".body.items[] | {body: .}", "empty", "def f: f; f"]
        {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn an_expression_that_cannot_says_what_is_wrong_and_where() {
        assert_eq!(refused("{body: .body"), "is no jq expression: expected closing brace at its end");
        assert_eq!(
            refused(".body |\n  | ."),
            "is no jq expression: expected term in line 2, column 3, at '|'"
        );
        assert_eq!(refused(""), "is no jq expression: expected term at its end");
        assert_eq!(
            refused(".body | totals(1; 2)"),
            "is no jq expression: there is no function 'totals' with 2 arguments in line 1, column 9, at 'totals'"
        );
        assert_eq!(
            refused("$who"),
            "is no jq expression: there is no variable '$who' in line 1, column 1, at '$who'"
        );
        assert_eq!(
            refused(r#"import "secrets" as s; ."#),
            "cannot load the module 'secrets': there are no modules here"
        );
        for forbidden in ["input", "inputs", "$ENV", "input_filename", r#"include "a"; ."#] {
            assert!(check(forbidden).is_err(), "{forbidden}");
        }
    }

    #[test]
    fn an_expression_without_measure_is_refused() {
        assert_eq!(refused(&"x".repeat(LONGEST + 1)), "must be at most 16384 bytes long, and has 16385");
        assert_eq!(
            refused(&"(".repeat(TOKENS + 1)),
            "must have at most 2000 words and signs, and has 2001: split it over several nodes"
        );
    }

    /// If the stack were too small for one of them, this whole test binary would end.
    #[test]
    fn the_deepest_expressions_are_followed_to_their_end() {
        let around =
            |open: &str, close: &str, times| format!("{}.{}", open.repeat(times), close.repeat(times));
        for text in [
            around("(", ")", 999),
            around("[", "]", 999),
            around("{a:", "}", 499),
            around("-", "", 1999),
            around(".|", "", 999),
            around(". as $x|", "", 399),
            around(".,", "", 999),
            around(".//", "", 660),
            around("def f:", ";.", 330),
            around("try ", "", 1999),
            around("\"\\(", ")\"", 390),
            around("reduce ", " as $x(.;.)", 190),
            around("map(", ")", 660),
            around(".[", "]", 660),
            around("", "[]", 990),
            around("", "?", 1990),
        ] {
            assert_eq!(check(&text), Ok(()), "{}", &text[..20]);
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_somebody_writes_is_accepted_or_refused(text in "[ -~\n]{0,40}") {
            let _ = check(&text);
        }
    }
}
