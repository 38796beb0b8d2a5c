//! Cutting a batch into parts that share no replacement: what can fail alone should.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::id::NodeName;

use super::replace::dearest;
use super::yard::Yard;
use super::{Batch, MoveTarget};

impl Yard<'_> {
    /// The parts of a batch. Those that do not pay alone stay together; if not even that pays, the
    /// batch stays whole.
    pub(super) fn parts_of(&self, nodes: &[usize], batch: Batch) -> Vec<Batch> {
        let lots: BTreeMap<NodeName, usize> =
            nodes.iter().filter_map(|place| Some((self.node_name(*place)?, *place))).collect();
        let mut parts = Vec::new();
        let mut rest = BTreeSet::new();
        for names in linked(&batch) {
            let part = self.part(&lots, &batch, &names);
            if self.pays(&part) {
                parts.push(part);
            } else {
                rest.extend(names);
            }
        }
        if rest.is_empty() {
            return parts;
        }
        let together = self.part(&lots, &batch, &rest);
        if !self.pays(&together) {
            return vec![batch];
        }
        parts.push(together);
        parts
    }

    fn pays(&self, part: &Batch) -> bool {
        let most = part.price_micro.saturating_sub(self.least_saving(part.price_micro));
        let saving = u64::try_from(part.saving_micro).unwrap_or(0);
        part.dearest_micro <= most && saving >= self.eviction_price(part.eviction_cost)
    }

    fn part(
        &self,
        lots: &BTreeMap<NodeName, usize>,
        batch: &Batch,
        names: &BTreeSet<NodeName>,
    ) -> Batch {
        let mut numbers: BTreeMap<usize, usize> = BTreeMap::new();
        let mut part = Batch { nodes: names.iter().cloned().collect(), ..Batch::default() };
        for one in batch.moves.iter().filter(|one| names.contains(&one.from)) {
            let mut one = one.clone();
            if let MoveTarget::Replacement(number) = &mut one.to {
                let next = numbers.len();
                *number = *numbers.entry(*number).or_insert(next);
            }
            part.moves.push(one);
        }
        let mut order: Vec<(usize, usize)> =
            numbers.into_iter().map(|(old, new)| (new, old)).collect();
        order.sort_unstable();
        let launches = order.iter().filter_map(|(_, old)| batch.replacements.get(*old));
        part.replacements = launches.cloned().collect();
        for lot in names.iter().filter_map(|name| self.lots.get(*lots.get(name)?)) {
            part.price_micro = part.price_micro.saturating_add(lot.price);
            part.eviction_cost = part.eviction_cost.saturating_add(lot.eviction_cost);
        }
        let sum = |price: &dyn Fn(&crate::planner::Launch) -> u64| {
            part.replacements.iter().map(price).fold(0, u64::saturating_add)
        };
        let (expected, worst) = (sum(&|launch| launch.hourly_price_micro), sum(&dearest));
        part.dearest_micro = worst;
        part.saving_micro = i64::try_from(part.price_micro).unwrap_or(i64::MAX)
            - i64::try_from(expected).unwrap_or(i64::MAX);
        part
    }
}

/// Nodes whose pods share replacements, set by set.
fn linked(batch: &Batch) -> Vec<BTreeSet<NodeName>> {
    let mut sets: Vec<(BTreeSet<NodeName>, BTreeSet<usize>)> =
        batch.nodes.iter().map(|node| (BTreeSet::from([node.clone()]), BTreeSet::new())).collect();
    for one in &batch.moves {
        if let MoveTarget::Replacement(number) = one.to
            && let Some((_, numbers)) = sets.iter_mut().find(|(nodes, _)| nodes.contains(&one.from))
        {
            numbers.insert(number);
        }
    }
    let mut done: Vec<(BTreeSet<NodeName>, BTreeSet<usize>)> = Vec::new();
    for (mut nodes, mut numbers) in sets {
        let (joined, apart): (Vec<_>, Vec<_>) =
            done.into_iter().partition(|(_, others)| !others.is_disjoint(&numbers));
        for (others, more) in joined {
            nodes.extend(others);
            numbers.extend(more);
        }
        done = apart;
        done.push((nodes, numbers));
    }
    done.into_iter().map(|(nodes, _)| nodes).collect()
}
