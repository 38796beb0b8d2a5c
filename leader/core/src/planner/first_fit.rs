//! Grouped first fit, largest first: whole groups at a time into open nodes that keep every
//! candidate which still fits, then the cheapest. Fast, never fails where a place exists, and the
//! price that the greedy must beat.

use super::dimension::{Amounts, add_times, times};
use super::pack::{Allowance, Candidate, Item, Packed, Packing};

/// A node being filled.
struct OpenNode {
    candidates: Vec<usize>,
    used: Amounts,
    /// The most room any of its candidates has, for a quick no.
    most: Amounts,
    contents: Vec<(usize, u32)>,
    /// How many equal ones there are; only the last group put in may make more than one.
    count: u32,
    /// The candidate whose capacity is taken off its pool's allowance.
    held: usize,
}

/// Packs items in the order given.
pub(super) fn first_fit(
    items: &[Item],
    candidates: &[Candidate],
    allowances: &[Allowance],
) -> Packing {
    let mut allowances = allowances.to_vec();
    let mut nodes: Vec<OpenNode> = Vec::new();
    let mut unplaced = 0_u64;
    for (index, item) in items.iter().enumerate() {
        let mut left = item.demand;
        let mut at = 0;
        while left > 0
            && let Some(node) = nodes.get_mut(at)
        {
            if let Some(rest) = add_to(node, index, item, &mut left, candidates) {
                nodes.insert(at + 1, rest);
            }
            at += 1;
        }
        while left > 0 {
            match open(index, item, left, candidates, &mut allowances) {
                Some(node) => {
                    left = left.saturating_sub(in_node(&node, index));
                    nodes.push(node);
                }
                None => break,
            }
        }
        unplaced += u64::from(left);
    }
    finish(nodes, candidates, unplaced)
}

fn in_node(node: &OpenNode, item: usize) -> u32 {
    let each = node.contents.iter().find(|(held, _)| *held == item).map_or(0, |(_, count)| *count);
    each.saturating_mul(node.count)
}

/// Adds what fits to a run of equal nodes. A run that is filled only in part is split; the rest is
/// returned.
fn add_to(
    node: &mut OpenNode,
    index: usize,
    item: &Item,
    left: &mut u32,
    candidates: &[Candidate],
) -> Option<OpenNode> {
    if times(&item.request, &node.used, &node.most) == 0 {
        return None;
    }
    let most = node
        .candidates
        .iter()
        .filter_map(|candidate| candidates.get(*candidate))
        .filter(|candidate| candidate.admits.contains(index))
        .map(|candidate| times(&item.request, &node.used, &candidate.room))
        .max()
        .unwrap_or(0)
        .min(item.cap)
        .min(*left);
    if most == 0 {
        return None;
    }
    let whole = (*left / most).min(node.count);
    let rest = (whole < node.count).then(|| OpenNode {
        candidates: node.candidates.clone(),
        used: node.used.clone(),
        most: node.most.clone(),
        contents: node.contents.clone(),
        count: node.count - whole,
        held: node.held,
    });
    node.count = whole;
    add_times(&mut node.used, &item.request, most);
    node.contents.push((index, most));
    node.candidates.retain(|candidate| {
        candidates.get(*candidate).is_some_and(|candidate| {
            candidate.admits.contains(index) && within(&node.used, candidate)
        })
    });
    node.most = most_room(&node.candidates, candidates);
    *left -= most.saturating_mul(whole);
    rest
}

/// The largest room by dimension over some candidates.
fn most_room(numbers: &[usize], candidates: &[Candidate]) -> Amounts {
    let mut most = Amounts::new();
    for candidate in numbers.iter().filter_map(|number| candidates.get(*number)) {
        if most.is_empty() {
            most.clone_from(&candidate.room);
        }
        for (most, room) in most.iter_mut().zip(&candidate.room) {
            *most = (*most).max(*room);
        }
    }
    most
}

fn within(used: &[i64], candidate: &Candidate) -> bool {
    used.iter().zip(&candidate.room).all(|(used, room)| *used <= 0 || used <= room)
}

/// Opens as many equal nodes as the item fills, of the candidate with the lowest price a pod.
fn open(
    index: usize,
    item: &Item,
    left: u32,
    candidates: &[Candidate],
    allowances: &mut [Allowance],
) -> Option<OpenNode> {
    let nothing = vec![0; item.request.len()];
    let mut best: Option<(u128, usize, u32, u32)> = None;
    for (number, candidate) in candidates.iter().enumerate() {
        if !candidate.admits.contains(index) {
            continue;
        }
        let each = times(&item.request, &nothing, &candidate.room).min(item.cap).min(left);
        let allowed = allowances.get(candidate.pool).map_or(0, |a| a.times(&candidate.capacity));
        if each == 0 || allowed == 0 {
            continue;
        }
        let price = u128::from(candidate.price) * 1_000_000 / u128::from(each);
        if best.is_none_or(|(lowest, ..)| price < lowest) {
            best = Some((price, number, each, (left / each).max(1).min(allowed)));
        }
    }
    let (_, chosen, each, count) = best?;
    let candidate = candidates.get(chosen)?;
    allowances.get_mut(candidate.pool)?.take(&candidate.capacity, count);
    let mut used = nothing;
    add_times(&mut used, &item.request, each);
    // Within the pool, nothing larger than what was taken off the limits.
    let options = candidates.iter().enumerate().filter(|(_, other)| {
        other.pool == candidate.pool
            && other.admits.contains(index)
            && within(&used, other)
            && other.capacity.iter().zip(&candidate.capacity).all(|(a, b)| a <= b)
    });
    let options: Vec<usize> = options.map(|(number, _)| number).collect();
    let most = most_room(&options, candidates);
    Some(OpenNode {
        candidates: options,
        used,
        most,
        contents: vec![(index, each)],
        count,
        held: chosen,
    })
}

fn finish(nodes: Vec<OpenNode>, candidates: &[Candidate], unplaced: u64) -> Packing {
    let mut packing = Packing { unplaced, ..Packing::default() };
    for node in nodes.into_iter().filter(|node| node.count > 0) {
        let cheapest = node
            .candidates
            .iter()
            .copied()
            .min_by_key(|index| (candidates.get(*index).map_or(u64::MAX, |c| c.price), *index))
            .unwrap_or(node.held);
        let price = candidates.get(cheapest).map_or(0, |candidate| candidate.price);
        packing.price = packing.price.saturating_add(price.saturating_mul(u64::from(node.count)));
        packing.nodes.push(Packed {
            candidate: cheapest,
            contents: node.contents,
            count: node.count,
        });
    }
    packing
}
