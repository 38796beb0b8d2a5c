use super::*;
use crate::world::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};

#[test]
fn a_pending_pod_waits_with_a_reason_and_runs_when_there_is_a_node() {
    let mut town = Town::new();
    town.pod("a", spec("1"));
    town.pass(1.0);
    assert_eq!(town.message("a"), "no nodes available to schedule pods");
    town.node("small", "us-east-1a", "500m");
    town.pass(1.0);
    assert_eq!(
        town.message("a"),
        "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling."
    );
    town.node("large", "us-east-1a", "4");
    town.pass(0.5);
    assert_eq!((town.node_of("a").as_str(), town.ready()), ("large", 0));
    town.pass(0.6);
    assert_eq!(town.ready(), 1);
    let pod = town.get(&PODS, "default", "a").unwrap();
    assert_eq!(object::text(&pod, "/status/phase"), "Running");
    assert_eq!(object::condition(&pod, "PodScheduled"), "True");
}

#[test]
fn pods_fill_nodes_up_to_what_they_have_and_the_emptiest_first() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "2");
    town.node("n2", "us-east-1a", "2");
    for index in 0..5 {
        town.pod(&format!("p{index}"), spec("1"));
    }
    town.pass(3.0);
    let on = |node: &str| town.count(|pod| object::text(pod, "/spec/nodeName") == node);
    assert_eq!((on("n1"), on("n2"), on("")), (2, 2, 1));
    town.delete(&PODS, "default", "p0", &DeleteOptions::default());
    town.pass(3.0);
    assert_eq!(town.count(|pod| object::text(pod, "/spec/nodeName").is_empty()), 0);
}

#[test]
fn taints_selectors_affinity_and_cordons_are_kept() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "4");
    town.node("n2", "us-east-1b", "4");
    town.edit(&NODES, "n1", |node| {
        node["spec"]["taints"] = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
    });
    town.pod("plain", spec("1"));
    let tolerations = json!([{"key": "gpu", "operator": "Exists"}]);
    let selector = json!({"topology.kubernetes.io/zone": "us-east-1a"});
    town.pod("gpu", with(spec("1"), json!({"tolerations": tolerations, "nodeSelector": selector})));
    town.pod("lost", with(spec("1"), json!({"nodeSelector": selector})));
    let terms = json!([{"matchExpressions": [
        {"key": "topology.kubernetes.io/zone", "operator": "NotIn", "values": ["us-east-1a", "us-east-1b"]},
    ]}]);
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
    town.pod("nowhere", with(spec("1"), json!({"affinity": affinity})));
    town.pass(2.0);
    assert_eq!((town.node_of("plain").as_str(), town.node_of("gpu").as_str()), ("n2", "n1"));
    assert!(
        town.message("lost").contains("1 node(s) had untolerated taint {gpu: yes}"),
        "{}",
        town.message("lost")
    );
    assert!(town.message("nowhere").contains("node(s) didn't match Pod's node affinity/selector"));
    town.edit(&NODES, "n2", |node| node["spec"]["unschedulable"] = json!(true));
    town.pod("late", spec("1"));
    town.pass(1.0);
    assert!(
        town.message("late").contains("1 node(s) were unschedulable"),
        "{}",
        town.message("late")
    );
    let taints = object::list(&town.get(&NODES, "", "n2").unwrap(), "/spec/taints").to_vec();
    assert_eq!(taints[0]["key"], "node.kubernetes.io/unschedulable");
    town.edit(&NODES, "n2", |node| node["spec"]["unschedulable"] = json!(false));
    town.pass(1.0);
    assert_eq!(town.node_of("late"), "n2");
    assert!(object::list(&town.get(&NODES, "", "n2").unwrap(), "/spec/taints").is_empty());
}

#[test]
fn gated_pods_wait_for_their_gates() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "4");
    town.pod("a", with(spec("1"), json!({"schedulingGates": [{"name": "quota"}]})));
    town.pass(1.0);
    assert!(town.message("a").contains("scheduling gates"));
    town.edit(&PODS, "a", |pod| pod["spec"]["schedulingGates"] = json!([]));
    town.pass(1.0);
    assert_eq!(town.node_of("a"), "n1");
}

#[test]
fn hard_spread_and_anti_affinity_hold_in_both_directions() {
    let mut town = Town::new();
    for (name, zone) in [("n1", "us-east-1a"), ("n2", "us-east-1b"), ("n3", "us-east-1b")] {
        town.node(name, zone, "8");
    }
    let zone = "topology.kubernetes.io/zone";
    let selector = json!({"matchLabels": {"app": "web"}});
    let spread = json!([{"maxSkew": 1, "topologyKey": zone, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector}]);
    let pod = with(spec("1"), json!({"topologySpreadConstraints": spread}));
    town.create(&crate::world::resource::REPLICA_SETS, workload("web", 7, pod));
    town.pass(2.0);
    let in_a = town.count(|pod| object::text(pod, "/spec/nodeName") == "n1");
    assert!((3..=4).contains(&in_a), "{in_a} of 7 in zone a");
    // A guard keeps web pods away from its own node, although they say nothing about it.
    let term = json!([{"labelSelector": {"matchLabels": {"app": "shy"}}, "topologyKey": "kubernetes.io/hostname"}]);
    let anti = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
    for index in 0..3 {
        town.create(
            &PODS,
            json!({
                "metadata": {"name": format!("guard{index}"), "namespace": "default", "labels": {"app": "guard"}},
                "spec": with(spec("1"), json!({"affinity": anti, "nodeName": format!("n{}", index + 1)})),
            }),
        );
    }
    town.pod("shy", spec("1"));
    town.pass(1.0);
    assert!(
        town.message("shy").contains("3 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{}",
        town.message("shy")
    );
    let term = json!([{"labelSelector": {"matchLabels": {"app": "guard"}}, "topologyKey": zone}]);
    let near = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term}});
    town.pod("near", with(spec("1"), json!({"affinity": near})));
    let far = json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"labelSelector": {"matchLabels": {"app": "nobody"}}, "topologyKey": zone},
    ]}});
    town.pod("far", with(spec("1"), json!({"affinity": far})));
    town.pass(1.0);
    assert!(!town.node_of("near").is_empty());
    assert!(town.message("far").contains("node(s) didn't match pod affinity rules"));
}

#[test]
fn host_ports_are_taken_once_a_node() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "4");
    let ports = json!({"containers": [{"name": "main", "image": "web", "ports": [{"containerPort": 80, "hostPort": 80}]}]});
    town.pod("a", ports.clone());
    town.pod("b", ports);
    town.pass(2.0);
    let waiting = town.count(|pod| object::text(pod, "/spec/nodeName").is_empty());
    assert_eq!(waiting, 1);
}

#[test]
fn a_claim_gets_its_volume_where_its_pod_goes_and_holds_the_next_one_there() {
    let mut town = Town::new();
    town.create(
        &STORAGE_CLASSES,
        json!({"metadata": {"name": "gp3"}, "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer"}),
    );
    town.create(
        &PERSISTENT_VOLUME_CLAIMS,
        json!({"metadata": {"name": "data", "namespace": "default"}, "spec": {"storageClassName": "gp3", "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "5Gi"}}}}),
    );
    town.node("n1", "us-east-1b", "1");
    let volumes =
        json!({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]});
    town.pod("a", with(spec("1"), volumes.clone()));
    town.pass(2.0);
    assert_eq!(town.node_of("a"), "n1");
    let claim = town.get(&PERSISTENT_VOLUME_CLAIMS, "default", "data").unwrap();
    assert_eq!(object::text(&claim, "/status/phase"), "Bound");
    let volume =
        town.get(&PERSISTENT_VOLUMES, "", object::text(&claim, "/spec/volumeName")).unwrap();
    assert!(volume["spec"]["nodeAffinity"].to_string().contains("us-east-1b"));
    town.node("n2", "us-east-1a", "8");
    town.pod("b", with(spec("1"), volumes));
    town.pass(2.0);
    assert!(
        town.message("b").contains("1 node(s) had volume node affinity conflict"),
        "{}",
        town.message("b")
    );
    town.pod(
        "c",
        with(
            spec("1"),
            json!({"volumes": [{"name": "x", "persistentVolumeClaim": {"claimName": "x"}}]}),
        ),
    );
    town.pass(1.0);
    assert!(town.message("c").contains("persistentvolumeclaim \"x\" not found"));
    town.delete(&PERSISTENT_VOLUME_CLAIMS, "default", "data", &DeleteOptions::default());
    town.pass(1.0);
    assert_eq!(town.world.store.count(&PERSISTENT_VOLUMES), 0);
}

#[test]
fn an_idle_world_with_3000_pods_has_nothing_due() {
    let mut town = Town::new();
    for index in 0..100 {
        town.node(&format!("n{index}"), "us-east-1a", "64");
    }
    town.create(&crate::world::resource::REPLICA_SETS, workload("web", 3000, spec("1")));
    town.pass(5.0);
    assert_eq!(town.ready(), 3000);
    assert!(!town.world.is_due(town.now + SignedDuration::from_hours(1)));
    let revision = town.world.store.revision();
    town.world.tick(town.now + SignedDuration::from_hours(1));
    assert_eq!(town.world.store.revision(), revision);
}
