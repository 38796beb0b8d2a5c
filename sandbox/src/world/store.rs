//! The store of Kubernetes objects: one revision counter, one log of changes, JSON values.
//!
//! Reading is direct ([`Store::get`], [`Store::iter`]); writing goes through the verbs in
//! [`mod@write`], which apply the same admission, validation and preconditions as the HTTP face.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use drover_common::cluster::ObjectKey;
use serde_json::Value;

use super::failure::{ApiFailure, ApiResult};
use super::object;
use super::random::Random;
use super::resource::{Registry, Resource};

mod deletion;
pub mod list;
pub mod selector;
pub mod write;

#[cfg(test)]
mod tests;

pub use write::{DeleteOptions, Deleted, Part, Propagation, WriteOptions};

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// One change, at one revision.
#[derive(Clone, Debug)]
pub struct Change {
    /// The store's revision after it; revisions have no gaps.
    pub revision: u64,
    /// What kind of object.
    pub resource: Resource,
    /// Which object.
    pub key: ObjectKey,
    /// What happened.
    pub kind: ChangeKind,
    /// The object after the change; for a deletion, its last state at the new revision.
    pub object: Arc<Value>,
    /// The object before the change.
    pub previous: Option<Arc<Value>>,
}

/// All objects of a simulated cluster.
#[derive(Debug)]
pub struct Store {
    tables: BTreeMap<Resource, BTreeMap<ObjectKey, Arc<Value>>>,
    registry: Registry,
    revision: u64,
    log: VecDeque<Change>,
    log_length: usize,
    random: Random,
}

impl Store {
    /// An empty store that keeps `log_length` changes for watchers.
    pub fn new(random: Random, log_length: usize) -> Self {
        Self {
            tables: BTreeMap::new(),
            registry: Registry::default(),
            // etcd starts at 1; 0 means "any version" to clients.
            revision: 1,
            log: VecDeque::new(),
            log_length,
            random,
        }
    }

    /// The resources served.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The resources served, to be changed (custom resources).
    pub fn registry_mut(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// The revision of the latest change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    pub fn get(&self, resource: &Resource, key: &ObjectKey) -> Option<&Arc<Value>> {
        self.tables.get(resource)?.get(key)
    }

    /// One object by namespace (empty for cluster-scoped resources) and name.
    pub fn find(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Arc<Value>> {
        let key = ObjectKey::new(namespace, name);
        self.get(resource, &key)
    }

    /// One object, or 404.
    ///
    /// # Errors
    /// 404.
    pub fn require(&self, resource: &Resource, key: &ObjectKey) -> ApiResult<&Arc<Value>> {
        self.get(resource, key).ok_or_else(|| ApiFailure::not_found(resource, &key.name))
    }

    /// All objects of a resource, by namespace and name.
    pub fn iter<'a>(
        &'a self,
        resource: &Resource,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> + use<'a> {
        self.tables.get(resource).into_iter().flatten()
    }

    /// All objects of a resource in one namespace, by name.
    pub fn iter_namespace<'a>(
        &'a self,
        resource: &Resource,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<Value>)> + use<'a> {
        let first = ObjectKey::new(namespace, String::new());
        self.tables
            .get(resource)
            .into_iter()
            .flat_map(move |table| table.range(first.clone()..))
            .take_while(move |(key, _)| key.namespace == namespace)
    }

    /// How many objects of a resource there are.
    pub fn count(&self, resource: &Resource) -> usize {
        self.tables.get(resource).map_or(0, BTreeMap::len)
    }

    /// The changes after `revision`, oldest first.
    ///
    /// # Errors
    /// 410 Expired when the log no longer reaches back that far.
    pub fn changes_since(&self, revision: u64) -> ApiResult<impl Iterator<Item = &Change>> {
        let oldest = self.oldest_revision();
        if revision < oldest {
            return Err(ApiFailure::expired(format!(
                "too old resource version: {revision} ({oldest})"
            )));
        }
        let skip = usize::try_from(revision - oldest).unwrap_or(usize::MAX).min(self.log.len());
        Ok(self.log.range(skip..))
    }

    /// The oldest revision that a watch may start from.
    pub fn oldest_revision(&self) -> u64 {
        self.revision - self.log.len() as u64
    }

    /// Forgets all changes, as etcd's compaction does: watches that lag behind get 410.
    pub fn compact(&mut self) {
        self.log.clear();
    }

    /// A random source for names that the server generates.
    pub(crate) fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Writes an object as it is, at a new revision.
    fn commit(&mut self, resource: &Resource, key: ObjectKey, mut value: Value) -> Arc<Value> {
        self.revision += 1;
        object::set(&mut value, &["metadata", "resourceVersion"], self.revision.to_string());
        let value = Arc::new(value);
        let table = self.tables.entry(resource.clone()).or_default();
        let previous = table.insert(key.clone(), Arc::clone(&value));
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        self.record(resource, key, kind, Arc::clone(&value), previous);
        value
    }

    /// Takes all objects of a resource out.
    pub(crate) fn withdraw_all(&mut self, resource: &Resource) {
        let keys: Vec<ObjectKey> = self.iter(resource).map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.withdraw(resource, &key);
        }
    }

    /// Takes an object out, at a new revision; the returned object carries it.
    fn withdraw(&mut self, resource: &Resource, key: &ObjectKey) -> Option<Arc<Value>> {
        let previous = self.tables.get_mut(resource)?.remove(key)?;
        self.revision += 1;
        let mut last = Value::clone(&previous);
        object::set(&mut last, &["metadata", "resourceVersion"], self.revision.to_string());
        let last = Arc::new(last);
        self.record(resource, key.clone(), ChangeKind::Deleted, Arc::clone(&last), Some(previous));
        Some(last)
    }

    fn record(
        &mut self,
        resource: &Resource,
        key: ObjectKey,
        kind: ChangeKind,
        object: Arc<Value>,
        previous: Option<Arc<Value>>,
    ) {
        let revision = self.revision;
        let resource = resource.clone();
        self.log.push_back(Change { revision, resource, key, kind, object, previous });
        while self.log.len() > self.log_length {
            self.log.pop_front();
        }
    }
}
