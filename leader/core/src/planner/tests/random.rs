//! Random clusters: no plan breaks a rule, and what fits a node of its own is never left.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::world::{World, all_types};

pub(super) fn constraint(kind: usize, app: &str) -> Value {
    let selector = json!({"matchLabels": {"app": app}});
    let affinity = |key: &str| {
        json!({"requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": selector, "topologyKey": key}]})
    };
    let spread = |key: &str| {
        json!({"spec": {"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]}})
    };
    match kind {
        1 => spread("topology.kubernetes.io/zone"),
        2 => spread("kubernetes.io/hostname"),
        3 => json!({"spec": {"affinity": {"podAntiAffinity": affinity("kubernetes.io/hostname")}}}),
        4 => {
            json!({"spec": {"affinity": {"podAffinity": affinity("topology.kubernetes.io/zone")}}})
        }
        5 => json!({"spec": {"nodeSelector": {"karpenter.sh/capacity-type": "on-demand"}}}),
        6 => json!({"spec": {"nodeSelector": {"topology.kubernetes.io/zone": "us-east-1b"}}}),
        7 => json!({"spec": {"nodeSelector": {"kubernetes.io/arch": "arm64"}}}),
        8 => json!({"spec": {"affinity": {"podAffinity": affinity("kubernetes.io/hostname")}}}),
        _ => json!({}),
    }
}

#[derive(Clone, Debug)]
struct App {
    count: usize,
    cpu: u32,
    memory: u32,
    kind: usize,
}

fn app() -> impl Strategy<Value = App> {
    (1_usize..12, 50_u32..4000, 64_u32..16_000, 0_usize..9)
        .prop_map(|(count, cpu, memory, kind)| App { count, cpu, memory, kind })
}

fn world(apps: &[App], nodes: usize, running: &[(usize, u32)]) -> World {
    // A tenth of the catalogue keeps a case quick.
    let types = all_types().iter().filter(|t| {
        let family = t.name.split('.').next().unwrap_or_default();
        matches!(family, "c5" | "m5" | "r5" | "c6g" | "m6g" | "t3" | "g5")
    });
    let mut world = World::with_types(types.cloned().collect());
    world.pool("default", json!([]), json!({}));
    for number in 0..nodes {
        let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][number % 3];
        world.node(&format!("n{number}"), "m5.2xlarge", zone);
    }
    for (number, (app, cpu)) in running.iter().enumerate().filter(|_| nodes > 0) {
        let node = format!("n{}", number % nodes);
        let request = json!({"cpu": format!("{cpu}m"), "memory": "256Mi"});
        world.running(&format!("run-{number}"), &format!("app{app}"), &node, request);
    }
    for (number, app) in apps.iter().enumerate() {
        let name = format!("app{number}");
        let request =
            json!({"cpu": format!("{}m", app.cpu), "memory": format!("{}Mi", app.memory)});
        world.pods(&name, app.count, request, constraint(app.kind, &name));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn plans_break_no_rule_and_leave_nothing_that_fits(
        apps in prop::collection::vec(app(), 1..8),
        nodes in 0_usize..5,
        running in prop::collection::vec((0_usize..8, 50_u32..900), 0..10),
    ) {
        let world = world(&apps, nodes, &running);
        let plan = world.plan();
        for left in &plan.unschedulable {
            let app: usize = left.pod.name.trim_start_matches("app").split('-').next().unwrap().parse().unwrap();
            // Without limits a free pod, one that avoids its like, and one that spreads by host can
            // always have a node of its own.
            prop_assert!(!matches!(apps[app].kind, 0 | 2 | 3 | 5 | 6 | 7), "{left:?}");
        }
        prop_assert!(plan.report.hourly_price_micro == 0 || !plan.launches.is_empty());
    }
}
