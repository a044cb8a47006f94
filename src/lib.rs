//! Millrace runs integration flows and application cartridges from four custom resources.
//!
//! # The four kinds
//! ```text
//!   Flow        a graph of nodes and the trigger that starts it
//!   Cartridge   a type: of application, or of record
//!      ▲ subscribes
//!   Cluster     a subscription: how many members, where, behind which address
//!      ▲ belongs to
//!   Instance    one member, or one record
//! ```
//!
//! # The house
//! One room has one purpose; whoever knows the purpose can name the file. Dependencies point down.
//! ```text
//!   main, cli     the program and its commands: one role each
//!   controllers   the operator: what is declared becomes objects, queues and phases
//!   gateway       takes webhooks: a request becomes a durable message, then it is answered
//!   membership    the Service of a Cluster, and its endpoints: the Active members
//!   agent         the sidecar of a node's pod, and of an Instance's          runner   the built-in nodes of a namespace
//!   dead_letters  the command for what no node could handle
//!   pump          pull, call, publish, ack: shared by agent and runner
//!   scheduler     flows with a schedule get a message at each due time
//!   filter        conditions on messages          jq             mappings of messages, in processes of their own
//!   runtime       drives controllers; the only writer to the Kubernetes API
//!   broker        streams, subjects, messages, credentials, event log
//!   admin, metrics, telemetry, clock, shutdown     what every role shares
//!   api           the four kinds and the pure rules that belong to them: no I/O, whoever needs them may use them
//! ```
//! Beside it stand `launch/`, the first process of an application's container, and `rig/`, the real Kubernetes that tests and
//! demo run on, which is never shipped: crates of their own.

pub mod admin;
pub mod agent;
pub mod api;
pub mod broker;
pub mod cli;
pub mod clock;
pub mod controllers;
pub mod dead_letters;
pub mod filter;
pub mod gateway;
pub mod jq;
pub mod membership;
pub mod metrics;
pub mod pump;
pub mod runner;
pub mod runtime;
pub mod scheduler;
pub mod shutdown;
pub mod telemetry;
