use proptest::prelude::*;
use serde_json::json;

use super::*;

fn body(source: &str, kind: &str, detail: Value) -> String {
    json!({
        "version": "0", "id": "6a7e8feb-b491-4cf7-a9f1-bf3703467718", "detail-type": kind,
        "source": source, "account": "111122223333", "time": "2026-11-26T13:19:03Z",
        "region": "us-east-1", "resources": [], "detail": detail,
    })
    .to_string()
}

fn samples() -> Vec<String> {
    let ec2 = |kind, detail| body("aws.ec2", kind, detail);
    let health = |detail| body("aws.health", "AWS Health Event", detail);
    let spot = "EC2 Spot Instance Interruption Warning";
    let state = "EC2 Instance State-change Notification";
    let reservation = "EC2 Capacity Reservation Instance Interruption Warning";
    vec![
        ec2(spot, json!({"instance-id": "i-1", "instance-action": "terminate"})),
        ec2(spot, json!({"instance-id": "i-1", "instance-action": "stop"})),
        ec2(spot, json!({"instance-id": "i-1", "instance-action": "hibernate"})),
        ec2(spot, json!({"instance-action": "terminate"})),
        ec2("EC2 Instance Rebalance Recommendation", json!({"instance-id": "i-1"})),
        ec2(
            reservation,
            json!({
                "instance-id": "i-1", "instance-action": "terminate",
                "instance-termination-time": "2026-11-26T13:21:00Z",
            }),
        ),
        ec2(reservation, json!({"instance-id": "i-1"})),
        ec2(state, json!({"instance-id": "i-1", "state": "running"})),
        ec2(state, json!({"instance-id": "i-1", "state": "stopping"})),
        ec2(state, json!({"instance-id": "i-1", "state": "shutting-down"})),
        ec2("EC2 Fleet Instance Change", json!({})),
        health(json!({
            "service": "EC2", "eventTypeCategory": "scheduledChange",
            "eventTypeCode": "AWS_EC2_INSTANCE_RETIREMENT_SCHEDULED", "statusCode": "upcoming",
            "startTime": "Sat, 05 Dec 2026 13:19:03 GMT",
            "affectedEntities": [{"entityValue": "i-1"}, {"entityValue": "vol-1"}, {"entityValue": "i-2"}],
        })),
        health(json!({
            "service": "EC2", "eventTypeCategory": "scheduledChange", "statusCode": "closed",
            "startTime": "Sat, 05 Dec 2026 13:19:03 GMT",
            "affectedEntities": [{"entityValue": "i-1"}],
        })),
        health(json!({"service": "RDS", "eventTypeCategory": "scheduledChange"})),
        health(json!({
            "service": "EC2", "eventTypeCategory": "scheduledChange", "startTime": "soon",
        })),
        "{}".to_owned(),
        json!({"detail-type": spot, "source": "aws.ec2", "time": "yesterday"}).to_string(),
        "no JSON".to_owned(),
    ]
}

#[test]
fn events_are_read() {
    let told = samples().iter().fold(String::new(), |told, body| {
        let line = match QueueEvent::read(body) {
            Ok(event) => {
                let notice = event.notice.map(|(kind, deadline)| {
                    let deadline = deadline.map(|at| at.to_string());
                    format!(" {} by {}", kind.name(), deadline.unwrap_or("nothing".to_owned()))
                });
                let instances: Vec<&str> = event.instances.iter().map(InstanceId::as_str).collect();
                let kind = event.kind.name();
                let off = if event.called_off { ", called off" } else { "" };
                format!("{kind} [{}]{}{off}", instances.join(" "), notice.unwrap_or_default())
            }
            Err(error) => format!("refused: {error}"),
        };
        told + &line + "\n"
    });
    insta::assert_snapshot!(told, @r"
    spot_interrupted [i-1] spot-terminate by 2026-11-26T13:21:03Z
    spot_interrupted [i-1] spot-stop by 2026-11-26T13:21:03Z
    spot_interrupted [i-1] spot-hibernate by 2026-11-26T13:19:03Z
    refused: detail.instance-id: it is missing
    rebalance_recommendation [i-1] rebalance by nothing
    capacity_reservation_interrupted [i-1] reservation-reclaim by 2026-11-26T13:21:00Z
    capacity_reservation_interrupted [i-1] reservation-reclaim by 2026-11-26T13:21:03Z
    no_op []
    instance_stopped [i-1]
    instance_terminated [i-1]
    no_op []
    scheduled_change [i-1 i-2] maintenance by 2026-12-05T13:19:03Z
    scheduled_change [i-1] maintenance by 2026-12-05T13:19:03Z, called off
    no_op []
    scheduled_change [] maintenance by nothing
    refused: detail-type: it is missing
    refused: time: failed to parse four digit integer as year: invalid digit, expected 0-9 but got y
    refused: body: expected ident at line 1 column 2
    ");
}

proptest! {
    /// Whatever a queue holds is read or refused, and nothing is told of an instance it does not name.
    #[test]
    fn no_message_is_too_strange(
        sample in 0..18_usize,
        cut in any::<prop::sample::Index>(),
        noise in ".{0,8}",
        keep in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let sample = &samples[sample];
        let at = (0..=cut.index(sample.len() + 1)).rev().find(|at| sample.is_char_boundary(*at));
        let (head, tail) = sample.split_at(at.unwrap_or(0));
        let from = (0..=keep.index(tail.len() + 1)).rev().find(|at| tail.is_char_boundary(*at));
        let mutated = format!("{head}{noise}{}", &tail[from.unwrap_or(0)..]);
        if let Ok(event) = QueueEvent::read(&mutated) {
            prop_assert!(event.instances.iter().all(|id| mutated.contains(id.as_str()) || mutated.contains('\\')));
            let of_one = !matches!(event.kind, QueueEventKind::NoOp | QueueEventKind::ScheduledChange);
            prop_assert!(!of_one || event.instances.len() == 1);
        }
    }
}
