//! Namespaces: one that goes takes everything in it along.

use drover_common::cluster::ObjectKey;
use serde_json::Value;

use super::{Place, Turn};
use crate::world::object;
use crate::world::resource::{NAMESPACES, NEW_EVENTS, Resource};
use crate::world::store::{DeleteOptions, Part};

pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let namespace = turn.store.get(&NAMESPACES, key).cloned();
    if namespace.as_ref().is_some_and(|namespace| !object::is_deleting(namespace)) {
        return;
    }
    let resources: Vec<Resource> = turn
        .store
        .registry()
        .iter()
        .filter(|definition| definition.namespaced && definition.resource != NEW_EVENTS)
        .map(|definition| definition.resource.clone())
        .collect();
    let content: Vec<Place> = resources
        .into_iter()
        .flat_map(|resource| {
            let keys: Vec<_> = turn
                .store
                .iter_namespace(&resource, &key.name)
                .filter(|(_, value)| !object::is_deleting(value))
                .map(|(key, _)| (resource.clone(), key.clone()))
                .collect();
            keys
        })
        .collect();
    for (resource, key) in &content {
        let deleted = turn.store.delete(resource, key, &DeleteOptions::default(), turn.now);
        turn.written(deleted, resource, key);
    }
    if namespace.is_none() || has_content(turn, &key.name) {
        return;
    }
    let written = turn.store.modify(&NAMESPACES, key, Part::Whole, turn.now, |namespace| {
        object::set(namespace, &["spec", "finalizers"], Value::Array(Vec::new()));
    });
    turn.written(written, &NAMESPACES, key);
}

fn has_content(turn: &Turn<'_>, namespace: &str) -> bool {
    turn.store.registry().iter().filter(|definition| definition.namespaced).any(|definition| {
        turn.store.iter_namespace(&definition.resource, namespace).next().is_some()
    })
}
