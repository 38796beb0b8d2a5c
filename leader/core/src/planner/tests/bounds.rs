//! Input that is hard on a planner: work is bounded in steps, and what they do not reach has a reason.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::World;
use crate::planner::{Launch, Plan, Unschedulable};

const PUT_OFF: &str = "it is left to the next look";

fn is_put_off(left: &Unschedulable) -> bool {
    left.reasons.iter().any(|(_, reason)| reason.contains(PUT_OFF))
}

fn own_labels(number: usize) -> Value {
    json!({"app": "web", "number": number.to_string()})
}

/// Pods of one shape each, with a rule by their number.
fn distinct(world: &mut World, count: usize, rule: impl Fn(usize) -> Value) {
    for number in 0..count {
        let mut extra = rule(number);
        super::world::merge(&mut extra, json!({"metadata": {"labels": own_labels(number)}}));
        let cpu = format!("{}m", 100 + number);
        world.pods(&format!("p{number:04}"), 1, json!({"cpu": cpu, "memory": "64Mi"}), extra);
    }
}

fn affinity(kind: &str, key: &str, selector: &Value) -> Value {
    json!({"spec": {"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": key, "labelSelector": selector}]}}}})
}

fn world() -> World {
    let mut world = World::small();
    world.pool("default", json!([]), json!({}));
    world
}

fn planned(plan: &Plan) -> usize {
    plan.report.on_new + plan.report.on_existing
}

#[test]
fn pods_that_the_steps_do_not_reach_wait_for_the_next_look_and_the_rest_is_planned() {
    let mut world = world();
    let zone = "topology.kubernetes.io/zone";
    distinct(&mut world, 60, |_| {
        affinity("podAffinity", zone, &json!({"matchLabels": {"app": "web"}}))
    });
    world.pods("plain", 40, json!({"cpu": "1"}), json!({}));
    let all = world.plan();
    assert_eq!((planned(&all), all.report.put_off), (100, 0));
    world.settings.max_exact_steps = 5_000;
    let some = world.plan();
    let reached = planned(&some);
    assert!((41..100).contains(&reached), "{reached}");
    assert_eq!(some.report.put_off, 100 - reached);
    assert_eq!(some.unschedulable.len(), 100 - reached);
    for left in &some.unschedulable {
        assert!(is_put_off(left), "{left:?}");
        assert!(!left.pod.name.starts_with("plain"), "{left:?}");
    }
    // Nothing is bought for want of a look at what is planned already.
    let entangled = |plan: &Plan| {
        let holds = |launch: &&Launch| launch.pods.iter().any(|pod| pod.name.starts_with("p0"));
        plan.launches.iter().filter(holds).count()
    };
    assert!(entangled(&some) <= entangled(&all));
    world.settings.max_exact_steps = 0;
    let none = world.plan();
    assert_eq!((planned(&none), none.report.put_off), (40, 60));
}

#[test]
fn pods_that_find_no_place_do_not_use_up_the_steps_of_the_same_others_each_time() {
    let mut world = world();
    let zone = "topology.kubernetes.io/zone";
    distinct(&mut world, 60, |_| {
        affinity("podAffinity", zone, &json!({"matchLabels": {"app": "nobody"}}))
    });
    let near = affinity("podAffinity", zone, &json!({"matchLabels": {"app": "last"}}));
    world.pods("last", 1, json!({"cpu": "50m"}), near);
    world.settings.max_exact_steps = 1_000;
    let looks: Vec<usize> = (0..40)
        .map(|_| {
            world.now += std::time::Duration::from_secs(10);
            planned(&world.plan())
        })
        .collect();
    assert!(looks.contains(&0), "the steps suffice for all: {looks:?}");
    assert!(looks.contains(&1), "it never has its turn: {looks:?}");
}

#[test]
fn a_pod_that_was_looked_at_keeps_its_own_reason() {
    let mut world = world();
    world.settings.max_exact_steps = 0;
    world.pods("huge", 1, json!({"cpu": "900"}), json!({}));
    let zone = "topology.kubernetes.io/zone";
    let lonely = affinity("podAffinity", zone, &json!({"matchLabels": {"app": "nobody"}}));
    world.pods("lonely", 1, json!({"cpu": "1"}), lonely);
    let plan = world.plan();
    let reasons: BTreeMap<&str, bool> =
        plan.unschedulable.iter().map(|left| (left.pod.name.as_str(), is_put_off(left))).collect();
    assert_eq!(reasons.get("lonely-0"), Some(&true), "{:?}", plan.unschedulable);
    world.settings.max_exact_steps = 1_000_000;
    let plan = world.plan();
    assert!(!plan.unschedulable.iter().any(is_put_off), "{:?}", plan.unschedulable);
    assert_eq!(plan.report.put_off, 0);
}

#[test]
fn hosts_that_are_closed_to_one_shape_are_not_looked_at_for_the_next() {
    let mut world = world();
    let apart = affinity("podAntiAffinity", "kubernetes.io/hostname", &json!({}));
    distinct(&mut world, 120, |_| apart.clone());
    // A fixed number of steps a shape: each looking at all nodes before it would take several times as many.
    world.settings.max_exact_steps = 120 * 60;
    let plan = world.plan();
    assert_eq!((planned(&plan), plan.launches.len()), (120, 120));
}

#[test]
fn selectors_that_match_everything_are_bounded_by_their_matches() {
    let mut world = world();
    world.settings.max_exact_steps = 1;
    let zone = "topology.kubernetes.io/zone";
    distinct(&mut world, 1_500, |number| {
        let others = json!({"matchExpressions": [
            {"key": "number", "operator": "NotIn", "values": [number.to_string(), "x"]}]});
        affinity("podAffinity", zone, &others)
    });
    world.pods("plain", 3, json!({"cpu": "1"}), json!({}));
    let plan = crate::planner::draft(&world.input());
    assert_eq!(plan.unschedulable.len() + planned(&plan), 1_503);
    assert!(plan.unschedulable.iter().all(is_put_off));
    let by_matches = plan.unschedulable.iter().filter(|left| {
        left.reasons.iter().any(|(_, reason)| reason.contains("selectors that match"))
    });
    let by_matches = by_matches.count();
    assert!((50..150).contains(&by_matches), "{by_matches}");
}

#[test]
fn of_very_many_preferences_the_heaviest_count() {
    let mut world = world();
    let zone = |weight: usize, zone: &str| {
        json!({"weight": weight, "preference": {"matchExpressions": [
            {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}]}})
    };
    let mut preferred: Vec<Value> = (1..100).map(|weight| zone(weight, "moon-1a")).collect();
    preferred.push(zone(100, "us-east-1b"));
    let spec = json!({"spec": {"affinity": {"nodeAffinity":
        {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}}});
    world.pods("web", 1, json!({"cpu": "1"}), spec);
    let plan = world.plan();
    assert_eq!(plan.launches[0].zones, ["us-east-1b"]);
}

#[test]
fn preferences_beyond_the_bound_are_passed_over_and_told_of() {
    let mut world = world();
    // Sixteen of each count: 136 terms over the steps of one shape, a hundred thousand at most.
    let prefers = |number: usize| {
        let terms: Vec<Value> = (0..16)
            .map(|other| {
                json!({"weight": 1, "podAffinityTerm": {"topologyKey": "topology.kubernetes.io/zone",
                    "labelSelector": {"matchLabels": {"number": (number + other).to_string()}}}})
            })
            .collect();
        json!({"spec": {"affinity": {"podAntiAffinity":
            {"preferredDuringSchedulingIgnoredDuringExecution": terms}}}})
    };
    distinct(&mut world, 760, prefers);
    world.settings.max_exact_steps = 1;
    let plan = crate::planner::draft(&world.input());
    assert_eq!(plan.unschedulable.len() + planned(&plan), 760);
    let told =
        "preferences of 25 pods are passed over: there are more of them than a plan looks at";
    assert_eq!(plan.report.problems, [told]);
}

#[test]
fn hundreds_of_priorities_and_a_limit_leave_the_lowest_out() {
    let mut world = World::small();
    world.pool("default", json!([]), json!({"limits": {"cpu": "64"}}));
    for number in 0..200 {
        let spec = json!({"spec": {"priority": number}});
        world.pods(&format!("p{number:03}"), 1, json!({"cpu": "900m", "memory": "1Gi"}), spec);
    }
    let plan = world.plan();
    let left: Vec<&str> = plan.unschedulable.iter().map(|left| left.pod.name.as_str()).collect();
    assert!(left.len() > 100, "{}", left.len());
    let highest = left.iter().max().unwrap();
    assert_eq!(*highest, format!("p{:03}-0", left.len() - 1), "none but the lowest are left");
}

#[test]
fn without_steps_to_fill_what_is_planned_everybody_still_has_a_place() {
    let mut world = world();
    world.pods("train", 1, json!({"cpu": "1", "nvidia.com/gpu": "1"}), json!({}));
    for number in 0..40 {
        let request = json!({"cpu": format!("{}m", 20 + number)});
        world.pods(&format!("web{number:02}"), 1, request, json!({}));
    }
    let filled = world.plan();
    assert_eq!((planned(&filled), filled.launches.len()), (41, 1));
    world.settings.max_exact_steps = 4;
    let bought = world.plan();
    assert_eq!((planned(&bought), bought.report.put_off), (41, 0));
    assert!(bought.launches.len() > 1, "{:?}", bought.launches);
}
