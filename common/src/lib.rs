//! The words that every part of Drover uses: resources, requirements, ids, Karpenter's CRDs,
//! slim cluster objects, the agent protocol, and the calls a shell can make for a decision.
//!
//! Pure by construction: no I/O, no clock, no randomness. Time is always an argument.

pub mod call;
pub mod catalog;
pub mod cluster;
pub mod crd;
pub mod drain;
pub mod drain_counts;
pub mod ec2;
pub mod id;
pub mod instance_type;
pub mod labels;
pub mod metrics;
pub mod news;
pub mod protocol;
pub mod requirement;
pub mod resources;
pub mod taint;
pub mod times;
pub mod usage_news;
