//! Repacks: scenarios, and random clusters against the check.

mod budgets;
mod cluster;
mod company;
mod kept_room;
mod preferences;
mod prices;
mod property;
mod reserved;
mod rest;
mod staying;
mod volumes;
mod wave;

use drover_common::crd::DisruptionReason;
use drover_common::instance_type::CapacityType;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::planner::{LeftKind, RepackPlan};
use cluster::Cluster;

fn reasons(plan: &RepackPlan) -> Vec<DisruptionReason> {
    plan.batches.iter().map(|batch| batch.reason).collect()
}

fn small() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

/// Three half-used nodes of one type.
fn three(extra: Value) -> Cluster {
    let mut cluster = Cluster::new(extra);
    for node in 1..=3 {
        let name = format!("n{node}");
        cluster.node(&name, "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
        for pod in 0..2 {
            cluster.world.running(&format!("web-{node}-{pod}"), "web", &name, small());
        }
    }
    cluster
}

#[test]
fn pods_move_to_free_room_and_to_cheaper_nodes() {
    insta::assert_snapshot!(three(json!({})).text());
}

#[test]
fn an_empty_node_goes_first_and_takes_no_pods() {
    let mut cluster = three(json!({}));
    cluster.node("n0", "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
    let plan = cluster.repack();
    assert_eq!(reasons(&plan)[0], DisruptionReason::Empty);
    assert!(plan.batches.len() > 1);
}

#[test]
fn a_node_that_was_drained_by_hand_goes_as_any_empty_one() {
    for policy in ["WhenEmpty", "WhenEmptyOrUnderutilized"] {
        let mut cluster = three(json!({"disruption": {"consolidationPolicy": policy}}));
        cluster.node("n0", "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
        cluster.cordon("n0");
        cluster.cordon("n1");
        let plan = cluster.repack();
        assert_eq!(plan.batches[0].reason, DisruptionReason::Empty);
        assert_eq!(plan.batches[0].nodes, ["n0".into()]);
        let left = plan.left.iter().find(|left| left.node == "n1".into()).unwrap();
        assert_eq!(left.reason, "its Node is cordoned");
    }
}

#[test]
fn an_oversized_node_is_replaced_by_a_smaller_one() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    cluster.world.running("web-0", "web", "big", json!({"cpu": "1500m", "memory": "3Gi"}));
    insta::assert_snapshot!(cluster.text());
}

#[test]
fn many_oversized_nodes_become_fewer() {
    let mut cluster = Cluster::new(json!({}));
    for node in 0..6 {
        let name = format!("n{node}");
        cluster.node(&name, "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
        for pod in 0..2 {
            let name = format!("web-{node}-{pod}");
            cluster.world.running(
                &name,
                "web",
                &format!("n{node}"),
                json!({"cpu": "2", "memory": "12Gi"}),
            );
        }
    }
    let plan = cluster.repack();
    assert!(plan.report.saving_micro > 0);
    insta::assert_snapshot!(cluster.text());
}

#[test]
fn a_spread_over_one_zone_makes_no_batch_depend_on_others() {
    let here = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
        {"key": "topology.kubernetes.io/zone", "operator": "In", "values": ["us-east-1a"]}]);
    let mut cluster = Cluster::with_requirements(here, json!({}));
    let spread = json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    for node in ["n1", "n2"] {
        cluster.node(node, "m5.4xlarge", "us-east-1a", CapacityType::OnDemand);
        let wanted = json!({"cpu": "5", "memory": "2Gi"});
        cluster.running(&format!("web-{node}"), "web", node, wanted, spread.clone());
    }
    let plan = cluster.repack();
    let replaced: Vec<_> = plan.batches.iter().filter(|b| !b.replacements.is_empty()).collect();
    assert!(!replaced.is_empty(), "{:?}", plan.left);
    assert!(replaced.iter().all(|batch| !batch.follows));
}

#[test]
fn one_large_node_may_become_two_small_ones() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("big", "m5.8xlarge", "us-east-1a", CapacityType::OnDemand);
    let apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "other"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    cluster.world.running("web-0", "web", "big", json!({"cpu": "1", "memory": "2Gi"}));
    cluster.running("db-0", "db", "big", json!({"cpu": "1", "memory": "24Gi"}), apart);
    let plan = cluster.repack();
    assert_eq!(plan.report.removed, 1);
    assert!(plan.report.saving_micro > 0);
}

#[test]
fn what_saves_too_little_stays() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("n1", "m5.large", "us-east-1a", CapacityType::OnDemand);
    cluster.world.running("web-0", "web", "n1", json!({"cpu": "1500m", "memory": "5Gi"}));
    cluster.settings.min_saving_percent = 40;
    let plan = cluster.repack();
    assert!(plan.batches.is_empty());
    assert_eq!(plan.left[0].kind, LeftKind::NoGain);
    insta::assert_snapshot!(plan.left[0].reason);
}

/// What keeps a node, one row each: a name, what is done to the cluster, and the reason.
#[test]
fn each_node_that_stays_has_its_reason() {
    type Act = fn(&mut Cluster);
    let rows: [(&str, Act); 16] = [
        ("node do-not-disrupt", |c| c.annotate_node("n1", "karpenter.sh/do-not-disrupt", "true")),
        ("pod do-not-disrupt", |c| {
            let extra =
                json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}});
            c.running("precious", "web", "n1", small(), extra);
        }),
        ("budget of pods", |c| c.pod_budget("web", "web", 0)),
        ("two budgets of pods", |c| {
            c.pod_budget("one", "web", 1);
            c.pod_budget("two", "web", 1);
        }),
        ("bare pod", |c| {
            c.running("bare", "web", "n1", small(), json!({"metadata": {"ownerReferences": []}}));
        }),
        ("named node", |c| {
            let names = json!({"affinity": {"nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                    {"matchFields": [{"key": "metadata.name", "operator": "In",
                        "values": ["n1"]}]}]}}}});
            c.running("named", "web", "n1", small(), json!({"spec": names}));
        }),
        ("less than nothing", |c| {
            c.running("owing", "web", "n1", json!({"cpu": "-1"}), json!({}));
        }),
        ("cordoned", |c| c.cordon("n1")),
        ("not initialized", |c| c.managed("n1").initialized_at = None),
        ("not quiet", |c| c.managed("n1").quiet = false),
        ("too young", |c| {
            let now = c.world.input().now;
            c.managed("n1").initialized_at = Some(now - SignedDuration::from_mins(3));
        }),
        ("held", |c| c.managed("n1").held = Some("pods were planned onto it".to_owned())),
        ("leaving", |c| {
            c.world.leaving.insert("n1".into());
        }),
        ("price", |c| {
            c.managed("n1").price_micro = 0;
            c.forget_type("m5.xlarge");
        }),
        ("doubt", |c| c.pools.get_mut(&"default".into()).unwrap().unwell = 1),
        ("node budget", |c| c.pools.get_mut(&"default".into()).unwrap().disrupting = 3),
    ];
    let mut text = String::new();
    for (name, act) in rows {
        let mut cluster = three(json!({"disruption": {
            "consolidateAfter": "30s", "budgets": [{"nodes": "3"}]}}));
        act(&mut cluster);
        let plan = cluster.repack();
        let node = "n1".into();
        assert!(plan.batches.iter().all(|batch| !batch.nodes.contains(&node)), "{name}");
        let left = plan.left.iter().find(|left| left.node == node).unwrap();
        text.push_str(&format!("{name}: {:?}, {}\n", left.kind, left.reason));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn a_pool_can_forbid_it() {
    for (name, disruption, removed) in [
        ("when empty", json!({"consolidationPolicy": "WhenEmpty"}), 0),
        ("never", json!({"consolidateAfter": "Never"}), 0),
        ("no budget", json!({"budgets": [{"nodes": "0"}]}), 0),
        (
            "another reason's budget",
            json!({"budgets": [{"nodes": "0", "reasons": ["Drifted"]}]}),
            3,
        ),
    ] {
        let plan = three(json!({"disruption": disruption})).repack();
        assert_eq!(plan.report.removed > 0, removed > 0, "{name}");
    }
}

#[test]
fn budgets_cut_it_into_waves() {
    let mut cluster = Cluster::new(json!({"disruption": {"budgets": [{"nodes": "2"}]}}));
    for node in 0..10 {
        let name = format!("n{node}");
        cluster.node(&name, "m5.xlarge", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running(&format!("web-{node}"), "web", &name, small());
    }
    let plan = cluster.repack();
    let first = plan.batches.iter().filter(|batch| batch.wave == 0);
    assert!(first.map(|batch| batch.nodes.len()).sum::<usize>() <= 2);
    assert!(plan.report.removed > 2);
}

#[test]
fn spot_is_replaced_by_spot_only_with_many_cheaper_types() {
    let build = |types: Option<&[&str]>| {
        let mut requirements = vec![
            json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]}),
        ];
        if let Some(types) = types {
            requirements.push(json!({"key": "karpenter.k8s.aws/instance-family",
                "operator": "In", "values": types}));
        }
        let mut cluster = Cluster::with_requirements(json!(requirements), json!({}));
        cluster.node("n1", "m5.8xlarge", "us-east-1a", CapacityType::Spot);
        cluster.world.running("web-0", "web", "n1", small());
        cluster
    };
    assert_eq!(build(None).repack().report.launched, 1);
    let few = build(Some(&["m5"])).repack();
    assert_eq!(few.report.removed, 0);
    insta::assert_snapshot!(few.left[0].reason);
    let mut off = build(None);
    off.settings.spot_to_spot = false;
    assert_eq!(off.repack().report.removed, 0);
}

#[test]
fn constraints_hold_for_pods_that_move() {
    let host_apart = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "web"}},
            "topologyKey": "kubernetes.io/hostname"}]}}}});
    let zones = json!({"spec": {"topologySpreadConstraints": [{
        "maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone",
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let pinned = json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1c"}}});
    let port = json!({"spec": {"containers": [{"name": "main",
        "resources": {"requests": small()}, "ports": [{"containerPort": 80, "hostPort": 80}]}]}});
    let mut text = String::new();
    for (name, extra) in
        [("apart", host_apart), ("zones", zones), ("pinned", pinned), ("port", port)]
    {
        let mut cluster = Cluster::new(json!({}));
        for (number, zone) in ["a", "b", "c"].iter().cycle().take(6).enumerate() {
            let node = format!("n{number}");
            cluster.node(&node, "m5.2xlarge", &format!("us-east-1{zone}"), CapacityType::OnDemand);
            if name != "pinned" || *zone == "c" {
                cluster.running(&format!("web-{number}"), "web", &node, small(), extra.clone());
            } else {
                cluster.world.running(&format!("app-{number}"), "app", &node, small());
            }
        }
        text.push_str(&format!("--- {name}\n{}", cluster.text()));
    }
    insta::assert_snapshot!(text);
}

#[test]
fn room_that_waiting_pods_need_is_not_given_away() {
    let mut cluster = three(json!({}));
    let before = cluster.repack().report.removed;
    // It fits on one node only if no other pod comes there.
    cluster.world.pods("late", 2, json!({"cpu": "2500m", "memory": "6Gi"}), json!({}));
    let after = cluster.repack();
    assert!(after.report.removed < before + 3);
    for batch in &after.batches {
        assert!(
            batch
                .replacements
                .iter()
                .all(|launch| launch.pods.iter().all(|p| p.name.starts_with("web")))
        );
    }
}
