//! What SQS must do for the provider, on parts that nobody here wrote.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2FailureKind, QueueMessage};
use drover_ec2::Ec2;
use serde_json::{Value, json};

/// Asks SQS for something that the provider has no call for; an imitation wants no signature.
async fn ask(url: &str, operation: &str, body: Value) -> Value {
    let request = super::reqwest_client()
        .post(url)
        .header("content-type", "application/x-amz-json-1.0")
        .header("x-amz-target", format!("AmazonSQS.{operation}"))
        // By this it knows which service is meant.
        .header(
            "authorization",
            "AWS4-HMAC-SHA256 Credential=AKIDTEST/20260101/us-east-1/sqs/aws4_request, \
             SignedHeaders=host, Signature=0",
        )
        .body(body.to_string());
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let text = answer.text().await.unwrap();
    assert_eq!(status, 200, "{operation}: {text}");
    serde_json::from_str(&text).unwrap()
}

async fn receive(ec2: &Ec2, queue: &str) -> Vec<QueueMessage> {
    let call = Ec2Call::ReceiveMessages { queue: queue.to_owned() };
    match ec2.execute(&call).await {
        Ok(Ec2Answer::Messages(messages)) => messages,
        other => panic!("{other:?}"),
    }
}

/// Messages are received by the queue's name and by its URL, and deleted by their receipts.
pub(crate) async fn holds(ec2: &Ec2, url: &str) {
    let call = Ec2Call::ReceiveMessages { queue: "cluster".to_owned() };
    let missing = ec2.execute(&call).await.unwrap_err();
    assert_eq!(missing.kind, Ec2FailureKind::NotFound, "{missing}");
    let made = ask(url, "CreateQueue", json!({"QueueName": "cluster"})).await;
    let queue_url = made["QueueUrl"].as_str().unwrap();
    for body in ["one", "two"] {
        let message = json!({"QueueUrl": queue_url, "MessageBody": body});
        ask(url, "SendMessage", message).await;
    }
    let mut bodies = Vec::new();
    for queue in ["cluster", queue_url] {
        if bodies.len() == 2 {
            break;
        }
        let received = receive(ec2, queue).await;
        assert!(!received.is_empty());
        let receipts = received.iter().map(|message| message.receipt.clone()).collect();
        let call = Ec2Call::DeleteMessages { queue: queue.to_owned(), receipts };
        assert_eq!(ec2.execute(&call).await.unwrap(), Ec2Answer::Done);
        bodies.extend(received.into_iter().map(|message| message.body));
    }
    bodies.sort();
    assert_eq!(bodies, ["one", "two"]);
    let names = json!(["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]);
    let question = json!({"QueueUrl": queue_url, "AttributeNames": names});
    let left = ask(url, "GetQueueAttributes", question).await;
    for name in names.as_array().unwrap() {
        assert_eq!(left["Attributes"][name.as_str().unwrap()], "0", "{left}");
    }
}
