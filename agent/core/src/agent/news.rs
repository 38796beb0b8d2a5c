//! What nobody else tells people: while no leader hears the agent, or the one that does tells nobody, it makes the events
//! on its Node that a leader would make of its reports.
//!
//! That comes last. It waits until an API server that was silent answers again, there is one such call at a time,
//! and one that fails is not tried for long.

use std::collections::{BTreeMap, VecDeque};

use drover_common::call::{Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind};
use drover_common::cluster::ObjectKey;
use drover_common::drain::{self, DrainState};
use drover_common::news::{News, Progress, Stage, Telling};
use drover_common::protocol::{DrainReport, Notice, NoticeKind};
use jiff::{SignedDuration, Timestamp};

use super::{Agent, CallKey, Effect, Fact};
use crate::digest::number_of;
use crate::moment::Moment;
use crate::retry::Retry;

/// A leader answers in less; it may also be another's turn meanwhile.
const PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// Between two events, and before one is tried again.
const PACE: SignedDuration = SignedDuration::from_millis(100);
const PAUSE: SignedDuration = SignedDuration::from_secs(10);
/// How often one is tried.
const MOST_TRIES: u32 = 3;
/// The span in which an event is not repeated, and the most that are made in one.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(2);
const MOST_LATELY: usize = 32;
/// What waits to be told. A node has some notices and one drain at a time.
const MOST_WAITING: usize = 16;
/// When a notice's time ran out so long ago, an earlier agent has told of it.
const RAN_OUT_LATELY: SignedDuration = SignedDuration::from_mins(1);

/// One thing that a leader may or may not tell.
#[derive(Clone, Debug)]
struct Waiting {
    news: News,
    at: Timestamp,
    /// The first report that bears it.
    sequence: u64,
    /// When that was sent, on the steady clock.
    sent_at: Option<SignedDuration>,
    /// Whether a leader has it and tells nobody, so that it is the agent's own part.
    own: bool,
    tries: u32,
}

impl Waiting {
    /// Whether a leader has had the time to take it, or none would tell it. `alone` if the last answer was so.
    fn is_due(&self, alone: bool, now: Moment) -> bool {
        self.own || self.sent_at.map_or(alone, |at| now.is_past(at, PATIENCE))
    }
}

/// What was told, and what waits for it.
#[derive(Clone, Debug, Default)]
pub(super) struct Teller {
    /// The first report that no leader took, and when it was sent, on the steady clock.
    unheard: Option<(u64, SignedDuration)>,
    /// The last that was sent.
    sent: u64,
    /// The last that one took.
    heard: u64,
    /// The last whose news one tells.
    told: u64,
    /// Whether the one that took the last tells nobody.
    alone: bool,
    /// When the notices of each kind were issued that were found to be in force.
    notices: BTreeMap<NoticeKind, Option<Timestamp>>,
    drain: Progress,
    /// The end of a notice's time that pods were left at.
    ran_out: Option<Timestamp>,
    waiting: VecDeque<Waiting>,
    /// What is being told.
    under_way: Option<Waiting>,
    call: Retry,
    /// Notes of late, and when they were new, on the steady clock.
    lately: VecDeque<(String, SignedDuration)>,
    /// Whether it was said that events can't be made.
    told_failure: bool,
}

impl Teller {
    /// A report goes out.
    pub(super) fn reported(&mut self, sequence: u64, now: Moment) {
        self.unheard.get_or_insert((sequence, now.steady));
        self.sent = sequence;
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.sequence <= sequence) {
            waiting.sent_at.get_or_insert(now.steady);
        }
    }

    /// A leader has a report, and what it says of notices is in the log: from here on telling is its part, unless it says
    /// that it isn't. `newest` is the last report, and when it was sent.
    pub(super) fn taken(
        &mut self,
        sequence: u64,
        (newest, newest_at): (u64, Option<SignedDuration>),
        untold: bool,
    ) {
        if self.unheard.is_some_and(|(first, _)| first <= sequence) {
            let next = sequence.saturating_add(1);
            self.unheard = newest_at.filter(|_| newest > sequence).map(|at| (next, at));
        }
        self.heard = self.heard.max(sequence);
        self.alone = untold;
        if untold {
            let waiting = self.waiting.iter_mut().chain(self.under_way.as_mut());
            waiting.filter(|it| it.sequence <= sequence).for_each(|it| it.own = true);
            return;
        }
        self.told = self.told.max(sequence);
        self.waiting.retain(|waiting| waiting.own || waiting.sequence > sequence);
    }

    /// Whether something is to be reported so that leaders may take it: it came after the last report, and that they
    /// took no report for long says that there may be none.
    pub(super) fn awaits_report(&self, now: Moment) -> bool {
        self.unheard.is_some_and(|(_, at)| now.is_past(at, PATIENCE))
            && self.waiting.iter().any(|waiting| waiting.sent_at.is_none())
    }

    /// `at` is what it's known by: what is found again by a restarted agent has the same.
    fn push(&mut self, news: News, at: Timestamp, sequence: u64, now: Moment) {
        self.lately.retain(|(_, at)| !now.is_past(*at, REPEAT_AFTER));
        let is_known = self.lately.iter().any(|(note, _)| *note == news.note);
        let is_full = self.waiting.len() >= MOST_WAITING || self.lately.len() >= MOST_LATELY;
        if !is_known && !is_full {
            self.lately.push_back((news.note.clone(), now.steady));
            let sent_at = (sequence <= self.sent).then_some(now.steady);
            self.waiting.push_back(Waiting { news, at, sequence, sent_at, own: false, tries: 0 });
        }
    }

    /// Whether a leader has taken a report, and takes them still.
    pub(super) fn is_heard(&self, now: Moment) -> bool {
        self.heard > 0 && self.unheard.is_none_or(|(_, at)| !now.is_past(at, PATIENCE))
    }

    /// Notices that began, or are of another issue: those are returned.
    fn take_notices(&mut self, notices: &[Notice], sequence: u64, now: Moment) -> Vec<Notice> {
        let mut new = Vec::new();
        self.notices.retain(|kind, _| notices.iter().any(|notice| notice.kind == *kind));
        for notice in notices {
            let known = self.notices.insert(notice.kind, notice.issued_at);
            if known != Some(notice.issued_at) {
                self.push(News::of_notice(notice), notice.detected_at, sequence, now);
                new.push(notice.clone());
            }
        }
        new
    }
}

impl Agent {
    /// Finds what is new, which the report of now bears, and tells it if no leader will.
    pub(super) fn decide_news(&mut self, now: Moment) {
        let sequence = self.sequence;
        let new = self.teller.take_notices(&self.notices.list(), sequence, now);
        new.iter().for_each(|notice| self.counts.count_notice(notice));
        self.take_progress(sequence, now);
        self.take_left(sequence, now);
        self.tell_news(now);
    }

    fn take_progress(&mut self, sequence: u64, now: Moment) {
        let report = self.drain.as_ref().map(DrainState::report);
        if let Some(report) = &report {
            self.counts.count_pods(report, self.teller.drain.drain());
        }
        match self.teller.drain.take(report.as_ref(), now.wall).zip(report) {
            Some((Stage::Drained, report)) => {
                self.count_drained();
                self.teller.push(News::of_drained(&report), now.wall, sequence, now);
            }
            Some((Stage::Lasting, report)) => {
                if let Some(news) = self.blocked(&report) {
                    self.teller.drain.told_blocked(now.wall);
                    // How long a drain takes is no reason to report: any later report will do.
                    self.teller.push(news, now.wall, sequence.saturating_add(1), now);
                }
            }
            None => {}
        }
    }

    fn blocked(&self, report: &DrainReport) -> Option<News> {
        let stays = |pod: &str| {
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            let pod = self.pods.get(&ObjectKey::new(namespace, name));
            pod.is_some_and(|pod| !pod.is_terminating())
        };
        News::of_blocked(report, stays)
    }

    /// Pods that are still there when the time of a notice has run out.
    fn take_left(&mut self, sequence: u64, now: Moment) {
        let notices = self.notices.list();
        let ends = notices.iter().filter(|notice| notice.kind.passes_budgets());
        let ends = ends.filter_map(|notice| notice.deadline);
        let over =
            ends.filter(|end| now.wall >= *end && now.wall.duration_since(*end) < RAN_OUT_LATELY);
        let Some(end) = over.max().filter(|end| self.teller.ran_out != Some(*end)) else { return };
        let left = self.pods.iter().filter(|(_, pod)| drain::stays(pod).is_none());
        let left: Vec<String> = left.map(|(key, _)| key.to_string()).collect();
        if !left.is_empty() {
            self.teller.ran_out = Some(end);
            self.counts.count_left(left.len());
            self.teller.push(News::of_left(&left), end, sequence.saturating_add(1), now);
        }
    }

    fn tell_news(&mut self, now: Moment) {
        let waits = self.cut_off_since.is_some() || self.node_suspect;
        let alone = self.teller.alone;
        let due = self.teller.waiting.iter().position(|waiting| waiting.is_due(alone, now));
        let Some(due) = due.filter(|_| !waits && self.owns_node()) else { return };
        let Some(uid) = self.node.as_ref().map(|node| node.metadata.uid.clone()) else { return };
        let Some(attempt) = self.teller.call.start(now) else { return };
        let Some(mut waiting) = self.teller.waiting.remove(due) else { return };
        waiting.tries = waiting.tries.saturating_add(1);
        let call = event(&waiting, self.identity.node.as_str(), &uid);
        self.teller.under_way = Some(waiting);
        self.effects.push(Effect::Call(CallKey::Event(attempt), call));
    }

    /// An event was made, or not.
    pub(super) fn take_told(
        &mut self,
        attempt: u32,
        failure: Option<KubernetesFailure>,
        now: Moment,
    ) {
        let Some(told) = self.teller.under_way.take() else { return };
        // Made by an earlier try, or by this node's agent before it was restarted.
        let failure = failure.filter(|it| it.kind != KubernetesFailureKind::AlreadyExists);
        let Some(failure) = failure else {
            self.teller.told_failure = false;
            return self.teller.call.succeed(attempt, PACE, now);
        };
        self.teller.call.succeed(attempt, PAUSE, now);
        let is_final = matches!(
            failure.kind,
            KubernetesFailureKind::Forbidden | KubernetesFailureKind::Invalid
        );
        if !told.own && told.sequence <= self.teller.told {
            return;
        }
        if !is_final && told.tries < MOST_TRIES {
            self.teller.waiting.push_front(told);
        } else if !std::mem::replace(&mut self.teller.told_failure, true) {
            self.tell(Fact::EventFailed(failure));
        }
    }
}

/// The call that tells it. Its name is the same whenever the same is told, so that it's told once.
fn event(waiting: &Waiting, node: &str, uid: &str) -> KubernetesCall {
    let Waiting { news, at, .. } = waiting;
    let telling = Telling {
        kind: Kind::Node,
        namespace: "",
        name: node,
        uid,
        controller: "drover-agent",
        instance: node,
    };
    let number = number_of(&[uid, news.reason, &news.note, &at.as_millisecond().to_string()]);
    // Names have 253 characters at most.
    let start: String = node.chars().take(200).collect();
    let start = start.trim_end_matches(['.', '-']);
    telling.event(&format!("{start}.{number:016x}"), news.reason, &news.note, news.warning, *at)
}
