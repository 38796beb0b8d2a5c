//! Batches that no budget lets through, and those that follow others.

use serde_json::json;

use super::cluster::Cluster;
use super::company::{batch, zones};
use crate::planner::{Batch, RepackPlan, company, wave};

fn following(batch: Batch) -> Batch {
    Batch { follows: true, ..batch }
}

/// The nodes that go, with their waves, and why the others stay.
fn told(plan: &RepackPlan) -> (Vec<(u32, String)>, Vec<String>) {
    let nodes = plan.batches.iter().map(|batch| (batch.wave, batch.nodes[0].to_string()));
    let left = plan.left.iter().map(|left| format!("{}: {}", left.node, left.reason));
    (nodes.collect(), left.collect())
}

fn cut(cluster: &Cluster, batches: Vec<Batch>) -> (Vec<(u32, String)>, Vec<String>) {
    let mut plan = RepackPlan { batches, ..RepackPlan::default() };
    wave::cut(&cluster.input(), &mut plan);
    told(&plan)
}

#[test]
fn those_that_follow_come_in_their_order_and_each_after_all_before() {
    let cluster = zones();
    let saving = |batch: Batch, saving_micro| Batch { saving_micro, ..batch };
    let batches = vec![
        following(saving(batch("a1", &[]), 1)),
        following(saving(batch("b1", &[]), 9)),
        saving(batch("a2", &[]), 2),
        saving(batch("b2", &[]), 3),
    ];
    let (nodes, left) = cut(&cluster, batches);
    let expected = [(0, "b2"), (0, "a2"), (1, "a1"), (2, "b1")];
    assert_eq!(nodes, expected.map(|(wave, node)| (wave, node.to_owned())));
    assert!(left.is_empty());
}

#[test]
fn what_follows_one_that_no_budget_lets_through_waits_with_it() {
    let mut cluster = zones();
    cluster.running("web-0", "web", "b1", json!({"cpu": "100m", "memory": "100Mi"}), json!({}));
    for counts in cluster.pools.values_mut() {
        counts.disrupting = counts.initialized - 1;
    }
    let mut large = batch("a1", &[]);
    large.nodes.push("a2".into());
    let follower = following(batch("b1", &[("web-0", "b2")]));
    let (nodes, left) = cut(&cluster, vec![large.clone(), follower.clone()]);
    assert!(nodes.is_empty());
    let budgets = "the budgets of NodePool default allow no more disruption for Underutilized now";
    let expected = [
        format!("a1: {budgets}"),
        format!("a2: {budgets}"),
        "b1: its pods' new places depend on disruptions that are put off".to_owned(),
        "b2: it is kept for pods of disruptions that were put off".to_owned(),
    ];
    assert_eq!(left, expected);
    // One that needs no other goes all the same.
    let alone = Batch { follows: false, ..follower };
    assert_eq!(cut(&cluster, vec![large, alone]).0, [(0, "b1".to_owned())]);
}

#[test]
fn what_follows_one_that_would_part_mates_waits_with_it() {
    let cluster = super::company::parted();
    let first = batch("a1", &[("web-0", "b1")]);
    let follower = following(batch("b2", &[]));
    let mut plan = RepackPlan { batches: vec![first, follower], ..RepackPlan::default() };
    company::keep(&cluster.input(), &mut plan);
    let (nodes, left) = told(&plan);
    assert!(nodes.is_empty());
    assert_eq!(left[1], "b2: its pods' new places depend on disruptions that are put off");
}
