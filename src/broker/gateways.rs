//! How far the gateways have come, as they announce it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use super::connect::Broker;
use super::subject;
use super::work::RoutesApplied;

/// An announcement counts for so long: a gateway announces every three seconds.
const LATELY: Duration = Duration::from_secs(10);

/// What was heard of each gateway.
#[derive(Clone, Debug, Default)]
pub struct Heard(Arc<Mutex<HashMap<String, (u64, Instant)>>>);

impl Heard {
    /// Listens, and tells when a gateway has come further or is heard for the first time in a while. It does not end.
    pub async fn listen(self, broker: Broker, further: impl Fn()) {
        loop {
            broker.wait_connected().await;
            let mut connections = broker.connections();
            // The client subscribes again by itself after each connection that it makes anew.
            let Ok(mut announced) = broker.client.subscribe(subject::ALL_GATEWAYS).await else {
                let _ = connections.changed().await;
                continue;
            };
            while let Some(message) = announced.next().await {
                match serde_json::from_slice(&message.payload) {
                    Ok(said) => {
                        if self.note(&said, Instant::now()) {
                            further();
                        }
                    }
                    Err(error) => tracing::warn!(%error, "A gateway announced what cannot be understood"),
                }
            }
        }
    }

    /// The highest version that each gateway which was heard of lately has applied.
    #[must_use]
    pub fn lately(&self) -> BTreeMap<String, u64> {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> BTreeMap<String, u64> {
        let heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lately = heard.iter().filter(|(_, (_, when))| now.duration_since(*when) <= LATELY);
        lately.map(|(name, (version, _))| (name.clone(), *version)).collect()
    }

    /// Whether it is news.
    fn note(&self, said: &RoutesApplied, now: Instant) -> bool {
        let mut heard = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        heard.retain(|_, (_, when)| now.duration_since(*when) <= 6 * LATELY);
        let before = heard.insert(said.gateway.clone(), (said.resource_version, now));
        before.is_none_or(|(version, when)| {
            version != said.resource_version || now.duration_since(when) > LATELY
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_that_goes_silent_counts_no_more_until_it_is_heard_again() {
        let (heard, start) = (Heard::default(), Instant::now());
        let said = |version| RoutesApplied { gateway: "g".into(), resource_version: version };
        assert!(heard.note(&said(5), start));
        assert!(!heard.note(&said(5), start + Duration::from_secs(3)));
        assert!(heard.note(&said(6), start + Duration::from_secs(4)));
        let later = start + Duration::from_secs(20);
        assert_eq!(heard.at(start + Duration::from_secs(5)), [("g".to_owned(), 6)].into());
        assert_eq!(heard.at(later), BTreeMap::new());
        assert!(heard.note(&said(6), later));
    }
}
