//! What a pod is worth: at first by prices of cpu and memory, then by what its nodes cost.

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;

use super::{Candidate, Item, Packing};
use crate::planner::dimension::{CPU, MEMORY};

/// Values are at least this part of what a pod costs alone, so that none is left to the end.
const LEAST_SHARE: f64 = 0.0025;

/// Candidates that may hold the same items, and what those items ask for together.
struct Class {
    candidates: Vec<usize>,
    items: Vec<usize>,
}

/// Values by the fluid dual of each class: the prices of cpu and memory at which all its pods are
/// worth most while no node is worth more than it costs. Other resources count where they cost more.
pub(super) fn initial(items: &[Item], candidates: &[Candidate]) -> Vec<f64> {
    let mut values = vec![0.0; items.len()];
    for class in classes(items, candidates) {
        let (cpu, memory) = fluid_prices(&class, items, candidates);
        for index in &class.items {
            let (Some(item), Some(value)) = (items.get(*index), values.get_mut(*index)) else {
                continue;
            };
            let fluid = amount(&item.request, CPU) * cpu + amount(&item.request, MEMORY) * memory;
            let admitting = class.candidates.iter().filter_map(|number| candidates.get(*number));
            let (mut other, mut alone) = (f64::MAX, f64::MAX);
            for candidate in admitting.filter(|candidate| candidate.admits.contains(*index)) {
                let price = candidate.price as f64;
                other = other.min(price * largest_other_share(item, &candidate.room));
                alone = alone.min(price);
            }
            *value = fluid.max(other).max(alone * LEAST_SHARE).max(1.0);
        }
    }
    values
}

fn classes(items: &[Item], candidates: &[Candidate]) -> Vec<Class> {
    let mut by_set: BTreeMap<FixedBitSet, Vec<usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        let mut set = FixedBitSet::with_capacity(candidates.len());
        for (number, candidate) in candidates.iter().enumerate() {
            // What is too small for one stays in, whoever may use it: it is not what tells classes apart.
            let small = item.request.iter().zip(&candidate.room).any(|(own, room)| own > room);
            set.set(number, candidate.admits.contains(index) || small);
        }
        if candidates.iter().any(|candidate| candidate.admits.contains(index)) {
            by_set.entry(set).or_default().push(index);
        }
    }
    let of =
        |(set, items): (FixedBitSet, Vec<usize>)| Class { candidates: set.ones().collect(), items };
    by_set.into_iter().map(of).collect()
}

fn amount(amounts: &[i64], dimension: usize) -> f64 {
    amounts.get(dimension).copied().unwrap_or(0).max(0) as f64
}

fn largest_other_share(item: &Item, room: &[i64]) -> f64 {
    let shares = item.request.iter().zip(room).skip(MEMORY + 1);
    let shares = shares.filter(|(request, _)| **request > 0);
    shares.map(|(request, room)| *request as f64 / (*room).max(1) as f64).fold(0.0, f64::max)
}

/// Micro-dollars a unit of cpu and of memory. The total worth has one top over the share that memory
/// has of the price, which thirds find.
fn fluid_prices(class: &Class, items: &[Item], candidates: &[Candidate]) -> (f64, f64) {
    let total = |dimension: usize| -> f64 {
        let items = class.items.iter().filter_map(|index| items.get(*index));
        items.map(|item| amount(&item.request, dimension) * f64::from(item.demand)).sum()
    };
    let (cpu, memory) = (total(CPU).max(1.0), total(MEMORY).max(1.0));
    let worth = |share: f64| {
        // Prices up to a factor: all cpu together costs 1 - share, all memory share.
        let (cpu_price, memory_price) = ((1.0 - share) / cpu, share / memory);
        let candidates = class.candidates.iter().filter_map(|number| candidates.get(*number));
        let factor = candidates
            .map(|candidate| {
                let room = amount(&candidate.room, CPU) * cpu_price
                    + amount(&candidate.room, MEMORY) * memory_price;
                candidate.price as f64 / room.max(1e-12)
            })
            .fold(f64::MAX, f64::min);
        (factor, cpu_price * factor, memory_price * factor)
    };
    let (mut low, mut high) = (0.001, 0.999);
    for _ in 0..24 {
        let (left, right) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        if worth(left).0 < worth(right).0 {
            low = left;
        } else {
            high = right;
        }
    }
    let (_, cpu_price, memory_price) = worth(f64::midpoint(low, high));
    (cpu_price, memory_price)
}

/// Raises the value of items that landed on nodes dearer than their contents, lowers it on others.
pub(super) fn correct(
    values: &mut [f64],
    items: &[Item],
    candidates: &[Candidate],
    packing: &Packing,
) {
    const STEP: f64 = 0.5;
    let mut paid = vec![(0.0, 0.0); items.len()];
    for packed in &packing.nodes {
        let Some(candidate) = candidates.get(packed.candidate) else { continue };
        let value: f64 = packed
            .contents
            .iter()
            .map(|(item, count)| values.get(*item).copied().unwrap_or(0.0) * f64::from(*count))
            .sum();
        let ratio = candidate.price as f64 / value.max(1.0);
        for (item, count) in &packed.contents {
            if let Some((sum, weight)) = paid.get_mut(*item) {
                let pods = f64::from(*count) * f64::from(packed.count);
                *sum += ratio * pods;
                *weight += pods;
            }
        }
    }
    for (value, (sum, weight)) in values.iter_mut().zip(paid) {
        if weight > 0.0 {
            *value = (*value * (1.0 + STEP * (sum / weight - 1.0))).max(1.0);
        }
    }
}
