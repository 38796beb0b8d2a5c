//! What an API server or a region adds to a dump that does not tell: the labels of namespaces, and whether the
//! types are those of the cluster's region.

use std::collections::BTreeSet;

use drover_common::cluster::{ClusterEvent, ClusterObject, Namespace};
use drover_common::labels;

use crate::view::View;

/// The label that the API server gives every namespace.
const NAME: &str = "kubernetes.io/metadata.name";

/// Gives each namespace that pods are in the label of its name, as the API server would, also those whose object is not
/// in the dump. What other labels those have is unknown: where a pod selects by them it is told.
pub(super) fn name_namespaces(view: &mut View, warnings: &mut Vec<String>) {
    let mut missing: BTreeSet<String> =
        view.pods().keys().map(|pod| pod.namespace.to_string()).collect();
    let given: Vec<Namespace> =
        view.namespaces().values().map(|one| one.as_ref().clone()).collect();
    for namespace in &given {
        missing.remove(&namespace.metadata.name);
    }
    if !missing.is_empty() && selects_by_labels(view) {
        let names: Vec<&str> = missing.iter().map(String::as_str).collect();
        warnings.push(format!(
            "Pods select Namespaces by labels, and these are not in the dump: {}; only the names of those are known",
            names.join(", ")
        ));
    }
    let absent = missing.into_iter().map(|name| {
        let mut namespace = Namespace::default();
        namespace.metadata.name = name;
        namespace
    });
    for mut namespace in given.into_iter().chain(absent) {
        let name = namespace.metadata.name.clone();
        namespace.metadata.labels.insert(NAME.to_owned(), name);
        view.apply(ClusterEvent::Applied(ClusterObject::Namespace(Box::new(namespace))));
    }
}

/// Whether some pod selects namespaces by anything but their names.
fn selects_by_labels(view: &View) -> bool {
    view.pods().values().any(|entry| {
        let affinity = &entry.pod.spec.affinity;
        let both = affinity.pod_affinity.iter().chain(&affinity.pod_anti_affinity);
        let terms = both.flat_map(|affinity| {
            let preferred = affinity.preferred.iter().map(|term| &term.pod_affinity_term);
            affinity.required.iter().chain(preferred)
        });
        terms.filter_map(|term| term.namespace_selector.as_ref()).any(|selector| {
            let labels = selector.match_labels.keys();
            let expressions = selector.match_expressions.iter().map(|one| &one.key);
            labels.chain(expressions).any(|key| key != NAME)
        })
    })
}

/// That a node is of another region than the types.
pub(super) fn other_region(view: &View, region: &str) -> Option<String> {
    let (name, own) = view.nodes().iter().find_map(|(name, node)| {
        let label = |key: &str| node.metadata.labels.get(key);
        let is_other = match (label(labels::REGION), label(labels::ZONE)) {
            (Some(own), _) => own != region,
            // Zones are called after their region.
            (None, Some(zone)) => !zone.starts_with(region),
            (None, None) => false,
        };
        is_other.then(|| Some((name, label(labels::REGION).or(label(labels::ZONE))?)))?
    })?;
    Some(format!(
        "Node {name} is in {own}, and the instance types, their zones and prices are those of {region}: those of another \
         region are read with --catalog"
    ))
}
