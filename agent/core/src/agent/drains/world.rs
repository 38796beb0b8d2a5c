//! A node, its pods, their budgets and an API server with bad days. It knows nothing of the agent's
//! rules: what is allowed and what could have been done is judged from its own record.

use drover_common::call::{Kind, KubernetesFailureKind};
use drover_common::cluster::{ClusterObject, Metadata, OwnerReference, PodSpec};
use drover_common::drain;
use drover_common::taint::Toleration;
use serde_json::json;

use super::super::*;
use super::law::{self, Scene};
use super::plan::{Fault, Plan, PodPlan, Shy, Stays};
use super::story::Grounds;

type Outcome = Result<Value, KubernetesFailure>;

/// The world begins then.
const START: i64 = 1_700_000_000_000;
/// A call that is not answered is given up by the shell after so long, milliseconds.
const HANG: i64 = 11_000;
/// The same of a call for the Node.
const NODE_HANGS: i64 = 3_000;
const ANSWER: i64 = 50;
/// What an agent allows for the way of a request and for a clock that is ahead, with rounding.
const ARRIVES_WITHIN: i64 = 12_000;
/// Rounding to whole seconds and ticks.
pub(super) const SLACK: i64 = 2_000;

pub(super) fn at(milliseconds: i64) -> Timestamp {
    Timestamp::from_millisecond(START + milliseconds).unwrap()
}

fn since_start(time: Timestamp) -> i64 {
    time.as_millisecond() - START
}

/// How a pod began to leave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// When, milliseconds.
    pub(super) since: i64,
    /// The grace it was given, seconds.
    pub(super) grace: i64,
    /// By a deletion.
    pub(super) forced: bool,
}

/// What the watches tell.
enum Told {
    Pod(String, Option<Box<Pod>>),
    Node(Value),
}

pub(super) struct World {
    pub(super) plan: Plan,
    /// By UID.
    pods: BTreeMap<String, Pod>,
    node: Value,
    /// The pods that the watch has told of so far.
    shown: BTreeSet<String>,
    /// Changes on their way to the watches.
    told: Vec<(i64, Told)>,
    pub(super) endings: BTreeMap<String, Ending>,
    /// When the kubelet kills what has not ended: it counts a period from when it hears of it.
    kills: BTreeMap<String, i64>,
    /// When each allowed disruption of a budget was used.
    spent: [Vec<i64>; 3],
    pending: Vec<(i64, CallKey, Outcome)>,
    /// Requests that the API server takes long to carry out.
    delayed: Vec<(i64, KubernetesCall, String)>,
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
        let node = json!({
            "metadata": {"name": "n", "uid": "node", "resourceVersion": "0"},
            "spec": {"providerID": "aws:///a/i-1"},
        });
        Self {
            shown: pods.keys().cloned().collect(),
            pods,
            node,
            plan,
            told: Vec::new(),
            endings: BTreeMap::new(),
            kills: BTreeMap::new(),
            spent: [Vec::new(), Vec::new(), Vec::new()],
            pending: Vec::new(),
            delayed: Vec::new(),
            calls: 0,
        }
    }

    /// What an agent that starts is told.
    pub(super) fn list(&self) -> Vec<ClusterEvent> {
        let pods = self.pods.values().map(|pod| ClusterObject::Pod(Box::new(pod.clone())));
        let node = ClusterObject::from_json(Kind::Node, self.node.clone()).unwrap();
        let mut events: Vec<ClusterEvent> = pods.chain([node]).map(ClusterEvent::Applied).collect();
        events.extend([ClusterEvent::Synced(Kind::Node), ClusterEvent::Synced(Kind::Pod)]);
        events
    }

    fn plan_of(&self, uid: &str) -> &PodPlan {
        &self.plan.pods[index(uid)]
    }

    /// Whether anything that has to leave is still there.
    pub(super) fn is_occupied(&self) -> bool {
        self.pods.keys().any(|uid| self.plan_of(uid).stays.is_none())
    }

    /// The pods that are still there later than so, though they end, and could be made to end by then
    /// without losing what is left: an API server counts that from when they were first told to, and must
    /// not find it over. In the last second nothing is lost.
    pub(super) fn outlasting(&self, end: i64, now: i64) -> BTreeSet<String> {
        let outlasts = |uid: &&String| {
            let counted = self.endings[*uid].since + (end - now);
            self.kills[*uid] > end.max(now) + SLACK
                && (now >= end - 1_000 || counted >= now + ARRIVES_WITHIN)
        };
        let ending = self.pods.keys().filter(|uid| self.kills.contains_key(*uid));
        ending.filter(outlasts).cloned().collect()
    }

    /// Carries out a call of the agent's, if the law allows it.
    pub(super) fn execute(
        &mut self,
        key: CallKey,
        call: &KubernetesCall,
        possible: &[Grounds],
        now: i64,
    ) -> Result<(), String> {
        self.calls += 1;
        let hang = if let CallKey::Drain(key) = &key {
            let ordinary = |uid: &String| {
                let plan = self.plan_of(uid);
                plan.stays.is_none() && !plan.critical
            };
            let scene = Scene {
                pod: self.plan_of(&key.uid),
                is_leaving: self.endings.contains_key(&key.uid),
                others_remain: self.shown.iter().any(ordinary),
                now,
            };
            law::judge(key, call, &scene, possible)?;
            HANG
        } else {
            NODE_HANGS
        };
        let before = match &key {
            CallKey::Drain(key) => self.kills.get_key_value(&key.uid),
            _ => None,
        };
        let before = before.map(|(uid, kill)| (uid.clone(), *kill));
        let failure = |kind, retry| {
            let message = String::new();
            Err(KubernetesFailure { kind, message, retry_after_seconds: retry })
        };
        let silence = failure(KubernetesFailureKind::Unreachable, None);
        let (delay, outcome) = match self.plan.fault_at(now, self.calls) {
            Some(Fault::Contended) if matches!(call, KubernetesCall::Evict { .. }) => {
                (10_000, failure(KubernetesFailureKind::DisruptionBudget, None))
            }
            None | Some(Fault::Contended) => (ANSWER, self.obey(&key, call, now)),
            Some(Fault::Overloaded(seconds)) => {
                (ANSWER, failure(KubernetesFailureKind::TooManyRequests, Some(seconds)))
            }
            Some(Fault::Error) => (ANSWER, failure(KubernetesFailureKind::ServerError, None)),
            Some(Fault::Refused) => (ANSWER, silence),
            Some(Fault::Hang) => (hang, silence),
            Some(Fault::LostAnswer) => {
                let _lost = self.obey(&key, call, now);
                (hang, silence)
            }
            Some(Fault::Late) => {
                if let CallKey::Drain(key) = &key {
                    self.delayed.push((now + 4_000, call.clone(), key.uid.clone()));
                }
                (hang, silence)
            }
        };
        // A deletion under way is shortened to the deadline, and no more.
        if let Some((uid, before)) = before {
            let end = possible.iter().filter_map(Grounds::budgets_end).min();
            let due = end.map_or(before, |end| before.min(end.max(now)));
            let kill = self.kills[&uid];
            if kill < due - SLACK {
                return Err(format!("{uid} is killed at {kill} ms, not {due}: {call:?} at {now}"));
            }
        }
        self.pending.push((now + delay, key, outcome));
        let under_way = self.pending.len();
        // A pod's deletion that hangs is repeated, but not more than once in three seconds. A drain that
        // was called off leaves its calls behind.
        let most = 12 * drain::CONCURRENCY;
        if under_way <= most { Ok(()) } else { Err(format!("{under_way} calls under way")) }
    }

    /// Whether the budget allows one more disruption now.
    fn allows(&self, budget: usize, now: i64) -> bool {
        let plan = self.plan.budgets[budget];
        let under_way = self.spent[budget].iter().filter(|&&at| now < at + plan.recovery).count();
        now >= plan.opens && under_way < plan.allowed
    }

    fn obey(&mut self, key: &CallKey, call: &KubernetesCall, now: i64) -> Outcome {
        match (key, call) {
            (CallKey::Drain(key), call) => {
                self.end(call, &key.uid, now).map(|()| Value::Null).map_err(|kind| {
                    KubernetesFailure { kind, message: String::new(), retry_after_seconds: None }
                })
            }
            (_, KubernetesCall::MergePatch { patch, .. }) => {
                self.change_node(patch.clone(), now);
                Ok(self.node.clone())
            }
            _ => Ok(self.node.clone()),
        }
    }

    /// Changes the Node.
    pub(super) fn change_node(&mut self, patch: Value, now: i64) {
        let version = self.node["metadata"]["resourceVersion"].as_str().unwrap();
        let version = version.parse::<u32>().unwrap() + 1;
        tests::merge(&mut self.node, patch);
        self.node["metadata"]["resourceVersion"] = json!(version.to_string());
        self.told.push((now + self.plan.watch_delay, Told::Node(self.node.clone())));
    }

    /// Lets a pod end, if its budget allows it or isn't asked.
    fn end(
        &mut self,
        call: &KubernetesCall,
        uid: &str,
        now: i64,
    ) -> Result<(), KubernetesFailureKind> {
        if !self.pods.contains_key(uid) {
            return Err(KubernetesFailureKind::NotFound);
        }
        let plan = self.plan_of(uid).clone();
        let (asked, forced) = match call {
            KubernetesCall::Evict { grace_seconds, .. } => (grace_seconds, false),
            KubernetesCall::Delete { grace_seconds, .. } => (grace_seconds, true),
            other => panic!("{other:?}"),
        };
        if !forced && !self.endings.contains_key(uid) {
            match plan.budgets.as_slice() {
                [] => {}
                [budget] if self.allows(*budget, now) => self.spent[*budget].push(now),
                [_] => return Err(KubernetesFailureKind::DisruptionBudget),
                _ => return Err(KubernetesFailureKind::OverlappingBudgets),
            }
        }
        let pod = self.pods.get_mut(uid).expect("checked above");
        let metadata = &mut pod.metadata;
        let whole = now / 1_000 * 1_000;
        let (end, period) =
            match metadata.deletion_timestamp.zip(metadata.deletion_grace_period_seconds) {
                None => {
                    let grace = asked.map_or(plan.grace, i64::from);
                    self.endings.insert(uid.to_owned(), Ending { since: now, grace, forced });
                    (whole + grace * 1_000, grace)
                }
                // It only shrinks, and is counted from the first deletion.
                Some((end, given)) => match asked.map(i64::from).filter(|&asked| asked < given) {
                    None => return Ok(()),
                    Some(asked) => {
                        let end = since_start(end) + (asked - given) * 1_000;
                        if self.plan.clamps && end < now { (whole, 1) } else { (end, asked) }
                    }
                },
            };
        metadata.deletion_timestamp = Some(at(end));
        metadata.deletion_grace_period_seconds = Some(period);
        self.kills.insert(uid.to_owned(), now + period * 1_000);
        let told = Told::Pod(uid.to_owned(), Some(Box::new(pod.clone())));
        self.told.push((now + self.plan.watch_delay, told));
        Ok(())
    }

    /// What happens without the agent: late requests are carried out, and pods whose containers have
    /// ended, and whose volumes are unmounted, are gone.
    pub(super) fn pass(&mut self, now: i64) {
        for (time, call, uid) in due(&mut self.delayed, |(time, ..)| *time <= now) {
            let _nobody_waits = self.end(&call, &uid, time);
        }
        let ended = |uid: &&String| {
            let unmount = self.plan_of(uid).unmount;
            self.kills.get(*uid).is_some_and(|kill| *kill <= now - unmount)
        };
        let gone: Vec<String> = self.pods.keys().filter(ended).cloned().collect();
        for uid in gone {
            self.pods.remove(&uid);
            self.told.push((now + self.plan.watch_delay, Told::Pod(uid, None)));
        }
    }

    /// What reaches the agent by now: of the watches, then of its calls.
    pub(super) fn inputs(&mut self, now: i64) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (_, told) in due(&mut self.told, |(time, _)| *time <= now) {
            inputs.push(Input::Cluster(match told {
                Told::Node(node) => {
                    ClusterEvent::Applied(ClusterObject::from_json(Kind::Node, node).unwrap())
                }
                Told::Pod(_, Some(pod)) => ClusterEvent::Applied(ClusterObject::Pod(pod)),
                Told::Pod(uid, None) => {
                    self.shown.remove(&uid);
                    ClusterEvent::Deleted(Kind::Pod, ObjectKey::new("d", index(&uid).to_string()))
                }
            }));
        }
        let answers = due(&mut self.pending, |(time, ..)| *time <= now);
        inputs.extend(answers.into_iter().map(|(_, key, outcome)| Input::Outcome(key, outcome)));
        inputs
    }
}

/// Takes out what is due.
fn due<T>(list: &mut Vec<T>, is_due: impl FnMut(&T) -> bool) -> Vec<T> {
    let (due, later) = std::mem::take(list).into_iter().partition(is_due);
    *list = later;
    due
}

pub(super) fn uid(index: usize) -> String {
    format!("u{index}")
}

fn index(uid: &str) -> usize {
    uid[1..].parse().unwrap()
}

fn pod(index: usize, plan: &PodPlan) -> Pod {
    let mut pod = Pod {
        metadata: Metadata {
            name: format!("{index}"),
            namespace: "d".into(),
            uid: uid(index),
            ..Metadata::default()
        },
        spec: PodSpec {
            termination_grace_period_seconds: Some(plan.grace),
            priority: plan.critical.then_some(2_000_000_000),
            ..PodSpec::default()
        },
        ..Pod::default()
    };
    let owner = |kind: &str| OwnerReference {
        kind: kind.to_owned(),
        controller: true,
        ..OwnerReference::default()
    };
    let annotations = &mut pod.metadata.annotations;
    pod.status.phase = "Running".into();
    match plan.stays {
        Some(Stays::Mirror) => {
            annotations.insert("kubernetes.io/config.mirror".into(), String::new());
        }
        Some(Stays::Daemon) => pod.metadata.owner_references.push(owner("DaemonSet")),
        Some(Stays::Tolerates) => {
            let operator = Some("Exists".to_owned());
            pod.spec.tolerations.push(Toleration { operator, ..Toleration::default() });
        }
        Some(Stays::Ended) => pod.status.phase = "Succeeded".into(),
        None => {}
    }
    if plan.stateful && plan.stays.is_none() {
        pod.metadata.owner_references.push(owner("StatefulSet"));
    }
    let shy = match plan.shy {
        None => return pod,
        Some(Shy::Always) => "true".to_owned(),
        // It started a hundred seconds before.
        Some(Shy::For(seconds)) => format!("{}s", seconds + 100),
    };
    pod.status.start_time = Some(at(-100_000));
    pod.metadata.annotations.insert("karpenter.sh/do-not-disrupt".into(), shy);
    pod
}
