//! Which nodes may be taken down, and what forbids it for the others.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Node, ObjectKey, Pod, PodDisruptionBudget};
use drover_common::crd::{ConsolidationPolicy, DisruptionReason, NodePool, allowed_disruptions};
use drover_common::drain::{has_active_do_not_disrupt, stays};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::{SignedDuration, Timestamp};

use super::{LeftAlone, LeftKind, ManagedNode, RepackInput};
use crate::planner::PlacementTarget;
use crate::planner::matching::selects;
use crate::view::ShapeId;

/// What a controller would lose by the pod's deletion, as users see it.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Who takes longer to end is taken to stay.
const MOST_ENDING: SignedDuration = SignedDuration::from_mins(2);

/// Every managed node, sorted out.
#[derive(Clone, Debug, Default)]
pub(super) struct Judged<'a> {
    /// Nodes without a pod that would have to move.
    pub empty: Vec<NodeName>,
    /// Nodes whose pods may be moved, with those pods.
    pub movable: BTreeMap<NodeName, Contents<'a>>,
    /// Nodes that must stay.
    pub left: Vec<LeftAlone>,
    /// How many nodes of a pool may go at once, for `Underutilized`.
    pub allowed: BTreeMap<NodePoolName, u32>,
}

/// The pods of a candidate.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents<'a> {
    pub pods: Vec<(&'a ObjectKey, ShapeId)>,
    pub eviction_cost: i64,
}

impl<'a> Judged<'a> {
    pub(super) fn occupied(&self) -> impl Iterator<Item = (&NodeName, &Contents<'a>)> {
        self.movable.iter()
    }
}

/// Why a node must stay.
type Refusal = (LeftKind, String);

fn blocked(reason: impl Into<String>) -> Refusal {
    (LeftKind::Blocked, reason.into())
}

fn waits(reason: impl Into<String>) -> Refusal {
    (LeftKind::Waits, reason.into())
}

/// What nodes are looked at for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Which of them could go.
    All,
    /// Those without pods: nobody looks beyond a node's first pod that would have to move.
    Empty,
    /// Whether they may still go, as was decided before. Pods come and go all the time.
    Last,
}

/// Sorts the managed nodes out.
pub(super) fn judge<'a>(input: &RepackInput<'a>, look: Look) -> Judged<'a> {
    let mut judged = Judged::default();
    let budgets = PodBudgets::new(input);
    let seated: BTreeSet<&NodeName> = input
        .plan
        .seats
        .iter()
        .filter_map(|seat| match &seat.node_or_claim {
            PlacementTarget::Node(name) => Some(name),
            PlacementTarget::Claim(_) => None,
        })
        .collect();
    let mut pools: BTreeMap<&NodePoolName, PoolRule> = BTreeMap::new();
    for (name, managed) in input.nodes {
        let rule = pools
            .entry(&managed.nodepool)
            .or_insert_with(|| PoolRule::of(input, &managed.nodepool));
        if seated.contains(name) {
            let reason = "pods that wait are to come to it".to_owned();
            judged.left.push(LeftAlone { node: name.clone(), reason, kind: LeftKind::Waits });
            continue;
        }
        match judge_node(input, &budgets, rule, look, name, managed) {
            Ok(contents) if contents.pods.is_empty() => judged.empty.push(name.clone()),
            Ok(contents) => drop(judged.movable.insert(name.clone(), contents)),
            Err((kind, reason)) => {
                judged.left.push(LeftAlone { node: name.clone(), reason, kind });
            }
        }
    }
    judged.allowed = pools.into_iter().map(|(name, rule)| (name.clone(), rule.allowed)).collect();
    judged
}

/// What a pool says of its nodes.
struct PoolRule {
    refusal: Option<Refusal>,
    only_empty: Option<Refusal>,
    allowed: u32,
}

impl PoolRule {
    fn of(input: &RepackInput<'_>, name: &NodePoolName) -> Self {
        let stays =
            |reason: String| Self { refusal: Some(blocked(reason)), only_empty: None, allowed: 0 };
        let Some(pool) = input.plan.view.pools().get(name) else {
            return stays(format!("NodePool {name} does not exist"));
        };
        if pool.spec.replicas.is_some() {
            return stays(format!("NodePool {name} keeps a fixed number of nodes"));
        }
        let nodes = input.pools.get(name).copied().unwrap_or_default();
        if nodes.is_doubtful() {
            return stays(format!(
                "{} of {} nodes of NodePool {name} are not Ready; nothing is disrupted meanwhile",
                nodes.unwell, nodes.initialized
            ));
        }
        if pool.spec.disruption.consolidates_after().is_none() {
            return stays(format!("NodePool {name} has consolidateAfter: Never"));
        }
        let allowed = allowed_now(input, name, pool, DisruptionReason::Underutilized);
        Self { refusal: None, only_empty: only_empty(input, name, pool), allowed }
    }
}

/// How many nodes of a pool may be disrupted now for a reason.
pub(super) fn allowed_now(
    input: &RepackInput<'_>,
    name: &NodePoolName,
    pool: &NodePool,
    reason: DisruptionReason,
) -> u32 {
    let nodes = input.pools.get(name).copied().unwrap_or_default();
    allowed_disruptions(pool, reason, nodes.initialized, input.plan.now)
        .saturating_sub(nodes.unwell)
        .saturating_sub(nodes.disrupting)
}

fn only_empty(input: &RepackInput<'_>, name: &NodePoolName, pool: &NodePool) -> Option<Refusal> {
    if pool.spec.disruption.consolidation_policy == ConsolidationPolicy::WhenEmpty {
        return Some(blocked(format!("NodePool {name} has consolidationPolicy: WhenEmpty")));
    }
    let reason = DisruptionReason::Underutilized;
    (allowed_now(input, name, pool, reason) == 0).then(|| waits(budgets_used_up(name, reason)))
}

/// That a pool's budgets let nothing more go.
pub(super) fn budgets_used_up(pool: &NodePoolName, reason: DisruptionReason) -> String {
    format!("the budgets of NodePool {pool} allow no more disruption for {reason:?} now")
}

fn judge_node<'a>(
    input: &RepackInput<'a>,
    budgets: &PodBudgets<'_>,
    rule: &PoolRule,
    look: Look,
    name: &NodeName,
    managed: &ManagedNode,
) -> Result<Contents<'a>, Refusal> {
    if let Some(reason) = &managed.held {
        return Err(waits(reason.clone()));
    }
    // What is on its way out is held by nothing.
    if input.plan.leaving.contains(name) {
        return Err(waits("it is leaving already"));
    }
    if let Some(refusal) = &rule.refusal {
        return Err(refusal.clone());
    }
    let Some(node) = input.plan.view.nodes().get(name) else {
        return Err(waits("its Node is not there"));
    };
    check_node(input, node, managed)?;
    let mut contents = Contents::default();
    let mut ending = None;
    let pods = input.plan.view.node_pods(name);
    for (key, entry) in pods.into_iter().flat_map(|pods| pods.all.iter()) {
        let pod = &entry.pod;
        if pod.is_terminal() {
            continue;
        }
        if has_active_do_not_disrupt(pod, input.plan.now) {
            return Err(blocked(format!("Pod {key} has {}", labels::DO_NOT_DISRUPT)));
        }
        if pod.is_node_bound() || pod.is_mirror() || is_stuck(pod, input.plan.now) {
            continue;
        }
        if pod.is_terminating() {
            // What it leaves free is known soon, and what is planned without would be too much.
            if look == Look::All && ends_soon(pod, input.plan.now) {
                return Err(waits(format!("Pod {key} is still leaving it")));
            }
            ending = Some(key);
            continue;
        }
        if look == Look::Empty {
            return Err(waits("pods would have to move"));
        }
        if managed.capacity_type == CapacityType::Reserved {
            let reason = "it is in a capacity reservation, which costs the same without it";
            return Err((LeftKind::NoGain, reason.to_owned()));
        }
        let comes_back = pod.metadata.controller().is_some() || input.settings.moves_bare_pods;
        if !comes_back {
            let reason = format!("Pod {key} has no controller that would make it anew");
            return Err(blocked(reason));
        }
        if let Some(request) = pod.negative_request() {
            return Err(blocked(format!("Pod {key} could not come back: {request}")));
        }
        // What a drain leaves where it is is never evicted.
        if stays(pod).is_none() {
            budgets.allow(key, pod).map_err(blocked)?;
        }
        contents.eviction_cost = contents.eviction_cost.saturating_add(eviction_cost(pod).max(0));
        contents.pods.push((key, entry.shape));
    }
    if contents.pods.is_empty() {
        let leaving = ending.map(|key| waits(format!("Pod {key} is still leaving it")));
        return leaving.map_or(Ok(contents), Err);
    }
    // What an operator has drained goes as any empty node does; where pods are left, it's their affair.
    if node.spec.unschedulable {
        return Err(waits("its Node is cordoned"));
    }
    if let Some(refusal) = &rule.only_empty {
        return Err(refusal.clone());
    }
    let age = managed.initialized_at.map(|at| input.plan.now.duration_since(at));
    let least = input.settings.min_node_age;
    if !input.settings.skip_waits && age.is_some_and(|age| age < least) {
        return Err(waits(format!("it is younger than {least:#}")));
    }
    // Where EC2 recommends to leave a node, its pods will have to move anyway.
    if node.spec.taints.iter().any(|taint| taint.key == labels::REBALANCE_TAINT) {
        contents.eviction_cost = 0;
    }
    Ok(contents)
}

/// Whether a deletion ends within the time that a repack may wait for it.
fn ends_soon(pod: &Pod, now: Timestamp) -> bool {
    let soon = |end: Timestamp| end.duration_since(now) <= MOST_ENDING;
    pod.metadata.deletion_timestamp.is_some_and(soon)
}

/// Whether a deletion should have ended long ago: such a pod has lost its kubelet.
fn is_stuck(pod: &Pod, now: Timestamp) -> bool {
    let over = |end: Timestamp| now.duration_since(end) > SignedDuration::from_secs(60);
    pod.metadata.deletion_timestamp.is_some_and(over)
}

fn check_node(input: &RepackInput<'_>, node: &Node, managed: &ManagedNode) -> Result<(), Refusal> {
    if managed.initialized_at.is_none() {
        return Err(waits("it is not initialized"));
    }
    if node.metadata.deletion_timestamp.is_some() {
        return Err(waits("it is leaving already"));
    }
    if !node.is_ready() {
        return Err(waits("its Node is not Ready"));
    }
    if node.metadata.annotations.get(labels::DO_NOT_DISRUPT).is_some_and(|value| value == "true") {
        return Err(blocked(format!("it has {}", labels::DO_NOT_DISRUPT)));
    }
    if managed.price_micro == 0 {
        return Err(blocked("its price is not known"));
    }
    if !managed.quiet && !input.settings.skip_waits {
        return Err(waits("pods came or went within consolidateAfter"));
    }
    Ok(())
}

/// Karpenter's cost of an eviction, in thousandths: 1 plus the pod's deletion cost over 2^27 and its
/// priority over 2^25, between -10 and 10.
fn eviction_cost(pod: &Pod) -> i64 {
    let deletion = pod.metadata.annotations.get(DELETION_COST);
    let deletion: i64 = deletion.and_then(|text| text.parse::<i32>().ok()).map_or(0, i64::from);
    let priority = i64::from(pod.spec.priority.unwrap_or(0));
    (1_000 + deletion * 1_000 / (1 << 27) + priority * 1_000 / (1 << 25)).clamp(-10_000, 10_000)
}

/// PodDisruptionBudgets by namespace.
struct PodBudgets<'a> {
    by_namespace: BTreeMap<&'a str, Vec<(&'a ObjectKey, &'a PodDisruptionBudget)>>,
}

impl<'a> PodBudgets<'a> {
    fn new(input: &RepackInput<'a>) -> Self {
        let mut by_namespace: BTreeMap<&str, Vec<_>> = BTreeMap::new();
        for (key, budget) in input.plan.view.budgets() {
            by_namespace.entry(&key.namespace).or_default().push((key, budget.as_ref()));
        }
        Self { by_namespace }
    }

    /// Whether a pod may be evicted now. Kubernetes refuses pods with more than one budget.
    fn allow(&self, key: &ObjectKey, pod: &Pod) -> Result<(), String> {
        let Some(budgets) = self.by_namespace.get(key.namespace.as_str()) else { return Ok(()) };
        let mut covering = budgets.iter().filter(|(_, budget)| {
            budget.spec.selector.as_ref().is_some_and(|s| selects(s, &pod.metadata.labels))
        });
        let Some((name, budget)) = covering.next() else { return Ok(()) };
        if let Some((second, _)) = covering.next() {
            return Err(format!(
                "Pod {key} has two PodDisruptionBudgets, {} and {}",
                name.name, second.name
            ));
        }
        let (policy, status) = (&budget.spec.unhealthy_pod_eviction_policy, &budget.status);
        // The eviction API lets go of who isn't ready where enough others are.
        let enough = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
        let spare = enough || policy.as_deref() == Some("AlwaysAllow");
        if status.disruptions_allowed > 0 || (spare && !pod.is_ready()) {
            return Ok(());
        }
        Err(format!("PodDisruptionBudget {name} allows no eviction of Pod {key} now"))
    }
}
