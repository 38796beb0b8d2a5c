//! Topology spread: hard and soft, over zones, hosts, capacity types and labels of one's own.

use serde_json::{Value, json};

use super::world::World;

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

const ZONE: &str = "topology.kubernetes.io/zone";

fn spread(app: &str, key: &str, more: Value) -> Value {
    let mut constraint = json!({"maxSkew": 1, "topologyKey": key,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}});
    constraint.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"spec": {"topologySpreadConstraints": [constraint]}})
}

fn three_zones(world: &mut World) {
    let zones = json!([{"key": ZONE, "operator": "In",
        "values": ["us-east-1a", "us-east-1b", "us-east-1c"]}]);
    world.pool("default", zones, json!({}));
}

#[test]
fn over_zones_running_pods_count() {
    let mut world = World::small();
    three_zones(&mut world);
    world.node("n1", "m5.large", "us-east-1a");
    world.running("web-old-0", "web", "n1", json!({"cpu": "600m"}));
    world.running("web-old-1", "web", "n1", json!({"cpu": "1200m"}));
    world.pods("web", 7, request(), spread("web", ZONE, json!({})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn over_hosts() {
    let mut world = World::small();
    three_zones(&mut world);
    world.pods("web", 5, request(), spread("web", "kubernetes.io/hostname", json!({"maxSkew": 2})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn over_capacity_types() {
    let mut world = World::small();
    let both = json!([{"key": "karpenter.sh/capacity-type", "operator": "In",
        "values": ["spot", "on-demand"]}]);
    world.pool("default", both, json!({}));
    world.pods("web", 4, request(), spread("web", "karpenter.sh/capacity-type", json!({})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn over_a_label_of_the_pools_own() {
    let mut world = World::small();
    let racks =
        json!([{"key": "example.com/rack", "operator": "In", "values": ["r1", "r2", "r3"]}]);
    world.pool("default", racks, json!({}));
    world.pods("web", 6, request(), spread("web", "example.com/rack", json!({})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn fewer_domains_than_wanted_hold_one_pod_each() {
    let mut world = World::small();
    three_zones(&mut world);
    world.pods("few", 6, request(), spread("few", ZONE, json!({"minDomains": 5})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn node_affinity_narrows_the_domains_unless_it_is_ignored() {
    let mut world = World::small();
    three_zones(&mut world);
    let here = json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": ZONE, "operator": "In",
                "values": ["us-east-1a", "us-east-1b"]}]}]}}}}});
    let with = |app: &str, more: Value| {
        let mut rules = spread(app, ZONE, more);
        super::world::merge(&mut rules, here.clone());
        rules
    };
    world.node("full", "m5.large", "us-east-1c");
    world.running("old", "old", "full", json!({"cpu": "1900m"}));
    world.pods("honour", 4, request(), with("honour", json!({})));
    world.pods("ignore", 4, request(), with("ignore", json!({"nodeAffinityPolicy": "Ignore"})));
    insta::assert_snapshot!(world.story());
}

#[test]
fn nodes_with_foreign_taints_count_unless_taints_are_honoured() {
    let mut world = World::small();
    let zone = |name: &str| json!([{"key": ZONE, "operator": "In", "values": [name]}]);
    world.pool("a", zone("us-east-1a"), json!({}));
    world.pool("b", zone("us-east-1b"), json!({}));
    world.object(
        drover_common::call::Kind::Node,
        json!({"metadata": {"name": "foreign", "labels": {ZONE: "us-east-1f"}},
            "spec": {"taints": [{"key": "foreign", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"cpu": "4", "pods": "10"},
                "conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    world.pods("ignore", 4, request(), spread("ignore", ZONE, json!({})));
    let honour = spread("honour", ZONE, json!({"nodeTaintsPolicy": "Honor"}));
    world.pods("honour", 4, request(), honour);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_rollout_is_spread_by_itself_with_match_label_keys() {
    let mut world = World::small();
    three_zones(&mut world);
    world.node("n1", "m5.large", "us-east-1a");
    world.running("web-old-0", "web", "n1", json!({"cpu": "1800m"}));
    let mut rules = spread("web", ZONE, json!({"matchLabelKeys": ["pod-template-hash"]}));
    super::world::merge(&mut rules, json!({"metadata": {"labels": {"pod-template-hash": "new"}}}));
    world.pods("web", 3, request(), rules);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_volume_narrows_the_node_but_not_the_count() {
    let mut world = World::small();
    three_zones(&mut world);
    world.node("full", "m5.large", "us-east-1c");
    world.running("old", "old", "full", json!({"cpu": "1900m"}));
    world.object(
        drover_common::call::Kind::StorageClass,
        json!({
            "metadata": {"name": "gp3"}, "provisioner": "ebs.csi.aws.com",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [
                {"key": "topology.ebs.csi.aws.com/zone", "values": ["us-east-1b"]}]}],
        }),
    );
    for number in 0..2 {
        world.object(
            drover_common::call::Kind::PersistentVolumeClaim,
            json!({
                "metadata": {"name": format!("data-{number}"), "namespace": "default"},
                "spec": {"storageClassName": "gp3"}, "status": {"phase": "Pending"},
            }),
        );
        let mut rules = spread("db", ZONE, json!({}));
        super::world::merge(
            &mut rules,
            json!({"metadata": {"labels": {"app": "db"}},
            "spec": {"volumes": [{"name": "data", "persistentVolumeClaim":
                {"claimName": format!("data-{number}")}}]}}),
        );
        world.pods(&format!("db{number}"), 1, request(), rules);
    }
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_spread_that_limits_cut_short_is_kept_even() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "8"}}));
    world.pods("web", 20, json!({"cpu": "1500m", "memory": "2Gi"}), spread("web", ZONE, json!({})));
    let plan = world.plan();
    assert!(!plan.unschedulable.is_empty() && plan.report.on_new > 0);
    let mut counts = std::collections::BTreeMap::new();
    for launch in &plan.launches {
        *counts.entry(launch.zones.clone()).or_insert(0) += launch.pods.len();
    }
    assert!(counts.values().all(|count| *count == 1), "{counts:?}");
}

#[test]
fn where_pods_must_stay_together_only_zones_with_nodes_count() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let own = json!({"matchLabels": {"app": "pair"}});
    let zone = "topology.kubernetes.io/zone";
    let both = json!({"spec": {
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": zone,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": own}],
        "affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": own, "topologyKey": zone}]}}}});
    world.pods("pair", 2, json!({"cpu": "500m", "memory": "1Gi"}), both);
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    // A node elsewhere is a zone that the scheduler would count.
    let first = plan.launches.first().and_then(|launch| launch.zones.first()).unwrap().clone();
    let elsewhere = ["us-east-1a", "us-east-1b"].into_iter().find(|z| *z != first).unwrap();
    world.node("n1", "m5.large", elsewhere);
    world.running("old", "old", "n1", json!({"cpu": "1900m"}));
    assert_eq!(world.plan().unschedulable.len(), 1);
}

/// Rules of a pod of web that must go to one zone, whatever the counts of all zones.
fn pinned() -> Value {
    let mut rules = spread("web", ZONE, json!({"nodeAffinityPolicy": "Ignore"}));
    super::world::merge(&mut rules, json!({"spec": {"nodeSelector": {ZONE: "us-east-1a"}}}));
    rules
}

/// A node in each zone, so that each counts, for the scheduler as well.
fn nodes_in_three_zones(world: &mut World) {
    three_zones(world);
    for (name, zone) in [("n1", "us-east-1a"), ("n2", "us-east-1b"), ("n3", "us-east-1c")] {
        world.node(name, "m5.large", zone);
    }
}

#[test]
fn pods_on_their_way_out_do_not_count() {
    let left = |extra: Value| {
        let mut world = World::small();
        nodes_in_three_zones(&mut world);
        world.running_like("old", "web", "n1", json!({"cpu": "1900m"}), extra);
        world.pods("web", 1, request(), pinned());
        world.plan().unschedulable.len()
    };
    assert_eq!(left(json!({})), 1);
    assert_eq!(left(json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:30Z"}})), 0);
}

#[test]
fn pods_that_move_do_not_count_where_they_were() {
    let mut world = World::small();
    nodes_in_three_zones(&mut world);
    world.running_like("old", "web", "n1", request(), pinned());
    world.leaving.insert("n1".into());
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    assert_eq!(plan.launches.len(), 1);
}

#[test]
fn a_zone_counts_as_soon_as_one_of_its_nodes_does() {
    let left = |taints: Value| {
        let mut world = World::small();
        let zones =
            json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b"]}]);
        world.pool("default", zones, json!({}));
        let foreign = json!([{"key": "foreign", "effect": "NoSchedule"}]);
        for (name, taints) in [("first", foreign), ("second", taints)] {
            world.object(
                drover_common::call::Kind::Node,
                json!({"metadata": {"name": name, "labels": {ZONE: "us-east-1f"}},
                    "spec": {"taints": taints},
                    "status": {"allocatable": {"cpu": "100m", "pods": "10"},
                        "conditions": [{"type": "Ready", "status": "True"}]}}),
            );
        }
        let honour = spread("web", ZONE, json!({"nodeTaintsPolicy": "Honor"}));
        world.pods("web", 4, request(), honour);
        world.plan().unschedulable.len()
    };
    assert_eq!(left(json!([])), 2, "the third zone stays empty");
    assert_eq!(left(json!([{"key": "foreign", "effect": "NoSchedule"}])), 0);
}

#[test]
fn nodes_without_another_key_of_the_pod_do_not_count() {
    let mut world = World::small();
    let here = json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a"]}]);
    let racks = json!({"template": {"metadata": {"labels": {"rack": "r1"}}}});
    world.pool("default", here, racks);
    // In another zone, and of no rack.
    world.node("n1", "m5.large", "us-east-1b");
    world.running("full", "other", "n1", json!({"cpu": "1900m"}));
    let mut both = spread("web", ZONE, json!({}));
    let rack = spread("web", "rack", json!({}))["spec"]["topologySpreadConstraints"][0].clone();
    both["spec"]["topologySpreadConstraints"].as_array_mut().unwrap().push(rack);
    world.pods("web", 3, request(), both);
    assert_eq!(world.plan().unschedulable, []);
}
