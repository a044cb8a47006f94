//! Which Flow the path of a request means.

use crate::gateway::routes::Key;

/// What all addresses begin with.
const PREFIX: &str = "/hook/";

/// The Flow that a path means, and what follows it there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// What finds the route.
    pub key: Key,
    /// What follows the Flow in the path, without its `/`, as it was sent.
    pub suffix: &'a str,
}

impl<'a> Target<'a> {
    /// `/hook/{namespace}/{flow}` with anything behind it, or `/hook/{uid}`. Any other path is nobody's.
    #[must_use]
    pub fn of(path: &'a str) -> Option<Self> {
        let rest = path.strip_prefix(PREFIX)?;
        let Some((namespace, rest)) = rest.split_once('/') else {
            return Some(Self { key: Key::Uid(decode(rest)?), suffix: "" });
        };
        let (flow, suffix) = rest.split_once('/').unwrap_or((rest, ""));
        Some(Self { key: Key::Name(decode(namespace)?, decode(flow)?), suffix })
    }
}

/// Takes the percent-encoding off. A `%` without two hexadecimal digits stands for itself, as URLs are read everywhere;
/// none where no UTF-8 comes out.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digit =
            |at: usize| char::from(*after.get(at)?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push(high << 4 | low);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(namespace: &str, flow: &str) -> Key {
        Key::Name(namespace.into(), flow.into())
    }

    #[test]
    fn a_flow_is_found_by_name_or_by_uid() {
        let by_name =
            |path, suffix| assert_eq!(Target::of(path), Some(Target { key: name("shop", "orders"), suffix }));
        by_name("/hook/shop/orders", "");
        by_name("/hook/shop/orders/", "");
        by_name("/hook/shop/orders/a/b%2Fc", "a/b%2Fc");
        by_name("/hook/shop/orders//../x", "/../x");
        by_name("/hook/sh%6fp/orders", "");
        let uid = Key::Uid("5f0c-1".into());
        assert_eq!(Target::of("/hook/5f0c-1"), Some(Target { key: uid, suffix: "" }));
        assert_eq!(Target::of("/hook/5f0c-1/").unwrap().key, name("5f0c-1", ""));
    }

    #[test]
    fn other_paths_are_nobodys() {
        for path in ["", "/", "*", "/hook", "/hooks/a/b", "/HOOK/a/b", "hook/a/b", "/hook/%ff/b"] {
            assert_eq!(Target::of(path), None, "{path}");
        }
        // These are some key, which no Flow has.
        assert_eq!(Target::of("/hook/").unwrap().key, Key::Uid(String::new()));
        assert_eq!(Target::of("/hook//b").unwrap().key, name("", "b"));
        assert_eq!(Target::of("/hook/a%2Fb/c").unwrap().key, name("a/b", "c"));
    }

    #[test]
    fn what_is_no_percent_encoding_stands_for_itself() {
        assert_eq!(decode("50%").as_deref(), Some("50%"));
        assert_eq!(decode("%zz%4").as_deref(), Some("%zz%4"));
        assert_eq!(decode("%c3%BC+").as_deref(), Some("ü+"));
        assert_eq!(decode("%c3"), None);
        assert_eq!(decode("%+1").as_deref(), Some("%+1"));
    }

    proptest! {
        #[test]
        fn any_path_is_read_without_a_fault(path in "\\PC*") {
            let _ = Target::of(&path);
            let _ = Target::of(&format!("/hook/{path}"));
        }

        #[test]
        fn whatever_is_encoded_comes_back(text in "\\PC*") {
            let encoded: Vec<_> = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            let encoded = encoded.concat();
            prop_assert_eq!(decode(&encoded), Some(text));
        }
    }
}
