//! Room that CapacityBuffers keep free.

use drover_common::call::Kind;
use drover_common::cluster::ClusterObject;
use drover_common::instance_type::CapacityType;
use serde_json::json;

use super::cluster::Cluster;
use super::small;
use crate::planner::VirtualPods;

/// Room for one small pod more.
fn keep_room(cluster: &mut Cluster, cpu: &str) {
    let like = json!({"metadata": {"name": "buffer", "namespace": "default"}, "spec": {"containers": [
        {"name": "main", "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}}}]}});
    let like = ClusterObject::from_json(Kind::Pod, like).unwrap();
    let ClusterObject::Pod(like) = like else { unreachable!() };
    let room = VirtualPods { keep_room: true, ..VirtualPods::like(&like, "buffer", 1) };
    cluster.world.virtual_pods.push(room);
}

#[test]
fn room_that_is_kept_free_moves_with_the_pods_of_its_node() {
    let mut cluster = Cluster::new(json!({}));
    cluster.node("big", "m5.4xlarge", "us-east-1b", CapacityType::OnDemand);
    cluster.world.running("web-0", "web", "big", small());
    keep_room(&mut cluster, "3");
    let plan = cluster.repack();
    assert_eq!((plan.batches.len(), plan.report.moves), (1, 1), "{plan:?}");
    let replacement = &plan.batches[0].replacements[0];
    let pods: Vec<&str> = replacement.pods.iter().map(|pod| pod.name.as_str()).collect();
    assert_eq!(pods, ["buffer#0", "web-0"]);
}

#[test]
fn a_node_stays_where_its_pods_but_not_the_room_it_keeps_would_fit_elsewhere() {
    let removed = |cpu: &str| {
        let only = json!([
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["m6g.large"]},
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]);
        let mut cluster = Cluster::with_requirements(only, json!({}));
        cluster.node("a", "m6g.large", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running("web-0", "web", "a", small());
        cluster.node("b", "m6g.large", "us-east-1a", CapacityType::OnDemand);
        cluster.world.running("web-1", "web", "b", small());
        keep_room(&mut cluster, cpu);
        let plan = cluster.repack();
        (plan.report.removed, plan.report.launched)
    };
    assert_eq!(removed("400m"), (1, 0));
    assert_eq!(removed("1200m"), (0, 0));
}
