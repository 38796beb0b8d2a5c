//! Who finds whom: counts of the pods that required pod affinity is about, by domain, with batches
//! carried out or not. Work grows with shapes and places, not with pairs of pods.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::id::NodeName;
use drover_common::labels;

use super::{Batch, MoveTarget, RepackInput};
use crate::planner::rules::Variant;
use crate::planner::topology::{Term, terms_of};
use crate::view::{PodShape, ShapeId};

/// So many pods of a shape to a node that stays, or to one of its batch's new nodes.
type Arrivals = BTreeMap<(ShapeId, MoveTarget), i64>;

/// Pods that a term is about.
#[derive(Default)]
struct Mates {
    /// Those that are sure to stay, by domain.
    sure: BTreeMap<String, i64>,
    /// All that may be there, also on nodes that leave.
    all: i64,
}

/// Where a batch's pods go.
#[derive(Default)]
pub(super) struct Passage {
    /// Those that need no company.
    free: Arrivals,
    /// Those that do.
    needy: Arrivals,
}

/// The counts of one repack.
pub(super) struct Census<'a> {
    input: &'a RepackInput<'a>,
    terms: Vec<Term>,
    index: BTreeMap<Term, usize>,
    mates: Vec<Mates>,
    /// Terms of a shape's own, for those that have any.
    own: BTreeMap<ShapeId, Vec<usize>>,
    /// Terms that are about a shape.
    about: BTreeMap<ShapeId, Vec<usize>>,
}

impl<'a> Census<'a> {
    /// Counts what runs, as it is before any batch; `None` if no moved pod needs company.
    pub(super) fn of(input: &'a RepackInput<'a>, batches: &[Batch]) -> Option<Self> {
        let mut census = Self {
            input,
            terms: Vec::new(),
            index: BTreeMap::new(),
            mates: Vec::new(),
            own: BTreeMap::new(),
            about: BTreeMap::new(),
        };
        // Few clusters have such pods at all, and shapes are fewer than moves.
        if !input.plan.view.shapes().any(|(_, shape)| needs_company(shape)) {
            return None;
        }
        let pods = input.plan.view.pods();
        let moves = batches.iter().flat_map(|batch| &batch.moves);
        let shapes: BTreeSet<ShapeId> =
            moves.filter_map(|one| Some(pods.get(&one.pod)?.shape)).collect();
        for shape in shapes {
            census.learn(shape);
        }
        if census.own.is_empty() {
            return None;
        }
        census.mates.resize_with(census.terms.len(), Mates::default);
        for name in input.plan.view.nodes().keys() {
            let stays = !input.plan.leaving.contains(name);
            census.count_node(name, i64::from(stays), 1);
        }
        Some(census)
    }

    fn learn(&mut self, id: ShapeId) {
        let view = self.input.plan.view;
        let Some(shape) = view.shape(id) else { return };
        let required = shape.affinity.pod_affinity.as_ref().map(|a| a.required.clone());
        let Some(affinity) = required.filter(|_| needs_company(shape)) else { return };
        let variant = Variant { affinity, ..Variant::default() };
        let own = terms_of(view, shape, &variant).into_iter().map(|term| {
            *self.index.entry(term.clone()).or_insert_with(|| {
                self.terms.push(term);
                self.terms.len() - 1
            })
        });
        let own: BTreeSet<usize> = own.collect();
        self.own.insert(id, own.into_iter().collect());
    }

    /// Where a batch's pods go.
    pub(super) fn passage(&self, batch: &Batch) -> Passage {
        let mut passage = Passage::default();
        let pods = self.input.plan.view.pods();
        for one in &batch.moves {
            let Some(entry) = pods.get(&one.pod) else { continue };
            let needy = self.own.contains_key(&entry.shape);
            let arrivals = if needy { &mut passage.needy } else { &mut passage.free };
            *arrivals.entry((entry.shape, one.to.clone())).or_default() += 1;
        }
        passage
    }

    /// Carries a batch out (`sign` 1) or takes it back (-1), but for the arrival of pods that need
    /// company.
    pub(super) fn carry_out(&mut self, batch: &Batch, passage: &Passage, sign: i64) {
        for node in &batch.nodes {
            self.count_node(node, -sign, 0);
        }
        for ((shape, _), count) in passage.free.iter().chain(&passage.needy) {
            for term in self.about(*shape) {
                if let Some(mates) = self.mates.get_mut(term) {
                    mates.all -= count * sign;
                }
            }
        }
        for ((shape, to), count) in &passage.free {
            self.arrive(batch, *shape, to, count * sign);
        }
    }

    /// Which of these batches move a pod to where it would find nobody, in whatever order they come:
    /// whoever finds company comes, and where nobody does the first that may be the first of its kind.
    pub(super) fn lonely(&mut self, batches: &[(Batch, Passage)]) -> BTreeSet<usize> {
        let mut waiting: Vec<(usize, ShapeId, &MoveTarget, i64)> = Vec::new();
        for (number, (_, passage)) in batches.iter().enumerate() {
            let needy = passage.needy.iter();
            waiting.extend(needy.map(|((shape, to), count)| (number, *shape, to, *count)));
        }
        let mut arrived = Vec::new();
        while !waiting.is_empty() {
            let before = waiting.len();
            waiting.retain(|one| {
                let (number, shape, to, count) = *one;
                let Some((batch, _)) = batches.get(number) else { return false };
                let arrives = self.finds_company(batch, shape, to);
                if arrives {
                    self.arrive(batch, shape, to, count);
                    arrived.push(*one);
                }
                !arrives
            });
            if waiting.len() < before {
                continue;
            }
            let first = waiting.iter().position(|(number, shape, to, _)| {
                batches.get(*number).is_some_and(|(batch, _)| self.may_be_first(batch, *shape, to))
            });
            let Some(first) = first else { break };
            let (number, shape, to, count) = waiting.remove(first);
            if let Some((batch, _)) = batches.get(number) {
                self.arrive(batch, shape, to, count);
                arrived.push((number, shape, to, count));
            }
        }
        for (number, shape, to, count) in arrived {
            if let Some((batch, _)) = batches.get(number) {
                self.arrive(batch, shape, to, -count);
            }
        }
        waiting.into_iter().map(|(number, ..)| number).collect()
    }

    /// Whether a pod that matches all its terms is in each of their domains.
    fn finds_company(&self, batch: &Batch, shape: ShapeId, to: &MoveTarget) -> bool {
        let own = self.own.get(&shape).map(Vec::as_slice).unwrap_or_default();
        own.iter().all(|term| {
            let domain = self.domain(batch, to, *term);
            let sure = domain.zip(self.mates.get(*term));
            sure.is_some_and(|(domain, mates)| mates.sure.get(&domain).is_some_and(|n| *n > 0))
        })
    }

    /// Whether nobody of its kind is anywhere, and it is of that kind itself.
    fn may_be_first(&mut self, batch: &Batch, shape: ShapeId, to: &MoveTarget) -> bool {
        let about = self.about(shape);
        let own = self.own.get(&shape).map(Vec::as_slice).unwrap_or_default();
        own.iter().all(|term| {
            about.contains(term)
                && self.mates.get(*term).is_some_and(|mates| mates.all == 0)
                && self.domain(batch, to, *term).is_some()
        })
    }

    fn count_node(&mut self, name: &NodeName, sure: i64, all: i64) {
        let view = self.input.plan.view;
        let (Some(node), Some(pods)) = (view.nodes().get(name), view.node_pods(name)) else {
            return;
        };
        for (shape, count) in &pods.shapes {
            let ending = pods.ending.get(shape).copied().unwrap_or(0);
            for term in self.about(*shape) {
                let key = self.terms.get(term).map(|term| term.key.as_str()).unwrap_or_default();
                let domain = domain_of_node(&node.metadata.labels, name, key);
                let Some(mates) = self.mates.get_mut(term) else { continue };
                mates.all += i64::from(*count) * all;
                if let Some(domain) = domain {
                    let staying = i64::from(count.saturating_sub(ending));
                    *mates.sure.entry(domain).or_default() += staying * sure;
                }
            }
        }
    }

    fn arrive(&mut self, batch: &Batch, shape: ShapeId, to: &MoveTarget, count: i64) {
        for term in self.about(shape) {
            let domain = self.domain(batch, to, term);
            let Some(mates) = self.mates.get_mut(term) else { continue };
            mates.all += count;
            if let Some(domain) = domain {
                *mates.sure.entry(domain).or_default() += count;
            }
        }
    }

    /// Terms that are about a shape.
    fn about(&mut self, id: ShapeId) -> Vec<usize> {
        if let Some(known) = self.about.get(&id) {
            return known.clone();
        }
        let shape = self.input.plan.view.shape(id);
        let terms = self.terms.iter().enumerate();
        let about: Vec<usize> = terms
            .filter(|(_, term)| shape.is_some_and(|shape| term.matches(shape)))
            .map(|(number, _)| number)
            .collect();
        self.about.insert(id, about.clone());
        about
    }

    fn domain(&self, batch: &Batch, to: &MoveTarget, term: usize) -> Option<String> {
        let key = self.terms.get(term)?.key.as_str();
        match to {
            MoveTarget::Node(name) => {
                let node = self.input.plan.view.nodes().get(name)?;
                domain_of_node(&node.metadata.labels, name, key)
            }
            MoveTarget::Replacement(number) if key == labels::HOSTNAME => {
                Some(format!("new/{}/{number}", batch.nodes.first()?))
            }
            // What all that it may become have in common.
            MoveTarget::Replacement(number) => {
                batch.replacements.get(*number)?.labels.get(key).cloned()
            }
        }
    }
}

/// Whether pods of a shape must be near others.
fn needs_company(shape: &PodShape) -> bool {
    shape.affinity.pod_affinity.as_ref().is_some_and(|near| !near.required.is_empty())
}

/// A node's name stands in for an absent host name.
fn domain_of_node(labels: &BTreeMap<String, String>, name: &NodeName, key: &str) -> Option<String> {
    let host = || (key == drover_common::labels::HOSTNAME).then(|| name.to_string());
    labels.get(key).cloned().or_else(host)
}
