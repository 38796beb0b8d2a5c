//! The interruption queue: what EventBridge tells of instances, as SQS hands it out.
//!
//! The events' shapes are those of the EC2 user guide (spot interruptions, rebalance recommendations,
//! state changes, interruptible capacity reservations) and of the AWS Health user guide. A queue tells
//! late, more than once and out of order: what a node's agent reads itself counts before it.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::InstanceId;
use crate::protocol::NoticeKind;

/// What a spot interruption warning promises. The event does not say when.
const SPOT_LEAD: SignedDuration = SignedDuration::from_mins(2);

/// A message as SQS hands it out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueMessage {
    /// Its id, however often it is handed out.
    pub id: String,
    /// What deletes it; another one each time it is handed out.
    pub receipt: String,
    /// EventBridge's JSON.
    pub body: String,
}

/// What kind of event a message carries. The names are Karpenter's values of the metric label
/// `message_type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QueueEventKind {
    /// EC2 takes a spot instance back.
    SpotInterrupted,
    /// EC2 recommends to leave a spot instance.
    RebalanceRecommendation,
    /// The owner of an interruptible capacity reservation takes it back.
    CapacityReservationInterrupted,
    /// AWS Health tells of maintenance to come.
    ScheduledChange,
    /// An instance is stopped, by whomever.
    InstanceStopped,
    /// An instance is terminated, by whomever.
    InstanceTerminated,
    /// Anything else.
    NoOp,
}

impl QueueEventKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] = [
        Self::SpotInterrupted,
        Self::RebalanceRecommendation,
        Self::CapacityReservationInterrupted,
        Self::ScheduledChange,
        Self::InstanceStopped,
        Self::InstanceTerminated,
        Self::NoOp,
    ];

    /// The metric label's value.
    pub fn name(self) -> &'static str {
        match self {
            Self::SpotInterrupted => "spot_interrupted",
            Self::RebalanceRecommendation => "rebalance_recommendation",
            Self::CapacityReservationInterrupted => "capacity_reservation_interrupted",
            Self::ScheduledChange => "scheduled_change",
            Self::InstanceStopped => "instance_stopped",
            Self::InstanceTerminated => "instance_terminated",
            Self::NoOp => "no_op",
        }
    }
}

/// An event, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueEvent {
    /// Its kind.
    pub kind: QueueEventKind,
    /// When it was sent, by EventBridge's clock.
    pub at: Timestamp,
    /// The instances it is about.
    pub instances: Vec<InstanceId>,
    /// What will happen to them, and when where that is told; `None` where EC2 itself shows what has happened.
    pub notice: Option<(NoticeKind, Option<Timestamp>)>,
    /// When maintenance will be over, where that is told.
    pub until: Option<Timestamp>,
    /// Whether what was announced by an earlier event will not happen, or is over.
    pub called_off: bool,
}

/// A message that is no event of EventBridge's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct QueueEventError {
    /// The field, as a path.
    pub field: &'static str,
    /// What is wrong with it.
    pub reason: String,
}

impl QueueEvent {
    /// Reads a message's body.
    ///
    /// # Errors
    /// The field that is missing or can't be read.
    pub fn read(body: &str) -> Result<Self, QueueEventError> {
        let wrong = |field, reason: String| QueueEventError { field, reason };
        let event: Value =
            serde_json::from_str(body).map_err(|error| wrong("body", error.to_string()))?;
        let text = |pointer| event.pointer(pointer).and_then(Value::as_str);
        let kind = text("/detail-type");
        let kind = kind.ok_or_else(|| wrong("detail-type", "it is missing".to_owned()))?;
        let at = text("/time").unwrap_or_default();
        let at = at.parse::<Timestamp>().map_err(|error| wrong("time", error.to_string()))?;
        let nothing = Self {
            kind: QueueEventKind::NoOp,
            at,
            instances: Vec::new(),
            notice: None,
            until: None,
            called_off: false,
        };
        let told = match (text("/source").unwrap_or_default(), kind) {
            ("aws.health", "AWS Health Event") => return Ok(scheduled_change(&event, nothing)),
            ("aws.ec2", "EC2 Spot Instance Interruption Warning") => {
                let action = text("/detail/instance-action").unwrap_or_default();
                let kind = match action {
                    "stop" => NoticeKind::SpotStop,
                    "hibernate" => NoticeKind::SpotHibernate,
                    _ => NoticeKind::SpotTerminate,
                };
                // Hibernation begins with the warning.
                let lead = if action == "hibernate" { SignedDuration::ZERO } else { SPOT_LEAD };
                let deadline = at.checked_add(lead).ok();
                (QueueEventKind::SpotInterrupted, Some((kind, deadline)))
            }
            ("aws.ec2", "EC2 Instance Rebalance Recommendation") => {
                (QueueEventKind::RebalanceRecommendation, Some((NoticeKind::Rebalance, None)))
            }
            ("aws.ec2", "EC2 Capacity Reservation Instance Interruption Warning") => {
                let end = text("/detail/instance-termination-time");
                let end = end.and_then(|time| time.parse().ok());
                let deadline = end.or_else(|| at.checked_add(SPOT_LEAD).ok());
                let notice = (NoticeKind::ReservationReclaim, deadline);
                (QueueEventKind::CapacityReservationInterrupted, Some(notice))
            }
            ("aws.ec2", "EC2 Instance State-change Notification") => {
                match text("/detail/state").unwrap_or_default() {
                    "stopping" | "stopped" => (QueueEventKind::InstanceStopped, None),
                    "shutting-down" | "terminated" => (QueueEventKind::InstanceTerminated, None),
                    _ => return Ok(nothing),
                }
            }
            _ => return Ok(nothing),
        };
        let instance = text("/detail/instance-id").filter(|id| !id.is_empty());
        let instance =
            instance.ok_or_else(|| wrong("detail.instance-id", "it is missing".to_owned()))?;
        let (kind, notice) = told;
        Ok(Self { kind, instances: vec![instance.into()], notice, ..nothing })
    }
}

/// What AWS Health tells of EC2's instances. It also tells of other services. An event's code is `upcoming`
/// or `open` until it is `closed`: done, or canceled.
fn scheduled_change(event: &Value, nothing: QueueEvent) -> QueueEvent {
    let text = |pointer| event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/detail/service") != "EC2" || text("/detail/eventTypeCategory") != "scheduledChange" {
        return nothing;
    }
    let entities = event.pointer("/detail/affectedEntities").and_then(Value::as_array);
    let entities = entities.map(Vec::as_slice).unwrap_or_default();
    let named = entities.iter().filter_map(|one| one.get("entityValue").and_then(Value::as_str));
    let instances = named.filter(|id| id.starts_with("i-")).map(InstanceId::from).collect();
    // A date that can't be read is none: what is planned is worth more than when.
    let start = rfc_2822(text("/detail/startTime"));
    let notice = Some((NoticeKind::Maintenance, start));
    let until = rfc_2822(text("/detail/endTime"));
    let (kind, called_off) =
        (QueueEventKind::ScheduledChange, text("/detail/statusCode") == "closed");
    QueueEvent { kind, instances, notice, until, called_off, ..nothing }
}

fn rfc_2822(date: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

#[cfg(test)]
mod tests;
