//! Whole drains against a simulated API server with budgets, failures and hangs. What may and must
//! happen is judged here from the world's own record, not by the engine's rules.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::cluster::{Metadata, PodSpec};

const TICK: i64 = 250;
const HANG: i64 = 5_000;

#[derive(Clone, Debug)]
struct PodPlan {
    grace: i64,
    budget: Option<usize>,
    stays: bool,
}

#[derive(Clone, Debug)]
struct Plan {
    pods: Vec<PodPlan>,
    /// When each budget begins to allow one disruption at a time, milliseconds.
    budgets_recover: [i64; 3],
    deadline: i64,
    passes: bool,
    /// Faults are drawn from this while the API is unhealthy: 0 APF, 1 error, 2 hang, 3 lost answer.
    faults: Vec<u8>,
    healthy_from: i64,
}

fn plans() -> impl Strategy<Value = Plan> {
    let grace = prop_oneof![Just(0), 1..60_i64, 60..600_i64];
    let pod = (grace, prop::option::weighted(0.5, 0..3_usize), prop::bool::weighted(0.15))
        .prop_map(|(grace, budget, stays)| PodPlan { grace, budget, stays });
    let recover = prop_oneof![Just(0), 0..200_000_i64, Just(i64::MAX)];
    (
        prop::collection::vec(pod, 0..70),
        [recover.clone(), recover.clone(), recover],
        0..150_000_i64,
        prop::bool::weighted(0.8),
        prop::collection::vec(0..8_u8, 1..50),
        0..150_000_i64,
    )
        .prop_map(|(pods, budgets_recover, deadline, passes, faults, healthy_from)| {
            let healthy_from = healthy_from.min((deadline - 15_000).max(0));
            Plan { pods, budgets_recover, deadline, passes, faults, healthy_from }
        })
}

fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

struct World {
    plan: Plan,
    pods: BTreeMap<String, Pod>,
    /// When each pod began to terminate, and the grace it was given, seconds.
    terminating: BTreeMap<String, (i64, i64)>,
    budget_used_at: [i64; 3],
    pending: Vec<(i64, DrainKey, Result<(), KubernetesFailure>)>,
    fault: usize,
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut pods = BTreeMap::new();
        for (index, pod) in plan.pods.iter().enumerate() {
            let mut metadata = Metadata {
                name: format!("{index}"),
                namespace: "d".into(),
                uid: format!("u{index}"),
                ..Metadata::default()
            };
            if pod.stays {
                metadata.annotations.insert("kubernetes.io/config.mirror".into(), String::new());
            }
            let spec =
                PodSpec { termination_grace_period_seconds: Some(pod.grace), ..PodSpec::default() };
            pods.insert(metadata.uid.clone(), Pod { metadata, spec, ..Pod::default() });
        }
        let never = [i64::MIN; 3];
        let terminating = BTreeMap::new();
        Self { plan, pods, terminating, budget_used_at: never, pending: Vec::new(), fault: 0 }
    }

    fn plan_of(&self, uid: &str) -> &PodPlan {
        &self.plan.pods[uid[1..].parse::<usize>().unwrap()]
    }

    /// The law: which calls may be made at all.
    fn judge(&self, call: &DrainCall, now: i64) {
        let uid = &call.key.uid;
        let plan = self.plan_of(uid);
        assert!(!plan.stays, "{uid} has to stay");
        let left = ((self.plan.deadline - now) / 1000).max(1);
        match &call.call {
            KubernetesCall::Evict { uid: precondition, grace_seconds, .. } => {
                assert_eq!(precondition, uid);
                if let Some(grace) = grace_seconds {
                    assert!(self.plan.passes, "only a spot loss clips");
                    assert_eq!(i64::from(*grace), left);
                    assert!(left < plan.grace);
                }
            }
            KubernetesCall::Delete { uid: precondition, grace_seconds, .. } => {
                assert_eq!(precondition.as_ref(), Some(uid));
                assert!(self.plan.passes, "budgets are passed for spot losses only");
                assert!(now >= self.plan.deadline - plan.grace.max(3) * 1000, "too early");
                let grace = i64::from(grace_seconds.expect("a deletion states its grace"));
                assert_eq!(grace, left.min(plan.grace.max(1)), "the grace that is left");
            }
            other => panic!("{other:?}"),
        }
    }

    fn execute(&mut self, call: &DrainCall, now: i64) {
        self.judge(call, now);
        let fault = self.plan.faults[self.fault % self.plan.faults.len()];
        self.fault += 1;
        let failure = |kind| {
            Err(KubernetesFailure { kind, message: String::new(), retry_after_seconds: None })
        };
        let healthy = now >= self.plan.healthy_from;
        let (delay, outcome) = match fault {
            0 if !healthy => (50, failure(KubernetesFailureKind::TooManyRequests)),
            1 if !healthy => (50, failure(KubernetesFailureKind::ServerError)),
            2 if !healthy => (HANG, failure(KubernetesFailureKind::Unreachable)),
            3 if !healthy => {
                let _lost = self.obey(call, now);
                (HANG, failure(KubernetesFailureKind::Unreachable))
            }
            _ => (50, self.obey(call, now)),
        };
        self.pending.push((now + delay, call.key.clone(), outcome));
    }

    fn obey(&mut self, call: &DrainCall, now: i64) -> Result<(), KubernetesFailure> {
        let failure = |kind| {
            Err(KubernetesFailure { kind, message: String::new(), retry_after_seconds: None })
        };
        let uid = &call.key.uid;
        if !self.pods.contains_key(uid) {
            return failure(KubernetesFailureKind::NotFound);
        }
        let plan = self.plan_of(uid).clone();
        let grace = match &call.call {
            KubernetesCall::Evict { grace_seconds, .. } => {
                if let Some(budget) = plan.budget
                    && !self.terminating.contains_key(uid)
                {
                    let recovered = now >= self.plan.budgets_recover[budget]
                        && now >= self.budget_used_at[budget].saturating_add(3_000);
                    if !recovered {
                        return failure(KubernetesFailureKind::DisruptionBudget);
                    }
                    self.budget_used_at[budget] = now;
                }
                grace_seconds.map_or(plan.grace, i64::from)
            }
            KubernetesCall::Delete { grace_seconds, .. } => grace_seconds.map_or(30, i64::from),
            other => panic!("{other:?}"),
        };
        let first = self.terminating.entry(uid.clone()).or_insert((now, grace));
        let ends_at = at(now + grace * 1000).min(at(first.0 + first.1 * 1000));
        let pod = self.pods.get_mut(uid).expect("checked above");
        pod.metadata.deletion_timestamp = Some(ends_at);
        Ok(())
    }

    fn tick(&mut self, state: &mut DrainState, purpose: &Purpose, now: i64) {
        self.pods.retain(|_, pod| pod.metadata.deletion_timestamp.is_none_or(|end| end > at(now)));
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(time, ..)| *time <= now);
        self.pending = later;
        let outcomes: Vec<_> = due.into_iter().map(|(_, key, outcome)| (key, outcome)).collect();
        let pods: Vec<&Pod> = self.pods.values().collect();
        let input =
            DrainInput { pods: &pods, complete: true, purpose, now: at(now), outcomes: &outcomes };
        for call in step(state, input) {
            self.execute(&call, now);
        }
        let evictions = self.pending.len();
        assert!(evictions <= 2 * CONCURRENCY + CONCURRENCY, "{evictions} calls under way");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, ..ProptestConfig::default() })]

    #[test]
    fn drains_keep_the_law_and_finish_in_time(plan in plans()) {
        let mut world = World::new(plan.clone());
        let purpose =
            Purpose::Interruption { deadline: at(plan.deadline), passes_budgets: plan.passes };
        let mut state = DrainState::default();
        let mut now = 0;
        while now <= plan.deadline {
            world.tick(&mut state, &purpose, now);
            now += TICK;
        }
        for (index, pod) in plan.pods.iter().enumerate() {
            let uid = format!("u{index}");
            let begun = world.terminating.get(&uid);
            if pod.stays {
                prop_assert!(begun.is_none());
                continue;
            }
            let unguarded = pod.budget.is_none();
            if plan.passes && plan.deadline > 3_000 {
                prop_assert!(begun.is_some(), "{uid} was left to be killed with the machine");
            } else if unguarded && plan.deadline > 20_000 {
                prop_assert!(begun.is_some(), "{uid} could have gone");
            }
            // With a healthy API nobody loses more than two seconds of a grace there was time for.
            if let Some((since, grace)) = begun
                && plan.healthy_from == 0
                && plan.passes
            {
                let possible = pod.grace.min(plan.deadline / 1000);
                prop_assert!(*grace >= possible - 2, "{uid}: {grace} s from {since}");
            }
        }
        let report = state.report();
        prop_assert!(report.evicted + report.forced <= u32::try_from(plan.pods.len()).unwrap());
        if !plan.passes {
            prop_assert_eq!(report.forced, 0);
        }
    }
}
