//! Reads the body of an answer, within limits.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::pump::call::{LARGE, cause};
use crate::pump::step::Failure;

/// How many large answers a runner reads at a time: its memory is that of all its nodes, and of the workers for jq.
const LARGE_AT_A_TIME: usize = 2;
/// How many a node may have at a time, until all that came of them is stored.
const LARGE_OF_A_NODE: usize = 1;
/// How long one may take from when it is known to be large: others wait for its place.
const LARGE_TIME: Duration = Duration::from_secs(60);

/// Places for large answers: those of a runner are taken while one is read, so that no node keeps them for long, whatever
/// becomes of the message; those of a node until it is stored.
#[derive(Clone, Debug)]
pub(super) struct Places {
    runner: Arc<Semaphore>,
    node: Arc<Semaphore>,
}

impl Default for Places {
    fn default() -> Self {
        let runner = Arc::new(Semaphore::new(LARGE_AT_A_TIME));
        Self { runner, node: Arc::new(Semaphore::new(LARGE_OF_A_NODE)) }
    }
}

impl Places {
    /// Those of another node of the same runner.
    pub(super) fn of_node(&self) -> Self {
        Self { runner: Arc::clone(&self.runner), ..Self::default() }
    }

    /// Takes a place, first of the node, then of the runner.
    async fn take(&self) -> Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)> {
        let node = Arc::clone(&self.node).acquire_owned().await.ok()?;
        Some((node, Arc::clone(&self.runner).acquire_owned().await.ok()?))
    }
}

/// Reads a body of at most so many bytes. One that is large counts as such for as long as what comes with it is kept.
///
/// # Errors
/// It is longer, breaks off, or is late.
pub(super) async fn body(
    mut body: Incoming,
    longest: usize,
    mut deadline: Instant,
    places: &Places,
) -> Result<(Bytes, Option<OwnedSemaphorePermit>), Failure> {
    let too_large = || Failure::last(format!("it is larger than {longest} bytes (`maxResponseBytes`)"));
    if body.size_hint().lower() > longest as u64 {
        return Err(too_large());
    }
    let (mut whole, mut taken) = (BytesMut::new(), None);
    loop {
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Failure::passing("it did not end in time")),
            Ok(None) => return Ok((whole.freeze(), taken.map(|(node, _)| node))),
            Ok(Some(Err(error))) => {
                return Err(Failure::passing(format!("it broke off ({})", cause(&error))));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > longest {
            return Err(too_large());
        }
        whole.extend_from_slice(&data);
        if whole.len() > LARGE && taken.is_none() {
            let waited = Instant::now();
            taken = places.take().await;
            let rest = body.size_hint().upper().and_then(|rest| usize::try_from(rest).ok());
            whole.reserve(rest.unwrap_or_default().min(longest - whole.len()));
            // That was our own doing, not the server's.
            deadline = (deadline + waited.elapsed()).min(Instant::now() + LARGE_TIME);
        }
    }
}
