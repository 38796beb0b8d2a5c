//! What is told of notices and drains, for people: events on the Node, and counts. An agent reports its
//! drain; one that the leader does for a silent agent is told of in the same words.

use drover_common::cluster::ObjectKey;
use drover_common::drain;
use drover_common::drain_counts::{CordonedFor, DrainCounts};
use drover_common::id::{NodeName, NodePoolName};
use drover_common::labels;
use drover_common::news::{News, Progress, Stage};
use drover_common::protocol::{DrainReport, Notice, Report};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use crate::state::{ClaimRecord, State};

/// When a notice's time ran out so long ago, an earlier leader has told of it.
const RAN_OUT_LATELY: SignedDuration = SignedDuration::from_mins(1);

/// What is remembered of one agent's word.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    progress: Progress,
    cordoned_for: CordonedFor,
}

impl Control {
    /// What was told of notices and drains.
    pub(super) fn drain_counts(&self) -> &DrainCounts {
        &self.agents.counts
    }

    /// Tells what is new in an agent's report, and counts it; where the node has no claim, its agent tells.
    pub(super) fn tell_drain(&mut self, report: &Report, has_claim: bool, now: Timestamp) {
        let Some(mut told) = self.agents.told.remove(&report.node) else {
            // What was before the first word was told to another leader.
            let cordoned_for = CordonedFor::of(report.cordoned_at, &report.notices);
            let progress = Progress::found(report.drain.clone(), now);
            let told = Told { progress, cordoned_for };
            self.agents.told.insert(report.node.clone(), told);
            return;
        };
        let counts = &mut self.agents.counts;
        counts.count_cordon(report.cordoned_at, &report.notices, &mut told.cordoned_for);
        let mut progress = std::mem::take(&mut told.progress);
        if has_claim {
            self.tell_progress(&report.node, &mut progress, report.drain.as_ref(), now);
        } else {
            if let Some(drain) = &report.drain {
                self.agents.counts.count_pods(drain, progress.drain());
            }
            progress.take(report.drain.as_ref(), now);
        }
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
            self.agents.counts.count_pods(drain, told.drain());
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

    fn tell_drained(&mut self, node: &NodeName, drain: &DrainReport, now: Timestamp) {
        let object = self.view.nodes().get(node);
        let pool = object.and_then(|node| node.metadata.labels.get(labels::NODEPOOL));
        if let Some(pool) = pool {
            self.agents.counts.count_drained(NodePoolName::from(pool.as_str()));
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
        self.agents.counts.count_left(left.len());
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
        self.agents.counts.count_notice(notice);
        self.tell_news(node, &News::of_notice(notice), now);
    }
}
