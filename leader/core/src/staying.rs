//! Pods that stay on a node that leaves, for as long as it lasts: nothing may evict them, so that a node bought for them
//! would stand empty.

use std::collections::BTreeSet;

use drover_common::cluster::{ObjectKey, Pod, PodDisruptionBudget};
use drover_common::drain::has_active_do_not_disrupt;
use drover_common::id::NodeName;
use jiff::Timestamp;

use crate::planner::selects;
use crate::view::View;

/// Those of nodes that no time limit ends.
pub(crate) fn staying_pods<'n>(
    view: &View,
    leaving: impl IntoIterator<Item = &'n NodeName>,
    now: Timestamp,
) -> BTreeSet<ObjectKey> {
    let lasting = leaving.into_iter().filter(|name| !has_time_limit(view, name));
    let pods = lasting.filter_map(|name| view.node_pods(name)).flat_map(|pods| &pods.all);
    let held = pods.filter(|(key, entry)| {
        let pod = &entry.pod;
        let is_held = || has_active_do_not_disrupt(pod, now) || no_budget_lets_go(view, key, pod);
        !pod.is_terminating() && is_held()
    });
    held.map(|(key, _)| key.clone()).collect()
}

/// Whether the eviction API refuses a pod for as long as its budgets are what they are. A budget that is merely used up
/// allows another eviction when the last pod is back, and its node should be there by then.
fn no_budget_lets_go(view: &View, key: &ObjectKey, pod: &Pod) -> bool {
    let first = ObjectKey::new(key.namespace.clone(), "");
    let own = view.budgets().range(first..).take_while(|(it, _)| it.namespace == key.namespace);
    let mut covering = own.map(|(_, budget)| budget).filter(|budget| {
        let selector = budget.spec.selector.as_ref();
        selector.is_some_and(|selector| selects(selector, &pod.metadata.labels))
    });
    let Some(budget) = covering.next() else { return false };
    // Of several budgets the eviction API serves none.
    covering.next().is_some() || never_allows(budget, pod)
}

/// Whether all pods of a budget have to be healthy, as with `maxUnavailable: 0`.
fn never_allows(budget: &PodDisruptionBudget, pod: &Pod) -> bool {
    let status = &budget.status;
    let enough = status.desired_healthy > 0 && status.current_healthy >= status.desired_healthy;
    let always = budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
    let goes_unready = !pod.is_ready() && (enough || always);
    status.disruptions_allowed <= 0
        && status.expected_pods > 0
        && status.desired_healthy >= status.expected_pods
        && !goes_unready
}

/// Whether the node's pods are ended when its claim's `terminationGracePeriod` is over.
fn has_time_limit(view: &View, name: &NodeName) -> bool {
    let claim = view.nodes().get(name).and_then(|node| view.claim_of_node(node));
    claim.is_some_and(|claim| claim.spec.termination_grace_period.is_some())
}
