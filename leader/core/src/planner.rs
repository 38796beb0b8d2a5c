//! The planner: which pods fit what is there, and which nodes to launch for the rest.
//!
//! A pure function of its input. Pods are grouped by what scheduling can tell apart, node types and
//! their offerings are bit sets, amounts are dense integer vectors. Groups whose place depends on no
//! other pod are packed in bulk by price; the rest goes pod by pod. Preferences are rules that are
//! dropped one by one where they can't be met.

mod admission;
mod attach;
mod avoided;
mod bin;
mod board;
mod bulk;
mod candidate;
pub mod check;
mod choose;
mod claim;
mod daemon;
mod dimension;
mod exact;
mod existing;
mod fill;
mod finish;
mod first_fit;
mod group;
mod hosts;
mod in_flight;
mod input;
mod market;
mod matching;
mod meant;
mod merge;
mod narrow;
mod open_label;
mod output;
mod overlay;
mod pack;
mod profile;
mod reason;
mod repack;
mod reserved;
mod rounds;
mod rules;
mod running;
mod selectors;
mod share;
mod sole;
mod split;
mod static_pool;
mod steps;
#[cfg(test)]
mod tests;
mod today;
mod topology;
mod volume;
mod zones;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use board::Board;
use drover_common::cluster::ObjectKey;
use drover_common::id::NodePoolName;
use rounds::{Opened, Order, bands, place_bands, round};
use share::Leaning;

pub use claim::launch_of_claim;
pub(crate) use group::is_provisionable;
pub use input::*;
pub(crate) use matching::selects;
pub use output::*;
pub(crate) use overlay::Overlays;
pub use repack::*;
pub use static_pool::{MOST_STATIC_NODES, OverlayFault, overlay_faults, plan_static};
pub use today::NodePrices;

/// Plans for the pods that wait. Debug builds check the plan and report what they find.
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut plan = draft(input);
    // Told rather than asserted: a leader that runs must not fall over a plan it can still report.
    if cfg!(debug_assertions) && plan.report.pods <= MOST_CHECKED_PODS {
        let violations = check::check(input, &plan);
        plan.report.problems.extend(violations.iter().map(|found| format!("check: {found}")));
    }
    plan
}

/// [`plan`] without the check of debug builds, for those who check or measure apart.
pub fn draft(input: &PlanInput<'_>) -> Plan {
    let mut way = Way::default();
    let (mut plan, opened) = plan_in(input, way);
    if puts_low_before_high(input, &plan) {
        let ordered = Way { order: Order::ByPriority, ..way };
        let (other, _) = plan_in(input, ordered);
        // Who has no place in any order costs the others nothing.
        if leaves_less(&left_by_priority(input, &other), &left_by_priority(input, &plan)) {
            return other;
        }
    }
    if plan.report.pods > MOST_PLANNED_TWICE {
        return plan;
    }
    if opened.one_by_one && opened.in_bulk {
        let bulk_first = Way { order: Order::BulkFirst, ..way };
        if let Some(better) = better_in(input, bulk_first, &plan) {
            (plan, way) = (better, bulk_first);
        }
    }
    if opened.shared && opened.in_bulk {
        let together = Way { leaning: Leaning::Together, ..way };
        plan = better_in(input, together, &plan).unwrap_or(plan);
    }
    plan
}

/// How a plan is made, where there is a choice.
#[derive(Clone, Copy, Default)]
struct Way {
    order: Order,
    leaning: Leaning,
}

/// The plan made in another way, if it leaves fewer pods or costs less.
fn better_in(input: &PlanInput<'_>, way: Way, plan: &Plan) -> Option<Plan> {
    let (other, _) = plan_in(input, way);
    let (left, also) = (left_by_priority(input, plan), left_by_priority(input, &other));
    let is_cheaper = other.report.hourly_price_micro < plan.report.hourly_price_micro;
    (leaves_less(&also, &left) || (is_cheaper && !leaves_less(&left, &also))).then_some(other)
}

/// Plans of up to so many pods are made in several ways where it may matter. Of more, the nodes that the two ways could
/// share are few among all.
const MOST_PLANNED_TWICE: usize = 1_000;

fn plan_in(input: &PlanInput<'_>, way: Way) -> (Plan, Opened) {
    let mut most = NodesOfPools::new();
    let (mut plan, mut opened, mut short) = plan_of_pools(input, way, &most);
    for _ in 0..MOST_CUTS {
        if short.is_empty() {
            break;
        }
        most.extend(std::mem::take(&mut short));
        (plan, opened, short) = plan_of_pools(input, way, &most);
    }
    (plan, opened)
}

/// How often a plan is made anew with fewer nodes of pools: halved each time, 65,000 come to one.
const MOST_CUTS: usize = 16;

/// How many nodes of a pool are planned at most.
type NodesOfPools = BTreeMap<NodePoolName, usize>;

/// Plans with so many nodes of some pools at most. Returns for which pools, and to how many nodes, that is to be
/// lowered: their limits leave too little for the types that their `minValues` ask for.
fn plan_of_pools(
    input: &PlanInput<'_>,
    way: Way,
    most: &NodesOfPools,
) -> (Plan, Opened, NodesOfPools) {
    let mut board = Board::set(input);
    board.leaning = way.leaning;
    board.keep_below(most);
    let waiting = board.keep_meant(input.view);
    board.hold(waiting);
    let bands = bands(&board, way.order);
    let mut first_fit_price = place_bands(&mut board, input.view, &bands);
    if !board.held.is_empty() {
        let waiting = board.let_go(input.view);
        board.hold(waiting);
        // Who waited for those seated has its turn now.
        let more = place_bands(&mut board, input.view, &bands);
        first_fit_price = first_fit_price.saturating_add(more);
    }
    if !board.held.is_empty() {
        board.narrow_universes();
        if !board.let_go(input.view).is_empty() {
            // Things are not as they were when their places were made: they look for others.
            board.find_universes(input.view);
            let more = place_bands(&mut board, input.view, &bands);
            first_fit_price = first_fit_price.saturating_add(more);
        }
    }
    // Of fewer nodes there are fewer domains, which may let those in who are left.
    board.merge_bins();
    board.place_over_domains_in_use(input.view);
    let opened = board.opened;
    let (plan, short) = finish(board, first_fit_price);
    (plan, opened, short)
}

/// Of pools with limits and `minValues`, where some nodes can't be launched: how many to plan next. What fewer nodes
/// leave under the limits may do for the rest.
fn nodes_to_plan(board: &Board<'_>, launches: &[Launch]) -> NodesOfPools {
    let pools = board.market.pools.iter().enumerate();
    let choosy = pools.filter(|(_, pool)| pool.is_limited() && pool.wants_values());
    let counts = choosy.map(|(number, pool)| {
        let planned = board.bins.iter().filter(|bin| bin.pool == number).count();
        let launched = launches.iter().filter(|launch| launch.nodepool == pool.name).count();
        (pool.name.clone(), planned, launched)
    });
    let short = counts.filter(|(_, planned, launched)| launched < planned);
    short.map(|(name, planned, launched)| (name, launched.max(planned / 2))).collect()
}

/// Whether a pod is left though a pod of lower priority got what is limited: a new node, where
/// limits or a shortage keep others from being made.
fn puts_low_before_high(input: &PlanInput<'_>, plan: &Plan) -> bool {
    let priority = |key: &ObjectKey| priority_of(input, key);
    let Some(left) = plan.unschedulable.iter().map(|entry| priority(&entry.pod)).max() else {
        return false;
    };
    let launched = plan.launches.iter().flat_map(|launch| &launch.pods);
    let placed = plan.placements.iter().flat_map(|placement| &placement.pods);
    launched.chain(placed).any(|pod| priority(pod) < left)
}

/// Pods of a buffer give way to all others.
fn priority_of(input: &PlanInput<'_>, pod: &ObjectKey) -> i32 {
    input.view.pod(pod).map_or(i32::MIN, |pod| pod.spec.priority.unwrap_or(0))
}

/// How many pods of each priority are left, the highest first.
fn left_by_priority(input: &PlanInput<'_>, plan: &Plan) -> BTreeMap<Reverse<i32>, usize> {
    let mut left = BTreeMap::new();
    for entry in &plan.unschedulable {
        *left.entry(Reverse(priority_of(input, &entry.pod))).or_default() += 1;
    }
    left
}

/// Whether fewer pods are left at the highest priority at which it is not as many.
fn leaves_less(
    these: &BTreeMap<Reverse<i32>, usize>,
    those: &BTreeMap<Reverse<i32>, usize>,
) -> bool {
    let count = |left: &BTreeMap<_, _>, priority| left.get(priority).copied().unwrap_or(0);
    let priorities: BTreeSet<&Reverse<i32>> = these.keys().chain(those.keys()).collect();
    let counts = priorities.into_iter().map(|one| (count(these, one), count(those, one)));
    counts.into_iter().find(|(here, there)| here != there).is_some_and(|(here, there)| here < there)
}

/// Plans of more pods are not checked by debug builds on their own: the check goes pod by pod.
const MOST_CHECKED_PODS: usize = 2_000;

fn finish(mut board: Board<'_>, first_fit_price: u64) -> (Plan, NodesOfPools) {
    let launches = board.launches();
    let short = nodes_to_plan(&board, &launches);
    let mut unschedulable: Vec<Unschedulable> = Vec::new();
    let mut put_off = 0;
    for group in 0..board.groups.len() {
        if board.groups.get(group).is_none_or(|group| group.left() == 0) {
            continue;
        }
        let reasons = match board.reason_to_wait(group) {
            Some(reason) => vec![(NodePoolName::default(), reason)],
            None => board.reasons(group),
        };
        put_off += if board.steps.unreached.contains(&group) { board.left_of(group) } else { 0 };
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
        put_off,
        hourly_price_micro: launches.iter().map(|launch| launch.hourly_price_micro).sum(),
        first_fit_price_micro: first_fit_price,
        problems: board.market.problems.clone(),
    };
    (Plan { launches, placements, unschedulable, report }, short)
}
