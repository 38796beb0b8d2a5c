//! Consolidation after what was planned for pods.

use serde_json::{Value, json};

use super::{cluster, node, pod, pool, with};
use crate::offline::{AnsweredDisruption, OfflineCluster};
use crate::planner::{Batch, Plan, PlannerSettings, RepackPlan, RepackSettings, plan};

fn managed(kind: &str) -> Value {
    json!({"karpenter.sh/nodepool": "default", "node.kubernetes.io/instance-type": kind,
        "karpenter.sh/capacity-type": "on-demand", "topology.kubernetes.io/zone": "us-east-1a"})
}

fn bound(name: &str, cpu: &str, node: &str) -> Value {
    with(pod(name, cpu), "/spec/nodeName", json!(node))
}

/// The pool, with a limit and no budget.
fn limited(limits: Value) -> Value {
    let free = json!({"budgets": [{"nodes": "100%"}]});
    with(with(pool("default"), "/spec/disruption", free), "/spec/limits", limits)
}

fn both(cluster: &OfflineCluster) -> (Plan, RepackPlan) {
    both_with(cluster, &RepackSettings::default())
}

fn both_with(cluster: &OfflineCluster, of_repack: &RepackSettings) -> (Plan, RepackPlan) {
    let settings = PlannerSettings::default();
    let made = plan(&cluster.plan_input(&settings));
    let repack = cluster.repack(&settings, of_repack, &made);
    assert_eq!(repack.report.problems, Vec::<String>::new());
    (made, repack)
}

fn launched((made, repack): &(Plan, RepackPlan)) -> (usize, usize) {
    let replacements = repack.batches.iter().map(|batch| batch.replacements.len());
    (made.launches.len(), replacements.sum())
}

#[test]
fn what_was_just_launched_counts_for_limits() {
    let dear = node("n1", managed("x.xlarge"));
    let objects = |limits: Value| {
        [limited(limits), dear.clone(), bound("stays", "3", "n1"), pod("new", "3500m")]
    };
    assert_eq!(launched(&both(&cluster(&objects(json!({"nodes": "3"}))))), (1, 1));
    assert_eq!(launched(&both(&cluster(&objects(json!({"nodes": "2"}))))), (1, 0));
    // n1 has 4 cores by its status, what is launched may have 8, and the replacement 4.
    assert_eq!(launched(&both(&cluster(&objects(json!({"cpu": "16"}))))), (1, 1));
    assert_eq!(launched(&both(&cluster(&objects(json!({"cpu": "15"}))))), (1, 0));
}

#[test]
fn what_was_just_launched_holds_its_pods() {
    let zone = "topology.kubernetes.io/zone";
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        [{"topologyKey": zone, "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    let web = |object: Value| {
        let labelled = with(object, "/metadata/labels", json!({"app": "web"}));
        with(labelled, "/spec/affinity", apart.clone())
    };
    let mut in_b = managed("x.xlarge");
    in_b[zone] = json!("us-east-1b");
    let only_a = json!({zone: "us-east-1a"});
    let objects = [
        limited(json!({})),
        node("n1", in_b),
        web(bound("stays", "3", "n1")),
        with(web(pod("new", "3500m")), "/spec/nodeSelector", only_a),
    ];
    let (made, repack) = both(&cluster(&objects));
    assert_eq!(made.launches[0].zones, ["us-east-1a"]);
    assert_eq!(repack.batches[0].replacements[0].zones, ["us-east-1b"]);
}

#[test]
fn an_answer_tells_what_comes_after_what() {
    let first = AnsweredDisruption::of(&Batch::default());
    assert_eq!((first.wave, first.follows), (1, false));
    let later = AnsweredDisruption::of(&Batch { wave: 1, follows: true, ..Batch::default() });
    assert_eq!((later.wave, later.follows), (2, true));
}

#[test]
fn what_must_be_saved_is_a_leaders_setting() {
    let objects = [limited(json!({})), node("n1", managed("x.xlarge")), bound("stays", "3", "n1")];
    let cluster = cluster(&objects);
    let with_least = |min_saving_percent| {
        let settings = RepackSettings { min_saving_percent, ..RepackSettings::default() };
        both_with(&cluster, &settings).1.batches.len()
    };
    // The replacement costs half as much.
    assert_eq!((with_least(50), with_least(51)), (1, 0));
}

#[test]
fn room_of_a_buffer_holds_no_node() {
    let template = json!({"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "chunk"},
        "template": {"spec": {"containers": [
            {"name": "c", "resources": {"requests": {"cpu": "500m"}}}]}}});
    let buffer = json!({"apiVersion": "autoscaling.x-k8s.io/v1beta1", "kind": "CapacityBuffer",
        "metadata": {"name": "spare"}, "spec": {"provisioningStrategy":
            "buffer.x-k8s.io/active-capacity", "podTemplateRef": {"name": "chunk"}, "replicas": 1}});
    let large = node("large", managed("x.xlarge"));
    let cluster =
        cluster(&[limited(json!({})), large, bound("web", "500m", "large"), template, buffer]);
    let (made, repack) = both(&cluster);
    assert_eq!(made.placements.len(), 1, "its room is on the node");
    assert_eq!(repack.report.removed, 1, "{:?}", repack.left);
    // What goes for it has room for both.
    let launch = &repack.batches[0].replacements[0];
    assert!(launch.requests.to_string().contains("cpu: 1,"), "{}", launch.requests);
}
