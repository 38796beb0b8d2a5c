//! One kind of constraint each, by number.

use drover_common::labels;
use serde_json::{Value, json};

use super::cluster::ZONES;

/// How many kinds of rules there are.
pub(super) const RULES: usize = 32;

const HOST: &str = labels::HOSTNAME;
const ZONE: &str = labels::ZONE;

/// What a pod of `app` asks for and what it says under rule `kind`; `parameter` varies it.
pub(super) fn rule(kind: usize, parameter: usize, app: &str, apps: usize) -> (Value, Value) {
    let requests = match kind {
        23 => json!({"nvidia.com/gpu": "1"}),
        24 => json!({"ephemeral-storage": format!("{}Gi", 1 + parameter)}),
        25 => json!({"example.com/slot": "1"}),
        _ => json!({}),
    };
    let other = format!("app{}", parameter % apps.max(1));
    let said = match kind {
        0..=7 => spread(kind, parameter, app),
        8..=15 => affinity(kind, app, &other),
        16..=22 => nodes(kind, parameter),
        _ => pod(kind, parameter),
    };
    (requests, said)
}

fn spread(kind: usize, parameter: usize, app: &str) -> Value {
    let mut constraint = json!({"maxSkew": 1 + parameter % 2, "topologyKey": ZONE,
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": app}}});
    let mut more = json!({});
    match kind {
        1 => constraint["topologyKey"] = json!(HOST),
        2 => constraint["whenUnsatisfiable"] = json!("ScheduleAnyway"),
        3 => constraint["topologyKey"] = json!(labels::CAPACITY_TYPE),
        4 => {
            constraint["nodeTaintsPolicy"] = json!("Honor");
            constraint["nodeAffinityPolicy"] = json!("Ignore");
        }
        5 => constraint["minDomains"] = json!(2 + parameter % 3),
        6 => {
            constraint["matchLabelKeys"] = json!(["hash"]);
            more = json!({"metadata": {"labels": {"hash": format!("h{parameter}")}}});
        }
        7 => constraint["topologyKey"] = json!("team"),
        _ => {}
    }
    let mut said = json!({"spec": {"topologySpreadConstraints": [constraint]}});
    super::merge(&mut said, more);
    said
}

fn affinity(kind: usize, app: &str, other: &str) -> Value {
    let term = |app: &str, key: &str| json!({"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key});
    let required = |side: &str, terms: Value| json!({"spec": {"affinity": {side: {"requiredDuringSchedulingIgnoredDuringExecution": terms}}}});
    let (near, away) = ("podAffinity", "podAntiAffinity");
    match kind {
        8 => required(away, json!([term(app, HOST)])),
        9 => required(away, json!([term(app, ZONE)])),
        10 => required(away, json!([term(other, HOST)])),
        11 => required(near, json!([term(app, ZONE)])),
        12 => required(near, json!([term(app, HOST)])),
        13 => required(near, json!([term(other, ZONE)])),
        14 => {
            let mut elsewhere = term(other, ZONE);
            elsewhere["namespaceSelector"] = json!({"matchLabels": {"team": "a"}});
            required(near, json!([elsewhere, term(other, HOST)]))
        }
        _ => json!({"spec": {"affinity": {
            near: {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 10, "podAffinityTerm": term(other, ZONE)}]},
            away: {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 20, "podAffinityTerm": term(app, HOST)}]},
        }}}),
    }
}

fn nodes(kind: usize, parameter: usize) -> Value {
    let select = |key: &str, value: &str| json!({"spec": {"nodeSelector": {key: value}}});
    let team = ["red", "blue", "green"][parameter % 3];
    match kind {
        16 => select(labels::CAPACITY_TYPE, ["spot", "on-demand"][parameter % 2]),
        17 => select(ZONE, ZONES[parameter % 3]),
        18 => select("kubernetes.io/arch", ["arm64", "amd64"][parameter % 2]),
        19 => json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [
                {"key": ZONE, "operator": "NotIn", "values": [ZONES[parameter % 3]]},
                {"key": "karpenter.k8s.aws/instance-cpu", "operator": "Gt", "values": ["3"]}]},
            {"matchExpressions": [
                {"key": "karpenter.k8s.aws/instance-family", "operator": "In",
                    "values": ["r5", "m6g"]}]},
        ]}}}}}),
        20 => json!({"spec": {"affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [
                    {"key": ZONE, "operator": "In", "values": [ZONES[parameter % 3]]}]}},
                {"weight": 9, "preference": {"matchExpressions": [
                    {"key": "nowhere", "operator": "Exists"}]}}]}}}}),
        21 => json!({"spec": {"tolerations": [{"key": "batch", "operator": "Exists"}]}}),
        _ => json!({"spec": {"tolerations": [{"operator": "Exists"}],
            "nodeSelector": {"team": team}}}),
    }
}

fn pod(kind: usize, parameter: usize) -> Value {
    let claim = |name: &str| {
        let claim = format!("{name}-{}", parameter % 3);
        json!({"spec": {"volumes": [
            {"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}})
    };
    match kind {
        26 => json!({"spec": {"initContainers": [
            {"name": "s", "restartPolicy": "Always", "ports": [{"hostPort": 7000 + parameter % 2}],
                "resources": {"requests": {"cpu": "100m"}}},
            {"name": "i", "resources": {"requests": {"cpu": "2", "memory": "1Gi"}}}],
            "overhead": {"cpu": "50m", "memory": "64Mi"}}}),
        27 => claim("bound"),
        28 => claim("open"),
        29 => json!({"spec": {"priority": 100 * parameter}}),
        30 => json!({"spec": {"resources": {"requests": {"cpu": "3", "memory": "2Gi"}}}}),
        31 => json!({"spec": {"tolerations": [{"key": "old", "operator": "Exists"}],
            "priority": -100}}),
        _ => json!({}),
    }
}
