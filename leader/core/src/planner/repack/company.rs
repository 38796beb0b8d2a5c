//! Pods that must be near others: batches are carried out side by side, so that one could move a pod
//! to mates that another moves away. The first is put off, and looked at again once the other is done.

use std::collections::BTreeSet;

use drover_common::id::NodeName;

use super::mates::{Census, Passage};
use super::wave::{FOLLOWED, left};
use super::{Batch, LeftAlone, LeftKind, MoveTarget, RepackInput, RepackPlan};

/// Puts off what would part pods from those they must be near.
pub(in crate::planner) fn keep(input: &RepackInput<'_>, plan: &mut RepackPlan) {
    let Some(mut census) = Census::of(input, &plan.batches) else { return };
    let mut kept: Vec<(Batch, Passage)> = Vec::with_capacity(plan.batches.len());
    for batch in plan.batches.drain(..) {
        let passage = census.passage(&batch);
        kept.push((batch, passage));
    }
    for (batch, passage) in &kept {
        census.carry_out(batch, passage, 1);
    }
    let mut off = Vec::new();
    // Each round puts off a batch at least; what is put off moves nobody's mates away.
    loop {
        let lonely = census.lonely(&kept);
        if lonely.is_empty() {
            break;
        }
        let (parted, rest): (Vec<_>, Vec<_>) =
            kept.into_iter().enumerate().partition(|(number, _)| lonely.contains(number));
        kept = rest.into_iter().map(|(_, one)| one).collect();
        for (_, (batch, passage)) in parted {
            census.carry_out(&batch, &passage, -1);
            off.push(batch);
        }
    }
    plan.batches = kept.into_iter().map(|(batch, _)| batch).collect();
    if !off.is_empty() {
        // Their places were found with all of those done.
        let (following, rest): (Vec<Batch>, Vec<Batch>) =
            plan.batches.drain(..).partition(|batch| batch.follows);
        plan.batches = rest;
        plan.left.extend(following.iter().flat_map(|batch| left(batch, FOLLOWED)));
    }
    tell(input, plan, &off);
}

/// Tells why the nodes of these batches stay, and those that were to take their pods.
fn tell(input: &RepackInput<'_>, plan: &mut RepackPlan, off: &[Batch]) {
    let taking: BTreeSet<NodeName> = targets(&plan.batches).cloned().collect();
    let told: BTreeSet<NodeName> = plan.left.iter().map(|left| left.node.clone()).collect();
    let mut stays = |node: &NodeName, reason: &str| {
        if input.nodes.contains_key(node) && !told.contains(node) {
            let (node, reason) = (node.clone(), reason.to_owned());
            plan.left.push(LeftAlone { node, reason, kind: LeftKind::Waits });
        }
    };
    for node in off.iter().flat_map(|batch| &batch.nodes) {
        stays(node, "pods on it must be near others, which other disruptions move");
    }
    let wanted: BTreeSet<&NodeName> = targets(off).collect();
    for node in wanted.into_iter().filter(|node| !taking.contains(*node)) {
        stays(node, "it is kept for pods of disruptions that were put off");
    }
}

/// Nodes that stay and take moved pods.
fn targets(batches: &[Batch]) -> impl Iterator<Item = &NodeName> {
    batches.iter().flat_map(|batch| &batch.moves).filter_map(|one| match &one.to {
        MoveTarget::Node(node) => Some(node),
        MoveTarget::Replacement(_) => None,
    })
}
