//! DaemonSets: their room is kept on every node they will run on.

use serde_json::{Value, json};

use super::world::World;
use drover_common::call::Kind;
use drover_common::cluster::ObjectKey;
use drover_common::resources::ResourceName;

fn daemon(name: &str, cpu: &str, spec: Value) -> Value {
    let mut pod = json!({"containers": [
        {"name": "d", "resources": {"requests": {"cpu": cpu, "memory": "512Mi"}}}]});
    super::world::merge(&mut pod, spec);
    json!({"metadata": {"name": name, "namespace": "kube-system"},
        "spec": {"template": {"metadata": {"labels": {"app": name}}, "spec": pod}}})
}

#[test]
fn every_daemon_that_will_run_there_takes_its_room() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.object(Kind::DaemonSet, daemon("log", "1", json!({})));
    let on_gpus =
        json!({"nodeSelector": {"karpenter.k8s.aws/instance-gpu-manufacturer": "nvidia"}});
    world.object(Kind::DaemonSet, daemon("gpu", "16", on_gpus));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn a_daemon_that_selects_a_pool_or_its_labels_takes_its_room_there() {
    let plan = |selector: Value| {
        let mut world = World::small();
        let labels = json!({"template": {"metadata": {"labels": {"team": "a"}}}});
        world.pool("default", json!([]), labels);
        world.object(Kind::DaemonSet, daemon("log", "1", json!({"nodeSelector": selector})));
        world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({}));
        let story = world.story();
        story.split_once("---").expect("the plan follows the world").1.to_owned()
    };
    let everywhere = plan(json!({}));
    assert_eq!(plan(json!({"karpenter.sh/nodepool": "default"})), everywhere);
    assert_eq!(plan(json!({"team": "a"})), everywhere);
    assert_ne!(plan(json!({"team": "b"})), everywhere);
}

#[test]
fn a_pool_whose_taint_a_daemon_does_not_tolerate_has_none_of_it() {
    let mut world = World::small();
    let taint = json!({"template": {"spec": {"taints": [{"key": "own", "effect": "NoSchedule"}]}}});
    world.pool("default", json!([]), taint);
    world.object(Kind::DaemonSet, daemon("log", "1", json!({})));
    let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
    world.object(Kind::DaemonSet, daemon("cni", "250m", tolerant.clone()));
    let pod = json!({"spec": tolerant});
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), pod);
    insta::assert_snapshot!(world.story());
}

#[test]
fn on_nodes_that_are_there_only_those_still_to_come_are_kept_room_for() {
    let mut world = World::small();
    world.node("n1", "m5.large", "us-east-1a");
    world.object(Kind::DaemonSet, daemon("log", "500m", json!({})));
    world.object(Kind::DaemonSet, daemon("cni", "500m", json!({})));
    world.object(
        Kind::Pod,
        json!({
            "metadata": {"name": "log-x", "namespace": "kube-system", "ownerReferences": [
                {"kind": "DaemonSet", "name": "log", "controller": true}]},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "d", "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}}}]},
            "status": {"phase": "Running"},
        }),
    );
    world.pods("web", 3, json!({"cpu": "450m", "memory": "256Mi"}), json!({}));
    insta::assert_snapshot!(world.story());
}

/// The vCPUs of the node that a pod gets who leaves room for no more beside it on two.
fn vcpus_beside(selector: Value, billing: &str, pod: Value) -> u32 {
    let mut world = World::small();
    let billed = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": [billing]},
        {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["m5"]}]);
    world.pool("default", billed, json!({}));
    world.object(Kind::DaemonSet, daemon("log", "1", selector));
    world.pods("web", 1, json!({"cpu": "1500m", "memory": "1Gi"}), json!({"spec": pod}));
    let plan = world.plan();
    assert_eq!((plan.launches.len(), plan.unschedulable.len()), (1, 0));
    let size = |name: &str| match name {
        "m5.large" => 2,
        "m5.xlarge" => 4,
        _ => 8,
    };
    let types = plan.launches[0].offerings.iter().map(|one| size(&one.instance_type));
    types.min().expect("a launch has types")
}

#[test]
fn a_daemon_of_one_zone_or_billing_takes_its_room_there_alone() {
    let zone = |zone: &str| json!({"nodeSelector": {"topology.kubernetes.io/zone": zone}});
    let on_demand = |selector: Value, pod: Value| vcpus_beside(selector, "on-demand", pod);
    assert_eq!(on_demand(zone("us-east-1a"), zone("us-east-1a")), 4);
    assert_eq!(on_demand(zone("us-east-1a"), zone("us-east-1b")), 2);
    assert_eq!(on_demand(zone("us-east-1a"), json!({})), 2, "there are other zones");
    let not_there = json!({"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "topology.kubernetes.io/zone", "operator": "NotIn",
                "values": ["us-east-1a"]}]}]}}}});
    assert_eq!(on_demand(not_there.clone(), zone("us-east-1a")), 2);
    assert_eq!(on_demand(not_there, zone("us-east-1b")), 4);
    let billing = |billing: &str| json!({"nodeSelector": {"karpenter.sh/capacity-type": billing}});
    assert_eq!(on_demand(billing("spot"), json!({})), 2);
    assert_eq!(on_demand(billing("on-demand"), json!({})), 4);
    assert_eq!(vcpus_beside(billing("spot"), "spot", json!({})), 4);
}

/// Whatever the node becomes, wherever: a type is not listed beside a zone in which the daemon has the port.
#[test]
fn a_type_whose_daemon_has_the_port_in_one_zone_is_listed_for_none() {
    let mut world = World::small();
    let small = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]},
        {"key": "node.kubernetes.io/instance-type", "operator": "In",
            "values": ["m5.large", "m5.xlarge"]}]);
    world.pool("default", small, json!({}));
    let ports = json!([{"name": "d", "ports": [{"hostPort": 80}]}]);
    let there = json!({"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1a",
        "node.kubernetes.io/instance-type": "m5.xlarge"}, "containers": ports});
    world.object(Kind::DaemonSet, daemon("proxy", "100m", there));
    world.pods("web", 1, json!({"cpu": "1"}), json!({"spec": {"containers": ports}}));
    let plan = world.plan();
    let types = plan.launches[0].offerings.iter().map(|one| one.instance_type.as_str());
    assert!(types.into_iter().all(|name| name == "m5.large"), "{:?}", plan.launches[0].offerings);
    assert!(plan.launches[0].zones.iter().any(|zone| zone == "us-east-1a"));
}

/// The cheapest type holds pod and daemon in the daemon's zone, too; the others do not.
#[test]
fn a_spot_launch_gives_up_a_zone_for_types_that_fit_in_the_others() {
    let listed = |daemons: &str| {
        let mut world = World::small();
        let types = json!(["r5.large", "m5.large", "c5.xlarge", "m6g.large"]);
        world.pool(
            "default",
            json!([
            {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]},
            {"key": "node.kubernetes.io/instance-type", "operator": "In", "values": types}]),
            json!({}),
        );
        let there = json!({"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1a"},
            "containers": [{"name": "d", "resources": {"requests": {"memory": daemons}}}]});
        world.object(Kind::DaemonSet, daemon("log", "10m", there));
        let cheap = json!({"metadata": {"name": "cheap"}, "spec": {"priceAdjustment": "-80%",
            "requirements": [{"key": "node.kubernetes.io/instance-type", "operator": "In", "values": ["r5.large"]}]}});
        world.object(Kind::NodeOverlay, cheap);
        world.pods("web", 1, json!({"cpu": "500m", "memory": "5Gi"}), json!({}));
        let plan = world.plan();
        let launch = &plan.launches[0];
        let types: std::collections::BTreeSet<_> =
            launch.offerings.iter().map(|one| one.instance_type.as_str().to_owned()).collect();
        (types.len(), launch.zones.iter().any(|zone| zone == "us-east-1a"))
    };
    assert_eq!(listed("128Mi"), (4, true));
    assert_eq!(listed("4Gi"), (4, false));
}

#[test]
fn a_daemon_of_a_reservation_takes_its_room_there() {
    let reserved = |selector: Value| {
        let mut world = World::small();
        let both = json!([{"key": "karpenter.sh/capacity-type", "operator": "In",
            "values": ["reserved", "on-demand"]}]);
        world.pool("default", both, json!({}));
        world.reservation("cr-1", "m5.xlarge", "us-east-1a", 2);
        world.object(Kind::DaemonSet, daemon("log", "1", json!({"nodeSelector": selector})));
        world.pods("web", 1, json!({"cpu": "3", "memory": "8Gi"}), json!({}));
        world.plan().launches[0].reservation.is_some()
    };
    assert!(reserved(json!({"karpenter.k8s.aws/capacity-reservation-id": "cr-2"})));
    assert!(!reserved(json!({"karpenter.k8s.aws/capacity-reservation-id": "cr-1"})));
    assert!(!reserved(json!({"karpenter.k8s.aws/capacity-reservation-type": "default"})));
}

/// What nobody who waits asks for is not looked at: such a daemon waits there as well.
#[test]
fn a_daemon_that_has_no_room_keeps_no_pod_away() {
    let world = |pool: Value| {
        let mut world = World::small();
        let small = json!([
            {"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["c5"]},
            {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Lt", "values": ["3"]}]);
        world.pool("default", small, pool);
        let large = json!({"containers": [
            {"name": "d", "resources": {"requests": {"memory": "6Gi"}}}]});
        world.object(Kind::DaemonSet, daemon("large", "1m", large));
        world
    };
    let mut waiting = world(json!({}));
    waiting.pods("web", 1, json!({"cpu": "100m"}), json!({}));
    let plan = waiting.plan();
    assert_eq!((plan.unschedulable.len(), plan.launches.len()), (0, 1));
    let fixed = world(json!({"replicas": 1}));
    let plan = crate::planner::plan_static(&fixed.input(), &"default".into(), 1);
    assert_eq!(plan.map(|launches| launches.len()), Ok(1));
}

/// A zone in which the daemon has the pods' port, and no spot, though somebody's node could be there on demand.
#[test]
fn a_zone_that_planned_nodes_would_be_in_by_another_billing_alone_holds_no_spread_back() {
    let mut world = World::small();
    world.pool(
        "default",
        json!([{"key": "topology.kubernetes.io/zone", "operator": "In",
        "values": ["us-east-1a", "us-east-1b", "us-east-1c"]}]),
        json!({}),
    );
    let ports = json!([{"name": "d", "ports": [{"hostPort": 7000}]}]);
    let there = json!({"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1c"},
        "containers": ports});
    world.object(Kind::DaemonSet, daemon("proxy", "100m", there));
    let refused = crate::planner::UnavailableOffering {
        capacity_type: drover_common::instance_type::CapacityType::Spot,
        instance_type: None,
        zone: Some("us-east-1c".to_owned()),
        reservation: None,
    };
    world.unavailable.insert(refused, "2026-01-01T14:03:00Z".parse().unwrap());
    let spread = json!({"spec": {"containers": ports, "topologySpreadConstraints": [{"maxSkew": 1,
        "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}}}]}});
    world.pods("web", 3, json!({"cpu": "50m", "memory": "64Mi"}), spread);
    world.pods("gpu", 3, json!({"cpu": "50m", "memory": "64Mi", "nvidia.com/gpu": "1"}), json!({}));
    let plan = world.plan();
    assert_eq!(plan.unschedulable.len(), 0, "{:?}", plan.unschedulable);
}

#[test]
fn a_daemon_takes_what_its_pods_were_given_and_not_what_its_template_says() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world.node("n1", "m5.large", "us-east-1a");
    let mut bare = daemon("log", "0", json!({}));
    bare["spec"]["template"]["spec"]["containers"] = json!([{"name": "d"}]);
    world.object(Kind::DaemonSet, bare);
    let owner = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "log", "uid": "u",
        "controller": true}]);
    for (name, made, cpu) in
        [("log-a", "2026-01-01T00:00:00Z", "1500m"), ("log-b", "2026-01-02T00:00:00Z", "500m")]
    {
        world.object(
            Kind::Pod,
            json!({
            "metadata": {"name": name, "namespace": "kube-system", "ownerReferences": owner,
                "creationTimestamp": made},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "d", "resources": {"requests": {"cpu": cpu, "memory": "500Mi"}}}]},
            "status": {"phase": "Running"}}),
        );
    }
    let seen = world.input().view.daemon_requests(&ObjectKey::new("kube-system", "log"));
    let cpu = seen.unwrap().get(&ResourceName::Cpu);
    assert_eq!(cpu, 500, "that of the youngest");
    let placed = |world: &World| {
        let plan = world.plan();
        plan.launches.iter().map(|l| l.offerings[0].instance_type.to_string()).collect::<Vec<_>>()
    };
    world.pods("web", 1, json!({"cpu": "1800m", "memory": "1Gi"}), json!({}));
    let with_room = placed(&world);
    assert_eq!(with_room.len(), 1);
    let kind = super::world::all_types().iter().find(|t| t.name == with_room[0]).unwrap();
    let cpu = kind.allocatable.get(&ResourceName::Cpu);
    assert!(cpu >= 2_300, "{} has {cpu}m", kind.name);
}
