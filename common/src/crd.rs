//! Karpenter's custom resources: `karpenter.sh/v1` NodePool and NodeClaim, `karpenter.k8s.aws/v1`
//! EC2NodeClass, `karpenter.sh/v1alpha1` NodeOverlay; and the CapacityBuffer that it shares with
//! others.
//!
//! Field names, defaults, patterns and rules are those of Karpenter's v1 API (core and AWS provider
//! 1.14), so that manifests written for it are taken as they are. Durations and quantities stay in
//! the user's own spelling: what is read is written back unchanged.

#![allow(
    clippy::duplicated_attributes,
    reason = "printer columns are attributes whose parts may be alike"
)]

mod budget;
mod capacity_buffer;
mod condition;
mod cron;
mod duration;
mod node_claim;
mod node_class;
mod node_overlay;
mod node_pool;
mod quantity;
mod schema;
mod validate;

pub use budget::*;
pub use capacity_buffer::*;
pub use condition::*;
pub use cron::*;
pub use duration::*;
pub use node_claim::*;
pub use node_class::*;
pub use node_overlay::*;
pub use node_pool::*;
pub use quantity::*;
pub use validate::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::Value;

/// The definitions of all kinds as JSON, ready to be applied: NodePool, NodeClaim, EC2NodeClass,
/// NodeOverlay, CapacityBuffer.
pub fn values() -> Vec<Value> {
    let definitions = [
        NodePool::crd(),
        NodeClaim::crd(),
        Ec2NodeClass::crd(),
        NodeOverlay::crd(),
        CapacityBuffer::crd(),
    ];
    definitions
        .iter()
        .map(|definition| {
            let mut value =
                serde_json::to_value(definition).expect("a definition has string keys alone");
            schema::tidy(&mut value);
            value
        })
        .collect()
}

/// The definitions of all kinds, in the order of [`values`].
pub fn all() -> Vec<CustomResourceDefinition> {
    values()
        .into_iter()
        .map(|value| {
            serde_json::from_value(value).expect("tidying leaves a definition a definition")
        })
        .collect()
}

#[cfg(test)]
mod tests;
