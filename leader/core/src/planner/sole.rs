//! Claims that one pod at a time may use (`ReadWriteOncePod`), and the pods that do.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{ObjectKey, PersistentVolumeClaim};

use crate::view::{PodEntry, PodShape, ShapeVolume, View};

/// Who uses each such claim: pods that are bound and have not ended, and those that are planned first.
#[derive(Default)]
pub(super) struct SoleUse {
    users: BTreeMap<ObjectKey, Users>,
}

#[derive(Default)]
struct Users {
    bound: BTreeSet<ObjectKey>,
    planned: Option<ObjectKey>,
}

impl SoleUse {
    pub(super) fn of(view: &View) -> Self {
        let sole = view.volume_claims().iter().filter(|(_, claim)| is_sole(claim));
        let users = sole.map(|(key, _)| (key.clone(), Users::default())).collect();
        let mut all = Self { users };
        // Few clusters have such claims at all.
        if all.users.is_empty() {
            return all;
        }
        let is_bound =
            |entry: &PodEntry| !entry.pod.spec.node_name.is_empty() && !entry.pod.is_terminal();
        for (pod, entry) in view.pods().iter().filter(|(_, entry)| is_bound(entry)) {
            let Some(shape) = view.shape(entry.shape) else { continue };
            for claim in claims(shape) {
                if let Some(users) = all.users.get_mut(&key(shape, claim)) {
                    users.bound.insert(pod.clone());
                }
            }
        }
        all
    }

    /// Whether a pod uses such a claim.
    pub(super) fn concerns(&self, shape: &PodShape) -> bool {
        !self.users.is_empty()
            && claims(shape).any(|claim| self.users.contains_key(&key(shape, claim)))
    }

    /// Why a pod can't run anywhere for now: another that is bound uses its claim, or another was planned first.
    pub(super) fn refusal(&self, pod: &ObjectKey, shape: &PodShape) -> Option<String> {
        claims(shape).find_map(|claim| {
            let claim = key(shape, claim);
            let users = self.users.get(&claim)?;
            if let Some(other) = users.bound.iter().find(|user| *user != pod) {
                return Some(format!(
                    "PersistentVolumeClaim {claim} is ReadWriteOncePod and in use by Pod {other}"
                ));
            }
            let first = users.planned.as_ref().filter(|user| *user != pod)?;
            Some(format!(
                "PersistentVolumeClaim {claim} is ReadWriteOncePod and Pod {first} comes first"
            ))
        })
    }

    /// Plans a pod, so that no other is.
    pub(super) fn plan(&mut self, pod: &ObjectKey, shape: &PodShape) {
        for claim in claims(shape) {
            if let Some(users) = self.users.get_mut(&key(shape, claim)) {
                users.planned = Some(pod.clone());
            }
        }
    }
}

fn is_sole(claim: &PersistentVolumeClaim) -> bool {
    claim.spec.access_modes.iter().any(|mode| mode == "ReadWriteOncePod")
}

fn key(shape: &PodShape, claim: &str) -> ObjectKey {
    ObjectKey::new(shape.namespace.clone(), claim)
}

/// Names of claims; that of an ephemeral volume is its pod's alone.
fn claims(shape: &PodShape) -> impl Iterator<Item = &String> {
    shape.volumes.iter().filter_map(|volume| match volume {
        ShapeVolume::Claim(name) => Some(name),
        ShapeVolume::Ephemeral { .. } => None,
    })
}
