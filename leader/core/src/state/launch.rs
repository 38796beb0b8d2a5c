//! Intents and their outcomes.

use std::collections::BTreeSet;

use drover_common::ec2::FleetError;
use drover_common::id::IntentId;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Applied, ClaimRecord, OfferingKey, Stage, State};
use crate::command::{ClaimLaunch, LaunchIntent, UnavailableOffering};
use crate::journal::Decision;

/// How many launches in a row must fail to register before a pool backs off.
const FAILURES_BEFORE_BACKOFF: u32 = 4;
/// The first pause; it doubles with every further failure.
const FIRST_BACKOFF_SECONDS: i64 = 60;
/// The longest pause.
const LONGEST_BACKOFF_SECONDS: i64 = 3_600;

/// How the launches of a pool fared lately.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolHealth {
    /// Launches in a row that did not register.
    pub failures: u32,
    /// When the last of them was given up.
    pub failed_at: Option<Timestamp>,
}

impl PoolHealth {
    pub(super) fn record_registered(&mut self) {
        *self = Self::default();
    }

    pub(super) fn record_failed(&mut self, at: Timestamp) {
        self.failures = self.failures.saturating_add(1);
        self.failed_at = Some(at);
    }

    /// Until when nothing is launched for the pool: after four failures in a row a minute, doubling
    /// up to an hour.
    pub fn backs_off_until(&self) -> Option<Timestamp> {
        let beyond = self.failures.checked_sub(FAILURES_BEFORE_BACKOFF)?;
        let seconds = FIRST_BACKOFF_SECONDS
            .saturating_mul(1_i64 << beyond.min(10))
            .min(LONGEST_BACKOFF_SECONDS);
        self.failed_at?.checked_add(SignedDuration::from_secs(seconds)).ok()
    }
}

impl State {
    pub(super) fn create_intent(
        &mut self,
        index: u64,
        at: Timestamp,
        intent: &LaunchIntent,
    ) -> Applied {
        if self.intents.contains_key(&intent.id) || self.closed_intents.contains_key(&intent.id) {
            return Applied::Unchanged;
        }
        if let Some(reason) = self.refuse_intent(intent) {
            return Applied::rejected(reason);
        }
        for plan in &intent.claims {
            let mut claim = claim_of(intent);
            claim.planned = Some(Box::new(plan.node.clone()));
            self.claims.insert(plan.name.clone(), claim);
        }
        let price = intent.hourly_price_micro.saturating_mul(intent.claims.len() as u64);
        self.journal.write(Decision {
            index,
            at,
            verb: "create-intent".to_owned(),
            subjects: std::iter::once(intent.id.to_string())
                .chain(intent.nodepool.iter().map(|pool| pool.to_string()))
                .chain(intent.claims.iter().map(|plan| plan.name.to_string()))
                .collect(),
            inputs: intent
                .pods
                .iter()
                .map(|pods| format!("{} pods of {}", pods.count, pods.shape))
                .collect(),
            why: intent.reason.clone(),
            hourly_price_change_micro: i64::try_from(price).unwrap_or(i64::MAX),
            ..Decision::default()
        });
        self.intents.insert(intent.id.clone(), intent.clone());
        Applied::Done
    }

    pub(super) fn refuse_intent(&self, intent: &LaunchIntent) -> Option<String> {
        let id = &intent.id;
        if intent.claims.is_empty() {
            return Some(format!("intent {id} has no claims"));
        }
        if intent.request.count as usize != intent.claims.len() {
            return Some(format!(
                "intent {id} asks for {} instances for {} claims",
                intent.request.count,
                intent.claims.len()
            ));
        }
        if intent.request.client_token != id.client_token() {
            return Some(format!("intent {id} bears another intent's client token"));
        }
        if let Some(plan) = intent.claims.iter().find(|plan| self.claims.contains_key(&plan.name)) {
            return Some(format!("NodeClaim {} exists already", plan.name));
        }
        let mut names: Vec<_> = intent.claims.iter().map(|plan| &plan.name).collect();
        names.sort();
        names.dedup();
        (names.len() != intent.claims.len()).then(|| format!("intent {id} names a NodeClaim twice"))
    }

    pub(super) fn record_launched(
        &mut self,
        index: u64,
        at: Timestamp,
        id: &IntentId,
        launched: &[ClaimLaunch],
        unavailable: &[UnavailableOffering],
        errors: &[FleetError],
    ) -> Applied {
        if self.closed_intents.contains_key(id) {
            return Applied::Unchanged;
        }
        if let Some(reason) = self.refuse_launched(id, launched) {
            return Applied::rejected(reason);
        }
        let Some(intent) = self.intents.remove(id) else {
            return Applied::rejected(format!("intent {id} is unknown"));
        };
        self.closed_intents.insert(id.clone(), at);
        self.record_unavailable(at, unavailable);
        let failed = self.close_claims(at, &intent, launched, errors);
        let price = intent.hourly_price_micro.saturating_mul(failed.len() as u64);
        if !failed.is_empty() {
            self.journal.write(Decision {
                index,
                at,
                verb: "record-launch-failed".to_owned(),
                subjects: std::iter::once(id.to_string()).chain(failed).collect(),
                inputs: errors.iter().take(10).map(describe_error).collect(),
                why: "EC2 did not launch these".to_owned(),
                hourly_price_change_micro: i64::try_from(price).map_or(i64::MIN, |p| -p),
                ..Decision::default()
            });
        }
        Applied::Done
    }

    fn refuse_launched(&self, id: &IntentId, launched: &[ClaimLaunch]) -> Option<String> {
        let Some(intent) = self.intents.get(id) else {
            return Some(format!("intent {id} is unknown"));
        };
        let mut claims = BTreeSet::new();
        let mut instances = BTreeSet::new();
        launched.iter().find_map(|ClaimLaunch { claim, instance, .. }| {
            if !intent.claims.iter().any(|plan| plan.name == *claim) {
                return Some(format!("intent {id} has no NodeClaim {claim}"));
            }
            if !claims.insert(claim) || !instances.insert(&instance.id) {
                return Some(format!("NodeClaim {claim} or instance {} comes twice", instance.id));
            }
            let owner = self.instances.get(&instance.id).filter(|owner| *owner != claim)?;
            Some(format!("instance {} serves NodeClaim {owner}", instance.id))
        })
    }

    /// Gives each claim of a closed intent its instance or its end; returns those that ended.
    fn close_claims(
        &mut self,
        at: Timestamp,
        intent: &LaunchIntent,
        launched: &[ClaimLaunch],
        errors: &[FleetError],
    ) -> Vec<String> {
        let mut failed = Vec::new();
        for plan in &intent.claims {
            let Some(claim) = self.claims.get_mut(&plan.name) else { continue };
            match launched.iter().find(|launch| launch.claim == plan.name) {
                Some(launch) => {
                    self.instances.insert(launch.instance.id.clone(), plan.name.clone());
                    claim.instance = Some(launch.instance.clone());
                    claim.launched_at = Some(at);
                    if let Some(price) = launch.hourly_price_micro {
                        claim.hourly_price_micro = price;
                    }
                    claim.stage = claim.stage.max(Stage::Launched);
                }
                None => {
                    let words = errors.first().map(describe_error);
                    claim.failure =
                        Some(words.unwrap_or_else(|| "EC2 returned no instance".to_owned()));
                    claim.stage = Stage::Gone;
                    claim.gone_at = Some(at);
                    claim.disruption = None;
                    claim.planned = None;
                    failed.push(plan.name.to_string());
                }
            }
        }
        for name in &failed {
            self.drop_from_disruptions(&name.as_str().into());
        }
        failed
    }

    pub(super) fn record_unavailable(&mut self, at: Timestamp, offerings: &[UnavailableOffering]) {
        for offering in offerings.iter().filter(|offering| offering.until > at) {
            let until =
                self.unavailable.entry(OfferingKey::from(offering)).or_insert(offering.until);
            *until = (*until).max(offering.until);
        }
    }
}

fn claim_of(intent: &LaunchIntent) -> ClaimRecord {
    ClaimRecord {
        nodepool: intent.nodepool.clone(),
        nodeclass: intent.nodeclass.clone(),
        intent: Some(intent.id.clone()),
        stage: Stage::Intent,
        instance: None,
        node: None,
        hourly_price_micro: intent.hourly_price_micro,
        planned: None,
        created_at: intent.created_at,
        launched_at: None,
        registered_at: None,
        initialized_at: None,
        disruption: None,
        drained_at: None,
        gone_at: None,
        failure: None,
    }
}

fn describe_error(error: &FleetError) -> String {
    let place = match (&error.instance_type, &error.zone) {
        (Some(kind), Some(zone)) => format!(" ({kind} in {zone})"),
        (Some(place), None) | (None, Some(place)) => format!(" ({place})"),
        (None, None) => String::new(),
    };
    format!("{}: {}{place}", error.code, error.message)
}
