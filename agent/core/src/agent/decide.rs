//! What follows from the state.

use drover_common::call::{Kind, KubernetesFailure, KubernetesFailureKind};
use drover_common::cluster::{ClusterObject, Pod};
use drover_common::drain::{self, DrainInput, DrainState, Purpose};
use drover_common::id::DisruptionId;
use drover_common::protocol::{DrainPhase, DrainReport, Notice, NoticeKind};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::cut_off::is_silent;
use super::{Agent, CallKey, Effect, Fact};
use crate::moment::Moment;
use crate::node::{self, CordonMark};

/// How often a Node is read for a directive while the watch of it is broken, or while the directive
/// came before the marks it speaks of.
const READ_PACE: SignedDuration = SignedDuration::from_secs(1);

/// A cordon that somebody takes back again and again is put back after so long at most, and so long where the
/// machine is about to go.
const LONGEST_UNCORDONED: SignedDuration = SignedDuration::from_mins(1);
const LONGEST_IN_HASTE: SignedDuration = SignedDuration::from_secs(5);

/// What happens to pods so long before a drain's time, and after it, has to be seen at once.
const CLOSE: SignedDuration = SignedDuration::from_mins(5);

/// Kept between a pod's last moment and the shutdown's: the machine is still there then.
const SHUTDOWN_RESERVE: SignedDuration = SignedDuration::from_secs(1);

impl Agent {
    pub(super) fn decide(&mut self, now: Moment) {
        self.forget_directives(now);
        self.watch_conditions(now);
        self.watch_hearing(now);
        self.decide_save();
        self.decide_read(now);
        self.decide_cordon(now);
        self.count_cordon();
        self.decide_directive(now);
        self.decide_drain(now);
        self.tell_left(now);
        self.decide_shutdown(now.wall);
        self.decide_power_off(now);
        self.decide_report(now);
        self.decide_news(now);
    }

    /// The notices that ask for a cordon now, the strongest kind first.
    fn due(&self, now: Timestamp) -> Vec<Notice> {
        let due = |notice: &Notice| match notice.kind {
            NoticeKind::SpotTerminate
            | NoticeKind::SpotStop
            | NoticeKind::SpotHibernate
            | NoticeKind::AutoScaling
            | NoticeKind::ReservationReclaim
            | NoticeKind::Shutdown => true,
            // What a recommendation is worth is the leaders' decision.
            NoticeKind::Rebalance => false,
            NoticeKind::Maintenance => notice.is_due(now),
            NoticeKind::Problem => self.cordon_on_problem,
        };
        self.notices.list().into_iter().filter(due).collect()
    }

    /// What the notices that are due want of a drain. Signals of one end are one drain: the earliest
    /// of their times ends it, save that of maintenance which has passed while others are still to come.
    /// Budgets give way for those alone that pass them, and at the times of those.
    pub(super) fn interruption(&self, now: Timestamp) -> Option<Purpose> {
        let due = self.due(now);
        let drains = due.iter().filter(|notice| match notice.kind {
            // Hibernation begins at once and brings the pods back, a broken node's pods may still
            // serve: there is nothing to drain.
            NoticeKind::SpotHibernate | NoticeKind::Problem | NoticeKind::Rebalance => false,
            NoticeKind::SpotTerminate
            | NoticeKind::SpotStop
            | NoticeKind::ReservationReclaim
            | NoticeKind::Maintenance
            | NoticeKind::AutoScaling
            | NoticeKind::Shutdown => true,
        });
        let drains: Vec<&Notice> = drains.collect();
        if drains.is_empty() {
            return None;
        }
        let ends = || drains.iter().filter_map(|notice| Some((notice.kind, last_moment(notice)?)));
        let to_come = ends().filter(|&(kind, end)| kind != NoticeKind::Maintenance || now < end);
        let end = to_come.map(|(_, end)| end).min().or_else(|| ends().map(|(_, end)| end).min());
        let passing = ends().filter(|(kind, _)| kind.passes_budgets());
        Some(Purpose {
            disruption: None,
            hurries: drains.iter().any(|notice| notice.kind.passes_budgets()),
            end,
            budgets_end: passing.map(|(_, end)| end).min(),
        })
    }

    /// Whether an interruption's drain is under way that still has time: worth staying for, though
    /// the agent was asked to stop.
    pub fn has_drain_to_finish(&self, now: Timestamp) -> bool {
        // Of what leaders began that alone which follows a notice of the machine's end.
        let borne = self.node.as_ref().zip(self.verified.clone());
        let directed = borne.map(|(node, id)| node::purpose_of(node, id));
        let directed = directed.filter(|purpose| purpose.hurries);
        self.is_draining_for(self.interruption(now), now) || self.is_draining_for(directed, now)
    }

    fn is_draining_for(&self, purpose: Option<Purpose>, now: Timestamp) -> bool {
        let has_time = purpose.is_some_and(|purpose| purpose.end.is_none_or(|end| now < end));
        has_time && self.drain.is_some() && !self.is_drained()
    }

    fn is_drained(&self) -> bool {
        self.drain.as_ref().is_some_and(|drain| drain.report().phase == DrainPhase::Drained)
    }

    /// Whether what the watches tell is needed at once: a drain is under way, or to begin, whose time is close. What a
    /// budget holds may take weeks without one.
    pub fn is_urgent(&self, now: Timestamp) -> bool {
        let interruption = self.interruption(now).and_then(|purpose| purpose.end);
        let borne = self.node.as_ref().zip(self.verified.clone());
        let disruption = borne.and_then(|(node, id)| node::purpose_of(node, id).end);
        let is_close = |end: Timestamp| now.duration_since(end).abs() <= CLOSE;
        !self.is_drained() && interruption.into_iter().chain(disruption).any(is_close)
    }

    /// Holds a shutdown until the pods are gone or their time is over.
    fn decide_shutdown(&mut self, now: Timestamp) {
        if self.holds_shutdown && !self.is_draining_for(self.interruption(now), now) {
            self.allow_shutdown();
        }
    }

    fn decide_cordon(&mut self, now: Moment) {
        if !self.owns_node() {
            return;
        }
        match self.due(now.wall).into_iter().next() {
            Some(notice) => {
                self.begin_cordon(&notice);
                if self.node.as_ref().is_some_and(|node| node::is_cordoned_for(node, &notice)) {
                    if !std::mem::replace(&mut self.told_cordoned, true) {
                        self.cordoned_at = Some(now.wall);
                        let after = now.wall.duration_since(notice.detected_at);
                        self.tell(Fact::Cordoned { after });
                    }
                    return;
                }
                if self.has_seen_node(now)
                    && let Some(attempt) = self.cordon.start(now)
                {
                    let call = node::cordon(&self.identity.node, self.node.as_ref(), &notice);
                    self.effects.push(Effect::Call(CallKey::Cordon(attempt), call));
                }
            }
            // Before IMDS has told the instance nothing is known about notices either.
            None if self.node_fresh && !self.node_suspect && self.instance.is_some() => {
                // What a restarted agent finds cordoned for a break that lasts it does not uncordon for a minute.
                let lasts = self.cordon_on_problem && self.is_broken();
                let known = |mark: &CordonMark| {
                    let of_other = mark.boot != self.identity.boot;
                    let lasts = lasts && mark.why == NoticeKind::Problem;
                    of_other || (self.notices.knows(mark.why) && !lasts)
                };
                let bearing = self.node.as_ref();
                let undo = bearing
                    .filter(|node| node::own_mark(node).is_some_and(|mark| known(&mark)))
                    .and_then(node::undo);
                if let Some(call) = undo
                    && let Some(attempt) = self.undo.start(now)
                {
                    self.effects.push(Effect::Call(CallKey::Undo(attempt), call));
                }
            }
            None => {}
        }
    }

    /// What was fought over for one notice keeps no other waiting.
    fn begin_cordon(&mut self, notice: &Notice) {
        let asked = (notice.kind, notice.deadline, notice.boot.clone());
        if self.cordon_for.as_ref() != Some(&asked) {
            self.cordon.reset();
            self.cordon_for = Some(asked);
        }
    }

    /// A directive only wakes: the Node, read fresh, has to bear its taint and id, and says by when and
    /// why.
    fn decide_directive(&mut self, now: Moment) {
        if !self.bears_verified() {
            self.verified = None;
        }
        // A disruption that is called off is named by no leader any more; the Node says whether it is.
        let wanted = match self.verified {
            Some(_) => !self.node_fresh,
            None => !self.directives.is_empty(),
        };
        if wanted && self.owns_node() {
            self.read_own_node(now);
        }
    }

    /// Whether the Node bears, as far as is known, what it was found to bear.
    fn bears_verified(&self) -> bool {
        let found = self.node.as_ref().zip(self.verified.as_ref());
        found.is_some_and(|(node, id)| node::is_disrupted(node, id))
    }

    pub(super) fn purpose(&mut self, now: Moment) -> Option<Purpose> {
        if !self.owns_node() {
            return None;
        }
        let borne = self.node.as_ref().zip(self.verified.clone());
        let borne = borne.filter(|_| self.is_node_fresh(now));
        let disruption = borne.map(|(node, id)| node::purpose_of(node, id));
        // The pods of a Node that was never seen may be another instance's.
        let seen = self.node.is_some() || self.drain.is_some();
        match (self.interruption(now.wall).filter(|_| seen), disruption) {
            (Some(interruption), Some(disruption)) => Some(interruption.and(disruption)),
            (interruption, disruption) => interruption.or(disruption),
        }
    }

    fn decide_drain(&mut self, now: Moment) {
        let Some(purpose) = self.purpose(now) else {
            // A disruption may have been called off by now: until the Node can be read nothing more
            // leaves, and nothing is forgotten.
            let waits = self.bears_verified() && !self.is_node_fresh(now) && self.owns_node();
            if !waits && self.drain.take().is_some() {
                self.drain_outcomes.clear();
                self.tell(Fact::DrainStopped);
            }
            return;
        };
        if self.drain.is_none() {
            self.tell(Fact::DrainBegan(purpose.describe()));
        }
        let drain = self.drain.get_or_insert_with(DrainState::default);
        let pods: Vec<&Pod> = self.pods.values().map(AsRef::as_ref).collect();
        let outcomes = std::mem::take(&mut self.drain_outcomes);
        let before = drain.report();
        let input = DrainInput {
            pods: &pods,
            complete: self.pods_complete && self.unlisted.is_none(),
            purpose: &purpose,
            now: now.wall,
            outcomes: &outcomes,
        };
        let calls = drain::step(drain, input);
        let report = drain.report();
        self.refusals.ask(&calls, now);
        for call in calls {
            self.effects.push(Effect::Call(CallKey::Drain(call.key), call.call));
        }
        let counts =
            |report: &DrainReport| (report.phase, report.evicted, report.clipped, report.forced);
        if counts(&before) != counts(&report) {
            self.tell(Fact::DrainChanged(report));
        }
    }

    pub(super) fn take_outcome(
        &mut self,
        key: CallKey,
        outcome: Result<Value, KubernetesFailure>,
        now: Moment,
    ) {
        // Events may be kept elsewhere than all else, and are not what a machine is powered off for.
        if !matches!(key, CallKey::Event(_)) {
            self.hear_api(now, !outcome.as_ref().is_err_and(is_silent));
        }
        match (key, outcome) {
            (CallKey::Event(attempt), outcome) => self.take_told(attempt, outcome.err(), now),
            (CallKey::Drain(key), outcome) => {
                self.hear_of_pod(now, &key, &outcome);
                if self.drain.is_some() {
                    self.drain_outcomes.push((key, outcome.map(|_object| ())));
                }
            }
            (CallKey::Cordon(attempt), Ok(object)) => {
                self.take_node_object(object, now);
                // Should the answer not show it, or somebody take it back, the next try comes a little later.
                let hurries = self.due(now.wall).iter().any(|notice| {
                    notice.kind.passes_budgets()
                        || matches!(notice.kind, NoticeKind::AutoScaling | NoticeKind::Shutdown)
                });
                let longest = if hurries { LONGEST_IN_HASTE } else { LONGEST_UNCORDONED };
                self.cordon.succeed_for_a_while(attempt, longest, now);
            }
            (CallKey::Cordon(attempt), Err(failure)) => {
                self.cordon.fail(attempt, self.spread, now);
                self.take_patch_failure(failure);
            }
            (CallKey::Undo(attempt), Ok(object)) => {
                self.take_node_object(object, now);
                self.undo.succeed(attempt, SignedDuration::from_millis(500), now);
                self.tell(Fact::Uncordoned);
            }
            (CallKey::Undo(attempt), Err(failure)) => {
                self.undo.fail(attempt, self.spread, now);
                self.take_patch_failure(failure);
            }
            (CallKey::ReadNode(attempt), Ok(object)) => {
                self.told_unread = false;
                self.read_node.succeed(attempt, READ_PACE, now);
                self.take_node_object(object, now);
                if !self.bears_verified() {
                    self.verified = self.borne_disruption();
                }
            }
            (CallKey::ReadNode(attempt), Err(failure)) => {
                self.read_node.fail(attempt, self.spread, now);
                self.take_read_failure(failure);
            }
        }
    }

    /// A patch failed. Of another Node that has the name by now an API server says that its UID may not
    /// change; of one that has changed since, that there is a conflict. Either has to be read.
    fn take_patch_failure(&mut self, failure: KubernetesFailure) {
        let is_another = matches!(
            failure.kind,
            KubernetesFailureKind::Invalid
                | KubernetesFailureKind::Conflict
                | KubernetesFailureKind::NotFound
        );
        if is_another && !std::mem::replace(&mut self.node_suspect, true) {
            // What it is has to be known at once, whatever the pace was.
            self.read_node.reset();
        }
        self.tell(Fact::PatchFailed(failure));
    }

    /// What was asked for may come later than what the watch has told since.
    fn take_node_object(&mut self, object: Value, now: Moment) {
        if let Ok(ClusterObject::Node(node)) = ClusterObject::from_json(Kind::Node, object)
            && !self.node.as_ref().is_some_and(|known| node::is_older(&node, known))
            && self.take_node(*node)
        {
            self.node_read_at = Some(now.steady);
        }
    }

    /// The directive whose marks the Node bears.
    fn borne_disruption(&self) -> Option<DisruptionId> {
        let node = self.node.as_ref()?;
        self.directives.keys().find(|id| node::is_disrupted(node, id)).cloned()
    }
}

/// The last moment for pods before what a notice announces.
fn last_moment(notice: &Notice) -> Option<Timestamp> {
    let announced = notice.deadline?;
    Some(match notice.kind {
        NoticeKind::Shutdown => announced.checked_sub(SHUTDOWN_RESERVE).unwrap_or(Timestamp::MIN),
        _ => drain::last_moment(announced),
    })
}
