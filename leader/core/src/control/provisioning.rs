//! Pending pods: batched, planned, and made into intents.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::ObjectKey;
use drover_common::crd::parse_resources;
use drover_common::id::{IntentId, NodeClaimName, NodeName, NodePoolName};
use drover_common::labels;
use drover_common::requirement::Requirements;
use drover_common::resources::{ResourceName, Resources};
use jiff::{SignedDuration, Timestamp};

use super::intent::{IntentError, MOST_CLAIMS};
use super::lifecycle::not_initialized;
use super::object::after;
use super::{Control, object};
use crate::command::Change;
use crate::planner::{
    InFlightNode, Launch, PlacementTarget, Plan, PlanInput, PlanReport, UnavailableOffering,
    Unschedulable, plan,
};
use crate::state::{ClaimRecord, Stage, State};

/// A proposed intent that State does not show after this long is taken for lost.
const INTENT_PATIENCE: SignedDuration = SignedDuration::from_secs(5);
/// Pods told of in events and status after one plan.
const MOST_TOLD: usize = 100;

/// What provisioning remembers between steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Provisioning {
    /// Pods that the last plan looked at and that still wait.
    considered: BTreeSet<ObjectKey>,
    batch: Option<Batch>,
    /// What the last plan was made from, as far as a change of it asks for a new one.
    ground: Ground,
    planned_at: Option<Timestamp>,
    outstanding: BTreeMap<IntentId, Timestamp>,
    nominations: BTreeMap<NodeName, Timestamp>,
    count: u64,
    report: Option<PlanReport>,
    unschedulable: Vec<Unschedulable>,
}

/// What plans are made from besides the view.
#[derive(Clone, Debug, Default)]
pub(super) struct Gathered {
    in_flight: Vec<InFlightNode>,
    usage: BTreeMap<NodePoolName, Resources>,
    unavailable: BTreeSet<UnavailableOffering>,
}

impl Gathered {
    pub(super) fn input<'a>(
        &'a self,
        control: &'a Control,
        leaving: &'a BTreeSet<NodeName>,
        now: Timestamp,
    ) -> PlanInput<'a> {
        PlanInput {
            view: &control.view,
            catalogs: control.discovery.catalogs(),
            in_flight: &self.in_flight,
            leaving,
            unavailable: &self.unavailable,
            pool_usage: &self.usage,
            settings: &control.settings.planner,
            now,
        }
    }
}

#[derive(Clone, Debug)]
struct Batch {
    opened_at: Timestamp,
    grown_at: Timestamp,
    pods: BTreeSet<ObjectKey>,
}

/// Changes of these are worth a plan at once.
#[derive(Clone, Debug, Default, PartialEq)]
struct Ground {
    leaving: BTreeSet<NodeName>,
    in_flight: BTreeSet<NodeClaimName>,
    generations: Vec<(String, Option<i64>)>,
    catalog_version: u64,
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

    /// Whether pods wait for the plan of their batch.
    pub(super) fn has_batch(&self) -> bool {
        self.batch.is_some()
    }

    /// Waits with further plans until State shows this intent.
    pub(super) fn expect(&mut self, intent: &IntentId, now: Timestamp) {
        self.outstanding.insert(intent.clone(), now);
    }

    pub(super) fn last_report(&self) -> Option<&PlanReport> {
        self.report.as_ref()
    }

    /// Pods without a place, and why.
    pub(super) fn unschedulable(&self) -> Vec<(String, Vec<String>)> {
        self.unschedulable
            .iter()
            .take(MOST_TOLD)
            .map(|entry| (entry.pod.to_string(), reasons(entry)))
            .collect()
    }

    /// When the open batch ends.
    pub(super) fn batch_ends(
        &self,
        idle: SignedDuration,
        max: SignedDuration,
    ) -> Option<Timestamp> {
        let batch = self.batch.as_ref()?;
        Some(after(batch.grown_at, idle).min(after(batch.opened_at, max)))
    }
}

fn reasons(entry: &Unschedulable) -> Vec<String> {
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
        self.grow_batch(now);
        if !self.can_plan(state, now) || !self.plan_is_due(state, now) {
            return;
        }
        let leaving = self.leaving_nodes(state);
        let gathered = self.gather(state, now);
        let made = plan(&gathered.input(self, &leaving, now));
        self.provisioning.ground = self.ground(state);
        self.provisioning.considered = self.view.unschedulable_pods().clone();
        self.provisioning.batch = None;
        self.provisioning.planned_at = Some(now);
        self.follow_plan(state, made, now);
    }

    /// What plans are made from besides the view.
    pub(super) fn gather(&self, state: &State, now: Timestamp) -> Gathered {
        Gathered {
            in_flight: self.in_flight_nodes(state),
            usage: self.pool_usage(state),
            unavailable: state
                .unavailable
                .iter()
                .filter(|(_, until)| **until > now)
                .map(|(key, _)| UnavailableOffering {
                    capacity_type: key.capacity_type,
                    instance_type: Some(key.instance_type.clone()),
                    zone: Some(key.zone.clone()),
                })
                .collect(),
        }
    }

    /// Opens or extends the batch by pods that no plan has looked at.
    fn grow_batch(&mut self, now: Timestamp) {
        let pending = self.view.unschedulable_pods();
        let memory = &mut self.provisioning;
        memory.considered.retain(|pod| pending.contains(pod));
        let fresh: BTreeSet<ObjectKey> = pending.difference(&memory.considered).cloned().collect();
        match (&mut memory.batch, fresh.is_empty()) {
            (batch, true) => *batch = None,
            (Some(batch), false) => {
                if !fresh.is_subset(&batch.pods) {
                    batch.grown_at = now;
                }
                batch.pods = fresh;
            }
            (batch, false) => {
                *batch = Some(Batch { opened_at: now, grown_at: now, pods: fresh });
            }
        }
    }

    /// Whether everything a plan needs is known, and no earlier plan is still on its way.
    pub(super) fn can_plan(&mut self, state: &State, now: Timestamp) -> bool {
        self.provisioning.outstanding.retain(|id, since| {
            !state.intents.contains_key(id)
                && !state.closed_intents.contains_key(id)
                && now.duration_since(*since) < INTENT_PATIENCE
        });
        self.provisioning.outstanding.is_empty()
            && self.cloud.is_read()
            && self.discovery.is_ready(&self.calls)
            && state.paused.is_none()
            && !self.has_unadopted(state, now)
    }

    fn plan_is_due(&self, state: &State, now: Timestamp) -> bool {
        let memory = &self.provisioning;
        let ends = memory.batch_ends(self.settings.batch_idle, self.settings.batch_max);
        if ends.is_some_and(|ends| ends <= now) {
            return true;
        }
        if memory.planned_at.is_none() {
            return memory.batch.is_none() && !self.leaving_nodes(state).is_empty();
        }
        let pending = !self.view.unschedulable_pods().is_empty();
        let retry = memory
            .planned_at
            .is_some_and(|at| now.duration_since(at) >= self.settings.retry_unschedulable);
        let ground = self.ground(state);
        let lost = memory
            .ground
            .in_flight
            .iter()
            .any(|name| state.claims.get(name).is_none_or(|claim| claim.stage == Stage::Gone));
        let worse = ground.leaving.difference(&memory.ground.leaving).next().is_some() || lost;
        let changed = ground.generations != memory.ground.generations
            || ground.catalog_version != memory.ground.catalog_version;
        worse || (pending && (retry || changed))
    }

    fn ground(&self, state: &State) -> Ground {
        let pools = self.view.pools().values();
        Ground {
            leaving: self.leaving_nodes(state),
            in_flight: state
                .claims
                .iter()
                .filter(|(_, claim)| claim.stage < Stage::Initialized)
                .map(|(name, _)| name.clone())
                .collect(),
            generations: pools
                .map(|p| (p.metadata.name.clone().unwrap_or_default(), p.metadata.generation))
                .collect(),
            catalog_version: self.discovery.version(),
        }
    }

    /// Nodes whose pods need another place now: draining ones, and those EC2 takes back. A voluntary
    /// disruption that has not begun to drain has no pods to place.
    pub(super) fn leaving_nodes(&self, state: &State) -> BTreeSet<NodeName> {
        state
            .claims
            .iter()
            .filter(|(name, claim)| {
                claim.stage > Stage::Disrupting
                    || state.hard_notice(name).is_some()
                    || state.reason_of(name).is_some_and(|reason| !reason.is_voluntary())
            })
            .filter_map(|(_, claim)| {
                let node = self.node_of(claim)?;
                Some(NodeName::from(node.metadata.name.as_str()))
            })
            .collect()
    }

    /// Claims that will have a Node, or have one that takes no pods yet.
    fn in_flight_nodes(&self, state: &State) -> Vec<InFlightNode> {
        state
            .claims
            .iter()
            .filter(|(_, record)| record.stage < Stage::Initialized)
            .filter_map(|(name, record)| {
                // A Node that still bears startup taints takes no pods yet, but will.
                let node = self.node_of(record);
                let claim = self.view.claims().get(name);
                let usable = node
                    .zip(claim)
                    .is_some_and(|(node, claim)| not_initialized(claim, &node).is_none());
                if usable { None } else { self.in_flight_node(name, record) }
            })
            .collect()
    }

    fn in_flight_node(&self, name: &NodeClaimName, record: &ClaimRecord) -> Option<InFlightNode> {
        let nodepool = record.nodepool.clone()?;
        let planned = record.planned.as_deref().cloned().unwrap_or_default();
        let mut labels = planned.labels;
        let mut allocatable = planned.allocatable;
        if let Some(instance) = &record.instance {
            let kind = self.discovery.instance_type(&record.nodeclass, &instance.instance_type);
            if let Some(kind) = kind {
                labels.extend(kind.labels.clone());
                allocatable = kind.allocatable.clone();
            }
            labels.insert(labels::ZONE.to_owned(), instance.zone.clone());
            labels.insert(labels::CAPACITY_TYPE.to_owned(), instance.capacity_type.to_string());
        }
        labels.insert(labels::NODEPOOL.to_owned(), nodepool.0.clone());
        Some(InFlightNode {
            claim: name.clone(),
            nodepool,
            labels,
            requirements: Requirements::from_requirements(&planned.requirements)
                .unwrap_or_default(),
            taints: planned.taints,
            allocatable,
            pods: planned.pods,
        })
    }

    /// What each pool holds at worst: nodes as they are, launches as the largest they may become.
    pub(super) fn pool_usage(&self, state: &State) -> BTreeMap<NodePoolName, Resources> {
        let mut usage: BTreeMap<NodePoolName, Resources> = BTreeMap::new();
        for (name, record) in &state.claims {
            let Some(pool) = record.nodepool.clone().filter(|_| record.stage < Stage::Gone) else {
                continue;
            };
            let mut capacity = self.capacity_of(state, name, record);
            capacity.set(ResourceName::from("nodes"), 1);
            usage.entry(pool).or_default().add(&capacity);
        }
        usage
    }

    fn capacity_of(&self, state: &State, name: &NodeClaimName, record: &ClaimRecord) -> Resources {
        if let Some(node) = self.node_of(record).filter(|node| !node.status.capacity.is_empty()) {
            return node.status.capacity.clone();
        }
        if let Some(instance) = &record.instance {
            let kind = self.discovery.instance_type(&record.nodeclass, &instance.instance_type);
            if let Some(kind) = kind {
                return kind.capacity.clone();
            }
            let claim = self.view.claims().get(name);
            return claim
                .and_then(|claim| parse_resources(&object::status_of(claim).capacity).ok())
                .unwrap_or_default();
        }
        let intent = record.intent.as_ref().and_then(|intent| state.intents.get(intent));
        intent.map_or_else(Resources::default, |intent| {
            intent
                .request
                .overrides
                .iter()
                .filter_map(|o| self.discovery.instance_type(&intent.nodeclass, &o.instance_type))
                .fold(Resources::default(), |most, kind| most.maximum(&kind.capacity))
        })
    }

    /// Turns a plan into intents, nominations and events.
    fn follow_plan(&mut self, state: &State, made: Plan, now: Timestamp) {
        for placement in &made.placements {
            if let PlacementTarget::Node(node) = &placement.node_or_claim {
                let until = after(now, self.settings.nominated_for);
                self.provisioning.nominations.insert(node.clone(), until);
                for pod in placement.pods.iter().take(MOST_TOLD) {
                    let note = format!("Pod should schedule on: node/{node}");
                    self.pod_event(pod, "Nominated", &note, false, now);
                }
            }
        }
        self.provisioning.nominations.retain(|_, until| *until > now);
        for entry in made.unschedulable.iter().take(MOST_TOLD) {
            let note = format!("Failed to schedule pod, {}", reasons(entry).join("; "));
            self.pod_event(&entry.pod, "FailedScheduling", &note, true, now);
        }
        self.provisioning.report = Some(made.report);
        self.provisioning.unschedulable = made.unschedulable;
        let mut taken = BTreeSet::new();
        for group in alike(made.launches) {
            self.propose_intent(state, &group, &mut taken, now);
        }
    }

    fn propose_intent(
        &mut self,
        state: &State,
        launches: &[Launch],
        taken: &mut BTreeSet<NodeClaimName>,
        now: Timestamp,
    ) {
        let Some(pool) = launches.first().map(|launch| launch.nodepool.clone()) else { return };
        let subject = format!("launches of NodePool {pool}");
        if let Some(reason) = self.launches_wait(state, &pool, now) {
            self.problems.insert(subject, reason);
            return;
        }
        match self.intent_for(state, launches, taken, now) {
            Ok(Some(intent)) => {
                self.problems.remove(&subject);
                for (plan, launch) in intent.claims.iter().zip(launches) {
                    for pod in launch.pods.iter().take(MOST_TOLD) {
                        let note = format!("Pod should schedule on: nodeclaim/{}", plan.name);
                        self.pod_event(pod, "Nominated", &note, false, now);
                    }
                }
                self.launches.begin(&intent.id);
                self.provisioning.outstanding.insert(intent.id.clone(), now);
                self.propose(Change::CreateIntent { intent: Box::new(intent) }, now);
            }
            Ok(None) => {}
            Err(error) => self.tell_intent_error(subject, &error),
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
        state.is_paused(Some(pool)).then(|| "paused by an operator".to_owned())
    }

    pub(super) fn tell_intent_error(&mut self, subject: String, error: &IntentError) {
        self.problems.insert(subject, error.to_string());
    }
}

/// Launches that one request can serve, in the plan's order.
pub(super) fn alike(launches: Vec<Launch>) -> Vec<Vec<Launch>> {
    let same = |left: &Launch, right: &Launch| {
        left.nodepool == right.nodepool
            && left.nodeclass == right.nodeclass
            && left.capacity_type == right.capacity_type
            && left.offerings == right.offerings
            && left.requirements == right.requirements
            && left.labels == right.labels
            && left.taints == right.taints
            && left.startup_taints == right.startup_taints
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
