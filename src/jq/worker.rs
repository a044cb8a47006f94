//! `millrace jq-worker`: evaluates expressions, one at a time, until nobody asks any more.
//!
//! It can do nothing but that: its environment is empty, its memory and its processor time are limited, and it ends with
//! its parent. Whoever asks kills it when it takes too long.

use std::collections::HashMap;
use std::io::{self, Write as _};
use std::thread;

use anyhow::{Context as _, anyhow};
use jaq_core::{Ctx, Vars, data};
use jaq_json::Val;
use nix::libc::rlim_t;
use nix::sys::prctl;
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use nix::sys::signal::Signal;

use crate::broker::message::{MAX_MESSAGE, MAX_OUTPUTS};

use super::{LIMIT, MEMORY, Program, STACK, bounded, compile, frame, json};

/// How many compiled expressions are kept.
const PROGRAMS: usize = 64;
/// Processor time beyond the limit, in seconds: by then the parent should have killed us, and is no longer there.
const CPU_GRACE: u64 = 2;
/// The longest text of an error.
const ERROR: usize = 500;

/// Runs until standard input ends.
///
/// # Errors
/// The limits cannot be set, or nobody reads the answers.
pub fn run() -> anyhow::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("cannot end with the parent")?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).context("cannot forbid core dumps")?;
    setrlimit(Resource::RLIMIT_AS, MEMORY, MEMORY).context("cannot limit the memory")?;
    let worker = thread::Builder::new().stack_size(STACK).spawn(serve).context("cannot start")?;
    worker.join().map_err(|_| anyhow!("an expression made the interpreter panic"))?.context("nobody listens")
}

fn serve() -> io::Result<()> {
    let (mut from, mut to) = (io::stdin().lock(), io::stdout().lock());
    let mut programs = HashMap::new();
    while let (Some(expression), Some(message)) = (frame::read(&mut from)?, frame::read(&mut from)?) {
        limit_cpu()?;
        let answer = match evaluate(&mut programs, &expression, &message) {
            Ok(mut result) => {
                result.insert(0, frame::RESULT);
                result
            }
            Err(error) => {
                let short: String = error.chars().take(ERROR).collect();
                [&[frame::ERROR], short.as_bytes()].concat()
            }
        };
        frame::write(&mut to, &answer)?;
        to.flush()?;
    }
    Ok(())
}

/// The limit is of the process's whole life: it moves on with each message.
fn limit_cpu() -> io::Result<()> {
    let used = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = used.user_time().tv_sec() + used.system_time().tv_sec();
    let (_, most) = getrlimit(Resource::RLIMIT_CPU)?;
    let limit: rlim_t = u64::try_from(seconds).unwrap_or_default() + LIMIT.as_secs() + CPU_GRACE;
    Ok(setrlimit(Resource::RLIMIT_CPU, limit.min(most), most)?)
}

fn evaluate(
    programs: &mut HashMap<Vec<u8>, Program>,
    text: &[u8],
    message: &[u8],
) -> Result<Vec<u8>, String> {
    if !programs.contains_key(text) {
        let expression = std::str::from_utf8(text).map_err(|error| error.to_string())?;
        bounded(expression)?;
        if programs.len() >= PROGRAMS {
            programs.clear();
        }
        programs.insert(text.to_owned(), compile(expression)?);
    }
    let program = programs.get(text).ok_or("it was not compiled")?;
    results(program, json::parse(message)?)
}

/// What an expression gives: nothing, one answer, or several messages.
fn results(program: &Program, input: Val) -> Result<Vec<u8>, String> {
    const BEGIN: &[u8] = br#"{"messages":["#;
    let context = Ctx::<data::JustLut<Val>>::new(&program.lut, Vars::new([]));
    let (mut text, mut count) = (BEGIN.to_vec(), 0);
    for result in program.id.run((context, input)) {
        let value = result.map_err(|stop| match stop.get_err() {
            Ok(error) => error.to_string(),
            Err(_) => "it ended by `halt` or `break`".into(),
        })?;
        if count == MAX_OUTPUTS {
            return Err(format!("it gives more than {MAX_OUTPUTS} results"));
        }
        if count > 0 {
            text.push(b',');
        }
        json::write(&value, MAX_MESSAGE, &mut text)?;
        count += 1;
    }
    match count {
        0 => Ok(Vec::new()),
        1 => Ok(text.split_off(BEGIN.len())),
        _ => {
            text.extend_from_slice(b"]}");
            Ok(text)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(expression: &str, message: &str) -> Result<String, String> {
        let result = evaluate(&mut HashMap::new(), expression.as_bytes(), message.as_bytes())?;
        String::from_utf8(result).map_err(|error| error.to_string())
    }

    #[test]
    fn one_result_is_the_answer_and_several_are_messages() {
        let message = r#"{"id":"1","body":{"items":[{"n":1},{"n":2}],"total":1.10}}"#;
        assert_eq!(given("{body: {total: .body.total}}", message), Ok(r#"{"body":{"total":1.10}}"#.into()));
        assert_eq!(
            given(".body.items[] | {body: .}", message),
            Ok(r#"{"messages":[{"body":{"n":1}},{"body":{"n":2}}]}"#.into())
        );
        assert_eq!(given("empty", message), Ok(String::new()));
        assert_eq!(given(".", message), Ok(message.into()));
    }

    #[test]
    fn what_goes_wrong_is_said() {
        assert_eq!(given(".body + 1", r#"{"body":"x"}"#), Err("cannot calculate \"x\" + 1".into()));
        assert_eq!(given(r#"error("no total")"#, "{}"), Err(r#""no total""#.into()));
        assert_eq!(given("halt", "{}"), Err("it ended by `halt` or `break`".into()));
        assert_eq!(given("repeat(1)", "{}"), Err("it gives more than 10000 results".into()));
        let long = given(
            r#"[range(100000)] | map("0123456789012345678901234567890123456789") | [., .] | [., .]"#,
            "{}",
        );
        assert_eq!(long, Err("it gives more than 8323072 bytes".into()));
    }
}
