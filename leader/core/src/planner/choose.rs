//! What a planned node may become: types and zones, cheapest first, under a price ceiling and with the
//! diversity that is asked for.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use drover_common::instance_type::CapacityType;
use fixedbitset::FixedBitSet;

use super::MinValuesPolicy;
use super::bin::Bin;
use super::board::Board;
use super::dimension::fits;
use super::market::Offer;

/// Types of an on-demand launch that may be dearer than [`PRICE_CEILING_PERCENT`] allows, so that
/// a shortage of one type does not stop the launch.
const LEAST_TYPES: usize = 5;
/// How much dearer than its cheapest type a launch may become, in percent of that type.
const PRICE_CEILING_PERCENT: u64 = 150;

/// A type that a launch may become, with its offers by price.
struct Choice {
    offers: Vec<usize>,
}

/// What a launch may become.
pub(super) struct Chosen {
    pub kinds: Vec<usize>,
    /// Of all of them, by price.
    pub offers: Vec<usize>,
    /// Whether they have too few values for `minValues`.
    pub short: bool,
}

impl Board<'_> {
    /// The types and offers that a planned node may become.
    pub(super) fn choose(&mut self, bin: &Bin) -> Option<Chosen> {
        let cheapest = self.market.offers.get(bin.cheapest)?.clone();
        let template_index = self.market.kinds.get(cheapest.kind)?.template;
        // A launch is of one reservation, whose room was counted.
        let (options, short) = match cheapest.reservation {
            // What is reserved is there: it needs nothing to fall back on.
            Some(_) => {
                let only = vec![Choice { offers: vec![bin.cheapest] }];
                (self.under_ceiling(only), false)
            }
            None => {
                let listed = self.listed(bin, template_index, cheapest.capacity_type)?;
                self.take_slack(bin, &listed.0);
                listed
            }
        };
        let mut offers: Vec<usize> =
            options.iter().flat_map(|option| option.offers.iter().copied()).collect();
        offers.sort_by_key(|offer| self.market.rank(*offer));
        let listed = offers.iter().filter_map(|offer| Some(self.market.offers.get(*offer)?.kind));
        let mut kinds: Vec<usize> = listed.collect();
        kinds.sort_unstable();
        kinds.dedup();
        (!offers.is_empty()).then_some(Chosen { kinds, offers, short })
    }

    /// The types of a launch in as many of its zones as go together with the pool's `minValues`: pods may
    /// forbid types in one zone that they allow in another. Whether they have too few values all the
    /// same; `None` if they must not.
    fn listed(
        &self,
        bin: &Bin,
        template: usize,
        capacity_type: CapacityType,
    ) -> Option<(Vec<Choice>, bool)> {
        let pool = self.market.pools.get(bin.pool)?;
        let strict = self.settings.min_values_policy == MinValuesPolicy::Strict;
        let all = self.zones_of(bin, capacity_type);
        let list = |zones: &BTreeSet<&str>| {
            let options = self.options(bin, template, capacity_type, zones);
            self.affordable(bin, self.within_slack(bin, options), capacity_type)
        };
        let offers_of = |options: &[Choice]| -> FixedBitSet {
            options.iter().flat_map(|option| option.offers.iter().copied()).collect()
        };
        let is_short = |offers: &FixedBitSet| self.is_launch_short(pool, offers);
        let options = list(&all);
        if !is_short(&offers_of(&options)) {
            let wanted = self.diversity_of(bin, capacity_type, &all);
            if options.len() >= wanted {
                return Some((options, false));
            }
            // The first of them are without one zone each.
            let fewer = fewer_zones(&all).into_iter().take(all.len());
            let lists = fewer.map(|zones| list(&zones));
            let lists = lists.filter(|options| !is_short(&offers_of(options)));
            let diverse = std::iter::once(options).chain(lists);
            // Of equals the first: all zones.
            return diverse.min_by_key(|o| Reverse(o.len().min(wanted))).map(|o| (o, false));
        }
        // What no zone has alone, no choice of them has.
        let mut any = FixedBitSet::with_capacity(self.market.offers.len());
        for zone in &all {
            any.union_with(&offers_of(&list(&BTreeSet::from([*zone]))));
        }
        let fewer =
            (!is_short(&any)).then(|| fewer_zones(&all).into_iter().map(|zones| list(&zones)));
        let fewer = fewer.and_then(|mut all| all.find(|options| !is_short(&offers_of(options))));
        // A daemon of some zones may leave the cheapest type room in the others alone.
        let elsewhere = || {
            let zones = self.zones_sold(bin, capacity_type).into_iter();
            let others =
                zones.filter(|zone| !all.contains(zone)).map(|z| list(&BTreeSet::from([z])));
            others.into_iter().find(|options| !is_short(&offers_of(options)))
        };
        match fewer.or_else(elsewhere) {
            Some(options) => Some((options, false)),
            None => (!strict).then_some((options, true)),
        }
    }

    /// How many types a launch should list: on spot as many as the settings ask for, where so many hold the bin in some
    /// of its zones. A type that a daemon leaves too little of in one zone may do in the others.
    fn diversity_of(
        &self,
        bin: &Bin,
        capacity_type: CapacityType,
        zones: &BTreeSet<&str>,
    ) -> usize {
        if capacity_type != CapacityType::Spot || zones.len() < 2 {
            return 0;
        }
        let offers = bin.offers.ones().filter_map(|offer| self.market.offers.get(offer));
        let sold = offers.filter(|o| o.capacity_type == capacity_type && zones.contains(o.zone));
        let types: BTreeSet<usize> =
            sold.filter_map(|o| Some(self.market.kinds.get(o.kind)?.of_type.start)).collect();
        types.len().min(self.settings.min_spot_types)
    }

    /// The zones that the bin's cheapest type is offered in, of nodes that the pool's limits allow.
    pub(super) fn zones_of(&self, bin: &Bin, capacity_type: CapacityType) -> BTreeSet<&str> {
        let offers = self.market.kind_of(bin.cheapest).map(|kind| kind.of_type.clone());
        offers
            .into_iter()
            .flatten()
            .filter(|offer| bin.offers.contains(*offer) && self.is_within_slack(bin, *offer))
            .filter_map(|offer| self.market.offers.get(offer))
            .filter(|offer| offer.capacity_type == capacity_type)
            .map(|offer| offer.zone)
            .collect()
    }

    /// The zones of all that the bin may become, the cheapest first.
    fn zones_sold(&self, bin: &Bin, capacity_type: CapacityType) -> Vec<&str> {
        let ranked = self.market.by_rank.iter().filter(|offer| bin.offers.contains(**offer));
        let entries = ranked.filter_map(|offer| self.market.offers.get(*offer));
        let mut zones: Vec<&str> = Vec::new();
        for offer in entries.filter(|offer| offer.capacity_type == capacity_type) {
            if !zones.contains(&offer.zone) {
                zones.push(offer.zone);
            }
        }
        zones
    }

    /// Types that hold the bin in every one of some zones that they are offered in, so that any type in any
    /// zone listed is right. By price.
    fn options(
        &self,
        bin: &Bin,
        template: usize,
        capacity_type: CapacityType,
        zones: &BTreeSet<&str>,
    ) -> Vec<Choice> {
        let Some(range) = self.market.templates.get(template).map(|t| t.offers.clone()) else {
            return Vec::new();
        };
        let mut admitted = FixedBitSet::with_capacity(self.market.offers.len());
        admitted.insert_range(range.clone());
        for (group, _) in &bin.contents {
            if let Some(group) = self.groups.get(*group) {
                admitted.intersect_with(&group.possible);
            }
        }
        for (key, value) in &bin.pinned {
            match self.index.known(key).and_then(|values| values.get(value)) {
                Some(bits) => admitted.intersect_with(bits),
                None => return Vec::new(),
            }
        }
        let zone = |offer: usize| self.market.offers.get(offer).map(|offer| offer.zone);
        let billed = |offer: &usize| {
            let entry = self.market.offers.get(*offer);
            range.contains(offer) && entry.is_some_and(|e| e.capacity_type == capacity_type)
        };
        let in_zones = |offer: &usize| zone(*offer).is_some_and(|zone| zones.contains(zone));
        let nothing = vec![0; bin.used.len()];
        let mut options: Vec<Choice> = Vec::new();
        let mut seen = FixedBitSet::with_capacity(self.market.offers.len());
        let enough = self.enough_options(bin, capacity_type);
        for offer in self.market.by_rank.iter().filter(|o| bin.offers.contains(**o)) {
            let Some(kind) = self.market.offers.get(*offer).map(|offer| offer.kind) else {
                continue;
            };
            let Some(of_type) = self.market.kinds.get(kind).map(|kind| kind.of_type.clone()) else {
                continue;
            };
            if seen.contains(of_type.start) || !billed(offer) || !in_zones(offer) {
                continue;
            }
            if enough(&options, *offer) {
                break;
            }
            seen.insert(of_type.start);
            let mut offers: Vec<usize> = of_type.filter(|o| billed(o) && in_zones(o)).collect();
            let has_room = |offer: &usize| {
                self.market.kind_of(*offer).is_some_and(|kind| {
                    let mut taken = kind.daemon_ports.iter();
                    fits(&bin.used, &nothing, &kind.room)
                        && !taken.any(|port| bin.ports.iter().any(|own| own.conflicts(port)))
                })
            };
            if offers.iter().all(|offer| admitted.contains(*offer) && has_room(offer)) {
                offers.retain(|offer| bin.offers.contains(*offer));
                offers.sort_by_key(|offer| self.market.rank(*offer));
                options.push(Choice { offers });
            }
        }
        options
    }

    /// Tells when no further type can make it onto the list: there are as many as a launch may have,
    /// or as it must have and the rest is too dear. Limits and `minValues` may need more to choose
    /// from.
    fn enough_options(
        &self,
        bin: &Bin,
        capacity_type: CapacityType,
    ) -> impl Fn(&[Choice], usize) -> bool {
        let pool = self.market.pools.get(bin.pool);
        let choosy = pool.is_none_or(|pool| pool.is_limited() || pool.wants_values());
        let least = self.least_types(capacity_type);
        move |options, next| {
            let cost = |offer: usize| self.market.offers.get(offer).map_or(0, |offer| offer.cost());
            let lowest = options.first().and_then(|option| option.offers.first());
            let ceiling = lowest.map_or(u64::MAX, |offer| price_ceiling(cost(*offer)));
            let dear = options.len() >= least && cost(next) > ceiling;
            !choosy && (dear || options.len() >= self.settings.max_instance_types)
        }
    }

    /// Types that a launch lists even where they are dear.
    fn least_types(&self, capacity_type: CapacityType) -> usize {
        if capacity_type == CapacityType::Spot {
            self.settings.min_spot_types.max(LEAST_TYPES)
        } else {
            LEAST_TYPES
        }
    }

    /// Keeps types that the pool's limits still allow in place of the one already counted.
    fn within_slack(&self, bin: &Bin, mut options: Vec<Choice>) -> Vec<Choice> {
        options.retain(|option| option.offers.iter().all(|o| self.is_within_slack(bin, *o)));
        options
    }

    /// Whether the pool's limits still allow a node of this offer in place of the one already counted.
    fn is_within_slack(&self, bin: &Bin, offer: usize) -> bool {
        let market = &self.market;
        let base = market.kind_of(bin.cheapest).map(|kind| &kind.capacity);
        let Some((base, pool)) = base.zip(market.pools.get(bin.pool)) else { return true };
        let Some(kind) = market.kind_of(offer) else { return false };
        pool.left.iter().zip(kind.capacity.iter().zip(base)).all(|(left, (own, base))| {
            left.is_none_or(|left| *own <= base.saturating_add(left.max(0)))
        })
    }

    /// Counts the largest of the types against the pool's limits, in place of the one already counted.
    fn take_slack(&mut self, bin: &Bin, options: &[Choice]) {
        let Some(base) = self.market.kind_of(bin.cheapest).map(|kind| kind.capacity.clone()) else {
            return;
        };
        let offers = options.iter().flat_map(|option| &option.offers);
        let kinds: BTreeSet<usize> =
            offers.filter_map(|offer| Some(self.market.offers.get(*offer)?.kind)).collect();
        let Some(pool) = self.market.pools.get_mut(bin.pool) else { return };
        for (index, left) in pool.left.iter_mut().enumerate() {
            let Some(left) = left else { continue };
            let amount = |capacity: &[i64]| capacity.get(index).copied().unwrap_or(0);
            let capacities = kinds.iter().filter_map(|kind| self.market.kinds.get(*kind));
            let largest = capacities.map(|kind| amount(&kind.capacity)).max().unwrap_or(0);
            *left = left.saturating_sub((largest - amount(&base)).max(0));
        }
    }

    /// Cuts the types at a price ceiling and at the most a launch may list, but not below what
    /// diversity and `minValues` ask for.
    fn affordable(
        &self,
        bin: &Bin,
        options: Vec<Choice>,
        capacity_type: CapacityType,
    ) -> Vec<Choice> {
        let cost = |option: &Choice| {
            let offer = option.offers.first().and_then(|offer| self.market.offers.get(*offer));
            offer.map_or(u64::MAX, |offer| offer.cost())
        };
        let lowest = options.first().map_or(0, cost);
        let ceiling = price_ceiling(lowest);
        let options = self.under_ceiling(options);
        let least = self.least_types(capacity_type);
        // Spot that is dearer than the on-demand node one could have instead is no bargain.
        let on_demand = if capacity_type == CapacityType::Spot {
            self.cheapest_on_demand(bin).unwrap_or(u64::MAX)
        } else {
            u64::MAX
        };
        let mut short = self.needed_values(bin.pool);
        let mut kept: Vec<Choice> = Vec::new();
        for option in options {
            let price = cost(&option);
            let new_value = self.brings_value(&option, &mut short, false);
            let wanted = price <= ceiling || kept.len() < least;
            let room = kept.len() < self.settings.max_instance_types;
            let bargain = kept.is_empty() || price <= on_demand;
            if (wanted && room && bargain) || new_value {
                self.brings_value(&option, &mut short, true);
                kept.push(option);
            }
        }
        // minValues may have pushed the list past its end: the dearest that nobody needs go.
        while kept.len() > self.settings.max_instance_types {
            kept.pop();
        }
        kept
    }

    /// Drops what is dearer than replacements of nodes may be.
    fn under_ceiling(&self, mut options: Vec<Choice>) -> Vec<Choice> {
        let Some(ceiling) = self.ceiling else { return options };
        let cost = |offer: &usize| self.market.offers.get(*offer).map_or(u64::MAX, Offer::cost);
        let cheapest: Vec<u64> =
            options.iter().filter_map(|option| option.offers.first().map(&cost)).collect();
        let price = ceiling.price(&cheapest);
        for option in &mut options {
            option.offers.retain(|offer| cost(offer) <= price);
        }
        options.retain(|option| !option.offers.is_empty());
        options
    }

    fn cheapest_on_demand(&self, bin: &Bin) -> Option<u64> {
        let offers = bin.offers.ones().filter_map(|offer| self.market.offers.get(offer));
        offers.filter(|o| o.capacity_type == CapacityType::OnDemand).map(|o| o.cost()).min()
    }

    /// Keys with `minValues` of a pool: how many values are wanted and which are there so far.
    fn needed_values(&self, pool: usize) -> Vec<(String, usize, BTreeSet<String>)> {
        let requirements = self.market.pools.get(pool).map(|pool| &pool.requirements);
        requirements
            .into_iter()
            .flatten()
            .filter_map(|r| Some((r.key.clone(), r.min_values? as usize, BTreeSet::new())))
            .collect()
    }

    fn brings_value(
        &self,
        option: &Choice,
        short: &mut [(String, usize, BTreeSet<String>)],
        keep: bool,
    ) -> bool {
        let mut brings = false;
        for (key, least, values) in short {
            for offer in &option.offers {
                let Some(value) = self.market.label(*offer, key) else { continue };
                if !values.contains(value) {
                    brings |= values.len() < *least;
                    if keep {
                        values.insert(value.to_owned());
                    }
                }
            }
        }
        brings
    }
}

/// Some of these zones but not all, more before fewer. Every choice of up to six; of more, all but one, and each alone.
fn fewer_zones<'z>(all: &BTreeSet<&'z str>) -> Vec<BTreeSet<&'z str>> {
    let zones: Vec<&str> = all.iter().copied().collect();
    if zones.len() > 6 {
        let without = zones.iter().map(|out| all.iter().copied().filter(|z| z != out).collect());
        return without.chain(zones.iter().map(|zone| BTreeSet::from([*zone]))).collect();
    }
    let mut choices: Vec<u32> = (1..(1 << zones.len()) - 1).collect();
    choices.sort_by_key(|choice| Reverse(choice.count_ones()));
    let chosen = |choice: u32| {
        let zones = zones.iter().enumerate().filter(|(at, _)| choice >> at & 1 == 1);
        zones.map(|(_, zone)| *zone).collect()
    };
    choices.into_iter().map(chosen).collect()
}

/// The most that a type may cost beside one of this price.
pub(super) fn price_ceiling(lowest: u64) -> u64 {
    lowest.saturating_mul(PRICE_CEILING_PERCENT) / 100
}
