//! Claims get volumes: at once, or where their first pod goes.

use drover_common::cluster::ObjectKey;
use serde_json::{Value, json};

use super::Turn;
use crate::world::object;
use crate::world::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use crate::world::store::{DeleteOptions, Part, Store, WriteOptions};

const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
const ZONE: &str = "topology.kubernetes.io/zone";

/// How a claim stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ClaimState {
    /// It has a volume of this name.
    Bound(String),
    /// It gets one where its first pod goes; the zones its class allows (none: any).
    WaitsForPod(Vec<String>),
    /// No pod that uses it can be placed yet.
    Unbound,
    /// There is no such claim.
    Missing,
}

/// The class of a claim: its own, or the default one.
fn class_of<'a>(store: &'a Store, claim: &Value) -> Option<&'a Value> {
    match claim.pointer("/spec/storageClassName").and_then(Value::as_str) {
        Some("") => None,
        Some(name) => store.find(&STORAGE_CLASSES, "", name).map(|class| &**class),
        None => store
            .iter(&STORAGE_CLASSES)
            .map(|(_, class)| &**class)
            .find(|class| object::annotation(class, DEFAULT_CLASS) == Some("true")),
    }
}

fn allowed_zones(class: &Value) -> Vec<String> {
    object::list(class, "/allowedTopologies")
        .iter()
        .flat_map(|term| object::list(term, "/matchLabelExpressions"))
        .filter(|expression| object::text(expression, "/key").ends_with("/zone"))
        .flat_map(|expression| object::list(expression, "/values"))
        .filter_map(|zone| zone.as_str().map(str::to_owned))
        .collect()
}

/// How a claim stands, for the scheduler.
pub(super) fn state(store: &Store, namespace: &str, name: &str) -> ClaimState {
    let Some(claim) = store.find(&PERSISTENT_VOLUME_CLAIMS, namespace, name) else {
        return ClaimState::Missing;
    };
    let volume = object::text(claim, "/spec/volumeName");
    if !volume.is_empty() {
        return ClaimState::Bound(volume.to_owned());
    }
    match class_of(store, claim) {
        Some(class) if object::text(class, "/volumeBindingMode") == "WaitForFirstConsumer" => {
            ClaimState::WaitsForPod(allowed_zones(class))
        }
        _ => ClaimState::Unbound,
    }
}

/// Binds claims that do not wait, and follows the end of those that went.
pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    let Some(claim) = turn.store.get(&PERSISTENT_VOLUME_CLAIMS, key).cloned() else {
        release(turn, key);
        return;
    };
    if object::is_deleting(&claim) || object::text(&claim, "/status/phase") == "Bound" {
        return;
    }
    if object::text(&claim, "/status/phase").is_empty() {
        let written =
            turn.store.update_status(&PERSISTENT_VOLUME_CLAIMS, key, turn.now, |status| {
                object::set(status, &["phase"], "Pending");
            });
        turn.written(written, &PERSISTENT_VOLUME_CLAIMS, key);
    }
    let volume = object::text(&claim, "/spec/volumeName").to_owned();
    if !volume.is_empty() {
        if turn.store.find(&PERSISTENT_VOLUMES, "", &volume).is_some() {
            bind(turn, key, &volume);
        }
        return;
    }
    let Some(class) = class_of(turn.store, &claim).cloned() else { return };
    if object::text(&class, "/volumeBindingMode") != "WaitForFirstConsumer" {
        let zone = allowed_zones(&class)
            .into_iter()
            .next()
            .unwrap_or_else(|| format!("{}a", turn.options.region));
        provision(turn, key, &zone);
    }
}

/// Makes a volume for a claim in a zone and binds the two.
pub(super) fn provision(turn: &mut Turn<'_>, key: &ObjectKey, zone: &str) {
    let Some(claim) = turn.store.get(&PERSISTENT_VOLUME_CLAIMS, key).cloned() else { return };
    let Some(class) = class_of(turn.store, &claim).cloned() else { return };
    let name = format!("pvc-{}", object::uid(&claim));
    let reclaim = match object::text(&class, "/reclaimPolicy") {
        "" => "Delete",
        policy => policy,
    };
    let modes =
        claim.pointer("/spec/accessModes").cloned().unwrap_or_else(|| json!(["ReadWriteOnce"]));
    let storage = claim.pointer("/spec/resources/requests/storage").cloned();
    let storage = storage.unwrap_or_else(|| json!("1Gi"));
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": storage},
            "accessModes": modes,
            "persistentVolumeReclaimPolicy": reclaim,
            "storageClassName": object::name(&class),
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": key.namespace, "name": key.name, "uid": object::uid(&claim),
            },
            "csi": {
                "driver": object::text(&class, "/provisioner"),
                "volumeHandle": format!("vol-{}", turn.random.hex(17)),
            },
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": ZONE, "operator": "In", "values": [zone]},
            ]}]}},
        },
    });
    let options = WriteOptions::default();
    let created = turn.store.create(&PERSISTENT_VOLUMES, volume, &options, turn.now);
    if turn.written(created, &PERSISTENT_VOLUME_CLAIMS, key).is_some() {
        bind(turn, key, &name);
    }
}

fn bind(turn: &mut Turn<'_>, key: &ObjectKey, volume: &str) {
    let now = turn.now;
    let volume_key = ObjectKey::cluster(volume);
    let written = turn.store.modify(&PERSISTENT_VOLUMES, &volume_key, Part::Whole, now, |value| {
        object::set(value, &["status", "phase"], "Bound");
    });
    let Some(bound) = turn.written(written, &PERSISTENT_VOLUME_CLAIMS, key) else { return };
    let written = turn.store.modify(&PERSISTENT_VOLUME_CLAIMS, key, Part::Whole, now, |claim| {
        object::set(claim, &["spec", "volumeName"], volume);
        object::set(claim, &["status", "phase"], "Bound");
        for (to, from) in [("accessModes", "/spec/accessModes"), ("capacity", "/spec/capacity")] {
            let value = bound.pointer(from).cloned().unwrap_or_default();
            object::set(claim, &["status", to], value);
        }
    });
    turn.written(written, &PERSISTENT_VOLUME_CLAIMS, key);
}

/// The volume of a claim that is gone goes too, or is released.
fn release(turn: &mut Turn<'_>, key: &ObjectKey) {
    let volumes: Vec<_> = turn
        .store
        .iter(&PERSISTENT_VOLUMES)
        .filter(|(_, volume)| {
            object::text(volume, "/spec/claimRef/name") == key.name
                && object::text(volume, "/spec/claimRef/namespace") == key.namespace
                && object::text(volume, "/status/phase") == "Bound"
        })
        .map(|(key, volume)| {
            (key.clone(), object::text(volume, "/spec/persistentVolumeReclaimPolicy") == "Delete")
        })
        .collect();
    for (volume, delete) in volumes {
        if delete {
            let deleted = turn.store.delete(
                &PERSISTENT_VOLUMES,
                &volume,
                &DeleteOptions::default(),
                turn.now,
            );
            turn.written(deleted, &PERSISTENT_VOLUMES, &volume);
        } else {
            let written =
                turn.store.update_status(&PERSISTENT_VOLUMES, &volume, turn.now, |status| {
                    object::set(status, &["phase"], "Released");
                });
            turn.written(written, &PERSISTENT_VOLUMES, &volume);
        }
    }
}
