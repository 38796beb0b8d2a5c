//! Karpenter's custom resources: `karpenter.sh/v1` NodePool and NodeClaim, `karpenter.k8s.aws/v1`
//! EC2NodeClass.
//!
//! Field names, defaults, patterns and rules are those of Karpenter's v1 API (core and AWS provider
//! 1.14), so that manifests written for it are taken as they are. Durations and quantities stay in
//! the user's own spelling: what is read is written back unchanged.

mod condition;
mod duration;
mod node_claim;
mod node_class;
mod node_pool;
mod quantity;
mod schema;

pub use condition::*;
pub use duration::*;
pub use node_claim::*;
pub use node_class::*;
pub use node_pool::*;
pub use quantity::*;
