//! The agent's brain: one state, one [`Agent::step`].

mod cut_off;
mod decide;
mod denied;
#[cfg(test)]
mod drains;
mod hearing;
mod left;
mod metrics;
mod news;
mod own_node;
#[cfg(test)]
mod property;
mod report;
mod take;
#[cfg(test)]
mod tests;
mod usage_told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::call::{KubernetesCall, KubernetesFailure};
use drover_common::cluster::{ClusterEvent, Node, ObjectKey, Pod};
use drover_common::drain::{DrainKey, DrainState};
use drover_common::id::{BootId, DisruptionId, InstanceId, NodeName};
use drover_common::protocol::{
    Directive, DrainReport, Notice, NoticeKind, Report, ReportAnswer, UsageDigest,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use metrics::Metrics;

use crate::moment::Moment;
use crate::notice::{Answer, NoticePath, Notices};
use crate::permission::Permission;
use crate::retry::{Retry, Spread};
use crate::usage::{ContainerNames, PodNames, names_in};
use cut_off::Refusals;
use hearing::Hearing;
use left::LeftTold;
use metrics::Counts;
use news::Teller;
use usage_told::UsageTold;

/// Who the agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its Node's name.
    pub node: NodeName,
    /// This boot.
    pub boot: BootId,
}

/// What the agent keeps on disk. It counts only for the same boot, because an image may have been
/// made from a disk that bore one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Saved {
    /// The instance.
    pub instance: Option<InstanceId>,
    /// The boot.
    pub boot: BootId,
    /// Notices in force.
    pub notices: Vec<Notice>,
}

/// What reaches the agent.
#[derive(Clone, Debug)]
pub enum Input {
    /// IMDS told the instance id.
    Instance(InstanceId),
    /// IMDS answered on a notice path.
    Notice(NoticePath, Answer),
    /// The operating system shuts down and waits for the agent so long at most; or it does not shut
    /// down, after all.
    Shutdown(Option<SignedDuration>),
    /// Whether the machine can be powered off, and if so how long its pods are then given to end.
    PowerOff(Option<SignedDuration>),
    /// What came of powering the machine off.
    PoweredOff(u32, Result<(), String>),
    /// From the watches of the own Node and the own pods.
    Cluster(ClusterEvent),
    /// The leaders' directives, all of them.
    Directives(Vec<Directive>),
    /// The leader's answer to the report of this sequence number.
    Answered(u64, ReportAnswer),
    /// The outcome of a call.
    Outcome(CallKey, Result<Value, KubernetesFailure>),
    /// What the API server does not let the agent do, of all that it needs.
    Denied(BTreeSet<Permission>),
    /// Use was measured over an interval, or is unknown by now.
    Usage(Option<UsageDigest>),
    /// Time passes.
    Tick,
}

/// Identifies a call.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CallKey {
    /// The cordon patch.
    Cordon(u32),
    /// The patch that takes the cordon back.
    Undo(u32),
    /// A fresh read of the own Node.
    ReadNode(u32),
    /// A call of the drain engine.
    Drain(DrainKey),
    /// The creation of an event on the own Node.
    Event(u32),
}

/// What the agent wants done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Make a call; its outcome has to come back, whatever it is.
    Call(CallKey, KubernetesCall),
    /// Send this to the leaders, in place of any report that waits to be sent.
    Report(Box<Report>),
    /// Keep this on disk, in place of what was kept.
    Save(Saved),
    /// Power the machine off, which lets the kubelet end its pods in good order.
    PowerOff(u32),
    /// The shutdown that waits for the agent may go on.
    AllowShutdown,
    /// Tell people.
    Tell(Fact),
}

/// What people should know.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A notice began or changed.
    NoticeInForce(Notice),
    /// No notice is in force any more.
    NoticesGone,
    /// IMDS answered with something unreadable.
    UnreadableNotice {
        /// Where.
        path: NoticePath,
        /// Why.
        reason: String,
    },
    /// IMDS has told nothing of spot notices for long: none would be known of.
    Blind {
        /// When it told of them last, or when the agent began.
        since: Timestamp,
    },
    /// It does again.
    Sees,
    /// The own Node belongs to another instance: nothing is done to it.
    ForeignNode {
        /// Its providerID.
        provider_id: String,
    },
    /// There is no Node of the agent's name (yet).
    NoNode(NodeName),
    /// More pods than these are said to be on the node; the others are ignored.
    TooManyPods(usize),
    /// What is told of a pod is more than any pod has; it is ignored, as that of others like it.
    PodTooLarge {
        /// The pod, its name cut to what names may have.
        pod: ObjectKey,
        /// The most that a pod may take as JSON.
        most_bytes: usize,
    },
    /// The cordon stands.
    Cordoned {
        /// Since the notice was read.
        after: SignedDuration,
    },
    /// The cordon was taken back.
    Uncordoned,
    /// A patch of the own Node failed; it is tried again.
    PatchFailed(KubernetesFailure),
    /// The own Node can't be read, though something is to be done to it; it is tried again.
    NodeUnread(KubernetesFailure),
    /// The API server does not let the agent do what it needs to.
    Denied(BTreeSet<Permission>),
    /// It does by now.
    Granted,
    /// A drain began, with its purpose in words.
    DrainBegan(String),
    /// A drain stands at this point.
    DrainChanged(DrainReport),
    /// Pods that have not gone yet.
    PodsLeft {
        /// Each as `namespace/name`, and why.
        pods: Vec<(String, String)>,
        /// How many more there are.
        unnamed: usize,
    },
    /// A drain ended because its reason went.
    DrainStopped,
    /// The API server can't be reached, or refuses whatever is asked of pods, and only their grace is left.
    CutOff {
        /// Whether the machine can be powered off. If not, its pods end when it does.
        can_power_off: bool,
    },
    /// The machine could not be powered off; it's tried again.
    PowerOffFailed(String),
    /// What no leader tells could not be told as an event.
    EventFailed(KubernetesFailure),
}

/// The state of one agent.
#[derive(Clone, Debug)]
pub struct Agent {
    identity: Identity,
    instance: Option<InstanceId>,
    saved: Saved,
    notices: Notices,
    unreadable: BTreeMap<NoticePath, String>,
    hearing: Hearing,
    node: Option<Node>,
    node_fresh: bool,
    /// When it was read last, on the steady clock.
    node_read_at: Option<SignedDuration>,
    /// Whether it was among what was listed last.
    node_listed: bool,
    /// Whether a patch found it to be another than was seen, so that it has to be read.
    node_suspect: bool,
    told_foreign: bool,
    told_missing: bool,
    told_unread: bool,
    told_too_many: bool,
    told_too_large: bool,
    told_cordoned: bool,
    /// Boxed: a map has room for more than it holds.
    pods: BTreeMap<ObjectKey, Box<Pod>>,
    pods_complete: bool,
    /// While a list is under way: what it has not named yet.
    unlisted: Option<BTreeSet<ObjectKey>>,
    /// What woke the agent, and when a leader named it last, on the steady clock.
    directives: BTreeMap<DisruptionId, SignedDuration>,
    /// The disruption that the Node, read fresh, was found to bear.
    verified: Option<DisruptionId>,
    spread: Spread,
    cordon: Retry,
    /// What the cordon is made for: a notice's kind, deadline and boot.
    cordon_for: Option<(NoticeKind, Option<Timestamp>, BootId)>,
    undo: Retry,
    read_node: Retry,
    drain: Option<DrainState>,
    left_told: Option<LeftTold>,
    teller: Teller,
    counts: Counts,
    drain_outcomes: Vec<(DrainKey, Result<(), KubernetesFailure>)>,
    /// Measured use, and when it came, on the steady clock.
    usage: Option<(SignedDuration, UsageDigest)>,
    usage_told: UsageTold,
    /// Whether a report has told of use since the agent started.
    told_use: bool,
    sequence: u64,
    /// On the steady clock.
    reported_at: Option<SignedDuration>,
    reported: (Vec<Notice>, Option<DrainReport>, Option<Timestamp>),
    /// The sequence number of the first report that bore the notices in force, if not committed.
    uncommitted_since: Option<u64>,
    report_interval: SignedDuration,
    cordon_on_problem: bool,
    /// Since when, on the steady clock, the Node bears a condition that says it is broken.
    problem_since: Option<SignedDuration>,
    cordoned_at: Option<Timestamp>,
    /// Since when, on the steady clock, no call of the API server was answered.
    cut_off_since: Option<SignedDuration>,
    refusals: Refusals,
    denied: BTreeSet<Permission>,
    told_cut_off: bool,
    power_off_grace: Option<SignedDuration>,
    power_off: Retry,
    /// Whether a shutdown waits for the agent.
    holds_shutdown: bool,
    effects: Vec<Effect>,
}

impl Agent {
    /// An agent that has seen nothing yet but what it kept on disk.
    pub fn new(identity: Identity, saved: Option<Saved>, report_interval: SignedDuration) -> Self {
        let kept = saved.filter(|saved| saved.boot == identity.boot).unwrap_or_default();
        let notices = match &kept.instance {
            Some(instance) => Notices::restore(kept.notices.clone(), instance, &identity.boot),
            None => Notices::default(),
        };
        let counts = Counts::beginning_with(&notices.list());
        Self {
            instance: kept.instance.clone(),
            saved: kept,
            notices,
            unreadable: BTreeMap::new(),
            hearing: Hearing::default(),
            node: None,
            node_fresh: false,
            node_read_at: None,
            node_listed: false,
            node_suspect: false,
            told_foreign: false,
            told_missing: false,
            told_unread: false,
            told_too_many: false,
            told_too_large: false,
            told_cordoned: false,
            pods: BTreeMap::new(),
            pods_complete: false,
            unlisted: None,
            directives: BTreeMap::new(),
            verified: None,
            spread: Spread::of(&[identity.node.as_str(), identity.boot.as_str()]),
            cordon: Retry::default(),
            cordon_for: None,
            undo: Retry::default(),
            read_node: Retry::default(),
            drain: None,
            left_told: None,
            teller: Teller::default(),
            counts,
            drain_outcomes: Vec::new(),
            usage: None,
            usage_told: UsageTold::default(),
            told_use: false,
            sequence: 0,
            reported_at: None,
            reported: (Vec::new(), None, None),
            uncommitted_since: None,
            report_interval,
            cordon_on_problem: false,
            problem_since: None,
            cordoned_at: None,
            cut_off_since: None,
            refusals: Refusals::default(),
            denied: BTreeSet::new(),
            told_cut_off: false,
            power_off_grace: None,
            power_off: Retry::default(),
            holds_shutdown: false,
            effects: Vec::new(),
            identity,
        }
    }

    /// Whether a Node that says it is broken (see [`NoticeKind::Problem`]) is cordoned, too.
    #[must_use]
    pub fn cordoning_on_problem(mut self, cordons: bool) -> Self {
        self.cordon_on_problem = cordons;
        self
    }

    /// The instance, once IMDS or the disk told it.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// The UIDs of the node's pods that run, by namespace and name.
    pub fn running_pods(&self) -> PodNames {
        let running = self
            .pods
            .iter()
            .filter(|(_, pod)| pod.status.phase == "Running" && !pod.metadata.uid.is_empty());
        running.map(|(key, pod)| (key.clone(), Arc::from(pod.metadata.uid.as_str()))).collect()
    }

    /// The containers of the node's pods that have not ended, by the pods' UIDs. Init containers run in
    /// pods that do not yet.
    pub fn containers(&self) -> ContainerNames {
        let pods = self.pods.values().filter(|pod| !pod.metadata.uid.is_empty());
        pods.map(|pod| (Arc::from(pod.metadata.uid.as_str()), names_in(&pod.status))).collect()
    }

    /// Whether the Node has GPUs of NVIDIA's device plugin, or parts of some.
    pub fn has_gpus(&self) -> bool {
        let capacity = self.node.as_ref().map(|node| &node.status.capacity);
        capacity.is_some_and(|capacity| {
            capacity
                .iter()
                .any(|(name, amount)| amount > 0 && name.as_str().starts_with("nvidia.com/"))
        })
    }

    /// Whether ticks are needed several times a second. While it is so the clock should not be set.
    pub fn is_busy(&self) -> bool {
        // What may be in force for weeks needs neither.
        let hurries = |notice: &Notice| {
            !matches!(
                notice.kind,
                NoticeKind::Rebalance | NoticeKind::Maintenance | NoticeKind::Problem
            )
        };
        self.drain.is_some()
            || self.holds_shutdown
            || !self.directives.is_empty()
            || self.notices.list().iter().any(hurries)
    }

    /// Takes in one input and returns all that is to be done now. Decisions follow from the state
    /// alone, so that nothing depends on an input being seen twice or never.
    pub fn step(&mut self, input: Input, now: impl Into<Moment>) -> Vec<Effect> {
        let now = now.into();
        match input {
            Input::Instance(instance) => self.take_instance(instance),
            Input::Notice(path, answer) => self.take_notice(path, &answer, now),
            Input::Shutdown(until) => self.take_shutdown(until, now.wall),
            Input::PowerOff(grace) => self.power_off_grace = grace,
            Input::PoweredOff(attempt, outcome) => self.take_powered_off(attempt, outcome, now),
            Input::Cluster(event) => self.take_event(event, now),
            Input::Directives(directives) => self.take_directives(directives, now),
            Input::Answered(sequence, answer) => {
                self.usage_told.answered(sequence, answer.usage_unknown);
                if answer.committed {
                    let newest = (self.sequence, self.reported_at);
                    self.teller.taken(sequence, newest, answer.untold);
                }
                if answer.committed && self.uncommitted_since.is_some_and(|since| since <= sequence)
                {
                    self.uncommitted_since = None;
                }
                // An answer names what to begin; only the long poll's list is complete.
                self.add_directives(answer.directives, now);
            }
            Input::Outcome(key, outcome) => self.take_outcome(key, outcome, now),
            Input::Denied(denied) => self.take_denied(denied),
            Input::Usage(digest) => self.usage = digest.map(|digest| (now.steady, digest)),
            Input::Tick => {}
        }
        self.decide(now);
        std::mem::take(&mut self.effects)
    }

    fn tell(&mut self, fact: Fact) {
        self.effects.push(Effect::Tell(fact));
    }
}
