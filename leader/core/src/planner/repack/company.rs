//! Pods that must be near others: batches are carried out side by side, so that one could move a pod
//! to mates that another moves away. The first is put off, and looked at again once the other is done.

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;
use drover_common::id::NodeName;

use super::{Batch, LeftAlone, LeftKind, MoveTarget, RepackInput, RepackPlan};
use crate::planner::check;

/// The most pairs of a pod that needs company and a pod that could be it that are looked at one by
/// one; of larger clusters every batch that moves such pods is put off.
const MOST_PAIRS: usize = 2_000_000;

/// Puts off what would part pods from those they must be near.
pub(super) fn keep(input: &RepackInput<'_>, plan: &mut RepackPlan) {
    let needy = needy(input, &plan.batches);
    if needy.is_empty() {
        return;
    }
    let mut off = Vec::new();
    if needy.len().saturating_mul(input.plan.view.pods().len()) > MOST_PAIRS {
        off = put_off(plan, &needy);
    } else {
        // Each round puts off a batch at least; what is put off moves nobody's mates away.
        loop {
            let more = put_off(plan, &check::parted(input, &plan.batches));
            if more.is_empty() {
                break;
            }
            off.extend(more);
        }
    }
    tell(input, plan, &off);
}

/// Tells why the nodes of these batches stay, and those that were to take their pods.
fn tell(input: &RepackInput<'_>, plan: &mut RepackPlan, off: &[Batch]) {
    let taking: BTreeSet<NodeName> = targets(&plan.batches).cloned().collect();
    let told: BTreeSet<NodeName> = plan.left.iter().map(|left| left.node.clone()).collect();
    let mut left = |node: &NodeName, reason: &str| {
        if input.nodes.contains_key(node) && !told.contains(node) {
            let (node, reason) = (node.clone(), reason.to_owned());
            plan.left.push(LeftAlone { node, reason, kind: LeftKind::Waits });
        }
    };
    for node in off.iter().flat_map(|batch| &batch.nodes) {
        left(node, "pods on it must be near others, which other disruptions move");
    }
    let wanted: BTreeSet<&NodeName> = targets(off).collect();
    for node in wanted.into_iter().filter(|node| !taking.contains(*node)) {
        left(node, "it is kept for pods of disruptions that were put off");
    }
}

/// Moved pods with required pod affinity.
fn needy(input: &RepackInput<'_>, batches: &[Batch]) -> BTreeSet<ObjectKey> {
    let moves = batches.iter().flat_map(|batch| &batch.moves);
    let needs_company = |pod: &ObjectKey| {
        input.plan.view.pod(pod).is_some_and(|pod| {
            let affinity = pod.spec.affinity.pod_affinity.as_ref();
            affinity.is_some_and(|affinity| !affinity.required.is_empty())
        })
    };
    moves.map(|one| &one.pod).filter(|pod| needs_company(pod)).cloned().collect()
}

/// Nodes that stay and take moved pods.
fn targets(batches: &[Batch]) -> impl Iterator<Item = &NodeName> {
    batches.iter().flat_map(|batch| &batch.moves).filter_map(|one| match &one.to {
        MoveTarget::Node(node) => Some(node),
        MoveTarget::Replacement(_) => None,
    })
}

/// Takes out the batches that move one of these pods.
fn put_off(plan: &mut RepackPlan, pods: &BTreeSet<ObjectKey>) -> Vec<Batch> {
    let batches = std::mem::take(&mut plan.batches);
    let (off, kept) = batches
        .into_iter()
        .partition(|batch| batch.moves.iter().any(|one| pods.contains(&one.pod)));
    plan.batches = kept;
    off
}
