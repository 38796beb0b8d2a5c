use super::*;
use crate::world::resource::{CONFIG_MAPS, DEPLOYMENTS, NAMESPACES, REPLICA_SETS};
use crate::world::store::Propagation;

#[test]
fn an_object_goes_with_the_last_of_its_owners() {
    let mut town = Town::new();
    let make = |town: &mut Town, name: &str, owners: Value| {
        let metadata = json!({"name": name, "namespace": "default", "ownerReferences": owners});
        town.create(&CONFIG_MAPS, json!({"metadata": metadata}));
    };
    make(&mut town, "a", json!([]));
    make(&mut town, "b", json!([]));
    let owner = |town: &Town, name: &str| {
        let found = town.get(&CONFIG_MAPS, "default", name).unwrap();
        json!({"apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": object::uid(&found)})
    };
    let owners = json!([owner(&town, "a"), owner(&town, "b")]);
    make(&mut town, "child", owners);
    make(
        &mut town,
        "stray",
        json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "1"}]),
    );
    town.pass(1.0);
    assert!(town.get(&CONFIG_MAPS, "default", "stray").is_none());
    town.delete(&CONFIG_MAPS, "default", "a", &DeleteOptions::default());
    town.pass(1.0);
    let child = town.get(&CONFIG_MAPS, "default", "child").unwrap();
    assert_eq!(object::list(&child, "/metadata/ownerReferences").len(), 1);
    town.delete(&CONFIG_MAPS, "default", "b", &DeleteOptions::default());
    town.pass(1.0);
    assert!(town.get(&CONFIG_MAPS, "default", "child").is_none());
}

#[test]
fn foreground_deletion_keeps_the_owner_until_its_dependents_are_gone() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    town.create(&DEPLOYMENTS, workload("web", 2, spec("1")));
    town.pass(3.0);
    let options =
        DeleteOptions { propagation: Propagation::Foreground, ..DeleteOptions::default() };
    town.delete(&DEPLOYMENTS, "default", "web", &options);
    town.pass(0.1);
    assert!(town.get(&DEPLOYMENTS, "default", "web").is_some());
    town.pass(5.0);
    assert!(town.get(&DEPLOYMENTS, "default", "web").is_none());
    assert_eq!(town.pods().len(), 0);
}

#[test]
fn orphaned_dependents_stay() {
    let mut town = Town::new();
    town.create(&REPLICA_SETS, workload("web", 2, spec("1")));
    town.pass(1.0);
    let options = DeleteOptions { propagation: Propagation::Orphan, ..DeleteOptions::default() };
    town.delete(&REPLICA_SETS, "default", "web", &options);
    town.pass(1.0);
    assert!(town.get(&REPLICA_SETS, "default", "web").is_none());
    assert_eq!(town.count(|pod| object::list(pod, "/metadata/ownerReferences").is_empty()), 2);
}

#[test]
fn a_namespace_goes_with_everything_in_it() {
    let mut town = Town::new();
    town.create(
        &NAMESPACES,
        json!({"metadata": {"name": "shop"}, "spec": {"finalizers": ["kubernetes"]}}),
    );
    town.node("n1", "us-east-1a", "8");
    let mut web = workload("web", 2, spec("1"));
    web["metadata"]["namespace"] = json!("shop");
    town.create(&DEPLOYMENTS, web);
    town.create(&CONFIG_MAPS, json!({"metadata": {"name": "a", "namespace": "shop"}}));
    town.pass(3.0);
    assert_eq!(town.ready(), 2);
    town.delete(&NAMESPACES, "", "shop", &DeleteOptions::default());
    town.pass(0.1);
    assert!(town.get(&NAMESPACES, "", "shop").is_some());
    town.pass(5.0);
    assert!(town.get(&NAMESPACES, "", "shop").is_none());
    assert_eq!((town.pods().len(), town.world.store.count(&CONFIG_MAPS)), (0, 0));
}

#[test]
fn pods_outlive_their_node_object_only_for_a_moment() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    town.create(&REPLICA_SETS, workload("web", 2, spec("1")));
    town.pass(3.0);
    town.delete(&NODES, "", "n1", &DeleteOptions::default());
    town.pass(10.0);
    assert_eq!(town.count(|pod| object::text(pod, "/spec/nodeName") == "n1"), 0);
    assert_eq!(town.pods().len(), 2);
}
