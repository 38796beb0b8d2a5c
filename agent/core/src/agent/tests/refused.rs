//! The machine is not powered off before a deletion was tried.

use super::*;

/// How a call of the drain is met; `None` if it hangs.
type Answer = Option<Result<Value, KubernetesFailureKind>>;

/// [`refused`], with evictions that are forbidden.
fn forbidden_to_evict(deletions: &Answer) -> (Option<i64>, Option<i64>) {
    refused(KubernetesFailureKind::Forbidden, deletions)
}

/// An agent whose evictions are refused from a spot notice on and whose deletions are met like this. Returns when it
/// first asked for one and when it powered the machine off, both in milliseconds.
fn refused(evictions: KubernetesFailureKind, deletions: &Answer) -> (Option<i64>, Option<i64>) {
    let refusal = |kind| {
        let message = "no".to_owned();
        KubernetesFailure { kind, message, retry_after_seconds: None }
    };
    let mut agent = settled();
    agent.step(Input::PowerOff(Some(SignedDuration::from_secs(60))), at(0));
    let mut pending = calls(&agent.step(spot("terminate", 110_000), at(0)));
    let (mut asked, mut off) = (None, None);
    for now in (100..110_000).step_by(100) {
        let mut effects = agent.step(Input::Tick, at(now));
        for (key, call) in std::mem::take(&mut pending) {
            let answer = match (&key, call) {
                (CallKey::Drain(_), KubernetesCall::Delete { .. }) => {
                    asked.get_or_insert(now - 100);
                    deletions.clone()
                }
                (CallKey::Drain(_), _) => Some(Err(evictions)),
                _ => Some(Ok(node(json!({"spec": {"unschedulable": true}})))),
            };
            if let Some(answer) = answer {
                let outcome = Input::Outcome(key, answer.map_err(refusal));
                effects.extend(agent.step(outcome, at(now)));
            }
        }
        if off.is_none() && effects.iter().any(|effect| matches!(effect, Effect::PowerOff(_))) {
            off = Some(now);
        }
        pending = calls(&effects);
    }
    (asked, off)
}

/// Thirty seconds, which is the pod's grace, before its last moment.
const LAST_CALL: i64 = 75_000;

#[test]
fn who_may_not_evict_but_delete_powers_nothing_off() {
    let (asked, off) = forbidden_to_evict(&Some(Ok(json!({}))));
    assert!(asked.is_some_and(|at| (LAST_CALL..LAST_CALL + 500).contains(&at)), "{asked:?}");
    assert_eq!(off, None, "the pod was let go, with all of its grace");
}

#[test]
fn a_deletion_that_is_refused_or_comes_to_nothing_leaves_the_pods_their_grace() {
    use KubernetesFailureKind::{Forbidden, ServerError, TooManyRequests};
    // How long after the deletion was asked for the machine goes off, at most. It has five seconds more than the
    // pod's grace.
    let cases = [
        (Some(Err(Forbidden)), 500),
        (Some(Err(TooManyRequests)), 500),
        (Some(Err(ServerError)), 3_500),
        (None, 3_500),
    ];
    for (answer, within) in cases {
        let (asked, off) = forbidden_to_evict(&answer);
        let (asked, off) = (asked.unwrap(), off.unwrap());
        assert!(asked < LAST_CALL + 500, "{answer:?}: {asked}");
        assert!((asked + 100..=asked + within).contains(&off), "{answer:?}: {asked}, {off}");
    }
}

/// Evictions are held by a budget up to the last moment, so that none was refused for what the agent is.
#[test]
fn deletions_that_are_forbidden_where_a_budget_holds_evictions_leave_the_pods_their_grace() {
    use KubernetesFailureKind::{DisruptionBudget, Forbidden};
    let (asked, off) = refused(DisruptionBudget, &Some(Err(Forbidden)));
    let (asked, off) = (asked.unwrap(), off.unwrap());
    assert!((asked + 100..=asked + 3_500).contains(&off), "{asked}, {off}");
}
