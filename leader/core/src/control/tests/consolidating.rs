//! Pods move to fewer and cheaper nodes.

use std::collections::BTreeSet;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterEvent, ClusterObject};
use drover_common::id::NodeClaimName;
use drover_common::protocol::NoticeKind;
use jiff::SignedDuration;
use serde_json::json;

use super::super::*;
use super::rig::*;
use crate::command::{Change, DisruptionReason};
use crate::state::Stage;

/// Three nodes of which two hold half of what they could.
fn sparse() -> Rig {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 6, 800);
    rig.run(10);
    assert_eq!(rig.stages(), [Stage::Initialized; 3]);
    rig.world.remove_pods("web-1");
    rig.world.remove_pods("web-3");
    rig
}

/// One large node with a small pod left on it.
fn oversized() -> Rig {
    let mut rig = Rig::new();
    rig.world.add_pods("big", 1, 3_000);
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    rig.world.remove_pods("big");
    rig
}

/// Ticks until `done`, at most so many seconds; after each step `check` is asked.
fn run_until(rig: &mut Rig, seconds: i64, mut done: impl FnMut(&Rig) -> bool) -> bool {
    for _ in 0..seconds {
        if done(rig) {
            return true;
        }
        rig.run(1);
    }
    done(rig)
}

fn consolidates(rig: &Rig) -> bool {
    rig.state
        .disruptions
        .values()
        .any(|record| record.disruption.reason == DisruptionReason::Consolidation)
}

fn taints(rig: &Rig) -> Vec<String> {
    let nodes = rig.world.list(Kind::Node);
    let all = nodes.iter().filter_map(|node| node["spec"]["taints"].as_array());
    all.flatten().map(|taint| taint["key"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pods_move_to_free_room_once_their_node_is_old_enough() {
    let mut rig = sparse();
    rig.run(45);
    assert!(!consolidates(&rig), "a minute of age is asked for");
    rig.run(120);
    assert_eq!(rig.rejected, Vec::<String>::new());
    assert_eq!(rig.stages(), [Stage::Initialized; 2]);
    assert_eq!(rig.world.running_pods(), 4);
    assert_eq!(rig.world.terminated.len(), 1);
    rig.check_settled();
    let decision = rig
        .state
        .journal
        .decisions()
        .find(|decision| decision.verb == "commit-disruption")
        .unwrap();
    insta::assert_snapshot!(decision.inputs[0], @"1 nodes of $0.0300/h hold 1 pods; 1 fit on nodes that stay; saves $0.0300/h (100 %)");
    assert_eq!(decision.hourly_price_change_micro, -30_000);
    assert!(taints(&rig).is_empty());
    assert_eq!(rig.control.status(&rig.state, rig.world.now).consolidation.deleted, 1);
}

#[test]
fn a_termination_grace_period_counts_from_the_drain() {
    let mut rig = oversized();
    rig.world.set_termination_grace("300s");
    let drains = |rig: &Rig| {
        let mut records = rig.state.disruptions.values();
        records.any(|record| record.draining_since.is_some())
    };
    assert!(run_until(&mut rig, 180, drains));
    let record = rig.state.disruptions.values().next().unwrap();
    let since = record.draining_since.unwrap();
    assert!(since > record.committed_at, "a replacement came up first");
    assert_eq!(record.disruption.deadline, Some(since + SignedDuration::from_secs(300)));
}

#[test]
fn a_replacement_is_up_before_any_pod_is_asked_to_go() {
    let mut rig = oversized();
    assert!(run_until(&mut rig, 180, consolidates));
    let record = rig.state.disruptions.values().next().unwrap().clone();
    assert_eq!(record.disruption.replacements.len(), 1);
    insta::assert_snapshot!(record.disruption.explanation, @"1 nodes of $0.4000/h hold 1 pods; 0 fit on nodes that stay, 1 on 1 new ones of $0.0300/h, at most $0.0500/h; saves $0.3700/h (92 %)");
    let old = record.disruption.claims[0].clone();
    let new = record.disruption.replacements[0].clone();
    rig.run(1);
    let claim = rig
        .world
        .list(Kind::NodeClaim)
        .into_iter()
        .find(|claim| claim["metadata"]["name"] == old.as_str())
        .unwrap()
        .clone();
    assert!(conditions(&claim).contains(&"DisruptionReason".to_owned()));
    assert!(run_until(&mut rig, 60, |rig| {
        let stage = |name: &NodeClaimName| rig.state.claims.get(name).map(|claim| claim.stage);
        let up = stage(&new) == Some(Stage::Initialized);
        assert!(up || rig.world.running_pods() == 1, "nothing moves before there is a place");
        stage(&old).is_none()
    }));
    assert_eq!(rig.rejected, Vec::<String>::new());
    assert_eq!(rig.world.running_pods(), 1);
    assert_eq!(rig.world.running_instances()[0].instance_type, "m5.large");
    rig.check_settled();
    // It is not done over and over.
    let before = rig.world.instances.len();
    rig.run(600);
    assert_eq!(rig.world.instances.len(), before);
}

#[test]
fn a_leader_that_ends_at_any_call_of_a_replacement_loses_no_pod() {
    for (fate, stride) in [(Fate::Unheard, 6), (Fate::NeverSent, 13)] {
        let mut at = 1;
        loop {
            let mut rig = oversized();
            rig.run(55);
            rig.crash = Some((rig.calls + at, fate));
            rig.run(180);
            assert_eq!(rig.world.running_pods(), 1, "{fate:?} at call {at}");
            let types: BTreeSet<&str> =
                rig.world.running_instances().iter().map(|i| i.instance_type.as_str()).collect();
            assert_eq!(types, BTreeSet::from(["m5.large"]), "{fate:?} at call {at}");
            assert_eq!(rig.stages(), [Stage::Initialized], "{fate:?} at call {at}");
            rig.check_settled();
            if rig.crash.is_some() {
                break;
            }
            at += stride;
        }
    }
}

/// What is left of it would drain by the end of that node, and pass budgets then.
#[test]
fn a_consolidation_does_not_begin_while_ec2_takes_one_of_its_nodes() {
    let mut rig = sparse();
    assert!(run_until(&mut rig, 180, consolidates));
    rig.refuses_proposals = true;
    rig.run(10);
    let begins = |rig: &mut Rig| {
        // Longer than what was proposed is waited for.
        rig.world.now += SignedDuration::from_secs(6);
        let proposed = rig.proposed(Input::Tick);
        proposed.iter().any(|command| matches!(command.change, Change::StartDrain { .. }))
    };
    assert!(begins(&mut rig));
    let claim = rig.state.disruptions.values().next().unwrap().disruption.claims[0].clone();
    let doomed = rig.state.claims[&claim].instance.clone().unwrap().id;
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    let reported = rig.proposed(Input::Report(Box::new(report)));
    let noticed = reported.iter().find(|c| matches!(c.change, Change::RecordNotice { .. }));
    rig.apply(noticed.unwrap());
    assert_eq!((rig.rejected.len(), rig.state.notices.len()), (0, 1));
    assert!(!begins(&mut rig) && !begins(&mut rig));
}

#[test]
fn what_does_not_hold_any_more_is_given_up_with_a_reason() {
    type Act = fn(&mut Rig);
    let rows: [(&str, Act); 4] = [
        ("do-not-disrupt", |rig| {
            rig.world.annotate_pod("web-0", "karpenter.sh/do-not-disrupt", "true");
        }),
        ("budget of pods", |rig| rig.world.budget_pods(0)),
        ("room taken", |rig| {
            let node =
                rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
            rig.world.add_pods("late", 4, 900);
            for pod in 0..4 {
                rig.world.bind(&format!("late-{pod}"), &node);
            }
        }),
        ("paused", |rig| {
            let change = crate::command::Change::SetPause {
                nodepool: None,
                paused: true,
                by: "ops".to_owned(),
                reason: "a test".to_owned(),
            };
            let command = crate::command::Command { at: rig.world.now, change };
            rig.apply(&command);
        }),
    ];
    let mut text = String::new();
    for (name, act) in rows {
        let mut rig = oversized();
        rig.boots = true;
        assert!(run_until(&mut rig, 180, consolidates), "{name}");
        act(&mut rig);
        rig.run(40);
        let cancelled = rig.state.journal.decisions().find(|d| d.verb == "cancel-disruption");
        text.push_str(&format!("{name}: {}\n", cancelled.map_or("went on", |d| d.why.as_str())));
        let old = rig.state.claims.values().filter(|claim| claim.hourly_price_micro == 400_000);
        assert_eq!(
            old.map(|claim| claim.stage).collect::<Vec<_>>(),
            [Stage::Initialized],
            "{name}"
        );
        assert!(!taints(&rig).iter().any(|key| key == "karpenter.sh/disrupted"), "{name}");
    }
    insta::assert_snapshot!(text);
}

#[test]
fn who_forbids_a_disruption_before_its_drain_begins_is_heeded() {
    let is_open = |rig: &Rig| !rig.state.disruptions.is_empty();
    for kind in [Kind::NodeClaim, Kind::Node] {
        for empty in [false, true] {
            let mut rig = oversized();
            rig.boots = true;
            if empty {
                rig.world.remove_pods("web");
            }
            assert!(run_until(&mut rig, 180, is_open), "{kind:?}, empty: {empty}");
            let (claim, record) = rig.state.claims.iter().find(|(_, c)| c.is_leaving()).unwrap();
            assert_eq!(record.stage, Stage::Disrupting, "{kind:?}, empty: {empty}");
            let (claim, node) = (claim.clone(), record.node.clone().unwrap());
            let name = if kind == Kind::Node { node.as_str() } else { claim.as_str() };
            let forbids =
                json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": "true"}}});
            rig.world.change(kind, "", name, &forbids);
            rig.run(60);
            assert_eq!(
                rig.state.claims[&claim].stage,
                Stage::Initialized,
                "{kind:?}, empty: {empty}"
            );
            let cancelled = rig.state.journal.decisions().find(|d| d.verb == "cancel-disruption");
            let why = cancelled.map(|decision| decision.why.clone()).unwrap_or_default();
            assert!(why.ends_with("has karpenter.sh/do-not-disrupt"), "{why}");
        }
    }
}

/// A pod of high priority that the scheduler has not looked at yet.
fn urgent(rig: &Rig, milli_cpu: u32) -> ClusterEvent {
    let pod = json!({
        "metadata": {
            "name": "urgent", "namespace": "default", "uid": "urgent", "resourceVersion": "1",
            "creationTimestamp": rig.world.now,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "ReplicaSet", "name": "urgent", "uid": "u", "controller": true}],
        },
        "spec": {
            "priority": 1_000,
            "containers": [{
                "name": "main", "resources": {"requests": {"cpu": format!("{milli_cpu}m")}}}],
        },
        "status": {"phase": "Pending", "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]},
    });
    ClusterEvent::Applied(ClusterObject::from_json(Kind::Pod, pod).unwrap())
}

#[test]
fn the_last_look_keeps_the_places_that_replacements_were_bought_for() {
    let mut rig = oversized();
    rig.boots = true;
    rig.control.settings.taint_settles = SignedDuration::from_secs(10);
    assert!(run_until(&mut rig, 180, consolidates));
    let is_up = |rig: &Rig| rig.stages().contains(&Stage::Initialized);
    assert!(run_until(&mut rig, 9, is_up));
    // It fits the replacement, but not beside the pod that this was bought for.
    let pod = urgent(&rig, 1_200);
    rig.step(Input::Cluster(pod));
    rig.run(12);
    assert_eq!(rig.control.consolidation.counts().given_up, 0);
    rig.run(60);
    assert!(!consolidates(&rig));
    assert_eq!(rig.world.running_pods(), 1);
    let types = rig.world.running_instances();
    assert!(types.iter().all(|instance| instance.instance_type == "m5.large"));
}

#[test]
fn what_is_given_up_again_and_again_is_left_alone_for_longer_and_longer() {
    let mut rig = oversized();
    rig.boots = true;
    let mut begun = Vec::new();
    for _ in 0..4 {
        assert!(run_until(&mut rig, 1_200, consolidates));
        begun.push(rig.world.now);
        rig.world.annotate_pod("web-0", "karpenter.sh/do-not-disrupt", "true");
        assert!(run_until(&mut rig, 40, |rig| !consolidates(rig)));
        rig.world.annotate_pod("web-0", "karpenter.sh/do-not-disrupt", "false");
    }
    let waits = begun.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs());
    let waits: Vec<i64> = waits.collect();
    assert!((60..100).contains(&waits[0]), "{waits:?}");
    assert!((120..160).contains(&waits[1]) && (240..280).contains(&waits[2]), "{waits:?}");
}

#[test]
fn what_is_given_up_while_the_log_stalls_is_given_up_once() {
    let mut rig = oversized();
    rig.boots = true;
    assert!(run_until(&mut rig, 180, consolidates));
    let claim = rig.state.disruptions.values().next().unwrap().disruption.claims[0].to_string();
    let forbids =
        |value: &str| json!({"metadata": {"annotations": {"karpenter.sh/do-not-disrupt": value}}});
    rig.stalled = Some(Vec::new());
    rig.world.change(Kind::NodeClaim, "", &claim, &forbids("true"));
    rig.run(40);
    rig.end_stall();
    rig.run(1);
    assert!(!consolidates(&rig));
    assert_eq!(rig.control.consolidation.counts().given_up, 1);
    rig.world.change(Kind::NodeClaim, "", &claim, &forbids("false"));
    assert!(run_until(&mut rig, 90, consolidates), "it is left alone for a minute");
}

#[test]
fn what_was_given_up_goes_as_soon_as_it_is_empty() {
    let mut rig = oversized();
    rig.boots = true;
    assert!(run_until(&mut rig, 180, consolidates));
    rig.world.annotate_pod("web-0", "karpenter.sh/do-not-disrupt", "true");
    assert!(run_until(&mut rig, 40, |rig| !consolidates(rig)));
    rig.world.remove_pods("web");
    // consolidateAfter has passed then; the minute that what was given up is left alone has not.
    rig.run(40);
    let stays = |claim: &crate::state::ClaimRecord| claim.hourly_price_micro == 400_000;
    assert!(rig.state.claims.values().filter(|claim| stays(claim)).all(|claim| claim.is_leaving()));
}

#[test]
fn a_replacement_that_ec2_can_not_give_leaves_all_as_it_was() {
    let mut rig = oversized();
    for kind in ["m5.large", "m5a.large", "m6i.large"] {
        rig.world.sold_out.insert(kind.to_owned());
    }
    assert!(run_until(&mut rig, 180, consolidates));
    rig.run(20);
    assert!(!consolidates(&rig));
    assert_eq!(rig.world.running_pods(), 1);
    assert!(rig.world.terminated.is_empty());
    assert!(rig.state.journal.decisions().any(|d| d.verb == "cancel-disruption"));
    // The types are left alone for a while; then it works.
    rig.world.sold_out.clear();
    rig.run(400);
    assert_eq!(rig.world.running_instances()[0].instance_type, "m5.large");
    rig.check_settled();
}

#[test]
fn doubt_stops_it() {
    let mut rig = sparse();
    rig.world.set_ready(2, false);
    rig.run(180);
    assert!(!consolidates(&rig));
    assert!(rig.world.terminated.is_empty());
    assert_eq!(rig.stages(), [Stage::Initialized; 3]);
    rig.world.set_ready(2, true);
    rig.run(60);
    assert_eq!(rig.stages(), [Stage::Initialized; 2]);
    assert_eq!(rig.world.running_pods(), 4);
}

#[test]
fn candidates_bear_a_soft_taint_while_budgets_hold_them_back() {
    let mut rig = Rig::new();
    rig.world.set_disruption(serde_json::json!({
        "consolidateAfter": "30s", "budgets": [{"nodes": "1"}]}));
    rig.world.add_pods("web", 10, 800);
    rig.run(10);
    assert_eq!(rig.stages(), [Stage::Initialized; 5]);
    for pod in [1, 3, 5, 7] {
        rig.world.remove_pods(&format!("web-{pod}"));
    }
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        rig.run(1);
        seen.extend(taints(&rig));
        let leaving =
            rig.state.claims.values().filter(|c| c.is_leaving() && c.stage < Stage::Terminating);
        assert!(leaving.count() <= 1, "the budget");
    }
    assert!(seen.contains("drover.dev/consolidation-candidate"), "{seen:?}");
    assert_eq!(rig.stages(), [Stage::Initialized; 3]);
    assert!(taints(&rig).is_empty());
    assert_eq!(rig.world.running_pods(), 6);
    rig.world.now += SignedDuration::from_secs(1);
    rig.check_settled();
}

#[test]
fn nodes_are_not_quiet_from_the_moment_that_pods_leave() {
    let mut rig = Rig::new();
    let disruption = json!({"spec": {"disruption": {"consolidateAfter": "60s"}}});
    rig.world.change(Kind::NodePool, "", "general", &disruption);
    rig.world.add_pods("web", 6, 800);
    rig.run(400);
    assert_eq!(rig.stages(), [Stage::Initialized; 3]);
    rig.world.remove_pods("web-1");
    rig.world.remove_pods("web-3");
    rig.run(50);
    assert!(!consolidates(&rig));
    assert!(run_until(&mut rig, 60, consolidates));
}

#[test]
fn a_node_overlay_that_changes_asks_for_a_repack() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 6, 800);
    rig.run(400);
    let before = rig.control.consolidation.counts().repacks;
    rig.run(60);
    assert_eq!(rig.control.consolidation.counts().repacks, before);
    rig.world.put(
        Kind::NodeOverlay,
        json!({
            "apiVersion": "karpenter.sh/v1alpha1", "kind": "NodeOverlay",
            "metadata": {"name": "dear"}, "spec": {"requirements": [], "priceAdjustment": "+10%"},
        }),
    );
    rig.run(30);
    assert_eq!(rig.control.consolidation.counts().repacks, before + 1);
}

#[test]
fn a_burst_of_changes_is_waited_for() {
    let mut rig = sparse();
    rig.world.add_pods("late", 2, 800);
    rig.run(400);
    assert_eq!(rig.stages(), [Stage::Initialized; 3]);
    // Two go now, and two a second later.
    let repacks = rig.control.consolidation.counts().repacks;
    for pod in ["late-0", "web-0", "late-1", "web-2"] {
        rig.world.remove_pods(pod);
        rig.run(1);
        assert_eq!(rig.control.consolidation.counts().repacks, repacks);
    }
    rig.run(5);
    assert_eq!(rig.control.consolidation.counts().repacks, repacks + 1);
    // Where it does not end, that is no reason to wait for ever.
    for number in 0..40 {
        rig.world.add_pods(&format!("more-{number}"), 1, 10);
        rig.run(1);
    }
    assert!(rig.control.consolidation.counts().repacks > repacks + 2);
}
