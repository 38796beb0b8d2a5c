//! What agents tell of notices and drains, for people: events on the Node, and counts.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::id::{NodeName, NodePoolName};
use drover_common::labels;
use drover_common::protocol::{DrainPhase, DrainReport, NoticeKind, Report};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Control;

/// A drain that is not done after so long has pods that will not go.
const BLOCKED_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// How soon it is told again that a drain does not go on, whoever is left by then.
const REPEAT_AFTER: SignedDuration = SignedDuration::from_mins(2);
/// Pods that one event names.
const MOST_NAMED: usize = 5;

/// What agents have told since this replica began to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AgentCounts {
    /// Nodes that their agents have drained, by pool.
    pub drained: BTreeMap<NodePoolName, u64>,
    /// Pods evicted.
    pub evicted: u64,
    /// Pods deleted past a budget, at the end of a notice.
    pub forced: u64,
    /// Pods among those that got less than their own grace, because no more was left.
    pub clipped: u64,
    /// The times that notices gave which nodes were cordoned for.
    pub lead: Times,
    /// The times from those notices to the cordons.
    pub cordon: Times,
}

/// How often something took a time, and how long all in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Times {
    /// How often.
    pub count: u64,
    /// The sum.
    pub milliseconds: u64,
}

impl Times {
    pub(super) fn add(&mut self, took: SignedDuration) {
        let milliseconds = u64::try_from(took.as_millis()).unwrap_or(0);
        self.count = self.count.saturating_add(1);
        self.milliseconds = self.milliseconds.saturating_add(milliseconds);
    }
}

/// What is remembered of one agent's drain.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    drain: Option<DrainReport>,
    since: Option<Timestamp>,
    told_blocked: Option<Timestamp>,
    /// The notice that a cordon was counted for.
    cordoned_for: Option<(NoticeKind, Timestamp)>,
}

impl Control {
    /// What agents have told.
    pub(super) fn agent_counts(&self) -> &AgentCounts {
        &self.agents.counts
    }

    /// Tells what is new in a report.
    pub(super) fn tell_drain(&mut self, report: &Report, now: Timestamp) {
        let Some(mut told) = self.agents.told.remove(&report.node) else {
            // What was before the first word was told to another leader.
            let cordoned_for = cordoned_for(report);
            let drain = report.drain.clone();
            let since = drain.is_some().then_some(now);
            let told = Told { drain, since, told_blocked: None, cordoned_for };
            self.agents.told.insert(report.node.clone(), told);
            return;
        };
        self.count_cordon(report, &mut told);
        let mut since = None;
        if let Some(drain) = &report.drain {
            let before = told.drain.as_ref().filter(|before| before.disruption == drain.disruption);
            self.count_pods(drain, before);
            since = before.and(told.since).or(Some(now));
            let was = before.map(|before| before.phase);
            match drain.phase {
                DrainPhase::Drained if was != Some(DrainPhase::Drained) => {
                    self.tell_drained(&report.node, drain, now);
                }
                DrainPhase::Draining
                    if since.is_some_and(|at| now.duration_since(at) >= BLOCKED_AFTER)
                        && told
                            .told_blocked
                            .is_none_or(|at| now.duration_since(at) >= REPEAT_AFTER) =>
                {
                    if self.tell_blocked(&report.node, drain, now) {
                        told.told_blocked = Some(now);
                    }
                }
                DrainPhase::Draining | DrainPhase::Drained => {}
            }
        }
        (told.drain, told.since) = (report.drain.clone(), since);
        self.agents.told.insert(report.node.clone(), told);
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
        // An agent that starts anew counts from nothing.
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
        let DrainReport { evicted, forced, clipped, .. } = drain;
        let note = format!(
            "Drained: {evicted} pods evicted, {forced} deleted past a budget, {clipped} with less than their grace"
        );
        self.node_event(node, "Drained", &note, *forced > 0, now);
    }

    /// Pods that do not go, if there are any. Those that are on their way out already are waited for, and
    /// no news.
    fn tell_blocked(&mut self, node: &NodeName, drain: &DrainReport, now: Timestamp) -> bool {
        let stays = |pod: &str| {
            let (namespace, name) = pod.split_once('/').unwrap_or_default();
            let key = ObjectKey::new(namespace, name);
            self.view.pod(&key).is_some_and(|pod| !pod.is_terminating())
        };
        let staying: Vec<String> = drain
            .remaining
            .iter()
            .filter(|(pod, _)| stays(pod))
            .map(|(pod, reason)| format!("{pod} ({reason})"))
            .collect();
        if staying.is_empty() {
            return false;
        }
        let named = staying.iter().take(MOST_NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if staying.len() > MOST_NAMED { ", …" } else { "" };
        let note = format!(
            "Failed to drain node, {} pods are waiting to be evicted: {named}{more}",
            staying.len()
        );
        self.node_event(node, "FailedDraining", &note, true, now);
        true
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
