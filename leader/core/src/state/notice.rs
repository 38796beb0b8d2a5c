//! Notices that agents read, or the interruption queue tells of.

use drover_common::id::{InstanceId, NodeClaimName, NodeName};
use drover_common::protocol::{Notice, NoticeKind};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Applied, ClaimRecord, State, seconds_between};
use crate::command::{NoticeSource, UnavailableOffering};
use crate::journal::Decision;

/// Seconds a notice is kept after its deadline (or its detection, where there is none) and after it was told last: an
/// instance is gone by then, or nobody is left who would withdraw it.
const KEPT_SECONDS: i64 = 3_600;

/// What the queue tells anew after so many seconds is another event, not the one that is known.
const QUEUE_NEWS_SECONDS: i64 = 600;

/// A notice and who tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NoticeRecord {
    /// Its instance's Node, as far as it was known.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// The notice.
    pub notice: Notice,
    /// Who tells of it.
    #[serde(default)]
    pub source: NoticeSource,
    /// When it was proposed.
    pub recorded_at: Timestamp,
    /// Whether it holds until it is withdrawn.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lasts: bool,
}

impl NoticeRecord {
    /// It and its source, for people.
    pub fn describe(&self) -> String {
        let kind = self.notice.kind.name();
        match (self.source, &self.node) {
            (NoticeSource::Agent, Some(node)) => {
                format!("{kind} notice, read by the agent of {node}")
            }
            (NoticeSource::Agent, None) => format!("{kind} notice, read by the node's agent"),
            (NoticeSource::Queue, _) => format!("{kind} notice, told by the interruption queue"),
        }
    }

    /// Whether time alone has made it void.
    pub(super) fn is_over(&self, at: Timestamp) -> bool {
        !self.lasts && self.has_lapsed(self.recorded_at, at)
    }

    /// Whether it is void if it was told last at `told_at`. A hibernated instance may rest for weeks.
    pub(crate) fn has_lapsed(&self, told_at: Timestamp, at: Timestamp) -> bool {
        if self.notice.kind == NoticeKind::SpotHibernate {
            return false;
        }
        let end = self.notice.deadline.unwrap_or(self.notice.detected_at);
        seconds_between(end.max(self.recorded_at).max(told_at), at) > KEPT_SECONDS
    }
}

/// Whether the queue tells what it told before, or what came before that: messages come more than once
/// and in any order. Recommendations have no time by which they could be told apart.
fn is_same_event(known: &Notice, told: &Notice) -> bool {
    let (Some(known_at), Some(told_at)) = (known.issued_at, told.issued_at) else { return true };
    told_at <= known_at
        || match (known.deadline, told.deadline) {
            (None, None) => seconds_between(known_at, told_at) <= QUEUE_NEWS_SECONDS,
            (known, told) => known == told,
        }
}

/// How an entry tells of a notice.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told<'a> {
    pub(super) node: Option<&'a NodeName>,
    pub(super) source: NoticeSource,
    pub(super) by_issue: bool,
    pub(super) lasts: bool,
}

impl State {
    pub(super) fn record_notice(
        &mut self,
        index: u64,
        at: Timestamp,
        told: Told<'_>,
        notice: &Notice,
        unavailable: Option<&UnavailableOffering>,
    ) -> Applied {
        let Told { node, source, by_issue, lasts } = told;
        let known = match source {
            NoticeSource::Agent if by_issue => self.has_notice(notice),
            NoticeSource::Agent => self.has_notice_of_time(notice),
            NoticeSource::Queue => self.knows_of(notice, at),
        };
        // Nobody would withdraw what is told of an instance that has gone meanwhile.
        if known || !self.instances.contains_key(&notice.instance) {
            return Applied::Unchanged;
        }
        let record = NoticeRecord {
            node: node.cloned(),
            notice: notice.clone(),
            source,
            recorded_at: at,
            lasts,
        };
        let why = record.describe();
        self.notices.entry(notice.instance.clone()).or_default().insert(notice.kind, record);
        if let Some(offering) = unavailable {
            self.record_unavailable(at, std::slice::from_ref(offering));
        }
        let claim = self.instances.get(&notice.instance).map(|name| name.to_string());
        self.journal.write(Decision {
            index,
            at,
            verb: "record-notice".to_owned(),
            subjects: [node.map(ToString::to_string), Some(notice.instance.to_string()), claim]
                .into_iter()
                .flatten()
                .collect(),
            inputs: notice
                .deadline
                .map(|deadline| format!("deadline {deadline}"))
                .into_iter()
                .collect(),
            why,
            ..Decision::default()
        });
        Applied::Done
    }

    fn notice_like(&self, notice: &Notice) -> Option<&NoticeRecord> {
        self.notices.get(&notice.instance)?.get(&notice.kind)
    }

    /// Whether what an agent reads is recorded.
    pub(crate) fn has_notice(&self, notice: &Notice) -> bool {
        let known = self.notice_like(notice).map(|record| record.notice.issued_at);
        known == Some(notice.issued_at) && self.has_notice_of_time(notice)
    }

    /// The same whenever it was issued.
    fn has_notice_of_time(&self, notice: &Notice) -> bool {
        self.notice_like(notice).is_some_and(|record| {
            record.notice.boot == notice.boot && record.notice.deadline == notice.deadline
        })
    }

    /// Whether what the queue tells is known. What the node itself reads is not replaced by what comes to
    /// the queue later, unless that tells of another time altogether.
    pub(crate) fn knows_of(&self, notice: &Notice, at: Timestamp) -> bool {
        self.notice_like(notice).is_some_and(|record| match record.source {
            NoticeSource::Queue => is_same_event(&record.notice, notice),
            NoticeSource::Agent => {
                let end = record.notice.deadline.unwrap_or(record.notice.detected_at);
                seconds_between(end.max(record.recorded_at), at) <= QUEUE_NEWS_SECONDS
            }
        })
    }

    pub(super) fn withdraw_notice(
        &mut self,
        index: u64,
        at: Timestamp,
        instance: &InstanceId,
        kind: NoticeKind,
    ) -> Applied {
        let Some(kinds) = self.notices.get_mut(instance) else { return Applied::Unchanged };
        let Some(record) = kinds.remove(&kind) else { return Applied::Unchanged };
        if kinds.is_empty() {
            self.notices.remove(instance);
        }
        let claim = self.instances.get(instance).map(|name| name.to_string());
        let node = record.node.as_ref().map(ToString::to_string);
        let kind = kind.name();
        let why = match record.source {
            NoticeSource::Agent => {
                format!("{kind} notice, of which its node's agent tells no more")
            }
            NoticeSource::Queue => {
                format!("{kind} notice of the interruption queue, over or called off")
            }
        };
        self.journal.write(Decision {
            index,
            at,
            verb: "withdraw-notice".to_owned(),
            subjects: [node, Some(instance.to_string()), claim].into_iter().flatten().collect(),
            why,
            ..Decision::default()
        });
        Applied::Done
    }

    /// The notices in force for a claim's instance by which EC2 will take or stop it, as far as it is
    /// time to act on them.
    pub fn hard_notices(
        &self,
        claim: &NodeClaimName,
        now: Timestamp,
    ) -> impl Iterator<Item = &NoticeRecord> {
        let instance = self.claims.get(claim).and_then(|claim| claim.instance.as_ref());
        let kinds = instance.and_then(|instance| self.notices.get(&instance.id));
        kinds
            .into_iter()
            .flat_map(|kinds| kinds.values())
            .filter(move |record| record.notice.kind.ends_instance() && record.notice.is_due(now))
    }

    /// The most pressing of them: one that passes budgets, the earliest first.
    pub fn hard_notice(&self, claim: &NodeClaimName, now: Timestamp) -> Option<&NoticeRecord> {
        self.hard_notices(claim, now).min_by_key(|record| {
            let notice = &record.notice;
            (!notice.kind.passes_budgets(), notice.deadline.unwrap_or(Timestamp::MAX))
        })
    }

    /// Whether EC2 recommends to leave the claim's instance.
    pub fn is_recommended_to_leave(&self, claim: &ClaimRecord) -> bool {
        let instance = claim.instance.as_ref();
        let kinds = instance.and_then(|instance| self.notices.get(&instance.id));
        kinds.is_some_and(|kinds| kinds.contains_key(&NoticeKind::Rebalance))
    }

    /// Whether EC2 hibernates the claim's instance, or did: its pods come back with it.
    pub fn is_hibernated(&self, claim: &NodeClaimName) -> bool {
        let instance = self.claims.get(claim).and_then(|claim| claim.instance.as_ref());
        let kinds = instance.and_then(|instance| self.notices.get(&instance.id));
        kinds.is_some_and(|kinds| kinds.contains_key(&NoticeKind::SpotHibernate))
    }
}
