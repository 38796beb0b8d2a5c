//! Scenarios: the brain in a small world, on virtual time.

mod batching;
mod buffers;
mod by_hand;
mod consolidating;
mod doubt;
mod drain_news;
mod launching;
mod leaving;
mod rebalancing;
mod rig;
mod static_pools;
mod world;
