//! One pass: pattern after pattern, best value for its price first.
//!
//! A candidate's pattern stays its best one until one of its items runs short, and what it scores can
//! only fall from then on. So candidates wait in a heap by the score they had last, and only those
//! that come to the top with a pattern that can no longer be used are searched anew.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use super::pattern::{Pattern, Search};
use super::{Allowance, Candidate, Item, Packed, Packing};
use crate::planner::dimension::{add_times, fits};

/// A candidate and what its pattern scored last.
#[derive(Debug)]
struct Waiting {
    score: f64,
    candidate: usize,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score.total_cmp(&other.score).then(other.candidate.cmp(&self.candidate))
    }
}

/// Packs everything at these values. `None` if the steps ran out on the way.
pub(super) fn greedy(
    items: &[Item],
    candidates: &[Candidate],
    allowances: &[Allowance],
    values: &[f64],
    steps: &mut u64,
) -> Option<Packing> {
    let mut demand: Vec<u32> = items.iter().map(|item| item.demand).collect();
    let mut left: u64 = demand.iter().map(|count| u64::from(*count)).sum();
    let mut allowances = allowances.to_vec();
    let mut packing = Packing::default();
    let mut search = Search::new(items, candidates, values);
    let mut patterns: Vec<Option<Pattern>> = vec![None; candidates.len()];
    // All are searched once they come up.
    let all = (0..candidates.len()).map(|candidate| Waiting { score: f64::MAX, candidate });
    let mut heap: BinaryHeap<Waiting> = all.collect();
    while left > 0
        && let Some(top) = heap.pop()
    {
        let Some(chosen) = candidates.get(top.candidate) else { continue };
        let allowance = allowances.get(chosen.pool);
        let allowed = allowance.map_or(0, |allowance| allowance.times(&chosen.capacity));
        let Some(slot) = patterns.get_mut(top.candidate) else { continue };
        if allowed == 0 {
            continue;
        }
        let usable = slot.as_ref().map_or(0, |pattern| pattern.times(&demand)).min(allowed);
        if usable == 0 {
            *slot = search.pattern(top.candidate, &demand, steps);
            if *steps == 0 {
                return None;
            }
            if let Some(pattern) = slot {
                heap.push(Waiting { score: pattern.score, candidate: top.candidate });
            }
            continue;
        }
        let Some(pattern) = slot else { continue };
        for (item, each) in &pattern.contents {
            if let Some(open) = demand.get_mut(*item) {
                let taken = each.saturating_mul(usable);
                *open = open.saturating_sub(taken);
                left = left.saturating_sub(u64::from(taken));
            }
        }
        let contents = pattern.contents.clone();
        let bought = cheapest(items, candidates, allowance, top.candidate, &contents);
        let Some(bought_as) = candidates.get(bought) else { continue };
        if let Some(allowance) = allowances.get_mut(chosen.pool) {
            allowance.take(&bought_as.capacity, usable);
        }
        let price = bought_as.price.saturating_mul(u64::from(usable));
        packing.price = packing.price.saturating_add(price);
        packing.nodes.push(Packed { candidate: bought, contents, count: usable });
        heap.push(top);
    }
    packing.unplaced = left;
    Some(packing)
}

/// The first candidate that holds the contents too and takes no more of what limits count.
fn cheapest(
    items: &[Item],
    candidates: &[Candidate],
    allowance: Option<&Allowance>,
    chosen: usize,
    contents: &[(usize, u32)],
) -> usize {
    let Some(known) = candidates.get(chosen) else { return chosen };
    let mut used = vec![0; known.room.len()];
    for (item, count) in contents {
        if let Some(item) = items.get(*item) {
            add_times(&mut used, &item.request, *count);
        }
    }
    let nothing = vec![0; used.len()];
    let cheaper = candidates.iter().take_while(|other| other.price < known.price);
    let limits = allowance.map_or(&[][..], |allowance| &allowance.left);
    let holds = |other: &Candidate| {
        other.pool == known.pool
            && limits
                .iter()
                .zip(other.capacity.iter().zip(&known.capacity))
                .all(|(left, (own, known))| left.is_none() || own <= known)
            && fits(&used, &nothing, &other.room)
            && contents.iter().all(|(item, _)| other.admits.contains(*item))
    };
    cheaper.into_iter().position(holds).unwrap_or(chosen)
}
