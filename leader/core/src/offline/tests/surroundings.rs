//! What a dump does not say and an API server or a region would.

use serde_json::{Value, json};

use super::{answer, cluster, node, pod, pool, with};

/// A pod that must not be where those of another namespace are, which `selector` selects.
fn apart(selector: Value) -> Value {
    let term = json!({"topologyKey": "kubernetes.io/hostname", "labelSelector": {},
        "namespaceSelector": selector});
    let rule = json!({"podAntiAffinity":
        {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
    with(pod("a", "1"), "/spec/affinity", rule)
}

fn objects(selector: Value) -> Vec<Value> {
    let name = json!({"kubernetes.io/hostname": "n1", "topology.kubernetes.io/zone": "us-east-1a"});
    let other = with(pod("b", "1"), "/metadata/namespace", json!("other"));
    let other = with(other, "/spec/nodeName", json!("n1"));
    let other = with(other, "/status", json!({"phase": "Running"}));
    vec![pool("default"), node("n1", name), other, apart(selector)]
}

#[test]
fn a_namespace_that_is_not_in_the_dump_has_its_name_all_the_same() {
    let by_name = |name: &str| json!({"matchLabels": {"kubernetes.io/metadata.name": name}});
    let apart = cluster(&objects(by_name("other")));
    assert_eq!(apart.warnings, Vec::<String>::new());
    assert_eq!(answer(&apart).launches.len(), 1, "n1 has a pod of the other namespace");
    assert_eq!(answer(&cluster(&objects(by_name("third")))).launches.len(), 0);
    let by_team = cluster(&objects(json!({"matchLabels": {"team": "x"}})));
    let words = "Pods select Namespaces by labels, and these are not in the dump: default, other; only the names of \
                 those are known";
    assert_eq!(by_team.warnings, [words]);
}

#[test]
fn types_of_another_region_are_told_of() {
    let there = |labels: Value| cluster(&[pool("default"), node("n1", labels)]).warnings;
    let words = |place: &str| {
        vec![format!(
            "Node n1 is in {place}, and the instance types, their zones and prices are those of us-east-1: those \
             of another region are read with --catalog"
        )]
    };
    let zone = "topology.kubernetes.io/zone";
    let region = "topology.kubernetes.io/region";
    assert_eq!(there(json!({zone: "eu-west-1b"})), words("eu-west-1b"));
    assert_eq!(there(json!({zone: "eu-west-1b", region: "eu-west-1"})), words("eu-west-1"));
    assert_eq!(there(json!({zone: "us-east-1-bos-1a"})), Vec::<String>::new());
    assert_eq!(there(json!({})), Vec::<String>::new());
}
