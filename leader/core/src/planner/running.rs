//! What runs already, counted into the terms of a plan.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{Node, ObjectKey};
use drover_common::labels;
use drover_common::taint::Taint;

use super::board::Board;
use super::existing::ExistingNode;
use super::rules::NODE_NAME;
use super::topology::{Term, TermKind, Tracked, anti_affinity_term};
use crate::view::{NodePods, PodShape, ShapeId, View};

/// What a running shape is to the terms: those that its pods count for, as pods that match and as
/// pods that have the term.
#[derive(Default)]
struct Counted {
    matching: Vec<usize>,
    owning: Vec<usize>,
}

impl Board<'_> {
    /// Counts running pods into the terms.
    pub(super) fn count_running(&mut self, view: &View, moving: &BTreeSet<ObjectKey>) {
        if self.topology.terms.is_empty() {
            return;
        }
        let mut known: BTreeMap<ShapeId, Counted> = BTreeMap::new();
        for (name, node, pods) in view.nodes_with_pods() {
            let Some(pods) = pods else { continue };
            for (id, (count, ending)) in running(pods, moving) {
                let Some(shape) = view.shape(id) else { continue };
                let counted = known.entry(id).or_insert_with(|| self.counted(view, shape));
                for (terms, owned) in [(&counted.matching, false), (&counted.owning, true)] {
                    for term in terms {
                        let Some(tracked) = self.topology.terms.get_mut(*term) else { continue };
                        let Some(domain) = domain_of(node, name.as_str(), tracked) else {
                            continue;
                        };
                        // Spread does not count pods that are on their way out.
                        let spread = matches!(tracked.term.kind, TermKind::Spread { .. });
                        let count = if spread { count - ending } else { count };
                        let counts =
                            if owned { &mut tracked.owning } else { &mut tracked.matching };
                        if let Some(own) = counts.get_mut(domain) {
                            *own += count;
                        } else {
                            counts.insert(domain.to_owned(), count);
                        }
                    }
                }
            }
        }
    }

    fn counted(&self, view: &View, shape: &PodShape) -> Counted {
        let owning: BTreeSet<usize> = running_terms(view, shape)
            .iter()
            .filter_map(|term| self.topology.position(term))
            .collect();
        Counted { matching: self.topology.matched_by(shape), owning: owning.into_iter().collect() }
    }

    /// The domains a spread takes its minimum over: those of nodes, and those that could be bought.
    pub(super) fn find_universes(&mut self, view: &View) {
        let mut sorts: BTreeMap<BTreeSet<String>, Sorts<'_>> = BTreeMap::new();
        for tracked in &mut self.topology.terms {
            let key = tracked.term.key.clone();
            let TermKind::Spread { nodes, keys: others, .. } = &tracked.term.kind else { continue };
            if key == labels::HOSTNAME {
                continue;
            }
            let mut keys: BTreeSet<String> = nodes.keys().map(str::to_owned).collect();
            keys.insert(key.clone());
            keys.extend(others.iter().cloned());
            let sorts =
                sorts.entry(keys).or_insert_with_key(|keys| Sorts::of(view, &self.existing, keys));
            let mut universe = BTreeSet::new();
            for node in &sorts.nodes {
                universe.extend(domain_of(node, "", tracked).map(str::to_owned));
            }
            for node in &sorts.existing {
                universe.extend(node.possible_domains(tracked));
            }
            tracked.there.clone_from(&universe);
            let offers = tracked.counted_offers(&self.market, &mut self.index);
            for (value, bits) in self.index.values(&self.market, &key) {
                if !bits.is_disjoint(&offers) {
                    universe.insert(value.clone());
                }
            }
            tracked.universe = universe;
        }
    }
}

/// A node of each sort: those of one sort have the same values of some labels, and the same taints.
struct Sorts<'n> {
    nodes: Vec<&'n Node>,
    existing: Vec<&'n ExistingNode<'n>>,
}

impl<'n> Sorts<'n> {
    fn of(view: &'n View, existing: &'n [ExistingNode<'n>], keys: &BTreeSet<String>) -> Self {
        type Seen<'n> = (Vec<Option<&'n str>>, &'n [Taint]);
        let mut seen: BTreeSet<Seen<'n>> = BTreeSet::new();
        let nodes = view.nodes().values().map(AsRef::as_ref);
        let nodes = nodes.filter(|node: &&Node| {
            let labels = keys.iter().map(|key| label_or_name(node, key)).collect();
            seen.insert((labels, &node.spec.taints))
        });
        let nodes: Vec<&Node> = nodes.collect();
        // Most are Nodes that have been seen.
        let existing = existing
            .iter()
            .filter(|node| {
                let labels = keys.iter().map(|key| node.label(key)).collect();
                !node.is_decided() || seen.insert((labels, &node.taints))
            })
            .collect();
        Self { nodes, existing }
    }
}

/// The domain of a term that a node's pods count in, if they count.
fn domain_of<'n>(node: &'n Node, name: &'n str, tracked: &Tracked) -> Option<&'n str> {
    let label = |key: &str| label_or_name(node, key);
    let key = tracked.term.key.as_str();
    let domain = label(key).or((key == labels::HOSTNAME).then_some(name))?;
    let counts = tracked.has_keys(&|key| label(key).is_some())
        && tracked.counts_node(&label, &node.spec.taints);
    counts.then_some(domain)
}

fn label_or_name<'n>(node: &'n Node, key: &str) -> Option<&'n str> {
    if key == NODE_NAME {
        return Some(&node.metadata.name);
    }
    node.metadata.labels.get(key).map(String::as_str)
}

/// How many pods of each shape run on a node and stay, and how many of those are on their way out.
fn running(pods: &NodePods, moving: &BTreeSet<ObjectKey>) -> BTreeMap<ShapeId, (i64, i64)> {
    let mut counts: BTreeMap<_, (i64, i64)> = BTreeMap::new();
    for (shape, count) in &pods.shapes {
        counts.entry(*shape).or_default().0 = i64::from(*count);
    }
    for (shape, count) in &pods.ending {
        counts.entry(*shape).or_default().1 = i64::from(*count);
    }
    if !moving.is_empty() {
        for (_, entry) in pods.all.iter().filter(|(key, _)| moving.contains(*key)) {
            counts.entry(entry.shape).or_default().0 -= 1;
        }
    }
    counts
}

/// Running shapes that keep others away. (A term of pods that have ended, or do not run yet, would only
/// bar the way to the fast path.)
pub(super) fn repelling_shapes(view: &View) -> Vec<&PodShape> {
    let repels = |shape: &PodShape| {
        shape.affinity.pod_anti_affinity.as_ref().is_some_and(|away| !away.required.is_empty())
    };
    let mut wanted: BTreeSet<ShapeId> =
        view.shapes().filter(|(_, shape)| repels(shape)).map(|(id, _)| id).collect();
    let mut found = Vec::new();
    for (_, _, pods) in view.nodes_with_pods() {
        if wanted.is_empty() {
            break;
        }
        for id in pods.into_iter().flat_map(|pods| pods.shapes.keys()) {
            if wanted.remove(id) {
                found.extend(view.shape(*id).map(AsRef::as_ref));
            }
        }
    }
    found
}

/// Required anti-affinity terms of a running pod: they keep others away from it.
pub(super) fn running_terms(view: &View, shape: &PodShape) -> Vec<Term> {
    let terms = shape.affinity.pod_anti_affinity.as_ref().map_or(&[][..], |a| &a.required);
    terms.iter().map(|term| anti_affinity_term(view, shape, term)).collect()
}
