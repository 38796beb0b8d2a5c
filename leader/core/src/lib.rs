//! Every decision of Drover's leader: what the group agreed on ([`state`], changed by [`command`]s
//! alone), what the cluster looks like (`view`), what should happen (`planner`), and the brain that
//! turns all of it into commands and calls (`control`). [`offline`] plans from a dump of objects alone.
//!
//! Pure by construction: no I/O, no clock, no randomness. Time is always an argument.

pub mod command;
pub mod control;
mod expected;
mod joined;
pub mod journal;
pub mod nodeclass;
pub mod offline;
pub mod planner;
mod replicas;
pub mod state;
mod staying;
pub mod view;
