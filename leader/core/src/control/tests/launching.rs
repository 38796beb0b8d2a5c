//! Pods become nodes.

use drover_common::call::{Call, Kind};
use drover_common::ec2::Ec2Call;
use serde_json::json;

use super::rig::*;
use crate::command::Change;
use crate::control::Input;
use crate::state::Stage;

#[test]
fn pending_pods_get_nodes_that_are_labelled_and_initialized() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 5, 800);
    rig.run(10);
    assert_eq!(rig.rejected, Vec::<String>::new());
    assert_eq!(rig.world.running_pods(), 5);
    assert_eq!(rig.stages(), vec![Stage::Initialized; 3], "two pods a node");
    rig.check_settled();
    assert_eq!(rig.state.closed_intents.len(), 1, "equal launches share an intent");
    for instance in rig.world.running_instances() {
        assert_eq!(instance.instance_type, "m5.large", "the cheapest");
        for tag in ["drover.dev/intent", "drover.dev/cluster-uid", "karpenter.sh/nodeclaim", "Name"]
        {
            assert!(instance.tags.contains_key(tag), "{tag}");
        }
        assert_eq!(instance.tags["karpenter.sh/nodepool"], "general");
        assert_eq!(instance.tags["kubernetes.io/cluster/test"], "owned");
    }
    for node in rig.world.list(Kind::Node) {
        let labels = &node["metadata"]["labels"];
        for (label, value) in [
            ("team", "web"),
            ("karpenter.sh/nodepool", "general"),
            ("karpenter.sh/registered", "true"),
            ("karpenter.sh/initialized", "true"),
            ("karpenter.sh/capacity-type", "spot"),
            ("karpenter.k8s.aws/instance-family", "m5"),
        ] {
            assert_eq!(labels[label], value, "{label}");
        }
        assert_eq!(node["metadata"]["finalizers"][0], "karpenter.sh/termination");
        assert_eq!(node["metadata"]["ownerReferences"][0]["kind"], "NodeClaim");
        assert_eq!(node["spec"]["taints"].as_array().map_or(0, Vec::len), 0);
    }
    for claim in rig.world.list(Kind::NodeClaim) {
        assert_eq!(conditions(claim), ["Initialized", "Launched", "Ready", "Registered"]);
        assert!(
            claim["status"]["providerID"].as_str().unwrap().starts_with("aws:///us-east-1a/i-")
        );
        assert!(claim["status"]["nodeName"].is_string());
    }
    let pool = rig.world.list(Kind::NodePool)[0];
    assert_eq!(
        (&pool["status"]["nodes"], conditions(pool).contains(&"Ready".to_owned())),
        (&3.into(), true)
    );
    let class = rig.world.list(Kind::Ec2NodeClass)[0];
    assert!(conditions(class).contains(&"Ready".to_owned()), "{class}");
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!(status.hourly_price_micro, 3 * 30_000);
    assert!(status.problems.contains_key("GetProducts"), "{:?}", status.problems);
}

#[test]
fn a_quiet_cluster_makes_no_calls_but_reads_and_the_lease() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(60);
    let before = rig.calls;
    rig.run(60);
    // 12 renewals, 2 reads of instances, one of the class in three or four calls.
    assert!(rig.calls - before < 25, "{} calls in a quiet minute", rig.calls - before);
}

#[test]
fn a_leader_that_ends_at_any_call_launches_nothing_twice() {
    let mut total = usize::MAX;
    for fate in [Fate::NeverSent, Fate::Unheard] {
        let mut at = 1;
        while at <= total {
            let mut rig = Rig::new();
            rig.crash = Some((rig.calls + at, fate));
            rig.world.add_pods("web", 3, 800);
            rig.run(25);
            let context = format!("leader ended at call {at}, {fate:?}");
            assert_eq!(rig.world.running_pods(), 3, "{context}");
            assert_eq!(rig.world.instances.len(), 2, "{context}");
            assert!(rig.world.terminated.is_empty(), "{context}");
            assert_eq!(rig.stages(), vec![Stage::Initialized; 2], "{context}");
            rig.check_settled();
            if rig.crash.is_some() {
                total = at;
            }
            at += 1;
        }
        assert!(at > 15, "the launch took {at} calls");
    }
}

#[test]
fn a_fleet_call_that_times_out_after_success_is_found_by_its_tag() {
    let mut rig = Rig::new();
    rig.fail = Some(|call| matches!(call, Call::Ec2(Ec2Call::CreateFleet(_))));
    rig.world.add_pods("web", 3, 800);
    rig.run(20);
    assert!(rig.fail.is_none(), "the call was made");
    assert_eq!((rig.world.running_pods(), rig.world.instances.len()), (3, 2));
    rig.check_settled();
}

#[test]
fn what_is_sold_out_is_left_alone_and_the_pods_get_something_else() {
    let mut rig = Rig::new();
    let kinds = ["m5.large", "m5a.large", "m6i.large", "m5.4xlarge"];
    rig.world.sold_out.extend(kinds.map(str::to_owned));
    rig.world.add_pods("web", 2, 800);
    rig.run(5);
    assert!(rig.world.instances.is_empty());
    assert_eq!(rig.state.unavailable.len(), 4);
    rig.run(10);
    assert!(rig.world.list(Kind::NodeClaim).is_empty(), "failed claims are removed");
    assert!(rig.state.closed_intents.len() < 4, "it is not tried over and over");
    rig.world.sold_out.remove("m6i.large");
    rig.run(200);
    assert_eq!(rig.world.running_pods(), 2, "after three minutes it is tried again");
    rig.check_settled();
}

#[test]
fn a_node_that_never_joins_is_given_up_and_its_pool_backs_off() {
    let mut rig = Rig::new();
    rig.boots = false;
    rig.world.add_pods("web", 1, 800);
    rig.run(14 * 60);
    assert_eq!(rig.stages(), [Stage::Launched]);
    rig.run(4 * 60);
    assert_eq!(rig.world.terminated.len(), 1);
    let health = &rig.state.pools.values().next().unwrap();
    assert_eq!(health.failures, 1);
}

#[test]
fn pods_that_come_while_a_node_warms_up_are_planned_onto_it() {
    let mut rig = Rig::new();
    rig.world.warms_up = false;
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(rig.stages(), [Stage::Registered], "its startup taint is still there");
    rig.world.add_pods("more", 1, 800);
    rig.run(20);
    assert_eq!(rig.world.instances.len(), 1);
    rig.world.warms_up = true;
    rig.run(5);
    assert_eq!((rig.world.running_pods(), rig.world.instances.len()), (2, 1));
}

#[test]
fn a_refused_launch_is_tried_again_after_a_wait_and_told() {
    let mut rig = Rig::new();
    rig.world.refuses_fleets = Some("InvalidParameterValue");
    rig.world.add_pods("web", 1, 800);
    rig.run(100);
    assert!((3..=4).contains(&rig.world.fleets_asked), "{} in 100 s", rig.world.fleets_asked);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(problems["launches of NodePool general"].contains("InvalidParameterValue"));
    rig.world.refuses_fleets = None;
    rig.run(120);
    assert_eq!(rig.world.running_pods(), 1);
    let problems = rig.control.status(&rig.state, rig.world.now).problems;
    assert!(!problems.contains_key("launches of NodePool general"), "{problems:?}");
}

fn allow_on_demand(rig: &mut Rig) {
    let both = json!([
        {"key": "karpenter.sh/capacity-type", "operator": "In", "values": ["spot", "on-demand"]}]);
    let spec = json!({"spec": {"template": {"spec": {"requirements": both}}}});
    rig.world.change(Kind::NodePool, "", "general", &spec);
}

#[test]
fn what_is_sold_out_is_replaced_by_the_next_offering_at_once() {
    let mut rig = Rig::new();
    allow_on_demand(&mut rig);
    rig.run(5);
    rig.world.spot_is_sold_out = true;
    rig.world.add_pods("web", 1, 800);
    rig.run(2);
    assert!(rig.world.fleets_asked > 1, "spot comes first");
    assert_eq!(rig.world.running_instances().len(), 1);
}

#[test]
fn pods_of_a_claim_that_is_deleted_are_planned_at_once_but_not_without_end() {
    let mut rig = Rig::new();
    rig.boots = false;
    rig.world.add_pods("web", 1, 800);
    rig.run(3);
    let delete_all = |rig: &mut Rig| {
        let claims = rig.world.list(Kind::NodeClaim);
        let names =
            claims.iter().map(|claim| claim["metadata"]["name"].as_str().unwrap().to_owned());
        for name in names.collect::<Vec<_>>() {
            rig.world.delete_named(Kind::NodeClaim, &name);
        }
    };
    assert_eq!(rig.world.fleets_asked, 1);
    delete_all(&mut rig);
    rig.run(2);
    assert_eq!(rig.world.fleets_asked, 2);
    for _ in 0..60 {
        delete_all(&mut rig);
        rig.run(1);
    }
    assert!(rig.world.fleets_asked <= 12, "{} in a minute", rig.world.fleets_asked);
}

#[test]
fn what_the_log_does_not_show_yet_is_not_decided_again() {
    let mut rig = Rig::new();
    rig.run(5);
    rig.stalled = Some(Vec::new());
    rig.world.add_pods("web", 1, 800);
    rig.run(30);
    rig.end_stall();
    rig.run(30);
    assert_eq!(rig.world.instances.len(), 1, "{:?}", rig.rejected);
    assert_eq!(rig.world.running_pods(), 1);
    rig.check_settled();
}

#[test]
fn budgets_hold_while_the_log_stalls() {
    let mut rig = Rig::new();
    rig.world.set_disruption(json!({"consolidateAfter": "30s", "budgets": [{"nodes": "1"}]}));
    rig.world.add_pods("web", 4, 800);
    rig.run(60);
    assert_eq!(rig.stages(), [Stage::Initialized; 2]);
    rig.stalled = Some(Vec::new());
    rig.world.remove_pods("web");
    rig.run(60);
    let stalled = rig.stalled.iter().flatten();
    let decided = stalled.filter(|c| matches!(c.change, Change::CommitDisruption { .. }));
    assert_eq!(decided.count(), 1);
    rig.end_stall();
    rig.run(200);
    assert_eq!(rig.world.running_instances().len(), 0);
}

#[test]
fn what_state_refuses_is_decided_again() {
    let mut rig = Rig::new();
    rig.run(5);
    let refuse = |rig: &mut Rig| {
        for command in rig.stalled.take().unwrap() {
            rig.step(Input::CommandRefused(Box::new(command)));
        }
    };
    rig.stalled = Some(Vec::new());
    rig.world.add_pods("web", 1, 800);
    rig.run(3);
    refuse(&mut rig);
    rig.run(5);
    assert_eq!(rig.world.instances.len(), 1);
    rig.run(60);
    rig.stalled = Some(Vec::new());
    rig.world.remove_pods("web");
    rig.run(60);
    assert_eq!(rig.to_leave().len(), 1);
    refuse(&mut rig);
    rig.run(60);
    assert_eq!(rig.world.running_instances().len(), 0);
}

#[test]
fn what_the_log_refuses_is_planned_again() {
    let mut rig = Rig::new();
    rig.run(5);
    rig.stalled = Some(Vec::new());
    rig.world.add_pods("web", 1, 800);
    rig.run(3);
    for command in rig.stalled.take().unwrap() {
        rig.step(Input::ProposalRejected(Box::new(command)));
    }
    rig.run(5);
    assert_eq!(rig.world.instances.len(), 1);
}
