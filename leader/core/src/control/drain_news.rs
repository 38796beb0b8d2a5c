//! What is told of notices and drains, for people: events on the Node, and counts. An agent reports its
//! drain; one that the leader does for a silent agent is told of in the same words.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::drain;
use drover_common::id::{NodeName, NodePoolName};
use drover_common::labels;
use drover_common::news::{News, Progress, Stage, lateness};
use drover_common::protocol::{DrainReport, Notice, NoticeKind, Report};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Control;
use super::times::Times;
use crate::state::{ClaimRecord, State};

/// When a notice's time ran out so long ago, an earlier leader has told of it.
const RAN_OUT_LATELY: SignedDuration = SignedDuration::from_mins(1);

/// What was told of notices and drains since this replica began to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DrainCounts {
    /// Nodes drained, by their agents or in their place, by pool.
    pub drained: BTreeMap<NodePoolName, u64>,
    /// Pods evicted.
    pub evicted: u64,
    /// Pods deleted past a budget, at the end of a notice.
    pub forced: u64,
    /// Pods among those that got less than their own grace, because no more was left.
    pub clipped: u64,
    /// Pods still there when the time of a notice ran out.
    pub left: u64,
    /// The times from the issue of notices to their detection, where their source tells the former.
    pub detection: Times,
    /// The times that notices gave which nodes were cordoned for.
    pub lead: Times,
    /// The times from those notices to the cordons.
    pub cordon: Times,
}

/// What is remembered of one agent's word.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    progress: Progress,
    /// The notice that a cordon was counted for.
    cordoned_for: Option<(NoticeKind, Timestamp)>,
}

impl Control {
    /// What was told of notices and drains.
    pub(super) fn drain_counts(&self) -> &DrainCounts {
        &self.agents.counts
    }

    /// Tells what is new in an agent's report.
    pub(super) fn tell_drain(&mut self, report: &Report, now: Timestamp) {
        let Some(mut told) = self.agents.told.remove(&report.node) else {
            // What was before the first word was told to another leader.
            let cordoned_for = cordoned_for(report);
            let progress = Progress::found(report.drain.clone(), now);
            let told = Told { progress, cordoned_for };
            self.agents.told.insert(report.node.clone(), told);
            return;
        };
        self.count_cordon(report, &mut told);
        let mut progress = std::mem::take(&mut told.progress);
        self.tell_progress(&report.node, &mut progress, report.drain.as_ref(), now);
        self.agents.told.insert(report.node.clone(), Told { progress, ..told });
    }

    /// Tells what is new of a node's drain.
    pub(super) fn tell_progress(
        &mut self,
        node: &NodeName,
        told: &mut Progress,
        drain: Option<&DrainReport>,
        now: Timestamp,
    ) {
        if let Some(drain) = drain {
            self.count_pods(drain, told.drain());
        }
        match told.take(drain, now).zip(drain) {
            Some((Stage::Drained, drain)) => self.tell_drained(node, drain, now),
            Some((Stage::Lasting, drain)) => {
                let is_blocked = self.tell_blocked(node, drain, now);
                if is_blocked {
                    told.told_blocked(now);
                }
            }
            None => {}
        }
    }

    fn count_cordon(&mut self, report: &Report, told: &mut Told) {
        let cordoned_for = cordoned_for(report);
        let (Some(cordoned_at), Some((kind, detected_at))) = (report.cordoned_at, cordoned_for)
        else {
            return;
        };
        if std::mem::replace(&mut told.cordoned_for, cordoned_for) == cordoned_for {
            return;
        }
        let counts = &mut self.agents.counts;
        counts.cordon.add(cordoned_at.duration_since(detected_at));
        let notice = report.notices.iter().find(|notice| notice.kind == kind);
        if let Some(deadline) = notice.and_then(|notice| notice.deadline) {
            counts.lead.add(deadline.duration_since(detected_at));
        }
    }

    fn count_pods(&mut self, drain: &DrainReport, before: Option<&DrainReport>) {
        // An agent that starts anew counts from nothing. What a drain is for may change on its way.
        let began_anew = before
            .is_some_and(|before| drain.evicted < before.evicted || drain.forced < before.forced);
        let before = before.filter(|_| !began_anew);
        let new = |count: fn(&DrainReport) -> u32| {
            u64::from(count(drain).saturating_sub(before.map_or(0, count)))
        };
        let counts = &mut self.agents.counts;
        counts.evicted += new(|drain| drain.evicted);
        counts.forced += new(|drain| drain.forced);
        counts.clipped += new(|drain| drain.clipped);
    }

    fn tell_drained(&mut self, node: &NodeName, drain: &DrainReport, now: Timestamp) {
        let object = self.view.nodes().get(node);
        let pool = object.and_then(|node| node.metadata.labels.get(labels::NODEPOOL));
        if let Some(pool) = pool {
            let pool = NodePoolName::from(pool.as_str());
            *self.agents.counts.drained.entry(pool).or_default() += 1;
        }
        self.tell_news(node, &News::of_drained(drain), now);
    }

    /// Pods that do not go, if there are any.
    fn tell_blocked(&mut self, node: &NodeName, drain: &DrainReport, now: Timestamp) -> bool {
        let stays = |pod: &str| {
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            let key = ObjectKey::new(namespace, name);
            self.view.pod(&key).is_some_and(|pod| !pod.is_terminating())
        };
        let Some(news) = News::of_blocked(drain, stays) else { return false };
        self.tell_news(node, &news, now);
        true
    }

    fn tell_news(&mut self, node: &NodeName, news: &News, now: Timestamp) {
        self.node_event(node, news.reason, &news.note, news.warning, now);
    }

    /// Counts the pods that are still there when the time of a notice has run out, or when EC2 has
    /// ended the instance before that, whoever drained the node.
    pub(super) fn count_left(&mut self, state: &State, now: Timestamp) {
        self.agents.ran_out.retain(|id, _| state.instances.contains_key(id));
        self.agents.noticed.retain(|(id, _), _| state.instances.contains_key(id));
        for (name, record) in &state.claims {
            let Some(instance) = record.instance.as_ref().map(|instance| &instance.id) else {
                continue;
            };
            let ended = !state.terminations.contains_key(instance)
                && self.cloud.get(instance).is_some_and(|instance| instance.state.is_gone());
            let announced = state.hard_notices(name, now).filter_map(|r| r.notice.deadline);
            let over = announced
                .filter(|end| ended || now >= *end)
                .filter(|end| now.duration_since(*end) < RAN_OUT_LATELY);
            let Some(end) = over.max() else { continue };
            let known = self.agents.ran_out.get(instance);
            if known.is_none_or(|known| known.is_some_and(|known| known != end)) {
                let counted = self.tell_pods_left(record, now);
                let known = Some(end).filter(|_| !counted);
                self.agents.ran_out.insert(instance.clone(), known);
            }
        }
    }

    /// Returns whether there were any.
    fn tell_pods_left(&mut self, record: &ClaimRecord, now: Timestamp) -> bool {
        let Some(node) = self.node_of(record) else { return false };
        let node = NodeName::from(node.metadata.name.as_str());
        let left = self.view.pods_on(&node).filter(|pod| drain::stays(pod).is_none());
        let left: Vec<String> =
            left.map(|pod| ObjectKey::from(&pod.metadata).to_string()).collect();
        if left.is_empty() {
            return false;
        }
        let counts = &mut self.agents.counts;
        counts.left = counts.left.saturating_add(u64::try_from(left.len()).unwrap_or(0));
        self.tell_news(&node, &News::of_left(&left), now);
        true
    }

    /// Tells of a notice on its Node, and counts how late it was read: once, however often it has to be
    /// proposed.
    pub(super) fn tell_notice(&mut self, node: &NodeName, notice: &Notice, now: Timestamp) {
        let key = (notice.instance.clone(), notice.kind);
        if self.agents.noticed.insert(key, notice.issued_at) == Some(notice.issued_at) {
            return;
        }
        if let Some(late) = lateness(notice) {
            self.agents.counts.detection.add(late);
        }
        self.tell_news(node, &News::of_notice(notice), now);
    }
}

/// The first notice of those that a node is cordoned for at once, once it is cordoned.
fn cordoned_for(report: &Report) -> Option<(NoticeKind, Timestamp)> {
    let at_once = |kind: NoticeKind| {
        kind.passes_budgets() || matches!(kind, NoticeKind::AutoScaling | NoticeKind::Shutdown)
    };
    report.cordoned_at?;
    let notices = report.notices.iter().filter(|notice| at_once(notice.kind));
    let first = notices.min_by_key(|notice| notice.detected_at)?;
    Some((first.kind, first.detected_at))
}
