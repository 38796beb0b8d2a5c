//! What the leader group agrees on: every change of [`crate::state::State`] is one of these, in the
//! order of the Raft log.
//!
//! A command carries everything that applying it needs: the proposer's time, and the ids and names it
//! chose. Verbs name intentions (`Create`, `Commit`, `Start`, `Set`), `Record` names what was seen.
//! JSON with defaulted fields, so that a replica of another version reads what it knows.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use drover_common::drain::Purpose;
use drover_common::ec2::{
    FleetError, FleetRequest, LaunchTemplateRequest, ReservationTarget, ReservationUse,
};
use drover_common::id::{
    DisruptionId, InstanceId, IntentId, NodeClaimName, NodeName, NodePoolName,
};
use drover_common::instance_type::CapacityType;
use drover_common::protocol::{Notice, NoticeKind, UsageDigest};
use drover_common::requirement::Requirement;
use drover_common::resources::Resources;
use drover_common::taint::Taint;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One entry of the replicated log.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// When the leader proposed it, by its clock. Applying reads no other.
    pub at: Timestamp,
    /// What changes.
    pub change: Change,
}

/// The changes of replicated state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "kebab-case")]
pub enum Change {
    /// An EC2 launch is decided. It is made only after this is committed.
    CreateIntent {
        /// The whole launch, exact to the byte.
        intent: Box<LaunchIntent>,
    },
    /// EC2 answered: instances for some or all claims of the intent. Claims without one are failed.
    RecordLaunched {
        /// The intent; it is closed by this.
        intent: IntentId,
        /// Which instance serves which claim.
        launched: Vec<ClaimLaunch>,
        /// Offerings EC2 could not give.
        #[serde(default)]
        unavailable: Vec<UnavailableOffering>,
        /// EC2's words on what it did not launch.
        #[serde(default)]
        errors: Vec<FleetError>,
    },
    /// EC2 launched nothing for the intent and never will.
    RecordLaunchFailed {
        /// The intent; it is closed by this.
        intent: IntentId,
        /// Why, in EC2's words or ours.
        errors: Vec<FleetError>,
        /// Offerings EC2 could not give.
        #[serde(default)]
        unavailable: Vec<UnavailableOffering>,
    },
    /// A NodeClaim that this log does not know, found with its instance: after the log was lost, or
    /// made by another tool.
    AdoptClaim {
        /// What was found.
        claim: Box<AdoptedClaim>,
    },
    /// The claim's Node joined.
    RecordRegistered {
        /// The claim.
        claim: NodeClaimName,
        /// Its Node.
        node: NodeName,
    },
    /// The claim's capacity reservation is over; its instance runs on, billed on demand.
    RecordReservationLapsed {
        /// The claim.
        claim: NodeClaimName,
        /// What it costs from now on, micro-dollars an hour; 0 if unknown.
        #[serde(default)]
        hourly_price_micro: u64,
    },
    /// The claim's Node is ready for pods.
    RecordInitialized {
        /// The claim.
        claim: NodeClaimName,
    },
    /// There is a notice.
    RecordNotice {
        /// Its instance's Node, as far as it is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        node: Option<NodeName>,
        /// The notice.
        notice: Notice,
        /// The offering that EC2 is taking back, if it tells of a shortage.
        #[serde(default)]
        unavailable: Option<UnavailableOffering>,
        /// Who tells.
        #[serde(default)]
        source: NoticeSource,
        /// Whether the same notice of another issue is another one. Builds that wrote nothing here told them apart by
        /// their deadlines alone.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_issue: bool,
        /// Whether it holds until it is withdrawn. Where it's not said, it is void an hour after its time.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        lasts: bool,
    },
    /// A notice holds no more, by the node's agent or the queue: it was called off or is over, or the machine
    /// came back.
    WithdrawNotice {
        /// Its instance.
        instance: InstanceId,
        /// Its kind.
        kind: NoticeKind,
    },
    /// Claims are to leave, after their replacements are up.
    CommitDisruption {
        /// The disruption, all of it.
        disruption: Box<Disruption>,
        /// The launches of its replacements; they are decided with it or not at all.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        intents: Vec<LaunchIntent>,
    },
    /// The disruption's drains begin: its replacements are up and its checks still hold.
    StartDrain {
        /// The disruption.
        disruption: DisruptionId,
        /// When its pods may be deleted, if that is counted from now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    /// A disruption whose drain has not begun is given up.
    CancelDisruption {
        /// The disruption.
        disruption: DisruptionId,
        /// Why.
        reason: String,
    },
    /// A claim that leaves already has less time than its disruption gives it: there is a notice that
    /// passes budgets.
    TightenDisruption {
        /// The claim.
        claim: NodeClaimName,
        /// The disruption under which it goes on, alone, where others share its own.
        disruption: DisruptionId,
        /// The notice.
        notice: NoticeKind,
        /// When budgets give way, if its own disruption does not let them earlier.
        #[serde(default)]
        deadline: Option<Timestamp>,
        /// What it was decided from.
        #[serde(default)]
        explanation: String,
    },
    /// Nothing that should leave the claim's Node is left on it.
    RecordDrained {
        /// The claim.
        claim: NodeClaimName,
        /// Who or what tells so.
        #[serde(default)]
        by: String,
    },
    /// An instance is to be terminated. Never cancelled.
    CommitTermination {
        /// The instance.
        instance: InstanceId,
        /// The claim it serves; `None` for an instance without one.
        #[serde(default)]
        claim: Option<NodeClaimName>,
        /// Why.
        reason: String,
    },
    /// EC2 says that the instance is gone, or it never was.
    RecordTerminated {
        /// The instance, if there was one.
        #[serde(default)]
        instance: Option<InstanceId>,
        /// The claim it served.
        #[serde(default)]
        claim: Option<NodeClaimName>,
        /// What was seen.
        #[serde(default)]
        reason: String,
    },
    /// The claim is over and its Kubernetes objects are gone.
    ForgetClaim {
        /// The claim.
        claim: NodeClaimName,
    },
    /// Measured use, one batch for all nodes.
    RecordUsage {
        /// Node and digest.
        digests: Vec<(NodeName, UsageDigest)>,
    },
    /// An operator stops or resumes voluntary decisions.
    SetPause {
        /// `None`: the whole cluster.
        #[serde(default)]
        nodepool: Option<NodePoolName>,
        /// Whether it is paused from now on.
        paused: bool,
        /// The operator's name.
        by: String,
        /// The operator's reason.
        #[serde(default)]
        reason: String,
    },
    /// A change made by a newer version; this replica refuses it.
    #[serde(other)]
    Unknown,
}

/// Who tells of a notice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeSource {
    /// The node's agent read it.
    #[default]
    Agent,
    /// The interruption queue told of it.
    Queue,
}

/// One launch attempt: one exact request under one client token, for claims of one kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LaunchIntent {
    /// Its id; the client token derives from it.
    pub id: IntentId,
    /// The NodePool it counts against; `None` for a NodeClaim of the user's own making.
    #[serde(default)]
    pub nodepool: Option<NodePoolName>,
    /// The EC2NodeClass it launches by.
    pub nodeclass: String,
    /// The claims it serves; as many as the request's count.
    pub claims: Vec<ClaimPlan>,
    /// The request to EC2.
    pub request: FleetRequest,
    /// The launch template the request names.
    pub launch_template: LaunchTemplateRequest,
    /// The pods it is for, by shape.
    #[serde(default)]
    pub pods: Vec<PodCount>,
    /// Expected price of one instance, micro-dollars an hour.
    #[serde(default)]
    pub hourly_price_micro: u64,
    /// When it was decided.
    pub created_at: Timestamp,
    /// Why.
    #[serde(default)]
    pub reason: String,
}

impl LaunchIntent {
    /// The capacity reservation that it launches into.
    pub fn reservation(&self) -> Option<&ReservationTarget> {
        match &self.launch_template.reservation {
            Some(ReservationUse::Only(target)) => Some(target),
            Some(ReservationUse::Never) | None => None,
        }
    }
}

/// One NodeClaim of an intent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClaimPlan {
    /// Its name.
    pub name: NodeClaimName,
    /// The whole NodeClaim as it is created, finalizer and owner included.
    pub object: Value,
    /// The node it will be, as far as it is fixed; pods are planned onto it before it exists.
    #[serde(default)]
    pub node: PlannedNode,
}

/// A node that does not exist yet.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlannedNode {
    /// Labels it is sure to have.
    pub labels: BTreeMap<String, String>,
    /// What else it may turn out to be.
    pub requirements: Vec<Requirement>,
    /// Taints that stay.
    pub taints: Vec<Taint>,
    /// The least allocatable over its possible types.
    pub allocatable: Resources,
    /// Pods it was planned for.
    pub pods: Vec<ObjectKey>,
}

/// So many pods of one shape.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodCount {
    /// The shape in words: requests and what ties it to places.
    pub shape: String,
    /// How many.
    pub count: u32,
}

/// An instance for a claim.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimLaunch {
    /// The claim.
    pub claim: NodeClaimName,
    /// Its instance.
    pub instance: ClaimInstance,
    /// What it costs, micro-dollars an hour; the plan's expectation stands if unknown.
    #[serde(default)]
    pub hourly_price_micro: Option<u64>,
}

/// The facts of a claim's instance. Only a reservation's end changes any of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimInstance {
    /// Its id.
    pub id: InstanceId,
    /// Its type.
    pub instance_type: String,
    /// Its zone.
    pub zone: String,
    /// Its subnet; empty if not told.
    #[serde(default)]
    pub subnet: String,
    /// How it is billed.
    pub capacity_type: CapacityType,
    /// The capacity reservation that it runs in, if it is reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Its image; empty if not told.
    #[serde(default)]
    pub image: String,
}

/// An offering that EC2 could not give.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct UnavailableOffering {
    /// Instance type.
    pub instance_type: String,
    /// Zone.
    pub zone: String,
    /// Billing.
    pub capacity_type: CapacityType,
    /// One capacity reservation; all of that billing if `None`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reservation: Option<String>,
    /// Until when it is left alone.
    pub until: Timestamp,
}

/// A claim found in the cluster, and its instance found in EC2.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdoptedClaim {
    /// Its name.
    pub name: NodeClaimName,
    /// Its NodePool.
    #[serde(default)]
    pub nodepool: Option<NodePoolName>,
    /// Its EC2NodeClass.
    #[serde(default)]
    pub nodeclass: String,
    /// The intent its instance is tagged with.
    #[serde(default)]
    pub intent: Option<IntentId>,
    /// Its instance; `None` if it has none, which lets it end.
    #[serde(default)]
    pub instance: Option<ClaimInstance>,
    /// Its Node, if it registered.
    #[serde(default)]
    pub node: Option<NodeName>,
    /// Whether it was initialized.
    #[serde(default)]
    pub initialized: bool,
    /// Why it never got an instance, if it did not.
    #[serde(default)]
    pub failure: Option<String>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its price, micro-dollars an hour; 0 if unknown.
    #[serde(default)]
    pub hourly_price_micro: u64,
}

/// Why claims leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum DisruptionReason {
    /// No pod would have to move.
    Emptiness,
    /// Its pods fit elsewhere, or on cheaper nodes.
    Consolidation,
    /// EC2 recommends to leave the instance, and its NodePool follows.
    Rebalance,
    /// EC2 takes the instance back or will stop it.
    Interruption,
    /// Someone deleted the NodeClaim or its Node.
    Deletion,
    /// It did not launch, register or keep its instance.
    Liveness,
    /// It is older than `expireAfter`.
    Expiration,
}

impl DisruptionReason {
    /// Whether it can wait, be stopped by doubt and be given up.
    pub fn is_voluntary(self) -> bool {
        match self {
            DisruptionReason::Emptiness
            | DisruptionReason::Consolidation
            | DisruptionReason::Rebalance => true,
            DisruptionReason::Interruption
            | DisruptionReason::Deletion
            | DisruptionReason::Liveness
            | DisruptionReason::Expiration => false,
        }
    }

    /// The reason as Karpenter writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            DisruptionReason::Emptiness => "Empty",
            DisruptionReason::Consolidation => "Underutilized",
            DisruptionReason::Rebalance => "Rebalance",
            DisruptionReason::Interruption => "Interruption",
            DisruptionReason::Deletion => "Deletion",
            DisruptionReason::Liveness => "Liveness",
            DisruptionReason::Expiration => "Expiration",
        }
    }
}

/// Claims that leave together, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disruption {
    /// Its id; the Node's annotation and the agent's directive carry it.
    pub id: DisruptionId,
    /// Why.
    pub reason: DisruptionReason,
    /// The claims.
    pub claims: Vec<NodeClaimName>,
    /// Claims that must be initialized before any pod is asked to go.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replacements: Vec<NodeClaimName>,
    /// When pods may be deleted past their budgets; never, if `None`.
    #[serde(default)]
    pub deadline: Option<Timestamp>,
    /// The notice that it follows, the most pressing one, if there is any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub notice: Option<NoticeKind>,
    /// What it was decided from.
    #[serde(default)]
    pub explanation: String,
}

impl Disruption {
    /// Why, as its Nodes bear it: the notice's kind, or Karpenter's word for the reason.
    pub fn why(&self) -> &'static str {
        self.notice.map_or(self.reason.as_str(), NoticeKind::name)
    }

    /// The same with no more time than a notice leaves, which passes budgets.
    #[must_use]
    pub fn tightened(
        &self,
        notice: NoticeKind,
        deadline: Option<Timestamp>,
        explanation: &str,
    ) -> Self {
        let earliest = self.deadline.into_iter().chain(deadline).min();
        let follows = self.notice.filter(|own| own.passes_budgets()).unwrap_or(notice);
        if self.reason == DisruptionReason::Interruption
            && self.notice == Some(follows)
            && self.deadline == earliest
        {
            return self.clone();
        }
        Self {
            reason: DisruptionReason::Interruption,
            deadline: earliest,
            notice: Some(follows),
            explanation: explanation.to_owned(),
            ..self.clone()
        }
    }

    /// What its drains are for.
    pub fn purpose(&self) -> Purpose {
        Purpose::disruption(self.id.clone(), self.deadline, self.notice)
    }
}
