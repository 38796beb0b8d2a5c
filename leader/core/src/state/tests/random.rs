//! Whatever commands come: applying, replaying and restoring agree, and what must hold holds.

use super::*;

fn any_claim() -> impl Strategy<Value = NodeClaimName> {
    prop::sample::select(vec!["a", "b", "c", "d"]).prop_map(NodeClaimName::from)
}

fn any_instance() -> impl Strategy<Value = InstanceId> {
    prop::sample::select(vec!["i-1", "i-2", "i-3"]).prop_map(InstanceId::from)
}

fn any_unavailable() -> impl Strategy<Value = UnavailableOffering> {
    (prop::sample::select(vec!["m5.large", "c5.large"]), 0_i64..100).prop_map(|(kind, second)| {
        UnavailableOffering {
            instance_type: kind.to_owned(),
            zone: "us-east-1a".to_owned(),
            capacity_type: CapacityType::Spot,
            reservation: None,
            until: at(second),
        }
    })
}

#[test]
fn a_claim_that_has_less_time_goes_on_alone_and_others_keep_theirs() {
    let mut state = State::default();
    let mut both = disruption("d1", "a", DisruptionReason::Consolidation);
    if let Change::CommitDisruption { disruption, .. } = &mut both {
        disruption.claims.push("b".into());
    }
    let tighten = |deadline| Change::TightenDisruption {
        claim: "a".into(),
        disruption: "d2".into(),
        notice: NoticeKind::SpotTerminate,
        deadline: Some(at(deadline)),
        explanation: "spot".to_owned(),
    };
    let done = apply_all(
        &mut state,
        &[
            Change::CreateIntent { intent: Box::new(intent("one", &["a", "b"])) },
            Change::RecordLaunched {
                intent: "one".into(),
                launched: vec![launched("a", "i-a"), launched("b", "i-b")],
                unavailable: Vec::new(),
                errors: Vec::new(),
            },
            tighten(100),
            both,
            Change::StartDrain { disruption: "d1".into(), deadline: None },
            tighten(100),
            tighten(200),
            tighten(60),
        ],
    );
    assert!(matches!(done[2], Applied::Rejected { .. }), "it does not leave: {done:?}");
    assert_eq!(done[5..], [Applied::Done, Applied::Unchanged, Applied::Done]);
    let of = |id: &str| &state.disruptions[&DisruptionId::from(id)];
    assert_eq!(of("d1").disruption.claims, [NodeClaimName::from("b")]);
    assert_eq!((of("d1").disruption.deadline, of("d1").disruption.notice), (None, None));
    let alone = of("d2");
    assert_eq!(alone.disruption.claims, [NodeClaimName::from("a")]);
    assert_eq!(alone.disruption.deadline, Some(at(60)));
    assert_eq!(alone.disruption.reason, DisruptionReason::Interruption);
    assert_eq!(alone.draining_since, of("d1").draining_since);
    assert_eq!(state.claims[&NodeClaimName::from("a")].disruption, Some("d2".into()));
    assert_eq!(state.claims[&NodeClaimName::from("a")].stage, Stage::Draining);
}

fn any_notice() -> impl Strategy<Value = Change> {
    let kind = prop::sample::select(vec![NoticeKind::SpotTerminate, NoticeKind::Rebalance]);
    let source = prop::sample::select(vec![NoticeSource::Agent, NoticeSource::Queue]);
    let issued_at = prop::sample::select(vec![None, Some(at(0)), Some(at(60))]);
    let told = (source, issued_at, any::<bool>(), any::<bool>());
    (any_instance(), kind, prop::option::of(any_unavailable()), told).prop_map(
        |(instance, kind, unavailable, (source, issued_at, by_issue, lasts))| {
            Change::RecordNotice {
                node: Some("node-1".into()),
                notice: Notice {
                    kind,
                    instance,
                    boot: "boot".into(),
                    deadline: Some(at(120)),
                    detected_at: at(0),
                    issued_at,
                },
                unavailable,
                source,
                by_issue,
                lasts,
            }
        },
    )
}

fn any_leaving() -> impl Strategy<Value = Change> {
    use DisruptionReason::{Emptiness, Interruption, Liveness};
    let id = || prop::sample::select(vec!["d1", "d2"]);
    prop_oneof![
        (id(), any_claim(), prop::sample::select(vec![Emptiness, Interruption, Liveness]))
            .prop_map(|(id, claim, reason)| disruption(id, claim.as_str(), reason)),
        id().prop_map(|id| Change::StartDrain { disruption: id.into(), deadline: None }),
        id().prop_map(|id| Change::CancelDisruption {
            disruption: id.into(),
            reason: String::new()
        }),
        any_claim().prop_map(|claim| Change::RecordDrained { claim, by: String::new() }),
        (any_claim(), id(), prop::option::of(0..300_i64)).prop_map(|(claim, id, deadline)| {
            Change::TightenDisruption {
                claim,
                disruption: id.into(),
                notice: NoticeKind::SpotTerminate,
                deadline: deadline.map(at),
                explanation: String::new(),
            }
        }),
        any_instance().prop_map(|instance| Change::WithdrawNotice {
            instance,
            kind: NoticeKind::SpotTerminate
        }),
        (any_instance(), prop::option::of(any_claim())).prop_map(|(instance, claim)| {
            Change::CommitTermination { instance, claim, reason: String::new() }
        }),
        (prop::option::of(any_instance()), prop::option::of(any_claim())).prop_map(
            |(instance, claim)| Change::RecordTerminated { instance, claim, reason: String::new() }
        ),
        any_claim().prop_map(|claim| Change::ForgetClaim { claim }),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let id = || prop::sample::select(vec!["one", "two", "three"]);
    prop_oneof![
        (id(), prop::sample::subsequence(vec!["a", "b", "c", "d"], 0..3)).prop_map(
            |(id, claims)| Change::CreateIntent { intent: Box::new(intent(id, &claims)) }
        ),
        (id(), prop::collection::vec((any_claim(), any_instance()), 0..3), any_unavailable())
            .prop_map(|(id, pairs, unavailable)| Change::RecordLaunched {
                intent: id.into(),
                launched: pairs
                    .iter()
                    .map(|(claim, id)| launched(claim.as_str(), id.as_str()))
                    .collect(),
                unavailable: vec![unavailable],
                errors: vec![],
            }),
        (any_claim(), prop::option::of(any_instance())).prop_map(|(name, id)| {
            let claim = AdoptedClaim {
                name,
                nodepool: None,
                nodeclass: String::new(),
                intent: None,
                instance: id.map(|id| instance(id.as_str())),
                node: None,
                initialized: false,
                failure: None,
                created_at: at(0),
                hourly_price_micro: 1,
            };
            Change::AdoptClaim { claim: Box::new(claim) }
        }),
        any_claim().prop_map(|claim| Change::RecordRegistered { claim, node: "node-1".into() }),
        any_claim().prop_map(|claim| Change::RecordInitialized { claim }),
        any_notice(),
        any_leaving(),
    ]
}

/// What must hold of every state, however it came about.
fn check(state: &State) {
    for instance in state.notices.keys() {
        assert!(state.instances.contains_key(instance), "notices of {instance}, which is gone");
    }
    for (id, name) in &state.instances {
        let claim = &state.claims[name];
        assert_eq!(claim.instance.as_ref().map(|i| &i.id), Some(id), "{name}");
    }
    for (name, claim) in &state.claims {
        if let Some(instance) = &claim.instance
            && claim.stage != Stage::Gone
        {
            assert_eq!(state.instances.get(&instance.id), Some(name));
        }
        assert!(claim.disruption.is_none() || claim.is_leaving(), "{name}");
        if let Some(id) = &claim.disruption {
            assert!(state.disruptions[id].disruption.claims.contains(name), "{name}");
        }
    }
    for record in state.disruptions.values() {
        assert!(!record.disruption.claims.is_empty());
    }
    for intent in state.intents.values() {
        for plan in &intent.claims {
            assert_ne!(state.claims[&plan.name].stage, Stage::Gone, "{}", plan.name);
        }
    }
}

proptest! {
    #[test]
    fn applying_replaying_and_restoring_agree(changes in prop::collection::vec(any_change(), 0..60)) {
        let mut live = State::default();
        let mut restored = State::default();
        for (position, change) in changes.iter().enumerate() {
            let index = position as u64 + 1;
            let command = Command { at: at(index as i64), change: change.clone() };
            let bytes = serde_json::to_vec(&command).unwrap();
            let decoded: Command = serde_json::from_slice(&bytes).unwrap();
            prop_assert_eq!(live.apply(index, &command), restored.apply(index, &decoded));
            check(&live);
            // A snapshot at every entry, restored, goes on as if nothing had happened.
            let snapshot = serde_json::to_vec(&restored).unwrap();
            restored = serde_json::from_slice(&snapshot).unwrap();
            prop_assert_eq!(&live, &restored);
        }
        // Entries that are in already change nothing.
        let before = live.clone();
        for (position, change) in changes.iter().enumerate() {
            let command = Command { at: at(0), change: change.clone() };
            live.apply(position as u64 + 1, &command);
        }
        prop_assert_eq!(live, before);
    }
}
