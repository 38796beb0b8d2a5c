//! EC2NodeClass (`karpenter.k8s.aws/v1`): how instances are made.

mod kubelet;
mod rules;
mod selector;
mod spec;
mod status;

pub use kubelet::*;
pub use selector::*;
pub use spec::*;
pub use status::*;
