//! Which places have no room for a pod of a group, so that nobody asks them again: free room only shrinks.

use fixedbitset::FixedBitSet;

/// A place among those that pods may move to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// Among the targets.
    Target(usize),
    /// Among the nodes that turned out to stay.
    Stayed(usize),
}

impl Position {
    /// The one after it in the same list.
    pub(super) fn next(self) -> Self {
        match self {
            Self::Target(at) => Self::Target(at + 1),
            Self::Stayed(at) => Self::Stayed(at + 1),
        }
    }
}

/// By group: positions that are shut.
#[derive(Clone, Debug, Default)]
pub(super) struct Shut {
    groups: Vec<(FixedBitSet, FixedBitSet)>,
}

impl Shut {
    pub(super) fn of(groups: usize) -> Self {
        Self { groups: vec![(FixedBitSet::new(), FixedBitSet::new()); groups] }
    }

    /// Opens all to everyone: the lists are others.
    pub(super) fn open_all(&mut self) {
        for (targets, stayed) in &mut self.groups {
            targets.clear();
            stayed.clear();
        }
    }

    /// Shuts one to a group.
    pub(super) fn shut(&mut self, group: usize, position: Position) {
        let Some((targets, stayed)) = self.groups.get_mut(group) else { return };
        match position {
            Position::Target(at) => targets.grow_and_insert(at),
            Position::Stayed(at) => stayed.grow_and_insert(at),
        }
    }

    /// The first position of the same list from one on that is not shut to a group. It may be beyond the
    /// list's end.
    pub(super) fn first_open(&self, group: usize, from: Position) -> Position {
        let Some((targets, stayed)) = self.groups.get(group) else { return from };
        match from {
            Position::Target(at) => Position::Target(first_zero(targets, at)),
            Position::Stayed(at) => Position::Stayed(first_zero(stayed, at)),
        }
    }
}

/// The first bit from one on that is not set.
fn first_zero(set: &FixedBitSet, from: usize) -> usize {
    let size = usize::BITS as usize;
    let (mut word, mut bit) = (from / size, from % size);
    while let Some(bits) = set.as_slice().get(word) {
        let open = !bits >> bit;
        if open != 0 {
            return word * size + bit + open.trailing_zeros() as usize;
        }
        (word, bit) = (word + 1, 0);
    }
    word * size + bit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shut_is_passed_over() {
        let mut shut = Shut::of(2);
        for at in (0..200).filter(|at| at % 67 != 3) {
            shut.shut(1, Position::Target(at));
        }
        let open_from = |group, at| shut.first_open(group, Position::Target(at));
        let found: Vec<Position> = [0, 3, 4, 71, 138, 250].map(|at| open_from(1, at)).to_vec();
        let expected = [3, 3, 70, 137, 200, 250].map(Position::Target);
        assert_eq!(found, expected);
        assert_eq!(open_from(0, 5), Position::Target(5), "another group");
        assert_eq!(shut.first_open(1, Position::Stayed(7)), Position::Stayed(7), "the other list");
        shut.open_all();
        assert_eq!(shut.first_open(1, Position::Target(0)), Position::Target(0));
    }
}
