//! Scenarios: the brain in a small world, on virtual time.

mod world;

use std::collections::BTreeSet;

use drover_common::call::{Call, Kind, KubernetesFailure, KubernetesFailureKind, Outcome};
use drover_common::ec2::{Ec2Call, Ec2Failure, Ec2FailureKind};
use drover_common::id::{InstanceId, NodeName};
use drover_common::protocol::{Notice, NoticeKind, PROTOCOL_VERSION, Report};
use jiff::SignedDuration;

use super::*;
use crate::command::{Change, DisruptionReason};
use crate::nodeclass::ClusterSettings;
use crate::state::{Applied, Stage};
use world::World;

/// What happens to calls that are under way when a leader ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// They were never sent.
    NeverSent,
    /// They are carried out and nobody hears of it.
    Unheard,
}

/// A leader group of one brain at a time, its State, and the world.
struct Rig {
    world: World,
    state: State,
    control: Control,
    term: u64,
    /// Calls made, in order: the places where a leader can end.
    calls: usize,
    /// End the leader at this call.
    crash: Option<(usize, Fate)>,
    boots: bool,
    rejected: Vec<String>,
    fail: Option<fn(&Call) -> bool>,
}

fn settings() -> Settings {
    Settings {
        cluster: ClusterSettings {
            name: "test".to_owned(),
            endpoint: "https://10.0.0.1".to_owned(),
            kubernetes_version: "1.34".to_owned(),
            service_cidr: Some("10.100.0.0/16".to_owned()),
            ..ClusterSettings::default()
        },
        region: "us-east-1".to_owned(),
        ..Settings::default()
    }
}

impl Rig {
    fn new() -> Self {
        let world = World::new("2026-01-01T00:00:00Z".parse().unwrap());
        let mut rig = Self {
            world,
            state: State::default(),
            control: Control::new(settings()),
            term: 0,
            calls: 0,
            crash: None,
            boots: true,
            rejected: Vec::new(),
            fail: None,
        };
        rig.lead();
        rig
    }

    /// A fresh brain takes over.
    fn lead(&mut self) {
        self.term += 1;
        self.control = Control::new(settings());
        self.world.events.clear();
        for event in self.world.list_events() {
            self.control.step(&self.state, Input::Cluster(event), self.world.now);
        }
        self.step(Input::Leading { term: self.term });
    }

    fn step(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.control.step(&self.state, input, self.world.now);
            for effect in effects {
                match effect {
                    Effect::Propose(command) => self.apply(&command),
                    Effect::Call { key, call } => {
                        self.calls += 1;
                        if let Some((_, fate)) = self.crash.filter(|(at, _)| *at == self.calls) {
                            if fate == Fate::Unheard {
                                self.world.execute(&call);
                            }
                            self.crash = None;
                            return self.lead();
                        }
                        let outcome = self.execute(&call);
                        inputs.push_back(Input::Answer { key, outcome });
                    }
                }
            }
            inputs.extend(self.world.events.drain(..).map(Input::Cluster));
        }
    }

    /// Carries a call out, or fails it after it was carried out.
    fn execute(&mut self, call: &Call) -> Outcome {
        let outcome = self.world.execute(call);
        if !self.fail.is_some_and(|fails| fails(call)) {
            return outcome;
        }
        self.fail = None;
        match call {
            Call::Kubernetes(_) => Outcome::Kubernetes(Err(KubernetesFailure {
                kind: KubernetesFailureKind::Unreachable,
                message: "timed out".to_owned(),
                retry_after_seconds: None,
            })),
            Call::Ec2(_) => Outcome::Ec2(Err(Ec2Failure {
                kind: Ec2FailureKind::Unknown,
                code: "Timeout".to_owned(),
                message: "timed out".to_owned(),
            })),
        }
    }

    fn apply(&mut self, command: &Command) {
        let index = self.state.applied + 1;
        if let Applied::Rejected { reason } = self.state.apply(index, command) {
            self.rejected.push(format!("{reason}: {:?}", command.change));
        }
    }

    /// Lets time pass in steps of a quarter second.
    fn run(&mut self, seconds: i64) {
        for quarter in 0..seconds * 4 {
            self.world.now += SignedDuration::from_millis(250);
            if quarter % 4 == 0 {
                self.world.tick(self.boots);
                let events: Vec<_> = self.world.events.drain(..).collect();
                for event in events {
                    self.step(Input::Cluster(event));
                }
            }
            self.step(Input::Tick);
        }
    }

    fn stages(&self) -> Vec<Stage> {
        self.state.claims.values().map(|claim| claim.stage).collect()
    }

    fn report(&mut self, instance: &InstanceId, kind: Option<NoticeKind>) -> Report {
        let now = self.world.now;
        let notice = |kind| Notice {
            kind,
            instance: instance.clone(),
            boot: "boot".into(),
            deadline: Some(now + SignedDuration::from_secs(120)),
            detected_at: now,
        };
        Report {
            version: PROTOCOL_VERSION,
            node: NodeName(self.world.instances[instance].private_dns_name.clone()),
            instance: Some(instance.clone()),
            boot: "boot".into(),
            sequence: 1,
            sent_at: now,
            notices: kind.map(notice).into_iter().collect(),
            usage: None,
            drain: None,
        }
    }

    /// Nothing was launched twice, nothing is left over: one instance a claim, one object a claim.
    fn check_settled(&self) {
        assert!(self.state.intents.is_empty(), "open intents");
        let running: BTreeSet<&InstanceId> =
            self.world.running_instances().iter().map(|instance| &instance.instance).collect();
        let claimed: BTreeSet<&InstanceId> = self.state.instances.keys().collect();
        assert_eq!(running, claimed, "every running instance serves a claim");
        let objects: BTreeSet<String> = self
            .world
            .list(Kind::NodeClaim)
            .iter()
            .map(|claim| claim["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        let recorded: BTreeSet<String> =
            self.state.claims.keys().map(|name| name.0.clone()).collect();
        assert_eq!(objects, recorded, "claims and their objects");
        assert_eq!(self.world.list(Kind::Node).len(), running.len(), "nodes and instances");
    }
}

fn conditions(claim: &serde_json::Value) -> Vec<String> {
    let list = claim["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter(|condition| condition["status"] == "True")
        .map(|condition| condition["type"].as_str().unwrap().to_owned())
        .collect()
}

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
    rig.world.sold_out.extend(["m5.large", "m5a.large", "m6i.large"].map(str::to_owned));
    rig.world.add_pods("web", 2, 800);
    rig.run(5);
    assert!(rig.world.instances.is_empty());
    assert_eq!(rig.state.unavailable.len(), 3);
    rig.run(10);
    assert!(rig.world.list(Kind::NodeClaim).is_empty(), "failed claims are removed");
    assert!(rig.state.closed_intents.len() < 4, "it is not tried over and over");
    rig.world.sold_out.remove("m6i.large");
    rig.run(200);
    assert_eq!(rig.world.running_pods(), 2, "after three minutes it is tried again");
    rig.check_settled();
}

#[test]
fn a_notice_brings_a_replacement_at_once_and_the_node_goes() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let doomed = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&doomed, Some(NoticeKind::SpotTerminate));
    assert!(!rig.control.notices_committed(&rig.state, &report));
    rig.step(Input::Report(Box::new(report.clone())));
    assert!(rig.control.notices_committed(&rig.state, &report));
    let before = rig.state.intents.len() + rig.state.closed_intents.len();
    rig.run(1);
    let after = rig.state.intents.len() + rig.state.closed_intents.len();
    assert_eq!(after, before + 1, "the replacement is committed within a second");
    assert_eq!(rig.state.unavailable.len(), 1, "the offering is left alone");
    let directives = rig.control.directives(&rig.state, &report.node, Some(&doomed));
    assert_eq!(directives.len(), 1);
    // The agent's silence makes the leader drain in its place.
    rig.run(90);
    assert_eq!(rig.world.running_pods(), 2);
    assert!(rig.world.terminated.contains(&doomed));
    assert_eq!(rig.state.claims.len(), 1);
    rig.check_settled();
}

#[test]
fn a_rebalance_recommendation_is_only_recorded() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let instance = rig.world.running_instances()[0].instance.clone();
    let report = rig.report(&instance, Some(NoticeKind::Rebalance));
    rig.step(Input::Report(Box::new(report)));
    rig.run(20);
    assert_eq!(rig.state.notices.len(), 1);
    assert_eq!((rig.stages(), rig.world.instances.len()), (vec![Stage::Initialized], 1));
}

#[test]
fn an_empty_node_goes_after_its_time_with_all_its_objects() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.remove_pods("web");
    rig.run(20);
    assert_eq!(rig.stages(), [Stage::Initialized], "consolidateAfter is 30 s");
    rig.run(40);
    assert_eq!(rig.stages(), Vec::<Stage>::new());
    assert!(rig.world.running_instances().is_empty());
    rig.check_settled();
    let verbs: Vec<&str> = rig.state.journal.decisions().map(|d| d.verb.as_str()).collect();
    assert_eq!(
        verbs,
        ["create-intent", "commit-disruption", "commit-termination", "record-terminated"]
    );
    assert_eq!(rig.rejected, Vec::<String>::new());
}

#[test]
fn a_pod_that_comes_in_time_saves_its_node() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    rig.world.remove_pods("web");
    while rig.state.disruptions.is_empty() {
        rig.step(Input::Tick);
        rig.world.now += SignedDuration::from_millis(250);
    }
    // Bound just before the scheduler saw the taint.
    let node = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    rig.world.add_pods("late", 1, 100);
    rig.world.bind("late-0", &node);
    rig.run(20);
    assert_eq!(rig.stages(), [Stage::Initialized]);
    assert!(rig.world.terminated.is_empty());
    let taints = rig.world.list(Kind::Node)[0]["spec"]["taints"].as_array().map_or(0, Vec::len);
    assert_eq!(taints, 0, "the taint is taken off again");
}

#[test]
fn a_leader_that_ends_at_any_call_of_a_removal_leaves_nothing_behind() {
    let mut at = 1;
    loop {
        let mut rig = Rig::new();
        rig.world.add_pods("web", 2, 800);
        rig.run(10);
        rig.world.remove_pods("web");
        rig.crash = Some((rig.calls + at, Fate::Unheard));
        rig.run(100);
        assert_eq!(rig.stages(), Vec::<Stage>::new(), "leader ended at call {at}");
        rig.check_settled();
        if rig.crash.is_some() {
            break;
        }
        at += 3;
    }
}

#[test]
fn deleting_a_claim_or_a_node_drains_and_replaces_it() {
    for kind in [Kind::NodeClaim, Kind::Node] {
        let mut rig = Rig::new();
        rig.world.add_pods("web", 2, 800);
        rig.run(10);
        let name = rig.world.list(kind)[0]["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(rig.world.delete_named(kind, &name));
        rig.run(2);
        let reasons: Vec<DisruptionReason> =
            rig.state.disruptions.values().map(|record| record.disruption.reason).collect();
        assert_eq!(reasons, [DisruptionReason::Deletion], "{kind:?}");
        rig.run(90);
        assert_eq!(rig.world.running_pods(), 2, "{kind:?}");
        assert_eq!(rig.state.claims.len(), 1, "{kind:?}");
        rig.check_settled();
    }
}

#[test]
fn an_instance_that_ec2_ends_takes_its_claim_and_node_with_it() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let lost = rig.world.running_instances()[0].instance.clone();
    rig.world.end_instance(&lost);
    rig.world.end_instance(&lost);
    rig.run(60);
    assert!(!rig.state.instances.contains_key(&lost));
    rig.world.remove_pods("web");
    rig.run(90);
    rig.check_settled();
    assert!(rig.world.terminated.len() <= 1, "only what replaced it: {:?}", rig.world.terminated);
}

#[test]
fn an_empty_log_is_rebuilt_without_a_launch_or_a_termination() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 5, 800);
    rig.run(10);
    let before: Vec<InstanceId> = rig.state.instances.keys().cloned().collect();
    rig.state = State::default();
    rig.lead();
    rig.run(600);
    assert_eq!(rig.state.instances.keys().cloned().collect::<Vec<_>>(), before);
    assert_eq!(rig.world.instances.len(), before.len());
    assert!(rig.world.terminated.is_empty());
    assert_eq!(rig.stages(), vec![Stage::Initialized; 3]);
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
fn an_instance_without_a_claim_goes_only_after_proof() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let owned = rig.world.running_instances()[0].clone();
    for (id, uid) in [("i-orphan", None), ("i-stranger", Some("another-cluster"))] {
        let mut copy = owned.clone();
        copy.instance = InstanceId::from(id);
        copy.launch_time = rig.world.now;
        copy.state = drover_common::ec2::InstanceState::Running;
        copy.tags.remove("karpenter.sh/nodeclaim");
        if let Some(uid) = uid {
            copy.tags.insert("drover.dev/cluster-uid".to_owned(), uid.to_owned());
        }
        rig.world.instances.insert(copy.instance.clone(), copy);
    }
    rig.boots = false;
    rig.run(5 * 60);
    assert!(rig.world.terminated.is_empty(), "five minutes and two reads");
    rig.run(2 * 60);
    assert_eq!(rig.world.terminated, [InstanceId::from("i-orphan")]);
}

#[test]
fn another_holder_of_the_lease_means_observe_only() {
    let mut rig = Rig::new();
    rig.run(2);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).lease, "held");
    rig.world.seize_lease("karpenter-7c9");
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    rig.world.seize_lease("karpenter-7c9");
    rig.run(10);
    let status = rig.control.status(&rig.state, rig.world.now);
    assert_eq!(status.lease, "held by karpenter-7c9");
    assert!(rig.world.instances.len() <= 1, "nothing begins without the lease");
    let calls = rig.world.list(Kind::NodeClaim).len();
    rig.world.add_pods("more", 1, 1_800);
    rig.world.seize_lease("karpenter-7c9");
    rig.run(10);
    assert_eq!(rig.world.list(Kind::NodeClaim).len(), calls);
    // Its holder goes silent: the lease is taken over.
    rig.run(40);
    assert_eq!(rig.control.status(&rig.state, rig.world.now).lease, "held");
    assert_eq!(rig.world.running_pods(), 2);
}

#[test]
fn a_replica_that_does_not_lead_does_nothing() {
    let mut rig = Rig::new();
    rig.step(Input::Deposed);
    rig.world.add_pods("web", 1, 800);
    let before = rig.calls;
    rig.run(10);
    assert_eq!(rig.calls, before);
    assert!(rig.state.claims.is_empty());
}

#[test]
fn an_instance_that_ec2_no_longer_shows_is_given_up_only_after_proof() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    let lost = rig.world.running_instances()[0].instance.clone();
    let kept = rig.world.instances.remove(&lost).unwrap();
    rig.run(120);
    assert!(rig.state.instances.contains_key(&lost), "it is younger than five minutes");
    rig.world.instances.insert(lost.clone(), kept);
    rig.run(300);
    assert!(rig.state.instances.contains_key(&lost), "EC2 showed it again in time");
    rig.world.instances.remove(&lost);
    rig.run(40);
    assert!(rig.state.instances.contains_key(&lost), "one read proves nothing");
    rig.run(90);
    assert!(!rig.state.instances.contains_key(&lost));
    assert_eq!(rig.world.running_pods(), 0, "its Node is gone, too");
    assert!(!rig.world.terminated.contains(&lost));
}

#[test]
fn over_a_fifth_of_a_pool_unwell_stops_voluntary_disruption() {
    let mut rig = Rig::new();
    rig.world.add_pods("web", 6, 1_000);
    rig.run(10);
    assert_eq!(rig.stages().len(), 6);
    for node in 0..2 {
        rig.world.set_ready(node, false);
    }
    rig.world.remove_pods("web");
    rig.run(120);
    assert_eq!(rig.stages(), vec![Stage::Initialized; 6]);
    rig.world.set_ready(0, true);
    rig.run(120);
    assert_eq!(rig.stages().len(), 1, "a sixth is no reason to doubt; the unwell one stays");
}

#[test]
fn a_claim_made_by_hand_is_left_alone_and_stops_nothing() {
    let mut rig = Rig::new();
    rig.world.add_claim_by_hand("mine");
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 1);
    rig.run(600);
    assert_eq!(rig.world.list(Kind::NodeClaim).len(), 2);
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
fn a_paused_cluster_launches_nothing_until_it_is_resumed() {
    let mut rig = Rig::new();
    let set = |paused| Change::SetPause {
        nodepool: None,
        paused,
        by: "ada".to_owned(),
        reason: "maintenance".to_owned(),
    };
    let at = rig.world.now;
    rig.apply(&Command { at, change: set(true) });
    rig.world.add_pods("web", 1, 800);
    rig.run(10);
    assert!(rig.world.instances.is_empty());
    rig.apply(&Command { at, change: set(false) });
    rig.run(10);
    assert_eq!(rig.world.running_pods(), 1);
}
