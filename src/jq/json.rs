//! Values of jq as JSON, and back: within limits, since an expression can make anything.

use std::io::Write as _;

use jaq_json::{Num, Val, read};

/// How deep a value may be nested.
const DEEPEST: usize = 500;

/// Reads a message.
///
/// # Errors
/// It is nested too deep, or no JSON.
pub fn parse(text: &[u8]) -> Result<Val, String> {
    if depth(text) > DEEPEST {
        return Err(format!("the message is nested deeper than {DEEPEST}"));
    }
    read::parse_single(text).map_err(|error| format!("the message is no JSON: {error}"))
}

/// Adds a value to a text that may not become longer than `longest`.
///
/// # Errors
/// It would, or the value is not one of JSON.
pub fn write(value: &Val, longest: usize, text: &mut Vec<u8>) -> Result<(), String> {
    put(value, 0, longest, text)
}

fn put(value: &Val, depth: usize, longest: usize, text: &mut Vec<u8>) -> Result<(), String> {
    if text.len() > longest {
        return Err(format!("it gives more than {longest} bytes"));
    }
    if depth > DEEPEST {
        return Err(format!("it gives something that is nested deeper than {DEEPEST}"));
    }
    match value {
        Val::Null => text.extend_from_slice(b"null"),
        Val::Bool(true) => text.extend_from_slice(b"true"),
        Val::Bool(false) => text.extend_from_slice(b"false"),
        Val::Num(number) => put_number(number, text),
        Val::TStr(string) | Val::BStr(string) => put_string(string, text),
        Val::Arr(items) => {
            put_all(*b"[]", items.iter(), text, |item, text| put(item, depth + 1, longest, text))?;
        }
        Val::Obj(fields) => put_all(*b"{}", fields.iter(), text, |(key, value), text| {
            let (Val::TStr(key) | Val::BStr(key)) = key else {
                return Err("it gives an object with a key that is no text".into());
            };
            put_string(key, text);
            text.push(b':');
            put(value, depth + 1, longest, text)
        })?,
    }
    Ok(())
}

/// Numbers that JSON cannot say become what jq makes of them.
fn put_number(number: &Num, text: &mut Vec<u8>) {
    let written = match number {
        Num::Float(float) if float.is_nan() => "null".into(),
        Num::Float(float) if float.is_infinite() => f64::MAX.copysign(*float).to_string(),
        other => other.to_string(),
    };
    text.extend_from_slice(written.as_bytes());
}

fn put_string(string: &[u8], text: &mut Vec<u8>) {
    // A text can always be written into a vector.
    let _ = serde_json::to_writer(text.by_ref(), &String::from_utf8_lossy(string));
}

fn put_all<T>(
    ends: [u8; 2],
    items: impl Iterator<Item = T>,
    text: &mut Vec<u8>,
    mut put: impl FnMut(T, &mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    text.push(ends[0]);
    for (index, item) in items.enumerate() {
        if index > 0 {
            text.push(b',');
        }
        put(item, text)?;
    }
    text.push(ends[1]);
    Ok(())
}

/// How deep a text of JSON is nested.
#[must_use]
pub fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut string, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if string => escaped = true,
            b'"' => string = !string,
            b'[' | b'{' if !string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(text: &str) -> Result<String, String> {
        let mut out = Vec::new();
        write(&parse(text.as_bytes())?, 100, &mut out)?;
        String::from_utf8(out).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_read_is_written_as_it_was() {
        for text in [
            r#"{"a":[1,-2.50,true,null,"\n\"\\ü"],"b":{}}"#,
            "123456789012345678901234567890",
            "1.10",
            r#""]]]\"[[[""#,
        ] {
            assert_eq!(again(text), Ok(text.to_owned()));
        }
    }

    #[test]
    fn what_json_cannot_say_is_said_otherwise_or_refused() {
        let written = |value| {
            let mut out = Vec::new();
            write(&value, 1000, &mut out).map(|()| String::from_utf8(out).unwrap())
        };
        assert_eq!(written(Val::Num(Num::Float(f64::NAN))), Ok("null".into()));
        let big: f64 = written(Val::Num(Num::Float(f64::NEG_INFINITY))).unwrap().parse().unwrap();
        assert_eq!(big.to_bits(), f64::MIN.to_bits());
        assert!(written(Val::obj([(Val::Null, Val::Null)].into_iter().collect())).is_err());
        assert_eq!(written(Val::utf8_str(&b"a\xffb"[..])), Ok("\"a\u{fffd}b\"".into()));
    }

    #[test]
    fn depth_and_length_have_an_end() {
        let nested = |times: usize| format!("{}{}", "[".repeat(times), "]".repeat(times));
        assert!(again(&nested(40)).is_ok());
        assert!(again(&nested(DEEPEST + 1)).unwrap_err().contains("nested deeper"));
        assert!(
            again(&format!("[{}1]", "\"0123456789\",".repeat(20)))
                .unwrap_err()
                .contains("more than 100 bytes")
        );
        let mut deep = Val::Null;
        for _ in 0..=DEEPEST + 1 {
            deep = std::iter::once(deep).collect();
        }
        assert!(write(&deep, 10_000, &mut Vec::new()).unwrap_err().contains("nested deeper"));
    }
}
