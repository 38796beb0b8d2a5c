//! Disruptions, drains and terminations.

use drover_common::id::{DisruptionId, InstanceId, NodeClaimName};
use drover_common::protocol::NoticeKind;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Applied, Stage, State};
use crate::command::{Disruption, DisruptionReason, LaunchIntent};
use crate::journal::Decision;

/// A disruption under way. It ends when its last claim is gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DisruptionRecord {
    /// What was committed; claims that are gone are no longer listed.
    pub disruption: Disruption,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// When its drains began.
    #[serde(default)]
    pub draining_since: Option<Timestamp>,
}

impl DisruptionRecord {
    /// The deadline if its drains begin now: a terminationGracePeriod does not run while replacements come up.
    /// `None` if it stays what it is.
    pub fn deadline_from(&self, now: Timestamp) -> Option<Timestamp> {
        let deadline =
            self.disruption.deadline.filter(|_| self.disruption.reason.is_voluntary())?;
        let waited = now.duration_since(self.committed_at);
        Some(deadline.checked_add(waited).unwrap_or(Timestamp::MAX))
    }
}

/// A committed termination.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Termination {
    /// The claim the instance serves.
    #[serde(default)]
    pub claim: Option<NodeClaimName>,
    /// When it was committed.
    pub committed_at: Timestamp,
    /// Why.
    pub reason: String,
}

impl State {
    pub(super) fn commit_disruption(
        &mut self,
        index: u64,
        at: Timestamp,
        disruption: &Disruption,
        intents: &[LaunchIntent],
    ) -> Applied {
        if self.disruptions.contains_key(&disruption.id) {
            return Applied::Unchanged;
        }
        if disruption.claims.is_empty() {
            return Applied::rejected(format!("disruption {} names no claims", disruption.id));
        }
        let refusal = self.refuse_disruption(disruption);
        if let Some(reason) = refusal.or_else(|| self.refuse_replacements(disruption, intents)) {
            return Applied::rejected(reason);
        }
        for intent in intents {
            self.create_intent(index, at, intent);
        }
        let mut saved = 0_u64;
        for name in &disruption.claims {
            let Some(claim) = self.claims.get_mut(name) else { continue };
            let before = claim.disruption.replace(disruption.id.clone());
            claim.stage = Stage::Disrupting;
            saved = saved.saturating_add(claim.hourly_price_micro);
            if let Some(before) = before {
                self.leave_disruption(&before, name);
            }
        }
        self.journal.write(Decision {
            index,
            at,
            verb: "commit-disruption".to_owned(),
            subjects: std::iter::once(disruption.id.to_string())
                .chain(disruption.claims.iter().map(|name| name.to_string()))
                .collect(),
            inputs: vec![disruption.explanation.clone()],
            why: disruption.reason.as_str().to_owned(),
            hourly_price_change_micro: i64::try_from(saved).map_or(i64::MIN, |saved| -saved),
            ..Decision::default()
        });
        let record = DisruptionRecord {
            disruption: disruption.clone(),
            committed_at: at,
            draining_since: None,
        };
        self.disruptions.insert(disruption.id.clone(), record);
        Applied::Done
    }

    /// An involuntary disruption may take over a claim whose voluntary one has not begun to drain.
    fn refuse_disruption(&self, disruption: &Disruption) -> Option<String> {
        disruption.claims.iter().find_map(|name| {
            let Some(claim) = self.claims.get(name) else {
                return Some(format!("NodeClaim {name} is unknown"));
            };
            let takes_over = claim.stage == Stage::Disrupting
                && !disruption.reason.is_voluntary()
                && claim
                    .disruption
                    .as_ref()
                    .and_then(|id| self.disruptions.get(id))
                    .is_some_and(|record| record.disruption.reason.is_voluntary());
            (claim.is_leaving() && !takes_over)
                .then(|| format!("NodeClaim {name} is leaving already ({:?})", claim.stage))
        })
    }

    /// Replacements are the claims of the intents that come with it, all of them new.
    fn refuse_replacements(
        &self,
        disruption: &Disruption,
        intents: &[LaunchIntent],
    ) -> Option<String> {
        let known = |intent: &&LaunchIntent| {
            self.intents.contains_key(&intent.id) || self.closed_intents.contains_key(&intent.id)
        };
        if let Some(intent) = intents.iter().find(known) {
            return Some(format!("intent {} was decided before", intent.id));
        }
        if let Some(reason) = intents.iter().find_map(|intent| self.refuse_intent(intent)) {
            return Some(reason);
        }
        let mut launched: Vec<&NodeClaimName> =
            intents.iter().flat_map(|intent| intent.claims.iter().map(|plan| &plan.name)).collect();
        let mut wanted: Vec<&NodeClaimName> = disruption.replacements.iter().collect();
        launched.sort();
        wanted.sort();
        (launched != wanted || wanted.windows(2).any(|pair| pair.first() == pair.last())).then(
            || format!("disruption {} and its intents differ in the replacements", disruption.id),
        )
    }

    pub(super) fn start_drain(
        &mut self,
        at: Timestamp,
        id: &DisruptionId,
        deadline: Option<Timestamp>,
    ) -> Applied {
        let Some(record) = self.disruptions.get_mut(id) else {
            return Applied::rejected(format!("disruption {id} is unknown"));
        };
        if record.draining_since.is_some() {
            return Applied::Unchanged;
        }
        record.draining_since = Some(at);
        if deadline.is_some() {
            record.disruption.deadline = deadline;
        }
        for name in &record.disruption.claims {
            if let Some(claim) = self.claims.get_mut(name) {
                claim.stage = claim.stage.max(Stage::Draining);
            }
        }
        Applied::Done
    }

    pub(super) fn cancel_disruption(
        &mut self,
        index: u64,
        at: Timestamp,
        id: &DisruptionId,
        reason: &str,
    ) -> Applied {
        let Some(record) = self.disruptions.get(id) else {
            return Applied::Unchanged;
        };
        if record.draining_since.is_some() {
            return Applied::rejected(format!("disruption {id} is draining and can't be undone"));
        }
        let Some(record) = self.disruptions.remove(id) else {
            return Applied::Unchanged;
        };
        let mut price = 0_u64;
        for name in &record.disruption.claims {
            if let Some(claim) = self.claims.get_mut(name)
                && claim.stage == Stage::Disrupting
            {
                claim.disruption = None;
                claim.stage = claim.stage_reached();
                price = price.saturating_add(claim.hourly_price_micro);
            }
        }
        self.journal.write(Decision {
            index,
            at,
            verb: "cancel-disruption".to_owned(),
            subjects: std::iter::once(id.to_string())
                .chain(record.disruption.claims.iter().map(|name| name.to_string()))
                .collect(),
            why: reason.to_owned(),
            hourly_price_change_micro: i64::try_from(price).unwrap_or(i64::MAX),
            ..Decision::default()
        });
        Applied::Done
    }

    /// Gives a claim that leaves less time, and never more. Others of its disruption keep theirs: it goes
    /// on under a disruption of its own.
    pub(super) fn tighten_disruption(
        &mut self,
        index: u64,
        at: Timestamp,
        name: &NodeClaimName,
        id: &DisruptionId,
        (notice, deadline, explanation): (NoticeKind, Option<Timestamp>, &str),
    ) -> Applied {
        let Some(claim) = self.claims.get_mut(name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        let before = claim.disruption.clone().and_then(|own| self.disruptions.get(&own).cloned());
        let under_way = matches!(claim.stage, Stage::Disrupting | Stage::Draining);
        let Some(before) = before.filter(|_| under_way) else {
            let stage = claim.stage;
            return Applied::rejected(format!(
                "NodeClaim {name} has no drain before it ({stage:?})"
            ));
        };
        let disruption = before.disruption.tightened(notice, deadline, explanation);
        if disruption == before.disruption {
            return Applied::Unchanged;
        }
        let mut record = DisruptionRecord { disruption, ..before };
        let own = record.disruption.id.clone();
        if record.disruption.claims.len() > 1 {
            if self.disruptions.contains_key(id) {
                return Applied::rejected(format!("disruption {id} is of other claims"));
            }
            record.disruption.id = id.clone();
            record.disruption.claims = vec![name.clone()];
            record.disruption.replacements.clear();
            claim.disruption = Some(id.clone());
            self.leave_disruption(&own, name);
        }
        self.journal.write(Decision {
            index,
            at,
            verb: "tighten-disruption".to_owned(),
            subjects: vec![record.disruption.id.to_string(), name.to_string()],
            inputs: vec![explanation.to_owned()],
            why: record.disruption.reason.as_str().to_owned(),
            ..Decision::default()
        });
        self.disruptions.insert(record.disruption.id.clone(), record);
        Applied::Done
    }

    pub(super) fn record_drained(
        &mut self,
        at: Timestamp,
        name: &NodeClaimName,
        by: &str,
    ) -> Applied {
        let Some(claim) = self.claims.get_mut(name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        if claim.drained_at.is_some() {
            return Applied::Unchanged;
        }
        if claim.stage < Stage::Draining {
            return Applied::rejected(format!(
                "NodeClaim {name} is not draining but {:?}, whatever {by} says",
                claim.stage
            ));
        }
        claim.drained_at = Some(at);
        Applied::Done
    }

    pub(super) fn commit_termination(
        &mut self,
        index: u64,
        at: Timestamp,
        instance: &InstanceId,
        name: Option<&NodeClaimName>,
        reason: &str,
    ) -> Applied {
        if self.terminations.contains_key(instance) {
            return Applied::Unchanged;
        }
        let owner = self.instances.get(instance);
        if owner != name {
            let owner =
                owner.map_or_else(|| "no NodeClaim".to_owned(), |o| format!("NodeClaim {o}"));
            return Applied::rejected(format!("instance {instance} serves {owner}"));
        }
        if let Some(claim) = name.and_then(|name| self.claims.get_mut(name)) {
            if claim.stage < Stage::Draining {
                return Applied::rejected(format!(
                    "the NodeClaim of instance {instance} is not draining but {:?}",
                    claim.stage
                ));
            }
            claim.stage = claim.stage.max(Stage::Terminating);
        }
        let termination =
            Termination { claim: name.cloned(), committed_at: at, reason: reason.to_owned() };
        self.terminations.insert(instance.clone(), termination);
        self.journal.write(Decision {
            index,
            at,
            verb: "commit-termination".to_owned(),
            subjects: std::iter::once(instance.to_string())
                .chain(name.map(|name| name.to_string()))
                .collect(),
            why: reason.to_owned(),
            ..Decision::default()
        });
        Applied::Done
    }

    pub(super) fn record_terminated(
        &mut self,
        index: u64,
        at: Timestamp,
        instance: Option<&InstanceId>,
        name: Option<&NodeClaimName>,
        reason: &str,
    ) -> Applied {
        let mut changed = false;
        if let Some(instance) = instance {
            changed |= self.terminations.remove(instance).is_some();
            changed |= self.notices.remove(instance).is_some();
        }
        let owner = instance.and_then(|instance| self.instances.get(instance));
        let Some(name) = owner.or(name).cloned() else {
            return if changed { Applied::Done } else { Applied::Unchanged };
        };
        let Some(claim) = self.claims.get(&name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        if claim.instance.as_ref().map(|i| &i.id) != instance {
            return Applied::rejected(format!("NodeClaim {name} has another instance"));
        }
        if claim.stage == Stage::Gone {
            return if changed { Applied::Done } else { Applied::Unchanged };
        }
        if claim.intent.as_ref().is_some_and(|intent| self.intents.contains_key(intent)) {
            return Applied::rejected(format!("the launch of NodeClaim {name} has no outcome yet"));
        }
        self.end_claim(index, at, &name, reason);
        Applied::Done
    }

    fn end_claim(&mut self, index: u64, at: Timestamp, name: &NodeClaimName, reason: &str) {
        let gave_up = self.reason_of(name) == Some(DisruptionReason::Liveness);
        let Some(claim) = self.claims.get_mut(name) else { return };
        let was_leaving = claim.is_leaving();
        claim.stage = Stage::Gone;
        claim.gone_at = Some(at);
        claim.disruption = None;
        claim.planned = None;
        let instance = claim.instance.as_ref().map(|i| i.id.clone());
        if let Some(pool) = claim.nodepool.clone()
            && claim.registered_at.is_none()
            && (gave_up || !was_leaving)
        {
            self.pools.entry(pool).or_default().record_failed(at);
        }
        let price = if was_leaving { 0 } else { claim.hourly_price_micro };
        if let Some(node) = claim.node.clone() {
            self.usage.remove(&node);
        }
        if let Some(id) = &instance {
            self.instances.remove(id);
        }
        self.drop_from_disruptions(name);
        self.journal.write(Decision {
            index,
            at,
            verb: "record-terminated".to_owned(),
            subjects: std::iter::once(name.to_string())
                .chain(instance.map(|id| id.to_string()))
                .collect(),
            why: reason.to_owned(),
            hourly_price_change_micro: i64::try_from(price).map_or(i64::MIN, |price| -price),
            ..Decision::default()
        });
    }

    /// Why a claim leaves.
    pub fn reason_of(&self, name: &NodeClaimName) -> Option<DisruptionReason> {
        let id = self.claims.get(name)?.disruption.as_ref()?;
        Some(self.disruptions.get(id)?.disruption.reason)
    }

    pub(super) fn drop_from_disruptions(&mut self, name: &NodeClaimName) {
        let ids: Vec<DisruptionId> = self
            .disruptions
            .iter()
            .filter(|(_, record)| record.disruption.claims.contains(name))
            .map(|(id, _)| id.clone())
            .collect();
        for id in ids {
            self.leave_disruption(&id, name);
        }
    }

    fn leave_disruption(&mut self, id: &DisruptionId, name: &NodeClaimName) {
        if let Some(record) = self.disruptions.get_mut(id) {
            record.disruption.claims.retain(|claim| claim != name);
            if record.disruption.claims.is_empty() {
                self.disruptions.remove(id);
            }
        }
    }
}
