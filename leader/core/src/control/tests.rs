//! Scenarios: the brain in a small world, on virtual time.

mod agents;
mod answers;
mod batching;
mod buffers;
mod by_hand;
mod clocks;
mod consolidating;
mod doubt;
mod grace_periods;
mod interrupting;
mod joined;
mod judging;
mod launching;
mod leaders_drains;
mod leaving;
mod limits;
mod noticing;
mod out_of_service;
mod problems;
mod queue;
mod rebalancing;
mod reserving;
mod rig;
mod static_pools;
mod telling;
mod world;
