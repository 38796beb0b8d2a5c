//! How dear the new nodes of a batch may become: as dear as the whole batch can bear, and no less than
//! the types that spot must be able to choose from.

use std::collections::BTreeMap;

use crate::planner::LaunchOffering;

/// A ceiling on what a launch may become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::planner) struct Ceiling {
    /// In percent of its cheapest type.
    pub percent: u64,
    /// So many of its cheapest types are under it in any case.
    pub least_types: usize,
}

/// Ceilings are looked for up to so many times the cheapest type.
const MOST_PERCENT: u64 = 1_600;

impl Ceiling {
    /// The highest under which launches cost `most` at the worst, micro-dollars an hour.
    ///
    /// # Errors
    /// What they cost at the worst under the lowest, which is more than that.
    pub(in crate::planner) fn under<'a>(
        launches: impl IntoIterator<Item = &'a [LaunchOffering]>,
        most: u64,
        least_types: usize,
    ) -> Result<Self, u64> {
        let ladders: Vec<Ladder> = launches.into_iter().map(Ladder::of).collect();
        let worst = |percent: u64| {
            let ceiling = Self { percent, least_types };
            ladders.iter().fold(0, |sum: u64, ladder| sum.saturating_add(ladder.worst(ceiling)))
        };
        let (mut low, mut high) = (100, MOST_PERCENT);
        if worst(low) > most {
            return Err(worst(low));
        }
        // The worst grows with the percentage: the last that is still cheap enough.
        while low < high {
            let middle = (low + high).div_ceil(2);
            if worst(middle) > most { high = middle - 1 } else { low = middle }
        }
        Ok(Self { percent: low, least_types })
    }

    /// The price that it is for a launch whose types begin at these prices, ascending.
    pub(in crate::planner) fn price(self, cheapest: &[u64]) -> u64 {
        let lowest = u128::from(cheapest.first().copied().unwrap_or(0));
        let share = u64::try_from(lowest * u128::from(self.percent) / 100).unwrap_or(u64::MAX);
        let last = self.least_types.min(cheapest.len()).checked_sub(1);
        share.max(last.and_then(|last| cheapest.get(last)).copied().unwrap_or(0))
    }
}

/// What a launch may cost, ascending.
struct Ladder {
    /// Each type where it is cheapest.
    types: Vec<u64>,
    /// Everything listed.
    all: Vec<u64>,
}

impl Ladder {
    fn of(offerings: &[LaunchOffering]) -> Self {
        let mut by_type: BTreeMap<&str, u64> = BTreeMap::new();
        let mut all = Vec::with_capacity(offerings.len());
        for offering in offerings {
            let price = offering.price_micro.unwrap_or(u64::MAX);
            let least = by_type.entry(offering.instance_type.as_str()).or_insert(price);
            *least = price.min(*least);
            all.push(price);
        }
        let mut types: Vec<u64> = by_type.into_values().collect();
        types.sort_unstable();
        all.sort_unstable();
        Self { types, all }
    }

    fn worst(&self, ceiling: Ceiling) -> u64 {
        let price = ceiling.price(&self.types);
        let under = self.all.partition_point(|one| *one <= price);
        under.checked_sub(1).and_then(|last| self.all.get(last)).copied().unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use smol_str::SmolStr;

    use super::*;

    fn launch(prices: &[(&str, u64)]) -> Vec<LaunchOffering> {
        let offering = |(instance_type, price): &(&str, u64)| LaunchOffering {
            instance_type: SmolStr::new(instance_type),
            zone: SmolStr::new("a"),
            price_micro: Some(*price),
        };
        prices.iter().map(offering).collect()
    }

    #[test]
    fn it_is_as_high_as_all_launches_together_can_bear() {
        let first = launch(&[("a", 100), ("b", 150), ("c", 400)]);
        let second = launch(&[("d", 200), ("e", 290)]);
        let worst_at = |most: u64, least: usize| {
            let launches = [first.as_slice(), second.as_slice()];
            let ceiling = Ceiling::under(launches, most, least)?;
            Ok::<_, u64>(launches.map(|launch| Ladder::of(launch).worst(ceiling)))
        };
        assert_eq!(worst_at(299, 1), Err(300));
        assert_eq!(worst_at(300, 1), Ok([100, 200]));
        assert_eq!(worst_at(400, 1), Ok([100, 290]));
        assert_eq!(worst_at(440, 1), Ok([150, 290]));
        assert_eq!(worst_at(10_000, 1), Ok([400, 290]));
        // What must be there in any case is counted first.
        assert_eq!(worst_at(439, 2), Err(440));
        assert_eq!(worst_at(440, 2), Ok([150, 290]));
        assert_eq!(worst_at(689, 3), Err(690), "a launch of fewer types has all of them");
    }
}
