//! CapacityBuffers: room kept free for pods to come, planned for as pods of the lowest priority.

use drover_common::cluster::{ObjectKey, Pod, PodTemplate, TemplateSpec};
use drover_common::crd::{ACTIVE_CAPACITY, CapacityBuffer, parse_resources};

use super::MOST_OF_ONE;
use crate::planner::VirtualPods;
use crate::view::View;

/// What a buffer stands for, or why it stands for nothing.
pub(crate) type Reading = Result<Wanted, (&'static str, String)>;

/// The pods that a buffer keeps room for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pod: Pod,
    /// How many.
    pub(crate) count: usize,
    /// The PodTemplate they are of, and its generation.
    pub(crate) template: Option<(String, i64)>,
}

/// What marks a virtual pod's name as a buffer's.
fn name_of(buffer: &ObjectKey) -> String {
    format!("buffer/{}", buffer.name)
}

/// What the names of a buffer's virtual pods begin with.
pub(crate) fn buffer_prefix(buffer: &ObjectKey) -> String {
    format!("{}#", name_of(buffer))
}

/// Virtual pods of all buffers.
pub(crate) fn buffered_pods(view: &View) -> Vec<VirtualPods> {
    let buffers = view.buffers().iter();
    buffers
        .filter_map(|(key, buffer)| {
            let wanted = read_buffer(view, key, buffer).ok()?;
            let pods = VirtualPods {
                keep_room: true,
                ..VirtualPods::like(&wanted.pod, &name_of(key), wanted.count)
            };
            (wanted.count > 0).then_some(pods)
        })
        .collect()
}

/// Reads what a buffer asks for.
pub(crate) fn read_buffer(view: &View, key: &ObjectKey, buffer: &CapacityBuffer) -> Reading {
    let spec = &buffer.spec;
    if buffer.metadata.deletion_timestamp.is_some() {
        return Err(("Deleting", "the buffer is being deleted".to_owned()));
    }
    if spec.provisioning_strategy != ACTIVE_CAPACITY {
        let words = format!("spec.provisioningStrategy: only {ACTIVE_CAPACITY} is carried out");
        return Err(("UnsupportedStrategy", words));
    }
    let object = |name: &str| ObjectKey::new(key.namespace.clone(), name);
    let (template, replicas, named) = match (&spec.pod_template_ref, &spec.scalable_ref) {
        (Some(reference), None) => {
            let found = view.pod_templates().get(&object(&reference.name));
            let found = found.ok_or_else(|| {
                let words =
                    format!("spec.podTemplateRef: PodTemplate {} does not exist", reference.name);
                ("PodTemplateNotFound", words)
            })?;
            let named = (reference.name.clone(), found.metadata.generation);
            (found.template.clone(), 0, Some(named))
        }
        (None, Some(reference)) => {
            let (template, replicas) =
                workload(view, &reference.kind, &object(&reference.name)).ok_or_else(|| {
                    let words = format!(
                        "spec.scalableRef: {} {} does not exist, or is of a kind that can't be buffered",
                        reference.kind, reference.name
                    );
                    ("ScalableRefNotFound", words)
                })?;
            (template, replicas, None)
        }
        _ => {
            let words = "spec: exactly one of podTemplateRef and scalableRef is needed";
            return Err(("Invalid", words.to_owned()));
        }
    };
    let pod = pod_of(key, &template);
    let limits = parse_resources(&spec.limits)
        .map_err(|error| ("Invalid", format!("spec.limits: {error}")))?;
    let requests = pod.requests();
    let most = limits
        .iter()
        .filter(|(name, _)| requests.get(name) > 0)
        .map(|(name, limit)| limit.max(0) / requests.get(name))
        .min()
        .map(|most| i32::try_from(most).unwrap_or(i32::MAX));
    let count = usize::try_from(spec.wanted(replicas, most)).unwrap_or(0);
    if count > MOST_OF_ONE {
        let words = format!("spec: asks for room for {count} pods; {MOST_OF_ONE} is the most");
        return Err(("Invalid", words));
    }
    Ok(Wanted { pod, count, template: named })
}

/// A workload's pod template and how many replicas it asks for.
fn workload(view: &View, kind: &str, key: &ObjectKey) -> Option<(PodTemplate, i32)> {
    let of = |spec: &TemplateSpec| (spec.template.clone(), spec.replicas.unwrap_or(1));
    match kind {
        "ReplicaSet" => view.replica_sets().get(key).map(|set| of(&set.spec)),
        "StatefulSet" => view.stateful_sets().get(key).map(|set| of(&set.spec)),
        // Of a Deployment, its ReplicaSets tell: the youngest has the present template.
        "Deployment" => {
            let sets: Vec<_> = view
                .replica_sets()
                .iter()
                .filter(|(set, _)| set.namespace == key.namespace)
                .map(|(_, set)| set)
                .filter(|set| {
                    let owner = set.metadata.controller();
                    owner.is_some_and(|o| o.kind == "Deployment" && o.name == key.name)
                })
                .collect();
            let replicas = sets.iter().filter_map(|set| set.spec.replicas).sum();
            let youngest = sets.iter().max_by_key(|set| set.metadata.creation_timestamp)?;
            Some((youngest.spec.template.clone(), replicas))
        }
        _ => None,
    }
}

/// A pod of the template as the buffer plans for it: everything else goes before it.
fn pod_of(buffer: &ObjectKey, template: &PodTemplate) -> Pod {
    let mut pod = Pod { spec: template.spec.clone(), ..Pod::default() };
    pod.metadata.namespace = buffer.namespace.to_string();
    pod.metadata.labels.clone_from(&template.metadata.labels);
    pod.spec.priority = Some(i32::MIN);
    pod
}

/// Whether a pod's name is that of a buffer's virtual pod.
pub(crate) fn is_buffered(pod: &ObjectKey) -> bool {
    pod.name.starts_with("buffer/")
}
