//! Volumes: where they are, where they can be made, and how many a node takes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::World;
use crate::planner::InFlightNode;
use drover_common::call::Kind;
use drover_common::cluster::ObjectKey;
use drover_common::requirement::Requirements;
use drover_common::resources::Resources;

fn request() -> Value {
    json!({"cpu": "100m", "memory": "256Mi"})
}

fn mount(claim: &str) -> Value {
    json!({"spec": {"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]}})
}

fn volume(world: &mut World, name: &str, key: &str, zone: &str) {
    world.object(
        Kind::PersistentVolume,
        json!({
            "metadata": {"name": format!("pv-{name}")},
            "spec": {"csi": {"driver": "ebs.csi.aws.com"}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": key, "operator": "In", "values": [zone]}]}]}}},
        }),
    );
    world.object(
        Kind::PersistentVolumeClaim,
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": "Bound"},
        }),
    );
}

fn class(world: &mut World, name: &str, mode: &str, more: Value) {
    let mut class = json!({"metadata": {"name": name}, "provisioner": "ebs.csi.aws.com",
        "volumeBindingMode": mode});
    super::world::merge(&mut class, more);
    world.object(Kind::StorageClass, class);
}

fn claim(world: &mut World, name: &str, class: &str) {
    world.object(
        Kind::PersistentVolumeClaim,
        json!({
            "metadata": {"name": name, "namespace": "default"},
            "spec": {"storageClassName": class}, "status": {"phase": "Pending"},
        }),
    );
}

#[test]
fn a_bound_volume_ties_its_pod_to_a_zone() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    volume(&mut world, "new", "topology.kubernetes.io/zone", "us-east-1b");
    volume(&mut world, "old", "topology.ebs.csi.aws.com/zone", "us-east-1c");
    world.pods("new", 1, request(), mount("new"));
    world.pods("old", 1, request(), mount("old"));
    insta::assert_snapshot!(world.story());
}

/// A volume of this source that names its host, and a pod with it.
fn tied(world: &mut World, name: &str, source: Value, host: &str, zone: &str) {
    let mut spec = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [
        {"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]},
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}]}}});
    super::world::merge(&mut spec, source);
    let volume = json!({"metadata": {"name": format!("pv-{name}")}, "spec": spec});
    world.object(Kind::PersistentVolume, volume);
    world.object(
        Kind::PersistentVolumeClaim,
        json!({"metadata": {"name": name, "namespace": "default"},
            "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": "Bound"}}),
    );
    world.pods(name, 1, request(), mount(name));
}

#[test]
fn a_volume_ties_its_pod_to_its_host_and_a_local_one_whose_host_is_gone_to_its_zone() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    for node in ["n1", "n2"] {
        world.node(node, "m5.xlarge", "us-east-1a");
    }
    let csi = json!({"csi": {"driver": "topolvm.io"}});
    tied(&mut world, "csi", csi.clone(), "n2", "us-east-1a");
    tied(&mut world, "csi-gone", csi, "n-gone", "us-east-1b");
    let path = json!({"path": "/mnt"});
    tied(&mut world, "local", json!({"local": path}), "n2", "us-east-1a");
    tied(&mut world, "local-gone", json!({"local": path}), "n-gone", "us-east-1b");
    tied(&mut world, "path-gone", json!({"hostPath": path}), "n-gone", "us-east-1c");
    insta::assert_snapshot!(world.story());
}

#[test]
fn labels_of_a_volume_tie_its_pod_to_zones() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    let zone = "topology.kubernetes.io/zone";
    let beta = "failure-domain.beta.kubernetes.io";
    for (name, labels) in [
        ("one", json!({zone: "us-east-1b", "topology.kubernetes.io/region": "us-east-1"})),
        (
            "old",
            json!({(format!("{beta}/zone")): "us-east-1c", (format!("{beta}/region")): "us-east-1"}),
        ),
        ("some", json!({zone: "us-east-1b__us-east-1a"})),
        ("void", json!({zone: "us-east-1b__"})),
        ("far", json!({"topology.kubernetes.io/region": "eu-west-1"})),
    ] {
        let volume = json!({"metadata": {"name": format!("pv-{name}"), "labels": labels},
            "spec": {"csi": {"driver": "ebs.csi.aws.com"}}});
        world.tell(format!("labels {labels}"));
        world.object(Kind::PersistentVolume, volume);
        world.object(
            Kind::PersistentVolumeClaim,
            json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"volumeName": format!("pv-{name}")}, "status": {"phase": "Bound"}}),
        );
        world.pods(name, 1, request(), mount(name));
    }
    volume(&mut world, "both", zone, "us-east-1a");
    let mut both = world.view.volumes()["pv-both"].as_ref().clone();
    both.metadata.labels.insert(zone.to_owned(), "us-east-1b".to_owned());
    world.tell("its labels say us-east-1b".to_owned());
    world.add(Kind::PersistentVolume, serde_json::to_value(both).unwrap());
    world.pods("both", 1, request(), mount("both"));
    insta::assert_snapshot!(world.story());
}

#[test]
fn volumes_to_be_made_go_where_their_class_allows() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    let zones = json!({"allowedTopologies": [{"matchLabelExpressions": [
        {"key": "topology.kubernetes.io/zone", "values": ["us-east-1d"]}]}]});
    class(&mut world, "zonal", "WaitForFirstConsumer", zones);
    class(&mut world, "now", "Immediate", json!({}));
    let default = json!({"metadata": {"annotations":
        {"storageclass.kubernetes.io/is-default-class": "true"}}});
    class(&mut world, "default", "WaitForFirstConsumer", default);
    claim(&mut world, "zonal", "zonal");
    claim(&mut world, "now", "now");
    claim(&mut world, "dangling", "nothing");
    world.pods("zonal", 1, request(), mount("zonal"));
    world.pods("now", 1, request(), mount("now"));
    world.pods("dangling", 1, request(), mount("dangling"));
    world.pods("missing", 1, request(), mount("missing"));
    let ephemeral = json!({"spec": {"volumes": [{"name": "scratch", "ephemeral":
        {"volumeClaimTemplate": {"spec": {"storageClassName": "zonal"}}}}]}});
    world.pods("ephemeral", 1, request(), ephemeral);
    insta::assert_snapshot!(world.story());
}

#[test]
fn two_volumes_must_be_reachable_at_once() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    volume(&mut world, "a", "topology.kubernetes.io/zone", "us-east-1a");
    volume(&mut world, "b", "topology.kubernetes.io/zone", "us-east-1b");
    let both = json!({"spec": {"volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "a"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "b"}}]}});
    world.pods("torn", 1, request(), both);
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_driver_attaches_so_many_and_new_nodes_are_like_those_of_their_type() {
    let mut world = World::small();
    let types = json!([{"key": "node.kubernetes.io/instance-type", "operator": "In",
        "values": ["m5.xlarge"]}]);
    world.pool("default", types, json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.object(
        Kind::CsiNode,
        json!({"metadata": {"name": "n1"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "allocatable": {"count": 3}}]}}),
    );
    class(&mut world, "gp3", "WaitForFirstConsumer", json!({}));
    volume(&mut world, "held", "topology.kubernetes.io/zone", "us-east-1a");
    let mut old = json!({"metadata": {"name": "old", "namespace": "default"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
    super::world::merge(&mut old, mount("held"));
    world.object(Kind::Pod, old);
    for number in 0..6 {
        claim(&mut world, &format!("data-{number}"), "gp3");
        world.pods(&format!("db-{number}"), 1, request(), mount(&format!("data-{number}")));
    }
    insta::assert_snapshot!(world.story());
}

#[test]
fn more_volumes_than_any_type_attaches_are_told() {
    let mut world = World::small();
    let types = json!([{"key": "node.kubernetes.io/instance-type", "operator": "In",
        "values": ["m5.xlarge"]}]);
    world.pool("default", types, json!({}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.object(
        Kind::CsiNode,
        json!({"metadata": {"name": "n1"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "allocatable": {"count": 2}}]}}),
    );
    class(&mut world, "gp3", "WaitForFirstConsumer", json!({}));
    let mut volumes = Vec::new();
    for number in 0..3 {
        let name = format!("v{number}");
        claim(&mut world, &name, "gp3");
        volumes.push(json!({"name": name, "persistentVolumeClaim": {"claimName": name}}));
    }
    world.pods("greedy", 1, request(), json!({"spec": {"volumes": volumes}}));
    insta::assert_snapshot!(world.story());
}

/// A driver that attaches two volumes to the one node there is.
fn two_a_node(world: &mut World, node: &str) {
    world.node(node, "m5.xlarge", "us-east-1a");
    world.object(
        Kind::CsiNode,
        json!({"metadata": {"name": node}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "allocatable": {"count": 2}}]}}),
    );
}

/// Pods with a volume each; how many stay on the node that is there.
fn seated(world: &mut World, count: usize, class: Option<&str>) -> usize {
    for number in 0..count {
        let name = format!("data-{number}");
        let spec = class.map_or(json!({}), |class| json!({"storageClassName": class}));
        world.object(
            Kind::PersistentVolumeClaim,
            json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec,
                "status": {"phase": "Pending"}}),
        );
        world.pods(&format!("db-{number}"), 1, request(), mount(&name));
    }
    let plan = world.plan();
    assert_eq!(plan.unschedulable, []);
    plan.report.on_existing
}

#[test]
fn claims_without_a_class_are_of_the_default_one() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    class(&mut world, "other", "Immediate", json!({}));
    let default = json!({"metadata": {"annotations":
        {"storageclass.kubernetes.io/is-default-class": "true"}},
        "allowedTopologies": [{"matchLabelExpressions": [
            {"key": "topology.kubernetes.io/zone", "values": ["us-east-1b"]}]}]});
    class(&mut world, "default", "WaitForFirstConsumer", default);
    two_a_node(&mut world, "n1");
    assert_eq!(seated(&mut world, 1, None), 0, "its volume can't be made in the node's zone");
    assert_eq!(world.plan().launches[0].zones, ["us-east-1b"]);
}

#[test]
fn the_in_tree_provisioner_is_the_drivers() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    two_a_node(&mut world, "n1");
    let in_tree = json!({"provisioner": "kubernetes.io/aws-ebs"});
    class(&mut world, "gp2", "WaitForFirstConsumer", in_tree);
    assert_eq!(seated(&mut world, 3, Some("gp2")), 2);
}

#[test]
fn volumes_of_the_in_tree_plugin_are_attached_by_the_driver() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    two_a_node(&mut world, "n1");
    for number in 0..3 {
        let (name, volume) = (format!("data-{number}"), format!("pv-{number}"));
        world.add(
            Kind::PersistentVolume,
            json!({"metadata": {"name": volume}, "spec": {"awsElasticBlockStore": {
                "volumeID": format!("aws://us-east-1a/vol-{number}"), "fsType": "ext4"}}}),
        );
        world.add(
            Kind::PersistentVolumeClaim,
            json!({"metadata": {"name": name, "namespace": "default"},
                "spec": {"volumeName": volume}, "status": {"phase": "Bound"}}),
        );
        world.pods(&format!("db-{number}"), 1, request(), mount(&name));
    }
    assert_eq!(world.plan().report.on_existing, 2);
    assert_eq!(world.plan().report.on_new, 1);
}

#[test]
fn what_is_attached_takes_its_place_though_no_pod_has_it_any_more() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    two_a_node(&mut world, "n1");
    class(&mut world, "gp3", "WaitForFirstConsumer", json!({}));
    world.object(
        Kind::VolumeAttachment,
        json!({"metadata": {"name": "csi-1"}, "spec": {"attacher": "ebs.csi.aws.com",
            "nodeName": "n1", "source": {"persistentVolumeName": "pv-gone"}}}),
    );
    assert_eq!(seated(&mut world, 2, Some("gp3")), 1);
}

#[test]
fn a_type_that_is_not_there_yet_attaches_as_many_as_the_least() {
    let mut world = World::small();
    let types = json!([{"key": "node.kubernetes.io/instance-type", "operator": "In",
        "values": ["m5.8xlarge"]}]);
    world.pool("default", types, json!({}));
    two_a_node(&mut world, "n1");
    class(&mut world, "gp3", "WaitForFirstConsumer", json!({}));
    assert_eq!(seated(&mut world, 7, Some("gp3")), 2);
    let on_new: Vec<usize> = world.plan().launches.iter().map(|launch| launch.pods.len()).collect();
    assert_eq!(on_new.iter().sum::<usize>(), 5);
    assert!(on_new.iter().all(|count| *count <= 2), "{on_new:?}");
}

/// A claim of a volume that any node can have, for one pod at a time.
fn sole_claim(world: &mut World, name: &str) {
    let volume = json!({"metadata": {"name": format!("pv-{name}")}, "spec": {}});
    world.object(Kind::PersistentVolume, volume);
    let spec = json!({"volumeName": format!("pv-{name}"), "accessModes": ["ReadWriteOncePod"]});
    world.object(
        Kind::PersistentVolumeClaim,
        json!({"metadata": {"name": name, "namespace": "default"}, "spec": spec,
            "status": {"phase": "Bound"}}),
    );
}

#[test]
fn a_claim_for_one_pod_is_for_whoever_has_it_or_comes_first() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.large", "us-east-1a");
    for name in ["held", "ended", "free", "moving"] {
        sole_claim(&mut world, name);
    }
    world.running_like("holder", "held", "n1", request(), mount("held"));
    world.pods("held", 1, request(), mount("held"));
    let mut ended = mount("ended");
    super::world::merge(&mut ended, json!({"status": {"phase": "Succeeded"}}));
    world.running_like("done", "ended", "n1", request(), ended);
    world.pods("ended", 1, request(), mount("ended"));
    world.pods("free", 2, request(), mount("free"));
    let mut urgent = mount("free");
    super::world::merge(&mut urgent, json!({"spec": {"priority": 7}}));
    world.pods("urgent", 1, request(), urgent);
    world.node("n2", "m5.large", "us-east-1a");
    world.leaving.insert("n2".into());
    world.running_like("mover", "moving", "n2", request(), mount("moving"));
    world.pods("after", 1, request(), mount("moving"));
    insta::assert_snapshot!(world.story());
}

#[test]
fn of_pods_with_one_claim_the_one_that_a_node_was_launched_for_comes_first() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    sole_claim(&mut world, "data");
    world.pods("db", 2, request(), mount("data"));
    world.in_flight.push(InFlightNode {
        claim: "c1".into(),
        node: None,
        nodepool: "default".into(),
        labels: BTreeMap::new(),
        requirements: Requirements::default(),
        taints: Vec::new(),
        allocatable: Resources::from_quantities([("cpu", "2"), ("memory", "4Gi"), ("pods", "9")])
            .unwrap(),
        pods: vec![ObjectKey::new("default", "db-1")],
    });
    insta::assert_snapshot!(world.text());
}

#[test]
fn a_node_that_has_just_joined_attaches_what_it_says_and_has() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    two_a_node(&mut world, "n1");
    // Another of its type attaches fewer, and is full.
    world.node("n0", "m5.xlarge", "us-east-1a");
    world.object(
        Kind::CsiNode,
        json!({"metadata": {"name": "n0"}, "spec": {"drivers": [
        {"name": "ebs.csi.aws.com", "allocatable": {"count": 1}}]}}),
    );
    world.running("full", "full", "n0", json!({"cpu": "3900m"}));
    class(&mut world, "gp3", "WaitForFirstConsumer", json!({}));
    claim(&mut world, "held", "gp3");
    world.running_like("old", "old", "n1", request(), mount("held"));
    for number in 0..2 {
        claim(&mut world, &format!("data-{number}"), "gp3");
        world.pods(&format!("db-{number}"), 1, request(), mount(&format!("data-{number}")));
    }
    let node = world.view.nodes()[&drover_common::id::NodeName::from("n1")].clone();
    // It is no place by itself until it is ready.
    let mut joined = serde_json::to_value(&*node).unwrap();
    joined["status"]["conditions"] = json!([{"type": "Ready", "status": "False"}]);
    world.add(Kind::Node, joined);
    world.in_flight.push(InFlightNode {
        claim: "c1".into(),
        node: Some("n1".into()),
        nodepool: "default".into(),
        labels: node.metadata.labels.clone(),
        requirements: Requirements::default(),
        taints: Vec::new(),
        allocatable: node.status.allocatable.clone(),
        pods: Vec::new(),
    });
    let plan = world.plan();
    let seated: usize = plan.placements.iter().map(|placement| placement.pods.len()).sum();
    assert_eq!((seated, plan.launches.len()), (1, 1), "{plan:?}");
}
