//! What operators are told.

use std::collections::BTreeMap;

use drover_common::drain_counts::DrainCounts;
use drover_common::id::{InstanceId, NodeClaimName, NodeName, NodePoolName};
use drover_common::news::first_of;
use drover_common::protocol::{DrainReport, NoticeKind, UsageDigest};
use jiff::Timestamp;
use serde::Serialize;

use super::{ConsolidationCounts, Control, PlanChecks, PlanPurpose, QueueCounts};
use crate::planner::{LeftAlone, PlanReport, RepackReport};
use crate::state::{Stage, State};
use crate::view::ViewCounts;

/// What is told of blind agents under [`Status::problems`].
const BLIND: &str = "what IMDS tells agents";

/// The leader at a glance (`/v1/status`).
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// The Raft term this replica leads, if it does.
    pub leading_term: Option<u64>,
    /// The lease: `held`, `disabled`, `unknown`, or who holds it.
    pub lease: String,
    /// Whether every watch was listed.
    pub synced: bool,
    /// Whether a watch is broken now.
    pub stale: bool,
    /// Whether EC2 was read since this leader began.
    pub instances_read: bool,
    /// An operator's pause of everything.
    pub paused: bool,
    /// Objects in the view.
    pub view: ViewCounts,
    /// Claims by stage.
    pub claims: BTreeMap<Stage, usize>,
    /// Launches without a recorded outcome.
    pub intents_open: usize,
    /// Disruptions under way.
    pub disruptions: usize,
    /// Offerings left alone for now.
    pub offerings_unavailable: usize,
    /// Sum over claims that have an instance, micro-dollars an hour.
    pub hourly_price_micro: u64,
    /// Agents heard of lately.
    pub agents: usize,
    /// Those of them that IMDS tells nothing, so that they would know of no notice; which ones, `problems` says.
    pub agents_blind: usize,
    /// What was told of notices and drains since this replica began to lead.
    pub told: DrainCounts,
    /// What the interruption queue told.
    pub queue: QueueCounts,
    /// Pods on nodes that drain now.
    pub draining_pods: usize,
    /// The last plan in numbers.
    pub last_plan: Option<PlanReport>,
    /// How plans were judged before they were acted on, where that is asked for.
    pub plan_checks: BTreeMap<PlanPurpose, PlanChecks>,
    /// The last repack in numbers.
    pub last_repack: Option<RepackReport>,
    /// Nodes that the last repack left alone, and why (the first hundred).
    pub left_alone: Vec<LeftAlone>,
    /// What consolidation did since this replica began to lead.
    pub consolidation: ConsolidationCounts,
    /// How many nodes each pool's budgets let go now, by Karpenter's words for the reasons.
    pub allowed_disruptions: BTreeMap<NodePoolName, BTreeMap<&'static str, u32>>,
    /// Pods the last plan found no place for, and why (the first hundred).
    pub unschedulable: Vec<(String, Vec<String>)>,
    /// How many those are in all.
    pub unschedulable_count: usize,
    /// Planned pods that the scheduler bound where they were planned, since this replica leads.
    pub bindings_followed: u64,
    /// Planned pods that it bound elsewhere.
    pub bindings_diverged: u64,
    /// What does not work, by what it is about.
    pub problems: BTreeMap<String, String>,
    /// The last log index applied.
    pub applied: u64,
}

/// One node (`/v1/nodes`).
#[derive(Clone, Debug, Serialize)]
pub struct NodeSummary {
    /// Its NodeClaim.
    pub claim: NodeClaimName,
    /// Its pool.
    pub nodepool: Option<NodePoolName>,
    /// How far it is.
    pub stage: Stage,
    /// Its Node.
    pub node: Option<NodeName>,
    /// Its instance.
    pub instance: Option<InstanceId>,
    /// Instance type.
    pub instance_type: Option<String>,
    /// Zone.
    pub zone: Option<String>,
    /// Billing.
    pub capacity_type: Option<String>,
    /// Micro-dollars an hour; 0 if unknown.
    pub hourly_price_micro: u64,
    /// Pods bound to it.
    pub pods: usize,
    /// Notices in force.
    pub notices: Vec<NoticeKind>,
    /// Why it leaves, if so.
    pub leaving: Option<String>,
    /// When its agent last reported.
    pub agent_seen: Option<Timestamp>,
    /// Since when IMDS tells its agent nothing, if it does not.
    pub imds_silent_since: Option<Timestamp>,
    /// How its drain goes, by its agent or in its place: the pods that are left, and why.
    pub drain: Option<DrainReport>,
    /// Measured use, where known; without pods where the log has it and the agent was not heard yet.
    pub usage: Option<UsageDigest>,
}

impl Control {
    /// The leader at a glance.
    pub fn status(&self, state: &State, now: Timestamp) -> Status {
        let mut claims = BTreeMap::new();
        for claim in state.claims.values() {
            *claims.entry(claim.stage).or_insert(0_usize) += 1;
        }
        let running = |stage: Stage| stage >= Stage::Launched && stage < Stage::Gone;
        let blind: Vec<String> = self
            .agents
            .blind(now, self.settings.agent_silence)
            .map(|node| node.to_string())
            .collect();
        let mut problems = self.problems.in_words();
        if !blind.is_empty() {
            let words =
                format!("IMDS tells the agents of these Nodes nothing: {}", first_of(&blind));
            problems.insert(BLIND.to_owned(), words);
        }
        Status {
            leading_term: self.term(),
            lease: self.lease.describe(self.settings.lease.as_ref(), now),
            synced: self.view.is_synced(),
            stale: self.view.is_stale(),
            instances_read: self.cloud.is_read(),
            paused: state.paused.is_some(),
            view: self.view.counts(),
            claims,
            intents_open: state.intents.len(),
            disruptions: state.disruptions.len(),
            offerings_unavailable: state.unavailable.len(),
            hourly_price_micro: state
                .claims
                .values()
                .filter(|claim| running(claim.stage))
                .fold(0, |sum, claim| sum.saturating_add(claim.hourly_price_micro)),
            agents: self.agents.live(now, self.settings.agent_silence),
            agents_blind: blind.len(),
            told: self.drain_counts().clone(),
            queue: self.queue.counts().clone(),
            draining_pods: self
                .agents
                .draining_pods(now, self.settings.agent_silence)
                .saturating_add(self.drains.pods()),
            last_plan: self.provisioning.last_report().cloned(),
            plan_checks: self.soundness.checks().clone(),
            last_repack: self.consolidation.report().cloned(),
            left_alone: self.consolidation.left().iter().take(100).cloned().collect(),
            consolidation: self.consolidation.counts().clone(),
            allowed_disruptions: self.allowed_disruptions(state, now),
            unschedulable: self.provisioning.unschedulable(),
            unschedulable_count: self.provisioning.unschedulable_count(),
            bindings_followed: self.provisioning.bindings.counts().0,
            bindings_diverged: self.provisioning.bindings.counts().1,
            problems,
            applied: state.applied,
        }
    }

    /// A node's use as its agent says, to whom it may have become unknown; as the log has it only before the agent
    /// was heard.
    fn usage<'a>(&'a self, state: &'a State, node: &NodeName) -> Option<&'a UsageDigest> {
        match self.agents.seen_at(node) {
            Some(_) => self.agents.usage(node),
            None => state.usage.get(node).map(|(_, digest)| digest),
        }
    }

    /// Every claim that is not gone, by name.
    pub fn nodes(&self, state: &State) -> Vec<NodeSummary> {
        state
            .claims
            .iter()
            .filter(|(_, claim)| claim.stage != Stage::Gone)
            .map(|(name, claim)| {
                let instance = claim.instance.as_ref();
                let node = claim.node.as_ref();
                let notices = instance.and_then(|instance| state.notices.get(&instance.id));
                NodeSummary {
                    claim: name.clone(),
                    nodepool: claim.nodepool.clone(),
                    stage: claim.stage,
                    node: claim.node.clone(),
                    instance: instance.map(|i| i.id.clone()),
                    instance_type: instance.map(|i| i.instance_type.clone()),
                    zone: instance.map(|i| i.zone.clone()),
                    capacity_type: instance.map(|i| i.capacity_type.to_string()),
                    hourly_price_micro: claim.hourly_price_micro,
                    pods: node.map_or(0, |node| self.view.pods_on(node).count()),
                    notices: notices.map(|n| n.keys().copied().collect()).unwrap_or_default(),
                    leaving: state.reason_of(name).map(|reason| reason.as_str().to_owned()),
                    agent_seen: node.and_then(|node| self.agents.seen_at(node)),
                    imds_silent_since: node.and_then(|node| self.agents.imds_silent_since(node)),
                    drain: self.drains.report(name).or_else(|| self.agents.drain(node?).cloned()),
                    usage: node.and_then(|node| self.usage(state, node)).cloned(),
                }
            })
            .collect()
    }
}
