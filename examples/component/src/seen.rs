//! What a component remembers of the messages that it got, for who wants to know.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

/// How many orders are new each time.
const NEW: u64 = 3;
/// How many messages are remembered.
const MAX: usize = 10_000;

/// Messages by their id, in the order in which they came first; the oldest are forgotten.
#[derive(Debug, Default)]
pub struct Seen {
    order: VecDeque<String>,
    messages: HashMap<String, (Value, u64)>,
    /// The number of the last order that was given.
    last_order: u64,
}

impl Seen {
    /// A message came.
    pub fn add(&mut self, id: String, body_id: Value) {
        if let Some((_, count)) = self.messages.get_mut(&id) {
            *count += 1;
            return;
        }
        if self.order.len() == MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.messages.remove(&oldest);
        }
        self.order.push_back(id.clone());
        self.messages.insert(id, (body_id, 1));
    }

    /// New orders, as a shop has them that is asked again and again: `[{"id": 1, "total": 31}, …]`.
    pub fn orders(&mut self) -> Value {
        let orders =
            (self.last_order + 1..=self.last_order + NEW).map(|id| json!({"id": id, "total": id * 31 % 200}));
        let orders = orders.collect();
        self.last_order += NEW;
        orders
    }

    /// `[{"id": the message's, "bodyId": of its body, "count": how often it came}]`
    pub fn list(&self) -> Value {
        let one = |id: &String| {
            let (body_id, count) = self.messages.get(id)?;
            Some(json!({"id": id, "bodyId": body_id, "count": count}))
        };
        self.order.iter().filter_map(one).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_order_is_given_once() {
        let mut seen = Seen::default();
        let ids = |orders: Value| {
            orders.as_array().unwrap().iter().map(|order| order["id"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(ids(seen.orders()), [1, 2, 3]);
        assert_eq!(ids(seen.orders()), [4, 5, 6]);
    }

    #[test]
    fn the_oldest_messages_are_forgotten() {
        let mut seen = Seen::default();
        for number in 0..=MAX {
            seen.add(number.to_string(), Value::Null);
        }
        seen.add("1".into(), Value::Null);
        let list = seen.list();
        assert_eq!(list.as_array().unwrap().len(), MAX);
        assert_eq!(list[0], json!({"id": "1", "bodyId": null, "count": 2}));
    }
}
