//! A node, its pods, their budgets and an API server with bad days. It knows nothing of the engine's
//! rules: what is allowed and what could have been done is judged from its own record.

use std::collections::BTreeMap;

use super::super::*;
use super::plan::{Fault, Plan, PodPlan};
use crate::cluster::{Metadata, OwnerReference, PodSpec};

/// A call that is not answered is given up by the shell after so long, milliseconds.
pub(super) const HANG: i64 = 11_000;
const ANSWER: i64 = 50;

pub(super) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(1_700_000_000_000 + milliseconds).unwrap()
}

/// How a pod began to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When, milliseconds.
    pub(super) since: i64,
    /// When the call that did it was made.
    pub(super) asked: i64,
    /// The grace it was given, seconds.
    pub(super) grace: i64,
    /// By a deletion.
    pub(super) forced: bool,
}

pub(super) struct World {
    pub(super) plan: Plan,
    /// By UID.
    pods: BTreeMap<String, Pod>,
    /// What the watch has told so far.
    shown: BTreeMap<String, Pod>,
    /// Changes on their way to the watch: when, which, and the pod or its end.
    told: Vec<(i64, String, Option<Pod>)>,
    pub(super) endings: BTreeMap<String, Ending>,
    /// When each allowed disruption of a budget was used.
    spent: [Vec<i64>; 3],
    pending: Vec<(i64, DrainKey, Result<(), KubernetesFailure>)>,
    /// Requests that the API server takes long to carry out: when, made when, what.
    delayed: Vec<(i64, i64, KubernetesCall, String)>,
    pub(super) calls: usize,
}

impl World {
    pub(super) fn new(plan: Plan) -> Self {
        let pods: BTreeMap<String, Pod> = plan
            .pods
            .iter()
            .enumerate()
            .map(|(index, plan)| (uid(index), pod(index, plan)))
            .collect();
        Self {
            shown: pods.clone(),
            pods,
            plan,
            told: Vec::new(),
            endings: BTreeMap::new(),
            spent: [Vec::new(), Vec::new(), Vec::new()],
            pending: Vec::new(),
            delayed: Vec::new(),
            calls: 0,
        }
    }

    fn plan_of(&self, uid: &str) -> &PodPlan {
        &self.plan.pods[uid[1..].parse::<usize>().unwrap()]
    }

    /// Whether anything that has to leave is still there.
    pub(super) fn is_occupied(&self) -> bool {
        self.pods.keys().any(|uid| !self.plan_of(uid).stays)
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
                let terminating = self.endings.contains_key(uid);
                let last_moment = self.plan.deadline - plan.grace.max(3) * 1000;
                assert!(terminating || now >= last_moment, "{uid} is deleted too early");
                let grace = i64::from(grace_seconds.expect("a deletion states its grace"));
                assert_eq!(grace, left.min(plan.grace.max(1)), "the grace that is left");
            }
            other => panic!("{other:?}"),
        }
    }

    fn execute(&mut self, call: &DrainCall, now: i64) {
        self.judge(call, now);
        self.calls += 1;
        let failure = |kind, retry| {
            let message = String::new();
            Err(KubernetesFailure { kind, message, retry_after_seconds: retry })
        };
        let (delay, outcome) = match self.plan.fault_at(now, self.calls) {
            None => (ANSWER, self.obey(&call.call, &call.key.uid, now, now)),
            Some(Fault::Overloaded) => {
                (ANSWER, failure(KubernetesFailureKind::TooManyRequests, Some(1)))
            }
            Some(Fault::Error) => (ANSWER, failure(KubernetesFailureKind::ServerError, None)),
            Some(Fault::Refused) => (ANSWER, failure(KubernetesFailureKind::Unreachable, None)),
            Some(Fault::Hang) => (HANG, failure(KubernetesFailureKind::Unreachable, None)),
            Some(Fault::LostAnswer) => {
                let _lost = self.obey(&call.call, &call.key.uid, now, now);
                (HANG, failure(KubernetesFailureKind::Unreachable, None))
            }
            Some(Fault::Late) => {
                self.delayed.push((now + 4_000, now, call.call.clone(), call.key.uid.clone()));
                (HANG, failure(KubernetesFailureKind::Unreachable, None))
            }
        };
        self.pending.push((now + delay, call.key.clone(), outcome));
    }

    /// Whether the budget allows one more disruption now.
    pub(super) fn allows(&self, budget: usize, now: i64) -> bool {
        let plan = self.plan.budgets[budget];
        let under_way = self.spent[budget].iter().filter(|&&at| now < at + plan.recovery).count();
        now >= plan.opens && under_way < plan.allowed
    }

    fn obey(
        &mut self,
        call: &KubernetesCall,
        uid: &str,
        asked: i64,
        now: i64,
    ) -> Result<(), KubernetesFailure> {
        let failure = |kind| {
            Err(KubernetesFailure { kind, message: String::new(), retry_after_seconds: None })
        };
        if !self.pods.contains_key(uid) {
            return failure(KubernetesFailureKind::NotFound);
        }
        let plan = self.plan_of(uid).clone();
        let (grace, forced) = match call {
            KubernetesCall::Evict { grace_seconds, .. } => {
                if !self.endings.contains_key(uid) {
                    match plan.budgets.as_slice() {
                        [] => {}
                        [budget] if self.allows(*budget, now) => self.spent[*budget].push(now),
                        [_] => return failure(KubernetesFailureKind::DisruptionBudget),
                        _ => return failure(KubernetesFailureKind::OverlappingBudgets),
                    }
                }
                (grace_seconds.map_or(plan.grace, i64::from), false)
            }
            KubernetesCall::Delete { grace_seconds, .. } => {
                (grace_seconds.map_or(30, i64::from), true)
            }
            other => panic!("{other:?}"),
        };
        let ending = self.endings.entry(uid.to_owned()).or_insert(Ending {
            since: now,
            asked,
            grace,
            forced,
        });
        let end = (ending.since + ending.grace * 1000).min(now + grace * 1000);
        let pod = self.pods.get_mut(uid).expect("checked above");
        let end = pod.metadata.deletion_timestamp.map_or(at(end), |old| old.min(at(end)));
        pod.metadata.deletion_timestamp = Some(end);
        self.told.push((now + self.plan.watch_delay, uid.to_owned(), Some(pod.clone())));
        Ok(())
    }

    /// Pods whose containers have ended, and whose volumes are unmounted, are gone.
    fn end_pods(&mut self, now: i64) {
        let plan = &self.plan;
        let ended = |uid: &String, pod: &Pod| {
            let unmount = plan.pods[uid[1..].parse::<usize>().unwrap()].unmount;
            pod.metadata.deletion_timestamp.is_some_and(|end| end <= at(now - unmount))
        };
        let gone: Vec<String> = self
            .pods
            .iter()
            .filter(|(uid, pod)| ended(uid, pod))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in gone {
            self.pods.remove(&uid);
            self.told.push((now + self.plan.watch_delay, uid, None));
        }
    }

    fn show(&mut self, now: i64) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.told).into_iter().partition(|(time, ..)| *time <= now);
        self.told = later;
        for (_, uid, pod) in due {
            match pod {
                Some(pod) => self.shown.insert(uid, pod),
                None => self.shown.remove(&uid),
            };
        }
    }

    pub(super) fn tick(&mut self, state: &mut DrainState, purpose: &Purpose, now: i64) {
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.delayed).into_iter().partition(|(time, ..)| *time <= now);
        self.delayed = later;
        for (time, asked, call, uid) in due {
            let _nobody_waits = self.obey(&call, &uid, asked, time);
        }
        self.end_pods(now);
        self.show(now);
        let (due, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.pending).into_iter().partition(|(time, ..)| *time <= now);
        self.pending = later;
        let outcomes: Vec<_> = due.into_iter().map(|(_, key, outcome)| (key, outcome)).collect();
        let shown = std::mem::take(&mut self.shown);
        let pods: Vec<&Pod> = shown.values().collect();
        let input =
            DrainInput { pods: &pods, complete: true, purpose, now: at(now), outcomes: &outcomes };
        let mut twin = state.clone();
        let calls = step(state, input);
        // Of reduced pods the same follows.
        let few: Vec<Pod> = input.pods.iter().map(|pod| reduced((*pod).clone())).collect();
        let few: Vec<&Pod> = few.iter().collect();
        assert_eq!(step(&mut twin, DrainInput { pods: &few, ..input }), calls);
        assert_eq!(twin, *state);
        self.shown = shown;
        for call in calls {
            self.execute(&call, now);
        }
        let under_way = self.pending.len();
        // A pod's deletion that hangs is repeated, but not more than once in three seconds.
        assert!(under_way <= 6 * CONCURRENCY, "{under_way} calls under way");
    }
}

pub(super) fn uid(index: usize) -> String {
    format!("u{index}")
}

fn pod(index: usize, plan: &PodPlan) -> Pod {
    let mut metadata = Metadata {
        name: format!("{index}"),
        namespace: "d".into(),
        uid: uid(index),
        ..Metadata::default()
    };
    if plan.stays {
        metadata.annotations.insert("kubernetes.io/config.mirror".into(), String::new());
    }
    if plan.stateful {
        let kind = "StatefulSet".to_owned();
        let owner = OwnerReference { kind, controller: true, ..OwnerReference::default() };
        metadata.owner_references.push(owner);
    }
    let spec = PodSpec {
        termination_grace_period_seconds: Some(plan.grace),
        priority: plan.critical.then_some(2_000_000_000),
        ..PodSpec::default()
    };
    Pod { metadata, spec, ..Pod::default() }
}
