mod bad_input;
mod classes;
mod expected;
mod flying;
mod joined;
mod repacked;
mod static_pools;
mod surroundings;

use drover_common::catalog;
use serde_json::{Value, json};

use super::*;
use crate::planner::{PlannerSettings, RepackSettings, plan};

fn catalog_of_two() -> InstanceTypes {
    let kind = |name: &str, cpu: &str, price: f64| {
        json!({
            "name": name,
            "labels": {"kubernetes.io/arch": "amd64", "kubernetes.io/os": "linux"},
            "capacity": {"cpu": cpu, "memory": "16Gi", "pods": "58"},
            "offerings": [
                {"zone": "us-east-1a", "capacityType": "on-demand", "price": price},
                {"zone": "us-east-1b", "capacityType": "on-demand", "price": price},
            ],
        })
    };
    let types = [kind("x.large", "4", 0.1), kind("x.xlarge", "8", 0.2)];
    let text = json!({"region": "us-east-1", "instanceTypes": types}).to_string();
    InstanceTypes::File(catalog::parse(&text).unwrap())
}

fn cluster(objects: &[Value]) -> OfflineCluster {
    cluster_with(objects, &catalog_of_two())
}

fn cluster_with(objects: &[Value], types: &InstanceTypes) -> OfflineCluster {
    dump_of(objects).into_cluster(types, &NodeFlags::default(), None)
}

fn dump_of(objects: &[Value]) -> Dump {
    let mut dump = Dump::default();
    for object in objects {
        let text = |field: &str| object[field].as_str().unwrap();
        let kind = DumpKind::of(text("apiVersion"), text("kind")).unwrap();
        dump.add(DumpObject::read(kind, object.clone()).unwrap());
    }
    dump
}

fn answer(cluster: &OfflineCluster) -> Answer {
    let settings = PlannerSettings::default();
    let input = cluster.plan_input(&settings);
    let plan = plan(&input);
    assert_eq!(crate::planner::check::check(&input, &plan), []);
    Answer::of(cluster, &plan, None, 0.0)
}

fn pool(name: &str) -> Value {
    json!({"apiVersion": "karpenter.sh/v1", "kind": "NodePool", "metadata": {"name": name},
        "spec": {"template": {"spec": {"requirements": [], "nodeClassRef":
            {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}}}}})
}

fn pod(name: &str, cpu: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}})
}

fn node(name: &str, labels: Value) -> Value {
    let room = json!({"cpu": "4", "memory": "14Gi", "pods": "58"});
    json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{name}")},
        "status": {"allocatable": room, "capacity": room}})
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let mut place = &mut object;
    for step in parent.split('/').skip(1) {
        place = &mut place[step];
    }
    place[field] = value;
    object
}

#[test]
fn only_kinds_that_say_something_are_read() {
    for (api_version, kind, read) in [
        ("v1", "Pod", true),
        ("policy/v1beta1", "PodDisruptionBudget", true),
        ("apps/v1", "Deployment", true),
        ("batch/v1", "Job", true),
        ("scheduling.k8s.io/v1", "PriorityClass", true),
        ("karpenter.sh/v1", "NodePool", true),
        ("karpenter.sh/v1beta1", "NodePool", false),
        ("v1", "ConfigMap", false),
        ("v1", "Event", false),
        ("example.com/v1", "Pod", false),
        ("", "", false),
    ] {
        assert_eq!(DumpKind::of(api_version, kind).is_some(), read, "{api_version} {kind}");
    }
}

#[test]
fn pods_without_a_node_wait_and_each_is_answered_for() {
    let gates = json!([{"name": "example.com/quota"}]);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u"}]);
    let cluster = cluster(&[
        pool("default"),
        pod("plain", "1"),
        with(pod("gated", "1"), "/spec/schedulingGates", gates),
        with(pod("daemon", "1"), "/metadata/ownerReferences", owner),
        with(pod("nominated", "1"), "/status", json!({"nominatedNodeName": "n1"})),
        with(pod("leaving", "1"), "/metadata/deletionTimestamp", json!("2026-01-01T00:00:00Z")),
        with(pod("ended", "1"), "/status", json!({"phase": "Succeeded"})),
        with(pod("bound", "1"), "/spec/nodeName", json!("nowhere")),
    ]);
    let answer = answer(&cluster);
    assert_eq!(
        (answer.summary.pods, answer.summary.on_new, answer.summary.unschedulable),
        (5, 1, 4)
    );
    let left: Vec<String> = answer
        .unschedulable
        .iter()
        .map(|u| format!("{}: {}", u.pod, u.reasons[0].reason))
        .collect();
    assert_eq!(
        left,
        [
            "default/daemon: it belongs to a DaemonSet or to a node, for which no node is launched",
            "default/gated: its scheduling gates hold it back: example.com/quota",
            "default/leaving: it is being deleted",
            "default/nominated: preemption makes room for it on node n1",
        ]
    );
    assert_eq!(
        cluster.warnings,
        ["Node nowhere is not in the input: pods on it are left out of account"]
    );
    assert_eq!(cluster.now, "2026-01-01T00:00:00Z".parse().unwrap());
}

#[test]
fn the_last_of_two_objects_of_one_name_counts() {
    let gated = with(pod("a", "1"), "/spec/schedulingGates", json!([{"name": "g"}]));
    let first_gated = answer(&cluster(&[pool("default"), gated.clone(), pod("a", "1")]));
    assert_eq!((first_gated.summary.pods, first_gated.summary.on_new), (1, 1));
    let last_gated = answer(&cluster(&[pool("default"), pod("a", "1"), gated]));
    assert_eq!((last_gated.summary.pods, last_gated.summary.unschedulable), (1, 1));
}

#[test]
fn priorities_come_from_classes_told_before_or_after() {
    let class = |name: &str, value: i32, default: bool| {
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value, "globalDefault": default})
    };
    let named =
        |name: &str, class: &str| with(pod(name, "1"), "/spec/priorityClassName", json!(class));
    let cluster = cluster(&[
        pod("plain", "1"),
        named("high", "high"),
        named("system", "system-node-critical"),
        named("dangling", "gone"),
        with(named("stated", "high"), "/spec/priority", json!(7)),
        class("high", 1000, false),
        class("low", 5, true),
    ]);
    let priorities: Vec<(&str, Option<i32>)> = cluster
        .view
        .pods()
        .values()
        .map(|entry| (entry.pod.metadata.name.as_str(), entry.pod.spec.priority))
        .collect();
    assert_eq!(
        priorities,
        [
            ("dangling", None),
            ("high", Some(1000)),
            ("plain", Some(5)),
            ("stated", Some(7)),
            ("system", Some(2_000_001_000)),
        ]
    );
    assert_eq!(
        cluster.warnings,
        ["PriorityClass gone is not in the input: pods that name it get priority 0"]
    );
}

#[test]
fn managed_nodes_count_for_limits_and_deleted_ones_give_up_their_pods() {
    let managed = json!({"karpenter.sh/nodepool": "default",
        "node.kubernetes.io/instance-type": "x.large",
        "karpenter.sh/capacity-type": "on-demand", "topology.kubernetes.io/zone": "us-east-1a"});
    let owner = json!([{"kind": "ReplicaSet", "name": "r", "uid": "u", "controller": true}]);
    let bound = with(pod("moves", "3"), "/spec/nodeName", json!("n1"));
    let deleted = json!("2026-01-01T00:00:00Z");
    let cluster = cluster(&[
        with(pool("default"), "/spec/limits", json!({"cpu": "12"})),
        with(node("n1", managed.clone()), "/metadata/deletionTimestamp", deleted),
        node("n2", managed),
        node("n3", json!({})),
        with(bound, "/metadata/ownerReferences", owner),
        pod("first", "3500m"),
        pod("second", "3500m"),
        pod("third", "3500m"),
    ]);
    assert_eq!(cluster.leaving.iter().map(NodeName::as_str).collect::<Vec<_>>(), ["n1"]);
    let usage = cluster.pool_usage.values().next().unwrap();
    assert_eq!(usage.to_string(), "cpu: 8, memory: 28Gi, pods: 116, nodes: 2");
    let answer = answer(&cluster);
    // Two on n2 and n3, one on the one node that the limit leaves.
    assert_eq!((answer.summary.pods, answer.summary.on_existing, answer.summary.on_new), (4, 2, 1));
    assert_eq!(answer.summary.unschedulable, 1);
    let fleet = Fleet::of(&cluster, &plan(&cluster.plan_input(&PlannerSettings::default())));
    assert_eq!(fleet.prices(), (200_000, 200_000));
}

#[test]
fn devices_count_for_limits_before_their_plugin_runs() {
    let claim = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "new", "labels": {"karpenter.sh/nodepool": "default"}},
        "spec": {"requirements": [], "nodeClassRef":
            {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
        "status": {"nodeName": "n1", "providerID": "aws:///us-east-1a/i-n1",
            "capacity": {"cpu": "9", "nvidia.com/gpu": "4"}}});
    let starting = cluster(&[
        pool("default"),
        claim.clone(),
        node("n1", json!({"karpenter.sh/nodepool": "default"})),
    ]);
    let usage = starting.pool_usage.values().next().unwrap();
    assert_eq!(usage.get(&"nvidia.com/gpu".into()), 4);
    assert_eq!(usage.get(&"cpu".into()), 4_000, "what the node tells counts as it is");
    let up = cluster(&[
        pool("default"),
        claim,
        node("n1", json!({"karpenter.sh/nodepool": "default", "karpenter.sh/initialized": "true"})),
    ]);
    let usage = up.pool_usage.values().next().unwrap();
    assert_eq!(usage.get(&"nvidia.com/gpu".into()), 0);
}

#[test]
fn claims_without_a_node_take_pods() {
    let claim = |name: &str, status: Value| {
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": name, "labels": {"karpenter.sh/nodepool": "default"}},
            "spec": {"requirements": [{"key": "node.kubernetes.io/instance-type", "operator": "In",
                "values": ["x.large", "x.xlarge"]}], "nodeClassRef":
                {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}},
            "status": status})
    };
    let cluster = cluster(&[
        pool("default"),
        claim("new", json!({})),
        claim("there", json!({"nodeName": "n1", "providerID": "aws:///us-east-1a/i-n1"})),
        node("n1", json!({"karpenter.sh/nodepool": "default", "karpenter.sh/initialized": "true"})),
        pod("a", "3"),
        pod("b", "3"),
    ]);
    let flying: Vec<&str> = cluster.in_flight.iter().map(|node| node.claim.as_str()).collect();
    assert_eq!(flying, ["new"]);
    let usage = cluster.pool_usage.values().next().unwrap();
    assert_eq!(usage.get(&"nodes".into()), 2);
    assert_eq!(usage.get(&"cpu".into()), 12_000, "the larger of what the claim may become");
    let answer = answer(&cluster);
    assert_eq!((answer.summary.on_existing, answer.summary.on_new), (2, 0));
    let claims: Vec<Option<&str>> =
        answer.placements.iter().map(|placement| placement.node_claim.as_deref()).collect();
    assert_eq!(claims, [None, Some("new")]);
}

#[test]
fn zones_that_claims_do_not_speak_of_are_open() {
    let claim = json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
        "metadata": {"name": "new", "labels": {"karpenter.sh/nodepool": "default"}},
        "spec": {"requirements": [], "nodeClassRef":
            {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "default"}}});
    let zone = "topology.kubernetes.io/zone";
    let not_b = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions":
            [{"key": zone, "operator": "NotIn", "values": ["us-east-1b"]}]}]}}});
    let api = |key: &str| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution":
            [{"labelSelector": {"matchLabels": {"app": "api"}}, "topologyKey": key}]})
    };
    let near = json!({"podAffinity": api(zone), "podAntiAffinity": api("kubernetes.io/hostname")});
    let labelled = |name: &str| with(pod(name, "1"), "/metadata/labels", json!({"app": "api"}));
    let cluster = cluster(&[
        pool("default"),
        claim,
        with(pod("not-b", "1"), "/spec/affinity", not_b),
        labelled("free"),
        with(labelled("near-0"), "/spec/affinity", near.clone()),
        with(labelled("near-1"), "/spec/affinity", near),
        pod("any", "1"),
    ]);
    let answer = answer(&cluster);
    assert_eq!(answer.summary.unschedulable, 0);
    let on_claim: Vec<&str> =
        answer.placements.iter().flat_map(|p| &p.pods).map(String::as_str).collect();
    assert_eq!(on_claim, ["default/any"], "the others' zones matter");
}

#[test]
fn a_claim_of_which_nothing_is_known_takes_no_pods() {
    let claim = |name: &str, labels: Value| {
        json!({"apiVersion": "karpenter.sh/v1", "kind": "NodeClaim",
            "metadata": {"name": name, "labels": labels},
            "spec": {"requirements": [], "nodeClassRef":
                {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "gone"}},
            "status": {"allocatable": {"cpu": "4", "memory": "14Gi", "pods": "58"}}})
    };
    let known =
        json!({"karpenter.sh/nodepool": "default", "topology.kubernetes.io/zone": "us-east-1a"});
    let cluster = cluster(&[
        pool("default"),
        claim("lost", json!({"karpenter.sh/nodepool": "default"})),
        claim("placed", known),
        pod("any", "1"),
    ]);
    let flying: Vec<&str> = cluster.in_flight.iter().map(|node| node.claim.as_str()).collect();
    assert_eq!(flying, ["placed"]);
    let told = cluster.warnings.iter().filter(|warning| warning.starts_with("NodeClaim lost says"));
    assert_eq!(told.count(), 1, "{:?}", cluster.warnings);
    assert_eq!(answer(&cluster).placements[0].node_claim.as_deref(), Some("placed"));
}

#[test]
fn classes_narrow_the_catalogue_and_missing_ones_are_named() {
    let class = json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"},
        "spec": {"amiSelectorTerms": [{"alias": "al2023@latest"}], "role": "r",
            "subnetSelectorTerms": [{"id": "subnet-1"}],
            "securityGroupSelectorTerms": [{"id": "sg-1"}], "kubelet": {"maxPods": 8}},
        "status": {"subnets": [{"id": "subnet-1", "zone": "us-east-1b"}]}});
    let mut other = pool("other");
    other["spec"]["template"]["spec"]["nodeClassRef"]["name"] = json!("gone");
    let cluster = cluster(&[class, pool("default"), other, pod("a", "1")]);
    let types = &cluster.catalogs["default"].instance_types;
    assert!(types.iter().all(|kind| kind.offerings.iter().all(|o| o.zone == "us-east-1b")));
    assert!(types.iter().all(|kind| kind.allocatable.get(&"pods".into()) == 8));
    assert_eq!(answer(&cluster).launches[0].zones, ["us-east-1b"]);
    let none = cluster_with(
        &[
            with(pool("default"), "/spec/template/spec/nodeClassRef/name", json!("gone")),
            json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
            "metadata": {"name": "default"}, "spec": {"amiSelectorTerms": [],
            "subnetSelectorTerms": [], "securityGroupSelectorTerms": []}}),
            pod("a", "1"),
        ],
        &catalog_of_two(),
    );
    assert_eq!(
        answer(&none).unschedulable[0].reasons[0].reason,
        "EC2NodeClass gone is not there or not ready"
    );
}

#[test]
fn reserved_capacity_of_a_catalogue_is_left_out() {
    let offering =
        |kind: &str, price: f64| json!({"zone": "a", "capacityType": kind, "price": price});
    let text = json!({"instanceTypes": [{"name": "x.large", "labels": {},
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "58"},
        "offerings": [offering("reserved", 0.0), offering("on-demand", 0.1)]}]});
    let types = InstanceTypes::File(catalog::parse(&text.to_string()).unwrap());
    let class = json!({"apiVersion": "karpenter.k8s.aws/v1", "kind": "EC2NodeClass",
        "metadata": {"name": "default"}, "spec": {"amiSelectorTerms": [{"alias": "al2023@latest"}],
            "role": "r", "subnetSelectorTerms": [], "securityGroupSelectorTerms": []}});
    for classes in [vec![], vec![class]] {
        let objects = [vec![pool("default"), pod("a", "1")], classes].concat();
        let cluster = cluster_with(&objects, &types);
        assert_eq!(cluster.warnings.len(), 1, "{:?}", cluster.warnings);
        assert!(cluster.warnings[0].starts_with("1 offerings of the catalogue are reserved"));
        let answer = answer(&cluster);
        assert_eq!(answer.launches[0].capacity_type, "on-demand");
        assert_eq!(answer.summary.hourly_cost, 0.1);
        let flags = NodeFlags { reserved_capacity: false, ..NodeFlags::default() };
        let off = dump_of(&objects).into_cluster(&types, &flags, None);
        assert_eq!(off.warnings, [] as [&str; 0], "leaders would not use it either");
    }
}

#[test]
fn nothing_but_reserved_capacity_is_free() {
    let offering = |zone: &str, kind: &str, price: Value| json!({"zone": zone, "capacityType": kind, "price": price});
    let text = json!({"instanceTypes": [{"name": "x.large", "labels": {},
        "capacity": {"cpu": "4", "memory": "16Gi", "pods": "58"}, "offerings": [
            offering("a", "spot", json!(0)), offering("a", "on-demand", json!(0.1)),
            offering("b", "on-demand", Value::Null)]}]});
    let types = InstanceTypes::File(catalog::parse(&text.to_string()).unwrap());
    let cluster = cluster_with(&[pool("default"), pod("a", "1")], &types);
    assert_eq!(cluster.warnings.len(), 1, "{:?}", cluster.warnings);
    assert!(cluster.warnings[0].starts_with("2 offerings have no price"), "{:?}", cluster.warnings);
    let answer = answer(&cluster);
    assert_eq!(answer.launches[0].capacity_type, "on-demand");
    assert_eq!(answer.summary.hourly_cost, 0.1);
}

#[test]
fn an_empty_reserved_node_is_taken_down_like_any_other() {
    let managed = json!({"karpenter.sh/nodepool": "default",
        "node.kubernetes.io/instance-type": "x.large",
        "karpenter.sh/capacity-type": "reserved", "topology.kubernetes.io/zone": "us-east-1a"});
    let free = json!({"budgets": [{"nodes": "100%"}]});
    let all = [with(pool("default"), "/spec/disruption", free), node("n1", managed)];
    let cluster = cluster(&all);
    let settings = PlannerSettings::default();
    let made = plan(&cluster.plan_input(&settings));
    let repack = cluster.repack(&settings, &RepackSettings::default(), &made);
    let nodes: Vec<&str> =
        repack.batches.iter().flat_map(|batch| &batch.nodes).map(|node| node.as_str()).collect();
    assert_eq!(nodes, ["n1"], "{:?}", repack.left);
}

#[test]
fn what_is_too_large_to_count_is_a_reason() {
    let huge = pod("huge", &"9".repeat(30));
    let answer = answer(&cluster(&[pool("default"), huge]));
    assert_eq!(answer.summary.unschedulable, 1);
}

#[test]
fn a_pool_that_contradicts_itself_is_refused_by_field() {
    let twice = json!([{"key": "a", "effect": "NoSchedule"}, {"key": "a", "effect": "NoSchedule"}]);
    let bad = with(pool("bad"), "/spec/template/spec/taints", twice);
    let answer = answer(&cluster(&[bad, pod("a", "1")]));
    let reason = &answer.unschedulable[0].reasons[0];
    assert_eq!(reason.node_pool, "bad");
    assert_eq!(
        reason.reason,
        "the NodePool is not valid: spec.template.spec.taints[1]: a:NoSchedule is given more than once"
    );
}

#[test]
fn a_repack_moves_pods_that_tell_no_owner_and_leaves_nodes_that_waiting_pods_need() {
    let managed = json!({"karpenter.sh/nodepool": "default",
        "node.kubernetes.io/instance-type": "x.large",
        "karpenter.sh/capacity-type": "on-demand", "topology.kubernetes.io/zone": "us-east-1a"});
    let free = json!({"budgets": [{"nodes": "100%"}]});
    let bound = |name: &str, node: &str| with(pod(name, "1"), "/spec/nodeName", json!(node));
    let all = [
        with(pool("default"), "/spec/disruption", free),
        node("n1", managed.clone()),
        node("n2", managed.clone()),
        node("n3", managed),
        bound("a", "n1"),
        bound("b", "n2"),
    ];
    let settings = PlannerSettings::default();
    let told = |cluster: &OfflineCluster| {
        let made = plan(&cluster.plan_input(&settings));
        let repack = cluster.repack(&settings, &RepackSettings::default(), &made);
        assert_eq!(repack.report.problems, Vec::<String>::new());
        let answer = Answer::of(cluster, &made, Some(&repack), 0.0);
        let (now, after) = Fleet::repacked(cluster, &made, &repack).prices();
        let disruptions = serde_json::to_string(&answer.disruptions).unwrap();
        format!("{now} -> {after}\n{disruptions}")
    };
    let mut busy = all.to_vec();
    busy.push(pod("waits", "3500m"));
    let both = format!("{}\n\n{}", told(&cluster(&all)), told(&cluster(&busy)));
    insta::assert_snapshot!(both);
}
