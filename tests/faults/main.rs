//! Faults, each under its letter: B for the broker, K for schedules. What is asserted is what is stored, not what is said.
#![allow(clippy::disallowed_methods, reason = "the tests write to the apiserver as users do")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test that cannot go on fails")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../flows/install.rs"]
mod install;
#[path = "../flows/kubelet.rs"]
mod kubelet;
#[path = "../mill/mod.rs"]
mod mill;
#[path = "../ticks/queue.rs"]
mod queue;

mod b4;
mod b5;
mod b6;
mod k1;
mod k2;
mod k3;
