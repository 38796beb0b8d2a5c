//! Packing plain groups into new nodes: a bin-centric greedy that values pods at resource prices,
//! takes the pattern with the most value for its price as often as demand allows, and corrects the
//! values from pass to pass (sequential value correction). Work grows with shapes and offers, not
//! with pods. Floating point only ranks; what fits is decided in integers.

use super::dimension::{Amounts, CPU, MEMORY, add_times, fits, times};

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
    pub price: u64,
    pub room: Amounts,
    /// Which items may go in.
    pub admits: fixedbitset::FixedBitSet,
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

/// The best of grouped first fit and `passes` of the greedy.
pub(super) fn pack(
    items: &[Item],
    candidates: &[Candidate],
    allowances: &[Allowance],
    passes: u32,
) -> (Packing, u64) {
    let first_fit = super::first_fit::first_fit(items, candidates, allowances);
    let first_fit_price = first_fit.price;
    let mut best = first_fit;
    let mut values = initial_values(items, candidates);
    for _ in 0..affordable_passes(items.len(), candidates.len(), passes) {
        let packing = greedy(items, candidates, allowances, &values);
        correct_values(&mut values, items, candidates, &packing);
        // Where not all can be placed, first fit stays: it goes by priority.
        if packing.unplaced == 0 && (best.unplaced > 0 || packing.price < best.price) {
            best = packing;
        }
    }
    (best, first_fit_price)
}

/// Bounds the work of many shapes: a pass costs about shapes² × 40 steps.
fn affordable_passes(items: usize, candidates: usize, passes: u32) -> u32 {
    const STEPS: usize = 400_000_000;
    let pass = items.saturating_mul(items).saturating_mul(40 + candidates / 16).max(1);
    passes.min(u32::try_from(STEPS / pass).unwrap_or(u32::MAX))
}

/// A pod's share of the cheapest node for it: price × its largest share of room.
fn initial_values(items: &[Item], candidates: &[Candidate]) -> Vec<f64> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            candidates
                .iter()
                .filter(|candidate| candidate.admits.contains(index))
                .map(|candidate| candidate.price as f64 * largest_share(item, &candidate.room))
                .fold(f64::MAX, f64::min)
        })
        .map(|value| if value == f64::MAX { 0.0 } else { value.max(1.0) })
        .collect()
}

fn largest_share(item: &Item, room: &[i64]) -> f64 {
    let shares = item.request.iter().zip(room).filter(|(request, _)| **request > 0);
    shares.map(|(request, room)| *request as f64 / (*room).max(1) as f64).fold(0.0, f64::max)
}

/// A way to fill one candidate.
#[derive(Clone, Debug)]
struct Pattern {
    contents: Vec<(usize, u32)>,
    /// Value over price.
    score: f64,
}

fn greedy(
    items: &[Item],
    candidates: &[Candidate],
    allowances: &[Allowance],
    values: &[f64],
) -> Packing {
    const HOT: usize = 8;
    const FULL_LOOK: usize = 16;
    let mut demand: Vec<u32> = items.iter().map(|item| item.demand).collect();
    let mut allowances = allowances.to_vec();
    let mut packing = Packing::default();
    let mut ranked: Vec<(f64, usize)> = Vec::new();
    for round in 0_usize.. {
        let full = ranked.is_empty() || round.is_multiple_of(FULL_LOOK);
        if full {
            ranked = (0..candidates.len()).map(|index| (0.0, index)).collect();
        }
        let look = if full { ranked.len() } else { HOT.min(ranked.len()) };
        let mut best: Option<(Pattern, usize)> = None;
        for (rank, index) in ranked.iter_mut().take(look) {
            let Some(candidate) = candidates.get(*index) else { continue };
            let allowed =
                allowances.get(candidate.pool).map_or(0, |a| a.times(&candidate.capacity));
            let found = if allowed == 0 {
                None
            } else {
                best_pattern(items, candidate, &demand, values, full)
            };
            *rank = found.as_ref().map_or(0.0, |pattern| pattern.score);
            if let Some(pattern) = found
                && best.as_ref().is_none_or(|(best, _)| pattern.score > best.score)
            {
                best = Some((pattern, *index));
            }
        }
        if full {
            ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            ranked.retain(|(score, _)| *score > 0.0);
        }
        let Some((pattern, candidate)) = best else {
            if full {
                break;
            }
            ranked.clear();
            continue;
        };
        use_pattern(candidates, candidate, pattern, &mut demand, &mut allowances, &mut packing);
        if demand.iter().all(|left| *left == 0) {
            break;
        }
    }
    packing.unplaced = demand.iter().map(|left| u64::from(*left)).sum();
    packing
}

/// Uses a pattern until one of its items, or the pool's limits, run out.
fn use_pattern(
    candidates: &[Candidate],
    candidate: usize,
    pattern: Pattern,
    demand: &mut [u32],
    allowances: &mut [Allowance],
    packing: &mut Packing,
) {
    let Some(chosen) = candidates.get(candidate) else { return };
    let by_demand = pattern
        .contents
        .iter()
        .filter_map(|(item, count)| Some(demand.get(*item)? / (*count).max(1)))
        .min()
        .unwrap_or(0)
        .max(1);
    let Some(allowance) = allowances.get_mut(chosen.pool) else { return };
    let count = by_demand.min(allowance.times(&chosen.capacity));
    allowance.take(&chosen.capacity, count);
    for (item, each) in &pattern.contents {
        if let Some(left) = demand.get_mut(*item) {
            *left = left.saturating_sub(each.saturating_mul(count));
        }
    }
    packing.price = packing.price.saturating_add(chosen.price.saturating_mul(u64::from(count)));
    packing.nodes.push(Packed { candidate, contents: pattern.contents, count });
}

/// Weights of cpu against memory that patterns are built with.
const MIXES: [f64; 5] = [0.5, 0.25, 0.75, 0.05, 0.95];

fn best_pattern(
    items: &[Item],
    candidate: &Candidate,
    demand: &[u32],
    values: &[f64],
    quick: bool,
) -> Option<Pattern> {
    let mut best: Option<Pattern> = None;
    let mixes = if quick { 2 } else { MIXES.len() };
    for mix in MIXES.iter().take(mixes) {
        let mut order: Vec<(f64, usize)> = items
            .iter()
            .enumerate()
            .filter(|(index, _)| {
                candidate.admits.contains(*index) && demand.get(*index).is_some_and(|d| *d > 0)
            })
            .map(|(index, item)| {
                let value = values.get(index).copied().unwrap_or(0.0);
                (value / mixed_share(item, &candidate.room, *mix), index)
            })
            .collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let pattern = fill(items, candidate, demand, values, &order);
        if let Some(pattern) = pattern
            && best.as_ref().is_none_or(|best| pattern.score > best.score)
        {
            best = Some(pattern);
        }
    }
    if !quick
        && let Some(pattern) = balanced(items, candidate, demand, values)
        && best.as_ref().is_none_or(|best| pattern.score > best.score)
    {
        best = Some(pattern);
    }
    best
}

fn mixed_share(item: &Item, room: &[i64], mix: f64) -> f64 {
    let share = |index: usize| {
        let request = item.request.get(index).copied().unwrap_or(0) as f64;
        request / room.get(index).copied().unwrap_or(0).max(1) as f64
    };
    let other = item
        .request
        .iter()
        .zip(room)
        .skip(MEMORY + 1)
        .map(|(request, room)| *request as f64 / (*room).max(1) as f64)
        .fold(0.0, f64::max);
    (mix * share(CPU) + (1.0 - mix) * share(MEMORY)).max(other * 0.5).max(1e-9)
}

/// Fills in the order given, each item as often as it goes.
fn fill(
    items: &[Item],
    candidate: &Candidate,
    demand: &[u32],
    values: &[f64],
    order: &[(f64, usize)],
) -> Option<Pattern> {
    let mut used = vec![0; candidate.room.len()];
    let mut contents = Vec::new();
    let mut value = 0.0;
    for (_, index) in order {
        let Some(item) = items.get(*index) else { continue };
        let left = demand.get(*index).copied().unwrap_or(0);
        let count = times(&item.request, &used, &candidate.room).min(left).min(item.cap);
        if count > 0 {
            add_times(&mut used, &item.request, count);
            contents.push((*index, count));
            value += values.get(*index).copied().unwrap_or(0.0) * f64::from(count);
        }
    }
    pattern(contents, value, candidate)
}

/// Fills pod by pod with what suits the room left best: most value for its share of what is scarce.
fn balanced(
    items: &[Item],
    candidate: &Candidate,
    demand: &[u32],
    values: &[f64],
) -> Option<Pattern> {
    const MOST_PODS: usize = 64;
    let mut used = vec![0; candidate.room.len()];
    let mut counts = vec![0_u32; items.len()];
    let mut value = 0.0;
    let mut open: Vec<usize> = candidate
        .admits
        .ones()
        .filter(|index| demand.get(*index).is_some_and(|left| *left > 0))
        .collect();
    for _ in 0..MOST_PODS {
        let room = |index: usize, used: &[i64]| {
            let all = candidate.room.get(index).copied().unwrap_or(0);
            all.saturating_sub(used.get(index).copied().unwrap_or(0)).max(1) as f64
        };
        let (cpu, memory) = (room(CPU, &used), room(MEMORY, &used));
        open.retain(|index| {
            let left = demand.get(*index).copied().unwrap_or(0);
            let taken = counts.get(*index).copied().unwrap_or(0);
            items.get(*index).is_some_and(|item| {
                taken < left.min(item.cap) && fits(&item.request, &used, &candidate.room)
            })
        });
        let best = open.iter().copied().max_by(|a, b| {
            let score = |index: usize| {
                let request = |dimension: usize| {
                    let item = items.get(index).and_then(|item| item.request.get(dimension));
                    item.copied().unwrap_or(0) as f64
                };
                let share = request(CPU) / cpu + request(MEMORY) / memory;
                values.get(index).copied().unwrap_or(0.0) / share.max(1e-9)
            };
            score(*a).total_cmp(&score(*b)).then(b.cmp(a))
        });
        let Some(best) = best else { break };
        if let Some((item, count)) = items.get(best).zip(counts.get_mut(best)) {
            add_times(&mut used, &item.request, 1);
            *count += 1;
            value += values.get(best).copied().unwrap_or(0.0);
        }
    }
    let contents =
        counts.into_iter().enumerate().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
    pattern(contents, value, candidate)
}

fn pattern(contents: Vec<(usize, u32)>, value: f64, candidate: &Candidate) -> Option<Pattern> {
    (!contents.is_empty())
        .then(|| Pattern { contents, score: value.max(1e-9) / candidate.price.max(1) as f64 })
}

/// Raises the value of items that landed on nodes dearer than their contents, lowers it on others.
fn correct_values(values: &mut [f64], items: &[Item], candidates: &[Candidate], packing: &Packing) {
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
