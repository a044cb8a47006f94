//! Which partition a new member goes to, and which member goes first: pure. The algorithms are those of Apache Stratos.

use std::collections::{BTreeMap, HashMap};

use crate::api::cluster::placement::{Algorithm, Partition, Placement};

/// A member, as far as placement is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed<'a> {
    /// Its ordinal.
    pub ordinal: u32,
    /// Its partition.
    pub partition: Option<&'a str>,
    /// Whether it is Active.
    pub active: bool,
}

/// Where new members go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The partition of each that has room; none where there are no partitions.
    pub partitions: Vec<Option<String>>,
    /// How many have no room.
    pub without: usize,
}

/// Finds room for so many new members, one after the other.
#[must_use]
pub fn room(placement: Option<&Placement>, members: &[Placed<'_>], count: usize) -> Room {
    let Some(placement) = placement.filter(|placement| !placement.partitions.is_empty()) else {
        return Room { partitions: vec![None; count], without: 0 };
    };
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for partition in members.iter().filter_map(|member| member.partition) {
        *counts.entry(partition).or_default() += 1;
    }
    let mut partitions = vec![];
    for _ in 0..count {
        let Some(next) = next(placement, &counts) else { break };
        *counts.entry(&next.name).or_default() += 1;
        partitions.push(Some(next.name.clone()));
    }
    let without = count - partitions.len();
    Room { partitions, without }
}

/// The partition of the next new member; none where all are full.
fn next<'a>(placement: &'a Placement, counts: &BTreeMap<&str, usize>) -> Option<&'a Partition> {
    let count = |partition: &Partition| counts.get(partition.name.as_str()).copied().unwrap_or_default();
    let free = |partition: &&Partition| {
        partition.max.is_none_or(|max| count(partition) < usize::try_from(max).unwrap_or_default())
    };
    let mut free = placement.partitions.iter().filter(free);
    match placement.algorithm.unwrap_or(Algorithm::RoundRobin) {
        Algorithm::OneAfterAnother => free.next(),
        // Of several with as few, the first.
        Algorithm::RoundRobin => free.min_by_key(|partition| count(partition)),
    }
}

/// The ordinals of those that go first when there are too many: those in no partition that there is; then, of the fullest
/// partition or of the last, those that are not Active, and those with the highest ordinals.
#[must_use]
pub fn surplus(placement: Option<&Placement>, members: &[Placed<'_>], count: usize) -> Vec<u32> {
    let partitions = placement.map(|placement| &placement.partitions[..]).unwrap_or_default();
    let place: HashMap<_, _> =
        partitions.iter().enumerate().map(|(at, partition)| (partition.name.as_str(), at)).collect();
    let mut strays = vec![];
    let mut groups = vec![vec![]; partitions.len()];
    for member in members {
        let at = member.partition.and_then(|partition| place.get(partition));
        at.map_or(&mut strays, |at| &mut groups[*at]).push(*member);
    }
    for group in groups.iter_mut().chain([&mut strays]) {
        group.sort_by_key(|member| (!member.active, member.ordinal));
    }
    let algorithm = placement.and_then(|placement| placement.algorithm).unwrap_or(Algorithm::RoundRobin);
    let next =
        || strays.pop().or_else(|| shrinking(algorithm, &mut groups)?.pop()).map(|member| member.ordinal);
    std::iter::from_fn(next).take(count).collect()
}

/// The partition that is to shrink.
fn shrinking<T>(algorithm: Algorithm, groups: &mut [Vec<T>]) -> Option<&mut Vec<T>> {
    let mut filled = groups.iter_mut().filter(|group| !group.is_empty());
    match algorithm {
        Algorithm::OneAfterAnother => filled.next_back(),
        // Of several as full, the last.
        Algorithm::RoundRobin => filled.max_by_key(|group| group.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placement(algorithm: Algorithm, partitions: &[(&str, Option<i32>)]) -> Placement {
        let partitions = partitions
            .iter()
            .map(|(name, max)| Partition { name: (*name).into(), max: *max, ..Partition::default() })
            .collect();
        Placement { algorithm: Some(algorithm), partitions }
    }

    /// Members in these partitions, with ordinals from 0; an upper-case one is not Active.
    fn members(of: &str) -> Vec<Placed<'static>> {
        let member = |(ordinal, name): (usize, char)| Placed {
            ordinal: u32::try_from(ordinal).unwrap(),
            partition: match name.to_ascii_lowercase() {
                'a' => Some("a"),
                'b' => Some("b"),
                '-' => None,
                _ => Some("x"),
            },
            active: !name.is_ascii_uppercase(),
        };
        of.chars().enumerate().map(member).collect()
    }

    #[test]
    fn new_members_go_where_the_algorithm_says() {
        use Algorithm::{OneAfterAnother, RoundRobin};
        for (algorithm, partitions, there, count, expected, without) in [
            (RoundRobin, &[("a", None), ("b", None)][..], "", 4, "abab", 0),
            (RoundRobin, &[("a", None), ("b", None)], "aaa", 3, "bbb", 0),
            (RoundRobin, &[("a", Some(1)), ("b", Some(2))], "", 5, "abb", 2),
            (RoundRobin, &[("a", Some(0)), ("b", None)], "", 2, "bb", 0),
            (RoundRobin, &[("a", None), ("b", None), ("c", None)], "ab", 2, "ca", 0),
            (OneAfterAnother, &[("a", Some(2)), ("b", Some(2))], "", 3, "aab", 0),
            (OneAfterAnother, &[("a", Some(2)), ("b", Some(2))], "b", 3, "aab", 0),
            (OneAfterAnother, &[("a", Some(1)), ("b", Some(1))], "ab", 1, "", 1),
            (OneAfterAnother, &[("a", None), ("b", None)], "", 3, "aaa", 0),
        ] {
            let found = room(Some(&placement(algorithm, partitions)), &members(there), count);
            let names: String = found.partitions.iter().flatten().map(String::as_str).collect();
            assert_eq!(
                (names.as_str(), found.without),
                (expected, without),
                "{algorithm:?} {partitions:?} {there}"
            );
        }
        assert_eq!(room(None, &members("--"), 2), Room { partitions: vec![None, None], without: 0 });
    }

    #[test]
    fn members_go_from_the_fullest_or_the_last_partition_those_that_do_not_serve_first() {
        use Algorithm::{OneAfterAnother, RoundRobin};
        let both = &[("a", None), ("b", None)][..];
        for (algorithm, there, count, expected) in [
            (RoundRobin, "aab", 1, &[1][..]),
            (RoundRobin, "aabb", 2, &[3, 1]),
            (RoundRobin, "aAb", 1, &[1]),
            (RoundRobin, "Aab", 1, &[0]),
            (RoundRobin, "aaxb", 1, &[2]),
            (RoundRobin, "aa-b", 2, &[2, 1]),
            (RoundRobin, "X-xab", 4, &[0, 2, 1, 4]),
            (OneAfterAnother, "aaab", 2, &[3, 2]),
            (OneAfterAnother, "bba", 3, &[1, 0, 2]),
            (RoundRobin, "a", 3, &[0]),
        ] {
            let gone = surplus(Some(&placement(algorithm, both)), &members(there), count);
            assert_eq!(gone, expected, "{algorithm:?} {there}");
        }
        assert_eq!(surplus(None, &members("--_"), 2), [2, 1]);
    }
}
