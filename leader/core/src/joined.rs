//! Nodes that have joined and are not initialized: what such a Node says of itself goes before what was planned.

use drover_common::cluster::Node;
use drover_common::labels;
use drover_common::taint::{Taint, TaintEffect};

use crate::planner::InFlightNode;

/// Whether pods may come to a Node once it is initialized: it is not cordoned, and not about to leave.
pub(crate) fn will_take_pods(node: &Node) -> bool {
    !node.spec.unschedulable
        && node.metadata.deletion_timestamp.is_none()
        && !node.spec.taints.iter().any(|taint| taint.key == labels::DISRUPTED_TAINT)
}

/// What is planned for a node on its way whose Node is there. Until that is registered it lacks the labels and taints
/// of its pool, and still has what comes off.
pub(crate) fn as_joined(
    planned: InFlightNode,
    node: &Node,
    is_registered: bool,
    startup_taints: &[Taint],
) -> InFlightNode {
    let mut joined = planned;
    // A device plugin that has not told of its devices yet says zero, or nothing.
    for (name, amount) in node.status.allocatable.iter().filter(|(_, amount)| *amount > 0) {
        joined.allocatable.set(name.clone(), amount);
    }
    if is_registered {
        joined.labels.extend(node.metadata.labels.clone());
        joined.taints =
            node.spec.taints.iter().filter(|t| stays(t, startup_taints)).cloned().collect();
    }
    joined
}

/// Whether the label says that the Node has all that its claim gives it.
pub(crate) fn is_labelled_registered(node: &Node) -> bool {
    node.metadata.labels.get(labels::REGISTERED).is_some_and(|value| value == "true")
}

/// Whether a taint will be there when the node is initialized, and keeps pods away then.
fn stays(taint: &Taint, startup_taints: &[Taint]) -> bool {
    !is_passing(taint) && !is_startup(taint, startup_taints) && taint.key != labels::CANDIDATE_TAINT
}

/// Whether a taint is one of those that a claim's node begins with and loses.
pub(crate) fn is_startup(taint: &Taint, startup_taints: &[Taint]) -> bool {
    startup_taints.iter().any(|own| own.key == taint.key && own.effect == taint.effect)
}

/// Taints that Kubernetes sets while a node starts.
pub(crate) fn is_passing(taint: &Taint) -> bool {
    match taint.key.as_str() {
        "node.kubernetes.io/not-ready" => true,
        "node.kubernetes.io/unreachable" => taint.effect == TaintEffect::NoSchedule,
        "node.cloudprovider.kubernetes.io/uninitialized" => true,
        key => key == labels::UNREGISTERED_TAINT || key.starts_with("readiness.k8s.io/"),
    }
}
