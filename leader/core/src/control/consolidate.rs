//! Consolidation: empty nodes go at every look; the others are repacked every few seconds, and what
//! budgets let begin is committed with its replacements' launches.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::DisruptionReason as BudgetReason;
use drover_common::id::{NodeClaimName, NodeName, NodePoolName};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::disrupt::Managed;
use super::gather::Gathered;
use super::object::after;
use super::soundness::{PlanPurpose, judged_repack};
use crate::command::DisruptionReason;
use crate::planner::{
    Batch, LeftAlone, LeftKind, MoveTarget, RepackInput, RepackPlan, RepackReport, remove_empty,
};
use crate::state::State;

/// A cluster that nothing was found in is looked at again after this long even if nothing happens.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_mins(5);
/// What was given up is left alone for this long; it doubles each time.
const FIRST_RETRY: SignedDuration = SignedDuration::from_mins(1);
/// And for this long at most.
const LAST_RETRY: SignedDuration = SignedDuration::from_mins(30);
/// A reason that did not change is told again after this long.
const TELL_AGAIN: SignedDuration = SignedDuration::from_mins(15);
/// Nodes told of after one repack.
const MOST_TOLD: usize = 50;
/// Each node of the cluster makes repacks so much rarer: they look at all of them.
const PER_NODE: SignedDuration = SignedDuration::from_millis(10);

/// What consolidation remembers of this reign.
#[derive(Clone, Debug, Default)]
pub(super) struct Consolidation {
    planned_at: Option<Timestamp>,
    ground: Ground,
    /// Nodes that the last repack would take down; `None` before the first.
    candidates: Option<BTreeSet<NodeName>>,
    given_up: BTreeMap<NodeClaimName, GivenUp>,
    told: BTreeMap<NodeName, (Timestamp, String)>,
    report: Option<RepackReport>,
    left: Vec<LeftAlone>,
    counts: ConsolidationCounts,
}

/// The last time that a claim's disruption was given up.
#[derive(Clone, Debug)]
struct GivenUp {
    at: Timestamp,
    /// How often in a row.
    times: u32,
    reason: String,
}

impl GivenUp {
    fn waits_until(&self) -> Timestamp {
        let doubled = 1_i32 << self.times.saturating_sub(1).min(10);
        after(self.at, FIRST_RETRY.saturating_mul(doubled).min(LAST_RETRY))
    }
}

/// What consolidation did since this replica began to lead.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ConsolidationCounts {
    /// Repacks.
    pub repacks: u64,
    /// Disruptions committed for empty nodes.
    pub empty: u64,
    /// Disruptions committed without replacements.
    pub deleted: u64,
    /// Disruptions committed with replacements.
    pub replaced: u64,
    /// Disruptions given up before their drain began.
    pub given_up: u64,
}

/// A change of these asks for another repack.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ground {
    activity: u64,
    nodes: usize,
    quiet: usize,
    generations: Vec<(String, Option<i64>)>,
    catalog_version: u64,
}

impl Consolidation {
    /// Nodes to take down when their time comes; `None` if that is not known yet.
    pub(super) fn candidates(&self) -> Option<&BTreeSet<NodeName>> {
        self.candidates.as_ref()
    }

    pub(super) fn given_up(&self, claim: &NodeClaimName, now: Timestamp) -> Option<String> {
        let GivenUp { reason, .. } =
            self.given_up.get(claim).filter(|it| it.waits_until() > now)?;
        Some(format!("its disruption was given up lately: {reason}"))
    }

    pub(super) fn note_given_up(
        &mut self,
        claims: Vec<NodeClaimName>,
        reason: &str,
        now: Timestamp,
    ) {
        // Whoever was left alone for as long again has another beginning.
        self.given_up.retain(|_, it| now.duration_since(it.waits_until()) < LAST_RETRY);
        // While the log is slow it is proposed over and over.
        let waits = |claim: &NodeClaimName| {
            self.given_up.get(claim).is_some_and(|it| it.waits_until() > now)
        };
        let fresh: Vec<NodeClaimName> = claims.into_iter().filter(|claim| !waits(claim)).collect();
        if !fresh.is_empty() {
            self.counts.given_up = self.counts.given_up.saturating_add(1);
        }
        for claim in fresh {
            let times = self.given_up.get(&claim).map_or(0, |it| it.times).saturating_add(1);
            self.given_up.insert(claim, GivenUp { at: now, times, reason: reason.to_owned() });
        }
    }

    /// A disruption went well so far that its drain begins.
    pub(super) fn forget_given_up(&mut self, claims: &[NodeClaimName]) {
        self.given_up.retain(|claim, _| !claims.contains(claim));
    }

    pub(super) fn report(&self) -> Option<&RepackReport> {
        self.report.as_ref()
    }

    pub(super) fn left(&self) -> &[LeftAlone] {
        &self.left
    }

    pub(super) fn counts(&self) -> &ConsolidationCounts {
        &self.counts
    }
}

impl Control {
    pub(super) fn consolidate(&mut self, state: &State, now: Timestamp) {
        let undecided = &self.undecided;
        self.assignments.follow(state, |claim| undecided.contains(claim));
        if state.paused.is_some() {
            self.consolidation.candidates = Some(BTreeSet::new());
            return;
        }
        // Budgets do not count what is on its way into the log.
        if !self.undecided.is_empty() || self.view.is_stale() || !self.cloud.is_read() {
            return;
        }
        let managed = self.managed(state, now);
        self.disrupt_empty(state, &managed, now);
        if !self.repack_is_due(state, &managed, now) {
            return;
        }
        let pools = self.pool_counts(state);
        let gathered = self.gather(state, now);
        let leaving = self.all_leaving(state, now);
        let asked = RepackInput {
            plan: gathered.input(self, &leaving, now),
            nodes: &managed.nodes,
            pools: &pools,
            settings: &self.settings.repack,
        };
        let (made, verdict) = judged_repack(self.settings.check_plans, &asked);
        if self.trusts(PlanPurpose::Consolidation, verdict, now) {
            self.follow_repack(state, &managed, made, now);
        } else {
            self.consolidation.planned_at = Some(now);
        }
    }

    /// Nodes that take no moved pods and whose pods come first: also those of disruptions whose
    /// drain has not begun.
    fn all_leaving(&self, state: &State, now: Timestamp) -> BTreeSet<NodeName> {
        let going = state.claims.values().filter(|record| record.is_leaving());
        let mut leaving: BTreeSet<NodeName> =
            going.filter_map(|record| record.node.clone()).collect();
        leaving.extend(self.leaving_nodes(state, now));
        leaving
    }

    /// Commits the disruption of empty nodes, as many as budgets allow, one disruption a pool.
    fn disrupt_empty(&mut self, state: &State, managed: &Managed, now: Timestamp) {
        let pools = self.pool_counts(state);
        let gathered = Gathered::default();
        let leaving = BTreeSet::new();
        let made = remove_empty(&RepackInput {
            plan: gathered.input(self, &leaving, now),
            nodes: &managed.nodes,
            pools: &pools,
            settings: &self.settings.repack,
        });
        let mut by_pool: BTreeMap<NodePoolName, Vec<NodeClaimName>> = BTreeMap::new();
        for node in made.batches.iter().filter(|b| b.wave == 0).flat_map(|batch| &batch.nodes) {
            if let (Some(one), Some(claim)) = (managed.nodes.get(node), managed.claims.get(node)) {
                by_pool.entry(one.nodepool.clone()).or_default().push(claim.clone());
            }
        }
        for (pool, claims) in by_pool {
            let nodes = pools.get(&pool).copied().unwrap_or_default();
            let words = format!(
                "{} nodes of NodePool {pool} hold no pod that would have to move; it has {}, of \
                 which {} are being disrupted",
                claims.len(),
                nodes.initialized,
                nodes.disrupting
            );
            if self.commit_disruption(state, claims, DisruptionReason::Emptiness, words, now) {
                self.consolidation.counts.empty = self.consolidation.counts.empty.saturating_add(1);
            }
        }
    }

    fn repack_is_due(&mut self, state: &State, managed: &Managed, now: Timestamp) -> bool {
        let Some(reign) = self.reign else { return false };
        let nodes = i32::try_from(managed.nodes.len()).unwrap_or(i32::MAX);
        let period = self.settings.disruption_poll.saturating_add(PER_NODE.saturating_mul(nodes));
        let last = self.consolidation.planned_at;
        // A new leader first sees what the old one left.
        let due = after(last.unwrap_or(reign.since), period) <= now;
        if !due || self.provisioning.has_batch() || !self.can_plan(state, now) {
            return false;
        }
        // What is half done by others would be planned for as if that were all.
        if self.activity.is_in_burst(now) {
            return false;
        }
        let ground = Ground {
            activity: self.activity.changes(),
            nodes: managed.nodes.len(),
            quiet: managed.nodes.values().filter(|n| n.quiet && n.held.is_none()).count(),
            generations: self.generations(),
            catalog_version: self.discovery.version(),
        };
        // Age and budgets' schedules change with time alone, and protections without a pod's doing.
        let waiting = self.consolidation.left.iter().any(|left| left.kind != LeftKind::NoGain);
        let open = self.consolidation.candidates.as_ref().is_some_and(|set| !set.is_empty());
        let again = last.is_none_or(|at| now.duration_since(at) >= LOOK_AGAIN);
        let changed = ground != self.consolidation.ground;
        self.consolidation.ground = ground;
        changed || again || open || waiting
    }

    /// Of all that says what nodes there may be, and at what price.
    fn generations(&self) -> Vec<(String, Option<i64>)> {
        let pools = self.view.pools().values().map(|pool| &pool.metadata);
        let overlays = self.view.overlays().values().map(|overlay| &overlay.metadata);
        let all = pools.chain(overlays);
        all.map(|it| (it.name.clone().unwrap_or_default(), it.generation)).collect()
    }

    fn follow_repack(
        &mut self,
        state: &State,
        managed: &Managed,
        made: RepackPlan,
        now: Timestamp,
    ) {
        let mut taken = BTreeSet::new();
        for batch in made
            .batches
            .iter()
            .filter(|batch| batch.wave == 0 && batch.reason == BudgetReason::Underutilized)
        {
            self.commit_batch(state, managed, batch, &mut taken, now);
        }
        self.tell_left(managed, &made.left, now);
        let going = made.batches.iter().filter(|b| b.reason == BudgetReason::Underutilized);
        let memory = &mut self.consolidation;
        memory.planned_at = Some(now);
        memory.candidates = Some(going.flat_map(|batch| batch.nodes.iter().cloned()).collect());
        memory.counts.repacks = memory.counts.repacks.saturating_add(1);
        memory.report = Some(made.report);
        memory.left = made.left;
    }

    /// Commits a batch and the launches of its replacements in one entry.
    fn commit_batch(
        &mut self,
        state: &State,
        managed: &Managed,
        batch: &Batch,
        taken: &mut BTreeSet<NodeClaimName>,
        now: Timestamp,
    ) {
        let claims: Option<Vec<NodeClaimName>> =
            batch.nodes.iter().map(|node| managed.claims.get(node).cloned()).collect();
        let Some(claims) = claims else { return };
        let launches = batch.replacements.clone();
        let Some(intents) = self.replacement_intents(state, launches, &batch.nodes, taken, now)
        else {
            return;
        };
        let (reason, replaces) = (DisruptionReason::Consolidation, !intents.is_empty());
        if self.commit_replacing(state, claims, intents, reason, explain(batch), now) {
            let counts = &mut self.consolidation.counts;
            let count = if replaces { &mut counts.replaced } else { &mut counts.deleted };
            *count = count.saturating_add(1);
            self.assignments.note_batch(managed, batch);
        }
    }

    /// Tells why nodes stay, as events; a reason that was told is not told again for long.
    fn tell_left(&mut self, managed: &Managed, left: &[LeftAlone], now: Timestamp) {
        self.consolidation.told.retain(|node, (at, _)| {
            managed.nodes.contains_key(node) && now.duration_since(*at) < TELL_AGAIN
        });
        let mut told = 0;
        for one in left.iter().filter(|one| one.kind != LeftKind::Waits) {
            let known = self.consolidation.told.get(&one.node);
            if known.is_some_and(|(_, reason)| *reason == one.reason) || told >= MOST_TOLD {
                continue;
            }
            told += 1;
            let word = match one.kind {
                LeftKind::Blocked => "DisruptionBlocked",
                LeftKind::Waits | LeftKind::NoGain => "Unconsolidatable",
            };
            self.node_event(&one.node, word, &one.reason, false, now);
            self.consolidation.told.insert(one.node.clone(), (now, one.reason.clone()));
        }
    }
}

/// A batch in words and dollars.
fn explain(batch: &Batch) -> String {
    let dollars = |micro: u64| format!("${:.4}/h", micro as f64 / 1e6);
    let on_new = batch.moves.iter().filter(|m| matches!(m.to, MoveTarget::Replacement(_))).count();
    let on_old = batch.moves.len().saturating_sub(on_new);
    let saving = u64::try_from(batch.saving_micro).unwrap_or(0);
    let percent = saving.saturating_mul(100) / batch.price_micro.max(1);
    let mut words = format!(
        "{} nodes of {} hold {} pods; {on_old} fit on nodes that stay",
        batch.nodes.len(),
        dollars(batch.price_micro),
        batch.moves.len()
    );
    if !batch.replacements.is_empty() {
        let expected = batch.price_micro.saturating_sub(saving);
        words.push_str(&format!(
            ", {on_new} on {} new ones of {}, at most {}",
            batch.replacements.len(),
            dollars(expected),
            dollars(batch.dearest_micro)
        ));
    }
    words.push_str(&format!("; saves {} ({percent} %)", dollars(saving)));
    words
}
