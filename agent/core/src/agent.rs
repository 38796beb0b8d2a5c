//! The agent's brain: one state, one [`Agent::step`].

mod decide;
#[cfg(test)]
mod property;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use drover_common::call::{Kind, KubernetesCall, KubernetesFailure};
use drover_common::cluster::{ClusterEvent, ClusterObject, Node, ObjectKey, Pod};
use drover_common::drain::{DrainKey, DrainState};
use drover_common::id::{BootId, DisruptionId, InstanceId, NodeName};
use drover_common::protocol::{
    Directive, DrainReport, Notice, PROTOCOL_VERSION, Report, ReportAnswer, UsageDigest,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::notice::{Answer, NoticePath, Notices, after};
use crate::retry::Retry;

/// A notice that no leader has committed yet is reported again so soon.
const REPEAT_REPORT: SignedDuration = SignedDuration::from_secs(1);

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
    /// From the watches of the own Node and the own pods.
    Cluster(ClusterEvent),
    /// The leaders' directives, all of them.
    Directives(Vec<Directive>),
    /// The leader's answer to the report of this sequence number.
    Answered(u64, ReportAnswer),
    /// The outcome of a call.
    Outcome(CallKey, Result<Value, KubernetesFailure>),
    /// Use was measured over an interval.
    Usage(UsageDigest),
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
    /// A fresh read of the own Node for a directive.
    ReadNode(u32),
    /// A call of the drain engine.
    Drain(DrainKey),
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
    /// The own Node belongs to another instance: nothing is done to it.
    ForeignNode {
        /// Its providerID.
        provider_id: String,
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
    /// A drain began, with its purpose in words.
    DrainBegan(String),
    /// A drain stands at this point.
    DrainChanged(DrainReport),
    /// A drain ended because its reason went.
    DrainStopped,
}

/// The state of one agent.
#[derive(Clone, Debug)]
pub struct Agent {
    identity: Identity,
    instance: Option<InstanceId>,
    saved: Saved,
    notices: Notices,
    unreadable: BTreeMap<NoticePath, String>,
    node: Option<Node>,
    node_fresh: bool,
    told_foreign: bool,
    told_cordoned: bool,
    pods: BTreeMap<ObjectKey, Pod>,
    pods_complete: bool,
    /// While a list is under way: what it has not named yet.
    unlisted: Option<BTreeSet<ObjectKey>>,
    directives: BTreeMap<DisruptionId, Option<Timestamp>>,
    /// The disruption that the Node, read fresh, was found to bear.
    verified: Option<DisruptionId>,
    cordon: Retry,
    undo: Retry,
    read_node: Retry,
    drain: Option<DrainState>,
    drain_outcomes: Vec<(DrainKey, Result<(), KubernetesFailure>)>,
    usage: Option<UsageDigest>,
    sequence: u64,
    reported_at: Option<Timestamp>,
    reported: (Vec<Notice>, Option<DrainReport>),
    /// The sequence number of the first report that bore the notices in force, if not committed.
    uncommitted_since: Option<u64>,
    report_interval: SignedDuration,
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
        Self {
            instance: kept.instance.clone(),
            saved: kept,
            notices,
            unreadable: BTreeMap::new(),
            node: None,
            node_fresh: false,
            told_foreign: false,
            told_cordoned: false,
            pods: BTreeMap::new(),
            pods_complete: false,
            unlisted: None,
            directives: BTreeMap::new(),
            verified: None,
            cordon: Retry::default(),
            undo: Retry::default(),
            read_node: Retry::default(),
            drain: None,
            drain_outcomes: Vec::new(),
            usage: None,
            sequence: 0,
            reported_at: None,
            reported: (Vec::new(), None),
            uncommitted_since: None,
            report_interval,
            effects: Vec::new(),
            identity,
        }
    }

    /// The instance, once IMDS or the disk told it.
    pub fn instance(&self) -> Option<&InstanceId> {
        self.instance.as_ref()
    }

    /// Whether ticks are needed several times a second. While it is so the clock should not be set.
    pub fn is_busy(&self) -> bool {
        self.drain.is_some() || !self.notices.is_empty() || !self.directives.is_empty()
    }

    /// Takes in one input and returns all that is to be done now. Decisions follow from the state
    /// alone, so that nothing depends on an input being seen twice or never.
    pub fn step(&mut self, input: Input, now: Timestamp) -> Vec<Effect> {
        match input {
            Input::Instance(instance) => self.take_instance(instance),
            Input::Notice(path, answer) => self.take_notice(path, &answer, now),
            Input::Cluster(event) => self.take_event(event),
            Input::Directives(directives) => self.take_directives(directives),
            Input::Answered(sequence, answer) => {
                if answer.committed && self.uncommitted_since.is_some_and(|since| since <= sequence)
                {
                    self.uncommitted_since = None;
                }
                // An answer names what to begin; only the long poll's list is complete.
                self.add_directives(answer.directives);
            }
            Input::Outcome(key, outcome) => self.take_outcome(key, outcome, now),
            Input::Usage(digest) => self.usage = Some(digest),
            Input::Tick => {}
        }
        self.decide(now);
        std::mem::take(&mut self.effects)
    }

    fn tell(&mut self, fact: Fact) {
        self.effects.push(Effect::Tell(fact));
    }

    fn take_instance(&mut self, instance: InstanceId) {
        if self.instance.as_ref() != Some(&instance) {
            // What was kept belonged to another instance with, by some copy, the same boot.
            self.notices = Notices::default();
            self.told_foreign = false;
            self.instance = Some(instance);
        }
    }

    fn take_notice(&mut self, path: NoticePath, answer: &Answer, now: Timestamp) {
        let Some(instance) = self.instance.clone() else { return };
        match self.notices.observe(path, answer, &instance, &self.identity.boot, now) {
            Ok(changed) => {
                self.unreadable.remove(&path);
                if changed {
                    self.told_cordoned = false;
                    let facts: Vec<Fact> =
                        self.notices.list().into_iter().map(Fact::NoticeInForce).collect();
                    if facts.is_empty() {
                        self.tell(Fact::NoticesGone);
                    }
                    facts.into_iter().for_each(|fact| self.tell(fact));
                }
            }
            Err(error) => {
                let reason = error.to_string();
                if self.unreadable.get(&path) != Some(&reason) {
                    self.unreadable.insert(path, reason.clone());
                    self.tell(Fact::UnreadableNotice { path, reason });
                }
            }
        }
    }

    fn take_event(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::Applied(ClusterObject::Node(node)) => self.take_node(*node),
            ClusterEvent::Deleted(Kind::Node, _) => self.node = None,
            ClusterEvent::Synced(Kind::Node) => self.node_fresh = true,
            ClusterEvent::Stale(Kind::Node) => self.node_fresh = false,
            ClusterEvent::Applied(ClusterObject::Pod(pod)) => {
                let key = ObjectKey::from(&pod.metadata);
                if let Some(unlisted) = &mut self.unlisted {
                    unlisted.remove(&key);
                }
                self.pods.insert(key, *pod);
            }
            ClusterEvent::Deleted(Kind::Pod, key) => {
                self.pods.remove(&key);
            }
            ClusterEvent::Restarted(Kind::Pod) => {
                self.unlisted = Some(self.pods.keys().cloned().collect());
            }
            ClusterEvent::Synced(Kind::Pod) => {
                for key in self.unlisted.take().unwrap_or_default() {
                    self.pods.remove(&key);
                }
                self.pods_complete = true;
            }
            ClusterEvent::Stale(Kind::Pod) => self.pods_complete = false,
            _ => {}
        }
    }

    fn take_node(&mut self, node: Node) {
        if node.metadata.name == self.identity.node.as_str() {
            self.node = Some(node);
        }
    }

    fn take_directives(&mut self, directives: Vec<Directive>) {
        self.directives.clear();
        self.add_directives(directives);
    }

    fn add_directives(&mut self, directives: Vec<Directive>) {
        for directive in directives {
            if !self.directives.contains_key(&directive.disruption) {
                // News: the Node is to be read at once, whatever the pace was.
                self.read_node.reset();
            }
            self.directives.insert(directive.disruption, directive.deadline);
        }
    }

    /// The report of now.
    fn report(&mut self, now: Timestamp) -> Report {
        self.sequence = self.sequence.saturating_add(1);
        Report {
            version: PROTOCOL_VERSION,
            node: self.identity.node.clone(),
            instance: self.instance.clone(),
            boot: self.identity.boot.clone(),
            sequence: self.sequence,
            sent_at: now,
            notices: self.notices.list(),
            usage: self.usage.clone(),
            drain: self.drain.as_ref().map(DrainState::report),
        }
    }

    /// Reports when something changed, when a notice isn't committed yet, and now and then.
    fn decide_report(&mut self, now: Timestamp) {
        let present = (self.notices.list(), self.drain.as_ref().map(DrainState::report));
        let notices_changed = present.0 != self.reported.0;
        let changed = notices_changed || significant(&present.1) != significant(&self.reported.1);
        let pause =
            if self.uncommitted_since.is_some() { REPEAT_REPORT } else { self.report_interval };
        let due = self.reported_at.is_none_or(|at| now >= after(at, pause));
        if !changed && !due {
            return;
        }
        let report = self.report(now);
        if notices_changed {
            let pending = !present.0.is_empty();
            self.uncommitted_since = pending.then_some(report.sequence);
        }
        self.reported = present;
        self.reported_at = Some(now);
        self.effects.push(Effect::Report(Box::new(report)));
    }

    fn decide_save(&mut self) {
        let saved = Saved {
            instance: self.instance.clone(),
            boot: self.identity.boot.clone(),
            notices: self.notices.list(),
        };
        if saved != self.saved && saved.instance.is_some() {
            self.saved = saved.clone();
            self.effects.push(Effect::Save(saved));
        }
    }
}

/// The part of a drain's report that is news; seconds left of graces are not.
fn significant(drain: &Option<DrainReport>) -> Option<DrainReport> {
    let mut drain = drain.clone()?;
    for (_, reason) in &mut drain.remaining {
        reason.clear();
    }
    Some(drain)
}
