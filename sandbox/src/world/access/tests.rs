use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::world::resource::{
    CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, NAMESPACES, NODES, PODS, ROLE_BINDINGS, ROLES, Resource,
    SERVICE_ACCOUNTS,
};
use crate::world::store::{DeleteOptions, WriteOptions};
use crate::world::{World, WorldOptions};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

struct Cluster(World);

impl Cluster {
    fn new() -> Self {
        let mut cluster = Self(World::new(WorldOptions::default(), now()));
        cluster.put(&NAMESPACES, json!({"metadata": {"name": "drover-system"}}));
        cluster.put(
            &SERVICE_ACCOUNTS,
            json!({"metadata": {"name": "agent", "namespace": "drover-system"}}),
        );
        cluster
    }

    fn put(&mut self, resource: &Resource, value: Value) {
        self.0.store.create(resource, value, &WriteOptions::default(), now()).unwrap();
    }

    fn pod(&mut self) {
        self.put(&NODES, json!({"metadata": {"name": "one"}}));
        self.put(
            &PODS,
            json!({
                "metadata": {"name": "agent-1", "namespace": "drover-system"},
                "spec": {"nodeName": "one", "serviceAccountName": "agent",
                         "containers": [{"name": "agent", "image": "drover"}]},
            }),
        );
    }

    fn issue(&mut self, spec: Value) -> ApiToken {
        let key = drover_common::cluster::ObjectKey::new("drover-system", "agent");
        self.0.tokens.issue(&self.0.store, &key, &spec, now()).map(|(token, _)| token)
    }

    fn who(&self, token: &str, audiences: &[&str], at: Timestamp) -> Option<Authenticated> {
        let audiences: Vec<String> = audiences.iter().map(|text| (*text).to_owned()).collect();
        self.0.tokens.authenticate(&self.0, token, &audiences, at)
    }

    fn may(&self, user: &User, verb: &str, target: Target<'_>) -> bool {
        rbac::decide(&self.0.store, user, &Action { verb, target }).allowed
    }
}

type ApiToken = crate::world::failure::ApiResult<String>;

fn resource<'a>(
    group: &'a str,
    resource: &'a str,
    namespace: &'a str,
    name: &'a str,
) -> Target<'a> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    Target::Resource { group, resource, subresource, namespace, name, fields: None }
}

#[test]
fn a_token_is_good_for_its_audience_its_time_and_its_pod() {
    let mut cluster = Cluster::new();
    cluster.pod();
    let bound = json!({"kind": "Pod", "name": "agent-1"});
    let token = cluster.issue(json!({"audiences": ["drover"], "boundObjectRef": bound})).unwrap();
    let found = cluster.who(&token, &["drover", "other"], now()).unwrap();
    assert_eq!(found.audiences, ["drover"]);
    assert_eq!(found.user.name, "system:serviceaccount:drover-system:agent");
    let told =
        |key: &str| found.user.extra[&format!("authentication.kubernetes.io/{key}")][0].clone();
    assert_eq!((told("node-name").as_str(), told("pod-name").as_str()), ("one", "agent-1"));
    assert!(!told("pod-uid").is_empty());
    // The API itself is another audience.
    assert_eq!(cluster.who(&token, &[], now()), None);
    assert_eq!(cluster.who("sandbox-token-0", &["drover"], now()), None);
    let later = now() + SignedDuration::from_secs(3601);
    assert_eq!(cluster.who(&token, &["drover"], later), None);
    let gone = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    let key = drover_common::cluster::ObjectKey::new("drover-system", "agent-1");
    cluster.0.store.delete(&PODS, &key, &gone, now()).unwrap();
    assert_eq!(cluster.who(&token, &["drover"], now()), None);
}

#[test]
fn tokens_are_refused_with_a_reason() {
    let mut cluster = Cluster::new();
    cluster.pod();
    for (spec, part) in [
        (json!({"expirationSeconds": 60}), "10 minutes"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "none"}}), "not found"),
        (json!({"boundObjectRef": {"kind": "Pod", "name": "agent-1", "uid": "x"}}), "UID"),
        (json!({"boundObjectRef": {"kind": "Secret", "name": "s"}}), "boundObjectRef.kind"),
    ] {
        let failure = cluster.issue(spec.clone()).unwrap_err();
        assert!(failure.message.contains(part), "{spec}: {}", failure.message);
    }
}

#[test]
fn roles_give_what_they_say_where_they_are_bound() {
    let mut cluster = Cluster::new();
    let agent = User::service_account("drover-system", "agent");
    let subject =
        json!([{"kind": "ServiceAccount", "name": "agent", "namespace": "drover-system"}]);
    let api_group = "rbac.authorization.k8s.io";
    cluster.put(
        &CLUSTER_ROLES,
        json!({"metadata": {"name": "a"}, "rules": [
            {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "patch"]},
            {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
            {"nonResourceURLs": ["/v1/*"], "verbs": ["get"]},
        ]}),
    );
    let node = resource("", "nodes", "", "one");
    assert!(!cluster.may(&agent, "patch", node));
    cluster.put(
        &CLUSTER_ROLE_BINDINGS,
        json!({"metadata": {"name": "a"}, "subjects": subject,
        "roleRef": {"apiGroup": api_group, "kind": "ClusterRole", "name": "a"}}),
    );
    assert!(cluster.may(&agent, "patch", node));
    assert!(!cluster.may(&agent, "delete", node));
    assert!(!cluster.may(&agent, "patch", resource("", "nodes/status", "", "one")));
    assert!(cluster.may(&agent, "create", resource("", "pods/eviction", "any", "p")));
    assert!(cluster.may(&agent, "get", Target::Path("/v1/status")));
    assert!(!cluster.may(&agent, "get", Target::Path("/v2")));
    assert!(!cluster.may(&User::service_account("other", "agent"), "patch", node));

    cluster.put(&ROLES, json!({"metadata": {"name": "r", "namespace": "kube-system"}, "rules": [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "resourceNames": ["l"], "verbs": ["get"]}]}));
    cluster.put(
        &ROLE_BINDINGS,
        json!({"metadata": {"name": "r", "namespace": "kube-system"}, "subjects": subject,
        "roleRef": {"apiGroup": api_group, "kind": "Role", "name": "r"}}),
    );
    let lease = |namespace, name| resource("coordination.k8s.io", "leases", namespace, name);
    assert!(cluster.may(&agent, "get", lease("kube-system", "l")));
    assert!(!cluster.may(&agent, "get", lease("kube-system", "m")));
    assert!(!cluster.may(&agent, "get", lease("default", "l")));
}

#[test]
fn everybody_may_what_everybody_may() {
    let cluster = Cluster::new();
    let pods = resource("", "pods", "", "");
    assert!(cluster.may(&User::administrator(), "list", pods));
    let robot = User::service_account("default", "robot");
    assert!(!cluster.may(&robot, "list", pods));
    assert!(cluster.may(&robot, "get", Target::Path("/version")));
    assert!(!cluster.may(&robot, "get", Target::Path("/metrics")));
    assert!(!cluster.may(&User::default(), "get", Target::Path("/apis")));
    let node = User::node("one");
    assert!(cluster.may(&node, "get", Target::Path("/apis")));
    assert!(cluster.may(&node, "patch", resource("", "nodes", "", "one")));
    assert!(!cluster.may(&node, "delete", resource("", "nodes", "", "one")));
}

#[test]
fn a_node_reads_itself_and_its_pods_alone() {
    let mut cluster = Cluster::new();
    cluster.pod();
    let decide = |user: &User, verb, target: Target<'_>, selector: &str| {
        let selector = Selector::parse("", selector).unwrap();
        let mut target = target;
        if let Target::Resource { fields, .. } = &mut target {
            *fields = Some(&selector);
        }
        rbac::decide(&cluster.0.store, user, &Action { verb, target })
    };
    let (one, two) = (User::node("one"), User::node("two"));
    for verb in ["list", "watch"] {
        for namespace in ["", "drover-system"] {
            let pods = resource("", "pods", namespace, "");
            assert!(decide(&one, verb, pods, "spec.nodeName=one").allowed);
            assert!(decide(&one, verb, pods, "status.phase=Running,spec.nodeName==one").allowed);
            for selector in [
                "",
                "spec.nodeName=two",
                "spec.nodeName!=one",
                "status.phase=Running",
                "metadata.name=one",
            ] {
                let refused = decide(&one, verb, pods, selector);
                assert!(!refused.allowed, "{verb} {selector:?}");
                assert!(refused.reason.contains("spec.nodeName"), "{}", refused.reason);
            }
            // Who is no node is not concerned.
            assert!(decide(&User::administrator(), verb, pods, "").allowed);
        }
    }
    let pod = resource("", "pods", "drover-system", "agent-1");
    assert!(decide(&one, "get", pod, "").allowed);
    assert!(!decide(&two, "get", pod, "").allowed);
    assert!(!decide(&one, "get", resource("", "pods", "drover-system", "none"), "").allowed);
    for verb in ["get", "list", "watch"] {
        assert!(decide(&one, verb, resource("", "nodes", "", "one"), "").allowed, "{verb}");
        assert!(!decide(&one, verb, resource("", "nodes", "", "two"), "").allowed, "{verb}");
        assert!(!decide(&one, verb, resource("", "nodes", "", ""), "").allowed, "{verb}");
    }
    // What is written, and other things, are not narrowed here.
    assert!(decide(&one, "list", resource("", "services", "", ""), "").allowed);
    assert!(
        decide(&one, "create", resource("", "pods/eviction", "drover-system", "agent-1"), "")
            .allowed
    );
    assert!(decide(&one, "delete", pod, "").allowed);
}

#[test]
fn a_node_changes_itself_and_its_pods_alone() {
    let user = User::node("one");
    let node = |name: &str, spec: Value, labels: Value| json!({"metadata": {"name": name, "labels": labels}, "spec": spec});
    let old = node("one", json!({}), json!({}));
    let may = |object: &Value| restrict(&user, &NODES, "", Some(object), Some(&old)).is_ok();
    assert!(may(&node("one", json!({"unschedulable": true}), json!({}))));
    assert!(!may(&node("two", json!({"unschedulable": true}), json!({}))));
    assert!(!may(&node(
        "one",
        json!({"taints": [{"key": "a", "effect": "NoSchedule"}]}),
        json!({})
    )));
    assert!(may(&node(
        "one",
        json!({}),
        json!({"topology.kubernetes.io/zone": "z", "example.com/a": "b"})
    )));
    assert!(!may(&node("one", json!({}), json!({"node-restriction.kubernetes.io/team": "a"}))));
    assert!(!may(&node("one", json!({}), json!({"node-role.kubernetes.io/control-plane": ""}))));
    let pod = |node: &str| json!({"metadata": {"name": "p"}, "spec": {"nodeName": node}});
    assert!(restrict(&user, &PODS, "", None, Some(&pod("one"))).is_ok());
    assert!(restrict(&user, &PODS, "", None, Some(&pod("two"))).is_err());
    assert!(restrict(&user, &PODS, "eviction", None, Some(&pod("two"))).is_err());
    assert!(restrict(&user, &PODS, "", Some(&pod("one")), None).is_err());
    assert!(restrict(&User::administrator(), &PODS, "", None, Some(&pod("two"))).is_ok());
}
