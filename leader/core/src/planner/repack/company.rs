//! Pods that must be near others: batches are carried out side by side, so that one could move a pod
//! to mates that another moves away. The first is put off, and looked at again once the other is done.

use super::mates::{Census, Passage};
use super::put_off::{self, FOLLOWED};
use super::{Batch, RepackInput, RepackPlan};

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
    let mut off: Vec<(Batch, String)> = Vec::new();
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
            off.push((batch, PARTED.to_owned()));
        }
    }
    // The places of those that follow were found with all of these done.
    let (following, rest): (Vec<Batch>, Vec<Batch>) = kept
        .into_iter()
        .map(|(batch, _)| batch)
        .partition(|batch| batch.follows && !off.is_empty());
    plan.batches = rest;
    off.extend(following.into_iter().map(|batch| (batch, FOLLOWED.to_owned())));
    put_off::tell(input, plan, &off);
}

const PARTED: &str = "pods on it must be near others, which other disruptions move";
