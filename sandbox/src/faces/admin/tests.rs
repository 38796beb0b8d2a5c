//! The admin endpoint over HTTP, seen from the faces that its commands change.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::faces::imds::tests::launch;
use crate::sandbox::{Options, Sandbox};
use crate::world::faults::{Face, Fault};

/// A sandbox with one spot instance.
struct Rig {
    sandbox: Sandbox,
    http: reqwest::Client,
    instance: String,
}

impl Rig {
    async fn start() -> Self {
        // The tests share the process: only the first can install it.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let sandbox = Sandbox::start(Options::default()).await.unwrap();
        let instance = sandbox.world().with(|world, _| launch(&mut world.cloud)).to_string();
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        Self { sandbox, http, instance }
    }

    async fn post(&self, path: &str, mut body: Value) -> (u16, Value) {
        body["instance"] = json!(self.instance);
        let url = format!("{}{path}", self.sandbox.endpoints().admin);
        let answer = self.http.post(url).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn delete(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.sandbox.endpoints().admin);
        let answer = self.http.delete(url).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// What the instance's metadata service says; `None` where it says that there is nothing.
    async fn read(&self, path: &str) -> Option<String> {
        let imds = format!("{}/{}/latest", self.sandbox.endpoints().imds, self.instance);
        let asked = self.http.put(format!("{imds}/api/token"));
        let asked = asked.header("x-aws-ec2-metadata-token-ttl-seconds", "60");
        let token = asked.send().await.unwrap().text().await.unwrap();
        let asked = self.http.get(format!("{imds}/meta-data/{path}"));
        let answer = asked.header("x-aws-ec2-metadata-token", token).send().await.unwrap();
        match answer.status().as_u16() {
            200 => Some(answer.text().await.unwrap()),
            404 => None,
            status => panic!("{path}: {status}"),
        }
    }
}

#[tokio::test]
async fn spot_notices_of_each_action_are_given_and_taken_back() {
    let rig = Rig::start().await;
    let back = format!("/interrupt/{}", rig.instance);
    for action in ["terminate", "stop", "hibernate"] {
        let (status, notice) = rig.post("/interrupt", json!({"action": action})).await;
        assert_eq!((status, &notice["action"]), (200, &json!(action)));
        let time = notice["time"].as_str().unwrap();
        let body = rig.read("spot/instance-action").await.unwrap();
        assert_eq!(body, json!({"action": action, "time": time}).to_string());
        let legacy = rig.read("spot/termination-time").await;
        assert_eq!(legacy.as_deref(), (action == "terminate").then_some(time));
        assert_eq!(rig.delete(&back).await, (200, json!({})));
        assert_eq!(rig.read("spot/instance-action").await, None);
    }
    let (status, refusal) = rig.delete(&back).await;
    assert_eq!(status, 404);
    assert!(refusal["error"].as_str().unwrap().ends_with("it has no spot notice"), "{refusal}");
    let (status, refusal) = rig.post("/interrupt", json!({"action": "explode"})).await;
    assert_eq!(status, 400);
    let text = refusal["error"].as_str().unwrap();
    assert!(text.contains("action") && text.contains("explode"), "{text}");
}

#[tokio::test]
async fn a_rebalance_recommendation_is_given_and_taken_back() {
    let rig = Rig::start().await;
    assert_eq!(rig.post("/rebalance", json!({})).await.0, 200);
    let body = rig.read("events/recommendations/rebalance").await.unwrap();
    assert!(body.starts_with(r#"{"noticeTime":"2"#) && body.ends_with(r#"Z"}"#), "{body}");
    let back = format!("/rebalance/{}", rig.instance);
    assert_eq!(rig.delete(&back).await.0, 200);
    assert_eq!(rig.read("events/recommendations/rebalance").await, None);
    assert_eq!(rig.delete(&back).await.0, 404);
    assert_eq!(rig.delete("/rebalance/i-0none").await.0, 404);
}

#[tokio::test]
async fn maintenance_is_scheduled_canceled_and_taken_back() {
    let rig = Rig::start().await;
    let scheduled = "events/maintenance/scheduled";
    let event = json!({
        "code": "instance-retirement",
        "event_id": "instance-event-7",
        "not_before": "2026-12-05T09:00:43Z",
    });
    assert_eq!(rig.post("/maintenance", event.clone()).await.0, 200);
    assert_eq!(rig.post("/maintenance", json!({"not_after": "2027-01-01T00:00:00Z"})).await.0, 200);
    let told: Value = serde_json::from_str(&rig.read(scheduled).await.unwrap()).unwrap();
    assert_eq!(
        told[0],
        json!({
            "NotBefore": "5 Dec 2026 09:00:43 GMT",
            "Code": "instance-retirement",
            "Description": "scheduled retirement",
            "EventId": "instance-event-7",
            "State": "active",
        })
    );
    assert_eq!((&told[1]["Code"], told.as_array().unwrap().len()), (&json!("system-reboot"), 2));
    assert_eq!(told[1]["NotAfter"], "1 Jan 2027 00:00:00 GMT");

    let mut canceled = event;
    canceled["state"] = json!("canceled");
    assert_eq!(rig.post("/maintenance", canceled).await.0, 200);
    let history = rig.read("events/maintenance/history").await.unwrap();
    assert!(history.contains(r#""Description":"[Canceled] scheduled retirement""#), "{history}");
    let one = format!("/maintenance/{}/instance-event-7", rig.instance);
    assert_eq!(rig.delete(&one).await.0, 200);
    assert_eq!(rig.delete(&one).await.0, 404);
    assert_eq!(rig.read("events/maintenance/history").await.unwrap(), "[]");
    assert_eq!(rig.delete(&format!("/maintenance/{}", rig.instance)).await.0, 200);
    assert_eq!(rig.read(scheduled).await.unwrap(), "[]");
    let (status, refusal) = rig.post("/maintenance", json!({"code": "repainting"})).await;
    assert_eq!(status, 400);
    assert!(refusal["error"].as_str().unwrap().contains("repainting"), "{refusal}");
}

#[tokio::test]
async fn an_auto_scaling_groups_intent_is_told_and_taken_back() {
    let rig = Rig::start().await;
    let path = "autoscaling/target-lifecycle-state";
    assert_eq!(rig.read(path).await, None);
    for state in [
        "InService",
        "Terminated",
        "Detached",
        "Standby",
        "Warmed:Hibernated",
        "Warmed:Running",
        "Warmed:Stopped",
        "Warmed:Terminated",
    ] {
        assert_eq!(rig.post("/lifecycle-state", json!({"state": state})).await.0, 200);
        assert_eq!(rig.read(path).await.as_deref(), Some(state));
    }
    let back = format!("/lifecycle-state/{}", rig.instance);
    assert_eq!(rig.delete(&back).await.0, 200);
    assert_eq!(rig.read(path).await, None);
    assert_eq!(rig.delete(&back).await.0, 404);
    let (status, refusal) = rig.post("/lifecycle-state", json!({"state": "Resting"})).await;
    assert_eq!(status, 400);
    assert!(refusal["error"].as_str().unwrap().contains("Resting"), "{refusal}");
}

/// One request to a face, which answers it somehow.
fn request(rig: &Rig, face: Face) -> reqwest::RequestBuilder {
    let endpoints = rig.sandbox.endpoints();
    let aws = |url: &str, target: &'static str| {
        rig.http.post(url).header("x-amz-target", target).body("{}")
    };
    match face {
        Face::Kubernetes => rig.http.get(format!("{}/api/v1/nodes", endpoints.kubernetes)),
        Face::Ec2 => rig.http.post(&endpoints.ec2).body("Action=DescribeAvailabilityZones"),
        Face::Ssm => aws(&endpoints.ssm, "AmazonSSM.GetParameter"),
        Face::Pricing => aws(&endpoints.pricing, "AWSPriceListService.GetProducts"),
        Face::Sqs => aws(&endpoints.sqs, "AmazonSQS.GetQueueUrl"),
        Face::Imds => rig.http.get(format!("{}/{}/latest/meta-data", endpoints.imds, rig.instance)),
        Face::Kubelet => rig.http.get(format!("{}/node/healthz", endpoints.kubelet)),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_face_suffers_every_effect() {
    let rig = Rig::start().await;
    let admin = format!("{}/faults", rig.sandbox.endpoints().admin);
    let short = Duration::from_millis(150);
    for face in Face::ALL {
        let usual = request(&rig, face).send().await.unwrap().status();
        for effect in ["error=418", "delay=150ms", "delay-answer=150ms", "lost-answer", "hang"] {
            let fault: Fault = format!("{}:{effect}", face.as_str()).parse().unwrap();
            let put = rig.http.post(&admin).json(&fault).send().await.unwrap();
            assert_eq!(put.status(), 200, "{fault:?}");
            let start = Instant::now();
            let answer = tokio::time::timeout(short * 10, request(&rig, face).send()).await;
            match (effect, answer) {
                ("error=418", Ok(Ok(answer))) => assert_eq!(answer.status(), 418, "{face:?}"),
                ("delay=150ms" | "delay-answer=150ms", Ok(Ok(answer))) => {
                    assert_eq!(answer.status(), usual, "{face:?}: {effect}");
                    assert!(start.elapsed() >= short, "{face:?}: {effect}");
                }
                // The connection breaks before or after the headers.
                ("lost-answer", Ok(Ok(answer))) => assert!(answer.bytes().await.is_err()),
                ("lost-answer", Ok(Err(_))) | ("hang", Err(_)) => {}
                (_, answer) => panic!("{face:?}: {effect}: {answer:?}"),
            }
            assert_eq!(rig.http.delete(&admin).send().await.unwrap().status(), 200);
        }
        assert_eq!(request(&rig, face).send().await.unwrap().status(), usual);
    }
}

#[tokio::test]
async fn a_stopped_spot_instance_is_started_by_command_and_by_no_call() {
    let rig = Rig::start().await;
    assert_eq!(rig.post("/start", json!({})).await.0, 409, "it is not stopped");
    let stop = json!({"action": "stop", "lead_seconds": 0});
    assert_eq!(rig.post("/interrupt", stop).await.0, 200);
    rig.sandbox.world().with(|world, now| {
        for seconds in [1, 20] {
            world.cloud.tick(now + jiff::SignedDuration::from_secs(seconds));
        }
    });
    for (call, code) in [
        ("StopInstances", "UnsupportedOperation"),
        ("StartInstances", "UnsupportedOperation"),
        ("StopInstances&Hibernate=true", "UnsupportedHibernationConfiguration"),
    ] {
        let body = format!("Action={call}&InstanceId.1={}", rig.instance);
        let asked = rig.http.post(&rig.sandbox.endpoints().ec2).body(body);
        let answer = asked.send().await.unwrap().text().await.unwrap();
        assert!(answer.contains(&format!("<Code>{code}</Code>")), "{call}: {answer}");
    }
    assert_eq!(rig.post("/start", json!({})).await, (200, json!({})));
    assert_eq!(rig.read("spot/instance-action").await, None, "that was done");
}
