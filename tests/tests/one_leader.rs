//! A leader alone against the sandbox over HTTP, with what few clusters have: capacity reservations, an
//! interruption queue.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "one_leader/queue.rs"]
mod queue;
#[path = "one_leader/reserved.rs"]
mod reserved;
#[path = "one_leader/stage.rs"]
mod stage;
