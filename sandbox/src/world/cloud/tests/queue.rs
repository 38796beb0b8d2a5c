//! The interruption queue, as whoever listens to it meets it.

use drover_common::ec2::QueueMessage;
use serde_json::Value;

use super::*;

/// The kinds of events that wait in the queue, oldest first. They are deleted.
fn take(cloud: &mut Cloud, now: Timestamp) -> Vec<String> {
    let hidden_for = SignedDuration::from_secs(20);
    let messages: Vec<QueueMessage> =
        cloud.receive_messages("sandbox", 10, hidden_for, now).unwrap();
    let receipts: Vec<String> = messages.iter().map(|message| message.receipt.clone()).collect();
    cloud.delete_messages("sandbox", &receipts).unwrap();
    let kind = |message: &QueueMessage| {
        let event: Value = serde_json::from_str(&message.body).unwrap();
        event["detail-type"].as_str().unwrap().to_owned()
    };
    messages.iter().map(kind).collect()
}

#[test]
fn a_notice_is_told_while_nothing_else_happens() {
    let mut cloud = cloud();
    let request = request(&mut cloud, "one", &["m5.large"], 1);
    let id = create(&mut cloud, &request, start()).instances[0].instance.clone();
    cloud.tick(at(7));
    assert_eq!(take(&mut cloud, at(8)), ["EC2 Instance State-change Notification"]);
    cloud.recommend_rebalance(&id, at(60)).unwrap();
    cloud.interrupt(&id, at(60), SignedDuration::from_secs(120)).unwrap();
    // Nothing is due before the instance's end, so nobody ticks.
    assert_eq!(cloud.next_due(), Some(at(180)));
    let notices =
        ["EC2 Spot Instance Interruption Warning", "EC2 Instance Rebalance Recommendation"];
    assert_eq!(take(&mut cloud, at(60)), notices);
    cloud.tick(at(61));
    assert!(take(&mut cloud, at(61)).is_empty(), "they are told once");
}
