//! The rules of a Flow's graph that a schema cannot afford to check: one node to enter by, and no way back.
//!
//! A message enters at the one node that no edge leads to. With that and no cycle, every node is reached.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

/// What is wrong with a graph, and what to do about it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InvalidGraph {
    /// There is nothing to run.
    #[error("the graph has no node: add one")]
    Empty,
    /// An edge names a node that does not exist.
    #[error(
        "the edge from '{from}' to '{to}' names '{unknown}', which is no node: add the node or correct the edge"
    )]
    UnknownNode {
        /// The edge's source.
        from: String,
        /// The edge's target.
        to: String,
        /// Which of the two is unknown.
        unknown: String,
    },
    /// Some edges lead back to where they came from.
    #[error("the edges form a cycle: remove one of {}", .0.join(" → "))]
    Cycle(
        /// The nodes in the order of the edges; the first is also the last.
        Vec<String>,
    ),
    /// Several nodes have no edge that leads to them.
    #[error("messages must enter at one node, but no edge leads to any of {}: lead edges to all but one", .0.join(", "))]
    SeveralEntries(
        /// Those nodes, sorted.
        Vec<String>,
    ),
}

/// Checks a graph and gives its entry: the one node that no edge leads to.
///
/// The answer does not depend on the order in which nodes and edges are written.
///
/// # Errors
/// What is wrong with the graph: the first of an unknown node, a cycle, several entries.
pub fn entry<'a>(nodes: &[&'a str], edges: &[(&'a str, &'a str)]) -> Result<&'a str, InvalidGraph> {
    let nodes: BTreeSet<&str> = nodes.iter().copied().collect();
    if nodes.is_empty() {
        return Err(InvalidGraph::Empty);
    }
    check_names(&nodes, edges)?;
    if let Some(cycle) = cycle(&nodes, edges) {
        return Err(InvalidGraph::Cycle(cycle.into_iter().map(str::to_owned).collect()));
    }
    let targets: BTreeSet<&str> = edges.iter().map(|(_, target)| *target).collect();
    let mut entries = nodes.difference(&targets).copied();
    match (entries.next(), entries.next()) {
        (Some(entry), None) => Ok(entry),
        (first, second) => {
            let all = first.into_iter().chain(second).chain(entries);
            Err(InvalidGraph::SeveralEntries(all.map(str::to_owned).collect()))
        }
    }
}

fn check_names(nodes: &BTreeSet<&str>, edges: &[(&str, &str)]) -> Result<(), InvalidGraph> {
    let edges: BTreeSet<_> = edges.iter().copied().collect();
    for (from, to) in edges {
        if let Some(unknown) = [from, to].into_iter().find(|end| !nodes.contains(end)) {
            let (from, to, unknown) = (from.into(), to.into(), unknown.into());
            return Err(InvalidGraph::UnknownNode { from, to, unknown });
        }
    }
    Ok(())
}

/// A cycle, if there is one, from its least node round to the same node again.
///
/// Takes away nodes without an edge from a node that is left, until every node that is left has one. From any of those a
/// walk back along such edges never ends, so it comes to a node for the second time.
fn cycle<'a>(nodes: &BTreeSet<&'a str>, edges: &[(&'a str, &'a str)]) -> Option<Vec<&'a str>> {
    let left = without_entries(nodes, edges);
    // One edge back from each node is enough: the one from the least node.
    let mut back: BTreeMap<&str, &str> = BTreeMap::new();
    for (source, target) in edges.iter().filter(|(source, _)| left.contains(source)) {
        let least = back.entry(target).or_insert(source);
        *least = source.min(least);
    }
    let mut walk = vec![*left.first()?];
    loop {
        let before = *back.get(walk.last()?)?;
        if let Some(met) = walk.iter().position(|node| *node == before) {
            return Some(in_order(&walk[met..]));
        }
        walk.push(before);
    }
}

/// What is left when nodes that nothing leads to are taken away, again and again.
fn without_entries<'a>(nodes: &BTreeSet<&'a str>, edges: &[(&'a str, &'a str)]) -> BTreeSet<&'a str> {
    let mut left = nodes.clone();
    loop {
        let led_to: BTreeSet<&str> =
            edges.iter().filter(|(source, _)| left.contains(source)).map(|(_, target)| *target).collect();
        let rest: BTreeSet<&str> = left.intersection(&led_to).copied().collect();
        if rest.len() == left.len() {
            return rest;
        }
        left = rest;
    }
}

/// Turns a round that was walked backwards into one along the edges, from its least node to its least node.
fn in_order<'a>(backwards: &[&'a str]) -> Vec<&'a str> {
    let mut round: Vec<&str> = backwards.iter().rev().copied().collect();
    let least = round.iter().enumerate().min_by_key(|(_, node)| **node).map_or(0, |(at, _)| at);
    round.rotate_left(least);
    round.extend(round.first().copied());
    round
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LETTERS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

    fn message(nodes: &[&str], edges: &[(&str, &str)]) -> String {
        entry(nodes, edges).unwrap_err().to_string()
    }

    #[test]
    fn a_message_enters_where_no_edge_leads_to() {
        assert_eq!(entry(&["a"], &[]), Ok("a"));
        assert_eq!(entry(&["c", "b", "a"], &[("b", "a"), ("b", "c"), ("c", "a")]), Ok("b"));
    }

    #[test]
    fn what_is_wrong_says_what_to_do() {
        assert_eq!(message(&[], &[]), "the graph has no node: add one");
        assert_eq!(
            message(&["a"], &[("a", "b")]),
            "the edge from 'a' to 'b' names 'b', which is no node: add the node or correct the edge"
        );
        assert_eq!(
            message(&["a", "b", "c", "d"], &[("d", "b"), ("b", "c"), ("c", "a"), ("a", "b")]),
            "the edges form a cycle: remove one of a → b → c → a"
        );
        assert_eq!(message(&["a"], &[("a", "a")]), "the edges form a cycle: remove one of a → a");
        assert_eq!(
            message(&["c", "b", "a"], &[("a", "b")]),
            "messages must enter at one node, but no edge leads to any of a, c: lead edges to all but one"
        );
    }

    #[test]
    fn a_cycle_apart_from_the_rest_is_found() {
        let cycle = InvalidGraph::Cycle(vec!["b".into(), "c".into(), "b".into()]);
        assert_eq!(entry(&["a", "b", "c"], &[("b", "c"), ("c", "b")]), Err(cycle));
    }

    #[test]
    fn a_long_chain_and_a_long_cycle_need_no_deep_stack() {
        let names: Vec<String> = (0..2000).map(|node| format!("n{node:04}")).collect();
        let nodes: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut edges: Vec<_> = nodes.windows(2).map(|pair| (pair[0], pair[1])).collect();
        assert_eq!(entry(&nodes, &edges), Ok("n0000"));
        edges.push(("n1999", "n0000"));
        let round = nodes.iter().chain(&nodes[..1]).map(ToString::to_string).collect();
        assert_eq!(entry(&nodes, &edges), Err(InvalidGraph::Cycle(round)));
    }

    /// Which node can be reached from which, by one edge or more: the slow and obvious way.
    fn reach(edges: &[(usize, usize)]) -> [[bool; 6]; 6] {
        let mut reach = [[false; 6]; 6];
        for (source, target) in edges {
            reach[*source][*target] = true;
        }
        for middle in 0..6 {
            for from in 0..6 {
                for to in 0..6 {
                    reach[from][to] |= reach[from][middle] && reach[middle][to];
                }
            }
        }
        reach
    }

    proptest! {
        #[test]
        fn any_graph_is_judged_as_the_slow_way_judges_it(
            edges in prop::collection::vec((0usize..6, 0usize..6), 0..9), seed: prop::sample::Index,
        ) {
            let named: Vec<_> = edges.iter().map(|(source, target)| (LETTERS[*source], LETTERS[*target])).collect();
            let reach = reach(&edges);
            let entries: Vec<_> =
                (0..6).filter(|node| edges.iter().all(|(_, target)| target != node)).map(|n| LETTERS[n]).collect();
            let seen = entry(&LETTERS, &named);
            match &seen {
                Err(InvalidGraph::Cycle(round)) => {
                    prop_assert_eq!(round.first(), round.last());
                    prop_assert!(round.windows(2).all(|pair| named.contains(&(&pair[0], &pair[1]))));
                    let nodes: BTreeSet<_> = round.iter().collect();
                    prop_assert_eq!(nodes.len() + 1, round.len());
                    prop_assert_eq!(nodes.first(), Some(&&round[0]));
                }
                other => {
                    prop_assert!((0..6).all(|node| !reach[node][node]), "a cycle was missed");
                    match other {
                        Ok(entry) => {
                            prop_assert_eq!(&entries, &[*entry]);
                            let from = LETTERS.iter().position(|letter| letter == entry).unwrap();
                            prop_assert!((0..6).all(|to| to == from || reach[from][to]), "a node is not reached");
                        }
                        Err(InvalidGraph::SeveralEntries(several)) => {
                            prop_assert_eq!(&entries, several);
                            prop_assert!(several.len() > 1);
                        }
                        wrong => prop_assert!(false, "{:?}", wrong),
                    }
                }
            }
            let mut turned = named.clone();
            turned.rotate_left(seed.index(named.len().max(1)).min(named.len()));
            turned.reverse();
            prop_assert_eq!(entry(&LETTERS, &turned), seen);
        }
    }
}
