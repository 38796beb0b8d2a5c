//! `kubectl scale` and `kubectl drain` while a leader and agents run: nodes come for the pods that are to
//! run, and leave when nobody needs them. Where kubectl is missing the test says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "stage/sandbox.rs"]
mod stage;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use stage::{Sandbox, kubectl_is_missing};

fn manifest(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kubectl").join(name)
}

fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The nodes that there are.
fn nodes(sandbox: &Sandbox) -> BTreeSet<String> {
    sandbox.get(&["nodes"]).iter().map(name).collect()
}

/// The nodes that running pods of `web` are on: each needs one of its own.
fn web(sandbox: &Sandbox) -> BTreeSet<String> {
    let pods = sandbox.get(&["pods", "-l", "app=web"]);
    let running = pods.iter().filter(|pod| {
        pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
    });
    running.map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned()).collect()
}

/// Waits until so many pods run, and no node is there that holds none of them.
fn settle(sandbox: &Sandbox, what: &str, pods: usize) -> BTreeSet<String> {
    sandbox.wait(what, || {
        let (nodes, web) = (nodes(sandbox), web(sandbox));
        web.len() == pods && nodes == web && sandbox.get(&["nodeclaims"]).len() == pods
    });
    web(sandbox)
}

#[test]
fn nodes_follow_what_kubectl_scales_and_drains() {
    if kubectl_is_missing() {
        return;
    }
    let flags = ["--speed", "20", "--boot-delay", "20s"];
    let sandbox = Sandbox::start(&flags, &manifest("pool.yaml"));
    let scale = |replicas: &str| {
        let replicas = format!("--replicas={replicas}");
        sandbox.kubectl(&["scale", "deployment", "web", &replicas]).unwrap()
    };
    sandbox.kubectl(&["apply", "-f", manifest("web.yaml").to_str().unwrap()]).unwrap();
    let two = settle(&sandbox, "two pods run on two nodes", 2);

    assert!(scale("3").contains("scaled"));
    let three = settle(&sandbox, "a node comes for the third pod", 3);
    assert!(three.is_superset(&two), "{two:?} became {three:?}");

    let drained = three.first().unwrap();
    let refused = sandbox.kubectl(&["drain", drained]).unwrap_err();
    for why in ["DaemonSet-managed Pods", "drover-agent", "local storage"] {
        assert!(refused.contains(why), "{refused}");
    }
    let flags = ["--ignore-daemonsets", "--delete-emptydir-data", "--timeout=60s"];
    let told = sandbox.kubectl(&[["drain", drained].as_slice(), &flags].concat()).unwrap();
    assert!(told.contains("evicted") && told.contains("drained"), "{told}");
    // Nothing but daemons is left on it, and it stays cordoned.
    let again = settle(&sandbox, "another node comes and the drained one leaves", 3);
    assert!(!again.contains(drained), "{drained} was drained: {again:?}");
    assert_eq!(again.intersection(&three).count(), 2, "{three:?} became {again:?}");

    scale("1");
    let one = settle(&sandbox, "nodes leave with their pods", 1);
    assert!(one.is_subset(&again), "{again:?} became {one:?}");
    scale("0");
    settle(&sandbox, "nothing is left", 0);
}
