//! Volumes of CSI drivers are attached to the nodes of the pods that use them, one node at a time unless they can
//! be shared, and come off when no pod there uses them any more: at once where the machine's kubelet unmounts
//! them, the Node bears the out-of-service taint or is not there, and else after six minutes.

use drover_common::cluster::{Node, ObjectKey, Pod};
use drover_common::labels;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::scheduler::claim_names;
use super::{Turn, after, kubelet};
use crate::world::object;
use crate::world::resource::{
    PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, VOLUME_ATTACHMENTS,
};
use crate::world::store::{DeleteOptions, WriteOptions};

/// Kubernetes' maxWaitForUnmountDuration.
const BY_FORCE_AFTER: SignedDuration = SignedDuration::from_mins(6);

/// The CSI volumes that a pod uses, by name.
fn volumes_of(turn: &Turn<'_>, pod: &Pod) -> Vec<String> {
    let bound = |name: String| {
        let claim = turn.store.find(&PERSISTENT_VOLUME_CLAIMS, &pod.metadata.namespace, &name)?;
        let volume = object::text(claim, "/spec/volumeName");
        let found = turn.store.find(&PERSISTENT_VOLUMES, "", volume)?;
        found.pointer("/spec/csi/driver")?;
        Some(volume.to_owned())
    };
    claim_names(pod).into_iter().filter_map(bound).collect()
}

fn key_of(volume: &str, node: &str) -> ObjectKey {
    ObjectKey::cluster(format!("csi-{volume}-{node}"))
}

/// Whether a pod's containers find their volumes.
pub(super) fn all_attached(turn: &Turn<'_>, pod: &Pod) -> bool {
    let node = &pod.spec.node_name;
    let attached =
        |volume: &String| turn.store.get(&VOLUME_ATTACHMENTS, &key_of(volume, node)).is_some();
    volumes_of(turn, pod).iter().all(attached)
}

/// Attaches what a pod needs, and has looked at what it needs no more, or another node has yet.
pub(super) fn follow_pod(turn: &mut Turn<'_>, key: &ObjectKey) {
    let attachments = || turn.store.iter(&VOLUME_ATTACHMENTS);
    let entry = turn.index.pods.get(key).filter(|entry| !entry.pod.is_terminal()).cloned();
    let Some(entry) = entry else {
        turn.index.work.extend(attachments().map(|(key, _)| (VOLUME_ATTACHMENTS, key.clone())));
        return;
    };
    let node = &entry.pod.spec.node_name;
    if entry.pod.is_terminating() || !turn.index.nodes.contains_key(node) {
        return;
    }
    let volumes = volumes_of(turn, &entry.pod);
    let elsewhere = attachments().filter(|(_, one)| {
        volumes.iter().any(|own| own == object::text(one, "/spec/source/persistentVolumeName"))
            && object::text(one, "/spec/nodeName") != node
    });
    let elsewhere: Vec<_> = elsewhere.map(|(key, _)| (VOLUME_ATTACHMENTS, key.clone())).collect();
    turn.index.work.extend(elsewhere);
    volumes.iter().for_each(|volume| attach(turn, volume, node));
}

/// A node's attachments are looked at again.
pub(super) fn follow_node(turn: &mut Turn<'_>, node: &str) {
    let attachments = turn.store.iter(&VOLUME_ATTACHMENTS);
    let own = attachments.filter(|(_, one)| object::text(one, "/spec/nodeName") == node);
    turn.index.work.extend(own.map(|(key, _)| (VOLUME_ATTACHMENTS, key.clone())));
}

fn attach(turn: &mut Turn<'_>, volume: &str, node: &str) {
    let elsewhere = |one: &Value| {
        object::text(one, "/spec/source/persistentVolumeName") == volume
            && object::text(one, "/spec/nodeName") != node
    };
    let key = key_of(volume, node);
    let Some(found) = turn.store.find(&PERSISTENT_VOLUMES, "", volume).cloned() else { return };
    let shared =
        object::list(&found, "/spec/accessModes").iter().any(|mode| mode == "ReadWriteMany");
    let taken = turn.store.iter(&VOLUME_ATTACHMENTS).any(|(_, one)| elsewhere(one));
    if turn.store.get(&VOLUME_ATTACHMENTS, &key).is_some() || taken && !shared {
        return;
    }
    let attachment = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "VolumeAttachment",
        "metadata": {"name": key.name},
        "spec": {
            "attacher": object::text(&found, "/spec/csi/driver"),
            "nodeName": node,
            "source": {"persistentVolumeName": volume},
        },
        "status": {"attached": true},
    });
    let options = WriteOptions::default();
    let created = turn.store.create(&VOLUME_ATTACHMENTS, attachment, &options, turn.now);
    turn.written(created, &VOLUME_ATTACHMENTS, &key);
}

/// Detaches a volume that nothing uses. Those that somebody else attached are let be.
pub(super) fn sync(turn: &mut Turn<'_>, key: &ObjectKey) {
    wake_waiting(turn);
    let Some(attachment) = turn.store.get(&VOLUME_ATTACHMENTS, key).cloned() else {
        turn.unmounting.remove(key);
        return;
    };
    let node = object::text(&attachment, "/spec/nodeName");
    let volume = object::text(&attachment, "/spec/source/persistentVolumeName");
    if *key != key_of(volume, node) {
        return;
    }
    if is_used(turn, volume, node) {
        turn.unmounting.remove(key);
        return;
    }
    let at_once = turn
        .index
        .nodes
        .get(node)
        .cloned()
        .is_none_or(|node| is_out_of_service(&node) || kubelet::is_alive(turn, &node));
    let since = *turn.unmounting.entry(key.clone()).or_insert(turn.now);
    let due = after(since, turn.options.scaled(BY_FORCE_AFTER));
    if at_once || due <= turn.now {
        let deleted =
            turn.store.delete(&VOLUME_ATTACHMENTS, key, &DeleteOptions::default(), turn.now);
        turn.written(deleted, &VOLUME_ATTACHMENTS, key);
    } else {
        turn.at(due, &VOLUME_ATTACHMENTS, key);
    }
}

fn is_used(turn: &Turn<'_>, volume: &str, node: &str) -> bool {
    let keys = turn.index.on_node.get(node).into_iter().flatten();
    let mut pods = keys.filter_map(|key| turn.index.pods.get(key));
    pods.any(|entry| {
        !entry.pod.is_terminal() && volumes_of(turn, &entry.pod).iter().any(|own| own == volume)
    })
}

/// Pods that are bound and do not run may wait for a volume.
fn wake_waiting(turn: &mut Turn<'_>) {
    let waits = |pod: &Pod| {
        !pod.spec.node_name.is_empty()
            && matches!(pod.status.phase.as_str(), "" | "Pending")
            && !claim_names(pod).is_empty()
    };
    let waiting = turn.index.pods.iter().filter(|(_, entry)| waits(&entry.pod));
    let waiting: Vec<_> = waiting.map(|(key, _)| key.clone()).collect();
    for key in waiting {
        let Some(entry) = turn.index.pods.get(&key).cloned() else { continue };
        if !entry.pod.is_terminating() && !all_attached(turn, &entry.pod) {
            for volume in volumes_of(turn, &entry.pod) {
                attach(turn, &volume, &entry.pod.spec.node_name);
            }
        }
        if all_attached(turn, &entry.pod) {
            turn.index.work.insert((PODS, key));
        }
    }
}

/// Whether a Node says that its machine is off for certain.
pub(super) fn is_out_of_service(node: &Node) -> bool {
    node.spec.taints.iter().any(|taint| taint.key == labels::OUT_OF_SERVICE_TAINT)
}
