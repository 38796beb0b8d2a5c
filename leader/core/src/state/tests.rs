//! Unit and property tests of [`State`].

mod notice;
mod random;

use drover_common::ec2::{FleetOverride, FleetRequest, LaunchTemplateRequest, MetadataOptions};
use drover_common::instance_type::CapacityType;
use drover_common::protocol::Notice;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::command::{
    AdoptedClaim, ClaimInstance, ClaimLaunch, ClaimPlan, Disruption, DisruptionReason,
    NoticeSource, PlannedNode, UnavailableOffering,
};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub(crate) fn intent(id: &str, claims: &[&str]) -> LaunchIntent {
    let id = IntentId::from(id);
    LaunchIntent {
        id: id.clone(),
        nodepool: Some(NodePoolName::from("general")),
        nodeclass: "default".to_owned(),
        claims: claims
            .iter()
            .map(|name| ClaimPlan {
                name: NodeClaimName::from(*name),
                object: json!({"metadata": {"name": name}}),
                node: PlannedNode::default(),
            })
            .collect(),
        request: FleetRequest {
            client_token: id.client_token(),
            launch_template: "template".to_owned(),
            overrides: vec![FleetOverride {
                instance_type: "m5.large".to_owned(),
                subnet: "subnet-1".to_owned(),
                zone: "us-east-1a".to_owned(),
                image: None,
            }],
            capacity_type: CapacityType::Spot,
            capacity_block: false,
            prioritized: false,
            count: claims.len() as u32,
            tags: BTreeMap::new(),
            context: None,
        },
        launch_template: LaunchTemplateRequest {
            name: "template".to_owned(),
            image: "ami-1".to_owned(),
            security_groups: vec![],
            instance_profile: None,
            user_data: String::new(),
            block_devices: vec![],
            metadata_options: MetadataOptions {
                http_endpoint: "enabled".to_owned(),
                http_protocol_ipv6: "disabled".to_owned(),
                http_put_response_hop_limit: 1,
                http_tokens: "required".to_owned(),
            },
            detailed_monitoring: false,
            associate_public_ip: None,
            reservation: None,
            tags: BTreeMap::new(),
        },
        pods: vec![],
        hourly_price_micro: 100_000,
        created_at: at(0),
        reason: "pods are pending".to_owned(),
    }
}

fn instance(id: &str) -> ClaimInstance {
    ClaimInstance {
        id: InstanceId::from(id),
        instance_type: "m5.large".to_owned(),
        zone: "us-east-1a".to_owned(),
        subnet: "subnet-1".to_owned(),
        capacity_type: CapacityType::Spot,
        reservation: None,
        image: "ami-1".to_owned(),
    }
}

fn launched(claim: &str, id: &str) -> ClaimLaunch {
    ClaimLaunch {
        claim: NodeClaimName::from(claim),
        instance: instance(id),
        hourly_price_micro: None,
    }
}

fn disruption(id: &str, claim: &str, reason: DisruptionReason) -> Change {
    let disruption = Disruption {
        id: DisruptionId::from(id),
        reason,
        claims: vec![NodeClaimName::from(claim)],
        replacements: Vec::new(),
        deadline: None,
        notice: None,
        explanation: "no pods".to_owned(),
    };
    Change::CommitDisruption { disruption: Box::new(disruption), intents: Vec::new() }
}

/// Applies changes one second apart and returns what each did.
fn apply_all(state: &mut State, changes: &[Change]) -> Vec<Applied> {
    changes
        .iter()
        .map(|change| {
            let index = state.applied + 1;
            let command = Command { at: at(index as i64), change: change.clone() };
            state.apply(index, &command)
        })
        .collect()
}

fn life_of_a_claim() -> Vec<Change> {
    let claim = || NodeClaimName::from("general-a");
    vec![
        Change::CreateIntent { intent: Box::new(intent("one", &["general-a", "general-b"])) },
        Change::RecordLaunched {
            intent: "one".into(),
            launched: vec![launched("general-a", "i-1")],
            unavailable: vec![],
            errors: vec![],
        },
        Change::RecordRegistered { claim: claim(), node: "node-1".into() },
        Change::RecordInitialized { claim: claim() },
        disruption("d1", "general-a", DisruptionReason::Emptiness),
        Change::StartDrain { disruption: "d1".into(), deadline: None },
        Change::RecordDrained { claim: claim(), by: "test".to_owned() },
        Change::CommitTermination {
            instance: "i-1".into(),
            claim: Some(claim()),
            reason: "drained".to_owned(),
        },
        Change::RecordTerminated {
            instance: Some("i-1".into()),
            claim: Some(claim()),
            reason: "EC2 says terminated".to_owned(),
        },
        Change::ForgetClaim { claim: claim() },
    ]
}

#[test]
fn a_claim_lives_from_intent_to_gone() {
    let mut state = State::default();
    let mut stages = Vec::new();
    for change in life_of_a_claim() {
        assert_eq!(apply_all(&mut state, &[change]), [Applied::Done]);
        stages.push(state.claims.get(&"general-a".into()).map(|claim| claim.stage));
    }
    use Stage::{
        Disrupting, Draining, Gone, Initialized, Intent, Launched, Registered, Terminating,
    };
    assert_eq!(
        stages,
        [
            Some(Intent),
            Some(Launched),
            Some(Registered),
            Some(Initialized),
            Some(Disrupting),
            Some(Draining),
            Some(Draining),
            Some(Terminating),
            Some(Gone),
            None
        ]
    );
    let left = &state.claims[&NodeClaimName::from("general-b")];
    assert_eq!(left.stage, Stage::Gone, "the claim without an instance failed");
    assert!(state.disruptions.is_empty() && state.terminations.is_empty());
    let change: i64 = state.journal.decisions().map(|d| d.hourly_price_change_micro).sum();
    assert_eq!(change, 0, "what was added to the bill was taken off again");
}

#[test]
fn every_command_of_a_life_is_taken_once() {
    let mut state = State::default();
    for change in life_of_a_claim() {
        apply_all(&mut state, std::slice::from_ref(&change));
        let before = state.clone();
        let again = apply_all(&mut state, std::slice::from_ref(&change));
        assert_ne!(again, [Applied::Done], "{change:?}");
        state.applied = before.applied;
        state.applied_at = before.applied_at;
        assert_eq!(state, before, "{change:?}");
    }
}

#[test]
fn an_instance_never_serves_two_claims() {
    let mut state = State::default();
    let create =
        |id: &str, claim: &str| Change::CreateIntent { intent: Box::new(intent(id, &[claim])) };
    let record = |id: &str, claim: &str| Change::RecordLaunched {
        intent: id.into(),
        launched: vec![launched(claim, "i-1")],
        unavailable: vec![],
        errors: vec![],
    };
    apply_all(&mut state, &[create("one", "a"), create("two", "b"), record("one", "a")]);
    let answer = apply_all(&mut state, &[record("two", "b")]);
    assert!(matches!(&answer[0], Applied::Rejected { reason } if reason.contains("i-1")));
    assert!(state.intents.contains_key(&"two".into()), "the intent stays open");
}

#[test]
fn nothing_ends_a_claim_whose_launch_is_open() {
    let mut state = State::default();
    let create = Change::CreateIntent { intent: Box::new(intent("one", &["a"])) };
    let delete = disruption("d", "a", DisruptionReason::Deletion);
    let end =
        Change::RecordTerminated { instance: None, claim: Some("a".into()), reason: String::new() };
    let answers = apply_all(&mut state, &[create, delete, end]);
    assert!(matches!(answers[2], Applied::Rejected { .. }));
    let record = Change::RecordLaunched {
        intent: "one".into(),
        launched: vec![launched("a", "i-1")],
        unavailable: vec![],
        errors: vec![],
    };
    apply_all(&mut state, &[record]);
    let claim = &state.claims[&NodeClaimName::from("a")];
    assert_eq!((claim.stage, claim.instance.is_some()), (Stage::Disrupting, true));
}

#[test]
fn termination_needs_a_drain_and_the_right_claim() {
    let mut state = State::default();
    apply_all(&mut state, &life_of_a_claim()[..4]);
    let terminate = |claim: Option<&str>| Change::CommitTermination {
        instance: "i-1".into(),
        claim: claim.map(Into::into),
        reason: String::new(),
    };
    for claim in [Some("general-a"), Some("general-b"), None] {
        let answer = apply_all(&mut state, &[terminate(claim)]);
        assert!(matches!(answer[0], Applied::Rejected { .. }), "{claim:?}");
    }
    assert!(state.terminations.is_empty());
}

#[test]
fn interruption_takes_over_from_emptiness_until_the_drain_begins() {
    let mut state = State::default();
    apply_all(&mut state, &life_of_a_claim()[..5]);
    let interruption = |id: &str| disruption(id, "general-a", DisruptionReason::Interruption);
    assert_eq!(apply_all(&mut state, &[interruption("d2")]), [Applied::Done]);
    assert_eq!(state.disruptions.keys().map(|id| id.as_str()).collect::<Vec<_>>(), ["d2"]);
    let again = apply_all(&mut state, &[interruption("d3")]);
    assert!(matches!(again[0], Applied::Rejected { .. }));
}

#[test]
fn a_cancelled_disruption_gives_the_claim_back() {
    let mut state = State::default();
    apply_all(&mut state, &life_of_a_claim()[..5]);
    let cancel = Change::CancelDisruption { disruption: "d1".into(), reason: "a pod came".into() };
    assert_eq!(apply_all(&mut state, &[cancel]), [Applied::Done]);
    assert_eq!(state.claims[&NodeClaimName::from("general-a")].stage, Stage::Initialized);
}

#[test]
fn four_failed_launches_make_a_pool_wait_ever_longer() {
    let mut health = PoolHealth::default();
    for _ in 0..3 {
        health.record_failed(at(0));
    }
    assert_eq!(health.backs_off_until(), None);
    for seconds in [60, 120, 240, 480, 960, 1_920, 3_600, 3_600] {
        health.record_failed(at(0));
        assert_eq!(health.backs_off_until(), Some(at(seconds)));
    }
    health.record_registered();
    assert_eq!(health.backs_off_until(), None);
}

#[test]
fn a_verb_of_a_newer_version_is_refused_and_known_ones_default_their_fields() {
    let text = r#"{"at":"2026-01-01T00:00:00Z","change":{"verb":"teleport","to":"mars"}}"#;
    let command: Command = serde_json::from_str(text).unwrap();
    assert_eq!(command.change, Change::Unknown);
    assert!(matches!(State::default().apply(1, &command), Applied::Rejected { .. }));
    let text = r#"{"at":"2026-01-01T00:00:00Z","change":{"verb":"record-terminated","claim":"a"}}"#;
    assert!(serde_json::from_str::<Command>(text).is_ok());
}

#[test]
fn what_was_written_before_there_were_reservations_is_read_as_without() {
    let text = r#"{"instance_type":"m5.large","zone":"a","capacity_type":"spot",
        "until":"2026-01-01T00:00:00Z"}"#;
    let offering: UnavailableOffering = serde_json::from_str(text).unwrap();
    assert_eq!(offering.reservation, None);
    assert_eq!(serde_json::to_value(&offering).unwrap().as_object().unwrap().len(), 4);
    let text = r#"{"id":"i-1","instance_type":"m5.large","zone":"a","capacity_type":"reserved"}"#;
    assert_eq!(serde_json::from_str::<ClaimInstance>(text).unwrap().reservation, None);
    // A request is replayed byte by byte: what it does not say must not be said later.
    let request = serde_json::to_value(intent("one", &["a"]).request).unwrap();
    assert_eq!(request.get("capacity_block"), None);
}
