//! From a planned launch to an intent: ids, names, the NodeClaim, the exact request.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use drover_common::crd::{Ec2NodeClass, NodePool, RawResources};
use drover_common::ec2::{
    FleetOverride, FleetRequest, LaunchTemplateRequest, ReservationUse, Tags,
};
use drover_common::id::{IntentId, NodeClaimName};
use drover_common::instance_type::{CapacityType, ReservationKind};
use drover_common::labels;
use drover_common::resources::Resources;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Control;
use super::adopt::INTENT_ANNOTATION;
use crate::command::{ClaimPlan, LaunchIntent, PlannedNode, PodCount};
use crate::nodeclass::{
    HASH_VERSION, NodeRegistration, ResolvedClass, launch_template, node_class_hash,
    node_pool_hash, resource_tags,
};
use crate::planner::Launch;
use crate::state::State;

/// Letters of names: those Kubernetes uses for generated names, so that none spells a word.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Most claims of one intent: what fails, fails together.
pub(super) const MOST_CLAIMS: usize = 100;

/// A text of letters that depends on all parts.
pub(super) fn short_hash<T: AsRef<[u8]>>(parts: &[T], length: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        let bytes = part.as_ref();
        hasher.update((bytes.len() as u64).to_be_bytes());
        hasher.update(bytes);
    }
    let letters = hasher.finalize();
    letters
        .iter()
        .filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len()))
        .map(|letter| char::from(*letter))
        .take(length)
        .collect()
}

/// Why a planned launch can't be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum IntentError {
    #[error("NodePool {0} does not exist")]
    NoPool(String),
    #[error("EC2NodeClass {0} is not ready")]
    NoClass(String),
    #[error("EC2NodeClass {0} is being deleted")]
    ClassGoes(String),
    #[error("EC2NodeClass {class}: no image or subnet for any of the planned types")]
    NoOverrides { class: String },
    #[error("EC2NodeClass {class}, field spec.userData: {reason}")]
    UserData { class: String, reason: String },
    #[error("the kube-system namespace is not known yet")]
    NoClusterUid,
}

/// A request to EC2 and what it is made by.
pub(super) struct Made {
    pub(super) request: FleetRequest,
    pub(super) template: LaunchTemplateRequest,
    class: Arc<Ec2NodeClass>,
}

impl Control {
    /// An intent for launches that are alike in everything but their pods. The id depends on the
    /// cluster, the term, a count and the time, so that it is new even after the log was lost.
    pub(super) fn intent_for(
        &mut self,
        state: &State,
        launches: &[Launch],
        taken: &mut BTreeSet<NodeClaimName>,
        now: Timestamp,
    ) -> Result<Option<LaunchIntent>, IntentError> {
        let Some(first) = launches.first() else { return Ok(None) };
        let uid = self.cluster_uid().ok_or(IntentError::NoClusterUid)?;
        let pool = self
            .view
            .pools()
            .get(&first.nodepool)
            .cloned()
            .ok_or_else(|| IntentError::NoPool(first.nodepool.to_string()))?;
        let term = self.term().unwrap_or(0);
        let count = self.provisioning.next_count();
        let parts = [uid, term.to_string(), count.to_string(), now.to_string()];
        let id = IntentId::from(short_hash(&parts, 16));
        let made = self.request_for(first, &id, launches.len())?;
        let claims = self.claim_plans(state, launches, &id, &pool, &made.class, taken);
        Ok(Some(LaunchIntent {
            request: made.request,
            id,
            nodepool: Some(first.nodepool.clone()),
            nodeclass: first.nodeclass.clone(),
            claims,
            launch_template: made.template,
            pods: self.pod_counts(launches),
            hourly_price_micro: first.hourly_price_micro,
            created_at: now,
            reason: describe(launches),
        }))
    }

    /// The request for so many instances of a launch, and the template that it names.
    pub(super) fn request_for(
        &self,
        launch: &Launch,
        id: &IntentId,
        count: usize,
    ) -> Result<Made, IntentError> {
        let uid = self.cluster_uid().ok_or(IntentError::NoClusterUid)?;
        let not_ready = || IntentError::NoClass(launch.nodeclass.clone());
        let class = self.view.classes().get(&launch.nodeclass).cloned().ok_or_else(not_ready)?;
        if class.metadata.deletion_timestamp.is_some() {
            return Err(IntentError::ClassGoes(launch.nodeclass.clone()));
        }
        let resolved = self.discovery.resolved(&launch.nodeclass).ok_or_else(not_ready)?;
        // Instances are found by the tag of their pool: one of no pool bears it, too, empty.
        let pool = launch.nodepool.as_str();
        let mut tags = resource_tags(&class, &self.settings.cluster, Some(pool));
        tags.insert(labels::CLUSTER_UID_TAG.to_owned(), uid);
        let (overrides, image) = self.overrides(launch, resolved);
        let Some(image) = image else {
            return Err(IntentError::NoOverrides { class: launch.nodeclass.clone() });
        };
        let template = self.template_for(launch, &class, resolved, &image, &tags)?;
        tags.insert(labels::INTENT_TAG.to_owned(), id.to_string());
        let request = FleetRequest {
            client_token: id.client_token(),
            launch_template: template.name.clone(),
            overrides,
            capacity_type: launch.capacity_type,
            prioritized: launch.capacity_type == CapacityType::OnDemand,
            capacity_block: launch
                .reservation
                .as_ref()
                .is_some_and(|target| target.kind == ReservationKind::CapacityBlock),
            count: u32::try_from(count).unwrap_or(u32::MAX),
            tags,
            context: class.spec.context.clone(),
        };
        Ok(Made { request, template, class })
    }

    fn claim_plans(
        &self,
        state: &State,
        launches: &[Launch],
        id: &IntentId,
        pool: &NodePool,
        class: &Ec2NodeClass,
        taken: &mut BTreeSet<NodeClaimName>,
    ) -> Vec<ClaimPlan> {
        launches
            .iter()
            .map(|launch| {
                let name = self.fresh_name(state, &launch.nodepool.0, id, taken);
                ClaimPlan {
                    object: claim_object(&name, id, launch, pool, class),
                    node: planned_node(launch),
                    name,
                }
            })
            .collect()
    }

    fn template_for(
        &self,
        launch: &Launch,
        class: &Ec2NodeClass,
        resolved: &ResolvedClass,
        image: &str,
        tags: &Tags,
    ) -> Result<LaunchTemplateRequest, IntentError> {
        let registration = NodeRegistration {
            labels: launch.labels.clone(),
            taints: launch.taints.iter().chain(&launch.startup_taints).cloned().collect(),
        };
        // A class that selects reservations says who uses them; its other nodes use none, so that
        // those that EC2 would fill by itself are there when they are counted on.
        let reservation = match &launch.reservation {
            Some(target) => Some(ReservationUse::Only(target.clone())),
            None => resolved.reservations.as_ref().map(|_| ReservationUse::Never),
        };
        let cluster = &self.settings.cluster;
        launch_template(class, resolved, image, &registration, cluster, tags, reservation).map_err(
            |error| IntentError::UserData {
                class: launch.nodeclass.clone(),
                reason: error.to_string(),
            },
        )
    }

    /// The launch's offerings as overrides, and the image of the first; others name their own where
    /// it differs.
    fn overrides(
        &self,
        launch: &Launch,
        resolved: &ResolvedClass,
    ) -> (Vec<FleetOverride>, Option<String>) {
        let mut main: Option<String> = None;
        let mut overrides = Vec::new();
        for offering in &launch.offerings {
            let kind = self.discovery.instance_type(&launch.nodeclass, &offering.instance_type);
            let image = kind
                .and_then(|kind| resolved.images.iter().find(|image| image.is_for(&kind.labels)));
            let (Some(image), Some(subnet)) = (image, resolved.subnet(&offering.zone)) else {
                continue;
            };
            let id = image.image.id.clone();
            let main = main.get_or_insert_with(|| id.clone());
            overrides.push(FleetOverride {
                instance_type: offering.instance_type.to_string(),
                subnet: subnet.id.clone(),
                zone: offering.zone.to_string(),
                image: (*main != id).then_some(id),
            });
        }
        (overrides, main)
    }

    /// `<pool>-<five letters>`, unlike any claim there is.
    fn fresh_name(
        &self,
        state: &State,
        pool: &str,
        id: &IntentId,
        taken: &mut BTreeSet<NodeClaimName>,
    ) -> NodeClaimName {
        let mut salt = taken.len();
        loop {
            let letters = short_hash(&[id.to_string(), salt.to_string()], 5);
            let name = NodeClaimName::from(format!("{pool}-{letters}"));
            let exists = state.claims.contains_key(&name) || self.view.claims().contains_key(&name);
            if !exists && taken.insert(name.clone()) {
                return name;
            }
            salt = salt.saturating_add(1);
        }
    }

    fn pod_counts(&self, launches: &[Launch]) -> Vec<PodCount> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for pod in launches.iter().flat_map(|launch| &launch.pods) {
            let count = counts.entry(self.describe_pod(pod)).or_default();
            *count = count.saturating_add(1);
        }
        counts.into_iter().map(|(shape, count)| PodCount { shape, count }).collect()
    }

    /// A pod's shape in words: its owner and its requests.
    fn describe_pod(&self, key: &ObjectKey) -> String {
        let Some(pod) = self.view.pod(key) else { return key.to_string() };
        let owner = pod.metadata.controller().map_or_else(
            || key.to_string(),
            |owner| format!("{}/{} {}", key.namespace, owner.kind, owner.name),
        );
        let mut requests = pod.requests();
        requests.remove(&drover_common::resources::ResourceName::Pods);
        format!("{owner} ({requests})")
    }
}

fn describe(launches: &[Launch]) -> String {
    let pods: usize = launches.iter().map(|launch| launch.pods.len()).sum();
    let cheapest = launches.first().and_then(|launch| launch.offerings.first());
    let offerings = launches.first().map_or(0, |launch| launch.offerings.len());
    let cheapest = cheapest.map_or_else(String::new, |offering| {
        format!(", cheapest {} in {}", offering.instance_type, offering.zone)
    });
    format!(
        "{pods} pods fit no node; {} nodes of {offerings} possible offerings{cheapest}",
        launches.len()
    )
}

pub(super) fn planned_node(launch: &Launch) -> PlannedNode {
    PlannedNode {
        labels: launch.labels.clone(),
        requirements: launch.requirements.clone(),
        taints: launch.taints.clone(),
        allocatable: launch.allocatable.clone(),
        pods: launch.pods.clone(),
    }
}

/// The NodeClaim as it is created.
fn claim_object(
    name: &NodeClaimName,
    id: &IntentId,
    launch: &Launch,
    pool: &NodePool,
    class: &Ec2NodeClass,
) -> Value {
    let template = &pool.spec.template;
    let mut labels = template.metadata.labels.clone();
    labels.extend(launch.labels.clone());
    labels.insert(labels::NODEPOOL.to_owned(), launch.nodepool.to_string());
    labels.insert(labels::NODECLASS.to_owned(), launch.nodeclass.clone());
    // What only the node itself or its instance can tell is no label of a claim.
    labels.remove(labels::HOSTNAME);
    let mut annotations = template.metadata.annotations.clone();
    annotations.extend([
        (INTENT_ANNOTATION.to_owned(), id.to_string()),
        ("karpenter.sh/nodepool-hash".to_owned(), node_pool_hash(pool)),
        ("karpenter.sh/nodepool-hash-version".to_owned(), HASH_VERSION.to_owned()),
        ("karpenter.k8s.aws/ec2nodeclass-hash".to_owned(), node_class_hash(class)),
        ("karpenter.k8s.aws/ec2nodeclass-hash-version".to_owned(), HASH_VERSION.to_owned()),
    ]);
    if launch.min_values_relaxed {
        annotations
            .insert("karpenter.sh/nodeclaim-min-values-relaxed".to_owned(), "true".to_owned());
    }
    let spec = template.spec.claim(launch.requirements.clone(), raw(&launch.requests));
    json!({
        "apiVersion": "karpenter.sh/v1",
        "kind": "NodeClaim",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": annotations,
            "finalizers": [labels::TERMINATION_FINALIZER],
            "ownerReferences": [{
                "apiVersion": "karpenter.sh/v1",
                "kind": "NodePool",
                "name": pool.metadata.name,
                "uid": pool.metadata.uid,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": spec,
    })
}

/// Amounts as quantities of a custom resource.
pub(super) fn raw(resources: &Resources) -> RawResources {
    resources
        .iter()
        .map(|(name, amount)| {
            let text = drover_common::resources::format_amount(name, amount);
            (name.as_str().to_owned(), text.into())
        })
        .collect()
}

/// Tags that find an intent's instances.
pub(super) fn intent_tags(id: &IntentId) -> Tags {
    Tags::from([(labels::INTENT_TAG.to_owned(), id.to_string())])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_hashes_depend_on_every_part_and_its_borders() {
        let hash = |parts: &[&str]| short_hash(parts, 16);
        assert_eq!(hash(&["a", "b"]).len(), 16);
        assert_eq!(hash(&["a", "b"]), hash(&["a", "b"]));
        assert_ne!(hash(&["a", "b"]), hash(&["ab"]));
        assert_ne!(hash(&["a", "b"]), hash(&["a", "c"]));
        assert!(hash(&["a"]).bytes().all(|letter| LETTERS.contains(&letter)));
    }
}
