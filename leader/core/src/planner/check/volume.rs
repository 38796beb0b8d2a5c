//! Where a pod's volumes can be, and how many of them a node takes.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{
    CsiNode, NodeSelectorTerm, ObjectKey, PersistentVolume, Pod, StorageClass,
};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::requirement::Operator;

use super::host::matches;
use super::{Violation, violation};
use crate::planner::{Plan, PlanInput};

/// Volumes by the driver that attaches them.
pub(super) type Attached = BTreeMap<String, BTreeSet<String>>;

/// Names of the claims behind a pod's volumes, with the class that an ephemeral one will have.
fn claims_of(pod: &Pod) -> Vec<(ObjectKey, Option<Option<String>>)> {
    let namespace = &pod.metadata.namespace;
    let key = |name: String| ObjectKey::new(namespace.clone(), name);
    let mut claims = Vec::new();
    for volume in &pod.spec.volumes {
        if let Some(claim) = &volume.persistent_volume_claim {
            claims.push((key(claim.claim_name.clone()), None));
        } else if let Some(template) = &volume.ephemeral {
            let class = template.pointer("/volumeClaimTemplate/spec/storageClassName");
            let class = class.and_then(|class| class.as_str()).map(str::to_owned);
            claims.push((key(format!("{}-{}", pod.metadata.name, volume.name)), Some(class)));
        }
    }
    claims
}

fn class<'v>(input: &PlanInput<'v>, name: Option<&str>) -> Option<&'v StorageClass> {
    let classes = input.view.storage_classes();
    let default = |class: &&std::sync::Arc<StorageClass>| {
        let key = "storageclass.kubernetes.io/is-default-class";
        class.metadata.annotations.get(key).is_some_and(|value| value == "true")
    };
    let found = match name {
        Some(name) => classes.get(name),
        None => classes.values().find(default),
    };
    found.map(AsRef::as_ref)
}

/// Whether every volume of the pod can be used on a node with these labels.
pub(super) fn admit(
    input: &PlanInput<'_>,
    pod: &Pod,
    node: &BTreeMap<String, String>,
) -> Result<(), String> {
    for (key, ephemeral) in claims_of(pod) {
        let claim = input.view.volume_claims().get(&key);
        if claim.is_none() && ephemeral.is_none() {
            return Err(format!("volume claim {key} does not exist"));
        }
        let gone = claim
            .is_some_and(|c| c.metadata.deletion_timestamp.is_some() || c.status.phase == "Lost");
        if gone {
            return Err(format!("volume claim {key} is going or lost"));
        }
        let volume = claim.map(|claim| claim.spec.volume_name.as_str()).unwrap_or_default();
        if !volume.is_empty() {
            let Some(found) = input.view.volumes().get(volume) else {
                return Err(format!("volume {volume} does not exist"));
            };
            let required = found.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
            let gone = is_gone(input, found);
            if let Some(required) = required
                && !required.node_selector_terms.iter().any(|term| reaches(term, node, gone))
            {
                return Err(format!("volume claim {key} can't be attached"));
            }
            if !in_labelled_zones(found, node) {
                return Err(format!("volume claim {key} is labelled with another zone"));
            }
            continue;
        }
        let name = claim
            .and_then(|claim| claim.spec.storage_class_name.clone())
            .or_else(|| ephemeral.clone().flatten());
        let Some(class) = class(input, name.as_deref()) else {
            return Err(format!("volume claim {key} has no class"));
        };
        let waits = class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer");
        if !waits && ephemeral.is_none() {
            return Err(format!("volume claim {key} is unbound and does not wait for its pod"));
        }
        let allowed = class.allowed_topologies.iter().any(|term| {
            term.match_label_expressions.iter().all(|expression| {
                let value = node.get(labels::stable_name(&expression.key));
                value.is_some_and(|value| expression.values.contains(value))
            })
        });
        if !class.allowed_topologies.is_empty() && !allowed {
            return Err(format!("volume claim {key} can't be made there"));
        }
    }
    Ok(())
}

/// A claim for one pod (ReadWriteOncePod) is used by one pod, those of the plan included.
pub(super) fn check_sole_use(input: &PlanInput<'_>, plan: &Plan, violations: &mut Vec<Violation>) {
    let claims = input.view.volume_claims();
    let sole = |key: &ObjectKey| {
        claims.get(key).is_some_and(|c| c.spec.access_modes.iter().any(|m| m == "ReadWriteOncePod"))
    };
    if !claims.keys().any(sole) {
        return;
    }
    let placed = plan.placements.iter().flat_map(|placement| &placement.pods);
    let planned: BTreeSet<&ObjectKey> =
        placed.chain(plan.launches.iter().flat_map(|launch| &launch.pods)).collect();
    let mut users: BTreeMap<ObjectKey, Vec<&ObjectKey>> = BTreeMap::new();
    for (key, entry) in input.view.pods() {
        let runs = !entry.pod.spec.node_name.is_empty()
            && !matches!(entry.pod.status.phase.as_str(), "Succeeded" | "Failed");
        if !runs && !planned.contains(key) {
            continue;
        }
        for (claim, ephemeral) in claims_of(&entry.pod) {
            if ephemeral.is_none() && sole(&claim) {
                users.entry(claim).or_default().push(key);
            }
        }
    }
    for (claim, users) in users {
        let rule = format!("volume claim {claim} is for one pod, and {} would use it", users.len());
        let planned = users.iter().filter(|user| planned.contains(**user));
        for user in planned.filter(|_| users.len() > 1) {
            violations.push(violation(user.to_string(), rule.clone()));
        }
    }
}

/// Whether a volume was part of a host, and no Node is called like one that it names.
fn is_gone(input: &PlanInput<'_>, volume: &PersistentVolume) -> bool {
    if volume.spec.local.is_none() && volume.spec.host_path.is_none() {
        return false;
    }
    let required = volume.spec.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    let terms = required.into_iter().flat_map(|required| &required.node_selector_terms);
    let mut named = terms
        .flat_map(|term| &term.match_expressions)
        .filter(|one| one.key == labels::HOSTNAME && one.operator == Operator::In)
        .flat_map(|one| &one.values);
    !named.any(|host| {
        input.view.nodes().iter().any(|(name, node)| {
            name.as_str() == host || node.metadata.labels.get(labels::HOSTNAME) == Some(host)
        })
    })
}

/// Whether a node with labels of a zone or region has those that a volume is labelled with, one of several.
fn in_labelled_zones(volume: &PersistentVolume, node: &BTreeMap<String, String>) -> bool {
    let keys = ["topology.kubernetes.io/zone", "topology.kubernetes.io/region"];
    if !keys.iter().any(|key| node.contains_key(*key)) {
        return true;
    }
    volume.metadata.labels.iter().all(|(key, listed)| {
        let key = labels::stable_name(key);
        let own = node.get(key).map(String::as_str);
        let mut zones = listed.split("__").map(str::trim);
        !keys.contains(&key)
            || zones.clone().any(str::is_empty)
            || zones.any(|zone| Some(zone) == own)
    })
}

/// Whether a volume's term holds; if its host is `gone`, all but that.
fn reaches(term: &NodeSelectorTerm, node: &BTreeMap<String, String>, gone: bool) -> bool {
    let others = term.match_expressions.iter().filter(|e| !gone || e.key != labels::HOSTNAME);
    matches(&others.cloned().collect::<Vec<_>>(), node)
}

/// Adds the volumes of a pod.
pub(super) fn attach(input: &PlanInput<'_>, pod: &Pod, attached: &mut Attached) {
    for (key, ephemeral) in claims_of(pod) {
        let claim = input.view.volume_claims().get(&key);
        let volume = claim.map(|claim| claim.spec.volume_name.clone()).unwrap_or_default();
        let (driver, name) = if volume.is_empty() {
            let name = claim
                .and_then(|claim| claim.spec.storage_class_name.clone())
                .or_else(|| ephemeral.clone().flatten());
            (class(input, name.as_deref()).map(|c| c.provisioner.clone()), key.to_string())
        } else {
            let found = input.view.volumes().get(&volume);
            let driver = found.and_then(|found| {
                match (&found.spec.csi, &found.spec.aws_elastic_block_store) {
                    (Some(csi), _) => Some(csi.driver.clone()),
                    (None, Some(_)) => Some("ebs.csi.aws.com".to_owned()),
                    (None, None) => None,
                }
            });
            (driver, volume)
        };
        if let Some(driver) = driver {
            let driver = driver.replace("kubernetes.io/aws-ebs", "ebs.csi.aws.com");
            attached.entry(driver).or_default().insert(name);
        }
    }
}

/// The first driver that is asked to attach more than it can.
pub(super) fn too_many(limits: &CsiNode, attached: &Attached) -> Option<String> {
    limits.spec.drivers.iter().find_map(|driver| {
        let limit = driver.allocatable.as_ref()?.count?;
        let count = attached.get(&driver.name)?.len();
        (count as i64 > i64::from(limit))
            .then(|| format!("{count} volumes of {}, which attaches {limit}", driver.name))
    })
}

/// Whether pods may ask for more volumes than some node of this type attaches: what pods share is counted for each
/// of them, so that a planner may have kept away from the type.
pub(super) fn may_be_too_many(input: &PlanInput<'_>, instance_type: &str, pods: &[&Pod]) -> bool {
    let mut asked: BTreeMap<String, i64> = BTreeMap::new();
    for pod in pods {
        let mut own = Attached::new();
        attach(input, pod, &mut own);
        for (driver, volumes) in own {
            *asked.entry(driver).or_default() += volumes.len() as i64;
        }
    }
    let is_of_type = |name: &NodeName| {
        let labels = input.view.nodes().get(name).map(|node| &node.metadata.labels);
        labels
            .and_then(|labels| labels.get(labels::INSTANCE_TYPE))
            .is_some_and(|t| t == instance_type)
    };
    let of_type = input.view.csi_nodes().iter().filter(|(name, _)| is_of_type(name));
    of_type.flat_map(|(_, node)| &node.spec.drivers).any(|driver| {
        let limit = driver.allocatable.as_ref().and_then(|allocatable| allocatable.count);
        let asked = asked.get(&driver.name);
        limit.zip(asked).is_some_and(|(limit, asked)| *asked > i64::from(limit))
    })
}
