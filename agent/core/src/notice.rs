//! Which notices are in force.
//!
//! A notice begins when IMDS tells it and ends only when IMDS has said "none" for a while: not by
//! errors, not by restarts of the agent, not by the passing of its time.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::id::{BootId, InstanceId};
use drover_common::protocol::{Notice, NoticeKind};
use jiff::{SignedDuration, Timestamp};

use crate::imds::{self, UnreadableBody};
use crate::moment::Moment;

#[cfg(test)]
mod tests;

/// How long IMDS has to say "none" before a notice is withdrawn.
const WITHDRAWN_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A spot loss is announced at most two minutes ahead; a longer lead means that a clock is wrong.
const LONGEST_SPOT_LEAD: SignedDuration = SignedDuration::from_secs(120);
/// What is left of a spot notice whose time is past when it's read first: the agent came late, or
/// a clock is wrong.
const LATE_SPOT_LEAD: SignedDuration = SignedDuration::from_secs(30);
/// A later time is another notice if the earlier one has passed for so long.
const OVER_AFTER: SignedDuration = SignedDuration::from_secs(60);

/// How long a Node must bear a condition that says it is broken: they come and go.
pub(crate) const PROBLEM_HOLDS: SignedDuration = SignedDuration::from_secs(60);

/// The paths of IMDS that notices come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NoticePath {
    /// `spot/instance-action`
    SpotAction,
    /// `events/recommendations/rebalance`
    Rebalance,
    /// `autoscaling/target-lifecycle-state`
    AutoScaling,
    /// `events/maintenance/scheduled`
    Maintenance,
}

impl NoticePath {
    /// All of them, the most urgent first.
    pub const ALL: [NoticePath; 4] = [
        NoticePath::SpotAction,
        NoticePath::Rebalance,
        NoticePath::AutoScaling,
        NoticePath::Maintenance,
    ];

    /// The path below `/latest/meta-data/`.
    pub fn path(self) -> &'static str {
        match self {
            NoticePath::SpotAction => "spot/instance-action",
            NoticePath::Rebalance => "events/recommendations/rebalance",
            NoticePath::AutoScaling => "autoscaling/target-lifecycle-state",
            NoticePath::Maintenance => "events/maintenance/scheduled",
        }
    }

    fn tells(self, kind: NoticeKind) -> bool {
        Self::of(kind) == Some(self)
    }

    /// The path that tells a kind; `None` for what the machine itself tells.
    pub(crate) fn of(kind: NoticeKind) -> Option<Self> {
        match kind {
            NoticeKind::SpotTerminate | NoticeKind::SpotStop | NoticeKind::SpotHibernate => {
                Some(NoticePath::SpotAction)
            }
            NoticeKind::Rebalance => Some(NoticePath::Rebalance),
            NoticeKind::Maintenance => Some(NoticePath::Maintenance),
            NoticeKind::AutoScaling => Some(NoticePath::AutoScaling),
            NoticeKind::Shutdown | NoticeKind::Problem | NoticeKind::ReservationReclaim => None,
        }
    }
}

/// What IMDS answered on a [`NoticePath`]. Errors and silence are no answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 404.
    Absent,
    /// 200.
    Body(String),
}

/// The notices in force, one of each kind at most.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Notices {
    in_force: BTreeMap<NoticeKind, Notice>,
    /// Since when, on the steady clock, each path says "none" without a break.
    absent_since: BTreeMap<NoticePath, SignedDuration>,
    /// The paths that have answered since the agent started.
    heard: BTreeSet<NoticePath>,
    /// A recommendation of a later issue than the one in force, read once.
    reissued: Option<Notice>,
}

impl Notices {
    /// Takes up notices from disk: only those of this instance and boot. A shutdown that goes on the machine
    /// itself tells again.
    pub(crate) fn restore(saved: Vec<Notice>, instance: &InstanceId, boot: &BootId) -> Self {
        let own = saved.into_iter().filter(|notice| {
            notice.instance == *instance
                && notice.boot == *boot
                && (NoticePath::of(notice.kind).is_some() || notice.kind == NoticeKind::Problem)
        });
        let in_force = own.map(|notice| (notice.kind, notice)).collect();
        Self { in_force, ..Self::default() }
    }

    /// In force, in order of kind.
    pub(crate) fn list(&self) -> Vec<Notice> {
        self.in_force.values().cloned().collect()
    }

    /// Takes in an answer of IMDS. Returns whether the notices in force changed.
    ///
    /// # Errors
    /// The body is unreadable; nothing changed.
    pub(crate) fn observe(
        &mut self,
        path: NoticePath,
        answer: &Answer,
        instance: &InstanceId,
        boot: &BootId,
        now: Moment,
    ) -> Result<bool, UnreadableBody> {
        let told = match answer {
            Answer::Absent => None,
            Answer::Body(body) => read(path, body)?,
        };
        self.heard.insert(path);
        let Some(told) = told else { return Ok(self.observe_absent(path, now)) };
        let now = now.wall;
        self.absent_since.remove(&path);
        let kind = told.kind;
        let deadline = told.deadline.map(|time| plausible(kind, time, now));
        // Of the kinds one path can tell, only one holds at a time.
        let others: Vec<NoticeKind> =
            self.in_force.keys().copied().filter(|&k| k != kind && path.tells(k)).collect();
        for other in &others {
            self.in_force.remove(other);
        }
        let fresh = Notice {
            kind,
            instance: instance.clone(),
            boot: boot.clone(),
            deadline,
            detected_at: now,
            issued_at: told.issued_at,
        };
        let changed = match self.in_force.get_mut(&kind) {
            None => {
                self.in_force.insert(kind, fresh);
                true
            }
            Some(known) if fresh.issued_at > known.issued_at => {
                take_issue(known, fresh, &mut self.reissued)
            }
            Some(known) => replace(known, fresh, now),
        };
        Ok(changed || !others.is_empty())
    }

    /// Whether it's known from this run that nothing of this kind is in force: silence may follow a
    /// restart, too.
    pub(crate) fn knows(&self, kind: NoticeKind) -> bool {
        NoticePath::of(kind).is_none_or(|path| self.heard.contains(&path))
    }

    /// Takes in what the machine itself tells: a notice with its time, or that there is none.
    /// Returns whether the notices in force changed.
    pub(crate) fn set(
        &mut self,
        kind: NoticeKind,
        told: Option<Option<Timestamp>>,
        instance: &InstanceId,
        boot: &BootId,
        now: Timestamp,
    ) -> bool {
        let Some(deadline) = told else { return self.in_force.remove(&kind).is_some() };
        if self.in_force.get(&kind).is_some_and(|known| known.instance == *instance) {
            return false;
        }
        let (instance, boot) = (instance.clone(), boot.clone());
        let notice = Notice { kind, instance, boot, deadline, detected_at: now, issued_at: None };
        self.in_force.insert(kind, notice);
        true
    }

    fn observe_absent(&mut self, path: NoticePath, now: Moment) -> bool {
        let since = *self.absent_since.entry(path).or_insert(now.steady);
        if !now.is_past(since, WITHDRAWN_AFTER) {
            return false;
        }
        let before = self.in_force.len();
        self.in_force.retain(|&kind, _| !path.tells(kind));
        self.in_force.len() != before
    }
}

/// What a body tells.
struct Told {
    kind: NoticeKind,
    deadline: Option<Timestamp>,
    issued_at: Option<Timestamp>,
}

/// The notice in a body; `None` if the body says that there is none.
fn read(path: NoticePath, body: &str) -> Result<Option<Told>, UnreadableBody> {
    let told = |kind, deadline| Told { kind, deadline, issued_at: None };
    Ok(match path {
        NoticePath::SpotAction => {
            let action = imds::spot_action(body)?;
            Some(told(action.kind, Some(action.time)))
        }
        NoticePath::Rebalance => {
            let issued_at = Some(imds::rebalance(body)?);
            Some(Told { issued_at, ..told(NoticeKind::Rebalance, None) })
        }
        NoticePath::Maintenance => imds::maintenance(body)?
            .first()
            .map(|event| told(NoticeKind::Maintenance, Some(event.not_before))),
        // The hook's timeout is not told.
        NoticePath::AutoScaling => {
            imds::is_target_terminated(body)?.then(|| told(NoticeKind::AutoScaling, None))
        }
    })
}

/// Corrects a time that a wrong clock makes impossible.
fn plausible(kind: NoticeKind, time: Timestamp, now: Timestamp) -> Timestamp {
    let lead = time.duration_since(now);
    if !kind.passes_budgets() {
        time
    } else if lead > LONGEST_SPOT_LEAD {
        after(now, LONGEST_SPOT_LEAD)
    } else if lead.is_negative() {
        after(now, LATE_SPOT_LEAD)
    } else {
        time
    }
}

/// Puts a repeated notice in place of the known one where it says something new: an earlier time,
/// any other time of a maintenance, or a later one when the known has long passed. A spot notice
/// whose time moves with every read (a mock does that) stays the first one.
fn replace(known: &mut Notice, fresh: Notice, now: Timestamp) -> bool {
    let new = match (known.deadline, fresh.deadline) {
        (Some(old), Some(new)) if known.kind == NoticeKind::Maintenance => old != new,
        (Some(old), Some(new)) => new < old || now > after(old, OVER_AFTER),
        _ => false,
    };
    // A past time is corrected anew at each read, which isn't news.
    let corrected =
        known.kind.passes_budgets() && fresh.deadline == Some(after(now, LATE_SPOT_LEAD));
    if new && !corrected {
        *known = Notice { detected_at: known.detected_at, ..fresh };
        return true;
    }
    false
}

/// Puts a notice in place of one that was issued before. It has to be read twice, for the time of a mock's moves with
/// every read.
fn take_issue(known: &mut Notice, fresh: Notice, read_once: &mut Option<Notice>) -> bool {
    match read_once.take().filter(|first| first.issued_at == fresh.issued_at) {
        Some(first) => {
            *known = first;
            true
        }
        None => {
            *read_once = Some(fresh);
            false
        }
    }
}

pub(crate) fn after(time: Timestamp, duration: SignedDuration) -> Timestamp {
    time.checked_add(duration).unwrap_or(Timestamp::MAX)
}
