//! Deployments of a dump. Leaders know them by their ReplicaSets, which a dump may lack.

use std::collections::BTreeMap;

use drover_common::cluster::{
    ClusterEvent, ClusterObject, Metadata, ObjectKey, OwnerReference, ReplicaSet, TemplateSpec,
};
use serde::Deserialize;

use crate::view::View;

/// A Deployment: replicas and template.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Deployment {
    /// Metadata.
    pub metadata: Metadata,
    /// Spec.
    pub spec: TemplateSpec,
}

/// Those of a dump, by name.
#[derive(Debug, Default)]
pub(super) struct Deployments(BTreeMap<ObjectKey, Deployment>);

impl Deployments {
    pub(super) fn add(&mut self, deployment: Deployment) {
        self.0.insert(ObjectKey::from(&deployment.metadata), deployment);
    }

    /// Gives Deployments that CapacityBuffers name a ReplicaSet, where the dump has none of theirs.
    pub(super) fn stand_in(mut self, view: &mut View) {
        let named = view.buffers().iter().filter_map(|(key, buffer)| {
            let reference = buffer.spec.scalable_ref.as_ref()?;
            let key = ObjectKey::new(key.namespace.clone(), &reference.name);
            (reference.kind == KIND).then_some(key)
        });
        let named: Vec<ObjectKey> = named.collect();
        for key in named {
            if has_set(view, &key) {
                continue;
            }
            if let Some(deployment) = self.0.remove(&key) {
                let set = ClusterObject::ReplicaSet(Box::new(set_of(deployment)));
                view.apply(ClusterEvent::Applied(set));
            }
        }
    }
}

const KIND: &str = "Deployment";

fn has_set(view: &View, deployment: &ObjectKey) -> bool {
    view.replica_sets().iter().any(|(key, set)| {
        let owner = set.metadata.controller();
        key.namespace == deployment.namespace
            && owner.is_some_and(|owner| owner.kind == KIND && owner.name == deployment.name)
    })
}

/// The ReplicaSet that a Deployment would have had made. No object can have its name.
fn set_of(deployment: Deployment) -> ReplicaSet {
    let Deployment { metadata, spec } = deployment;
    let owner = OwnerReference {
        kind: KIND.to_owned(),
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        controller: true,
        ..OwnerReference::default()
    };
    let metadata = Metadata {
        name: format!("deployment/{}", metadata.name),
        owner_references: vec![owner],
        ..metadata
    };
    ReplicaSet {
        metadata,
        spec: TemplateSpec { replicas: spec.replicas.or(Some(1)), ..spec },
        ..ReplicaSet::default()
    }
}
