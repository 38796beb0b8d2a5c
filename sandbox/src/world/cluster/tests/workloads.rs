use super::*;
use crate::world::api::evict::evict;
use crate::world::resource::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, PERSISTENT_VOLUME_CLAIMS, POD_DISRUPTION_BUDGETS, REPLICA_SETS,
    STATEFUL_SETS, STORAGE_CLASSES,
};

#[test]
fn a_deployment_makes_pods_scales_and_rolls_without_losing_availability() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "32");
    town.create(&DEPLOYMENTS, workload("web", 8, spec("1")));
    town.pass(3.0);
    assert_eq!(town.ready(), 8);
    let status = town.get(&DEPLOYMENTS, "default", "web").unwrap()["status"].clone();
    assert_eq!(status["readyReplicas"], 8);
    assert_eq!(status["updatedReplicas"], 8);
    assert!(status["conditions"].to_string().contains("MinimumReplicasAvailable"));
    town.edit(&DEPLOYMENTS, "web", |web| web["spec"]["replicas"] = json!(4));
    town.pass(3.0);
    assert_eq!(town.pods().len(), 4);
    town.edit(&DEPLOYMENTS, "web", |web| {
        web["spec"]["template"]["spec"]["containers"][0]["image"] = json!("web:2");
    });
    for _ in 0..100 {
        town.pass(0.1);
        // 25 % of 4 may be missing, and as many be there twice.
        assert!(town.ready() >= 3, "{} ready", town.ready());
        let active = town.count(|pod| !object::is_deleting(pod));
        assert!(active <= 5, "{active} active");
    }
    let images: Vec<_> =
        town.pods().iter().map(|pod| pod["spec"]["containers"][0]["image"].clone()).collect();
    assert_eq!(images, vec![json!("web:2"); 4]);
    assert_eq!(town.world.store.count(&REPLICA_SETS), 2);
    let web = town.get(&DEPLOYMENTS, "default", "web").unwrap();
    assert_eq!(object::annotation(&web, "deployment.kubernetes.io/revision"), Some("2"));
    assert_eq!(object::integer(&web, "/status/updatedReplicas"), Some(4));
    assert_eq!(web.pointer("/status/unavailableReplicas"), None);
    town.delete(&DEPLOYMENTS, "default", "web", &DeleteOptions::default());
    town.pass(5.0);
    assert_eq!((town.pods().len(), town.world.store.count(&REPLICA_SETS)), (0, 0));
}

#[test]
fn a_replica_set_replaces_what_it_loses() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    town.create(&REPLICA_SETS, workload("web", 3, spec("1")));
    town.pass(2.0);
    let name = object::name(&town.pods()[0]).to_owned();
    assert!(name.starts_with("web-") && name.len() == "web-xxxxx".len(), "{name}");
    town.delete(&PODS, "default", &name, &DeleteOptions::default());
    town.pass(3.0);
    assert_eq!(town.ready(), 3);
    assert!(town.get(&PODS, "default", &name).is_none());
}

#[test]
fn a_stateful_set_goes_one_by_one_and_keeps_its_claims() {
    let mut town = Town::new();
    town.create(
        &STORAGE_CLASSES,
        json!({
            "metadata": {"name": "gp3", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
            "provisioner": "ebs.csi.aws.com", "volumeBindingMode": "WaitForFirstConsumer",
        }),
    );
    town.node("n1", "us-east-1a", "8");
    let mut set = workload("db", 3, spec("1"));
    set["spec"]["serviceName"] = json!("db");
    let claim = json!({
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}},
    });
    set["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": claim}]);
    town.create(&STATEFUL_SETS, set);
    town.pass(0.5);
    assert_eq!(town.pods().len(), 1);
    town.pass(5.0);
    let names: Vec<_> = town.pods().iter().map(|pod| object::name(pod).to_owned()).collect();
    assert_eq!(names, ["db-0", "db-1", "db-2"]);
    assert_eq!(town.ready(), 3);
    assert!(town.get(&PERSISTENT_VOLUME_CLAIMS, "default", "data-db-2").is_some());
    town.edit(&STATEFUL_SETS, "db", |db| db["spec"]["replicas"] = json!(1));
    town.pass(5.0);
    assert_eq!(town.pods().len(), 1);
    assert_eq!(town.world.store.count(&PERSISTENT_VOLUME_CLAIMS), 3);
    town.delete(&PODS, "default", "db-0", &DeleteOptions::default());
    town.pass(3.0);
    assert_eq!(town.ready(), 1);
    town.edit(&STATEFUL_SETS, "db", |db| {
        db["spec"]["template"]["spec"]["containers"][0]["image"] = json!("db:2");
    });
    town.pass(5.0);
    assert_eq!(town.pods()[0]["spec"]["containers"][0]["image"], "db:2");
    let status = town.get(&STATEFUL_SETS, "default", "db").unwrap()["status"].clone();
    assert_eq!(status["currentRevision"], status["updateRevision"]);
}

#[test]
fn a_daemon_set_has_one_pod_on_every_node_that_accepts_it() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "4");
    town.node("n2", "us-east-1a", "4");
    town.edit(&NODES, "n2", |node| {
        node["spec"]["taints"] = json!([{"key": "gpu", "effect": "NoSchedule"}]);
    });
    town.create(&DAEMON_SETS, workload("log", 1, spec("100m")));
    town.pass(3.0);
    let status = |town: &Town| town.get(&DAEMON_SETS, "default", "log").unwrap()["status"].clone();
    assert_eq!((town.ready(), status(&town)["desiredNumberScheduled"].clone()), (1, json!(1)));
    town.edit(&NODES, "n2", |node| node["spec"]["taints"] = json!([]));
    town.node("n3", "us-east-1a", "4");
    // A cordon keeps no daemon away.
    town.edit(&NODES, "n3", |node| node["spec"]["unschedulable"] = json!(true));
    town.pass(3.0);
    let mut nodes: Vec<_> =
        town.pods().iter().map(|pod| object::text(pod, "/spec/nodeName").to_owned()).collect();
    nodes.sort();
    assert_eq!(nodes, ["n1", "n2", "n3"]);
    assert_eq!(status(&town)["numberReady"], 3);
    town.edit(&DAEMON_SETS, "log", |log| {
        log["spec"]["template"]["spec"]["containers"][0]["image"] = json!("log:2");
    });
    town.pass(15.0);
    assert_eq!(town.count(|pod| pod["spec"]["containers"][0]["image"] == "log:2"), 3);
    town.edit(&NODES, "n1", |node| {
        node["spec"]["taints"] = json!([{"key": "off", "effect": "NoExecute"}]);
    });
    town.pass(3.0);
    assert_eq!(town.pods().len(), 2);
}

#[test]
fn a_job_runs_to_completion() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "4");
    let pod = with(spec("1"), json!({"restartPolicy": "Never"}));
    let mut job = workload("batch", 1, pod);
    job["spec"].as_object_mut().unwrap().remove("replicas");
    job["spec"].as_object_mut().unwrap().remove("selector");
    job["spec"]["completions"] = json!(3);
    job["spec"]["parallelism"] = json!(2);
    job["spec"]["template"]["metadata"]["annotations"] =
        json!({"sandbox.drover.dev/run-seconds": "4"});
    town.create(&JOBS, job);
    town.pass(2.0);
    assert_eq!(town.ready(), 2);
    town.pass(20.0);
    let job = town.get(&JOBS, "default", "batch").unwrap();
    assert_eq!(object::condition(&job, "Complete"), "True");
    assert_eq!(object::integer(&job, "/status/succeeded"), Some(3));
    assert_eq!(town.count(|pod| object::text(pod, "/status/phase") == "Succeeded"), 3);
    // What has ended takes no room.
    town.pod("big", spec("4"));
    town.pass(2.0);
    assert_eq!(town.node_of("big"), "n1");
}

#[test]
fn a_budget_counts_and_its_evictions_wait_for_replacements() {
    let mut town = Town::new();
    town.node("n1", "us-east-1a", "8");
    town.create(&DEPLOYMENTS, workload("web", 4, spec("1")));
    town.create(
        &POD_DISRUPTION_BUDGETS,
        json!({
            "metadata": {"name": "web", "namespace": "default"},
            "spec": {"maxUnavailable": "25%", "selector": {"matchLabels": {"app": "web"}}},
        }),
    );
    town.pass(0.2);
    let status = |town: &Town| {
        let budget = town.get(&POD_DISRUPTION_BUDGETS, "default", "web").unwrap();
        let number = |name: &str| object::integer(&budget, &format!("/status/{name}")).unwrap();
        [
            number("disruptionsAllowed"),
            number("currentHealthy"),
            number("desiredHealthy"),
            number("expectedPods"),
        ]
    };
    assert_eq!(status(&town), [0, 0, 3, 4]);
    town.pass(2.0);
    assert_eq!(status(&town), [1, 4, 3, 4]);
    let keys: Vec<_> = town.pods().iter().map(|pod| object::key(pod)).collect();
    let now = town.now;
    let options = DeleteOptions::default();
    evict(&mut town.world.store, &keys[0], &options, now).unwrap();
    let refused = evict(&mut town.world.store, &keys[1], &options, now).unwrap_err();
    assert_eq!(refused.code, 429);
    town.pass(0.5);
    assert_eq!(status(&town), [0, 3, 3, 4]);
    town.pass(3.0);
    assert_eq!(status(&town), [1, 4, 3, 4]);
    let now = town.now;
    evict(&mut town.world.store, &keys[1], &options, now).unwrap();
}

#[test]
fn a_stateful_set_makes_no_pod_without_its_claim() {
    let mut town = Town::new();
    let mut set = workload("db", 1, spec("1"));
    set["spec"]["serviceName"] = json!("db");
    // The API refuses a claim that asks for no storage.
    set["spec"]["volumeClaimTemplates"] =
        json!([{"metadata": {"name": "data"}, "spec": {"accessModes": ["ReadWriteOnce"]}}]);
    town.create(&STATEFUL_SETS, set);
    town.pass(5.0);
    assert_eq!((town.pods().len(), town.world.store.count(&PERSISTENT_VOLUME_CLAIMS)), (0, 0));
}
