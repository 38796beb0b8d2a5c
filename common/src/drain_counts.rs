//! What is counted of notices and drains, and its metrics: the same by leaders, of what agents report, and by an agent
//! of its own node.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use crate::id::NodePoolName;
use crate::metrics::Page;
use crate::news::lateness;
use crate::protocol::{DrainReport, Notice, NoticeKind};
use crate::times::Times;

/// What there was of notices and drains since the counting began.
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

/// Which notice's cordon of a node was counted: its kind, and when it was detected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CordonedFor(Option<(NoticeKind, Timestamp)>);

impl CordonedFor {
    /// The first of those that a node is cordoned for at once, once it is cordoned.
    pub fn of(cordoned_at: Option<Timestamp>, notices: &[Notice]) -> Self {
        let at_once = |kind: NoticeKind| {
            kind.passes_budgets() || matches!(kind, NoticeKind::AutoScaling | NoticeKind::Shutdown)
        };
        let notices = notices.iter().filter(|notice| at_once(notice.kind));
        let first = notices.min_by_key(|notice| notice.detected_at);
        Self(cordoned_at.and(first).map(|first| (first.kind, first.detected_at)))
    }
}

impl DrainCounts {
    /// A notice began, or was issued anew.
    pub fn count_notice(&mut self, notice: &Notice) {
        if let Some(late) = lateness(notice) {
            self.detection.add(late);
        }
    }

    /// How a node's notices and its cordon stand; `counted` is what was counted of them before.
    pub fn count_cordon(
        &mut self,
        cordoned_at: Option<Timestamp>,
        notices: &[Notice],
        counted: &mut CordonedFor,
    ) {
        let cordoned_for = CordonedFor::of(cordoned_at, notices);
        let (Some(cordoned_at), Some((kind, detected_at))) = (cordoned_at, cordoned_for.0) else {
            return;
        };
        if std::mem::replace(counted, cordoned_for) == cordoned_for {
            return;
        }
        self.cordon.add(cordoned_at.duration_since(detected_at));
        let notice = notices.iter().find(|notice| notice.kind == kind);
        if let Some(deadline) = notice.and_then(|notice| notice.deadline) {
            self.lead.add(deadline.duration_since(detected_at));
        }
    }

    /// How a drain stands, and how it stood before.
    pub fn count_pods(&mut self, drain: &DrainReport, before: Option<&DrainReport>) {
        // An agent that starts anew counts from nothing. What a drain is for may change on its way.
        let began_anew = before
            .is_some_and(|before| drain.evicted < before.evicted || drain.forced < before.forced);
        let before = before.filter(|_| !began_anew);
        let new = |count: fn(&DrainReport) -> u32| {
            u64::from(count(drain).saturating_sub(before.map_or(0, count)))
        };
        self.evicted = self.evicted.saturating_add(new(|drain| drain.evicted));
        self.forced = self.forced.saturating_add(new(|drain| drain.forced));
        self.clipped = self.clipped.saturating_add(new(|drain| drain.clipped));
    }

    /// A node of this pool was drained.
    pub fn count_drained(&mut self, pool: NodePoolName) {
        let count = self.drained.entry(pool).or_default();
        *count = count.saturating_add(1);
    }

    /// The time of a notice ran out with so many pods left.
    pub fn count_left(&mut self, pods: usize) {
        self.left = self.left.saturating_add(u64::try_from(pods).unwrap_or(0));
    }

    /// Writes them on a page; `draining` pods are left on nodes that are drained now.
    pub fn write(&self, page: &mut Page, draining: usize) {
        let drained = "karpenter_nodes_drained_total";
        page.head(drained, "counter", "Nodes drained, by their agents or in their place.");
        for (pool, count) in &self.drained {
            page.line(drained, &[("nodepool", pool.as_str())], count);
        }
        let pods = "drover_drain_pods_total";
        page.head(pods, "counter", "Pods that drains made leave, by how.");
        page.line(pods, &[("how", "evicted")], self.evicted);
        page.line(pods, &[("how", "forced")], self.forced);
        page.counter(
            "drover_drain_pods_clipped_total",
            "Pods among those that got less than their own grace.",
            self.clipped,
        );
        page.counter(
            "drover_notice_pods_left_total",
            "Pods still there when the time of their node's notice ran out.",
            self.left,
        );
        page.gauge("drover_drain_pods_left", "Pods left on nodes that are drained now.", draining);
        for (name, help, times) in [
            (
                "drover_notice_detection_seconds",
                "Time from the issue of a notice to its detection, where its source tells the former.",
                self.detection,
            ),
            ("drover_notice_lead_seconds", "Time that notices gave.", self.lead),
            ("drover_notice_cordon_seconds", "Time from a notice to its cordon.", self.cordon),
        ] {
            page.histogram(name, help, &times);
        }
    }
}
