//! Packing groups into new nodes: a node-centric greedy that values pods at resource prices, takes
//! the pattern with the most value for its price as often as demand allows, and corrects the values
//! from pass to pass (sequential value correction). Work grows with shapes and offers, not with pods.
//! Floating point only ranks; what fits is decided in integers.

mod greedy;
mod pattern;
mod values;

use fixedbitset::FixedBitSet;

use super::dimension::Amounts;
use greedy::greedy;
use pattern::LOOKS;
use values::{correct, initial};

/// A group to pack.
#[derive(Clone, Debug)]
pub(super) struct Item {
    pub request: Amounts,
    pub demand: u32,
    /// Most of it a node.
    pub cap: u32,
}

/// Something to buy.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub offer: usize,
    /// What it is planned at, micro-dollars an hour.
    pub price: u64,
    /// What it costs if EC2 gives the cheapest of its types.
    pub cheapest: u64,
    pub room: Amounts,
    /// Which items may go in.
    pub admits: FixedBitSet,
    pub pool: usize,
    pub capacity: Amounts,
}

/// What a pool's limits leave: amounts by dimension, and nodes.
#[derive(Clone, Debug, Default)]
pub(super) struct Allowance {
    pub left: Vec<Option<i64>>,
    pub nodes: Option<i64>,
}

impl Allowance {
    /// How many nodes of this capacity are allowed.
    pub(super) fn times(&self, capacity: &[i64]) -> u32 {
        let mut most = self.nodes.map_or(i64::from(u32::MAX), |nodes| nodes.max(0));
        for (left, amount) in self.left.iter().zip(capacity) {
            if let Some(left) = left
                && *amount > 0
            {
                most = most.min((*left).max(0) / *amount);
            }
        }
        u32::try_from(most).unwrap_or(u32::MAX)
    }

    pub(super) fn take(&mut self, capacity: &[i64], count: u32) {
        let count = i64::from(count);
        for (left, amount) in self.left.iter_mut().zip(capacity) {
            if let Some(left) = left {
                *left = left.saturating_sub(amount.saturating_mul(count));
            }
        }
        if let Some(nodes) = &mut self.nodes {
            *nodes = nodes.saturating_sub(count);
        }
    }
}

/// Some equal nodes: what to buy, what goes into each, and how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Packed {
    pub candidate: usize,
    pub contents: Vec<(usize, u32)>,
    pub count: u32,
}

/// A packing with its price and what it left.
#[derive(Clone, Debug, Default)]
pub(super) struct Packing {
    pub nodes: Vec<Packed>,
    pub price: u64,
    pub unplaced: u64,
}

/// Steps that all passes of one packing may take together: about half a second's worth.
const STEPS: u64 = 60_000_000;

/// The best of grouped first fit and `passes` of the greedy, and what first fit costs at the cheapest
/// types. Candidates come by price.
pub(super) fn pack(
    items: &[Item],
    candidates: &[Candidate],
    allowances: &[Allowance],
    passes: u32,
) -> (Packing, u64) {
    let first_fit = super::first_fit::first_fit(items, candidates, allowances);
    let cost_of = |packed: &Packed| {
        let each = candidates.get(packed.candidate).map_or(0, |candidate| candidate.cheapest);
        each.saturating_mul(u64::from(packed.count))
    };
    let first_fit_cost = first_fit.nodes.iter().map(cost_of).fold(0, u64::saturating_add);
    let mut best = first_fit;
    if least_steps(items, candidates) > STEPS {
        return (best, first_fit_cost);
    }
    let mut values = initial(items, candidates);
    let mut steps = STEPS;
    for _ in 0..passes {
        let Some(packing) = greedy(items, candidates, allowances, &values, &mut steps) else {
            break;
        };
        correct(&mut values, items, candidates, &packing);
        // Where not all can be placed, first fit stays: it goes by priority.
        if packing.unplaced == 0 && (best.unplaced > 0 || packing.price < best.price) {
            best = packing;
        }
    }
    (best, first_fit_cost)
}

/// What one pass takes at least: each candidate is searched once, and each item runs out once.
fn least_steps(items: &[Item], candidates: &[Candidate]) -> u64 {
    let admitted = candidates.iter().map(|candidate| candidate.admits.count_ones(..) as u64);
    let items = items.len() as u64;
    admitted.sum::<u64>().saturating_add(items.saturating_mul(items) / 2).saturating_mul(LOOKS)
}
