//! What agents say: notices go to the log at once, measured use in batches, heartbeats stay here.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::drain_counts::DrainCounts;
use drover_common::id::{BootId, InstanceId, NodeName};
use drover_common::protocol::{
    Directive, DrainPhase, DrainReport, Notice, NoticeKind, PodUsage, Report, UsageDigest,
};
use drover_common::usage_news::{PodUses, apply, is_news_of_node};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::clocks::clock_ahead;
use super::drain_news::Told;
use crate::command::{Change, NoticeSource, UnavailableOffering};
use crate::state::{Stage, State};

/// An agent that has said nothing for so long, on a node that is gone, is gone, too.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// Use in the log counts for a day: it is renewed well before, also where it is no news.
const USAGE_LASTS: SignedDuration = SignedDuration::from_hours(6);

/// Pods of one node that are remembered from report to report; kubelets run far fewer.
const MOST_PODS: usize = 2_000;

/// How long an agent has to tell of a notice no more before it counts as withdrawn: one that was just
/// started may not have read it yet.
const WITHDRAWN_AFTER: SignedDuration = SignedDuration::from_secs(45);

/// The last word of each agent.
#[derive(Clone, Debug, Default)]
pub(super) struct Agents {
    by_node: BTreeMap<NodeName, Agent>,
    usage_batched_at: Option<Timestamp>,
    pub(super) told: BTreeMap<NodeName, Told>,
    pub(super) counts: DrainCounts,
    /// Notices that are told on their Nodes, and when they were issued.
    pub(super) noticed: BTreeMap<(InstanceId, NoticeKind), Option<Timestamp>>,
    /// The end of the last notice whose time was seen to run out, by instance; `None` once pods were seen
    /// left by one.
    pub(super) ran_out: BTreeMap<InstanceId, Option<Timestamp>>,
    /// Notices in the log of which their agents tell no more, and since when.
    missing: BTreeMap<(InstanceId, NoticeKind), Timestamp>,
}

#[derive(Clone, Debug)]
struct Agent {
    seen_at: Timestamp,
    boot: BootId,
    sequence: u64,
    /// By its own clock.
    sent_at: Timestamp,
    /// How far this leader's clock is ahead of its own.
    clock_ahead: SignedDuration,
    /// With all pods that are known to be measured.
    usage: Option<UsageDigest>,
    /// The report that the pods are known as of; `None` if they aren't.
    pods_of: Option<u64>,
    fresh_usage: bool,
    drain: Option<DrainReport>,
    imds_silent_since: Option<Timestamp>,
    /// Whether it has to tell people by itself what it reports.
    tells: bool,
}

impl Agents {
    /// When a node's agent last reported.
    pub(super) fn seen_at(&self, node: &NodeName) -> Option<Timestamp> {
        self.by_node.get(node).map(|agent| agent.seen_at)
    }

    /// The node's measured use, as last reported.
    pub(super) fn usage(&self, node: &NodeName) -> Option<&UsageDigest> {
        self.by_node.get(node)?.usage.as_ref()
    }

    /// The node's drain, as last reported.
    pub(super) fn drain(&self, node: &NodeName) -> Option<&DrainReport> {
        self.by_node.get(node)?.drain.as_ref()
    }

    /// How far this leader's clock is ahead of that of a node's agent.
    pub(super) fn clock_ahead(&self, node: &NodeName) -> Option<SignedDuration> {
        self.by_node.get(node).map(|agent| agent.clock_ahead)
    }

    /// How many agents reported lately.
    pub(super) fn live(&self, now: Timestamp, silence: SignedDuration) -> usize {
        self.by_node.values().filter(|agent| now.duration_since(agent.seen_at) < silence).count()
    }

    /// Since when IMDS tells a node's agent nothing, by its last word.
    pub(super) fn imds_silent_since(&self, node: &NodeName) -> Option<Timestamp> {
        self.by_node.get(node)?.imds_silent_since
    }

    /// The nodes of agents that reported lately and would know of no notice.
    pub(super) fn blind(
        &self,
        now: Timestamp,
        silence: SignedDuration,
    ) -> impl Iterator<Item = &NodeName> {
        let blind = self.by_node.iter().filter(move |(_, agent)| {
            agent.imds_silent_since.is_some() && now.duration_since(agent.seen_at) < silence
        });
        blind.map(|(node, _)| node)
    }

    /// Drops agents that have been silent for long and whose nodes are gone: nodes come and go.
    fn forget(&mut self, now: Timestamp, is_there: impl Fn(&NodeName) -> bool) {
        self.by_node.retain(|node, agent| {
            now.duration_since(agent.seen_at) < FORGOTTEN_AFTER || is_there(node)
        });
        self.told.retain(|node, _| self.by_node.contains_key(node));
        self.missing.retain(|_, since| now.duration_since(*since) < FORGOTTEN_AFTER);
    }

    /// Another replica leads from now on: what agents tell it builds on nothing that is known here.
    pub(super) fn end_reign(&mut self) {
        self.told.clear();
        self.counts = DrainCounts::default();
        self.noticed.clear();
        self.ran_out.clear();
        self.missing.clear();
        for agent in self.by_node.values_mut() {
            agent.pods_of = None;
            agent.fresh_usage = false;
            agent.clock_ahead = SignedDuration::ZERO;
        }
    }

    /// Use that was told since the last batch, of nodes where it is news to the log.
    fn usage_news(&mut self, state: &State, now: Timestamp) -> Vec<(NodeName, UsageDigest)> {
        let mut news = Vec::new();
        for (node, agent) in self.by_node.iter_mut().filter(|(_, agent)| agent.fresh_usage) {
            let known =
                state.usage.get(node).filter(|(at, _)| now.duration_since(*at) < USAGE_LASTS);
            let is_news =
                |usage: &&UsageDigest| known.is_none_or(|(_, known)| is_news_of_node(known, usage));
            match agent.usage.as_ref().filter(is_news) {
                Some(usage) => {
                    news.push((node.clone(), UsageDigest { pods: Vec::new(), ..usage.clone() }));
                }
                None => agent.fresh_usage = false,
            }
        }
        news
    }

    /// Pods left on nodes whose drains are under way, by agents that reported lately.
    pub(super) fn draining_pods(&self, now: Timestamp, silence: SignedDuration) -> usize {
        let live = self.by_node.values().filter(|a| now.duration_since(a.seen_at) < silence);
        let drains = live.filter_map(|agent| agent.drain.as_ref());
        let under_way = drains.filter(|drain| drain.phase == DrainPhase::Draining);
        under_way.map(|drain| drain.remaining.len()).sum()
    }

    /// Takes a report; returns whether a drain changed, and `None` for a word that was overtaken on
    /// its way.
    fn record(&mut self, state: &State, report: &Report, now: Timestamp) -> Option<bool> {
        let before = self.by_node.get(&report.node);
        if before.is_some_and(|agent| {
            // A restarted agent counts from the start again, and its first reports may be lost: what was said
            // later was not overtaken. Where its clock was set back meanwhile, the step back tells.
            agent.boot == report.boot
                && report.sequence < agent.sequence
                && report.sent_at < agent.sent_at
                && agent.sequence.saturating_sub(report.sequence) < 100
                && report.sequence > 1
        }) {
            return None;
        }
        // That an agent is heard for the first time is no news: of ten thousand, a new leader hears all.
        let known = before.and_then(|agent| agent.drain.as_ref());
        let drain_changed = known != report.drain.as_ref();
        let (usage, pods_of) = complete(before, report);
        let known = before.map(|agent| agent.clock_ahead);
        let agent = Agent {
            seen_at: now,
            boot: report.boot.clone(),
            sequence: report.sequence,
            sent_at: report.sent_at,
            clock_ahead: clock_ahead(state, report, known, now),
            usage,
            pods_of,
            fresh_usage: report.usage.is_some(),
            drain: report.drain.clone(),
            imds_silent_since: report.imds_silent_since,
            tells: before.is_some_and(|agent| agent.tells),
        };
        self.by_node.insert(report.node.clone(), agent);
        Some(drain_changed)
    }
}

impl Control {
    /// Takes in a report; returns whether it is news that can't wait for the next tick.
    pub(super) fn take_report(&mut self, state: &State, report: Report, now: Timestamp) -> bool {
        let news = self.agents.record(state, &report, now);
        if self.reign.is_none() {
            return false;
        }
        let has_claim =
            report.instance.as_ref().is_none_or(|id| self.is_of_node(state, &report, id));
        if news.is_some() {
            self.tell_drain(&report, has_claim, now);
        }
        let mut urgent = news.unwrap_or(false);
        for notice in &report.notices {
            urgent |= self.propose_notice(state, &report, notice, now);
        }
        if news.is_some() {
            self.propose_withdrawals(state, &report, now);
        }
        let tells = !has_claim || !self.makes_events(now);
        if let Some(agent) = self.agents.by_node.get_mut(&report.node) {
            agent.tells = tells;
        }
        self.batch_usage(state, now);
        urgent
    }

    /// Whether a report told what is new of pods to someone who does not know the rest.
    pub fn lacks_usage(&self, report: &Report) -> bool {
        let agent = self.agents.by_node.get(&report.node);
        report.usage.is_some() && agent.is_none_or(|agent| agent.pods_of != Some(report.sequence))
    }

    /// Whether this leader tells people nothing of what a report bears: it may only observe, has told too much of late, or
    /// the node is nobody's here (EKS' own node groups have agents, too).
    pub fn leaves_telling(&self, report: &Report) -> bool {
        self.agents.by_node.get(&report.node).is_some_and(|agent| agent.tells)
    }

    /// Whether every notice of a report that concerns this cluster is committed.
    pub fn notices_committed(&self, state: &State, report: &Report) -> bool {
        report.notices.iter().all(|notice| {
            !self.concerns(state, report, notice) || self.is_logged(state, report, notice)
        })
    }

    /// Whether a notice is in the log as this leader reads it.
    fn is_logged(&self, state: &State, report: &Report, notice: &Notice) -> bool {
        state.has_notice(&self.in_own_time(&report.node, notice))
    }

    /// Whether a notice is about this boot of the reporting node's own instance, and that is of a
    /// claim of ours.
    fn concerns(&self, state: &State, report: &Report, notice: &Notice) -> bool {
        report.instance.as_ref() == Some(&notice.instance)
            && report.boot == notice.boot
            && self.is_of_node(state, report, &notice.instance)
    }

    /// Whether an instance is of a claim of ours and the reporting node's own. A report proves its
    /// node; which instance that is, the cluster says.
    fn is_of_node(&self, state: &State, report: &Report, instance: &InstanceId) -> bool {
        let claim = state.claim_of_instance(instance).map(|(_, claim)| claim);
        claim.is_some_and(|claim| match &claim.node {
            Some(node) => *node == report.node,
            None => {
                self.node_of(claim).is_some_and(|node| node.metadata.name == report.node.as_str())
            }
        })
    }

    /// Withdraws what the log has of an agent's notices and its reports have no more. What the queue
    /// told the agent may never have read; that the machine is back from hibernation it knows.
    fn propose_withdrawals(&mut self, state: &State, report: &Report, now: Timestamp) {
        let Some(instance) = &report.instance else { return };
        for notice in &report.notices {
            self.agents.missing.remove(&(notice.instance.clone(), notice.kind));
        }
        let Some(kinds) = state.notices.get(instance) else { return };
        if !self.is_of_node(state, report, instance) {
            return;
        }
        for (kind, record) in kinds {
            let key = (instance.clone(), *kind);
            let told = report.notices.iter().any(|notice| notice.kind == *kind);
            let is_its = record.source == NoticeSource::Agent || *kind == NoticeKind::SpotHibernate;
            if told || !is_its {
                continue;
            }
            let since = *self.agents.missing.entry(key).or_insert(now);
            if now.duration_since(since) >= WITHDRAWN_AFTER {
                self.agents.noticed.remove(&(instance.clone(), *kind));
                let change = Change::WithdrawNotice { instance: instance.clone(), kind: *kind };
                self.propose(change, now);
            }
        }
    }

    fn propose_notice(
        &mut self,
        state: &State,
        report: &Report,
        notice: &Notice,
        now: Timestamp,
    ) -> bool {
        if !self.concerns(state, report, notice) || self.is_logged(state, report, notice) {
            return false;
        }
        let notice = &self.in_own_time(&report.node, notice);
        let change = Change::RecordNotice {
            node: Some(report.node.clone()),
            notice: notice.clone(),
            unavailable: self.shunned(state, notice, now),
            source: NoticeSource::Agent,
            by_issue: true,
            lasts: true,
        };
        let proposed = self.propose(change, now);
        if proposed {
            self.tell_notice(&report.node, notice, now);
        }
        proposed
    }

    /// The offering that EC2 takes back, where a notice tells of a shortage that counts.
    pub(super) fn shunned(
        &self,
        state: &State,
        notice: &Notice,
        now: Timestamp,
    ) -> Option<UnavailableOffering> {
        let (_, claim) = state.claim_of_instance(&notice.instance)?;
        let follows = || self.follows_rebalance(claim.nodepool.as_ref());
        let shuns =
            notice.kind.passes_budgets() || (notice.kind == NoticeKind::Rebalance && follows());
        let instance = claim.instance.as_ref().filter(|_| shuns)?;
        Some(UnavailableOffering {
            instance_type: instance.instance_type.clone(),
            zone: instance.zone.clone(),
            capacity_type: instance.capacity_type,
            reservation: instance.reservation.clone(),
            until: now.checked_add(self.settings.unavailable_for).unwrap_or(now),
        })
    }

    /// Puts measured use into the log where it is news, all nodes in one entry.
    fn batch_usage(&mut self, state: &State, now: Timestamp) {
        let due = self
            .agents
            .usage_batched_at
            .is_none_or(|at| now.duration_since(at) >= self.settings.usage_interval);
        if !due {
            return;
        }
        self.agents.usage_batched_at = Some(now);
        self.agents.forget(now, |node| self.view.nodes().contains_key(node));
        let digests = self.agents.usage_news(state, now);
        if digests.is_empty() {
            return;
        }
        if self.propose(Change::RecordUsage { digests }, now) {
            for agent in self.agents.by_node.values_mut() {
                agent.fresh_usage = false;
            }
        }
    }

    /// What a node's agent should do now: complete, not a difference. The instance, where known,
    /// must be the one that the node's claim has.
    pub fn directives(
        &self,
        state: &State,
        node: &NodeName,
        instance: Option<&InstanceId>,
    ) -> Vec<Directive> {
        state
            .claims
            .values()
            .filter(|claim| claim.node.as_ref() == Some(node) && claim.stage == Stage::Draining)
            .filter(|claim| {
                instance.is_none_or(|id| claim.instance.as_ref().is_some_and(|i| i.id == *id))
            })
            .filter_map(|claim| {
                let record = state.disruptions.get(claim.disruption.as_ref()?)?;
                Some(Directive {
                    disruption: record.disruption.id.clone(),
                    deadline: record.disruption.deadline,
                })
            })
            .collect()
    }

    /// Whether the node's agent says that this disruption's drain is done.
    pub(super) fn agent_says_drained(
        &self,
        node: &NodeName,
        disruption: &drover_common::id::DisruptionId,
    ) -> bool {
        self.agents.drain(node).is_some_and(|drain| {
            drain.phase == DrainPhase::Drained
                && drain.disruption.as_ref().is_none_or(|id| id == disruption)
        })
    }

    /// Whether the node's agent has been silent for too long, counted from the start of this reign:
    /// a new leader has not heard of anyone yet.
    pub(super) fn agent_is_silent(&self, node: &NodeName, now: Timestamp) -> bool {
        let heard = self.heard_at(node);
        heard.is_some_and(|heard| now.duration_since(heard) > self.settings.agent_silence)
    }

    /// When a node's agent was heard last, or this reign began, which is when an earlier leader may have heard it.
    /// `None` outside of reigns.
    pub(super) fn heard_at(&self, node: &NodeName) -> Option<Timestamp> {
        let since = self.reign?.since;
        Some(self.agents.seen_at(node).map_or(since, |at| at.max(since)))
    }
}

/// A report's use, made whole by what the agent told before, and the report that its pods are known as
/// of.
fn complete(before: Option<&Agent>, report: &Report) -> (Option<UsageDigest>, Option<u64>) {
    let Some(told) = &report.usage else { return (None, None) };
    let before = before.filter(|agent| agent.boot == report.boot);
    let Some(since) = report.usage_since else {
        let mut whole = told.clone();
        whole.pods.truncate(MOST_PODS);
        return (Some(whole), Some(report.sequence));
    };
    if let Some(same) = before.filter(|agent| agent.pods_of == Some(report.sequence)) {
        // Told again, because the answer was lost.
        return (same.usage.clone(), same.pods_of);
    }
    let known = before.filter(|agent| agent.pods_of == Some(since));
    let Some(known) = known.and_then(|agent| agent.usage.as_ref()) else {
        return (Some(UsageDigest { pods: Vec::new(), ..told.clone() }), None);
    };
    let shared = |pod: &PodUsage| (Arc::from(pod.uid.as_str()), Arc::new(pod.clone()));
    let mut pods: PodUses = known.pods.iter().map(shared).collect();
    apply(&mut pods, &told.pods, &report.usage_gone);
    if pods.len() > MOST_PODS {
        return (Some(UsageDigest { pods: Vec::new(), ..told.clone() }), None);
    }
    let pods = pods.into_values().map(Arc::unwrap_or_clone).collect();
    let whole = UsageDigest { pods, ..told.clone() };
    (Some(whole), Some(report.sequence))
}
