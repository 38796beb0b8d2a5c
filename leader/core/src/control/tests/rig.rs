//! A leader group of one brain at a time in its world, and how to drive it.

use std::collections::BTreeSet;

use drover_common::call::{Call, Kind, KubernetesFailure, KubernetesFailureKind, Outcome};
use drover_common::ec2::{Ec2Call, Ec2Failure, Ec2FailureKind};
use drover_common::id::{InstanceId, NodeClaimName, NodeName};
use drover_common::protocol::{Notice, NoticeKind, PROTOCOL_VERSION, Report};
use jiff::SignedDuration;

use super::super::*;
use super::world::World;
use crate::nodeclass::ClusterSettings;
use crate::planner::RepackSettings;
use crate::state::{Applied, Stage};

/// What happens to calls that are under way when a leader ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// They were never sent.
    NeverSent,
    /// They are carried out and nobody hears of it.
    Unheard,
}

/// A leader group of one brain at a time, its State, and the world.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) state: State,
    pub(super) control: Control,
    pub(super) term: u64,
    /// Calls made, in order: the places where a leader can end.
    pub(super) calls: usize,
    /// End the leader at this call.
    pub(super) crash: Option<(usize, Fate)>,
    pub(super) boots: bool,
    pub(super) rejected: Vec<String>,
    pub(super) fail: Option<fn(&Call) -> bool>,
    /// Delete every launch template just before the next fleet.
    pub(super) sweep_before_fleet: bool,
    /// The log takes no command.
    pub(super) refuses_proposals: bool,
    /// Commands that are in the log and not committed, where it stalls.
    pub(super) stalled: Option<Vec<Command>>,
    /// Calls that EC2 throttles.
    pub(super) throttles: Option<fn(&Ec2Call) -> bool>,
}

pub(super) fn settings() -> Settings {
    Settings {
        cluster: ClusterSettings {
            name: "test".to_owned(),
            endpoint: "https://10.0.0.1".to_owned(),
            kubernetes_version: "1.34".to_owned(),
            service_cidr: Some("10.100.0.0/16".to_owned()),
            ..ClusterSettings::default()
        },
        region: "us-east-1".to_owned(),
        // The region has four types, and nobody wants to wait.
        repack: RepackSettings {
            min_node_age: SignedDuration::from_mins(1),
            min_spot_types: 1,
            ..RepackSettings::default()
        },
        rebalance_rest: SignedDuration::from_mins(2),
        ..Settings::default()
    }
}

impl Rig {
    pub(super) fn new() -> Self {
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
            sweep_before_fleet: false,
            refuses_proposals: false,
            stalled: None,
            throttles: None,
        };
        rig.lead();
        rig
    }

    /// A fresh brain takes over.
    pub(super) fn lead(&mut self) {
        self.term += 1;
        self.control = Control::new(settings());
        self.world.events.clear();
        for event in self.world.list_events() {
            self.control.step(&self.state, Input::Cluster(event), self.world.now);
        }
        self.step(Input::Leading { term: self.term });
    }

    pub(super) fn step(&mut self, input: Input) {
        let mut inputs = std::collections::VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let effects = self.control.step(&self.state, input, self.world.now);
            for effect in effects {
                match effect {
                    Effect::Propose(_) if self.refuses_proposals => {}
                    Effect::Propose(command) if self.stalled.is_some() => {
                        self.stalled.iter_mut().for_each(|stalled| stalled.push(*command.clone()));
                    }
                    Effect::Propose(command) => {
                        let known = self.rejected.len();
                        self.apply(&command);
                        if self.rejected.len() > known {
                            inputs.push_back(Input::CommandRefused(command));
                        }
                    }
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

    /// What a step proposes; the log takes nothing of it, and no call is made.
    pub(super) fn proposed(&mut self, input: Input) -> Vec<Command> {
        let effects = self.control.step(&self.state, input, self.world.now);
        let commands = effects.into_iter().filter_map(|effect| match effect {
            Effect::Propose(command) => Some(*command),
            Effect::Call { .. } => None,
        });
        commands.collect()
    }

    /// Carries a call out, or fails it after it was carried out.
    pub(super) fn execute(&mut self, call: &Call) -> Outcome {
        if matches!(call, Call::Ec2(Ec2Call::CreateFleet(_))) && self.sweep_before_fleet {
            self.sweep_before_fleet = false;
            self.world.templates.clear();
        }
        if let Call::Ec2(call) = call
            && self.throttles.is_some_and(|throttles| throttles(call))
        {
            return Outcome::Ec2(Err(Ec2Failure {
                kind: Ec2FailureKind::Throttled,
                code: "RequestLimitExceeded".to_owned(),
                message: "by design".to_owned(),
            }));
        }
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

    pub(super) fn apply(&mut self, command: &Command) {
        let index = self.state.applied + 1;
        if let Applied::Rejected { reason } = self.state.apply(index, command) {
            self.rejected.push(format!("{reason}: {:?}", command.change));
        }
    }

    /// The log goes on, and commits what it held.
    pub(super) fn end_stall(&mut self) {
        for command in self.stalled.take().unwrap_or_default() {
            self.apply(&command);
        }
    }

    /// Claims whose disruption the log holds back.
    pub(super) fn to_leave(&self) -> BTreeSet<NodeClaimName> {
        let stalled = self.stalled.iter().flatten();
        let claims = stalled.filter_map(|command| match &command.change {
            Change::CommitDisruption { disruption, .. } => Some(disruption.claims.clone()),
            _ => None,
        });
        claims.flatten().collect()
    }

    /// Lets time pass in steps of a quarter second.
    pub(super) fn run(&mut self, seconds: i64) {
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

    pub(super) fn stages(&self) -> Vec<Stage> {
        self.state.claims.values().map(|claim| claim.stage).collect()
    }

    pub(super) fn report(&mut self, instance: &InstanceId, kind: Option<NoticeKind>) -> Report {
        let now = self.world.now;
        let notice = |kind| Notice {
            kind,
            instance: instance.clone(),
            boot: "boot".into(),
            deadline: Some(now + SignedDuration::from_secs(120)),
            detected_at: now,
            issued_at: None,
        };
        Report {
            version: PROTOCOL_VERSION,
            node: NodeName::from(self.world.instances[instance].private_dns_name.clone()),
            instance: Some(instance.clone()),
            boot: "boot".into(),
            sequence: 1,
            sent_at: now,
            notices: kind.map(notice).into_iter().collect(),
            cordoned_at: None,
            imds_silent_since: None,
            usage: None,
            usage_since: None,
            usage_gone: Vec::new(),
            drain: None,
        }
    }

    /// Nothing was launched twice, nothing is left over: one instance a claim, one object a claim.
    pub(super) fn check_settled(&self) {
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
            self.state.claims.keys().map(|name| name.to_string()).collect();
        assert_eq!(objects, recorded, "claims and their objects");
        assert_eq!(self.world.list(Kind::Node).len(), running.len(), "nodes and instances");
    }
}

pub(super) fn conditions(claim: &serde_json::Value) -> Vec<String> {
    let list = claim["status"]["conditions"].as_array().cloned().unwrap_or_default();
    list.iter()
        .filter(|condition| condition["status"] == "True")
        .map(|condition| condition["type"].as_str().unwrap().to_owned())
        .collect()
}
