//! Random clusters: a repack loses no pod, breaks no rule, is never dearer and keeps budgets.

mod once;

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
