//! A bound on the work of the exact path, in steps and never by a clock: equal inputs give equal plans.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use super::board::Board;
use super::dimension::Amounts;

/// What is left of a plan's steps, and the groups they did not suffice for. One step is about what it
/// takes to compare a pod with a place; twenty million of them are about a second.
#[derive(Clone, Debug)]
pub(super) struct Steps {
    left: u64,
    /// Of those for filling up what is planned: without them it costs more, and nobody is left.
    filling: u64,
    /// Differs from look to look.
    turn: u64,
    /// Groups with pods that nobody looked for a place for.
    pub unreached: BTreeSet<usize>,
}

impl Default for Steps {
    /// Without a bound.
    fn default() -> Self {
        Self::of(u64::MAX, 0)
    }
}

impl Steps {
    pub(super) fn of(left: u64, turn: u64) -> Self {
        let filling = if left == u64::MAX { left } else { left / 4 };
        Self { left, filling, turn, unreached: BTreeSet::new() }
    }

    /// Which of so many this look begins with. By Fibonacci hashing neighbouring looks begin far from each other.
    fn start_of(&self, length: usize) -> usize {
        let part = self.turn.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        usize::try_from((part * length as u64) >> 32).unwrap_or(0)
    }

    pub(super) fn take(&mut self, steps: u64) {
        // Without a bound there is nothing to count.
        if self.left != u64::MAX {
            self.left = self.left.saturating_sub(steps);
        }
    }

    /// Takes steps of those for filling alone.
    pub(super) fn take_of_filling(&mut self, steps: u64) {
        if self.filling != u64::MAX {
            self.filling = self.filling.saturating_sub(steps);
        }
    }

    pub(super) fn may_fill(&self) -> bool {
        self.filling > 0
    }

    pub(super) fn left(&self) -> u64 {
        self.left
    }

    pub(super) fn are_spent(&self) -> bool {
        self.left == 0
    }
}

impl Board<'_> {
    /// What it takes to look at one place for a pod of a group.
    pub(super) fn steps_of_a_look(&self, group: usize) -> u64 {
        let terms = self.groups.get(group).map_or(0, |group| {
            group.part.own.len() + group.part.matched.len() + group.shape.ports.len()
        });
        1 + terms as u64
    }

    /// What it takes to find out what some offers become with one more pod of a group.
    pub(super) fn steps_of_narrowing(&self, group: usize, offers: usize) -> u64 {
        let dimensions = self.groups.get(group).map_or(0, |group| Amounts::len(&group.request));
        let sets = self.market.offers.len() / 64;
        (offers * (1 + dimensions / 4) / 4 + sets) as u64 + 4 * self.steps_of_a_look(group)
    }

    /// Of each priority first those that their own rules leave few of the domains that their terms are about: the others
    /// must not take these from them.
    pub(super) fn restricted_first(&mut self, groups: Vec<usize>) -> Vec<usize> {
        let mut keyed: Vec<(Reverse<Option<i32>>, usize, usize)> = Vec::with_capacity(groups.len());
        for group in groups {
            let reach = self.reach(group);
            keyed.push((Reverse(self.priority(group)), reach, group));
        }
        keyed.sort_by_key(|(priority, reach, _)| (*priority, *reach));
        keyed.into_iter().map(|(.., group)| group).collect()
    }

    /// How many domains of a key a group's rules leave it, where that is not all.
    fn reach(&mut self, group: usize) -> usize {
        let Some(entry) = self.groups.get(group).filter(|entry| !entry.part.own.is_empty()) else {
            return usize::MAX;
        };
        let mut least = usize::MAX;
        for key in self.topology.keys(&entry.part) {
            let values = self.index.values(&self.market, &key);
            let open = values.values().filter(|bits| !bits.is_disjoint(&entry.possible)).count();
            if open < values.len() {
                least = least.min(open);
            }
        }
        least
    }

    /// The order in which groups are looked at. Where steps may not suffice for all, each look begins
    /// elsewhere among groups of one priority: those that find no place must not use up the steps of
    /// the same others each time.
    pub(super) fn in_turn(&self, mut groups: Vec<usize>) -> Vec<usize> {
        let offers = self.scope.count_ones(..);
        let fruitless = |group: &usize| {
            self.steps_of_a_look(*group) * (self.existing.len() + self.bins.len()) as u64
                + self.steps_of_narrowing(*group, offers)
        };
        if groups.iter().map(fruitless).fold(0, u64::saturating_add) <= self.steps.left {
            return groups;
        }
        for equals in groups.chunk_by_mut(|a, b| self.priority(*a) == self.priority(*b)) {
            equals.rotate_left(self.steps.start_of(equals.len()));
        }
        groups
    }

    /// Notes that there were no steps for the rest of a group.
    pub(super) fn put_off(&mut self, group: usize) {
        if self.groups.get(group).is_some_and(|group| group.left() > 0) {
            self.steps.unreached.insert(group);
        }
    }

    /// Why pods of a group are left that there were no steps for.
    pub(super) fn reason_to_wait(&self, group: usize) -> Option<String> {
        self.steps.unreached.contains(&group).then(|| {
            format!(
                "it was not looked at: pods whose places depend on each other took all of the {} \
                 steps that a plan has; it is left to the next look",
                self.settings.max_exact_steps
            )
        })
    }
}
