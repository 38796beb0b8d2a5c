//! Garbage of deleted owners: in the background, in the foreground, or set free.

use drover_common::cluster::ObjectKey;
use serde_json::Value;

use super::Turn;
use crate::world::object;
use crate::world::resource::Resource;
use crate::world::store::{DeleteOptions, Part, Propagation, Store};

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";

/// Whether an owner is there. Of a kind that is not served nothing is known: it counts as there.
fn exists(store: &Store, owner: &Value, namespace: &str) -> bool {
    let api_version = object::text(owner, "/apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let Some(definition) = store.registry().by_kind(group, object::text(owner, "/kind")) else {
        return true;
    };
    let namespace = if definition.namespaced { namespace } else { "" };
    store
        .find(&definition.resource, namespace, object::text(owner, "/name"))
        .is_some_and(|found| object::uid(found) == object::text(owner, "/uid"))
}

/// Deletes an object all owners of which are gone.
pub(super) fn collect(turn: &mut Turn<'_>, resource: &Resource, key: &ObjectKey) {
    let Some(value) = turn.store.get(resource, key).cloned() else { return };
    let owners = object::list(&value, "/metadata/ownerReferences");
    if owners.is_empty() || object::is_deleting(&value) {
        return;
    }
    let gone: Vec<&str> = owners
        .iter()
        .filter(|owner| !exists(turn.store, owner, &key.namespace))
        .map(|owner| object::text(owner, "/uid"))
        .collect();
    if gone.is_empty() {
        return;
    }
    if gone.len() == owners.len() {
        let options =
            DeleteOptions { uid: Some(object::uid(&value).to_owned()), ..DeleteOptions::default() };
        let deleted = turn.store.delete(resource, key, &options, turn.now);
        turn.written(deleted, resource, key);
    } else {
        drop_owners(turn, resource, key, |uid| gone.contains(&uid));
    }
}

fn drop_owners(
    turn: &mut Turn<'_>,
    resource: &Resource,
    key: &ObjectKey,
    dropped: impl Fn(&str) -> bool,
) {
    let written = turn.store.modify(resource, key, Part::Whole, turn.now, |value| {
        let owners = object::entry(object::entry(value, "metadata"), "ownerReferences");
        if let Value::Array(owners) = owners {
            owners.retain(|owner| !dropped(object::text(owner, "/uid")));
        }
    });
    turn.written(written, resource, key);
}

/// Lets an owner go that waits for what its deletion said about its dependents.
pub(super) fn finalize(turn: &mut Turn<'_>, resource: &Resource, key: &ObjectKey) {
    let Some(value) = turn.store.get(resource, key).cloned() else { return };
    if !object::is_deleting(&value) {
        return;
    }
    let has = |finalizer: &str| {
        object::list(&value, "/metadata/finalizers").iter().any(|own| own == finalizer)
    };
    let (foreground, orphan) = (has(FOREGROUND), has(ORPHAN));
    if !foreground && !orphan {
        return;
    }
    let uid = object::uid(&value);
    let dependents: Vec<_> = turn.index.all_dependents(uid).cloned().collect();
    let mut waiting = false;
    for (dependent, place) in &dependents {
        if orphan {
            drop_owners(turn, dependent, place, |owner| owner == uid);
            continue;
        }
        let Some(found) = turn.store.get(dependent, place).cloned() else { continue };
        waiting |= object::list(&found, "/metadata/ownerReferences").iter().any(|owner| {
            object::text(owner, "/uid") == uid && object::flag(owner, "/blockOwnerDeletion")
        });
        if !object::is_deleting(&found) {
            // A dependent with dependents of its own waits for them in turn.
            let has_dependents = turn.index.all_dependents(object::uid(&found)).next().is_some();
            let propagation =
                if has_dependents { Propagation::Foreground } else { Propagation::Background };
            let uid = Some(object::uid(&found).to_owned());
            let options = DeleteOptions { uid, propagation, ..DeleteOptions::default() };
            let deleted = turn.store.delete(dependent, place, &options, turn.now);
            turn.written(deleted, dependent, place);
        }
    }
    if waiting {
        return;
    }
    let written = turn.store.modify(resource, key, Part::Whole, turn.now, |value| {
        let finalizers = object::entry(object::entry(value, "metadata"), "finalizers");
        if let Value::Array(finalizers) = finalizers {
            finalizers.retain(|own| own != FOREGROUND && own != ORPHAN);
        }
    });
    turn.written(written, resource, key);
}
