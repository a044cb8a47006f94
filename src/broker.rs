//! The message broker, NATS JetStream: names, messages, and what the operator tells those who move messages.
//!
//! ```text
//!   connect     the connection, and publishing
//!   subject     the names of streams, subjects, consumers and keys
//!   message     what flows from node to node
//!   work        what the operator tells pumps and runners to do, and what runners answer
//! ```

pub mod connect;
pub mod message;
pub mod subject;
pub mod work;

pub use connect::{Broker, BrokerArgs, Credentials, PublishError, Published, connect, connect_with};
