use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject, ObjectKey};
use drover_common::id::{InstanceId, NodeName};
use drover_common::resources::ResourceName;
use serde_json::{Value, json};

use super::{ShapeVolume, View};

fn apply(view: &mut View, kind: Kind, value: Value) {
    view.apply(ClusterEvent::Applied(ClusterObject::from_json(kind, value).unwrap()));
}

fn pod(name: &str, node: &str, cpu: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"nodeName": node, "containers": [
            {"name": "main", "resources": {"requests": {"cpu": cpu}}}]},
        "status": {"phase": "Running"},
    })
}

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("default", name)
}

#[test]
fn equal_pods_are_one_shape() {
    let mut view = View::default();
    for number in 0..10 {
        apply(&mut view, Kind::Pod, pod(&format!("web-{number}"), "n1", "100m"));
    }
    apply(&mut view, Kind::Pod, pod("big", "n1", "2"));
    assert_eq!((view.counts().pods, view.counts().shapes), (11, 2));
    let on_node = view.node_pods(&NodeName::from("n1")).unwrap();
    assert_eq!(on_node.shapes.values().copied().collect::<Vec<_>>(), [10, 1]);
    view.apply(ClusterEvent::Deleted(Kind::Pod, key("big")));
    assert_eq!(view.counts().shapes, 1);
    apply(&mut view, Kind::Pod, pod("web-0", "n2", "100m"));
    assert_eq!(view.pods_on(&NodeName::from("n1")).count(), 9);
    assert_eq!(view.pods_on(&NodeName::from("n2")).count(), 1);
}

#[test]
fn pods_that_end_give_up_their_room() {
    let mut view = View::default();
    apply(&mut view, Kind::Pod, pod("a", "n1", "1"));
    let mut ended = pod("a", "n1", "1");
    ended["status"]["phase"] = json!("Succeeded");
    apply(&mut view, Kind::Pod, ended);
    let on_node = view.node_pods(&NodeName::from("n1")).unwrap();
    assert!(on_node.shapes.is_empty());
    assert_eq!(on_node.all.len(), 1);
    view.apply(ClusterEvent::Deleted(Kind::Pod, key("a")));
    assert!(view.node_pods(&NodeName::from("n1")).is_none());
}

#[test]
fn nodes_are_found_by_instance_until_they_change() {
    let mut view = View::default();
    let node = |instance: &str| {
        json!({"metadata": {"name": "n1"},
            "spec": {"providerID": format!("aws:///us-east-1a/{instance}")}})
    };
    apply(&mut view, Kind::Node, node("i-1"));
    assert!(view.node_of_instance(&InstanceId::from("i-1")).is_some());
    apply(&mut view, Kind::Node, node("i-2"));
    assert!(view.node_of_instance(&InstanceId::from("i-1")).is_none());
    assert!(view.node_of_instance(&InstanceId::from("i-2")).is_some());
}

#[test]
fn a_list_that_starts_over_forgets_what_it_does_not_show_again() {
    let mut view = View::default();
    apply(&mut view, Kind::Pod, pod("kept", "n1", "1"));
    apply(&mut view, Kind::Pod, pod("gone", "n1", "1"));
    view.apply(ClusterEvent::Restarted(Kind::Pod));
    apply(&mut view, Kind::Pod, pod("kept", "n1", "1"));
    assert_eq!(view.counts().pods, 2);
    view.apply(ClusterEvent::Synced(Kind::Pod));
    assert_eq!(view.counts().pods, 1);
    assert!(view.pod(&key("kept")).is_some());
}

#[test]
fn synced_means_every_kind_and_stale_means_any() {
    let mut view = View::default();
    assert!(!view.is_synced());
    for kind in Kind::ALL {
        view.apply(ClusterEvent::Synced(kind));
    }
    assert!(view.is_synced() && !view.is_stale());
    view.apply(ClusterEvent::Stale(Kind::Node));
    assert!(view.is_stale());
    assert_eq!(view.kinds_behind(), [Kind::Node]);
    view.apply(ClusterEvent::Synced(Kind::Node));
    assert!(!view.is_stale());
}

#[test]
fn requests_follow_init_containers_sidecars_and_resizes() {
    let pod: drover_common::cluster::Pod = serde_json::from_value(json!({
        "spec": {
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "1Gi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "250m"}}},
            ],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "100m"}}},
                {"name": "init", "resources": {"requests": {"cpu": "2"}}},
            ],
            "overhead": {"cpu": "10m"},
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "c"}}],
        },
        "status": {"containerStatuses": [
            {"name": "b", "allocatedResources": {"memory": "2Gi"}}]},
    }))
    .unwrap();
    let requests = super::PodShape::of(&pod).requests;
    // The init phase needs 2 + 0.1 cpu, more than the 0.85 of the containers that run together.
    assert_eq!(requests.get(&ResourceName::Cpu), 2110);
    assert_eq!(requests.get(&ResourceName::Memory), 3 << 30);
    assert_eq!(requests.get(&ResourceName::Pods), 1);
    let shape = super::PodShape::of(&pod);
    assert_eq!(shape.volumes, [ShapeVolume::Claim("c".to_owned())]);
}
