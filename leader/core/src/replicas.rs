//! How many nodes a static pool (`spec.replicas`) keeps, and which go where it has too many.

use std::cmp::Reverse;

use drover_common::crd::{NodePool, parse_resources};
use drover_common::id::NodeName;
use drover_common::resources::ResourceName;
use jiff::Timestamp;

use crate::view::View;

/// `spec.replicas`, within the limit of nodes.
pub(crate) fn wanted_nodes(pool: &NodePool) -> usize {
    let replicas = usize::try_from(pool.spec.replicas.unwrap_or(0)).unwrap_or(0);
    let name = ResourceName::from("nodes");
    let limit = parse_resources(&pool.spec.limits)
        .ok()
        .filter(|limits| limits.contains(&name))
        .map(|limits| usize::try_from(limits.get(&name)).unwrap_or(0));
    limit.map_or(replicas, |limit| replicas.min(limit))
}

/// A node that a static pool may let go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct MayGo<N> {
    pub pods: usize,
    pub created_at: Reverse<Timestamp>,
    pub name: N,
}

/// Those go first that hold no pod, then those with the fewest, the youngest first.
pub(crate) fn first_to_go<N: Ord>(mut nodes: Vec<MayGo<N>>, excess: usize) -> Vec<N> {
    nodes.sort();
    nodes.into_iter().take(excess).map(|node| node.name).collect()
}

/// Pods that a node's end would move.
pub(crate) fn pods_to_move(view: &View, node: &NodeName) -> usize {
    view.pods_on(node).filter(|pod| !pod.is_node_bound()).count()
}
