//! Batches that are not done now: their nodes stay, and so do those that were to take their pods.

use std::collections::BTreeSet;

use drover_common::id::NodeName;

use super::{Batch, LeftAlone, LeftKind, MoveTarget, RepackInput, RepackPlan};

/// Why a batch waits that follows one which is put off.
pub(super) const FOLLOWED: &str = "its pods' new places depend on disruptions that are put off";

/// Tells why the nodes of these batches, which are not in the plan any more, stay.
pub(super) fn tell(input: &RepackInput<'_>, plan: &mut RepackPlan, off: &[(Batch, String)]) {
    let taking: BTreeSet<&NodeName> = plan.batches.iter().flat_map(targets).collect();
    let mut told: BTreeSet<NodeName> = plan.left.iter().map(|left| left.node.clone()).collect();
    let mut stays = |node: &NodeName, reason: &str| {
        if input.nodes.contains_key(node) && told.insert(node.clone()) {
            let (node, reason) = (node.clone(), reason.to_owned());
            plan.left.push(LeftAlone { node, reason, kind: LeftKind::Waits });
        }
    };
    for (batch, reason) in off {
        batch.nodes.iter().for_each(|node| stays(node, reason));
    }
    let wanted: BTreeSet<&NodeName> = off.iter().flat_map(|(batch, _)| targets(batch)).collect();
    for node in wanted.into_iter().filter(|node| !taking.contains(*node)) {
        stays(node, "it is kept for pods of disruptions that were put off");
    }
}

/// Nodes that stay and take a batch's pods.
fn targets(batch: &Batch) -> impl Iterator<Item = &NodeName> {
    batch.moves.iter().filter_map(|one| match &one.to {
        MoveTarget::Node(node) => Some(node),
        MoveTarget::Replacement(_) => None,
    })
}
