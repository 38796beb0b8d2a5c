//! What the agent counts, and how it stands, for its own page of metrics: for those who have no leaders. Names and
//! meanings are the leaders' where those have them, of this one node.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::drain::DrainState;
use drover_common::drain_counts::{CordonedFor, DrainCounts};
use drover_common::id::NodePoolName;
use drover_common::labels;
use drover_common::metrics::Page;
use drover_common::protocol::{DrainPhase, DrainReport, Notice, NoticeKind};
use jiff::Timestamp;

use super::Agent;
use crate::moment::Moment;
use crate::node;

/// What was counted since the agent started.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    drains: DrainCounts,
    notices: BTreeMap<NoticeKind, u64>,
    /// The notice whose cordon was counted last.
    cordoned_for: CordonedFor,
    /// What was kept on disk: an earlier agent has counted it.
    kept: BTreeSet<(NoticeKind, Timestamp)>,
}

impl Counts {
    /// Of an agent that begins with these notices.
    pub(super) fn beginning_with(kept: &[Notice]) -> Self {
        let counted = kept.iter().map(|notice| notice.detected_at).min();
        Self {
            cordoned_for: CordonedFor::of(counted, kept),
            kept: kept.iter().map(|notice| (notice.kind, notice.detected_at)).collect(),
            ..Self::default()
        }
    }

    /// A notice began, or was issued anew.
    pub(super) fn count_notice(&mut self, notice: &Notice) {
        if self.kept.remove(&(notice.kind, notice.detected_at)) {
            return;
        }
        let count = self.notices.entry(notice.kind).or_default();
        *count = count.saturating_add(1);
        self.drains.count_notice(notice);
    }

    /// How the drain stands, and how it stood before.
    pub(super) fn count_pods(&mut self, drain: &DrainReport, before: Option<&DrainReport>) {
        self.drains.count_pods(drain, before);
    }

    /// The time of a notice ran out with so many pods left.
    pub(super) fn count_left(&mut self, pods: usize) {
        self.drains.count_left(pods);
    }
}

/// What the agent's page tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics {
    /// What drains and cordons came to since the agent started. A node without a NodePool is of the empty one.
    pub drains: DrainCounts,
    /// Notices that began since then.
    pub notices: BTreeMap<NoticeKind, u64>,
    /// Kinds of the notices in force.
    pub in_force: BTreeSet<NoticeKind>,
    /// Whether the cordon for them was seen to stand.
    pub cordoned: bool,
    /// Whether a drain is under way that is not done.
    pub draining: bool,
    /// The pods that are left of it.
    pub pods_left: usize,
    /// Whether IMDS has told nothing of spot notices for long.
    pub blind: bool,
    /// Whether a Node of the agent's name is seen, as it is now, and its own.
    pub has_node: bool,
    /// Whether the API server has answered nothing for long.
    pub cut_off: bool,
    /// Whether a leader takes its reports.
    pub heard: bool,
    /// How much of what it needs to do the API server does not let it.
    pub denied: usize,
}

impl Metrics {
    /// Writes them on a page.
    pub fn write(&self, page: &mut Page) {
        let total = "drover_notices_total";
        page.head(total, "counter", "Notices that began, by kind.");
        for kind in NoticeKind::ALL {
            let count = self.notices.get(&kind).copied().unwrap_or(0);
            page.line(total, &[("kind", kind.name())], count);
        }
        let in_force = "drover_notices_in_force";
        page.head(in_force, "gauge", "Notices in force, by kind.");
        for kind in NoticeKind::ALL {
            let is = u8::from(self.in_force.contains(&kind));
            page.line(in_force, &[("kind", kind.name())], is);
        }
        self.drains.write(page, self.pods_left);
        for (name, help, is) in [
            (
                "drover_agent_cordoned",
                "Whether the cordon for the notices in force stands.",
                self.cordoned,
            ),
            ("drover_agent_draining", "Whether a drain is under way.", self.draining),
            (
                "drover_agent_blind",
                "Whether IMDS tells nothing, so that no notice would be known of.",
                self.blind,
            ),
            (
                "drover_agent_has_node",
                "Whether a Node of this name is seen now and it is this instance's; else nothing is done.",
                self.has_node,
            ),
            (
                "drover_agent_cut_off",
                "Whether the API server has answered nothing that it was asked for more than five seconds.",
                self.cut_off,
            ),
            ("drover_agent_heard", "Whether a leader takes the reports.", self.heard),
        ] {
            page.gauge(name, help, u8::from(is));
        }
        let denied = "drover_agent_permissions_denied";
        let help = "Permissions that the agent needs and the API server says it lacks.";
        page.gauge(denied, help, self.denied);
    }
}

impl Agent {
    /// What its page of metrics tells now.
    pub fn metrics(&self, now: impl Into<Moment>) -> Metrics {
        let drain = self.drain.as_ref().map(DrainState::report);
        let drain = drain.filter(|drain| drain.phase == DrainPhase::Draining);
        let own = |node| node::is_of(node, self.instance.as_ref());
        let now = now.into();
        Metrics {
            drains: self.counts.drains.clone(),
            notices: self.counts.notices.clone(),
            in_force: self.notices.list().into_iter().map(|notice| notice.kind).collect(),
            cordoned: self.cordoned_at.is_some(),
            draining: drain.is_some(),
            pods_left: drain.map_or(0, |drain| drain.remaining.len()),
            blind: self.hearing.silent_since().is_some(),
            has_node: self.node_fresh && self.node.as_ref().is_some_and(own),
            cut_off: self.is_cut_off(now),
            heard: self.teller.is_heard(now),
            denied: self.denied.len(),
        }
    }

    pub(super) fn count_cordon(&mut self) {
        let notices = self.notices.list();
        let Counts { drains, cordoned_for, .. } = &mut self.counts;
        drains.count_cordon(self.cordoned_at, &notices, cordoned_for);
    }

    pub(super) fn count_drained(&mut self) {
        let labels = self.node.as_ref().map(|node| &node.metadata.labels);
        let pool = labels.and_then(|labels| labels.get(labels::NODEPOOL));
        let pool = NodePoolName::from(pool.map(|pool| pool.as_str()).unwrap_or_default());
        self.counts.drains.count_drained(pool);
    }
}
