use drover_common::call::KubernetesFailureKind;
use serde_json::{Value, json};

use super::list::ListQuery;
use super::selector::Selector;
use super::*;
use crate::world::api::{bind, evict, patch};
use crate::world::resource::{CONFIG_MAPS, NAMESPACES, NODE_POOLS, POD_DISRUPTION_BUDGETS, PODS};
use crate::world::{World, WorldOptions};
use jiff::{SignedDuration, Timestamp};

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

fn store() -> Store {
    World::new(WorldOptions { log_length: 100, ..WorldOptions::default() }, now()).store
}

fn map(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default"}, "data": {"a": "b"}})
}

fn pod(name: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "default", "labels": {"app": "web"}},
        "spec": {"containers": [{"name": "a", "image": "a"}]}})
}

fn create(store: &mut Store, resource: &Resource, value: Value) -> Arc<Value> {
    store.create(resource, value, &WriteOptions::default(), now()).unwrap()
}

fn running(store: &mut Store, name: &str) -> ObjectKey {
    let key = object::key(&create(store, &PODS, pod(name)));
    bind::bind(store, &key, &json!({"target": {"name": "one"}}), now()).unwrap();
    let ready = |pod: &mut Value| {
        object::set(pod, &["status", "phase"], "Running");
        object::set_condition(pod, "Ready", "True", "", "", now());
    };
    store.modify(&PODS, &key, Part::Whole, now(), ready).unwrap();
    key
}

#[test]
fn creation_stamps_and_names_objects() {
    let mut store = store();
    let mut value = map("");
    object::remove(&mut value, &["metadata", "name"]);
    object::set(&mut value, &["metadata", "generateName"], "some-");
    let made = create(&mut store, &CONFIG_MAPS, value);
    assert!(object::name(&made).starts_with("some-") && object::name(&made).len() == 10);
    assert_eq!(object::uid(&made).len(), 36);
    assert_eq!(made["metadata"]["resourceVersion"], store.revision().to_string());
    let again = store.create(&CONFIG_MAPS, Value::clone(&made), &WriteOptions::default(), now());
    assert_eq!(again.unwrap_err().reason, "AlreadyExists");
    let lost = json!({"metadata": {"name": "a", "namespace": "nowhere"}});
    let failure = store.create(&CONFIG_MAPS, lost, &WriteOptions::default(), now()).unwrap_err();
    assert_eq!(failure.message, "namespaces \"nowhere\" not found");
}

#[test]
fn stale_versions_and_foreign_uids_conflict() {
    let mut store = store();
    let first = create(&mut store, &CONFIG_MAPS, map("a"));
    let mut newer = Value::clone(&first);
    newer["data"]["a"] = json!("c");
    let options = WriteOptions::default();
    store.update(&CONFIG_MAPS, newer.clone(), Part::Main, &options, now()).unwrap();
    newer["data"]["a"] = json!("d");
    let failure = store.update(&CONFIG_MAPS, newer, Part::Main, &options, now()).unwrap_err();
    assert_eq!((failure.code, failure.reason), (409, "Conflict"));
    let foreign = DeleteOptions { uid: Some("other".to_owned()), ..DeleteOptions::default() };
    let key = object::key(&first);
    assert_eq!(store.delete(&CONFIG_MAPS, &key, &foreign, now()).unwrap_err().code, 409);
}

#[test]
fn a_patch_may_not_change_the_uid_and_a_replacement_is_asked_for_another() {
    let mut store = store();
    let made = create(&mut store, &CONFIG_MAPS, map("a"));
    let options = WriteOptions::default();
    let mut patched = |change: Value| {
        let value = patch::merge(Value::clone(&made), &change);
        patch::write(&mut store, &CONFIG_MAPS, value, Part::Main, &options, now())
    };
    let failure = patched(json!({"metadata": {"uid": "other"}})).unwrap_err();
    assert_eq!((failure.code, failure.reason), (422, "Invalid"));
    assert!(failure.message.contains("metadata.uid"), "{}", failure.message);
    assert!(failure.message.ends_with("field is immutable"), "{}", failure.message);
    // The version is looked at first.
    let both = json!({"metadata": {"uid": "other", "resourceVersion": "1"}});
    assert_eq!(patched(both).unwrap_err().code, 409);
    assert!(patched(json!({"metadata": {"uid": object::uid(&made)}})).is_ok());
    let mut replaced = Value::clone(&made);
    object::set(&mut replaced, &["metadata", "uid"], "other");
    let failure = store.update(&CONFIG_MAPS, replaced, Part::Main, &options, now()).unwrap_err();
    assert_eq!((failure.code, failure.reason), (409, "Conflict"));
}

#[test]
fn an_update_without_a_change_makes_no_revision_and_dry_runs_change_nothing() {
    let mut store = store();
    let made = create(&mut store, &CONFIG_MAPS, map("a"));
    let before = store.revision();
    store
        .update(&CONFIG_MAPS, Value::clone(&made), Part::Main, &WriteOptions::default(), now())
        .unwrap();
    let dry = WriteOptions { dry_run: true, ..WriteOptions::default() };
    store.create(&CONFIG_MAPS, map("b"), &dry, now()).unwrap();
    assert_eq!(store.revision(), before);
}

#[test]
fn status_and_spec_are_written_apart_and_spec_changes_are_counted() {
    let mut store = store();
    let pool = json!({"metadata": {"name": "a"}, "spec": {"weight": 1, "template": {"spec": {
        "nodeClassRef": {"group": "karpenter.k8s.aws", "kind": "EC2NodeClass", "name": "b"}, "requirements": []}}}});
    let made = create(&mut store, &NODE_POOLS, pool);
    let key = object::key(&made);
    let both = |value: &mut Value| {
        object::set(value, &["spec", "weight"], 2);
        object::set(value, &["status", "nodes"], 5);
    };
    let main = store.modify(&NODE_POOLS, &key, Part::Main, now(), both).unwrap();
    assert_eq!(
        (main["spec"]["weight"].clone(), main.get("status")),
        (json!(2), made.get("status"))
    );
    assert_eq!(main["metadata"]["generation"], 2);
    let heavier = |value: &mut Value| {
        object::set(value, &["spec", "weight"], 9);
        object::set(value, &["status", "nodes"], 5);
    };
    let status = store.modify(&NODE_POOLS, &key, Part::Status, now(), heavier).unwrap();
    assert_eq!(
        (status["spec"]["weight"].clone(), status["metadata"]["generation"].clone()),
        (json!(2), json!(2))
    );
}

#[test]
fn finalizers_hold_an_object_until_the_last_is_gone() {
    let mut store = store();
    let mut value = map("a");
    value["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let key = object::key(&create(&mut store, &CONFIG_MAPS, value));
    let deleted = store.delete(&CONFIG_MAPS, &key, &DeleteOptions::default(), now()).unwrap();
    assert!(matches!(deleted, Deleted::Pending(_)));
    let add = |value: &mut Value| {
        value["metadata"]["finalizers"] = json!(["example.com/hold", "example.com/more"])
    };
    assert_eq!(store.modify(&CONFIG_MAPS, &key, Part::Main, now(), add).unwrap_err().code, 422);
    store
        .modify(&CONFIG_MAPS, &key, Part::Main, now(), |value| {
            object::remove(value, &["metadata", "finalizers"]);
        })
        .unwrap();
    assert!(store.get(&CONFIG_MAPS, &key).is_none());
}

#[test]
fn a_running_pod_gets_its_grace_and_a_pending_one_goes_at_once() {
    let mut store = store();
    let key = running(&mut store, "a");
    let deleted = store.delete(&PODS, &key, &DeleteOptions::default(), now()).unwrap();
    assert_eq!(deleted.object()["metadata"]["deletionGracePeriodSeconds"], 30);
    assert_eq!(deleted.object()["metadata"]["deletionTimestamp"], "2026-01-01T00:00:30Z");
    let force = DeleteOptions { grace_seconds: Some(0), ..DeleteOptions::default() };
    assert!(matches!(store.delete(&PODS, &key, &force, now()).unwrap(), Deleted::Gone(_)));
    let pending = object::key(&create(&mut store, &PODS, pod("b")));
    let deleted = store.delete(&PODS, &pending, &DeleteOptions::default(), now()).unwrap();
    assert!(matches!(deleted, Deleted::Gone(_)));
}

#[test]
fn a_shorter_grace_is_counted_from_the_first_deletion() {
    let mut store = store();
    let key = running(&mut store, "a");
    let mut shorten = |grace_seconds, seconds| {
        let options = DeleteOptions { grace_seconds, ..DeleteOptions::default() };
        let now = now() + SignedDuration::from_secs(seconds);
        let deleted = store.delete(&PODS, &key, &options, now).unwrap();
        let metadata = &deleted.object()["metadata"];
        let text = |member: &str| metadata[member].to_string().replace('"', "");
        format!("{} {}", text("deletionTimestamp"), text("deletionGracePeriodSeconds"))
    };
    for (asked, at, shown) in [
        (Some(300), 0, "2026-01-01T00:05:00Z 300"),
        (Some(100), 40, "2026-01-01T00:01:40Z 100"),
        (Some(200), 50, "2026-01-01T00:01:40Z 100"),
        (None, 50, "2026-01-01T00:01:40Z 100"),
        (Some(60), 60, "2026-01-01T00:01:00Z 60"),
        (Some(50), 70, "2026-01-01T00:01:10Z 1"),
        (Some(1), 80, "2026-01-01T00:01:10Z 1"),
    ] {
        assert_eq!(shorten(asked, at), shown, "{asked:?} at {at} s");
    }
}

#[test]
fn budgets_are_charged_by_evictions() {
    let mut store = store();
    let (one, two) = (running(&mut store, "a"), running(&mut store, "b"));
    let budget = json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let made = create(&mut store, &POD_DISRUPTION_BUDGETS, budget.clone());
    let options = DeleteOptions::default();
    let early = evict::evict(&mut store, &one, &options, now()).unwrap_err();
    assert_eq!((early.code, early.retry_after_seconds), (429, Some(10)));
    store
        .update_status(&POD_DISRUPTION_BUDGETS, &object::key(&made), now(), |status| {
            *status = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2,
                "desiredHealthy": 1, "expectedPods": 2});
        })
        .unwrap();
    evict::evict(&mut store, &one, &options, now()).unwrap();
    let refused = evict::evict(&mut store, &two, &options, now()).unwrap_err();
    assert_eq!(refused.causes[0].reason, "DisruptionBudget");
    let mut second = budget;
    second["metadata"]["name"] = json!("other");
    create(&mut store, &POD_DISRUPTION_BUDGETS, second);
    let refused = evict::evict(&mut store, &two, &options, now()).unwrap_err();
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.to_kubernetes_failure().kind,
        drover_common::call::KubernetesFailureKind::OverlappingBudgets
    );
}

#[test]
fn a_budget_whose_status_cannot_be_right_forbids_evictions() {
    let mut store = store();
    let one = running(&mut store, "a");
    let budget = json!({"metadata": {"name": "web", "namespace": "default"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}}});
    let budget = object::key(&create(&mut store, &POD_DISRUPTION_BUDGETS, budget));
    let options = DeleteOptions::default();
    let mut evict = |generation: i64, allowed: i64, disrupted: usize| {
        let pods: serde_json::Map<String, Value> = (0..disrupted)
            .map(|number| (format!("p{number}"), json!("2026-01-01T00:00:00Z")))
            .collect();
        store
            .update_status(&POD_DISRUPTION_BUDGETS, &budget, now(), |status| {
                *status = json!({"observedGeneration": generation, "disruptionsAllowed": allowed,
                    "currentHealthy": 1, "desiredHealthy": 1, "expectedPods": 1, "disruptedPods": pods});
            })
            .unwrap();
        evict::evict(&mut store, &one, &options, now())
    };
    for (generation, allowed, disrupted, code, part) in [
        (1, -1, 0, 403, "disruptionsAllowed is negative"),
        (1, 1, 2001, 403, "disruptedPods"),
        (1, 0, 2001, 403, "disruptedPods"),
        (1, 0, 2000, 429, "disruption budget"),
        // What its controller has yet to look at may be another by then.
        (0, -1, 2001, 429, "disruption budget"),
    ] {
        let refused = evict(generation, allowed, disrupted).unwrap_err();
        assert_eq!(refused.code, code, "{allowed} {disrupted}");
        assert!(refused.message.contains(part), "{}", refused.message);
        let kind = refused.to_kubernetes_failure().kind;
        assert_eq!(kind, KubernetesFailureKind::DisruptionBudget, "as real clients see it");
        let (status, is_budgets) = (refused.to_status(), code == 429);
        assert_eq!(
            refused.causes.iter().any(|cause| cause.reason == "DisruptionBudget"),
            is_budgets
        );
        if !is_budgets {
            let details = &status["details"];
            assert_eq!(
                (&details["kind"], &details["name"]),
                (&json!("poddisruptionbudget"), &json!("web"))
            );
        }
    }
    evict(1, 1, 2000).unwrap();
}

#[test]
fn pages_are_of_one_revision_and_expire_with_it() {
    let mut store = store();
    for name in ["a", "b", "c"] {
        create(&mut store, &CONFIG_MAPS, map(name));
    }
    let query =
        ListQuery { limit: Some(2), namespace: Some("default".to_owned()), ..ListQuery::default() };
    let first = store.list(&CONFIG_MAPS, &query).unwrap();
    assert_eq!((first.items.len(), first.remaining), (2, Some(1)));
    let later = now().checked_add(SignedDuration::from_secs(5)).unwrap();
    let key = ObjectKey::new("default", "c");
    store.delete(&CONFIG_MAPS, &key, &DeleteOptions::default(), later).unwrap();
    let next = ListQuery { continue_token: first.continue_token.clone(), ..query.clone() };
    let second = store.list(&CONFIG_MAPS, &next).unwrap();
    assert_eq!((second.items.len(), second.revision), (1, first.revision));
    store.compact();
    create(&mut store, &CONFIG_MAPS, map("d"));
    assert_eq!(store.list(&CONFIG_MAPS, &next).unwrap_err().code, 410);
    let broken = ListQuery { continue_token: Some("?".to_owned()), ..query };
    assert_eq!(store.list(&CONFIG_MAPS, &broken).unwrap_err().code, 400);
}

#[test]
fn the_log_tells_every_change_and_forgets_old_ones() {
    let mut store = store();
    let start = store.revision();
    let key = object::key(&create(&mut store, &CONFIG_MAPS, map("a")));
    store.delete(&CONFIG_MAPS, &key, &DeleteOptions::default(), now()).unwrap();
    let kinds: Vec<ChangeKind> =
        store.changes_since(start).unwrap().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Added, ChangeKind::Deleted]);
    for index in 0..120 {
        create(&mut store, &CONFIG_MAPS, map(&format!("m{index}")));
    }
    assert_eq!(store.changes_since(start).err().unwrap().code, 410);
}

#[test]
fn pods_are_completed_on_admission() {
    let mut store = store();
    let made = create(&mut store, &PODS, pod("a"));
    assert_eq!(made["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(object::list(&made, "/spec/tolerations").len(), 2);
    assert_eq!(made["status"]["qosClass"], "BestEffort");
    let mut unknown = pod("b");
    unknown["spec"]["priorityClassName"] = json!("none");
    let refused = store.create(&PODS, unknown, &WriteOptions::default(), now()).unwrap_err();
    assert_eq!(refused.code, 403);
    let mut critical = pod("c");
    critical["spec"]["priorityClassName"] = json!("system-node-critical");
    assert_eq!(create(&mut store, &PODS, critical)["spec"]["priority"], 2_000_001_000);
    let selector = Selector::parse("app=web", "status.phase=Pending").unwrap();
    let query = ListQuery { selector, ..ListQuery::default() };
    assert_eq!(store.list(&PODS, &query).unwrap().items.len(), 2);
}

#[test]
fn system_namespaces_stay() {
    let mut store = store();
    let key = ObjectKey::cluster("kube-system");
    let failure = store.delete(&NAMESPACES, &key, &DeleteOptions::default(), now()).unwrap_err();
    assert_eq!(failure.code, 403);
}
