//! Static pools: nodes without pods to make them for.

use drover_common::id::NodePoolName;
use drover_common::resources::Resources;
use serde_json::json;

use super::world::World;
use crate::planner::plan_static;

fn planned(world: &World, count: usize) -> String {
    match plan_static(&world.input(), &NodePoolName::from("fixed"), count) {
        Ok(launches) => launches
            .iter()
            .map(|launch| {
                let first = &launch.offerings[0];
                format!(
                    "{} in {} for ${}",
                    first.instance_type,
                    first.zone,
                    launch.hourly_price_micro as f64 / 1e6
                )
            })
            .collect::<Vec<_>>()
            .join("\n"),
        Err(reason) => format!("none: {reason}"),
    }
}

#[test]
fn nodes_are_the_cheapest_that_the_pool_and_its_limits_allow() {
    let mut world = World::small();
    let large = json!([{"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["3"]},
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["on-demand"]}]);
    world.pool("fixed", large.clone(), json!({"replicas": 3}));
    world.pool("other", json!([]), json!({}));
    let free = planned(&world, 3);
    world
        .usage
        .insert(NodePoolName::from("fixed"), Resources::from_quantities([("nodes", "1")]).unwrap());
    world.pool("fixed", large, json!({"replicas": 3, "limits": {"nodes": "2"}}));
    let limited = planned(&world, 3);
    let nothing =
        json!([{"key": "karpenter.k8s.aws/instance-family", "operator": "In", "values": ["z9"]}]);
    world.pool("fixed", nothing, json!({"replicas": 3}));
    let impossible = planned(&world, 3);
    insta::assert_snapshot!(format!(
        "{free}\n--- with room for one\n{limited}\n--- of no family\n{impossible}"
    ));
}

#[test]
fn pods_use_the_nodes_of_a_static_pool_and_make_no_more_of_them() {
    let mut world = World::small();
    world.pool("fixed", json!([]), json!({"replicas": 1}));
    world.node("n1", "m5.large", "us-east-1a");
    world.pods("web", 3, json!({"cpu": "900m", "memory": "1Gi"}), json!({}));
    insta::assert_snapshot!(world.story());
}
