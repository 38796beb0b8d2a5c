//! Pending pods: batched, planned, and made into intents.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::id::{IntentId, NodeClaimName, NodeName, NodePoolName};
use jiff::{SignedDuration, Timestamp};

use super::Control;
use super::batch::Batches;
use super::binding::Bindings;
use super::buffer::Buffers;
use super::gather::on_their_way;
use super::haste::Haste;
use super::intent::MOST_CLAIMS;
use super::object::after;
use super::overlay::OverlayGround;
use super::problem::Subject;
use super::static_pool::StaticPools;
use crate::command::Change;
use crate::expected::is_buffered;
use crate::planner::{Launch, OverlayFault, PlacementTarget, Plan, PlanReport, Unschedulable};
use crate::state::{ClaimRecord, OfferingKey, Stage, State};

/// Room that buffers keep free is looked at again after this long (Karpenter's resync).
const BUFFERS_AGAIN_AFTER: SignedDuration = SignedDuration::from_secs(30);
/// Pods told of in events and status after one plan.
const MOST_TOLD: usize = 100;

/// What provisioning remembers between steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Provisioning {
    pub(super) batches: Batches,
    pub(super) bindings: Bindings,
    pub(super) static_pools: StaticPools,
    pub(super) buffers: Buffers,
    pub(super) overlay_ground: OverlayGround,
    pub(super) overlay_faults: BTreeMap<String, OverlayFault>,
    /// What the last plan was made from, as far as a change of it asks for a new one.
    ground: Ground,
    /// Offerings that the last plan left alone.
    shunned: BTreeSet<OfferingKey>,
    haste: Haste,
    planned_at: Option<Timestamp>,
    /// Proposed intents that State does not show yet. However long that takes, they may be committed until the
    /// log or State says otherwise: who planned without them would buy everything twice.
    outstanding: BTreeSet<IntentId>,
    nominations: BTreeMap<NodeName, Timestamp>,
    count: u64,
    report: Option<PlanReport>,
    unschedulable: Vec<Unschedulable>,
}

/// Changes of these are worth a plan at once.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ground {
    leaving: BTreeSet<NodeName>,
    staying: BTreeSet<ObjectKey>,
    in_flight: BTreeSet<NodeClaimName>,
    shut: BTreeSet<NodeClaimName>,
    generations: Vec<(String, Option<i64>)>,
    catalog_version: u64,
    buffers: BTreeMap<ObjectKey, usize>,
}

impl Provisioning {
    /// Counts intents of this reign.
    pub(super) fn next_count(&mut self) -> u64 {
        self.count = self.count.saturating_add(1);
        self.count
    }

    /// Nodes that pods were lately planned onto.
    pub(super) fn nominated(&self, now: Timestamp) -> BTreeSet<NodeName> {
        self.nominations.iter().filter(|(_, until)| **until > now).map(|(n, _)| n.clone()).collect()
    }

    /// Pods are to come to these nodes within this time.
    pub(super) fn nominate(&mut self, nodes: impl IntoIterator<Item = NodeName>, until: Timestamp) {
        self.nominations.extend(nodes.into_iter().map(|node| (node, until)));
    }

    /// Whether this reign has planned yet.
    pub(super) fn has_planned(&self) -> bool {
        self.planned_at.is_some()
    }

    /// Whether pods wait for the plan of their batch.
    pub(super) fn has_batch(&self) -> bool {
        self.batches.is_open()
    }

    /// Waits with further plans until State shows this intent.
    pub(super) fn expect(&mut self, intent: &IntentId) {
        self.outstanding.insert(intent.clone());
    }

    /// This intent will not be in State.
    pub(super) fn stop_expecting(&mut self, intent: &IntentId) {
        self.outstanding.remove(intent);
    }

    pub(super) fn last_report(&self) -> Option<&PlanReport> {
        self.report.as_ref()
    }

    /// How many pods the last plan found no place for.
    pub(super) fn unschedulable_count(&self) -> usize {
        self.unschedulable.len()
    }

    /// The first of them, and why.
    pub(super) fn unschedulable(&self) -> Vec<(String, Vec<String>)> {
        self.unschedulable
            .iter()
            .take(MOST_TOLD)
            .map(|entry| (entry.pod.to_string(), reasons(entry)))
            .collect()
    }
}

pub(super) fn reasons(entry: &Unschedulable) -> Vec<String> {
    entry
        .reasons
        .iter()
        .map(
            |(pool, why)| {
                if pool.0.is_empty() { why.clone() } else { format!("NodePool {pool}: {why}") }
            },
        )
        .collect()
}

impl Control {
    pub(super) fn provision(&mut self, state: &State, now: Timestamp) {
        self.provisioning.batches.grow(&self.view, now);
        self.follow_bindings(state, now);
        if !self.can_plan(state, now) || !self.plan_is_due(state, now) {
            return;
        }
        if self.has_lost_claims(state) && !self.shuns_more(state, now) {
            self.provisioning.haste.note(now);
        }
        let made = self.trusted_plan(state, now);
        self.provisioning.ground = self.ground(state, now);
        self.provisioning.shunned = state.unavailable.keys().cloned().collect();
        self.provisioning.batches.close(&self.view);
        self.provisioning.bindings.calm_down();
        self.provisioning.planned_at = Some(now);
        if let Some(made) = made {
            self.follow_plan(state, made, now);
        }
    }

    /// Whether everything a plan needs is known, and no earlier plan is still on its way.
    pub(super) fn can_plan(&mut self, state: &State, now: Timestamp) -> bool {
        !self.awaits_intents(state)
            && self.cloud.is_read()
            && self.discovery.is_ready(&self.calls)
            && state.paused.is_none()
            && !self.has_unadopted(state, now)
    }

    /// Whether State does not show yet what was proposed: what it needs is not counted.
    pub(super) fn awaits_intents(&mut self, state: &State) -> bool {
        self.provisioning
            .outstanding
            .retain(|id| !state.intents.contains_key(id) && !state.closed_intents.contains_key(id));
        !self.provisioning.outstanding.is_empty()
    }

    fn plan_is_due(&self, state: &State, now: Timestamp) -> bool {
        let memory = &self.provisioning;
        let ends = memory.batches.ends(self.settings.batch_idle, self.settings.batch_max);
        if ends.is_some_and(|ends| ends <= now) {
            return true;
        }
        if memory.planned_at.is_none() {
            let wanted =
                !self.leaving_nodes(state, now).is_empty() || !self.view.buffers().is_empty();
            return !memory.batches.is_open() && wanted;
        }
        let pending = !self.view.unschedulable_pods().is_empty();
        let retry = memory
            .planned_at
            .is_some_and(|at| now.duration_since(at) >= self.settings.retry_unschedulable);
        let ground = self.ground(state, now);
        let lost = self.has_lost_claims(state)
            && (self.shuns_more(state, now)
                || memory.haste.allows(self.settings.retry_unschedulable, now));
        let freed = memory.ground.staying.difference(&ground.staying).next().is_some();
        let left = ground.leaving.difference(&memory.ground.leaving).next().is_some();
        let shut = ground.shut.difference(&memory.ground.shut).next().is_some();
        let worse = left || freed || lost || shut;
        let changed = ground.generations != memory.ground.generations
            || ground.catalog_version != memory.ground.catalog_version;
        let stale_buffers = !self.view.buffers().is_empty()
            && memory.planned_at.is_some_and(|at| now.duration_since(at) >= BUFFERS_AGAIN_AFTER);
        let rebuffer = stale_buffers || ground.buffers != memory.ground.buffers;
        worse || rebuffer || (pending && (retry || changed || memory.bindings.is_surprised()))
    }

    /// Whether a claim will have no node that pods were planned for.
    fn has_lost_claims(&self, state: &State) -> bool {
        let is_lost = |claim: &ClaimRecord| {
            claim.stage == Stage::Gone || claim.is_leaving() && claim.initialized_at.is_none()
        };
        let mut counted_on = self.provisioning.ground.in_flight.iter();
        counted_on.any(|name| state.claims.get(name).is_none_or(is_lost))
    }

    /// Whether offerings turned out to be short since the last plan: the next one takes others, and comes to
    /// an end of them.
    fn shuns_more(&self, state: &State, now: Timestamp) -> bool {
        let shunned = &self.provisioning.shunned;
        state.unavailable.iter().any(|(key, until)| *until > now && !shunned.contains(key))
    }

    fn ground(&self, state: &State, now: Timestamp) -> Ground {
        let pools = self.view.pools().values().map(|pool| &pool.metadata);
        let overlays = self.view.overlays().values().map(|overlay| &overlay.metadata);
        let leaving = self.leaving_nodes(state, now);
        Ground {
            buffers: self.buffer_sizes(),
            staying: self.staying(state, &leaving, now),
            shut: self.shut_claims(state, &leaving, now),
            leaving,
            in_flight: on_their_way(state).map(|(name, _)| name.clone()).collect(),
            generations: pools
                .chain(overlays)
                .map(|metadata| (metadata.name.clone().unwrap_or_default(), metadata.generation))
                .collect(),
            catalog_version: self.discovery.version(),
        }
    }

    /// Turns a plan into intents, nominations and events.
    fn follow_plan(&mut self, state: &State, made: Plan, now: Timestamp) {
        for placement in &made.placements {
            // A buffer nominates no node.
            let real = placement.pods.iter().any(|pod| !is_buffered(pod));
            if let PlacementTarget::Node(node) = &placement.node_or_claim
                && real
            {
                let until = after(now, self.settings.nominated_for);
                self.provisioning.nominate([node.clone()], until);
                for pod in placement.pods.iter().take(MOST_TOLD) {
                    let note = format!("Pod should schedule on: node/{node}");
                    self.pod_event(pod, "Nominated", &note, false, now);
                }
            }
            for pod in &placement.pods {
                let target = placement.node_or_claim.clone();
                self.expect_binding(pod, target, now);
            }
        }
        self.provisioning.nominations.retain(|_, until| *until > now);
        self.judge_buffers(&made);
        // What is not there has nobody to be told of it.
        let mut left = made.unschedulable;
        left.retain(|entry| self.view.pod(&entry.pod).is_some());
        for entry in left.iter().take(MOST_TOLD) {
            let note = format!("Failed to schedule pod, {}", reasons(entry).join("; "));
            self.pod_event(&entry.pod, "FailedScheduling", &note, true, now);
        }
        self.provisioning.report = Some(made.report);
        self.provisioning.unschedulable = left;
        self.propose_launches(state, made.launches, now);
    }

    /// Makes launches into intents. Returns whether all could be.
    pub(super) fn propose_launches(
        &mut self,
        state: &State,
        launches: Vec<Launch>,
        now: Timestamp,
    ) -> bool {
        let mut taken = BTreeSet::new();
        let mut all = true;
        for group in alike(launches) {
            all &= self.propose_intent(state, &group, &mut taken, now);
        }
        all
    }

    fn propose_intent(
        &mut self,
        state: &State,
        launches: &[Launch],
        taken: &mut BTreeSet<NodeClaimName>,
        now: Timestamp,
    ) -> bool {
        let Some(pool) = launches.first().map(|launch| launch.nodepool.clone()) else {
            return true;
        };
        let subject = Subject::Launches(pool.clone());
        if let Some(reason) = self.launches_wait(state, &pool, now) {
            self.problems.tell_wait(&pool, reason, now);
            return false;
        }
        match self.intent_for(state, launches, taken, now) {
            Ok(Some(intent)) => {
                // What the last launch failed for is told until one succeeds.
                if !self.is_refused(&pool) {
                    self.problems.mended(&subject);
                }
                for (plan, launch) in intent.claims.iter().zip(launches) {
                    if launch.pods.iter().any(is_buffered) {
                        self.provisioning.buffers.count_on(plan.name.clone());
                    }
                    for pod in &launch.pods {
                        let target = PlacementTarget::Claim(plan.name.clone());
                        self.expect_binding(pod, target, now);
                    }
                    for pod in launch.pods.iter().take(MOST_TOLD) {
                        let note = format!("Pod should schedule on: nodeclaim/{}", plan.name);
                        self.pod_event(pod, "Nominated", &note, false, now);
                    }
                }
                let id = intent.id.clone();
                let claims = intent.claims.iter().map(|plan| plan.name.clone());
                self.provisioning.ground.in_flight.extend(claims);
                if self.propose(Change::CreateIntent { intent: Box::new(intent) }, now) {
                    self.launches.begin(&id);
                    self.provisioning.expect(&id);
                }
                true
            }
            Ok(None) => true,
            Err(error) => {
                self.problems.tell(subject, error.to_string(), now);
                false
            }
        }
    }

    /// Why nothing is launched for a pool now, if so.
    pub(super) fn launches_wait(
        &self,
        state: &State,
        pool: &NodePoolName,
        now: Timestamp,
    ) -> Option<String> {
        let waits = state.pools.get(pool).and_then(|health| health.backs_off_until());
        if let Some(until) = waits.filter(|until| *until > now) {
            return Some(format!("the last launches did not register; waiting until {until}"));
        }
        if state.is_paused(Some(pool)) {
            return Some("paused by an operator".to_owned());
        }
        self.refused_lately(pool, now)
    }
}

/// Launches that one request can serve, in the plan's order.
pub(super) fn alike(launches: Vec<Launch>) -> Vec<Vec<Launch>> {
    let same = |left: &Launch, right: &Launch| {
        left.nodepool == right.nodepool
            && left.nodeclass == right.nodeclass
            && left.capacity_type == right.capacity_type
            && left.reservation == right.reservation
            && left.offerings == right.offerings
            && left.requirements == right.requirements
            && left.labels == right.labels
            && left.taints == right.taints
            && left.startup_taints == right.startup_taints
            && left.min_values_relaxed == right.min_values_relaxed
    };
    let mut groups: Vec<Vec<Launch>> = Vec::new();
    for launch in launches {
        let group = groups.iter_mut().find(|group| {
            group.len() < MOST_CLAIMS && group.first().is_some_and(|first| same(first, &launch))
        });
        match group {
            Some(group) => group.push(launch),
            None => groups.push(vec![launch]),
        }
    }
    groups
}
