//! Pods that must be near others: batches are carried out side by side, so that one could move a pod
//! to mates that another moves away. The first is put off, and looked at again once the other is done.

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;

use super::{Batch, LeftAlone, LeftKind, RepackInput, RepackPlan};
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
    if needy.len().saturating_mul(input.plan.view.pods().len()) > MOST_PAIRS {
        put_off(plan, &needy);
        return;
    }
    // Each round puts off a batch at least; what is put off moves nobody's mates away.
    loop {
        let parted = check::parted(input, &plan.batches);
        if !put_off(plan, &parted) {
            return;
        }
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

/// Takes out the batches that move one of these pods. False if there is none.
fn put_off(plan: &mut RepackPlan, pods: &BTreeSet<ObjectKey>) -> bool {
    let batches = std::mem::take(&mut plan.batches);
    let (off, kept): (Vec<Batch>, Vec<Batch>) = batches
        .into_iter()
        .partition(|batch| batch.moves.iter().any(|one| pods.contains(&one.pod)));
    plan.batches = kept;
    let any = !off.is_empty();
    plan.left.extend(off.into_iter().flat_map(|batch| batch.nodes).map(|node| LeftAlone {
        node,
        reason: "pods on it must be near others, which other disruptions move".to_owned(),
        kind: LeftKind::Waits,
    }));
    any
}
