//! Absence and surplus: instances that EC2 no longer shows, instances that no claim owns, claims
//! whose object vanished. Nothing of this is acted on without proof.

use std::collections::BTreeMap;

use drover_common::call::{
    Call, Kind, KubernetesCall, KubernetesFailure, KubernetesFailureKind, Target,
};
use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure, Ec2FailureKind, Instance, InstanceQuery};
use drover_common::id::{InstanceId, IntentId, NodeClaimName};
use drover_common::labels;
use jiff::Timestamp;
use serde_json::Value;

use super::Control;
use super::calls::CallKey;
use crate::command::{Change, DisruptionReason};
use crate::state::{Stage, State};

/// What looked wrong, since when, and what a live check said of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Suspicions {
    /// Instances without a claim.
    orphans: BTreeMap<InstanceId, Suspicion>,
    /// Claims' instances that reads do not show.
    missing: BTreeMap<InstanceId, Suspicion>,
    /// Claims whose NodeClaim is not in the view.
    objects: BTreeMap<NodeClaimName, Suspicion>,
}

#[derive(Clone, Copy, Debug)]
struct Suspicion {
    since: Timestamp,
    checked_at: Option<Timestamp>,
}

impl Suspicion {
    fn new(now: Timestamp) -> Self {
        Self { since: now, checked_at: None }
    }
}

impl Control {
    pub(super) fn collect_garbage(&mut self, state: &State, now: Timestamp) {
        if self.view.is_stale() || !self.cloud.is_read() {
            return;
        }
        let doubtful = self.pool_counts(state).values().any(|count| count.is_doubtful());
        if doubtful {
            self.suspicions = Suspicions::default();
            return;
        }
        self.suspect_orphans(state, now);
        self.suspect_missing(state, now);
        self.suspect_objects(state, now);
    }

    /// Instances with our cluster's uid that no claim owns: terminated after proof.
    fn suspect_orphans(&mut self, state: &State, now: Timestamp) {
        let orphans: Vec<Instance> = self
            .cloud
            .instances()
            .filter(|instance| self.is_orphan(state, instance, now))
            .cloned()
            .collect();
        self.suspicions.orphans.retain(|id, _| orphans.iter().any(|o| o.instance == *id));
        for orphan in orphans {
            let id = orphan.instance;
            let suspicion =
                *self.suspicions.orphans.entry(id.clone()).or_insert(Suspicion::new(now));
            let proven = now.duration_since(suspicion.since) >= self.settings.absence_interval;
            match suspicion.checked_at {
                Some(_) if proven => {
                    let reason = "no NodeClaim owns it".to_owned();
                    self.propose(
                        Change::CommitTermination { instance: id, claim: None, reason },
                        now,
                    );
                }
                None if proven => self.check_instance(&id, now),
                _ => {}
            }
        }
    }

    fn is_orphan(&self, state: &State, instance: &Instance, now: Timestamp) -> bool {
        let id = &instance.instance;
        let intent_open = instance
            .tags
            .get(labels::INTENT_TAG)
            .is_some_and(|tag| state.intents.contains_key(&IntentId::from(tag.as_str())));
        let claimed = instance.tags.get(labels::NODECLAIM_TAG).is_some_and(|tag| {
            let name = NodeClaimName::from(tag.as_str());
            self.view.claims().contains_key(&name) && !state.claims.contains_key(&name)
        });
        !instance.state.is_gone()
            && self.is_ours(instance)
            && !state.instances.contains_key(id)
            && !state.terminations.contains_key(id)
            && self.view.claim_of_instance(id).is_none()
            && !intent_open
            && !claimed
            && now.duration_since(instance.launch_time) > self.settings.absence_age
    }

    /// Claims' instances that two reads did not show, a minute apart: asked for by id, then gone.
    fn suspect_missing(&mut self, state: &State, now: Timestamp) {
        let interval = self.settings.absence_interval;
        let missing: Vec<(InstanceId, NodeClaimName)> = state
            .instances
            .iter()
            .filter(|(id, name)| {
                let old = state.claims.get(*name).is_some_and(|claim| {
                    claim
                        .launched_at
                        .is_some_and(|at| now.duration_since(at) > self.settings.absence_age)
                });
                old && self.cloud.is_missing_twice(id, interval)
            })
            .map(|(id, name)| (id.clone(), name.clone()))
            .collect();
        self.suspicions.missing.retain(|id, _| missing.iter().any(|(other, _)| other == id));
        for (id, claim) in missing {
            let suspicion =
                *self.suspicions.missing.entry(id.clone()).or_insert(Suspicion::new(now));
            if suspicion.checked_at.is_some() {
                let change = Change::RecordTerminated {
                    instance: Some(id),
                    claim: Some(claim),
                    reason: "EC2 does not know it any more".to_owned(),
                };
                self.propose(change, now);
            } else {
                self.check_instance(&id, now);
            }
        }
    }

    /// The live check before anything is done about an instance.
    fn check_instance(&mut self, id: &InstanceId, now: Timestamp) {
        let query = InstanceQuery { instances: vec![id.clone()], ..InstanceQuery::default() };
        let call = Call::Ec2(Ec2Call::DescribeInstances(query));
        self.calls.call(CallKey::DescribeInstance(id.clone()), call, now);
    }

    pub(super) fn take_live_check(
        &mut self,
        id: &InstanceId,
        answer: Result<Ec2Answer, Ec2Failure>,
        now: Timestamp,
    ) {
        let found = match answer {
            Ok(Ec2Answer::Instances(found)) => found,
            Err(failure) if failure.kind == Ec2FailureKind::NotFound => Vec::new(),
            Ok(_) | Err(_) => return,
        };
        let shown = found.iter().any(|instance| instance.instance == *id);
        let ours = found.iter().any(|instance| {
            instance.instance == *id && self.is_ours(instance) && !instance.state.is_gone()
        });
        self.cloud.record_some(found);
        if ours && let Some(suspicion) = self.suspicions.orphans.get_mut(id) {
            suspicion.checked_at = Some(now);
        }
        if !shown && let Some(suspicion) = self.suspicions.missing.get_mut(id) {
            suspicion.checked_at = Some(now);
        }
    }

    /// Claims whose NodeClaim vanished (its finalizer was removed by force): they leave after proof.
    fn suspect_objects(&mut self, state: &State, now: Timestamp) {
        let vanished: Vec<NodeClaimName> = state
            .claims
            .iter()
            .filter(|(name, record)| {
                record.instance.is_some()
                    && !record.is_leaving()
                    && record.stage != Stage::Intent
                    && now.duration_since(record.created_at) > self.settings.absence_age
                    && !self.view.claims().contains_key(*name)
            })
            .map(|(name, _)| name.clone())
            .collect();
        self.suspicions.objects.retain(|name, _| vanished.contains(name));
        for name in vanished {
            let suspicion =
                *self.suspicions.objects.entry(name.clone()).or_insert(Suspicion::new(now));
            let proven = now.duration_since(suspicion.since) >= self.settings.absence_interval;
            match suspicion.checked_at {
                Some(_) if proven => {
                    let words = "its NodeClaim does not exist any more".to_owned();
                    self.commit_disruption(
                        state,
                        vec![name],
                        DisruptionReason::Deletion,
                        words,
                        now,
                    );
                }
                None if proven => {
                    let target = Target::cluster(Kind::NodeClaim, name.to_string());
                    let call = Call::Kubernetes(KubernetesCall::Get { target });
                    self.calls.call(CallKey::ReadClaim(name), call, now);
                }
                _ => {}
            }
        }
    }

    pub(super) fn take_claim_check(
        &mut self,
        claim: &NodeClaimName,
        answer: Result<Value, KubernetesFailure>,
        now: Timestamp,
    ) {
        let absent =
            answer.as_ref().is_err_and(|failure| failure.kind == KubernetesFailureKind::NotFound);
        if absent && let Some(suspicion) = self.suspicions.objects.get_mut(claim) {
            suspicion.checked_at = Some(now);
        }
    }
}
