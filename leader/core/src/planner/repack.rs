//! Repacking: which nodes could go, where their pods would move, and what would replace them.
//!
//! A pure function on the planner's own structures. Every node's pods are groups and counts, free room
//! is what the planner's board says, new nodes are bought from its market.
//!
//! 1. Candidates are told from nodes that must stay, and every node that stays has a reason.
//! 2. Nodes without a pod to move simply go.
//! 3. The rest is looked at in the order of price by what its eviction costs. A node goes if its pods
//!    fit on better keepers (first fit; where there is no room nobody looks again: it only shrinks).
//! 4. Nodes whose pods would cost less on new nodes are taken down in batches of m nodes for n new
//!    ones, the most savings by eviction first, priced by the dearest that could launch.
//! 5. What is left by then may still go onto others that are left.
//!
//! Which nodes are kept as targets is a sweep: each threshold of value by price gives another trade
//! of savings for evictions, and the best is kept. Each batch is feasible alone and after those before
//! it. Batches are cut to disruption budgets as waves.

mod candidate;
pub(super) mod ceiling;
pub(super) mod company;
mod delete;
mod economy;
mod input;
mod kinds;
mod mates;
mod output;
mod parts;
mod purchase;
mod put_off;
mod replace;
mod rest;
mod room;
mod shut;
mod trial;
pub(super) mod wave;
mod yard;

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;

pub use input::*;
pub use output::*;

use super::check;
use candidate::{Judged, Look};
use delete::Attempt;
use yard::Yard;

/// Shares of a node's price, in percent, that its contents must be worth for it to be kept as a
/// target. With 0 every node is.
const THRESHOLDS: [u32; 5] = [0, 40, 55, 70, 85];

/// Plans which nodes go.
pub fn repack(input: &RepackInput<'_>) -> RepackPlan {
    let mut plan = repack_only(input);
    if cfg!(debug_assertions) && input.plan.view.pods().len() <= MOST_CHECKED_PODS {
        let violations = check::check_repack(input, &plan);
        plan.report.problems.extend(violations.iter().map(|found| format!("check: {found}")));
    }
    plan
}

/// [`repack`] without the check of debug builds, for those who check or measure apart.
pub fn repack_only(input: &RepackInput<'_>) -> RepackPlan {
    let nodes = super::today::at_todays_prices(input);
    let input = &RepackInput { nodes: &nodes, ..*input };
    let judged = candidate::judge(input, Look::All);
    let mut left = judged.left.clone();
    let mut batches = empty_batches(input, &judged);
    let settings = super::PlannerSettings { packing_passes: 1, ..input.plan.settings.clone() };
    let plan_input = super::PlanInput { settings: &settings, ..input.plan };
    if judged.occupied().next().is_some() {
        let mut yard = Yard::set(input, &plan_input, &judged);
        let mut best = best_attempt(&mut yard);
        let rooms: BTreeSet<&ObjectKey> =
            input.plan.virtual_pods.iter().flat_map(|p| &p.keys).collect();
        for batch in &mut best.batches {
            batch.moves.retain(|one| !rooms.contains(&one.pod));
        }
        batches.extend(best.batches);
        left.extend(best.left);
        left.append(&mut yard.refused);
    }
    let mut plan = RepackPlan { batches, left, report: RepackReport::default() };
    company::keep(input, &mut plan);
    wave::cut(input, &mut plan);
    plan.report = report(input, &judged, &plan);
    plan
}

/// Plans for nodes without a pod to move alone; cheap enough to do at every look.
pub fn remove_empty(input: &RepackInput<'_>) -> RepackPlan {
    let nodes = super::today::at_todays_prices(input);
    let input = &RepackInput { nodes: &nodes, ..*input };
    let judged = candidate::judge(input, Look::Empty);
    let batches = empty_batches(input, &judged);
    let mut plan = RepackPlan { batches, ..RepackPlan::default() };
    wave::cut(input, &mut plan);
    plan.report = report(input, &judged, &plan);
    plan
}

/// Why one of these nodes may not be taken down now, whatever is gained; `None` if all may.
pub fn refusal(input: &RepackInput<'_>) -> Option<LeftAlone> {
    candidate::judge(input, Look::Last).left.into_iter().next()
}

/// Larger clusters are not checked by debug builds on their own: the check goes pod by pod.
const MOST_CHECKED_PODS: usize = 1_000;

/// Clusters of up to so many candidates are planned for each threshold; of larger ones, where an
/// estimate is good, only for the most promising one.
const SMALL: usize = 64;

/// So many thresholds in a row without a better estimate end the search for the best one.
const MOST_WORSE: usize = 2;

/// A node that can't go and is worth so much of its price, in percent, takes pods of others.
const STAYS_FROM: u32 = 80;

/// The attempt worth most, evictions paid for.
fn best_attempt(yard: &mut Yard<'_>) -> Attempt {
    let attempts = if yard.order.len() <= SMALL {
        // At last with all that can't go as targets: little is worth what new nodes would cost.
        let thresholds = THRESHOLDS.into_iter().map(|threshold| (threshold, STAYS_FROM));
        thresholds.chain([(0, 0)]).collect()
    } else {
        let threshold = most_promising(|threshold| {
            yard.enter(threshold);
            let done = yard.delete(threshold.max(STAYS_FROM));
            yard.estimate(&done)
        });
        vec![(threshold, STAYS_FROM)]
    };
    let mut best: Option<Attempt> = None;
    for (threshold, stays_from) in attempts {
        let attempt = yard.attempt(threshold, stays_from);
        if best.as_ref().is_none_or(|best| attempt.worth > best.worth) {
            best = Some(attempt);
        }
    }
    best.unwrap_or_default()
}

/// The threshold of the best estimate, the lowest of equals. From the highest on: with few targets few nodes
/// fit elsewhere, which is soon known, and where prices could be much better none is worth keeping.
fn most_promising(mut estimate_of: impl FnMut(u32) -> i64) -> u32 {
    let mut best: Option<(i64, u32)> = None;
    let mut worse = 0;
    for threshold in THRESHOLDS.into_iter().rev() {
        let estimate = estimate_of(threshold);
        if best.is_none_or(|(most, _)| estimate >= most) {
            best = Some((estimate, threshold));
            worse = 0;
            continue;
        }
        worse += 1;
        if worse == MOST_WORSE {
            break;
        }
    }
    best.map_or(0, |(_, threshold)| threshold)
}

fn empty_batches(input: &RepackInput<'_>, judged: &Judged<'_>) -> Vec<Batch> {
    judged
        .empty
        .iter()
        .filter_map(|name| {
            let price = input.nodes.get(name)?.price_micro;
            Some(Batch {
                reason: drover_common::crd::DisruptionReason::Empty,
                nodes: vec![name.clone()],
                price_micro: price,
                saving_micro: i64::try_from(price).unwrap_or(i64::MAX),
                ..Batch::default()
            })
        })
        .collect()
}

fn report(input: &RepackInput<'_>, judged: &Judged<'_>, plan: &RepackPlan) -> RepackReport {
    let prices = input.nodes.values().map(|node| node.price_micro);
    RepackReport {
        nodes: input.nodes.len(),
        candidates: judged.empty.len() + judged.occupied().count(),
        removed: plan.batches.iter().map(|batch| batch.nodes.len()).sum(),
        launched: plan.batches.iter().map(|batch| batch.replacements.len()).sum(),
        moves: plan.batches.iter().map(|batch| batch.moves.len()).sum(),
        price_micro: prices.fold(0, u64::saturating_add),
        saving_micro: plan.batches.iter().map(|batch| batch.saving_micro).sum(),
        problems: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dip_is_passed_and_two_worse_estimates_end_the_search() {
        // Estimates from the highest threshold on.
        let found = |estimates: [i64; 5]| {
            let mut asked = 0;
            let best = most_promising(|_| {
                asked += 1;
                estimates[asked - 1]
            });
            (best, asked)
        };
        assert_eq!(found([5, 4, 3, 9, 9]), (85, 3));
        assert_eq!(found([5, 4, 6, 2, 1]), (55, 5));
        assert_eq!(found([1, 2, 3, 4, 5]), (0, 5));
        assert_eq!(found([7, 7, 1, 1, 9]), (70, 4));
    }
}
