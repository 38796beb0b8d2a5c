//! Nodes whose pods would cost less on new nodes: m go for n, if even the dearest that may launch is
//! cheap enough.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::id::NodePoolName;

use super::purchase::dollars;
use super::trial::{Refusal, TOO_LITTLE_ALONE};
use super::yard::Yard;
use super::{Batch, LeftAlone, LeftKind};

/// So many nodes of batches are looked at in small clusters, and in larger ones each this many times (four
/// groups of pods take as long as a node): a cluster where nothing pays is not looked at for long.
const LOOKS: usize = 500;
const LOOKS_EACH: usize = 2;

/// After so many batches that would be right only with others before them, those left whose pods take part in the same
/// terms are taken for such without a try.
const MOST_DEPENDING: usize = 3;

/// About how many batches are bought for, one by one.
const MOST_LOTS: usize = 16;

/// What is made of nodes that are worth replacing.
struct Found<'f> {
    batches: &'f mut Vec<Batch>,
    left: &'f mut Vec<LeftAlone>,
    /// Nodes of batches that would depend on others.
    depending: Vec<Vec<usize>>,
    /// How many nodes may still be looked at in parts of batches.
    looks: usize,
}

impl Found<'_> {
    /// Lets a batch be looked at. What batches before it left over of that is not saved up for those at the end,
    /// which gain least.
    fn look_for(&mut self, batch: &[usize]) {
        self.looks = self.looks.min(LOOKS).saturating_add(batch.len() * LOOKS_EACH);
    }
}

impl<'a> Yard<'a> {
    /// Makes batches of the nodes that are worth replacing; tells of the others why not.
    pub(super) fn replace_all(
        &mut self,
        kept: Vec<usize>,
        batches: &mut Vec<Batch>,
        left: &mut Vec<LeftAlone>,
    ) {
        let mut ranked: Vec<(i128, usize)> = Vec::new();
        for place in kept {
            match (self.gain(place), self.lots.get(place)) {
                (Some(gain), Some(lot)) => {
                    let cost = i128::from(lot.eviction_cost.max(0)) + 1_000;
                    ranked.push((i128::from(gain) * 1_000_000 / cost, place));
                }
                _ => self.leave(place, self.small_gain(place), left),
            }
        }
        ranked.sort_by(|a, b| b.0.cmp(&a.0).then(a.1.cmp(&b.1)));
        // Nodes that are to go take no pods.
        let going: BTreeSet<usize> = ranked.iter().map(|(_, place)| *place).collect();
        self.targets.retain(|place| !going.contains(place));
        self.stayed.retain(|place| !going.contains(place));
        self.shut.open_all();
        let ranked: Vec<usize> = ranked.into_iter().map(|(_, place)| place).collect();
        let mut found = Found { batches, left, depending: Vec::new(), looks: LOOKS };
        let (mut refused, mut entangled) = (0, BTreeSet::new());
        for batch in self.batches_of(&ranked) {
            let terms = self.shared_terms(&batch);
            if refused >= MOST_DEPENDING && !terms.is_disjoint(&entangled) {
                found.depending.push(batch);
                continue;
            }
            found.look_for(&batch);
            let before = found.depending.len();
            self.replace(&batch, &mut found);
            if found.depending.len() > before {
                refused += 1;
                entangled.extend(terms);
            }
        }
        // These come one after the other, each with all before it done.
        let alone = (!found.depending.is_empty()).then(|| self.alone.clone());
        self.following = true;
        for batch in std::mem::take(&mut found.depending) {
            self.alone.clone_from(&self.board.topology);
            found.look_for(&batch);
            self.replace(&batch, &mut found);
        }
        self.following = false;
        if let Some(alone) = alone {
            self.alone = alone;
        }
    }

    /// The terms by which places of the nodes' pods concern those of other nodes; a host is nobody else's.
    fn shared_terms(&self, nodes: &[usize]) -> BTreeSet<usize> {
        let lots = nodes.iter().filter_map(|place| self.lots.get(*place));
        let groups = lots.flat_map(|lot| &lot.contents);
        let parts = groups.filter_map(|(group, _)| Some(&self.board.groups.get(*group)?.part));
        let terms = parts.flat_map(|part| part.own.iter().chain(&part.matched)).copied();
        let is_shared = |term: &usize| {
            let tracked = self.board.topology.terms.get(*term);
            tracked.is_some_and(|tracked| tracked.term.key != drover_common::labels::HOSTNAME)
        };
        terms.filter(is_shared).collect()
    }

    /// Cuts nodes into batches that their pools' budgets let begin.
    fn batches_of(&self, ranked: &[usize]) -> Vec<Vec<usize>> {
        // Large clusters are bought for in larger lots; what shares no new node is parted afterwards.
        let most = self.input.settings.max_batch_nodes.max(ranked.len() / MOST_LOTS).max(1);
        let mut batches: Vec<(Vec<usize>, BTreeMap<NodePoolName, u32>)> = Vec::new();
        for place in ranked {
            let Some(pool) = self.pool_of(*place) else { continue };
            let allowed = self.allowed.get(&pool).copied().unwrap_or(0);
            let fits = batches.last().is_some_and(|(nodes, counts)| {
                nodes.len() < most && counts.get(&pool).copied().unwrap_or(0) < allowed
            });
            if !fits {
                batches.push((Vec::new(), BTreeMap::new()));
            }
            if let Some((nodes, counts)) = batches.last_mut() {
                nodes.push(*place);
                *counts.entry(pool).or_default() += 1;
            }
        }
        batches.into_iter().map(|(nodes, _)| nodes).collect()
    }

    pub(super) fn pool_of(&self, place: usize) -> Option<NodePoolName> {
        let name = self.node_name(place)?;
        Some(self.input.nodes.get(&name)?.nodepool.clone())
    }

    /// Tries a batch, and its halves where it does not pay.
    fn replace(&mut self, nodes: &[usize], found: &mut Found<'_>) {
        let groups = self.board.groups.len() / 4;
        found.looks = found.looks.saturating_sub(nodes.len().saturating_add(groups));
        match self.try_batch(nodes) {
            Ok((batch, mut parts)) if self.is_free(nodes) => {
                self.leave_dragged(&std::mem::take(&mut parts.dragged), found.left);
                found.batches.extend(parts.cut(batch));
            }
            Ok((batch, _)) => {
                found.batches.push(batch);
                if self.following {
                    self.alone.clone_from(&self.board.topology);
                }
            }
            Err(Refusal::Depends) => found.depending.push(nodes.to_vec()),
            Err(Refusal::Drags(dragged)) => {
                self.leave_dragged(&dragged, found.left);
                let rest = nodes.iter().copied().filter(|place| !dragged.contains(place));
                let rest: Vec<usize> = rest.collect();
                if found.looks > 0 {
                    self.replace(&rest, found);
                } else {
                    let reason = "others save too little in its batch, and enough were tried";
                    rest.iter().for_each(|node| self.leave(*node, reason.to_owned(), found.left));
                }
            }
            Err(Refusal::Other(_)) if nodes.len() > 1 && found.looks > 0 => {
                let (first, second) = nodes.split_at(nodes.len() / 2);
                self.replace(first, found);
                self.replace(second, found);
            }
            Err(Refusal::Other(reason)) => {
                for place in nodes {
                    self.leave(*place, reason.clone(), found.left);
                }
            }
        }
    }

    fn leave(&self, place: usize, reason: String, left: &mut Vec<LeftAlone>) {
        if let Some(node) = self.node_name(place) {
            left.push(LeftAlone { node, reason, kind: LeftKind::NoGain });
        }
    }

    fn leave_dragged(&self, places: &[usize], left: &mut Vec<LeftAlone>) {
        for place in places {
            self.leave(*place, TOO_LITTLE_ALONE.to_owned(), left);
        }
    }

    fn small_gain(&self, place: usize) -> String {
        let Some(lot) = self.lots.get(place) else { return String::new() };
        format!(
            "its pods fit on no other node, and on new ones they would cost about {} of its {}; at \
             least {} % must be saved",
            dollars(lot.value),
            dollars(lot.price),
            self.input.settings.min_saving_percent
        )
    }
}
