//! The edges of a node: which ways a message goes, and how it changes on each.
//!
//! All conditions and mappings of an answer are evaluated before anything of it is published, so that an expression that
//! fails leaves nothing half done.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::name::NodeId;
use crate::broker::work::{NodeWork, Target};
use crate::filter::Filter;
use crate::jq::pool::Lane;

use super::answer::{self, Parts};
use super::input::Input;
use super::step::Failure;

/// How many bytes the mappings of one answer may give in all: they are here until they are published.
const MAPPED_MAX: usize = 64 << 20;

/// The edges that lead away from a node.
#[derive(Debug)]
pub struct Edges {
    all: Vec<Edge>,
    lane: Option<Arc<Lane>>,
    timeout: Duration,
}

#[derive(Debug)]
struct Edge {
    target: NodeId,
    condition: Option<Filter>,
    transform: Option<String>,
}

/// A message that goes to a node.
#[derive(Debug)]
pub struct Going<'a> {
    /// Which of the answer's messages it is.
    pub index: usize,
    /// Where it goes.
    pub target: &'a NodeId,
    /// What the edge's mapping made of it, as an answer; none where it stays as it is.
    pub mapped: Option<Bytes>,
}

impl Edges {
    /// Reads the edges of a node. Mappings have their turn in `lane`.
    ///
    /// # Errors
    /// A condition cannot be read, or there is a mapping and no lane.
    pub fn load(work: &NodeWork, lane: Option<Arc<Lane>>) -> Result<Self, String> {
        let all = work.targets.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        if lane.is_none() && needs_lane(work) {
            return Err("nothing here evaluates the mappings of its edges".into());
        }
        Ok(Self { all, lane, timeout: work.timeout() })
    }

    /// Which ways the messages of an answer go.
    ///
    /// # Errors
    /// A message cannot be read for a condition, or a mapping fails.
    pub async fn sort(&self, input: &Input, outputs: &[Parts<'_>]) -> Result<Vec<Going<'_>>, Failure> {
        let (mut all, mut mapped_bytes) = (Vec::new(), 0);
        for (index, parts) in outputs.iter().enumerate() {
            for edge in self.open(input, *parts)? {
                let mapped = match &edge.transform {
                    Some(jq) => Some(self.map(edge, jq, input, *parts).await?),
                    None => None,
                };
                mapped_bytes += mapped.as_ref().map_or(0, Bytes::len);
                if mapped_bytes > MAPPED_MAX {
                    return Err(Failure::last(format!(
                        "what the edges make of the answer is larger than {MAPPED_MAX} bytes in all"
                    )));
                }
                all.push(Going { index, target: &edge.target, mapped });
            }
        }
        Ok(all)
    }

    /// The edges whose condition holds for a message.
    fn open(&self, input: &Input, parts: Parts<'_>) -> Result<Vec<&Edge>, Failure> {
        if self.all.iter().all(|edge| edge.condition.is_none()) {
            return Ok(self.all.iter().collect());
        }
        let text = whole(input, parts);
        let message: Value = serde_json::from_slice(&text).map_err(|error| {
            Failure::last(format!("the conditions of its edges cannot read the message: {error}"))
        })?;
        let holds =
            |edge: &&Edge| edge.condition.as_ref().is_none_or(|condition| condition.matches(&message));
        Ok(self.all.iter().filter(holds).collect())
    }

    async fn map(&self, edge: &Edge, jq: &str, input: &Input, parts: Parts<'_>) -> Result<Bytes, Failure> {
        let about = |reason: String| format!("`transform` of the edge to '{}': {reason}", edge.target);
        let Some(lane) = &self.lane else {
            return Err(Failure::last(about("nothing here evaluates it".into())));
        };
        let message = Bytes::from(whole(input, parts));
        let mapped = lane.evaluate(jq, &message, self.timeout).await;
        let mapped =
            mapped.map_err(|stopped| Failure { reason: about(stopped.reason.clone()), ..stopped.into() })?;
        answer::read(&mapped).map_err(|error| Failure::last(about(error)))?;
        Ok(mapped)
    }
}

/// Whether a node needs a lane for the mappings of its edges.
#[must_use]
pub fn needs_lane(work: &NodeWork) -> bool {
    work.targets.iter().any(|target| target.transform.is_some())
}

/// A message as its target would get it, but for its id: that is the one of the message that it was made of.
fn whole(input: &Input, parts: Parts<'_>) -> Vec<u8> {
    answer::write(&input.id, parts, input.metadata.as_deref())
}

/// What a message has for metadata that does not give any: that of the one before it.
#[must_use]
pub fn inherited<'a>(input: &'a Input, parts: &Parts<'a>) -> Option<&'a RawValue> {
    parts.metadata.or(input.metadata.as_deref())
}

fn read(target: &Target) -> Result<Edge, String> {
    let condition = target.condition.as_ref().map(Filter::parse).transpose();
    let condition =
        condition.map_err(|error| format!("`condition` of the edge to '{}': {error}", target.node))?;
    Ok(Edge { target: target.node.clone(), condition, transform: target.transform.clone() })
}
