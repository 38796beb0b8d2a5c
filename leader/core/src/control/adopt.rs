//! NodeClaims that the log does not know: after the log was lost, or moved over from Karpenter.
//!
//! A claim is adopted with the instance its status names, or that bears its tag or its intent's, if
//! EC2 shows it. One for which two reads of EC2 show nothing is adopted as gone, which removes it, unless its Node
//! is Ready: whoever reads EC2 under another cluster's name must not take a cluster down.

use drover_common::crd::{Condition, NodeClaim};
use drover_common::ec2::Instance;
use drover_common::id::{IntentId, NodeClaimName, NodeName, NodePoolName, instance_of_provider_id};
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::Control;
use super::claim_status::pool_label;
use super::object;
use super::problem::Subject;
use crate::command::{AdoptedClaim, Change, ClaimInstance};
use crate::state::State;

/// Annotation of a NodeClaim: the intent that made it.
pub(super) const INTENT_ANNOTATION: &str = labels::INTENT_TAG;

impl Control {
    pub(super) fn adopt_claims(&mut self, state: &State, now: Timestamp) {
        if !self.cloud.is_read() || self.view.is_stale() {
            return;
        }
        let unknown: Vec<(NodeClaimName, std::sync::Arc<NodeClaim>)> = self
            .view
            .claims()
            .iter()
            .filter(|(name, claim)| !state.claims.contains_key(*name) && is_driven(claim))
            .map(|(name, claim)| (name.clone(), claim.clone()))
            .collect();
        for (name, claim) in &unknown {
            let instance = self.instance_of_unknown(state, name, claim, &unknown);
            if instance.is_none() && !self.is_surely_without_instance(claim, now) {
                continue;
            }
            if instance.is_none() && self.has_ready_node(claim) {
                let words = format!(
                    "EC2 shows no instance of NodeClaim {name} under this cluster's name and tags, and its Node is Ready"
                );
                self.problems.tell(Subject::Adoption, words, now);
                continue;
            }
            let adopted = self.adopted(name, claim, instance.as_ref(), now);
            self.propose(Change::AdoptClaim { claim: Box::new(adopted) }, now);
        }
    }

    /// Whether claims wait to be adopted: as long as some do, EC2 may hold room nobody counts.
    pub(super) fn has_unadopted(&self, state: &State, now: Timestamp) -> bool {
        self.view.claims().iter().any(|(name, claim)| {
            let young = object::created_at(claim)
                .is_none_or(|at| now.duration_since(at) <= self.settings.absence_age);
            !state.claims.contains_key(name) && is_driven(claim) && young
        })
    }

    fn instance_of_unknown(
        &self,
        state: &State,
        name: &NodeClaimName,
        claim: &NodeClaim,
        unknown: &[(NodeClaimName, std::sync::Arc<NodeClaim>)],
    ) -> Option<Instance> {
        let free = |instance: &&Instance| {
            !state.instances.contains_key(&instance.instance)
                && !state.terminations.contains_key(&instance.instance)
        };
        let status = object::status_of(claim);
        if let Some(id) = status.provider_id.as_deref().and_then(instance_of_provider_id) {
            return self.cloud.get(&id).filter(free).cloned();
        }
        let tagged = self.cloud.instances().find(|instance| {
            instance.tags.get(labels::NODECLAIM_TAG).is_some_and(|tag| tag == name.as_str())
                && self.is_ours(instance)
        });
        if let Some(instance) = tagged.filter(free) {
            return Some(instance.clone());
        }
        // Launched, but neither recorded nor tagged: claims and instances of one intent are alike,
        // so they are paired in order.
        let intent = intent_of(claim)?;
        let siblings = unknown.iter().filter(|(_, other)| {
            intent_of(other).as_ref() == Some(&intent)
                && other.status.as_ref().is_none_or(|s| s.provider_id.is_none())
        });
        let position = siblings.take_while(|(other, _)| other != name).count();
        self.cloud
            .instances()
            .filter(|instance| {
                instance.tags.get(labels::INTENT_TAG).is_some_and(|tag| tag == intent.as_str())
                    && !instance.tags.contains_key(labels::NODECLAIM_TAG)
                    && self.is_ours(instance)
            })
            .filter(free)
            .nth(position)
            .cloned()
    }

    /// Older than five minutes, and two reads of EC2 since this reign began did not show it. (Reads
    /// of all instances are `instance_refresh` apart; the reign's age stands for their number.)
    fn is_surely_without_instance(&self, claim: &NodeClaim, now: Timestamp) -> bool {
        let Some(reign) = self.reign else { return false };
        let old = object::created_at(claim)
            .is_some_and(|at| now.duration_since(at) > self.settings.absence_age);
        let proof = self.settings.absence_interval.saturating_add(self.settings.instance_refresh);
        old && now.duration_since(reign.since) > proof
    }

    /// Whether a kubelet speaks for the claim's instance, whatever EC2 shows.
    fn has_ready_node(&self, claim: &NodeClaim) -> bool {
        let id = object::status_of(claim).provider_id.as_deref().and_then(instance_of_provider_id);
        let node = id.and_then(|id| self.view.node_of_instance(&id));
        node.is_some_and(|node| node.is_ready())
    }

    fn adopted(
        &self,
        name: &NodeClaimName,
        claim: &NodeClaim,
        instance: Option<&Instance>,
        now: Timestamp,
    ) -> AdoptedClaim {
        let nodeclass = claim.spec.node_class_ref.name.clone();
        let node = instance.and_then(|i| self.view.node_of_instance(&i.instance)).filter(|node| {
            node.metadata.labels.get(labels::REGISTERED).is_some_and(|value| value == "true")
        });
        let status = object::status_of(claim);
        AdoptedClaim {
            name: name.clone(),
            nodepool: pool_label(claim).map(NodePoolName::from),
            intent: intent_of(claim),
            node: node.map(|node| NodeName::from(node.metadata.name.as_str())),
            initialized: Condition::is_true(&status.conditions, "Initialized"),
            failure: instance.is_none().then(|| "EC2 shows no instance of it".to_owned()),
            created_at: object::created_at(claim).unwrap_or(now),
            hourly_price_micro: instance
                .and_then(|i| {
                    self.discovery.price(&nodeclass, &i.instance_type, &i.zone, i.capacity_type)
                })
                .unwrap_or(0),
            instance: instance.map(|i| ClaimInstance {
                id: i.instance.clone(),
                instance_type: i.instance_type.clone(),
                zone: i.zone.clone(),
                subnet: i.subnet.clone(),
                capacity_type: i.capacity_type,
                // One on demand may have landed in an open reservation.
                reservation: i
                    .reservation
                    .clone()
                    .filter(|_| i.capacity_type == CapacityType::Reserved),
                image: i.image.clone(),
            }),
            nodeclass,
        }
    }
}

/// Whether a driver, this or another, made the claim or has begun its launch. Any other is one that
/// a user made and that waits to be launched.
pub(super) fn is_driven(claim: &NodeClaim) -> bool {
    let launched = claim.status.as_ref().is_some_and(|status| status.provider_id.is_some());
    pool_label(claim).is_some() || intent_of(claim).is_some() || launched
}

pub(super) fn intent_of(claim: &NodeClaim) -> Option<IntentId> {
    let annotations = claim.metadata.annotations.as_ref()?;
    annotations.get(INTENT_ANNOTATION).map(|id| IntentId::from(id.as_str()))
}
