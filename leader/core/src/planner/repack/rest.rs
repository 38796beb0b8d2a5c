//! Nodes that would go for no new ones may still go onto each other, and onto those that stay in any case.

use std::collections::BTreeSet;

use drover_common::id::NodeName;

use super::MoveTarget;
use super::delete::Attempt;
use super::yard::Yard;

impl Yard<'_> {
    /// Takes down nodes that are left, once it is known which others go, for free room on all that stay.
    pub(super) fn delete_rest(&mut self, attempt: &mut Attempt) {
        // What came after batches that follow others would be right only with these.
        if attempt.batches.iter().any(|batch| batch.follows) {
            return;
        }
        let rest = self.rest_of(attempt);
        if rest.is_empty() {
            return;
        }
        self.stayed.clear();
        self.shut.open_all();
        let mut taken: BTreeSet<usize> = BTreeSet::new();
        for place in rest {
            if taken.contains(&place) {
                continue;
            }
            self.closed.insert(place);
            match self.delete_one(place, None) {
                Some(placed) => {
                    taken.extend(placed.iter().map(|one| one.place));
                    attempt.batches.extend(self.deletion(place, &placed));
                }
                None => self.closed.remove(place),
            }
        }
        let gone: BTreeSet<NodeName> =
            self.closed.ones().filter_map(|at| self.node_name(at)).collect();
        self.closed.clear();
        attempt.left.retain(|left| !gone.contains(&left.node));
    }

    /// Nodes that are left and took no pods, in the order of removal. All that stay become targets.
    fn rest_of(&mut self, attempt: &Attempt) -> Vec<usize> {
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
        let takes = |place: &usize| {
            self.lots.get(*place).is_some_and(|lot| lot.takes_moves) && !is_in(&gone, *place)
        };
        // Those that can't go first, then those that would go last.
        let may_go: BTreeSet<usize> = rest.iter().copied().collect();
        let staying = (0..self.lots.len()).filter(|place| !may_go.contains(place));
        let all = staying.chain(rest.iter().rev().copied());
        self.targets = all.filter(takes).collect();
        rest
    }
}
