//! What the controllers know of the store, kept up to date from its log of changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use drover_common::call::Kind;
use drover_common::cluster::{ClusterObject, Node, ObjectKey, Pod};
use drover_common::resources::Resources;
use drover_common::taint::TaintEffect;
use serde::Deserialize;
use serde_json::Value;

use super::Place;
use crate::world::object;
use crate::world::resource::{
    DAEMON_SETS, DEPLOYMENTS, JOBS, NAMESPACES, NODES, PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, Resource, STATEFUL_SETS,
    STORAGE_CLASSES,
};
use crate::world::store::selector::Selector;
use crate::world::store::{Change, ChangeKind, Store};

/// A pod as the controllers read it.
#[derive(Debug)]
pub(super) struct PodEntry {
    pub(super) pod: Pod,
    pub(super) requests: Resources,
    /// Equal for pods that any node accepts alike; empty once bound.
    pub(super) shape: String,
}

impl PodEntry {
    fn read(value: &Value) -> Option<Self> {
        let pod = read::<Pod>(value).or_else(|| {
            match ClusterObject::from_json(Kind::Pod, value.clone()) {
                Ok(ClusterObject::Pod(pod)) => Some(*pod),
                _ => None,
            }
        })?;
        let shape = if pod.spec.node_name.is_empty() { shape_of(&pod) } else { String::new() };
        Some(Self { requests: pod.requests(), shape, pod })
    }

    /// Whether it takes room on its node.
    pub(super) fn takes_room(&self) -> bool {
        !self.pod.spec.node_name.is_empty() && !self.pod.is_terminal()
    }

    fn is_pending(&self) -> bool {
        self.pod.spec.node_name.is_empty()
            && !self.pod.is_terminal()
            && !self.pod.is_terminating()
            && matches!(self.pod.spec.scheduler_name.as_str(), "" | "default-scheduler")
    }
}

fn read<'a, T: Deserialize<'a>>(value: &'a Value) -> Option<T> {
    T::deserialize(value).ok()
}

fn shape_of(pod: &Pod) -> String {
    let spec = serde_json::to_string(&pod.spec).unwrap_or_default();
    let labels = serde_json::to_string(&pod.metadata.labels).unwrap_or_default();
    format!("{}{labels}{spec}", pod.metadata.namespace)
}

/// Typed pods and nodes, who owns whom, and what has to be looked at.
#[derive(Debug, Default)]
pub(super) struct Index {
    revision: u64,
    pub(super) pods: BTreeMap<ObjectKey, Arc<PodEntry>>,
    pub(super) nodes: BTreeMap<String, Arc<Node>>,
    /// Pods bound to a node, ended ones included.
    pub(super) on_node: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// Requests of the pods that take room.
    pub(super) used: BTreeMap<String, Resources>,
    /// Pods that the scheduler has to bind.
    pub(super) pending: BTreeSet<ObjectKey>,
    /// Bound pods with required anti-affinity.
    pub(super) anti_affine: BTreeSet<ObjectKey>,
    budgets: BTreeMap<ObjectKey, Option<Selector>>,
    /// Objects by their owners' uids.
    dependents: BTreeMap<String, BTreeSet<Place>>,
    /// What changed or is due.
    pub(super) work: BTreeSet<Place>,
    /// What may have lost its owner.
    pub(super) orphans: BTreeSet<Place>,
    /// Whether a pending pod might be bound now.
    pub(super) scheduling: bool,
}

impl Index {
    /// Whether nothing is left to do.
    pub(super) fn is_idle(&self) -> bool {
        self.work.is_empty() && self.orphans.is_empty() && !self.scheduling
    }

    /// The dependents of one resource, by their owner's uid.
    pub(super) fn dependents<'a>(
        &'a self,
        uid: &str,
        resource: &'a Resource,
    ) -> impl Iterator<Item = &'a ObjectKey> {
        self.all_dependents(uid).filter(move |(kind, _)| kind == resource).map(|(_, key)| key)
    }

    /// Every dependent, by its owner's uid.
    pub(super) fn all_dependents(&self, uid: &str) -> impl Iterator<Item = &Place> {
        self.dependents.get(uid).into_iter().flatten()
    }

    /// The pods that an object controls.
    pub(super) fn controlled_pods(&self, uid: &str) -> Vec<Arc<PodEntry>> {
        self.dependents(uid, &PODS)
            .filter_map(|key| self.pods.get(key))
            .filter(|entry| entry.pod.metadata.controller().is_some_and(|owner| owner.uid == uid))
            .cloned()
            .collect()
    }

    /// Takes in every change since the last time.
    pub(super) fn absorb(&mut self, store: &Store) {
        if self.revision == store.revision() {
            return;
        }
        let changes: Option<Vec<Change>> =
            store.changes_since(self.revision).ok().map(|changes| changes.cloned().collect());
        match changes {
            Some(changes) => {
                for change in &changes {
                    self.take_in(store, change);
                }
            }
            // The log begins later (at the start, or after compaction): read everything anew.
            None => self.rebuild(store),
        }
        self.revision = store.revision();
    }

    fn rebuild(&mut self, store: &Store) {
        *self = Self::default();
        let resources: Vec<Resource> =
            store.registry().iter().map(|definition| definition.resource.clone()).collect();
        for resource in &resources {
            for (key, value) in store.iter(resource) {
                let change = Change {
                    revision: store.revision(),
                    resource: resource.clone(),
                    key: key.clone(),
                    kind: ChangeKind::Added,
                    object: Arc::clone(value),
                    previous: None,
                };
                self.take_in(store, &change);
            }
        }
    }

    fn take_in(&mut self, store: &Store, change: &Change) {
        let place = (change.resource.clone(), change.key.clone());
        self.note_owners(change, &place);
        self.note_namespace(store, change);
        self.work.insert(place);
        let live = (change.kind != ChangeKind::Deleted).then_some(&change.object);
        match &change.resource {
            r if *r == PODS => self.note_pod(change, live),
            r if *r == NODES => self.note_node(store, change, live),
            r if *r == POD_DISRUPTION_BUDGETS => match live {
                Some(value) => {
                    let selector = Selector::from_label_selector(value.pointer("/spec/selector"));
                    self.budgets.insert(change.key.clone(), selector);
                }
                None => {
                    self.budgets.remove(&change.key);
                }
            },
            r if *r == REPLICA_SETS || *r == STATEFUL_SETS => {
                self.wake_controller(change);
                self.wake_budgets(&change.key.namespace, |_| true);
            }
            r if *r == PERSISTENT_VOLUME_CLAIMS
                || *r == PERSISTENT_VOLUMES
                || *r == STORAGE_CLASSES =>
            {
                self.scheduling = !self.pending.is_empty();
                if *r == STORAGE_CLASSES || *r == PERSISTENT_VOLUMES {
                    let claims = store.iter(&PERSISTENT_VOLUME_CLAIMS).map(|(key, _)| key.clone());
                    self.work.extend(claims.map(|key| (PERSISTENT_VOLUME_CLAIMS, key)));
                }
            }
            _ => {}
        }
    }

    /// Keeps who owns what; an object whose owner went may be garbage.
    fn note_owners(&mut self, change: &Change, place: &Place) {
        let owners = |value: &Value| -> Vec<String> {
            object::list(value, "/metadata/ownerReferences")
                .iter()
                .map(|owner| object::text(owner, "/uid").to_owned())
                .collect()
        };
        if let Some(previous) = &change.previous {
            for uid in owners(previous) {
                if let Some(places) = self.dependents.get_mut(&uid) {
                    places.remove(place);
                    if places.is_empty() {
                        self.dependents.remove(&uid);
                    }
                }
            }
        }
        if change.kind == ChangeKind::Deleted {
            let uid = object::uid(&change.object);
            self.orphans.extend(self.dependents.get(uid).into_iter().flatten().cloned());
            self.wake_owners(&change.object, &change.key.namespace);
            return;
        }
        let owners = owners(&change.object);
        if change.kind == ChangeKind::Added && !owners.is_empty() {
            self.orphans.insert(place.clone());
        }
        for uid in owners {
            self.dependents.entry(uid).or_default().insert(place.clone());
        }
    }

    /// An owner that waits for its dependents (foreground deletion) looks again.
    fn wake_owners(&mut self, value: &Value, namespace: &str) {
        for owner in object::list(value, "/metadata/ownerReferences") {
            let Some(resource) = resource_of_kind(object::text(owner, "/kind")) else { continue };
            let name = object::text(owner, "/name").to_owned();
            let namespace = if resource == NODES { String::new() } else { namespace.to_owned() };
            self.work.insert((resource, ObjectKey::new(namespace, name)));
        }
    }

    fn wake_controller(&mut self, change: &Change) {
        self.wake_owners(&change.object, &change.key.namespace);
    }

    /// A namespace that is going looks again when one of its objects went.
    fn note_namespace(&mut self, store: &Store, change: &Change) {
        let namespace = &change.key.namespace;
        if namespace.is_empty() {
            return;
        }
        let going =
            store.find(&NAMESPACES, "", namespace).is_none_or(|found| object::is_deleting(found));
        if going {
            let key = ObjectKey::cluster(namespace.clone());
            self.work.insert((NAMESPACES, key));
        }
    }

    fn wake_budgets(&mut self, namespace: &str, covers: impl Fn(&Selector) -> bool) {
        let first = ObjectKey::new(namespace, String::new());
        let keys = self
            .budgets
            .range(first..)
            .take_while(|(key, _)| key.namespace == namespace)
            .filter(|(_, selector)| selector.as_ref().is_some_and(&covers))
            .map(|(key, _)| (POD_DISRUPTION_BUDGETS, key.clone()));
        self.work.extend(keys);
    }

    fn note_pod(&mut self, change: &Change, live: Option<&Arc<Value>>) {
        self.wake_controller(change);
        self.wake_budgets(&change.key.namespace, |selector| {
            selector.matches(&change.object)
                || change.previous.as_ref().is_some_and(|previous| selector.matches(previous))
        });
        let before = self.forget_pod(&change.key);
        let entry = live.and_then(|value| PodEntry::read(value)).map(Arc::new);
        let frees = |entry: &PodEntry| {
            (entry.takes_room(), entry.pod.metadata.labels.clone(), entry.pod.is_terminating())
        };
        let moved = match (&before, &entry) {
            (Some(before), Some(now)) => frees(before) != frees(now) || before.shape != now.shape,
            _ => true,
        };
        if let Some(entry) = entry {
            self.remember_pod(&change.key, entry);
        }
        self.scheduling |= moved && !self.pending.is_empty();
    }

    fn remember_pod(&mut self, key: &ObjectKey, entry: Arc<PodEntry>) {
        if entry.is_pending() {
            self.pending.insert(key.clone());
        }
        let node = &entry.pod.spec.node_name;
        if !node.is_empty() {
            self.on_node.entry(node.clone()).or_default().insert(key.clone());
        }
        if entry.takes_room() {
            self.used.entry(node.clone()).or_default().add(&entry.requests);
            let anti = entry.pod.spec.affinity.pod_anti_affinity.as_ref();
            if anti.is_some_and(|anti| !anti.required.is_empty()) {
                self.anti_affine.insert(key.clone());
            }
        }
        self.pods.insert(key.clone(), entry);
    }

    fn forget_pod(&mut self, key: &ObjectKey) -> Option<Arc<PodEntry>> {
        let entry = self.pods.remove(key)?;
        let node = &entry.pod.spec.node_name;
        self.pending.remove(key);
        self.anti_affine.remove(key);
        if let Some(keys) = self.on_node.get_mut(node) {
            keys.remove(key);
            if keys.is_empty() {
                self.on_node.remove(node);
            }
        }
        if entry.takes_room()
            && let Some(used) = self.used.get_mut(node)
        {
            used.subtract(&entry.requests);
        }
        Some(entry)
    }

    fn note_node(&mut self, store: &Store, change: &Change, live: Option<&Arc<Value>>) {
        let name = change.key.name.as_str();
        let node = live.and_then(|value| {
            read::<Node>(value).or_else(|| {
                match ClusterObject::from_json(Kind::Node, Value::clone(value)) {
                    Ok(ClusterObject::Node(node)) => Some(*node),
                    _ => None,
                }
            })
        });
        let before = self.nodes.get(name).cloned();
        let changed = match (&before, &node) {
            (Some(before), Some(node)) => {
                before.spec != node.spec
                    || before.metadata.labels != node.metadata.labels
                    || before.status.allocatable != node.status.allocatable
            }
            _ => true,
        };
        let no_execute = |node: &Node| {
            node.spec.taints.iter().any(|taint| taint.effect == TaintEffect::NoExecute)
        };
        let evicting = before.as_ref().is_some_and(|node| no_execute(node))
            || node.as_ref().is_some_and(no_execute);
        if changed && (evicting || node.is_none() || before.is_none()) {
            let pods = self.on_node.get(name).into_iter().flatten().cloned();
            self.work.extend(pods.map(|key| (PODS, key)));
        }
        match node {
            Some(node) => self.nodes.insert(name.to_owned(), Arc::new(node)),
            None => self.nodes.remove(name),
        };
        if changed {
            self.scheduling |= !self.pending.is_empty();
            let daemon_sets = store.iter(&DAEMON_SETS).map(|(key, _)| (DAEMON_SETS, key.clone()));
            self.work.extend(daemon_sets);
        }
    }
}

/// The resource of an owner's kind, for those that a controller here acts for.
fn resource_of_kind(kind: &str) -> Option<Resource> {
    Some(match kind {
        "ReplicaSet" => REPLICA_SETS,
        "Deployment" => DEPLOYMENTS,
        "StatefulSet" => STATEFUL_SETS,
        "DaemonSet" => DAEMON_SETS,
        "Job" => JOBS,
        "Node" => NODES,
        _ => return None,
    })
}
