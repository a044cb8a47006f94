//! The ids of what a pump publishes. They follow from what it got, so that whoever does the same work again after a crash
//! names its results the same, and the broker stores none of them twice.

use crate::api::name::NodeId;
use crate::broker::message::hash_id;

/// The id of the message that `target` gets because `node` gave it as output `index` of the message `input`, and the edge's
/// mapping made it `part` of that.
#[must_use]
pub fn output(input: &str, node: &NodeId, (index, part): (usize, usize), target: &NodeId) -> String {
    let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX).to_be_bytes();
    let (index, later) = (number(index), (part > 0).then(|| number(part)));
    // The first part has the id of a message that was not mapped.
    let part = later.as_ref().map(|part| &part[..]);
    hash_id(
        [input.as_bytes(), node.as_str().as_bytes(), &index, target.as_str().as_bytes()]
            .into_iter()
            .chain(part),
    )
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
        let id = output("0123456789abcdef0123456789abcdef", &node("map"), (0, 0), &node("store"));
        assert_eq!(id, "eee1445116aeb2328a1e5feeb30a59eb");
    }

    proptest! {
        #[test]
        fn messages_that_differ_in_anything_have_different_ids(
            one in ("[a-z0-9]{1,8}", "[a-z]{1,4}", (0_usize..4, 0_usize..4), "[a-z]{1,4}"),
            two in ("[a-z0-9]{1,8}", "[a-z]{1,4}", (0_usize..4, 0_usize..4), "[a-z]{1,4}"),
        ) {
            let id = |(input, from, index, to): &(String, String, (usize, usize), String)| {
                output(input, &node(from), *index, &node(to))
            };
            prop_assert_eq!(id(&one) == id(&two), one == two);
            prop_assert_eq!(id(&one).len(), 32);
        }
    }
}
