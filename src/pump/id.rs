//! The ids of what a pump publishes. They follow from what it got, so that whoever does the same work again after a crash
//! names its results the same, and the broker stores none of them twice.

use data_encoding::HEXLOWER;
use sha2::{Digest, Sha256};

use crate::api::name::{FlowName, NamespaceName, NodeId};

/// How many bytes of the hash make an id.
const BYTES: usize = 16;

/// The id of the message that `target` gets because `node` gave it as output `index` of the message `input`.
#[must_use]
pub fn output(input: &str, node: &NodeId, index: usize, target: &NodeId) -> String {
    let index = u64::try_from(index).unwrap_or(u64::MAX).to_be_bytes();
    hash(&[input.as_bytes(), node.as_str().as_bytes(), &index, target.as_str().as_bytes()])
}

/// The id of the dead letter of a message. Its place in its queue is part of it: two messages that somebody has given the
/// same id are two dead letters.
#[must_use]
pub fn dead_letter(
    namespace: &NamespaceName,
    flow: &FlowName,
    node: &NodeId,
    message: &str,
    sequence: u64,
) -> String {
    let place = [namespace.as_str(), flow.as_str(), node.as_str(), message].map(str::as_bytes);
    hash(&[b"dead", place[0], place[1], place[2], place[3], &sequence.to_be_bytes()])
}

/// Each part is preceded by its length, so that no two lists of parts are the same text.
fn hash(parts: &[&[u8]]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    HEXLOWER.encode(&hash.finalize()[..BYTES])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn an_id_is_the_same_whenever_it_is_asked_for() {
        // Written down: another version of this program must say the same, or it would store a message twice.
        let id = output("0123456789abcdef0123456789abcdef", &node("map"), 0, &node("store"));
        assert_eq!(id, "eee1445116aeb2328a1e5feeb30a59eb");
    }

    proptest! {
        #[test]
        fn messages_that_differ_in_anything_have_different_ids(
            one in ("[a-z0-9]{1,8}", "[a-z]{1,4}", 0_usize..4, "[a-z]{1,4}"),
            two in ("[a-z0-9]{1,8}", "[a-z]{1,4}", 0_usize..4, "[a-z]{1,4}"),
        ) {
            let id = |(input, from, index, to): &(String, String, usize, String)| {
                output(input, &node(from), *index, &node(to))
            };
            prop_assert_eq!(id(&one) == id(&two), one == two);
            prop_assert_eq!(id(&one).len(), 32);
        }

        #[test]
        fn two_messages_of_one_id_are_two_dead_letters(id in ".{0,16}", one in 0_u64..9, two in 0_u64..9) {
            let letter = |sequence| {
                dead_letter(&"shop".parse().unwrap(), &"orders".parse().unwrap(), &node("map"), &id, sequence)
            };
            prop_assert_eq!(letter(one) == letter(two), one == two);
        }
    }
}
