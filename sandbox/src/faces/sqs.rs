//! SQS, in AWS's JSON 1.0 protocol: one queue, named after the cluster, that EventBridge tells of instances.
//!
//! `GetQueueUrl`, `ReceiveMessage` (long polls, too), `DeleteMessage` and `DeleteMessageBatch`. Messages are
//! handed out again when their visibility timeout is over.

use std::time::Duration;

use axum::Router;
use drover_common::ec2::Ec2Failure;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::faces::aws_json::{self, Service};
use crate::shared::SharedWorld;
use crate::world::cloud::{Cloud, refuse};
use crate::world::faults::Face;

/// SQS' default.
const HIDDEN_SECONDS: i64 = 30;

/// SQS' router.
pub(crate) fn router(world: SharedWorld) -> Router {
    aws_json::router(world, Service { face: Face::Sqs, prefix: "AmazonSQS.", perform, patience })
}

fn perform(
    cloud: &mut Cloud,
    operation: &str,
    input: &Value,
    now: Timestamp,
) -> Result<Value, Ec2Failure> {
    let text = |field: &str| input.get(field).and_then(Value::as_str).unwrap_or_default();
    let number = |field: &str, usual| input.get(field).and_then(Value::as_i64).unwrap_or(usual);
    let queue = text("QueueUrl");
    match operation {
        "GetQueueUrl" => {
            let name = cloud.queue_named(text("QueueName"))?;
            // Clients send what they do to their endpoint, whatever host this names.
            Ok(json!({"QueueUrl": format!("http://localhost/000000000000/{name}")}))
        }
        "ReceiveMessage" => {
            let most = number("MaxNumberOfMessages", 1);
            let most = usize::try_from(most).ok().filter(|most| (1..=10).contains(most));
            let most = most.ok_or_else(|| {
                refuse("InvalidParameterValue", "MaxNumberOfMessages: must be from 1 to 10")
            })?;
            let hidden = number("VisibilityTimeout", HIDDEN_SECONDS).clamp(0, 43_200);
            let hidden_for = SignedDuration::from_secs(hidden);
            let received = cloud.receive_messages(queue, most, hidden_for, now)?;
            let messages: Vec<Value> = received
                .into_iter()
                .map(|message| {
                    json!({
                        "MessageId": message.id,
                        "ReceiptHandle": message.receipt,
                        "Body": message.body,
                    })
                })
                .collect();
            Ok(json!({"Messages": messages}))
        }
        "DeleteMessage" => {
            cloud.delete_messages(queue, &[text("ReceiptHandle").to_owned()])?;
            Ok(json!({}))
        }
        "DeleteMessageBatch" => {
            let entries = input.get("Entries").and_then(Value::as_array);
            let entries = entries.map(Vec::as_slice).unwrap_or_default();
            let texts = |field: &'static str| {
                entries.iter().filter_map(move |entry| entry.get(field).and_then(Value::as_str))
            };
            let receipts: Vec<String> = texts("ReceiptHandle").map(str::to_owned).collect();
            cloud.delete_messages(queue, &receipts)?;
            let deleted: Vec<Value> = texts("Id").map(|id| json!({"Id": id})).collect();
            Ok(json!({"Successful": deleted, "Failed": []}))
        }
        other => Err(aws_json::unknown_operation(other)),
    }
}

/// A long poll waits for a first message.
fn patience(operation: &str, input: &Value, output: &Value) -> Option<Duration> {
    let messages = output.get("Messages").and_then(Value::as_array)?;
    if operation != "ReceiveMessage" || !messages.is_empty() {
        return None;
    }
    let seconds = input.get("WaitTimeSeconds").and_then(Value::as_u64).unwrap_or(0);
    Some(Duration::from_secs(seconds.min(20)))
}
