//! What the cluster's own books have of each kind.

use drover_sandbox::world::resource::Resource;

pub(super) const PODS: Resource = Resource::new("", "pods");
pub(super) const NODES: Resource = Resource::new("", "nodes");
pub(super) const NODECLAIMS: Resource = Resource::new("karpenter.sh", "nodeclaims");
pub(super) const BUDGETS: Resource = Resource::new("policy", "poddisruptionbudgets");
