//! The check of a repack: each batch alone (or after those it follows), and all of them together, as plans
//! for the pods of nodes that leave; then what a disruption may not do.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{ObjectKey, Pod, PodDisruptionBudget};
use drover_common::crd::allowed_disruptions;
use drover_common::drain::has_active_do_not_disrupt;
use drover_common::id::NodeName;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use drover_common::taint::{Taint, TaintEffect};

use super::{Violation, check_places, listing, violation};
use crate::planner::today::at_todays_prices;
use crate::planner::{
    Batch, Launch, MoveTarget, Placement, PlacementTarget, Plan, PlanInput, RepackInput, RepackPlan,
};

/// Everything a repack does that the scheduler, budgets or its own promises would not allow.
pub fn check_repack(input: &RepackInput<'_>, plan: &RepackPlan) -> Vec<Violation> {
    // What a node is worth going for is what it costs now.
    let nodes = at_todays_prices(input);
    let input = &RepackInput { nodes: &nodes, ..*input };
    let mut violations = Vec::new();
    let mut seen = BTreeSet::new();
    for (number, batch) in plan.batches.iter().enumerate() {
        check_moves(input, batch, &mut violations);
        check_price(input, number, batch, &mut violations);
        check_spot(input, batch, &mut violations);
        // Alone, or once all earlier waves are done.
        let before = plan.batches.iter().filter(|one| batch.follows && one.wave < batch.wave);
        let done: Vec<&Batch> = before.chain([batch]).collect();
        let subject =
            format!("batch {number}{}", if batch.follows { ", which follows" } else { "" });
        check_plan(input, &done, &subject, &mut violations);
        for node in &batch.nodes {
            if !seen.insert(node) {
                violations.push(violation(node.as_str(), "is in two batches"));
            }
            check_node(input, node, &mut violations);
        }
    }
    check_targets(plan, &seen, &mut violations);
    check_plan(input, &plan.batches.iter().collect::<Vec<_>>(), "all batches", &mut violations);
    check_budgets(input, plan, &mut violations);
    violations
}

/// Every pod that would come back is moved once, and nothing else.
fn check_moves(input: &RepackInput<'_>, batch: &Batch, violations: &mut Vec<Violation>) {
    let mut moved: BTreeMap<&ObjectKey, &NodeName> = BTreeMap::new();
    for one in &batch.moves {
        if moved.insert(&one.pod, &one.from).is_some() {
            violations.push(violation(one.pod.to_string(), "moves twice"));
        }
    }
    for node in &batch.nodes {
        for pod in input.plan.view.pods_on(node).filter(|pod| comes_back(pod)) {
            let key = ObjectKey::from(&pod.metadata);
            if moved.remove(&key) != Some(node) {
                violations.push(violation(key.to_string(), "would lose its place"));
            }
        }
    }
    for pod in moved.keys() {
        violations.push(violation(pod.to_string(), "moves for nothing"));
    }
}

fn comes_back(pod: &Pod) -> bool {
    let owners = &pod.metadata.owner_references;
    let daemon = owners.iter().any(|o| o.kind == "DaemonSet" || o.kind == "Node");
    let ended = matches!(pod.status.phase.as_str(), "Succeeded" | "Failed");
    !daemon && !ended && !pod.is_mirror() && pod.metadata.deletion_timestamp.is_none()
}

/// Nodes go with those that they share replacements with, and not because others in the batch save more: of
/// each such set even the dearest outcome saves what the settings ask for.
fn check_price(
    input: &RepackInput<'_>,
    number: usize,
    batch: &Batch,
    violations: &mut Vec<Violation>,
) {
    if batch.saving_micro <= 0 {
        violations.push(violation(format!("batch {number}"), "saves nothing"));
    }
    let percent = u64::from(input.settings.min_saving_percent);
    let mut unseen: BTreeSet<&NodeName> = batch.nodes.iter().collect();
    while let Some(first) = unseen.pop_first() {
        let (nodes, launches) = sharing(first, batch);
        unseen.retain(|node| !nodes.contains(node));
        let prices = nodes.iter().filter_map(|node| input.nodes.get(*node));
        let price: u64 = prices.map(|node| node.price_micro).sum();
        let launches = launches.iter().filter_map(|launch| batch.replacements.get(*launch));
        let dearest = launches.map(dearest).fold(0, u64::saturating_add);
        if dearest.saturating_mul(100) > price.saturating_mul(100 - percent.min(100)) {
            let rule = format!("replaces {price} by up to {dearest} micro-dollars an hour");
            violations.push(violation(format!("batch {number}, {first}"), rule));
        }
    }
}

fn dearest(launch: &Launch) -> u64 {
    let prices = launch.offerings.iter().map(|offering| offering.price_micro);
    prices.map(|price| price.unwrap_or(u64::MAX)).max().unwrap_or(u64::MAX)
}

/// A node, those that share replacements with it or with each other, and these replacements.
fn sharing<'b>(node: &'b NodeName, batch: &'b Batch) -> (BTreeSet<&'b NodeName>, BTreeSet<usize>) {
    let mut nodes = BTreeSet::from([node]);
    let mut launches = BTreeSet::new();
    loop {
        let known = nodes.len() + launches.len();
        for one in &batch.moves {
            let MoveTarget::Replacement(launch) = one.to else { continue };
            if nodes.contains(&one.from) || launches.contains(&launch) {
                nodes.insert(&one.from);
                launches.insert(launch);
            }
        }
        if nodes.len() + launches.len() == known {
            return (nodes, launches);
        }
    }
}

/// Spot for spot with as many types as a launch for waiting pods has.
fn check_spot(input: &RepackInput<'_>, batch: &Batch, violations: &mut Vec<Violation>) {
    let mut nodes = batch.nodes.iter().filter_map(|node| input.nodes.get(node));
    if nodes.any(|node| node.capacity_type == CapacityType::Spot) {
        for (number, launch) in batch.replacements.iter().enumerate() {
            listing::check_diversity(&input.plan, number, launch, violations);
        }
    }
}

fn check_plan(
    input: &RepackInput<'_>,
    batches: &[&Batch],
    subject: &str,
    violations: &mut Vec<Violation>,
) {
    let (plan, leaving) = as_plan(input, batches);
    let input = PlanInput { leaving: &leaving, ..input.plan };
    let found = check_places(&input, &plan).into_iter();
    violations
        .extend(found.map(|found| violation(format!("{subject}, {}", found.subject), found.rule)));
}

/// The batches as one plan for pods of leaving nodes, and those nodes.
fn as_plan(input: &RepackInput<'_>, batches: &[&Batch]) -> (Plan, BTreeSet<NodeName>) {
    let mut placements: BTreeMap<&NodeName, Vec<ObjectKey>> = BTreeMap::new();
    let mut launches: Vec<Launch> = Vec::new();
    let mut leaving = input.plan.leaving.clone();
    for batch in batches {
        leaving.extend(batch.nodes.iter().cloned());
        launches.extend(batch.replacements.iter().cloned());
        for one in &batch.moves {
            if let MoveTarget::Node(node) = &one.to {
                placements.entry(node).or_default().push(one.pod.clone());
            }
        }
    }
    let placements = placements
        .into_iter()
        .map(|(node, pods)| Placement { node_or_claim: PlacementTarget::Node(node.clone()), pods });
    let plan = Plan { launches, placements: placements.collect(), ..Plan::default() };
    (plan, leaving)
}

fn check_node(input: &RepackInput<'_>, name: &NodeName, violations: &mut Vec<Violation>) {
    let Some(node) = input.plan.view.nodes().get(name) else {
        violations.push(violation(name.as_str(), "is no node"));
        return;
    };
    if !input
        .nodes
        .get(name)
        .is_some_and(|node| node.initialized_at.is_some() && node.held.is_none())
    {
        violations.push(violation(name.as_str(), "may not be disrupted"));
    }
    if node.metadata.annotations.get(labels::DO_NOT_DISRUPT).is_some_and(|value| value == "true") {
        violations.push(violation(name.as_str(), "is not to be disrupted"));
    }
    for pod in input.plan.view.pods_on(name).filter(|pod| comes_back(pod)) {
        if has_active_do_not_disrupt(pod, input.plan.now) {
            violations.push(violation(&pod.metadata.name, "is not to be disrupted"));
        }
        let going = Taint {
            key: "karpenter.sh/disrupted".to_owned(),
            value: String::new(),
            effect: TaintEffect::NoSchedule,
        };
        if pod.spec.tolerations.iter().any(|toleration| toleration.tolerates(&going)) {
            continue;
        }
        let closed = input.plan.view.budgets().values().any(|budget| {
            budget.metadata.namespace == pod.metadata.namespace
                && budget.status.disruptions_allowed <= 0
                && (pod.is_ready() || !lets_unready_go(budget))
                && super::topology::selected(budget.spec.selector.as_ref(), &pod.metadata.labels)
        });
        if closed {
            violations
                .push(violation(&pod.metadata.name, "has a PodDisruptionBudget that is used up"));
        }
    }
}

/// Whether a budget that is used up lets go of pods that are not ready.
fn lets_unready_go(budget: &PodDisruptionBudget) -> bool {
    match budget.spec.unhealthy_pod_eviction_policy.as_deref() {
        Some("AlwaysAllow") => true,
        _ => {
            let status = &budget.status;
            status.desired_healthy >= 1 && status.desired_healthy <= status.current_healthy
        }
    }
}

fn check_targets(plan: &RepackPlan, going: &BTreeSet<&NodeName>, violations: &mut Vec<Violation>) {
    for one in plan.batches.iter().flat_map(|batch| &batch.moves) {
        if let MoveTarget::Node(node) = &one.to
            && going.contains(node)
        {
            violations.push(violation(one.pod.to_string(), format!("moves to {node}, which goes")));
        }
    }
}

/// No wave takes more of a pool than its budgets allow at once.
fn check_budgets(input: &RepackInput<'_>, plan: &RepackPlan, violations: &mut Vec<Violation>) {
    let mut taken: BTreeMap<(u32, &str), u32> = BTreeMap::new();
    for batch in &plan.batches {
        for node in &batch.nodes {
            let Some(managed) = input.nodes.get(node) else { continue };
            let pool = &managed.nodepool;
            let count = taken.entry((batch.wave, pool.as_str())).or_default();
            *count += 1;
            let nodes = input.pools.get(pool).copied().unwrap_or_default();
            let object = input.plan.view.pools().get(pool);
            let allowed = object
                .map_or(0, |object| {
                    allowed_disruptions(object, batch.reason, nodes.initialized, input.plan.now)
                })
                .saturating_sub(nodes.unwell + nodes.disrupting);
            if *count > allowed {
                let rule = format!("{count} in wave {}, allowed {allowed}", batch.wave);
                violations.push(violation(pool.as_str(), rule));
            }
        }
    }
}
