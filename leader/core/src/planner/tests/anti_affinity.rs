//! Pod anti-affinity: of its own, of others, of pods that run.

use serde_json::{Value, json};

use super::world::World;

fn request() -> Value {
    json!({"cpu": "500m", "memory": "1Gi"})
}

const ZONE: &str = "topology.kubernetes.io/zone";
const HOST: &str = "kubernetes.io/hostname";

fn away(app: &str, key: &str) -> Value {
    json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": app}}, "topologyKey": key}]}}}})
}

fn two_zones(world: &mut World) {
    let zones = json!([{"key": ZONE, "operator": "In", "values": ["us-east-1a", "us-east-1b"]}]);
    world.pool("default", zones, json!({}));
}

#[test]
fn pods_that_avoid_their_own_kind_get_a_host_each() {
    let mut world = World::small();
    two_zones(&mut world);
    world.pods("db", 3, request(), away("db", HOST));
    insta::assert_snapshot!(world.story());
}

#[test]
fn over_zones_there_are_as_many_as_zones() {
    let mut world = World::small();
    two_zones(&mut world);
    world.pods("db", 3, request(), away("db", ZONE));
    insta::assert_snapshot!(world.story());
}

#[test]
fn others_are_avoided_whichever_of_the_two_says_so() {
    let mut world = World::small();
    two_zones(&mut world);
    world.pods("noisy", 1, request(), json!({}));
    world.pods("quiet", 1, request(), away("noisy", HOST));
    world.pods("third", 1, request(), json!({}));
    insta::assert_snapshot!(world.story());
}

#[test]
fn what_runs_keeps_others_away() {
    let mut world = World::small();
    two_zones(&mut world);
    world.node("n1", "m5.xlarge", "us-east-1a");
    let mut hermit = json!({
        "metadata": {"name": "hermit", "namespace": "default", "labels": {"app": "hermit"}},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"},
    });
    super::world::merge(&mut hermit, away("web", ZONE));
    world.object(drover_common::call::Kind::Pod, hermit);
    world.pods("web", 1, request(), json!({}));
    world.pods("other", 1, request(), json!({}));
    let here = json!({"spec": {"nodeSelector": {ZONE: "us-east-1a"}, "tolerations": []},
        "metadata": {"labels": {"app": "web"}}});
    world.pods("stuck", 1, request(), here);
    insta::assert_snapshot!(world.story());
}

#[test]
fn pods_of_another_rollout_are_told_apart_by_label_keys() {
    let mut world = World::small();
    two_zones(&mut world);
    world.node("n1", "m5.xlarge", "us-east-1a");
    world.running("web-old", "web", "n1", json!({"cpu": "1"}));
    let mut rules = json!({"spec": {"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [{
            "labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": HOST,
            "matchLabelKeys": ["pod-template-hash"]}]}}}});
    super::world::merge(&mut rules, json!({"metadata": {"labels": {"pod-template-hash": "new"}}}));
    world.pods("web", 2, request(), rules);
    insta::assert_snapshot!(world.story());
}

#[test]
fn what_runs_keeps_others_away_by_the_labels_of_their_namespaces() {
    let mut world = World::small();
    two_zones(&mut world);
    let kind = drover_common::call::Kind::Namespace;
    world.object(kind, json!({"metadata": {"name": "default", "labels": {"team": "shop"}}}));
    world.object(kind, json!({"metadata": {"name": "other", "labels": {"team": "data"}}}));
    world.node("n1", "m5.xlarge", "us-east-1a");
    let rules = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{
        "labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": ZONE,
        "namespaceSelector": {"matchLabels": {"team": "shop"}}}]}});
    let mut hermit = json!({"metadata": {"name": "hermit", "namespace": "far"},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}});
    super::world::merge(&mut hermit, json!({"spec": {"affinity": rules}}));
    world.object(drover_common::call::Kind::Pod, hermit);
    world.pods("web", 1, request(), json!({}));
    let elsewhere = json!({"metadata": {"namespace": "other", "labels": {"app": "web"}}});
    world.pods("same", 1, request(), elsewhere);
    insta::assert_snapshot!(world.story());
}

#[test]
fn hosts_of_one_tenant_each_by_mismatching_label_keys() {
    let mut world = World::small();
    two_zones(&mut world);
    world.node("n1", "m5.2xlarge", "us-east-1a");
    let tenant = |name: &str| {
        json!({"metadata": {"labels": {"tenant": name}}, "spec": {"affinity": {"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [{
                "labelSelector": {"matchExpressions": [{"key": "tenant", "operator": "Exists"}]},
                "mismatchLabelKeys": ["tenant"], "topologyKey": HOST}]}}}})
    };
    world.running_like("b-old", "b", "n1", request(), tenant("b"));
    world.pods("a", 2, request(), tenant("a"));
    world.pods("b", 2, request(), tenant("b"));
    insta::assert_snapshot!(world.story());
}
