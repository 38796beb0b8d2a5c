//! Nodes that would go for no new ones may still go onto each other, and onto those that stay in any case.

use std::collections::BTreeSet;

use drover_common::id::NodeName;

use super::MoveTarget;
use super::delete::Attempt;
use super::yard::Yard;

impl Yard<'_> {
    /// Takes down nodes that are left, once it is known which others go, for free room on all that stay.
    pub(super) fn delete_rest(&mut self, attempt: &mut Attempt) {
        // What would come after batches that follow others would be right by those alone.
        if attempt.batches.iter().any(|batch| batch.follows) {
            return;
        }
        let left: BTreeSet<&NodeName> = attempt.left.iter().map(|left| &left.node).collect();
        let gone: BTreeSet<&NodeName> = attempt.batches.iter().flat_map(|b| &b.nodes).collect();
        let moves = attempt.batches.iter().flat_map(|batch| &batch.moves);
        let received: BTreeSet<&NodeName> = moves
            .filter_map(|moved| match &moved.to {
                MoveTarget::Node(node) => Some(node),
                MoveTarget::Replacement(_) => None,
            })
            .collect();
        let is_in = |names: &BTreeSet<&NodeName>, place: usize| {
            self.node_name(place).is_some_and(|name| names.contains(&name))
        };
        let order = self.order.iter().copied();
        let rest: Vec<usize> =
            order.filter(|place| is_in(&left, *place) && !is_in(&received, *place)).collect();
        if rest.is_empty() {
            return;
        }
        let takes = |place: &usize| {
            self.lots.get(*place).is_some_and(|lot| lot.takes_moves) && !is_in(&gone, *place)
        };
        // Those that can't go first, then those that would go last.
        let may_go: BTreeSet<usize> = rest.iter().copied().collect();
        let staying = (0..self.lots.len()).filter(|place| !may_go.contains(place));
        let all = staying.chain(rest.iter().rev().copied());
        self.targets = all.filter(takes).collect();
        self.stayed.clear();
        self.shut.open_all();
        let mut taken: BTreeSet<usize> = BTreeSet::new();
        for place in rest {
            if taken.contains(&place) {
                continue;
            }
            self.aside = Some(place);
            if let Some(placed) = self.delete_one(place, None) {
                taken.extend(placed.iter().map(|one| one.place));
                let batch = self.deletion(place, &placed);
                let name = self.node_name(place);
                attempt.left.retain(|left| Some(&left.node) != name.as_ref());
                attempt.batches.extend(batch);
                self.gone.insert(place);
            }
        }
        self.aside = None;
        self.gone.clear();
    }
}
