//! The ids of requests and of their messages.

use std::fmt;

use anyhow::Context as _;
use data_encoding::HEXLOWER;
use hmac::{Hmac, Mac as _};
use http::HeaderMap;
use sha2::{Digest as _, Sha256};

use crate::gateway::answer::REQUEST_ID;

/// The longest id that a sender may give a request.
const LONGEST: usize = 128;
/// The least bytes of a key that nobody guesses.
const SHORTEST_KEY: usize = 16;
/// How much of a hash is used: 128 bits, in hexadecimal digits.
const DIGITS: usize = 32;

/// The id of a request: the sender's, or a new one.
///
/// One that is too long or holds other than visible ASCII is replaced and not refused: nobody can change what some
/// sender's proxy puts there. The answer shows which id counted.
#[must_use]
pub fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok()).map(str::trim);
    let fits =
        |id: &&str| (1..=LONGEST).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    given.filter(fits).map_or_else(|| format!("{:032x}", fastrand::u128(..)), str::to_owned)
}

/// What the ids of messages are made with, so that nobody can guess one and have another's message taken for a
/// duplicate. All gateways share it: a request that is repeated to another one is still the same.
#[derive(Clone)]
pub struct MessageKey(Hmac<Sha256>);

impl fmt::Debug for MessageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MessageKey(…)")
    }
}

/// What makes a request the same as another, beside its id.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The method.
    pub method: &'a str,
    /// The path behind the Flow.
    pub suffix: &'a str,
    /// The query as it was sent.
    pub query: &'a str,
    /// The body as it was sent.
    pub body: &'a [u8],
}

impl MessageKey {
    /// A key of these bytes.
    ///
    /// # Errors
    /// They are too few.
    pub fn new(bytes: &[u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            bytes.len() >= SHORTEST_KEY,
            "the message key must have {SHORTEST_KEY} bytes or more"
        );
        Ok(Self(Hmac::new_from_slice(bytes).context("the message key cannot be used")?))
    }

    /// The id of the message that comes of a request to the Flow with this uid.
    #[must_use]
    pub fn id(&self, uid: &str, request_id: &str, content: &Content<'_>) -> String {
        let mut hash = Sha256::new();
        let Content { method, suffix, query, body } = content;
        for field in [method.as_bytes(), suffix.as_bytes(), query.as_bytes(), body] {
            parts(field, |part| hash.update(part));
        }
        let mut mac = self.0.clone();
        for field in [uid.as_bytes(), request_id.as_bytes(), &hash.finalize()] {
            parts(field, |part| mac.update(part));
        }
        let mut hex = HEXLOWER.encode(&mac.finalize().into_bytes());
        hex.truncate(DIGITS);
        hex
    }
}

/// A field with its length before it: so `ab` and `c` are not `a` and `bc`.
fn parts(field: &[u8], mut take: impl FnMut(&[u8])) {
    take(&(field.len() as u64).to_be_bytes());
    take(field);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn given(id: &[u8]) -> String {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_ID, http::HeaderValue::from_bytes(id).unwrap());
        request_id(&headers)
    }

    #[test]
    fn a_senders_id_is_taken_as_it_is() {
        assert_eq!(given(b"order-4711/~!"), "order-4711/~!");
        assert_eq!(given(&[b'a'; 128]), "a".repeat(128));
    }

    #[test]
    fn an_id_that_is_none_is_replaced() {
        for id in [&b""[..], b"two words", &[b'a'; 129], "übung".as_bytes()] {
            let made = given(id);
            assert_eq!((made.len(), made.bytes().all(|byte| byte.is_ascii_hexdigit())), (32, true), "{made}");
        }
        assert_ne!(request_id(&HeaderMap::new()), request_id(&HeaderMap::new()));
    }

    #[test]
    fn a_key_is_never_shown_and_must_be_long() {
        assert_eq!(format!("{:?}", MessageKey::new(&[7; 32]).unwrap()), "MessageKey(…)");
        assert!(MessageKey::new(&[7; 15]).is_err());
    }

    fn id(key: u8, fields: &[&str; 5], body: &[u8]) -> String {
        let [uid, request, method, suffix, query] = *fields;
        MessageKey::new(&[key; 32]).unwrap().id(uid, request, &Content { method, suffix, query, body })
    }

    #[test]
    fn the_id_of_a_message_is_the_same_in_every_version() {
        // Gateways of two versions run side by side during an upgrade.
        let id = id(1, &["uid", "request", "POST", "a/b", "x=1"], b"{}");
        assert_eq!(id, "70dfbf154b8439716cd032bdb5b8f69e");
    }

    proptest! {
        #[test]
        fn requests_that_differ_in_anything_have_different_messages(
            some in prop::array::uniform5("[ab]{0,2}"), other in prop::array::uniform5("[ab]{0,2}"),
            bodies in prop::array::uniform2("[ab]{0,2}"), keys in prop::array::uniform2(0_u8..2),
        ) {
            let ids = [
                id(keys[0], &some.each_ref().map(String::as_str), bodies[0].as_bytes()),
                id(keys[1], &other.each_ref().map(String::as_str), bodies[1].as_bytes()),
            ];
            let same = some == other && bodies[0] == bodies[1] && keys[0] == keys[1];
            prop_assert_eq!(ids[0] == ids[1], same);
        }
    }
}
