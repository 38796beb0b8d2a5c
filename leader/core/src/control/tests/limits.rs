//! Limits of NodePools over nodes that are not yet what they will be.

use drover_common::call::Kind;
use serde_json::json;

use super::rig::*;

/// Each node has one device more than its type, and the pool may have two.
fn with_devices() -> Rig {
    let mut rig = Rig::new();
    rig.world.put(
        Kind::NodeOverlay,
        json!({
            "metadata": {"name": "devices"},
            "spec": {
                "requirements": [
                    {"key": "topology.kubernetes.io/zone", "operator": "Exists"},
                    {"key": "karpenter.sh/nodepool", "operator": "In", "values": ["general"]},
                ],
                "capacity": {"example.com/device": "1"},
            },
        }),
    );
    let limits = json!({"spec": {"limits": {"example.com/device": "2"}}});
    rig.world.change(Kind::NodePool, "", "general", &limits);
    rig
}

#[test]
fn what_overlays_add_counts_before_there_is_a_node() {
    let mut rig = with_devices();
    rig.boots = false;
    for deployment in ["web", "api", "jobs", "more"] {
        rig.world.add_pods(deployment, 2, 800);
        rig.run(15);
    }
    assert_eq!(rig.world.running_instances().len(), 2);
}

#[test]
fn devices_count_before_their_plugin_runs() {
    let mut rig = with_devices();
    // Nodes register without the device, and stay as they are.
    rig.world.warms_up = false;
    for deployment in ["web", "api", "jobs", "more"] {
        rig.world.add_pods(deployment, 2, 800);
        rig.run(15);
    }
    assert_eq!(rig.world.running_instances().len(), 2);
}
