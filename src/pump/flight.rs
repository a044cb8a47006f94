//! The messages that a pump holds: it tells the server of each that work goes on, and takes none twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_nats::jetstream::AckKind;
use async_nats::{Client, Subject};
use k8s_openapi::jiff::Timestamp;

/// How many messages may have deliveries that do not count, before all of them count again.
const FORGIVEN_MAX: usize = 10_000;

/// The table of what is in flight.
#[derive(Debug, Default)]
pub struct Flight(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    held: HashMap<u64, Held>,
    /// Deliveries that were no attempts, by message: the server handed out again what was already here, since it had not
    /// heard of it for too long.
    forgiven: HashMap<u64, u64>,
}

#[derive(Debug)]
struct Held {
    /// Where the server wants to be answered: that of the last delivery.
    reply: Subject,
    bytes: usize,
}

/// A message is in flight for as long as this lives.
#[derive(Debug)]
pub struct Seat {
    flight: Arc<Flight>,
    sequence: u64,
    /// When it came into its queue.
    pub queued: Timestamp,
    /// Which attempt it is, from 1.
    pub attempts: u64,
}

impl Flight {
    /// Takes a delivery of what has this place in its queue, since this time. `None`: the message is here already.
    pub fn take(
        self: &Arc<Self>,
        (sequence, queued): (u64, Timestamp),
        delivered: u64,
        reply: Subject,
        bytes: usize,
    ) -> Option<Seat> {
        let mut table = self.lock();
        let table = &mut *table;
        match table.held.entry(sequence) {
            Entry::Occupied(mut held) => {
                held.get_mut().reply = reply;
                if table.forgiven.len() >= FORGIVEN_MAX {
                    table.forgiven.clear();
                }
                *table.forgiven.entry(sequence).or_default() += 1;
                None
            }
            Entry::Vacant(free) => {
                free.insert(Held { reply, bytes });
                let forgiven = table.forgiven.get(&sequence).copied().unwrap_or_default();
                let attempts = delivered.saturating_sub(forgiven).max(1);
                Some(Seat { flight: Arc::clone(self), sequence, queued, attempts })
            }
        }
    }

    /// How many there are, and how many bytes.
    #[must_use]
    pub fn size(&self) -> (usize, usize) {
        let table = self.lock();
        (table.held.len(), table.held.values().map(|held| held.bytes).sum())
    }

    /// Tells the server of all of them: that they are worked on, or that others may have them.
    pub async fn tell(&self, client: &Client, kind: AckKind) {
        let replies: Vec<_> = self.lock().held.values().map(|held| held.reply.clone()).collect();
        for reply in replies {
            // Whether it heard is shown by what it does.
            let _ = client.publish(reply, kind.into()).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Its place in its stream.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Where the server wants to be answered now.
    #[must_use]
    pub fn reply(&self) -> Subject {
        self.flight
            .lock()
            .held
            .get(&self.sequence)
            .map_or_else(|| Subject::from(""), |held| held.reply.clone())
    }

    /// It will not come again.
    pub fn forget(&self) {
        self.flight.lock().forgiven.remove(&self.sequence);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.flight.lock().held.remove(&self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_is_here_already_is_not_taken_again_and_costs_no_attempt() {
        let flight = Arc::new(Flight::default());
        let seat = flight.take((7, Timestamp::UNIX_EPOCH), 1, "reply.1".into(), 10).unwrap();
        assert_eq!((seat.attempts, flight.size()), (1, (1, 10)));
        assert!(flight.take((7, Timestamp::UNIX_EPOCH), 2, "reply.2".into(), 10).is_none());
        assert_eq!(seat.reply(), Subject::from("reply.2"));
        drop(seat);
        assert_eq!(flight.size(), (0, 0));
        // It failed once; the server counts three deliveries by now.
        assert_eq!(flight.take((7, Timestamp::UNIX_EPOCH), 3, "reply.3".into(), 10).unwrap().attempts, 2);
    }

    #[test]
    fn a_message_that_is_done_is_forgotten() {
        let flight = Arc::new(Flight::default());
        let seat = flight.take((7, Timestamp::UNIX_EPOCH), 1, "reply.1".into(), 10).unwrap();
        assert!(flight.take((7, Timestamp::UNIX_EPOCH), 2, "reply.2".into(), 10).is_none());
        seat.forget();
        drop(seat);
        assert_eq!(flight.take((7, Timestamp::UNIX_EPOCH), 5, "reply.3".into(), 10).unwrap().attempts, 5);
    }
}
