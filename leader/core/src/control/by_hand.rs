//! NodeClaims that a user made, of no NodePool: launched, and from then on like any other.
//!
//! ```text
//!   NodeClaim → CreateIntent → the claim is marked (finalizer, intent) → launch template, fleet, …
//! ```
//!
//! The intent's id follows from the claim's uid, so that a claim is launched at most once. EC2 is
//! asked only once the claim bears the intent's id and our finalizer: a log that is lost finds the
//! instance by the one, and a deletion can't overtake the launch for the other.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::Kind;
use drover_common::crd::{Condition, ConditionStatus, NodeClaim};
use drover_common::id::{IntentId, NodeClaimName};
use drover_common::labels;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Control;
use super::adopt::{INTENT_ANNOTATION, intent_of, is_driven};
use super::calls::CallKey;
use super::intent::{IntentError, planned_node, short_hash};
use super::object::{self, condition, ready};
use crate::command::{Change, ClaimPlan, LaunchIntent};
use crate::nodeclass::{HASH_VERSION, node_class_hash};
use crate::planner::{Launch, launch_of_claim};
use crate::state::State;

/// What an intent for a claim made by hand needs before EC2 is asked.
pub(super) enum Mark {
    /// The claim bears everything.
    Made,
    /// A patch that makes it so.
    Missing(Value),
    /// The claim is gone or going.
    Void,
}

impl Control {
    /// Plans a launch for each claim that stands for itself and has none, or tells why there is none
    /// and gives the claim up after a while.
    pub(super) fn launch_claims_by_hand(&mut self, state: &State, now: Timestamp) {
        let blind = self.view.is_stale() || !self.cloud.is_read();
        if blind || !self.discovery.is_ready(&self.calls) || state.paused.is_some() {
            return;
        }
        let waiting: Vec<(NodeClaimName, Arc<NodeClaim>)> = self
            .view
            .claims()
            .iter()
            .filter(|(name, claim)| !state.claims.contains_key(*name) && is_by_hand(claim))
            .map(|(name, claim)| (name.clone(), claim.clone()))
            .collect();
        if waiting.is_empty() || self.awaits_intents(state) {
            return;
        }
        let mut reserved = self.reserved(state);
        for (name, claim) in waiting {
            match self.plan_by_hand(state, &reserved, &name, &claim, now) {
                Ok(intent) => {
                    if let Some(target) = intent.reservation() {
                        let count = reserved.entry(target.id.clone()).or_default();
                        *count = count.saturating_add(1);
                    }
                    let id = intent.id.clone();
                    if self.propose(Change::CreateIntent { intent: Box::new(intent) }, now) {
                        self.launches.begin(&id);
                        self.provisioning.expect(&id);
                    }
                }
                Err(reason) => self.tell_not_launched(&name, &claim, &reason, now),
            }
        }
    }

    fn plan_by_hand(
        &self,
        state: &State,
        reserved: &BTreeMap<String, u32>,
        name: &NodeClaimName,
        claim: &NodeClaim,
        now: Timestamp,
    ) -> Result<LaunchIntent, String> {
        let class = &claim.spec.node_class_ref.name;
        let catalog = self
            .discovery
            .catalogs()
            .get(class)
            .ok_or_else(|| IntentError::NoClass(class.clone()).to_string())?;
        let unavailable = super::gather::unavailable_now(state, now);
        let settings = &self.settings.planner;
        let launch = launch_of_claim(claim, catalog, &unavailable, reserved, settings)?;
        self.intent_by_hand(name, claim, &launch, now).map_err(|error| error.to_string())
    }

    fn intent_by_hand(
        &self,
        name: &NodeClaimName,
        claim: &NodeClaim,
        launch: &Launch,
        now: Timestamp,
    ) -> Result<LaunchIntent, IntentError> {
        let cluster = self.cluster_uid().ok_or(IntentError::NoClusterUid)?;
        let uid = claim.metadata.uid.clone().unwrap_or_default();
        let id = IntentId::from(short_hash(&[cluster, "by hand".to_owned(), uid], 16));
        let made = self.request_for(launch, &id, 1)?;
        Ok(LaunchIntent {
            nodepool: None,
            nodeclass: launch.nodeclass.clone(),
            claims: vec![ClaimPlan {
                name: name.clone(),
                object: serde_json::to_value(claim).unwrap_or_default(),
                node: planned_node(launch),
            }],
            request: made.request,
            launch_template: made.template,
            pods: Vec::new(),
            hourly_price_micro: launch.hourly_price_micro,
            created_at: now,
            reason: "a NodeClaim of no NodePool was made".to_owned(),
            id,
        })
    }

    /// Whether the claim of an intent by hand is ready for its launch.
    pub(super) fn mark_of(&self, intent: &LaunchIntent) -> Mark {
        let Some(plan) = intent.claims.first() else { return Mark::Void };
        let planned = plan.object.pointer("/metadata/uid").and_then(Value::as_str);
        let claim = self.view.claims().get(&plan.name).filter(|claim| {
            claim.metadata.uid.as_deref() == planned && object::deleted_at(claim).is_none()
        });
        let Some(claim) = claim else { return Mark::Void };
        let finalizers = object::finalizers(claim);
        let held = finalizers.iter().any(|one| one == labels::TERMINATION_FINALIZER);
        if held && intent_of(claim).as_ref() == Some(&intent.id) {
            return Mark::Made;
        }
        let mut finalizers = finalizers.to_vec();
        if !held {
            finalizers.push(labels::TERMINATION_FINALIZER.to_owned());
        }
        let mut annotations = json!({INTENT_ANNOTATION: intent.id});
        if let Some(class) = self.view.classes().get(&intent.nodeclass) {
            annotations["karpenter.k8s.aws/ec2nodeclass-hash"] = json!(node_class_hash(class));
            annotations["karpenter.k8s.aws/ec2nodeclass-hash-version"] = json!(HASH_VERSION);
        }
        // The Node gets its labels from the claim's: those that requirements fix are among them.
        let mut wanted = plan.node.labels.clone();
        wanted.insert(labels::NODECLASS.to_owned(), intent.nodeclass.clone());
        wanted.remove(labels::HOSTNAME);
        Mark::Missing(json!({"metadata": {
            "uid": claim.metadata.uid,
            "resourceVersion": claim.metadata.resource_version,
            "finalizers": finalizers,
            "annotations": annotations,
            "labels": wanted,
        }}))
    }

    /// Says on the claim why it is not launched, and deletes one that waits for too long.
    fn tell_not_launched(
        &mut self,
        name: &NodeClaimName,
        claim: &NodeClaim,
        reason: &str,
        now: Timestamp,
    ) {
        let patience = self.settings.launch_liveness;
        let waits = object::created_at(claim).is_none_or(|at| now.duration_since(at) <= patience);
        if !waits {
            let note = format!("NodeClaim was not launched within {patience:#}: {reason}");
            self.claim_event(name, "Disrupted", &note, true, now);
            self.delete_claim(name, claim, now);
            return;
        }
        let before = object::status_of(claim);
        let mut wanted = before.clone();
        let generation = claim.metadata.generation;
        let launched = condition(
            "Launched",
            ConditionStatus::Unknown,
            "LaunchFailed",
            reason,
            generation,
            now,
        );
        Condition::set(&mut wanted.conditions, launched);
        let parts = ["Launched", "Registered", "Initialized"];
        let sum = ready(&wanted.conditions, &parts, generation, now);
        Condition::set(&mut wanted.conditions, sum);
        if wanted != before
            && let Ok(status) = serde_json::to_value(&wanted)
        {
            self.claim_event(name, "LaunchFailed", reason, true, now);
            let patch = json!({ "status": status });
            self.patch_claim(name, CallKey::PatchClaimStatus(name.clone()), true, patch, now);
        }
    }
}

/// Whether a claim waits for a launch that only its maker asked for.
fn is_by_hand(claim: &NodeClaim) -> bool {
    let class = &claim.spec.node_class_ref;
    let ours = Kind::Ec2NodeClass.endpoint();
    class.group == ours.group
        && class.kind == ours.kind
        && object::deleted_at(claim).is_none()
        && !is_driven(claim)
}
