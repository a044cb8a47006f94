//! The message broker, NATS JetStream: names, messages, and what the operator tells those who move messages.
//!
//! ```text
//!   connect      the connection, and publishing
//!   settings     whether the server keeps what it acknowledges
//!   credentials  who may do what
//!   subject      the names of streams, subjects, consumers and keys
//!   streams      queues are made, counted, given up and removed
//!   ticks        the messages of schedules, each stored exactly once
//!   message      what flows from node to node, and what becomes of it where a node cannot handle it
//!   dead_letters what no node could handle: read, queued again, removed
//!   work         what the operator tells pumps and runners to do, and what runners answer
//!   member       the same for the agents of Instances, and seal for what is secret of it
//!   buckets      the two key-value buckets in which they do so
//!   gateways     how far the gateways have come
//!   event_log    every transition of every object
//! ```

pub mod buckets;
pub mod connect;
pub mod credentials;
pub mod dead_letters;
pub mod event_log;
pub mod gateways;
pub mod member;
pub mod message;
pub mod seal;
pub mod settings;
pub mod streams;
pub mod subject;
pub mod ticks;
pub mod work;

pub use connect::{
    Broker, BrokerArgs, Credentials, PublishError, Published, connect, connect_now, connect_with,
};
