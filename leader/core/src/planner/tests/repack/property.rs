//! Random clusters: a repack loses no pod, breaks no rule, is never dearer and keeps budgets.

use drover_common::instance_type::CapacityType;
use proptest::prelude::*;
use serde_json::json;

use super::super::random::constraint;
use super::super::world::{World, all_types, merge};
use super::cluster::Cluster;

const TYPES: [&str; 6] =
    ["m5.large", "m5.2xlarge", "c5.4xlarge", "r5.xlarge", "m5.8xlarge", "m6g.2xlarge"];

#[derive(Clone, Debug)]
struct PodPlan {
    app: usize,
    cpu: u32,
    memory: u32,
    node: usize,
}

fn cluster(
    nodes: &[(usize, usize, bool)],
    pods: &[PodPlan],
    kinds: &[usize],
    budget: &str,
    open: &[bool],
) -> Cluster {
    let types = all_types().iter().filter(|t| {
        let family = t.name.split('.').next().unwrap_or_default();
        matches!(family, "c5" | "m5" | "r5" | "c6g" | "m6g" | "t3")
    });
    let mut world = World::with_types(types.cloned().collect());
    world.pool(
        "default",
        json!([]),
        json!({"disruption": {"consolidateAfter": "0s", "budgets": [{"nodes": budget}]}}),
    );
    let mut cluster = Cluster::of(world);
    for (number, (kind, zone, spot)) in nodes.iter().enumerate() {
        let zone = ["us-east-1a", "us-east-1b", "us-east-1c"][zone % 3];
        let capacity = if *spot { CapacityType::Spot } else { CapacityType::OnDemand };
        cluster.node(&format!("n{number}"), TYPES[kind % TYPES.len()], zone, capacity);
    }
    for (number, pod) in pods.iter().enumerate().filter(|_| !nodes.is_empty()) {
        let app = format!("app{}", pod.app);
        let node = format!("n{}", pod.node % nodes.len());
        let request =
            json!({"cpu": format!("{}m", pod.cpu), "memory": format!("{}Mi", pod.memory)});
        let mut extra = constraint(kinds[pod.app % kinds.len()], &app);
        if number % 17 == 16 {
            merge(
                &mut extra,
                json!({"metadata": {"annotations": {
                "karpenter.sh/do-not-disrupt": "true"}}}),
            );
        }
        cluster.running(&format!("{app}-{number}"), &app, &node, request, extra);
    }
    for (number, open) in open.iter().enumerate() {
        cluster.pod_budget(&format!("budget{number}"), &format!("app{number}"), i32::from(*open));
    }
    cluster
}

/// After the cases that were kept, fewer than usual, because each is slow. `PROPTEST_CASES` overrides that.
fn config() -> ProptestConfig {
    ProptestConfig { cases: 64, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_repack_loses_nobody_and_breaks_no_rule(
        nodes in prop::collection::vec((0_usize..6, 0_usize..3, any::<bool>()), 1..14),
        pods in prop::collection::vec(
            (0_usize..8, 20_u32..1500, 32_u32..4000, 0_usize..14)
                .prop_map(|(app, cpu, memory, node)| PodPlan { app, cpu, memory, node }),
            0..40,
        ),
        kinds in prop::collection::vec(0_usize..9, 8),
        budget in prop::sample::select(vec!["100%", "20%", "3", "0"]),
        open in prop::collection::vec(prop::bool::weighted(0.9), 0..3),
    ) {
        // The check is inside.
        let cluster = cluster(&nodes, &pods, &kinds, budget, &open);
        let plan = cluster.repack();
        if budget == "0" {
            prop_assert!(plan.batches.is_empty());
        }
        let dearest: u64 = plan.batches.iter().map(|batch| batch.dearest_micro).sum();
        let price: u64 = plan.batches.iter().map(|batch| batch.price_micro).sum();
        prop_assert!(plan.batches.is_empty() || dearest < price);
    }
}

#[test]
fn nothing_comes_after_batches_that_follow_others() {
    let nodes = [
        (1, 0),
        (1, 1),
        (1, 0),
        (1, 1),
        (0, 0),
        (1, 0),
        (0, 0),
        (0, 0),
        (3, 0),
        (0, 2),
        (5, 1),
        (4, 0),
    ]
    .map(|(kind, zone)| (kind, zone, false));
    let pods = [
        (0, 20, 32, 0),
        (0, 20, 32, 8),
        (0, 20, 32, 0),
        (0, 20, 32, 0),
        (4, 20, 32, 8),
        (0, 20, 32, 0),
        (0, 583, 32, 8),
        (0, 20, 32, 0),
        (1, 20, 32, 0),
        (0, 20, 32, 0),
        (0, 20, 32, 0),
        (0, 20, 32, 4),
        (0, 721, 32, 8),
        (2, 20, 32, 2),
        (0, 1278, 32, 8),
        (4, 1299, 32, 5),
        (1, 20, 32, 3),
        (0, 20, 32, 1),
        (0, 20, 75, 1),
    ];
    let plan_of = |(app, cpu, memory, node)| PodPlan { app, cpu, memory, node };
    let pods: Vec<PodPlan> = pods.into_iter().map(plan_of).collect();
    // The check is inside.
    cluster(&nodes, &pods, &[4, 0, 7, 0, 8, 0, 0, 0], "20%", &[]).repack();
}

#[test]
fn what_goes_last_is_right_alone_though_batches_were_tried_one_after_the_other() {
    let nodes = [
        (1, 2, false),
        (5, 1, true),
        (0, 0, false),
        (0, 2, false),
        (0, 0, false),
        (1, 1, false),
        (0, 0, false),
        (1, 1, true),
        (0, 0, false),
        (0, 0, false),
        (0, 0, false),
    ];
    let pods = [
        (0, 20, 32, 2),
        (1, 103, 32, 1),
        (0, 20, 32, 2),
        (1, 374, 32, 12),
        (0, 20, 32, 0),
        (3, 1473, 32, 0),
        (3, 923, 288, 7),
        (0, 20, 1419, 5),
        (0, 20, 32, 2),
        (1, 20, 32, 0),
        (1, 20, 32, 7),
        (1, 20, 32, 6),
        (0, 350, 32, 8),
        (4, 489, 32, 0),
        (3, 490, 32, 0),
        (1, 1468, 32, 1),
        (1, 744, 32, 12),
        (3, 909, 32, 7),
        (0, 20, 32, 2),
        (0, 766, 32, 2),
        (3, 231, 32, 12),
        (3, 1323, 32, 5),
    ];
    let plan_of = |(app, cpu, memory, node)| PodPlan { app, cpu, memory, node };
    let pods: Vec<PodPlan> = pods.into_iter().map(plan_of).collect();
    // The check is inside.
    cluster(&nodes, &pods, &[4, 1, 0, 8, 0, 0, 0, 0], "20%", &[]).repack();
}
