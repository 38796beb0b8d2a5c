//! The planner: which pods fit what is there, and which nodes to launch for the rest.
//!
//! A pure function of its input. Pods are grouped by what scheduling can tell apart, node types and
//! their offerings are bit sets, amounts are dense integer vectors. Groups whose place depends on no
//! other pod are packed in bulk by price; the rest goes pod by pod. Preferences are rules that are
//! dropped one by one where they can't be met.

mod bin;
mod board;
mod bulk;
pub mod check;
mod daemon;
mod dimension;
mod exact;
mod existing;
mod finish;
mod first_fit;
mod group;
mod input;
mod market;
mod matching;
mod open_label;
mod output;
mod pack;
mod reason;
mod repack;
mod rules;
mod split;
#[cfg(test)]
mod tests;
mod topology;
mod volume;

use board::Board;
use drover_common::id::NodePoolName;

use crate::view::View;

pub use input::*;
pub use output::*;
pub use repack::*;

/// Plans for the pods that wait.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut board = Board::set(input);
    board.keep_meant();
    let mut first_fit_price = 0_u64;
    loop {
        first_fit_price = first_fit_price.saturating_add(round(&mut board));
        if !relax(&mut board, input.view) {
            break;
        }
    }
    let mut plan = finish(board, first_fit_price);
    // Told rather than asserted: a leader that runs must not fall over a plan it can still report.
    if cfg!(debug_assertions) && plan.report.pods <= MOST_CHECKED_PODS {
        let violations = check::check(input, &plan);
        plan.report.problems.extend(violations.iter().map(|found| format!("check: {found}")));
    }
    plan
}

/// Plans of more pods are not checked by debug builds on their own: the check goes pod by pod.
const MOST_CHECKED_PODS: usize = 2_000;

/// Places what can be placed at the present steps of relaxation.
fn round(board: &mut Board<'_>) -> u64 {
    let waiting: Vec<usize> = (0..board.groups.len())
        .filter(|group| board.groups.get(*group).is_some_and(|group| group.left() > 0))
        .collect();
    let (bulk, entangled): (Vec<usize>, Vec<usize>) =
        waiting.into_iter().partition(|group| board.is_splittable(*group));
    board.place_all_exactly(&entangled);
    for group in &bulk {
        if board.groups.get(*group).is_some_and(group::Group::is_plain) {
            board.place_plainly(*group);
            board.fill_bins(*group);
        } else {
            board.place_on_nodes(*group);
        }
    }
    let first_fit_price = board.buy_in_bulk(&bulk);
    board.place_all_exactly(&bulk);
    first_fit_price
}

/// Drops one more preference of every group with pods left. False if there is none to drop.
fn relax(board: &mut Board<'_>, view: &View) -> bool {
    let mut relaxed = false;
    for group in 0..board.groups.len() {
        let Some(entry) = board.groups.get(group) else { continue };
        let next = entry.step + 1;
        if entry.left() > 0 && next < entry.variants.len() {
            board.enter_step(view, group, next);
            relaxed = true;
        }
    }
    relaxed
}

fn finish(mut board: Board<'_>, first_fit_price: u64) -> Plan {
    let launches = board.launches();
    let mut unschedulable: Vec<Unschedulable> = Vec::new();
    for group in 0..board.groups.len() {
        if board.groups.get(group).is_none_or(|group| group.left() == 0) {
            continue;
        }
        let reasons = board.reasons(group);
        let rest = board.groups.get_mut(group).map(|group| group.take(u32::MAX));
        unschedulable.extend(
            rest.unwrap_or_default()
                .into_iter()
                .map(|pod| Unschedulable { pod, reasons: reasons.clone() }),
        );
    }
    unschedulable.extend(board.refused.iter().map(|(pod, reason)| Unschedulable {
        pod: pod.clone(),
        reasons: vec![(NodePoolName::default(), reason.clone())],
    }));
    unschedulable.sort_by(|a, b| a.pod.cmp(&b.pod));
    let placements: Vec<Placement> = board
        .existing
        .iter()
        .filter(|node| !node.pods.is_empty())
        .map(|node| {
            let mut pods = node.pods.clone();
            pods.sort();
            Placement { node_or_claim: node.target.clone(), pods }
        })
        .collect();
    let on_existing = placements.iter().map(|placement| placement.pods.len()).sum();
    let on_new = launches.iter().map(|launch| launch.pods.len()).sum();
    let report = PlanReport {
        pods: on_existing + on_new + unschedulable.len(),
        shapes: board.shapes,
        offerings: board.market.available.count_ones(..),
        on_existing,
        on_new,
        hourly_price_micro: launches.iter().map(|launch| launch.hourly_price_micro).sum(),
        first_fit_price_micro: first_fit_price,
        problems: board.market.problems.clone(),
    };
    Plan { launches, placements, unschedulable, report }
}
