//! Claims and their lifecycle.

use drover_common::id::{
    DisruptionId, InstanceId, IntentId, NodeClaimName, NodeName, NodePoolName,
};
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Applied, State};
use crate::command::{AdoptedClaim, ClaimInstance, PlannedNode};
use crate::journal::Decision;

/// How far a claim is, in order. A claim never goes back, save from [`Stage::Disrupting`] when its
/// disruption is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Committed; EC2's answer is not recorded yet.
    Intent,
    /// It has an instance.
    Launched,
    /// Its Node joined.
    Registered,
    /// Its Node takes pods.
    Initialized,
    /// It is to leave; no pod has been asked to go yet.
    Disrupting,
    /// Its pods are leaving.
    Draining,
    /// Its instance is to be terminated.
    Terminating,
    /// It has no instance any more, or never got one; its objects are being removed.
    Gone,
}

/// What is agreed on a claim.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimRecord {
    /// The NodePool it counts against.
    #[serde(default)]
    pub nodepool: Option<NodePoolName>,
    /// Its EC2NodeClass.
    #[serde(default)]
    pub nodeclass: String,
    /// The intent that launched it, where known.
    #[serde(default)]
    pub intent: Option<IntentId>,
    /// How far it is.
    pub stage: Stage,
    /// Its instance.
    #[serde(default)]
    pub instance: Option<ClaimInstance>,
    /// Its Node.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// Micro-dollars an hour; 0 if unknown.
    #[serde(default)]
    pub hourly_price_micro: u64,
    /// What it was planned as; dropped once its Node takes pods.
    #[serde(default)]
    pub planned: Option<Box<PlannedNode>>,
    /// When it was decided.
    pub created_at: Timestamp,
    /// When its instance was recorded.
    #[serde(default)]
    pub launched_at: Option<Timestamp>,
    /// When its Node was recorded.
    #[serde(default)]
    pub registered_at: Option<Timestamp>,
    /// When its Node was recorded as ready.
    #[serde(default)]
    pub initialized_at: Option<Timestamp>,
    /// The disruption it leaves by.
    #[serde(default)]
    pub disruption: Option<DisruptionId>,
    /// When it was recorded as drained.
    #[serde(default)]
    pub drained_at: Option<Timestamp>,
    /// When it was recorded as gone.
    #[serde(default)]
    pub gone_at: Option<Timestamp>,
    /// Why it never got an instance, if so: EC2's words.
    #[serde(default)]
    pub failure: Option<String>,
}

impl ClaimRecord {
    /// Whether it is on its way out.
    pub fn is_leaving(&self) -> bool {
        self.stage >= Stage::Disrupting
    }

    /// The stage its recorded times stand for, disruption aside.
    pub(super) fn stage_reached(&self) -> Stage {
        if self.initialized_at.is_some() {
            Stage::Initialized
        } else if self.registered_at.is_some() {
            Stage::Registered
        } else if self.instance.is_some() {
            Stage::Launched
        } else {
            Stage::Intent
        }
    }
}

impl State {
    /// The claim an instance serves.
    pub fn claim_of_instance(
        &self,
        instance: &InstanceId,
    ) -> Option<(&NodeClaimName, &ClaimRecord)> {
        let name = self.instances.get(instance)?;
        self.claims.get_key_value(name)
    }

    pub(super) fn record_registered(
        &mut self,
        at: Timestamp,
        name: &NodeClaimName,
        node: &NodeName,
    ) -> Applied {
        let Some(claim) = self.claims.get_mut(name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        if claim.node.as_ref() == Some(node) && claim.registered_at.is_some() {
            return Applied::Unchanged;
        }
        if claim.instance.is_none() {
            return Applied::rejected(format!("NodeClaim {name} has no instance yet"));
        }
        if let Some(other) = &claim.node {
            return Applied::rejected(format!("NodeClaim {name} is registered as Node {other}"));
        }
        claim.node = Some(node.clone());
        claim.registered_at = Some(at);
        claim.stage = claim.stage.max(Stage::Registered);
        if let Some(pool) = claim.nodepool.clone() {
            self.pools.entry(pool).or_default().record_registered();
        }
        Applied::Done
    }

    pub(super) fn record_initialized(&mut self, at: Timestamp, name: &NodeClaimName) -> Applied {
        let Some(claim) = self.claims.get_mut(name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        if claim.initialized_at.is_some() {
            return Applied::Unchanged;
        }
        if claim.registered_at.is_none() {
            return Applied::rejected(format!("NodeClaim {name} is not registered"));
        }
        claim.initialized_at = Some(at);
        claim.planned = None;
        claim.stage = claim.stage.max(Stage::Initialized);
        Applied::Done
    }

    pub(super) fn record_reservation_lapsed(
        &mut self,
        index: u64,
        at: Timestamp,
        name: &NodeClaimName,
        hourly_price_micro: u64,
    ) -> Applied {
        let Some(claim) = self.claims.get_mut(name) else {
            return Applied::rejected(format!("NodeClaim {name} is unknown"));
        };
        let Some(instance) = &mut claim.instance else {
            return Applied::rejected(format!("NodeClaim {name} has no instance yet"));
        };
        if instance.capacity_type != CapacityType::Reserved {
            return Applied::Unchanged;
        }
        instance.capacity_type = CapacityType::OnDemand;
        let reservation = instance.reservation.take().unwrap_or_default();
        let before = std::mem::replace(&mut claim.hourly_price_micro, hourly_price_micro);
        let signed = |price: u64| i64::try_from(price).unwrap_or(i64::MAX);
        self.journal.write(Decision {
            index,
            at,
            verb: "record-reservation-lapsed".to_owned(),
            subjects: vec![name.to_string(), reservation],
            why: "EC2 shows the instance in no capacity reservation any more".to_owned(),
            hourly_price_change_micro: signed(hourly_price_micro).saturating_sub(signed(before)),
            ..Decision::default()
        });
        Applied::Done
    }

    pub(super) fn adopt_claim(
        &mut self,
        index: u64,
        at: Timestamp,
        found: &AdoptedClaim,
    ) -> Applied {
        if self.claims.contains_key(&found.name) {
            return Applied::Unchanged;
        }
        if let Some(instance) = &found.instance
            && let Some(owner) = self.instances.get(&instance.id)
        {
            return Applied::rejected(format!("instance {} serves NodeClaim {owner}", instance.id));
        }
        let mut claim = ClaimRecord {
            nodepool: found.nodepool.clone(),
            nodeclass: found.nodeclass.clone(),
            intent: found.intent.clone(),
            stage: Stage::Intent,
            instance: found.instance.clone(),
            node: found.node.clone(),
            hourly_price_micro: found.hourly_price_micro,
            planned: None,
            created_at: found.created_at,
            launched_at: found.instance.is_some().then_some(at),
            registered_at: found.node.is_some().then_some(at),
            initialized_at: (found.node.is_some() && found.initialized).then_some(at),
            disruption: None,
            drained_at: None,
            gone_at: None,
            failure: found.failure.clone(),
        };
        claim.stage = claim.stage_reached();
        if found.instance.is_none() {
            claim.stage = Stage::Gone;
            claim.gone_at = Some(at);
        }
        if let Some(instance) = &found.instance {
            self.instances.insert(instance.id.clone(), found.name.clone());
        }
        self.claims.insert(found.name.clone(), claim);
        let instance = found.instance.as_ref().map_or("no instance", |i| i.id.as_str());
        self.journal.write(Decision {
            index,
            at,
            verb: "adopt-claim".to_owned(),
            subjects: vec![found.name.to_string(), instance.to_owned()],
            why: "the NodeClaim exists and the log does not know it".to_owned(),
            ..Decision::default()
        });
        Applied::Done
    }

    /// A claim whose objects are gone needs no record any more.
    pub(super) fn forget_claim(&mut self, name: &NodeClaimName) -> Applied {
        match self.claims.get(name) {
            None => Applied::Unchanged,
            Some(claim) if claim.stage != Stage::Gone => {
                Applied::rejected(format!("NodeClaim {name} is not gone but {:?}", claim.stage))
            }
            Some(_) => {
                self.claims.remove(name);
                Applied::Done
            }
        }
    }
}
