//! Where volumes tie a pod to.

use drover_common::cluster::{ObjectKey, StorageClass};
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};

use super::matching::current_key;
use super::rules::{Alternatives, normalized};
use crate::view::{PodShape, ShapeVolume, View};

/// One set of alternatives for each volume of the pod that is tied to places.
///
/// # Errors
/// A reason, if a volume makes the pod unplaceable for now.
pub(super) fn volume_rules(
    view: &View,
    pod: &ObjectKey,
    shape: &PodShape,
) -> Result<Vec<Alternatives>, String> {
    let mut rules = Vec::new();
    for volume in &shape.volumes {
        let (name, ephemeral_class) = match volume {
            ShapeVolume::Claim(name) => (name.clone(), None),
            ShapeVolume::Ephemeral { volume, class } => {
                (format!("{}-{volume}", pod.name), Some(class.clone()))
            }
        };
        let key = ObjectKey::new(pod.namespace.clone(), name);
        let alternatives = match (view.volume_claims().get(&key), ephemeral_class) {
            (Some(_), _) => claim_rules(view, &key)?,
            (None, Some(class)) => class_rules(view, class.as_deref(), &key, true)?,
            (None, None) => return Err(format!("PersistentVolumeClaim {key} does not exist")),
        };
        if !alternatives.is_empty() && !rules.contains(&alternatives) {
            rules.push(alternatives);
        }
    }
    rules.sort();
    Ok(rules)
}

fn claim_rules(view: &View, key: &ObjectKey) -> Result<Alternatives, String> {
    let Some(claim) = view.volume_claims().get(key) else { return Ok(Vec::new()) };
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("PersistentVolumeClaim {key} is being deleted"));
    }
    if claim.status.phase == "Lost" {
        return Err(format!("PersistentVolumeClaim {key} has lost its volume"));
    }
    if claim.spec.volume_name.is_empty() {
        return class_rules(view, claim.spec.storage_class_name.as_deref(), key, false);
    }
    let Some(volume) = view.volumes().get(&claim.spec.volume_name) else {
        return Err(format!(
            "PersistentVolume {} of PersistentVolumeClaim {key} does not exist",
            claim.spec.volume_name
        ));
    };
    let Some(required) = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref())
    else {
        return Ok(Vec::new());
    };
    // A local volume's host may be gone or full; the zone still holds (Karpenter's rule).
    let keep = |requirement: &Requirement| requirement.key != labels::HOSTNAME;
    Ok(required
        .node_selector_terms
        .iter()
        .map(|term| normalized(&term.match_expressions).into_iter().filter(keep).collect())
        .collect())
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
