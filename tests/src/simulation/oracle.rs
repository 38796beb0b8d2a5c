//! What must be true, checked against the cloud's and the cluster's own books and the committed log
//! as JSON; no code of the leader takes part.

use std::collections::{BTreeMap, BTreeSet};

use drover_core::command::Command;
use drover_sandbox::world::World;
use jiff::Timestamp;
use serde_json::Value;

use super::books::{NODECLAIMS, PODS};

/// Remembers which instances were alive, to see which go without a decision.
#[derive(Debug, Default)]
pub struct Oracle {
    seen: BTreeMap<String, bool>,
    committed: Committed,
}

impl Oracle {
    /// Reads what was committed since the last look.
    pub fn read(&mut self, log: &[Command]) {
        self.committed.read(log);
    }

    /// When the log began the drains of NodeClaims, by name.
    pub fn drains(&self) -> &BTreeMap<String, Timestamp> {
        &self.committed.drains
    }

    /// Broken safety rules at this moment, in words.
    pub fn safety(&mut self, world: &World) -> Vec<String> {
        let mut broken = Vec::new();
        let audit = world.cloud.audit();
        if !audit.launched_twice.is_empty() {
            broken.push(format!("intents launched more than once: {:?}", audit.launched_twice));
        }
        if audit.token_mismatches > 0 {
            broken.push(format!("{} client tokens came with two requests", audit.token_mismatches));
        }
        if !audit.claims_with_two_instances.is_empty() {
            broken
                .push(format!("claims with two instances: {:?}", audit.claims_with_two_instances));
        }
        broken.extend(self.committed.broken.iter().cloned());
        let committed = &self.committed;
        for instance in world.cloud.instances() {
            let id = instance.id.to_string();
            let Some(intent) = instance.tags.get("drover.dev/intent") else {
                broken.push(format!("{id} bears no intent"));
                continue;
            };
            if !committed.intents.contains(intent) {
                broken.push(format!("{id} was launched for {intent}, which is not committed"));
            }
            let alive = !instance.state.is_gone();
            let was_alive = self.seen.insert(id.clone(), alive).unwrap_or(true);
            let by_user = instance.reason.is_some_and(|reason| reason.contains("User"));
            if was_alive && !alive && by_user && !committed.terminations.contains(&id) {
                broken.push(format!("{id} was terminated without a committed decision"));
            }
        }
        broken
    }

    /// How many consolidations went as far as their drain.
    pub fn consolidated(&self) -> usize {
        self.committed.consolidated
    }

    /// What is still missing once faults have stopped; empty when the system has come to rest.
    pub fn unfinished(&self, world: &World) -> Vec<String> {
        let mut missing = Vec::new();
        for (key, pod) in world.store.iter(&PODS) {
            let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str);
            if text("/status/phase") != Some("Running") {
                let message = pod
                    .pointer("/status/conditions")
                    .and_then(Value::as_array)
                    .and_then(|conditions| conditions.iter().find(|c| c["type"] == "PodScheduled"))
                    .and_then(|condition| condition["message"].as_str())
                    .unwrap_or_default()
                    .to_owned();
                missing.push(format!("pod {} does not run: {message}", key.name));
            }
        }
        let claimed: BTreeSet<String> = world
            .store
            .iter(&NODECLAIMS)
            .filter_map(|(_, claim)| claim.pointer("/status/providerID")?.as_str())
            .filter_map(|id| id.rsplit('/').next().map(str::to_owned))
            .collect();
        for instance in world.cloud.instances().filter(|instance| !instance.state.is_gone()) {
            if !claimed.contains(instance.id.as_str()) {
                missing.push(format!("{} has no NodeClaim", instance.id));
            }
        }
        for (key, claim) in world.store.iter(&NODECLAIMS) {
            let initialized = claim
                .pointer("/status/conditions")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
                .any(|c| c["type"] == "Initialized" && c["status"] == "True");
            if !initialized {
                missing.push(format!("NodeClaim {} is not initialized", key.name));
            }
        }
        for open in self.committed.intents.difference(&self.committed.closed) {
            missing.push(format!("intent {open} is open"));
        }
        missing
    }
}

/// Reasons to disrupt that can wait: others take claims from these.
const VOLUNTARY: [&str; 3] = ["Consolidation", "Emptiness", "Rebalance"];

/// What the log says, read from its JSON.
#[derive(Debug, Default)]
struct Committed {
    entries: usize,
    intents: BTreeSet<String>,
    closed: BTreeSet<String>,
    terminations: BTreeSet<String>,
    initialized: BTreeSet<String>,
    /// The replacements of each consolidation that was committed.
    replacements: BTreeMap<String, BTreeSet<String>>,
    /// The claims of each disruption, which of these are by nobody's need, and when the drains of claims began.
    disrupted: BTreeMap<String, Vec<String>>,
    voluntary: BTreeSet<String>,
    drains: BTreeMap<String, Timestamp>,
    consolidated: usize,
    broken: Vec<String>,
}

impl Committed {
    fn read(&mut self, log: &[Command]) {
        for command in log.iter().skip(self.entries) {
            let entry = serde_json::to_value(command).expect("commands are JSON");
            let text =
                |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
            match text("/change/verb").as_deref() {
                Some("create-intent") => self.intents.extend(text("/change/intent/id")),
                Some("commit-disruption") => {
                    let intents = entry.pointer("/change/intents").and_then(Value::as_array);
                    let ids = intents.into_iter().flatten();
                    self.intents
                        .extend(ids.filter_map(|i| Some(i.get("id")?.as_str()?.to_owned())));
                    let id = text("/change/disruption/id").unwrap_or_default();
                    let listed = entry.pointer("/change/disruption/claims");
                    let claims = listed.and_then(Value::as_array).into_iter().flatten();
                    let claims: Vec<String> =
                        claims.filter_map(|n| n.as_str().map(str::to_owned)).collect();
                    self.take_over(&claims);
                    self.disrupted.insert(id.clone(), claims);
                    let reason = text("/change/disruption/reason");
                    if reason.as_deref().is_some_and(|reason| VOLUNTARY.contains(&reason)) {
                        self.voluntary.insert(id.clone());
                    }
                    if reason.as_deref() == Some("Consolidation") {
                        let listed = entry.pointer("/change/disruption/replacements");
                        let names = listed.and_then(Value::as_array).into_iter().flatten();
                        let names = names.filter_map(|n| n.as_str().map(str::to_owned)).collect();
                        self.replacements.insert(id, names);
                    }
                }
                Some("tighten-disruption") => {
                    let id = text("/change/disruption").unwrap_or_default();
                    self.set_apart(&text("/change/claim").unwrap_or_default(), id);
                }
                Some("record-initialized") => self.initialized.extend(text("/change/claim")),
                Some("start-drain") => {
                    let id = text("/change/disruption").unwrap_or_default();
                    for claim in self.disrupted.remove(&id).unwrap_or_default() {
                        self.drains.entry(claim).or_insert(command.at);
                    }
                    let Some(wanted) = self.replacements.remove(&id) else { continue };
                    self.consolidated += 1;
                    if !wanted.is_subset(&self.initialized) {
                        self.broken.push(format!("{id} drains before its replacements are up"));
                    }
                }
                Some("record-launched" | "record-launch-failed") => {
                    self.closed.extend(text("/change/intent"));
                }
                Some("commit-termination") => self.terminations.extend(text("/change/instance")),
                _ => {}
            }
        }
        self.entries = log.len();
    }

    /// What takes a claim out of a disruption that nobody needs: that goes on without it.
    fn take_over(&mut self, claims: &[String]) {
        for (id, others) in &mut self.disrupted {
            if self.voluntary.contains(id) {
                others.retain(|other| !claims.contains(other));
            }
        }
    }

    /// A claim that has less time than others of its disruption goes on alone.
    fn set_apart(&mut self, claim: &str, id: String) {
        let shared = self.disrupted.values_mut();
        for claims in shared.filter(|claims| claims.len() > 1) {
            if let Some(at) = claims.iter().position(|own| own == claim) {
                let own = claims.remove(at);
                self.disrupted.insert(id, vec![own]);
                return;
            }
        }
    }
}
