//! A cluster from the numbers of a case.

use drover_common::call::Kind;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use serde_json::json;

use super::rule::rule;
use super::{App, Case};
use crate::planner::UnavailableOffering;
use crate::planner::tests::world::{World, all_types, merge};

pub(super) const RESERVABLE: [&str; 5] =
    ["m5.large", "c5.2xlarge", "m6g.xlarge", "g5.xlarge", "r5.24xlarge"];
pub(super) const ZONES: [&str; 3] = ["us-east-1a", "us-east-1b", "us-east-1c"];

fn pools(world: &mut World, bits: usize) {
    let zones = json!([{"key": labels::ZONE, "operator": "In", "values": ZONES}]);
    let mut general = zones.clone();
    if bits & 1 != 0 {
        general.as_array_mut().unwrap().push(json!({"key": "karpenter.k8s.aws/instance-family",
            "operator": "Exists", "minValues": 3}));
    }
    world.pool("default", general, json!({}));
    if bits & 2 != 0 {
        let batch = json!({"weight": 10, "limits": {"cpu": "24", "nodes": "4"},
            "template": {"spec": {"taints": [{"key": "batch", "effect": "NoSchedule"}]}}});
        let teams = json!([{"key": "team", "operator": "In", "values": ["red", "blue"]},
            {"key": labels::ZONE, "operator": "In", "values": [ZONES[0], ZONES[1]]}]);
        world.pool("batch", teams, batch);
    }
    if bits & 4 != 0 {
        let soft = json!({"weight": 5,
            "template": {"spec": {"taints": [{"key": "old", "effect": "PreferNoSchedule"}]}}});
        world.pool("soft", zones, soft);
    }
    if bits & 8 != 0 {
        overlay(world, "extra", &[("karpenter.k8s.aws/instance-family", "m5")], "-30%");
    }
    if bits & 12 == 12 {
        let here = [("karpenter.k8s.aws/instance-family", "c5"), (labels::ZONE, ZONES[1])];
        overlay(world, "here", &here, "+10%");
        overlay(world, "spot", &[(labels::CAPACITY_TYPE, "spot")], "-1%");
    }
}

fn overlay(world: &mut World, name: &str, requirements: &[(&str, &str)], price: &str) {
    let requirements: Vec<serde_json::Value> = requirements
        .iter()
        .map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]}))
        .collect();
    world.object(
        Kind::NodeOverlay,
        json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay", "metadata": {"name": name},
            "spec": {"requirements": requirements, "priceAdjustment": price,
                "capacity": {"example.com/slot": "3"}},
        }),
    );
}

/// With `others`, one volume is known by its label alone, one is of the in-tree plugin, and claims of the first are for
/// one pod each.
fn storage(world: &mut World, others: bool) {
    world.object(
        Kind::StorageClass,
        json!({
            "metadata": {"name": "zonal"}, "provisioner": "ebs.csi.aws.com",
            "volumeBindingMode": "WaitForFirstConsumer",
            "allowedTopologies": [{"matchLabelExpressions": [
                {"key": "topology.ebs.csi.aws.com/zone", "values": [ZONES[1], ZONES[2]]}]}],
        }),
    );
    for (number, zone) in ZONES.iter().enumerate() {
        let mut volume = json!({
            "metadata": {"name": format!("pv-{number}")},
            "spec": {"csi": {"driver": "ebs.csi.aws.com"}, "nodeAffinity": {"required": {
                "nodeSelectorTerms": [{"matchExpressions": [
                    {"key": labels::ZONE, "operator": "In", "values": [zone]}]}]}}},
        });
        match (others, number) {
            (true, 1) => {
                volume["metadata"]["labels"] = json!({(labels::ZONE): zone});
                volume["spec"].as_object_mut().unwrap().remove("nodeAffinity");
            }
            (true, 2) => {
                volume["spec"].as_object_mut().unwrap().remove("csi");
                volume["spec"]["awsElasticBlockStore"] = json!({"volumeID": "vol-2"});
            }
            _ => {}
        }
        world.object(Kind::PersistentVolume, volume);
        let modes = if others && number == 0 { "ReadWriteOncePod" } else { "ReadWriteOnce" };
        world.object(
            Kind::PersistentVolumeClaim,
            json!({
                "metadata": {"name": format!("bound-{number}"), "namespace": "default"},
                "spec": {"volumeName": format!("pv-{number}"), "accessModes": [modes]},
                "status": {"phase": "Bound"},
            }),
        );
        world.object(
            Kind::PersistentVolumeClaim,
            json!({
                "metadata": {"name": format!("open-{number}"), "namespace": "default"},
                "spec": {"storageClassName": "zonal", "accessModes": [modes]},
                "status": {"phase": "Pending"},
            }),
        );
    }
}

fn daemons(world: &mut World, bits: usize) {
    if bits & 1 != 0 {
        world.object(Kind::DaemonSet, json!({
            "metadata": {"name": "log", "namespace": "kube-system"},
            "spec": {"template": {"spec": {"containers": [{"name": "d", "ports": [{"hostPort": 9100}],
                "resources": {"requests": {"cpu": "200m", "memory": "256Mi"}}}]}}},
        }));
    }
    if bits & 2 != 0 {
        world.object(
            Kind::DaemonSet,
            json!({
                "metadata": {"name": "arm", "namespace": "kube-system"},
                "spec": {"template": {"spec": {
                    "nodeSelector": {"kubernetes.io/arch": "arm64"},
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "d", "resources": {"requests": {"cpu": "500m"}}}]}}},
            }),
        );
    }
}

/// Daemons of some offerings, one of them with a port that pods ask for, too.
fn daemons_of_offerings(world: &mut World, bits: usize) {
    let selectors = [
        ("zonal", json!({"topology.kubernetes.io/zone": "us-east-1c"})),
        ("spot", json!({"karpenter.sh/capacity-type": "spot"})),
        ("reserved", json!({"karpenter.k8s.aws/capacity-reservation-type": "default"})),
    ];
    for (number, (name, selector)) in selectors.into_iter().enumerate() {
        if bits & (1 << number) == 0 {
            continue;
        }
        let ports = if number == 0 { json!([{"hostPort": 7000}]) } else { json!([]) };
        world.object(
            Kind::DaemonSet,
            json!({
                "metadata": {"name": name, "namespace": "kube-system"},
                "spec": {"template": {"spec": {
                    "nodeSelector": selector,
                    "tolerations": [{"operator": "Exists"}],
                    "containers": [{"name": "d", "ports": ports,
                        "resources": {"requests": {"cpu": "400m", "memory": "1Gi"}}}]}}},
            }),
        );
    }
}

pub(super) fn add_apps(world: &mut World, prefix: &str, apps: &[App]) {
    for (number, app) in apps.iter().enumerate() {
        let name = format!("{prefix}{number}");
        let mut request =
            json!({"cpu": format!("{}m", app.cpu), "memory": format!("{}Mi", app.memory)});
        let mut extra = json!({});
        for (kind, parameter) in &app.rules {
            let (requests, more) = rule(*kind, *parameter, &name, apps.len());
            merge(&mut request, requests);
            merge(&mut extra, more);
        }
        world.pods(&name, app.count, request, extra);
    }
}

pub(super) fn build(case: &Case) -> World {
    // A tenth of the catalogue keeps a case quick.
    let types = all_types().iter().filter(|t| {
        let family = t.name.split('.').next().unwrap_or_default();
        matches!(family, "c5" | "m5" | "r5" | "m6g" | "t3" | "g5")
    });
    let mut world = World::with_types(types.cloned().collect());
    if case.best_effort {
        world.settings.min_values_policy = crate::planner::MinValuesPolicy::BestEffort;
    }
    world
        .object(Kind::Namespace, json!({"metadata": {"name": "default", "labels": {"team": "a"}}}));
    pools(&mut world, case.pools);
    // What hangs on an earlier number leaves cases that failed once as they were.
    storage(&mut world, case.reservations.len() == 3);
    daemons(&mut world, case.daemons);
    daemons_of_offerings(&mut world, case.daemons_of_offerings);
    for number in 0..case.nodes {
        let zone = ZONES[number % 3];
        let name = format!("n{number}");
        world.node(&name, "m5.2xlarge", zone);
        if number % 2 == 0 {
            world.object(
                Kind::CsiNode,
                json!({"metadata": {"name": name}, "spec": {"drivers": [
                {"name": "ebs.csi.aws.com", "allocatable": {"count": 2}}]}}),
            );
        }
    }
    for (number, (app, cpu, kind)) in case.running.iter().enumerate().filter(|_| case.nodes > 0) {
        let node = format!("n{}", number % case.nodes);
        let app = format!("app{app}");
        let mut pod = json!({
            "metadata": {"name": format!("run-{number}"), "namespace": "default",
                "labels": {"app": app}},
            "spec": {"nodeName": node, "containers": [{"name": "main", "resources":
                {"requests": {"cpu": format!("{cpu}m"), "memory": "256Mi"}}}]},
            "status": {"phase": "Running"},
        });
        if *kind == 0 {
            let (_, avoids) = rule(8, number, &app, 6);
            merge(&mut pod, json!({"spec": avoids["spec"]}));
        }
        world.object(Kind::Pod, pod);
    }
    for (billing, zone) in &case.gone {
        let offering = UnavailableOffering {
            capacity_type: [CapacityType::Spot, CapacityType::OnDemand][*billing],
            instance_type: None,
            zone: ZONES.get(*zone).map(|zone| (*zone).to_owned()),
            reservation: None,
        };
        world.unavailable.insert(offering, "2026-01-01T14:03:00Z".parse().unwrap());
    }
    for (number, (kind, zone, free)) in case.reservations.iter().enumerate() {
        world.reservation(&format!("cr-{number}"), RESERVABLE[*kind], ZONES[*zone], *free);
    }
    add_apps(&mut world, "app", &case.apps);
    world
}
