//! Pods with volumes.

use drover_common::call::Kind;
use drover_common::instance_type::CapacityType;
use serde_json::json;

use super::cluster::Cluster;
use super::{small, three};
use crate::planner::tests::world::World;

#[test]
fn volumes_tie_pods_to_their_zone() {
    let mut cluster = Cluster::new(json!({}));
    for (node, zone) in [("n1", "us-east-1a"), ("n2", "us-east-1b")] {
        cluster.node(node, "m5.2xlarge", zone, CapacityType::OnDemand);
    }
    cluster.world.add(
        Kind::PersistentVolume,
        json!({
        "metadata": {"name": "pv"}, "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "In",
                "values": ["us-east-1a"]}]}]}}}}),
    );
    cluster.world.add(
        Kind::PersistentVolumeClaim,
        json!({
        "metadata": {"name": "data", "namespace": "default"},
        "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
    );
    let volume = json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.running("db-0", "db", "n1", small(), volume);
    cluster.world.running("web-0", "web", "n2", small());
    insta::assert_snapshot!(cluster.text());
}

#[test]
fn a_lost_claim_holds_its_node() {
    let mut world = World::new();
    world.pool("default", json!([]), json!({}));
    let mut cluster = Cluster::of(world);
    cluster.node("n1", "m5.8xlarge", "us-east-1a", CapacityType::OnDemand);
    let volume = json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "gone"}}]}});
    cluster.running("db-0", "db", "n1", small(), volume);
    let plan = cluster.repack();
    assert!(plan.batches.is_empty());
    insta::assert_snapshot!(plan.left[0].reason);
}

#[test]
fn a_volume_of_a_host_holds_its_node() {
    let mut cluster = Cluster::new(json!({}));
    for node in ["n1", "n2"] {
        cluster.node(node, "m5.2xlarge", "us-east-1a", CapacityType::OnDemand);
    }
    cluster.world.add(
        Kind::PersistentVolume,
        json!({"metadata": {"name": "pv"}, "spec": {"local": {"path": "/mnt"}, "nodeAffinity": {
            "required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}}),
    );
    cluster.world.add(
        Kind::PersistentVolumeClaim,
        json!({"metadata": {"name": "data", "namespace": "default"},
            "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}),
    );
    let volume = json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.running("db-0", "db", "n1", small(), volume);
    cluster.world.running("web-0", "web", "n2", small());
    insta::assert_snapshot!(cluster.text());
}

#[test]
fn a_pod_takes_the_claim_along_that_it_alone_uses() {
    let mut cluster = three(json!({}));
    cluster.world.add(
        Kind::PersistentVolume,
        json!({"metadata": {"name": "pv"}, "spec": {"csi": {"driver": "ebs.csi.aws.com"}}}),
    );
    cluster.world.add(
        Kind::PersistentVolumeClaim,
        json!({"metadata": {"name": "data", "namespace": "default"}, "status": {"phase": "Bound"},
            "spec": {"volumeName": "pv", "accessModes": ["ReadWriteOncePod"]}}),
    );
    let volume = json!({"spec": {"volumes": [
        {"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}});
    cluster.running("db-0", "db", "n1", small(), volume);
    let plan = cluster.repack();
    let mut moves = plan.batches.iter().flat_map(|batch| &batch.moves);
    assert!(moves.any(|one| one.pod.name == "db-0"), "{plan:#?}");
}
