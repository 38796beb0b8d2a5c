//! A queue that EventBridge's events of instances go to, as users of Karpenter have one: it is named
//! after the cluster.

use std::collections::BTreeMap;

use drover_common::ec2::{InstanceState, QueueMessage};
use drover_common::id::InstanceId;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::instance::{SimulatedInstance, after};
use super::notice::{MaintenanceEvent, MaintenanceState, Notices};
use crate::world::random::Random;

/// Messages that nobody fetches are given up, oldest first.
const MOST_KEPT: usize = 1_000;

/// A message, and from when on it is handed out.
#[derive(Clone, Debug)]
struct Message {
    id: String,
    body: String,
    receipt: String,
    visible_from: Timestamp,
}

/// What has been told of an instance.
#[derive(Clone, Debug)]
struct Told {
    state: InstanceState,
    notices: Notices,
}

/// The queue.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    random: Random,
    messages: Vec<Message>,
    told: BTreeMap<InstanceId, Told>,
}

impl Queue {
    pub(super) fn new(random: Random) -> Self {
        Self { random, messages: Vec::new(), told: BTreeMap::new() }
    }

    /// Up to `most` messages; they are hidden until `hidden_for` is over.
    pub(super) fn receive(
        &mut self,
        most: usize,
        hidden_for: SignedDuration,
        now: Timestamp,
    ) -> Vec<QueueMessage> {
        let shown = self.messages.iter_mut().filter(|message| message.visible_from <= now);
        let mut received = Vec::new();
        for message in shown.take(most) {
            message.visible_from = after(now, hidden_for);
            message.receipt = self.random.uuid();
            received.push(QueueMessage {
                id: message.id.clone(),
                receipt: message.receipt.clone(),
                body: message.body.clone(),
            });
        }
        received
    }

    /// Forgets messages by their receipts; unknown ones are no error, as with SQS.
    pub(super) fn delete(&mut self, receipts: &[String]) {
        self.messages.retain(|message| !receipts.contains(&message.receipt));
    }

    /// Tells what is new of the instances.
    pub(super) fn follow(
        &mut self,
        region: &str,
        instances: &BTreeMap<InstanceId, SimulatedInstance>,
        now: Timestamp,
    ) {
        let mut events = Vec::new();
        for (id, instance) in instances {
            let told = self.told.entry(id.clone()).or_insert_with(|| Told {
                state: InstanceState::Pending,
                notices: Notices::default(),
            });
            news(told, instance, &mut events);
        }
        self.told.retain(|id, _| instances.contains_key(id));
        for (source, kind, detail) in events {
            let body = json!({
                "version": "0",
                "id": self.random.uuid(),
                "detail-type": kind,
                "source": source,
                "account": "000000000000",
                "time": now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
                "region": region,
                "resources": [],
                "detail": detail,
            });
            self.messages.push(Message {
                id: self.random.uuid(),
                body: body.to_string(),
                receipt: String::new(),
                visible_from: now,
            });
        }
        let surplus = self.messages.len().saturating_sub(MOST_KEPT);
        self.messages.drain(..surplus);
    }
}

type Event = (&'static str, &'static str, Value);

/// What happened to an instance since it was told of last.
fn news(told: &mut Told, instance: &SimulatedInstance, events: &mut Vec<Event>) {
    let id = instance.id.as_str();
    let before = std::mem::replace(&mut told.notices, instance.notices.clone());
    let notices = &instance.notices;
    if let Some(spot) = notices.spot.as_ref().filter(|_| before.spot.is_none()) {
        let detail = json!({"instance-id": id, "instance-action": spot.action});
        events.push(("aws.ec2", "EC2 Spot Instance Interruption Warning", detail));
    }
    if notices.rebalance.is_some() && before.rebalance.is_none() {
        let detail = json!({"instance-id": id});
        events.push(("aws.ec2", "EC2 Instance Rebalance Recommendation", detail));
    }
    for event in &notices.maintenance {
        if event.state == MaintenanceState::Active && !before.maintenance.contains(event) {
            events.push(("aws.health", "AWS Health Event", health(id, event, "upcoming")));
        }
    }
    let is_active = |event: &MaintenanceEvent| event.state == MaintenanceState::Active;
    for event in before.maintenance.iter().filter(|event| is_active(event)) {
        let mut now = notices.maintenance.iter();
        if !now.any(|one| one.event_id == event.event_id && is_active(one)) {
            events.push(("aws.health", "AWS Health Event", health(id, event, "closed")));
        }
    }
    if instance.state != told.state {
        told.state = instance.state;
        let detail = json!({"instance-id": id, "state": state_name(instance.state)});
        events.push(("aws.ec2", "EC2 Instance State-change Notification", detail));
    }
}

fn health(instance: &str, event: &MaintenanceEvent, status: &str) -> Value {
    let code = json!(event.code).as_str().unwrap_or_default().replace('-', "_").to_uppercase();
    json!({
        "eventArn": format!("arn:aws:health:::event/EC2/{}", event.event_id),
        "service": "EC2",
        "eventTypeCode": format!("AWS_EC2_{code}_SCHEDULED"),
        "eventTypeCategory": "scheduledChange",
        "statusCode": status,
        "startTime": rfc_2822(event.not_before),
        "endTime": event.not_after.map(rfc_2822),
        "affectedEntities": [{"entityValue": instance}],
    })
}

fn state_name(state: InstanceState) -> &'static str {
    match state {
        InstanceState::Pending => "pending",
        InstanceState::Running => "running",
        InstanceState::Stopping => "stopping",
        InstanceState::Stopped => "stopped",
        InstanceState::ShuttingDown => "shutting-down",
        InstanceState::Terminated => "terminated",
    }
}

fn rfc_2822(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
