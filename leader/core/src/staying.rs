//! Pods that stay on a node that leaves, for as long as it lasts: nothing may evict them, so that a node bought for them
//! would stand empty.

use std::collections::BTreeSet;

use drover_common::cluster::ObjectKey;
use drover_common::drain::has_active_do_not_disrupt;
use drover_common::id::NodeName;
use jiff::Timestamp;

use crate::view::View;

/// Those of nodes that no time limit ends.
pub(crate) fn staying_pods<'n>(
    view: &View,
    leaving: impl IntoIterator<Item = &'n NodeName>,
    now: Timestamp,
) -> BTreeSet<ObjectKey> {
    let lasting = leaving.into_iter().filter(|name| !has_time_limit(view, name));
    let pods = lasting.filter_map(|name| view.node_pods(name)).flat_map(|pods| &pods.all);
    let held = pods.filter(|(_, entry)| has_active_do_not_disrupt(&entry.pod, now));
    held.map(|(key, _)| key.clone()).collect()
}

/// Whether the node's pods are ended when its claim's `terminationGracePeriod` is over.
fn has_time_limit(view: &View, name: &NodeName) -> bool {
    let claim = view.nodes().get(name).and_then(|node| view.claim_of_node(node));
    claim.is_some_and(|claim| claim.spec.termination_grace_period.is_some())
}
