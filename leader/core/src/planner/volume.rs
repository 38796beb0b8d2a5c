//! Where volumes tie a pod to.

use std::collections::BTreeSet;
use std::sync::Arc;

use drover_common::cluster::{
    NodeSelectorTerm, ObjectKey, PersistentVolume, PersistentVolumeClaim, StorageClass,
};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};

use super::matching::current_key;
use super::rules::{Alternatives, normalized};
use super::sole::SoleUse;
use crate::view::{PodShape, ShapeVolume, View};

/// What a cluster's volumes ask of nodes.
pub(super) struct VolumeRules<'v> {
    view: &'v View,
    /// What the cluster's Nodes are called, where some volume names a host.
    hosts: BTreeSet<&'v str>,
    sole: SoleUse,
}

impl<'v> VolumeRules<'v> {
    pub(super) fn of(view: &'v View) -> Self {
        let names_host = |volume: &Arc<PersistentVolume>| {
            let terms = terms(volume).iter();
            terms.flat_map(|term| &term.match_expressions).any(|one| one.key == labels::HOSTNAME)
        };
        let hosts = match view.volumes().values().any(names_host) {
            true => view
                .nodes()
                .iter()
                .flat_map(|(name, node)| {
                    let host = node.metadata.labels.get(labels::HOSTNAME);
                    [Some(name.as_str()), host.map(String::as_str)].into_iter().flatten()
                })
                .collect(),
            false => BTreeSet::new(),
        };
        Self { view, hosts, sole: SoleUse::of(view) }
    }

    /// One set of alternatives for each volume of the pod that is tied to places.
    ///
    /// # Errors
    /// A reason, if a volume makes the pod unplaceable for now.
    pub(super) fn of_pod(
        &self,
        pod: &ObjectKey,
        shape: &PodShape,
    ) -> Result<Vec<Alternatives>, String> {
        if let Some(reason) = self.sole.refusal(pod, shape) {
            return Err(reason);
        }
        let mut rules = Vec::new();
        for volume in &shape.volumes {
            let (key, ephemeral_class) = claim_of(pod, volume);
            let alternatives = match (self.view.volume_claims().get(&key), ephemeral_class) {
                (Some(claim), _) => self.of_claim(claim, &key)?,
                (None, Some(class)) => class_rules(self.view, class, &key, true)?,
                (None, None) => return Err(format!("PersistentVolumeClaim {key} does not exist")),
            };
            if !alternatives.is_empty() && !rules.contains(&alternatives) {
                rules.push(alternatives);
            }
        }
        rules.sort();
        Ok(rules)
    }

    /// Whether the pod has a claim that one pod at a time may use.
    pub(super) fn may_be_taken(&self, shape: &PodShape) -> bool {
        self.sole.concerns(shape)
    }

    /// Plans a pod: its claims are taken from then on.
    ///
    /// # Errors
    /// A reason, if another was planned first.
    pub(super) fn take(&mut self, pod: &ObjectKey, shape: &PodShape) -> Result<(), String> {
        if let Some(reason) = self.sole.refusal(pod, shape) {
            return Err(reason);
        }
        self.sole.plan(pod, shape);
        Ok(())
    }

    fn of_claim(
        &self,
        claim: &PersistentVolumeClaim,
        key: &ObjectKey,
    ) -> Result<Alternatives, String> {
        if claim.metadata.deletion_timestamp.is_some() {
            return Err(format!("PersistentVolumeClaim {key} is being deleted"));
        }
        if claim.status.phase == "Lost" {
            return Err(format!("PersistentVolumeClaim {key} has lost its volume"));
        }
        if claim.spec.volume_name.is_empty() {
            return class_rules(self.view, claim.spec.storage_class_name.as_deref(), key, false);
        }
        let Some(volume) = self.view.volumes().get(&claim.spec.volume_name) else {
            return Err(format!(
                "PersistentVolume {} of PersistentVolumeClaim {key} does not exist",
                claim.spec.volume_name
            ));
        };
        Ok(self.of_volume(volume))
    }

    fn of_volume(&self, volume: &PersistentVolume) -> Alternatives {
        // Whoever makes a host's disk anew makes it in the zone of the one that is gone (Karpenter's rule).
        let gone = volume.spec.is_of_host() && !self.has_host(volume);
        let keep = |one: &Requirement| !gone || one.key != labels::HOSTNAME;
        let terms = terms(volume).iter();
        let mut alternatives: Alternatives = terms
            .map(|term| normalized(&term.match_expressions).into_iter().filter(keep).collect())
            .collect();
        let zones = zones(volume);
        if alternatives.is_empty() && !zones.is_empty() {
            alternatives.push(Vec::new());
        }
        for term in &mut alternatives {
            let more: Vec<_> = zones.iter().filter(|one| !term.contains(*one)).cloned().collect();
            term.extend(more);
        }
        alternatives
    }

    /// Whether some Node is among the hosts that a volume names.
    fn has_host(&self, volume: &PersistentVolume) -> bool {
        let expressions = terms(volume).iter().flat_map(|term| &term.match_expressions);
        let mut named = expressions.filter_map(hosts_named).flatten();
        named.any(|host| self.hosts.contains(host.as_str()))
    }

    /// Why a pod can be on no other Node than this: one of its volumes is there.
    pub(super) fn tie(&self, pod: &ObjectKey, shape: &PodShape, node: &NodeName) -> Option<String> {
        let own = self.view.nodes().get(node)?.metadata.labels.get(labels::HOSTNAME);
        let is_elsewhere = |host: &String| {
            host != node.as_str() && Some(host) != own && self.hosts.contains(host.as_str())
        };
        let is_here = |term: &Vec<Requirement>| {
            term.iter().filter_map(hosts_named).any(|hosts| !hosts.iter().any(is_elsewhere))
        };
        shape.volumes.iter().find_map(|volume| {
            let claim = self.view.volume_claims().get(&claim_of(pod, volume).0)?;
            let volume = self.view.volumes().get(&claim.spec.volume_name)?;
            let rules = self.of_volume(volume);
            let name = &claim.spec.volume_name;
            (!rules.is_empty() && rules.iter().all(is_here))
                .then(|| format!("PersistentVolume {name} can be used on host {node} alone"))
        })
    }
}

/// The terms of a volume's node affinity.
fn terms(volume: &PersistentVolume) -> &[NodeSelectorTerm] {
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    required.map_or(&[], |required| &required.node_selector_terms)
}

/// What a volume's own labels ask of nodes (the scheduler's VolumeZone): one of the zones that `__` joins. A
/// label that lists none is passed over there, too.
fn zones(volume: &PersistentVolume) -> Vec<Requirement> {
    let topology = volume.metadata.labels.iter().map(|(key, text)| (current_key(key), text));
    let topology = topology.filter(|(key, _)| matches!(*key, labels::ZONE | labels::REGION));
    topology
        .map(|(key, text)| Requirement {
            key: key.to_owned(),
            operator: Operator::In,
            values: text.split("__").map(|zone| zone.trim().to_owned()).collect(),
            min_values: None,
        })
        .filter(|one| one.values.iter().all(|zone| !zone.is_empty()))
        .collect()
}

/// The hosts that a requirement lists, if it does.
fn hosts_named(requirement: &Requirement) -> Option<&Vec<String>> {
    let lists = requirement.key == labels::HOSTNAME && requirement.operator == Operator::In;
    lists.then_some(&requirement.values)
}

/// The claim of a pod's volume, and the class that an ephemeral one asks for.
fn claim_of<'s>(pod: &ObjectKey, volume: &'s ShapeVolume) -> (ObjectKey, Option<Option<&'s str>>) {
    let (name, class) = match volume {
        ShapeVolume::Claim(name) => (name.clone(), None),
        ShapeVolume::Ephemeral { volume, class } => {
            (format!("{}-{volume}", pod.name), Some(class.as_deref()))
        }
    };
    (ObjectKey::new(pod.namespace.clone(), name), class)
}

/// Rules of a volume that is yet to be made.
fn class_rules(
    view: &View,
    class: Option<&str>,
    key: &ObjectKey,
    ephemeral: bool,
) -> Result<Alternatives, String> {
    let Some(class) = class_of(view, class) else {
        return Err(match class {
            Some(name) if !name.is_empty() => {
                format!("StorageClass {name} of {key} does not exist")
            }
            _ => format!("PersistentVolumeClaim {key} is unbound and has no StorageClass"),
        });
    };
    let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
    if !waits && !ephemeral {
        return Err(format!(
            "PersistentVolumeClaim {key} is unbound and its StorageClass {} binds immediately",
            class.metadata.name
        ));
    }
    Ok(class
        .allowed_topologies
        .iter()
        .map(|term| {
            let each = term.match_label_expressions.iter().map(|expression| Requirement {
                key: current_key(&expression.key).to_owned(),
                operator: Operator::In,
                values: expression.values.clone(),
                min_values: None,
            });
            each.collect()
        })
        .collect())
}

/// The class by name, or the default one.
pub(super) fn class_of<'v>(view: &'v View, name: Option<&str>) -> Option<&'v StorageClass> {
    match name {
        Some(name) => view.storage_classes().get(name).map(AsRef::as_ref),
        None => view.storage_classes().values().map(AsRef::as_ref).find(|class| is_default(class)),
    }
}

fn is_default(class: &StorageClass) -> bool {
    class
        .metadata
        .annotations
        .get("storageclass.kubernetes.io/is-default-class")
        .is_some_and(|value| value == "true")
}
