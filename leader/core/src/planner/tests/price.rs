//! What plans cost, whatever the pods.

use proptest::prelude::*;
use serde_json::json;

use super::world::{World, all_types};
use crate::planner::check::check;

/// A few families, so that many plans can be made.
fn small_catalog() -> World {
    let families = ["c5", "m5", "r5", "m6g"];
    let listed = |name: &str| families.contains(&name.split('.').next().unwrap_or_default());
    World::with_types(all_types().iter().filter(|t| listed(&t.name)).cloned().collect())
}

fn world(apps: &[(u32, u32, usize)], capacity_types: &[&str]) -> World {
    let mut world = small_catalog();
    let billing =
        json!([{"key": "karpenter.sh/capacity-type", "operator": "In", "values": capacity_types}]);
    world.pool("default", billing, json!({}));
    for (number, (cpu, memory, count)) in apps.iter().enumerate() {
        let request = json!({"cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")});
        world.pods(&format!("app{number}"), *count, request, json!({}));
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn no_plan_is_dearer_than_first_fit_or_larger_than_the_cap(
        apps in prop::collection::vec((50_u32..8000, 100_u32..30_000, 1_usize..30), 1..10),
    ) {
        let world = world(&apps, &["on-demand"]);
        let plan = world.plan();
        prop_assert!(plan.unschedulable.is_empty());
        prop_assert!(plan.report.hourly_price_micro <= plan.report.first_fit_price_micro);
        for offering in plan.launches.iter().flat_map(|launch| &launch.offerings) {
            let found = all_types().iter().find(|t| t.name == offering.instance_type).unwrap();
            prop_assert!(found.capacity.get(&"cpu".into()) <= 32_000, "{offering:?}");
        }
        prop_assert_eq!(&plan, &world.plan());
    }

    /// What fits the nodes that are there costs nothing; the rest is compared as it is without them.
    #[test]
    fn nor_is_one_beside_nodes_that_are_there(
        apps in prop::collection::vec((50_u32..8000, 100_u32..30_000, 1_usize..30), 1..10),
        nodes in prop::collection::vec((0_usize..3, 0_usize..3, 0_u32..1_800), 1..6),
    ) {
        let mut world = world(&apps, &["on-demand"]);
        for (number, (kind, zone, cpu)) in nodes.into_iter().enumerate() {
            let name = format!("n{number}");
            let kind = ["m5.large", "c5.2xlarge", "r5.xlarge"][kind];
            world.node(&name, kind, ["us-east-1a", "us-east-1b", "us-east-1c"][zone]);
            let request = json!({"cpu": format!("{cpu}m"), "memory": "1Gi"});
            world.running(&format!("r{number}"), "running", &name, request);
        }
        let plan = world.plan();
        prop_assert!(plan.unschedulable.is_empty());
        prop_assert!(plan.report.hourly_price_micro <= plan.report.first_fit_price_micro);
    }

    #[test]
    fn spot_is_diverse_and_under_a_ceiling(
        apps in prop::collection::vec((50_u32..4000, 100_u32..8_000, 1_usize..20), 1..6),
    ) {
        let plan = world(&apps, &["spot", "on-demand"]).plan();
        for launch in &plan.launches {
            let mut types: Vec<&str> = Vec::new();
            for offering in &launch.offerings {
                // The first of a type is its cheapest.
                let known = types.contains(&offering.instance_type.as_str());
                let ceiling = launch.hourly_price_micro * 3 / 2;
                prop_assert!(known || types.len() < 15 || offering.price_micro <= Some(ceiling));
                if !known {
                    types.push(&offering.instance_type);
                }
            }
            prop_assert!(types.len() <= 60);
        }
    }
}

#[test]
fn the_check_misses_types_on_spot() {
    let mut world = world(&[(3_000, 6_000, 1)], &["spot"]);
    world.settings.min_spot_types = 6;
    let mut plan = world.plan();
    assert_eq!(plan.launches.len(), 1);
    let launch = &mut plan.launches[0];
    let mut types: Vec<String> = Vec::new();
    for offering in &launch.offerings {
        if !types.iter().any(|known| *known == offering.instance_type) {
            types.push(offering.instance_type.to_string());
        }
    }
    assert!(types.len() >= 6, "{types:?}");
    launch.offerings.retain(|offering| types[..5].iter().any(|t| *t == offering.instance_type));
    let found = check(&world.input(), &plan);
    let missed = format!("launch 0: lists 5 spot types and not {}, which would do, too", types[5]);
    assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), [missed]);
}

/// Two pools of three types: one has the cheapest type of all, the other is cheaper on the whole.
#[test]
fn spot_is_planned_at_the_price_of_a_rank() {
    let pool_of = |rank: usize| {
        let mut world = World::small();
        let spot =
            json!({"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot"]});
        let priced = [
            ("lucky", [("c5.large", "0.040"), ("m5.large", "0.058"), ("r5.large", "0.058")]),
            ("steady", [("m6g.large", "0.050"), ("c5.xlarge", "0.050"), ("m5.xlarge", "0.050")]),
        ];
        for (pool, types) in priced {
            let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
            let of = |values: &[&str]| json!({"key": "node.kubernetes.io/instance-type", "operator": "In", "values": values});
            world.pool(pool, json!([spot, of(&names)]), json!({}));
            for (name, price) in types {
                world.object(
                    drover_common::call::Kind::NodeOverlay,
                    json!({"metadata": {"name": name},
                        "spec": {"requirements": [of(&[name])], "price": price}}),
                );
            }
        }
        world.settings.min_spot_types = 3;
        world.settings.spot_price_rank = rank;
        world.pods("web", 1, json!({"cpu": "1", "memory": "1Gi"}), json!({}));
        let plan = world.plan();
        plan.launches.iter().map(|launch| launch.nodepool.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((pool_of(1), pool_of(3)), (vec!["lucky".to_owned()], vec!["steady".to_owned()]));
}
