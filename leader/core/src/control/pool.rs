//! What is told on NodePools: conditions, and what their nodes add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use drover_common::call::{Call, Kind, KubernetesCall, Target};
use drover_common::crd::{
    Condition, ConditionStatus, NodePool, NodePoolStatus, parse_resources, validate_node_pool,
};
use drover_common::id::NodePoolName;
use drover_common::resources::{ResourceName, Resources};
use jiff::Timestamp;
use serde_json::json;

use super::Control;
use super::calls::CallKey;
use super::intent::raw;
use super::object::{condition, ready};
use super::problem::Subject;
use crate::state::{Stage, State};

impl Control {
    pub(super) fn report_pools(&mut self, state: &State, now: Timestamp) {
        let totals = self.pool_totals(state);
        let pools: Vec<(NodePoolName, Arc<NodePool>)> =
            self.view.pools().iter().map(|(n, p)| (n.clone(), p.clone())).collect();
        for (name, pool) in pools {
            let (nodes, resources) = totals.get(&name).cloned().unwrap_or_default();
            let before = pool.status.clone().unwrap_or_default();
            let wanted = self.wanted_pool_status(state, &name, &pool, nodes, &resources, now);
            self.tell_unready(&name, &pool, &wanted, now);
            if wanted == before {
                continue;
            }
            let Ok(mut status) = serde_json::to_value(&wanted) else { continue };
            // A merge patch keeps what it does not name: what a pool no longer has is said so.
            if let Some(fields) = status.as_object_mut() {
                let gone =
                    before.resources.keys().filter(|key| !wanted.resources.contains_key(*key));
                let entry = fields.entry("resources").or_insert_with(|| json!({}));
                for key in gone {
                    entry[key.as_str()] = serde_json::Value::Null;
                }
            }
            let call = KubernetesCall::MergePatch {
                target: Target::cluster(Kind::NodePool, name.to_string()),
                status: true,
                patch: json!({ "status": status }),
            };
            self.calls.call(CallKey::PatchPoolStatus(name), Call::Kubernetes(call), now);
        }
    }

    /// Tells why no node can be made of a pool, as long as that is so.
    fn tell_unready(
        &mut self,
        name: &NodePoolName,
        pool: &NodePool,
        status: &NodePoolStatus,
        now: Timestamp,
    ) {
        let subject = Subject::NodePool(name.clone());
        let failed = |kind: &&str| {
            let found = Condition::find(&status.conditions, kind);
            found.filter(|found| found.status == ConditionStatus::False)
        };
        let failed = ["ValidationSucceeded", "NodeClassReady"].iter().filter_map(failed);
        let mut words: Vec<String> = failed.map(|condition| condition.message.clone()).collect();
        if words.is_empty() {
            self.problems.mended(&subject);
            return;
        }
        words.extend(self.class_troubles(&pool.spec.template.spec.node_class_ref.name));
        self.problems.tell(subject, words.join("; "), now);
    }

    /// What the class's own conditions say of what it lacks.
    fn class_troubles(&self, class: &str) -> Vec<String> {
        let conditions = self.discovery.resolved(class).map(|resolved| &resolved.conditions);
        let failed = conditions.into_iter().flatten().filter(|condition| {
            condition.status == ConditionStatus::False && condition.type_ != "Ready"
        });
        failed.map(|it| format!("EC2NodeClass {class}, {}: {}", it.type_, it.message)).collect()
    }

    /// Nodes that have launched and are not gone, and their capacities.
    fn pool_totals(&self, state: &State) -> BTreeMap<NodePoolName, (i64, Resources)> {
        let mut totals: BTreeMap<NodePoolName, (i64, Resources)> = BTreeMap::new();
        for record in state.claims.values() {
            let launched = record.instance.as_ref().filter(|_| record.stage < Stage::Gone);
            let (Some(pool), Some(instance)) = (&record.nodepool, launched) else { continue };
            let entry = totals.entry(pool.clone()).or_default();
            entry.0 = entry.0.saturating_add(1);
            let node = self.node_of(record).filter(|node| !node.status.capacity.is_empty());
            if let Some(node) = node {
                entry.1.add(&node.status.capacity);
            } else if let Some(kind) =
                self.discovery.instance_type(&record.nodeclass, &instance.instance_type)
            {
                entry.1.add(&kind.capacity);
            }
        }
        for (nodes, resources) in totals.values_mut() {
            resources.set(ResourceName::from("nodes"), *nodes);
        }
        totals
    }

    fn wanted_pool_status(
        &self,
        state: &State,
        name: &NodePoolName,
        pool: &NodePool,
        nodes: i64,
        resources: &Resources,
        now: Timestamp,
    ) -> NodePoolStatus {
        let mut status = pool.status.clone().unwrap_or_default();
        status.nodes = Some(nodes);
        if parse_resources(&status.resources).ok().as_ref() != Some(resources) {
            status.resources = raw(resources);
        }
        let generation = pool.metadata.generation;
        let errors = validate_node_pool(pool);
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let validation = if words.is_empty() {
            condition("ValidationSucceeded", ConditionStatus::True, "", "", generation, now)
        } else {
            condition(
                "ValidationSucceeded",
                ConditionStatus::False,
                "NodePoolValidationFailed",
                &words.join("; "),
                generation,
                now,
            )
        };
        Condition::set(&mut status.conditions, validation);
        Condition::set(&mut status.conditions, self.class_condition(pool, now));
        if let Some(health) = self.health_condition(state, name, pool, now) {
            Condition::set(&mut status.conditions, health);
        }
        let sum =
            ready(&status.conditions, &["ValidationSucceeded", "NodeClassReady"], generation, now);
        Condition::set(&mut status.conditions, sum);
        status
    }

    fn class_condition(&self, pool: &NodePool, now: Timestamp) -> Condition {
        let make = |status, reason: &str, message: &str| {
            condition("NodeClassReady", status, reason, message, pool.metadata.generation, now)
        };
        let name = &pool.spec.template.spec.node_class_ref.name;
        let Some(class) = self.view.classes().get(name) else {
            let words = format!("EC2NodeClass {name} does not exist");
            return make(ConditionStatus::False, "NodeClassNotFound", &words);
        };
        if class.metadata.deletion_timestamp.is_some() {
            let words = format!("EC2NodeClass {name} is being deleted");
            return make(ConditionStatus::False, "NodeClassTerminating", &words);
        }
        let ready = self
            .discovery
            .resolved(name)
            .and_then(|resolved| Condition::find(&resolved.conditions, "Ready"));
        match ready {
            Some(ready) if ready.status == ConditionStatus::True => {
                make(ConditionStatus::True, "", "")
            }
            Some(ready) => make(ready.status, &ready.reason, &ready.message),
            None => {
                let words = format!("EC2NodeClass {name} is being read");
                make(ConditionStatus::Unknown, "NodeClassReadinessUnknown", &words)
            }
        }
    }

    /// False while the pool backs off, true again once a launch registered.
    fn health_condition(
        &self,
        state: &State,
        name: &NodePoolName,
        pool: &NodePool,
        now: Timestamp,
    ) -> Option<Condition> {
        let health = state.pools.get(name)?;
        let kind = "NodeRegistrationHealthy";
        let generation = pool.metadata.generation;
        if health.backs_off_until().is_some() {
            let words = format!("the last {} launches did not register", health.failures);
            let reason = "RegistrationFailed";
            return Some(condition(kind, ConditionStatus::False, reason, &words, generation, now));
        }
        (health.failures == 0)
            .then(|| condition(kind, ConditionStatus::True, "", "", generation, now))
    }
}
