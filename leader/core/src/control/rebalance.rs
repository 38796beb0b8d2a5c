//! Spot nodes that EC2 recommends to leave. By the NodePool's annotation `drover.dev/rebalance` they
//! stay, are replaced, or are drained.
//!
//! A recommendation is no loss, comes for many nodes at once and may come for what replaces them, too. So
//! a node is left alone until it is old enough, no more go at once than the NodePool's budgets for
//! `Drifted` let go, what was tried is not tried again soon, and the offering that was recommended
//! against is not bought meanwhile.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::NodePool;
use drover_common::drain::has_active_do_not_disrupt;
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use drover_common::labels;
use drover_common::protocol::NoticeKind;
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::object::after;
use super::problem::Subject;
use super::soundness::{PlanPurpose, judged};
use crate::command::DisruptionReason;
use crate::planner::{Launch, PlacementTarget};
use crate::state::{ClaimRecord, Stage, State};

/// A replacement whose launch had to wait is planned again after this long.
const LAUNCHES_WAIT: SignedDuration = SignedDuration::from_secs(10);

/// What a NodePool wants of a recommendation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// It is told.
    Ignore,
    /// A replacement comes up, and then the node is drained.
    Replace,
    /// The node is drained.
    Drain,
}

impl Policy {
    /// A NodePool's policy.
    ///
    /// # Errors
    /// The annotation's value is no policy.
    fn of(pool: &NodePool) -> Result<Self, String> {
        let annotations = pool.metadata.annotations.as_ref();
        match annotations.and_then(|all| all.get(labels::REBALANCE)).map(String::as_str) {
            None | Some("ignore") => Ok(Policy::Ignore),
            Some("replace") => Ok(Policy::Replace),
            Some("drain") => Ok(Policy::Drain),
            Some(other) => Err(format!(
                "annotation {}: {other:?} is none of ignore, replace and drain; taken as ignore",
                labels::REBALANCE
            )),
        }
    }
}

/// What is remembered of recommendations in this reign.
#[derive(Clone, Debug, Default)]
pub(super) struct Rebalances {
    /// When a node's replacement may be tried again.
    not_before: BTreeMap<NodeClaimName, Timestamp>,
}

/// A node that is to go.
struct Candidate {
    claim: NodeClaimName,
    node: NodeName,
    pool: NodePoolName,
    policy: Policy,
}

impl Control {
    /// Whether nodes of a pool leave for a recommendation.
    pub(super) fn follows_rebalance(&self, pool: Option<&NodePoolName>) -> bool {
        let pool = pool.and_then(|pool| self.view.pools().get(pool));
        pool.is_some_and(|pool| Policy::of(pool).is_ok_and(|policy| policy != Policy::Ignore))
    }

    /// Commits that nodes leave which EC2 recommends to leave, where their pools want that.
    pub(super) fn rebalance(&mut self, state: &State, now: Timestamp) {
        self.tell_policies(now);
        self.rebalances.not_before.retain(|_, until| now < *until);
        // Budgets do not count what is on its way into the log.
        let undecided = !self.undecided.is_empty();
        if undecided || state.paused.is_some() || self.view.is_stale() || !self.cloud.is_read() {
            return;
        }
        let mut candidates = self.recommended(state, now);
        if candidates.is_empty() {
            return;
        }
        let counts = self.pool_counts(state);
        let mut allowed = self.allowed_disruptions(state, now);
        candidates.retain(|one| {
            let doubtful = counts.get(&one.pool).is_some_and(|nodes| nodes.is_doubtful());
            let left = allowed.get_mut(&one.pool).and_then(|each| each.get_mut("Drifted"));
            match left.filter(|left| **left > 0 && !doubtful) {
                Some(left) => {
                    *left = left.saturating_sub(1);
                    true
                }
                None => false,
            }
        });
        for one in candidates {
            self.leave_as_recommended(state, &one, now);
        }
    }

    /// Says which NodePools' annotations are unreadable.
    fn tell_policies(&mut self, now: Timestamp) {
        for (name, pool) in self.view.pools() {
            let subject = Subject::Recommendations(name.clone());
            match Policy::of(pool) {
                Ok(_) => self.problems.mended(&subject),
                Err(reason) => self.problems.tell(subject, reason, now),
            }
        }
    }

    /// Nodes with a recommendation that their pools follow, and that nothing speaks for now.
    fn recommended(&self, state: &State, now: Timestamp) -> Vec<Candidate> {
        let candidate = |(name, record): (&NodeClaimName, &ClaimRecord)| {
            let instance = record.instance.as_ref()?;
            state.notices.get(&instance.id)?.get(&NoticeKind::Rebalance)?;
            let pool = record.nodepool.clone()?;
            let policy = Policy::of(self.view.pools().get(&pool)?).ok()?;
            let node = NodeName::from(self.node_of(record)?.metadata.name.as_str());
            let rest = self.settings.rebalance_rest;
            let old = record.initialized_at.is_some_and(|at| now.duration_since(at) >= rest);
            let stays = policy == Policy::Ignore
                || record.stage != Stage::Initialized
                || !old
                || self.rebalances.not_before.contains_key(name)
                || self.is_held(state, name, record, now)
                || self.has_protected_pods(&node, now);
            (!stays).then(|| Candidate { claim: name.clone(), node, pool, policy })
        };
        state.claims.iter().filter_map(candidate).collect()
    }

    fn has_protected_pods(&self, node: &NodeName, now: Timestamp) -> bool {
        self.view.pods_on(node).any(|pod| has_active_do_not_disrupt(pod, now))
    }

    fn leave_as_recommended(&mut self, state: &State, one: &Candidate, now: Timestamp) {
        let launches = match one.policy {
            Policy::Replace => {
                if self.provisioning.has_batch() || !self.can_plan(state, now) {
                    return;
                }
                match self.replacements_for(state, &one.node, now) {
                    Ok(launches) => launches,
                    Err(reason) => {
                        let note = format!("Rebalance recommendation not followed: {reason}");
                        self.claim_event(&one.claim, "DisruptionBlocked", &note, false, now);
                        self.rest(&one.claim, self.settings.rebalance_rest, now);
                        return;
                    }
                }
            }
            Policy::Drain | Policy::Ignore => Vec::new(),
        };
        let nodes = std::slice::from_ref(&one.node);
        let mut taken = BTreeSet::new();
        let Some(intents) = self.replacement_intents(state, launches, nodes, &mut taken, now)
        else {
            // It can't be launched now; a plan is too dear to be made at every look.
            self.rest(&one.claim, LAUNCHES_WAIT, now);
            return;
        };
        let explanation = format!(
            "EC2 recommends to leave Node {}; NodePool {} wants it {}, {} new nodes first",
            one.node,
            one.pool,
            if one.policy == Policy::Drain { "drained" } else { "replaced" },
            intents.iter().map(|intent| intent.claims.len()).sum::<usize>()
        );
        self.rest(&one.claim, self.settings.rebalance_rest, now);
        let claims = vec![one.claim.clone()];
        let reason = DisruptionReason::Rebalance;
        self.commit_replacing(state, claims, intents, reason, explanation, now);
    }

    fn rest(&mut self, claim: &NodeClaimName, rest: SignedDuration, now: Timestamp) {
        self.rebalances.not_before.insert(claim.clone(), after(now, rest));
    }

    /// What has to be launched before a node's pods can go.
    fn replacements_for(
        &mut self,
        state: &State,
        node: &NodeName,
        now: Timestamp,
    ) -> Result<Vec<Launch>, String> {
        let gathered = self.gather(state, now);
        let mut leaving = self.leaving_nodes(state, now);
        // Nor has any room to count on that will go later, or that is on its way out.
        let going = state
            .claims
            .iter()
            .filter(|(name, record)| record.is_leaving() || self.undecided.contains(name));
        let going = going.filter_map(|(_, record)| self.node_of(record));
        leaving.extend(going.map(|node| NodeName::from(node.metadata.name.as_str())));
        leaving.insert(node.clone());
        let input = gathered.input(self, &leaving, now);
        let (made, verdict) = judged(self.settings.check_plans, &input);
        if !self.trusts(PlanPurpose::Rebalance, verdict, now) {
            return Err("the plan for its pods did not pass the check".to_owned());
        }
        let ours = |pod: &drover_common::cluster::ObjectKey| {
            self.view.pod(pod).is_some_and(|pod| pod.spec.node_name == node.as_str())
        };
        if let Some(entry) = made.unschedulable.iter().find(|entry| ours(&entry.pod)) {
            let reasons = super::provisioning::reasons(entry).join("; ");
            return Err(format!("Pod {} would have no place: {reasons}", entry.pod));
        }
        let promised = made
            .placements
            .iter()
            .filter(|placement| matches!(placement.node_or_claim, PlacementTarget::Claim(_)))
            .flat_map(|placement| &placement.pods);
        if let Some(pod) = promised.into_iter().find(|pod| ours(pod)) {
            return Err(format!("the place of Pod {pod} would be on a node that is not up yet"));
        }
        Ok(made.launches.into_iter().filter(|launch| launch.pods.iter().any(ours)).collect())
    }
}
