//! What a Node that has joined says of itself counts before it is initialized.

use drover_common::call::Kind;
use serde_json::{Value, json};

use super::rig::*;

/// A node whose startup taint stays, and the pods that it was launched for.
fn warming() -> (Rig, String) {
    let mut rig = Rig::new();
    rig.world.warms_up = false;
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    assert_eq!((rig.world.running_instances().len(), rig.world.running_pods()), (1, 0));
    let name = rig.world.running_instances()[0].private_dns_name.clone();
    (rig, name)
}

fn tainted_with(rig: &Rig, key: &str) -> Value {
    let mut taints = rig.world.list(Kind::Node)[0]["spec"]["taints"].clone();
    taints.as_array_mut().unwrap().push(json!({"key": key, "effect": "NoExecute"}));
    json!({"spec": {"taints": taints}})
}

#[test]
fn pods_wait_for_a_node_that_starts_and_for_none_that_will_not_take_them() {
    let after = |change: &dyn Fn(&Rig) -> Value| {
        let (mut rig, name) = warming();
        let change = change(&rig);
        rig.world.change(Kind::Node, "", &name, &change);
        if !change["status"].is_null() {
            rig.world.change_status(Kind::Node, &name, &change);
        }
        rig.run(60);
        rig.world.running_instances().len()
    };
    assert_eq!(after(&|_| json!({})), 1);
    assert_eq!(after(&|rig| tainted_with(rig, "node.kubernetes.io/not-ready")), 1);
    assert_eq!(after(&|rig| tainted_with(rig, "example.com/broken")), 2);
    assert_eq!(after(&|_| json!({"spec": {"unschedulable": true}})), 2);
    assert_eq!(after(&|_| json!({"status": {"allocatable": {"cpu": "900m"}}})), 2);
    assert_eq!(after(&|_| json!({"status": {"allocatable": {"cpu": "0"}}})), 1, "not told yet");
}

#[test]
fn pods_meant_for_a_node_that_is_cordoned_are_planned_anew_at_once() {
    // Whenever that comes between two looks at pods that are left.
    for wait in [0, 3, 6, 9] {
        let (mut rig, name) = warming();
        rig.run(wait);
        rig.world.change(Kind::Node, "", &name, &json!({"spec": {"unschedulable": true}}));
        rig.run(2);
        assert_eq!(rig.world.running_instances().len(), 2, "after {wait} s");
        // That one is for them, and there is none after it.
        rig.run(60);
        assert_eq!(rig.world.running_instances().len(), 2, "after {wait} s");
        rig.world.warms_up = true;
        rig.run(10);
        assert_eq!(rig.world.running_pods(), 2, "after {wait} s");
    }
}
