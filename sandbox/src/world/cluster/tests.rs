//! Scenarios: a world in process, on virtual time.

use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::world::resource::{NODES, PODS, Resource};
use crate::world::store::{DeleteOptions, Part, WriteOptions};
use crate::world::{World, WorldOptions, object};

mod garbage;
mod nodes;
mod scheduling;
mod workloads;

/// A world and its time.
struct Town {
    world: World,
    now: Timestamp,
}

impl Town {
    fn new() -> Self {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        Self { world: World::new(WorldOptions::default(), now), now }
    }

    /// Lets time pass, with a tick whenever something is due.
    fn pass(&mut self, seconds: f64) {
        let end = self.now + SignedDuration::try_from_secs_f64(seconds).unwrap();
        self.world.tick(self.now);
        for _ in 0..10_000 {
            if self.world.is_due(self.now) {
                self.world.tick(self.now);
                continue;
            }
            match self.world.next_due().filter(|due| *due <= end) {
                Some(due) => self.now = due.max(self.now),
                None => {
                    self.now = end;
                    return;
                }
            }
        }
        panic!("the world does not come to rest");
    }

    fn create(&mut self, resource: &Resource, object: Value) {
        self.world.store.create(resource, object, &WriteOptions::default(), self.now).unwrap();
    }

    fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<Arc<Value>> {
        self.world.store.find(resource, namespace, name).cloned()
    }

    fn edit(&mut self, resource: &Resource, name: &str, change: impl FnOnce(&mut Value)) {
        let namespace = if *resource == NODES { "" } else { "default" };
        let key = ObjectKey::new(namespace, name);
        self.world.store.modify(resource, &key, Part::Whole, self.now, change).unwrap();
    }

    fn delete(
        &mut self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        options: &DeleteOptions,
    ) {
        let key = ObjectKey::new(namespace, name);
        self.world.store.delete(resource, &key, options, self.now).unwrap();
    }

    /// A ready node without an instance, in a zone of the region.
    fn node(&mut self, name: &str, zone: &str, cpu: &str) {
        let room = json!({"cpu": cpu, "memory": "16Gi", "pods": "50"});
        self.create(
            &NODES,
            json!({
                "metadata": {"name": name, "labels": {
                    "kubernetes.io/hostname": name, "topology.kubernetes.io/zone": zone,
                }},
                "spec": {},
                "status": {
                    "capacity": room, "allocatable": room,
                    "conditions": [{"type": "Ready", "status": "True"}],
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                },
            }),
        );
    }

    fn pod(&mut self, name: &str, spec: Value) {
        self.create(
            &PODS,
            json!({
                "metadata": {"name": name, "namespace": "default", "labels": {"app": name}},
                "spec": spec,
            }),
        );
    }

    fn pods(&self) -> Vec<Arc<Value>> {
        self.world.store.iter(&PODS).map(|(_, pod)| Arc::clone(pod)).collect()
    }

    fn count(&self, holds: impl Fn(&Value) -> bool) -> usize {
        self.pods().iter().filter(|pod| holds(pod)).count()
    }

    fn ready(&self) -> usize {
        self.count(|pod| object::condition(pod, "Ready") == "True")
    }

    fn node_of(&self, pod: &str) -> String {
        let pod = self.get(&PODS, "default", pod).unwrap();
        object::text(&pod, "/spec/nodeName").to_owned()
    }

    /// The scheduler's message on a pod.
    fn message(&self, pod: &str) -> String {
        let pod = self.get(&PODS, "default", pod).unwrap();
        let condition = object::list(&pod, "/status/conditions")
            .iter()
            .find(|condition| object::text(condition, "/type") == "PodScheduled")
            .unwrap()
            .clone();
        object::text(&condition, "/message").to_owned()
    }
}

/// A pod spec of one container.
fn spec(cpu: &str) -> Value {
    json!({"containers": [{"name": "main", "image": "web", "resources": {"requests": {"cpu": cpu}}}]})
}

/// A spec with more in it.
fn with(mut spec: Value, more: Value) -> Value {
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

/// The spec of a workload whose pods are labelled `app=<name>`.
fn workload(name: &str, replicas: i64, pod: Value) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    })
}
