//! Pods to be placed, grouped: all pods of a group are the same to the planner.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::cluster::{ObjectKey, Pod};
use drover_common::resources::{ResourceName, Resources};
use fixedbitset::FixedBitSet;

use super::attach::{AttachLimits, driver_of};
use super::dimension::{Amounts, CPU, MEMORY};
use super::rules::{Alternatives, Variant, variants};
use super::selectors::Preferences;
use super::topology::Part;
use super::volume::VolumeRules;
use super::{PlanInput, PreferencePolicy};
use crate::view::{PodShape, ShapeId};

/// Equal pods.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// One of their shapes; they are equal in all that matters.
    pub shape: Arc<PodShape>,
    /// The pods, in order; those still without a place are from `placed` on.
    pub pods: Vec<ObjectKey>,
    pub placed: usize,
    pub request: Amounts,
    pub variants: Vec<Variant>,
    pub step: usize,
    /// Offers that fulfil the rules of the present step and have room for one pod, available or not.
    pub possible: FixedBitSet,
    /// Those worth buying for such pods: available, not oversized, not exotic, of known price.
    pub offers: FixedBitSet,
    /// Terms at the present step.
    pub part: Part,
}

impl Group {
    pub(super) fn left(&self) -> u32 {
        u32::try_from(self.pods.len().saturating_sub(self.placed)).unwrap_or(u32::MAX)
    }

    pub(super) fn variant(&self) -> Option<&Variant> {
        self.variants.get(self.step)
    }

    /// Takes up to `count` pods off the rest.
    pub(super) fn take(&mut self, count: u32) -> Vec<ObjectKey> {
        let end = self.placed.saturating_add(count as usize).min(self.pods.len());
        let taken = self.pods.get(self.placed..end).map(<[ObjectKey]>::to_vec).unwrap_or_default();
        self.placed = end;
        taken
    }

    /// Takes one pod by name off the rest.
    pub(super) fn take_named(&mut self, key: &ObjectKey) -> bool {
        let Some(rest) = self.pods.get_mut(self.placed..) else { return false };
        let Ok(position) = rest.binary_search(key) else { return false };
        if let Some(before) = rest.get_mut(..=position) {
            before.rotate_right(1);
        }
        self.placed += 1;
        true
    }

    /// Takes pods back that were placed.
    pub(super) fn give_back(&mut self, returned: Vec<ObjectKey>) {
        let returned: BTreeSet<ObjectKey> = returned.into_iter().collect();
        let placed = self.pods.get(..self.placed).unwrap_or_default();
        let mut kept: Vec<ObjectKey> =
            placed.iter().filter(|pod| !returned.contains(*pod)).cloned().collect();
        let rest = self.pods.get(self.placed..).unwrap_or_default();
        let mut open: Vec<ObjectKey> = rest.iter().cloned().chain(returned).collect();
        open.sort();
        self.placed = kept.len();
        kept.append(&mut open);
        self.pods = kept;
    }

    /// Whether its place depends on no other pod's.
    pub(super) fn is_plain(&self) -> bool {
        self.part.is_free() && self.shape.ports.is_empty()
    }
}

/// Equal pods before they are made a [`Group`].
pub(super) struct PendingGroup {
    pub shape: Arc<PodShape>,
    /// What each asks for, attachments of volumes included.
    pub requests: Resources,
    pub variants: Vec<Variant>,
    pub pods: Vec<ObjectKey>,
}

/// The pods a plan is for, and those that can't be planned for, with a reason.
#[derive(Default)]
pub(super) struct Pending {
    pub groups: Vec<PendingGroup>,
    pub refused: Vec<(ObjectKey, String)>,
    /// Pods on leaving nodes that move: they no longer count where they run.
    pub moving: BTreeSet<ObjectKey>,
    /// What was passed over, one sentence each.
    pub problems: Vec<String>,
}

/// What makes pods equal: everything but the exact labels, which are looked at as far as some
/// selector does.
type GroupKey = (Reverse<i32>, Arc<PodShape>, Vec<Alternatives>, Resources);

/// Collects provisionable pods (Karpenter's rule: found unschedulable, not nominated, not of a
/// DaemonSet or node, not gated) and reschedulable pods on leaving nodes.
pub(super) fn collect(input: &PlanInput<'_>, limits: &AttachLimits, soft_taints: bool) -> Pending {
    let mut pending = Pending::default();
    let mut keyed: BTreeMap<GroupKey, Vec<ObjectKey>> = BTreeMap::new();
    // Pods without volumes are equal where their shapes are, so that contents need no comparing.
    let mut simple: BTreeMap<ShapeId, Vec<ObjectKey>> = BTreeMap::new();
    let view = input.view;
    let mut rules = VolumeRules::of(view);
    let mut rivals = Vec::new();
    let unschedulable = view.unschedulable_pods().iter();
    let unschedulable = unschedulable.filter_map(|key| Some((key, view.pods().get(key)?)));
    let leaving = input.leaving.iter().filter_map(|node| view.node_pods(node));
    let leaving = leaving.flat_map(|pods| pods.all.iter());
    for (key, entry) in unschedulable.chain(leaving) {
        let on_node = !entry.pod.spec.node_name.is_empty();
        let stays = || !is_reschedulable(&entry.pod) || input.staying.contains(key);
        if on_node && stays() || !on_node && !is_provisionable(&entry.pod) {
            continue;
        }
        if let Some(reason) = below_zero(&entry.pod) {
            pending.refused.push((key.clone(), reason));
            continue;
        }
        let Some(shape) = view.shape(entry.shape) else { continue };
        if on_node {
            pending.moving.insert(key.clone());
        }
        if shape.volumes.is_empty() {
            simple.entry(entry.shape).or_default().push(key.clone());
            continue;
        }
        match rules.of_pod(key, shape) {
            Ok(volumes) => {
                let attached = limits.requests(view, key, shape);
                let group = (Reverse(shape.priority), Arc::clone(shape), volumes, attached);
                if rules.may_be_taken(shape) {
                    rivals.push((key.clone(), group));
                } else {
                    keyed.entry(group).or_default().push(key.clone());
                }
            }
            Err(reason) => pending.refused.push((key.clone(), reason)),
        }
    }
    let seated = input.seats.iter().flat_map(|seat| &seat.pods);
    let meant: BTreeSet<&ObjectKey> =
        input.in_flight.iter().flat_map(|node| &node.pods).chain(seated).collect();
    rivals
        .sort_by_cached_key(|(key, (priority, ..))| (*priority, !meant.contains(key), key.clone()));
    for (key, group) in rivals {
        match rules.take(&key, &group.1) {
            Ok(()) => keyed.entry(group).or_default().push(key),
            Err(reason) => pending.refused.push((key, reason)),
        }
    }
    for (id, pods) in simple {
        let Some(shape) = view.shape(id) else { continue };
        let key = (Reverse(shape.priority), Arc::clone(shape), Vec::new(), Resources::new());
        keyed.entry(key).or_default().extend(pods);
    }
    for virtual_pods in input.virtual_pods {
        if let Some(reason) = below_zero(&virtual_pods.pod) {
            let refused = virtual_pods.keys.iter().map(|key| (key.clone(), reason.clone()));
            pending.refused.extend(refused);
            continue;
        }
        let shape = PodShape::of(&virtual_pods.pod);
        let key = (Reverse(shape.priority), Arc::new(shape), Vec::new(), Resources::new());
        keyed.entry(key).or_default().extend(virtual_pods.keys.iter().cloned());
    }
    let mut preferences = Preferences::default();
    for ((_, shape, volumes, attached), mut pods) in keyed {
        pods.sort();
        let most = preferences.of(&shape, pods.len());
        let mut requests = shape.requests.clone();
        requests.add(&attached);
        match variants(&shape, &volumes, input.settings.preference_policy, soft_taints, most) {
            Ok(variants) => {
                pending.groups.push(PendingGroup { shape, requests, variants, pods });
            }
            Err(reason) => {
                pending.refused.extend(pods.into_iter().map(|pod| (pod, reason.clone())));
            }
        }
    }
    if input.settings.preference_policy == PreferencePolicy::Respect {
        pending.problems.extend(preferences.problem());
    }
    pending
}

/// Room that is less than none would be everybody else's.
fn below_zero(pod: &Pod) -> Option<String> {
    Some(format!("{}, which is less than nothing", pod.negative_request()?))
}

/// Whether a pod waits for a node to be made for it: found unschedulable, not nominated, not gated,
/// not of a DaemonSet or a node, not ending.
pub(crate) fn is_provisionable(pod: &Pod) -> bool {
    pod.is_unschedulable()
        && pod.status.nominated_node_name.is_empty()
        && pod.spec.scheduling_gates.is_empty()
        && !pod.is_node_bound()
        && !pod.is_terminating()
        && !pod.is_terminal()
}

/// Whether a bound pod will come back elsewhere once its node is gone.
fn is_reschedulable(pod: &Pod) -> bool {
    !pod.is_node_bound()
        && !pod.is_mirror()
        && !pod.is_terminating()
        && !pod.is_terminal()
        && pod.metadata.controller().is_some()
}

/// Whether a request is for more than every node has some of: GPUs and the like.
pub(super) fn asks_for_devices(names: &[ResourceName], request: &[i64]) -> bool {
    use ResourceName::{Cpu, EphemeralStorage, Memory, Pods};
    let of_all = |name: &ResourceName| {
        matches!(name, Cpu | Memory | EphemeralStorage | Pods) || driver_of(name).is_some()
    };
    names.iter().zip(request).any(|(name, amount)| *amount > 0 && !of_all(name))
}

/// Size order: cpu and memory shares of a common node, largest first.
pub(super) fn size(request: &[i64]) -> i64 {
    let cpu = request.get(CPU).copied().unwrap_or(0);
    let memory = request.get(MEMORY).copied().unwrap_or(0);
    // One cpu costs about as much as 4 GiB on general purpose types.
    let memory_as_cpu = memory / (4 << 20) * 1000 / 1024;
    cpu.saturating_add(memory_as_cpu)
}
