//! Judges drains: what is asked of pods, and what becomes of them, by the cloud's and the cluster's own books.
//! No rule of Drover's takes part; what `docs/agent.md` promises is written down here once more.

use std::collections::BTreeMap;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_sandbox::world::World;
use drover_sandbox::world::cloud::SpotAction;
use drover_sandbox::world::cluster::EndKind;
use drover_sandbox::world::object::text;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::books::{BUDGETS, NODECLAIMS, NODES, PODS};

/// Drains for a spot loss end so long before EC2's time.
const RESERVE: SignedDuration = SignedDuration::from_secs(5);
/// Kubernetes' seconds are whole, and requests travel for a while.
const SLACK: f64 = 2.0;

/// What drains did, to know that a run was about something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainCounts {
    /// Evictions that were granted.
    pub evicted: usize,
    /// Evictions that a budget refused.
    pub refused: usize,
    /// Pods that were deleted past a budget.
    pub past_budget: usize,
    /// Pods that ended with less than their own grace.
    pub clipped: usize,
}

/// Remembers what was broken, and which ends were seen.
#[derive(Debug, Default)]
pub struct DrainOracle {
    broken: Vec<String>,
    counts: DrainCounts,
    ends: usize,
    /// When Nodes, by UID, were first seen with the taint that keeps pods off.
    tainted: BTreeMap<String, Timestamp>,
}

/// Something asked of a pod, as its books were before.
#[derive(Debug)]
pub struct Asked {
    namespace: String,
    name: String,
    uid: String,
    /// The budgets that have no disruption left for it.
    exhausted: Vec<String>,
    evicts: bool,
}

impl DrainOracle {
    /// Judges a call before it is carried out; what it asks of a pod, if anything. `begun` says when the log began
    /// the drains of NodeClaims.
    pub fn ask(
        &mut self,
        world: &World,
        begun: &BTreeMap<String, Timestamp>,
        call: &Call,
        now: Timestamp,
    ) -> Option<Asked> {
        let Call::Kubernetes(call) = call else { return None };
        let (target, uid, grace, evicts) = match call {
            KubernetesCall::Delete { target, uid, grace_seconds } => {
                (target, uid.as_deref(), *grace_seconds, false)
            }
            KubernetesCall::Evict { target, uid, grace_seconds } => {
                (target, Some(uid.as_str()), *grace_seconds, true)
            }
            _ => return None,
        };
        let pod = pod_of(world, target)?;
        if uid.is_some_and(|uid| text(pod, "/metadata/uid") != uid) || !is_bound(pod) {
            return None;
        }
        if uid.is_none() {
            self.broken.push(format!("{} is deleted, whichever pod it is", target.name));
        }
        let end = self.last_moment(world, begun, text(pod, "/spec/nodeName"));
        let left = end.map(|end| end.duration_since(now).as_secs_f64());
        let own = own_grace(pod);
        let given = grace.map_or(own, f64::from);
        self.judge_grace(&target.name, given, own, left);
        let terminating = is_terminating(pod);
        if !evicts && !terminating && left.is_none_or(|left| left > own + SLACK) {
            let when = left.map_or("no deadline".to_owned(), |left| format!("{left:.1} s left"));
            self.broken.push(format!(
                "{} is deleted past budgets with {when} and a grace of {own} s",
                target.name
            ));
        }
        let exhausted = if terminating { Vec::new() } else { exhausted_budgets(world, pod) };
        Some(Asked {
            namespace: text(pod, "/metadata/namespace").to_owned(),
            name: target.name.clone(),
            uid: text(pod, "/metadata/uid").to_owned(),
            exhausted,
            evicts: evicts && !terminating,
        })
    }

    /// A pod may get less than its grace where no more is left.
    fn judge_grace(&mut self, pod: &str, given: f64, own: f64, left: Option<f64>) {
        if given >= own {
            return;
        }
        match left {
            _ if given < 1.0 => self.broken.push(format!("{pod} is to end without any grace")),
            None => self.broken.push(format!("{pod} gets {given} s of {own} s without a deadline")),
            Some(left) if given + SLACK < left => {
                self.broken.push(format!("{pod} gets {given} s of {own} s with {left:.1} s left"));
            }
            Some(_) => {}
        }
    }

    /// Judges what came of it.
    pub fn done(&mut self, world: &World, asked: Asked) {
        let pod = world.store.find(&PODS, &asked.namespace, &asked.name);
        let pod = pod.filter(|pod| text(pod, "/metadata/uid") == asked.uid);
        let leaves = pod.is_none_or(|pod| is_terminating(pod));
        match (asked.evicts, leaves) {
            (true, true) => self.counts.evicted += 1,
            (true, false) if !asked.exhausted.is_empty() => self.counts.refused += 1,
            (false, true) if !asked.exhausted.is_empty() => self.counts.past_budget += 1,
            _ => {}
        }
        if asked.evicts && leaves && !asked.exhausted.is_empty() {
            let budgets = asked.exhausted.join(", ");
            self.broken.push(format!("{} was evicted against {budgets}", asked.name));
        }
    }

    /// Judges how pods ended since the last look.
    pub fn watch(&mut self, world: &World) {
        let ends: Vec<_> = world.cluster.ends().skip(self.ends).collect();
        self.ends += ends.len();
        for end in ends {
            let name = &end.pod.name;
            match end.how {
                EndKind::Forced => {
                    self.broken.push(format!("{name} was taken away while it ran"));
                }
                EndKind::Lost => self.broken.push(format!(
                    "{name} ended with its machine, although it needs no more than {} s",
                    end.own_grace
                )),
                EndKind::Stopped { .. } | EndKind::Killed { .. } => {
                    self.counts.clipped += usize::from(end.is_clipped());
                }
            }
        }
    }

    /// Looks at what a call may have made of Nodes.
    pub fn see(&mut self, world: &World, call: &Call, now: Timestamp) {
        let Call::Kubernetes(KubernetesCall::MergePatch { target, .. }) = call else { return };
        let node = (target.kind == Kind::Node).then(|| world.store.find(&NODES, "", &target.name));
        let Some(node) = node.flatten() else { return };
        let taints = node.pointer("/spec/taints").and_then(Value::as_array);
        if taints.into_iter().flatten().any(|taint| taint["key"] == "karpenter.sh/disrupted") {
            let uid = text(node, "/metadata/uid");
            if !self.tainted.contains_key(uid) {
                self.tainted.insert(uid.to_owned(), now);
            }
        } else {
            self.tainted.remove(text(node, "/metadata/uid"));
        }
    }

    /// The last moment for the pods of a node: what EC2 announced by a spot notice that ends its machine, or the end
    /// of its claim's terminationGracePeriod, whichever comes first.
    fn last_moment(
        &self,
        world: &World,
        begun: &BTreeMap<String, Timestamp>,
        node: &str,
    ) -> Option<Timestamp> {
        let node = world.store.find(&NODES, "", node)?;
        let provider = text(node, "/spec/providerID");
        let instance = world.cloud.instances().find(|one| provider.ends_with(one.id.as_str()));
        let spot = instance.and_then(|one| one.notices.spot.as_ref());
        let spot = spot.filter(|notice| notice.action != SpotAction::Hibernate);
        let lost = spot.map(|notice| notice.time - RESERVE);
        let mut claims = world.store.iter(&NODECLAIMS);
        let claim = claims.find(|(_, claim)| text(claim, "/status/providerID") == provider);
        let elapsed = claim.and_then(|(key, claim)| {
            let period = text(claim, "/spec/terminationGracePeriod").strip_suffix('s')?;
            let period = SignedDuration::from_secs(period.parse().ok()?);
            let tainted = self.tainted.get(text(node, "/metadata/uid")).copied();
            Some(beginning(claim, begun.get(&*key.name).copied(), tainted)? + period)
        });
        lost.into_iter().chain(elapsed).min()
    }

    /// Broken rules, in words.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// What drains did so far.
    pub fn counts(&self) -> DrainCounts {
        self.counts
    }
}

fn pod_of<'w>(world: &'w World, target: &Target) -> Option<&'w Value> {
    let namespace = target.namespace.as_deref().unwrap_or_default();
    let found =
        (target.kind == Kind::Pod).then(|| world.store.find(&PODS, namespace, &target.name));
    found.flatten().map(|pod| &**pod)
}

fn is_bound(pod: &Value) -> bool {
    !text(pod, "/spec/nodeName").is_empty()
}

fn is_terminating(pod: &Value) -> bool {
    pod.pointer("/metadata/deletionTimestamp").is_some()
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|one| one["type"] == "Ready" && one["status"] == "True")
}

fn own_grace(pod: &Value) -> f64 {
    pod.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_f64).unwrap_or(30.0)
}

/// From when a claim's terminationGracePeriod counts: from its deletion, as in Karpenter, or from the log's word that
/// its drain begins, if that comes first; but never from before the API server shows either the deletion or the taint.
/// Before that nobody knows, and nobody was promised less.
fn beginning(
    claim: &Value,
    begun: Option<Timestamp>,
    tainted: Option<Timestamp>,
) -> Option<Timestamp> {
    let deleted: Option<Timestamp> = text(claim, "/metadata/deletionTimestamp").parse().ok();
    let shown = deleted.into_iter().chain(tainted).min()?;
    let decided = deleted.into_iter().chain(begun).min()?;
    Some(shown.max(decided))
}

/// The budgets that have none left to lose, if the pod is one that counts. Those of the simulation select by labels
/// and say how many must be there.
fn exhausted_budgets(world: &World, pod: &Value) -> Vec<String> {
    if !is_ready(pod) {
        return Vec::new();
    }
    let namespace = text(pod, "/metadata/namespace");
    let covers = |labels: &BTreeMap<String, String>, pod: &Value| {
        text(pod, "/metadata/namespace") == namespace
            && labels.iter().all(|(key, value)| pod["metadata"]["labels"][key] == value.as_str())
    };
    let exhausted = world.store.iter(&BUDGETS).filter(|(key, budget)| {
        let labels = budget.pointer("/spec/selector/matchLabels").cloned().unwrap_or_default();
        let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap_or_default();
        let wanted = budget.pointer("/spec/minAvailable").and_then(Value::as_u64).unwrap_or(0);
        let pods = world.store.iter(&PODS).filter(|(_, other)| covers(&labels, other));
        let healthy = pods.filter(|(_, other)| is_ready(other) && !is_terminating(other)).count();
        key.namespace == namespace && covers(&labels, pod) && healthy as u64 <= wanted
    });
    exhausted.map(|(key, _)| key.name.to_string()).collect()
}
