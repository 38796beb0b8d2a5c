//! Cutting a batch into parts that share no replacement: what can fail alone should.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::id::NodeName;

use super::purchase::dearest;
use super::yard::Yard;
use super::{Batch, Move, MoveTarget};
use crate::planner::Launch;

/// Some of a batch's nodes, and their moves in order, both as positions in the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Part {
    nodes: BTreeSet<usize>,
    moves: Vec<usize>,
}

/// A batch's parts.
#[derive(Clone, Debug, Default)]
pub(super) struct Parts {
    /// Those that pay alone, each with its figures.
    paying: Vec<(Part, Batch)>,
    /// The places of all other nodes: they would go only because the rest pays for them.
    pub dragged: Vec<usize>,
}

impl Parts {
    /// Whether no part pays alone.
    pub(super) fn is_empty(&self) -> bool {
        self.paying.is_empty()
    }

    /// Each part that pays as a batch of its own.
    pub(super) fn cut(self, mut batch: Batch) -> Vec<Batch> {
        let mut moves: Vec<Option<Move>> = batch.moves.drain(..).map(Some).collect();
        let mut launches: Vec<Option<Launch>> = batch.replacements.drain(..).map(Some).collect();
        let paying = self.paying.into_iter();
        paying.map(|(part, figures)| fill(&part, figures, &mut moves, &mut launches)).collect()
    }
}

impl Yard<'_> {
    /// The parts of a batch of these places.
    pub(super) fn parts_of(&self, nodes: &[usize], batch: &Batch) -> Parts {
        let lots: BTreeMap<NodeName, usize> =
            nodes.iter().filter_map(|place| Some((self.node_name(*place)?, *place))).collect();
        let mut parts = Parts::default();
        for part in linked(batch) {
            let figures = self.figures(&lots, batch, &part);
            if self.pays(&figures) {
                parts.paying.push((part, figures));
            } else {
                let names = figures.nodes.iter();
                parts.dragged.extend(names.filter_map(|name| lots.get(name)).copied());
            }
        }
        parts
    }

    fn pays(&self, part: &Batch) -> bool {
        let most = part.price_micro.saturating_sub(self.least_saving(part.price_micro));
        let saving = u64::try_from(part.saving_micro).unwrap_or(0);
        part.dearest_micro <= most && saving >= self.eviction_price(part.eviction_cost)
    }

    /// A part without its moves and replacements.
    fn figures(&self, lots: &BTreeMap<NodeName, usize>, batch: &Batch, part: &Part) -> Batch {
        let names = part.nodes.iter().filter_map(|node| batch.nodes.get(*node));
        let mut figures = Batch { nodes: names.cloned().collect(), ..Batch::default() };
        for lot in figures.nodes.iter().filter_map(|name| self.lots.get(*lots.get(name)?)) {
            figures.price_micro = figures.price_micro.saturating_add(lot.price);
            figures.eviction_cost = figures.eviction_cost.saturating_add(lot.eviction_cost);
        }
        let moves = part.moves.iter().filter_map(|number| batch.moves.get(*number));
        let numbers: BTreeSet<usize> = moves.filter_map(|one| replacement_of(&one.to)).collect();
        let mut expected = 0_u64;
        for launch in numbers.iter().filter_map(|number| batch.replacements.get(*number)) {
            expected = expected.saturating_add(launch.hourly_price_micro);
            figures.dearest_micro = figures.dearest_micro.saturating_add(dearest(launch));
        }
        figures.saving_micro = i64::try_from(figures.price_micro).unwrap_or(i64::MAX)
            - i64::try_from(expected).unwrap_or(i64::MAX);
        figures
    }
}

fn replacement_of(target: &MoveTarget) -> Option<usize> {
    match target {
        MoveTarget::Replacement(number) => Some(*number),
        MoveTarget::Node(_) => None,
    }
}

/// Gives a part its moves and replacements, which are numbered anew as its moves name them.
fn fill(
    part: &Part,
    mut batch: Batch,
    moves: &mut [Option<Move>],
    launches: &mut [Option<Launch>],
) -> Batch {
    let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
    for number in &part.moves {
        let Some(mut one) = moves.get_mut(*number).and_then(Option::take) else { continue };
        if let MoveTarget::Replacement(old) = one.to {
            let known = numbers.get(&old).copied();
            let new = known.unwrap_or_else(|| {
                batch.replacements.extend(launches.get_mut(old).and_then(Option::take));
                batch.replacements.len().saturating_sub(1)
            });
            numbers.insert(old, new);
            one.to = MoveTarget::Replacement(new);
        }
        batch.moves.push(one);
    }
    batch
}

/// Nodes whose pods share replacements, set by set.
fn linked(batch: &Batch) -> Vec<Part> {
    let places: BTreeMap<&NodeName, usize> =
        batch.nodes.iter().enumerate().map(|(place, node)| (node, place)).collect();
    let from = |one: &Move| places.get(&one.from).copied();
    // Each node begins as a set of its own, named by its first; sets that meet at a replacement join.
    let mut set_of: Vec<usize> = (0..batch.nodes.len()).collect();
    let mut first_at: BTreeMap<usize, usize> = BTreeMap::new();
    for one in &batch.moves {
        let (Some(node), Some(number)) = (from(one), replacement_of(&one.to)) else { continue };
        let other = *first_at.entry(number).or_insert(node);
        join(&mut set_of, node, other);
    }
    let mut parts: BTreeMap<usize, Part> = BTreeMap::new();
    for node in 0..batch.nodes.len() {
        parts.entry(name_of(&set_of, node)).or_default().nodes.insert(node);
    }
    for (number, one) in batch.moves.iter().enumerate() {
        let set = from(one).map(|node| name_of(&set_of, node));
        if let Some(part) = set.and_then(|set| parts.get_mut(&set)) {
            part.moves.push(number);
        }
    }
    parts.into_values().collect()
}

/// The name of a node's set: nodes point to earlier ones, down to one that points to itself.
fn name_of(set_of: &[usize], node: usize) -> usize {
    let mut name = node;
    while let Some(earlier) = set_of.get(name).filter(|earlier| **earlier < name) {
        name = *earlier;
    }
    name
}

fn join(set_of: &mut [usize], one: usize, other: usize) {
    let (one, other) = (name_of(set_of, one), name_of(set_of, other));
    if let Some(points) = set_of.get_mut(one.max(other)) {
        *points = one.min(other);
    }
}
