//! What can be had and what it costs: offerings, prices, and capacity.

use std::collections::BTreeMap;

use drover_common::catalog::{CatalogEntry, REFERENCE_REGION};
use drover_common::instance_type::{CapacityType, InstanceTypeFacts};
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::super::random::Random;

/// How long one full swing of a spot price takes, at least, in minutes.
const SWING_MINUTES: u64 = 6 * 60;

/// An instance type for sale.
#[derive(Clone, Debug, PartialEq)]
pub struct CatalogType {
    /// What EC2 says of it.
    pub facts: InstanceTypeFacts,
    /// On-demand price, micro-dollars an hour; `None`: not listed.
    pub on_demand_price: Option<u64>,
    /// The zones that have it, by name, with the price around which spot drifts; `None`: no spot.
    pub zones: BTreeMap<String, Option<u64>>,
}

impl CatalogType {
    /// An entry of the repository's catalogue, moved to a region: zone letters and prices are kept.
    pub fn of(entry: CatalogEntry, region: &str) -> Self {
        let mut zones = BTreeMap::new();
        let mut on_demand_price = None;
        for offering in entry.offerings {
            let letter = offering.zone.strip_prefix(REFERENCE_REGION).unwrap_or(&offering.zone);
            let spot: &mut Option<u64> = zones.entry(format!("{region}{letter}")).or_default();
            match offering.capacity_type {
                CapacityType::Spot => *spot = offering.price,
                CapacityType::OnDemand => on_demand_price = on_demand_price.or(offering.price),
                CapacityType::Reserved => {}
            }
        }
        Self { facts: entry.facts, on_demand_price, zones }
    }
}

/// Limits how many more instances can be had of some offerings. Of several rules for an offering
/// the newest counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CapacityRule {
    /// Instance type; `*` for any.
    #[serde(default = "any")]
    pub instance_type: String,
    /// Zone; `*` for any.
    #[serde(default = "any")]
    pub zone: String,
    /// `spot`, `on-demand`; `*` for any.
    #[serde(default = "any")]
    pub capacity_type: String,
    /// How many more instances, counted down over all offerings of the rule; no limit if `None`.
    /// Read from a number, `null`, or `false` (none) and `true` (no limit).
    #[serde(default, deserialize_with = "count_or_switch")]
    pub available: Option<u32>,
}

fn count_or_switch<'de, D: Deserializer<'de>>(source: D) -> Result<Option<u32>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Count(u32),
        Switch(bool),
    }
    Ok(match Option::<Word>::deserialize(source)? {
        Some(Word::Count(count)) => Some(count),
        Some(Word::Switch(false)) => Some(0),
        Some(Word::Switch(true)) | None => None,
    })
}

fn any() -> String {
    "*".to_owned()
}

impl CapacityRule {
    fn covers(&self, instance_type: &str, zone: &str, capacity_type: CapacityType) -> bool {
        let is = |wanted: &str, have: &str| wanted == "*" || wanted == have;
        is(&self.instance_type, instance_type)
            && is(&self.zone, zone)
            && is(&self.capacity_type, capacity_type.as_str())
    }

    fn same_place(&self, other: &Self) -> bool {
        self.instance_type == other.instance_type
            && self.zone == other.zone
            && self.capacity_type == other.capacity_type
    }
}

/// Types, prices and capacity of the region.
#[derive(Clone, Debug)]
pub(super) struct Market {
    seed: u64,
    pub(super) types: BTreeMap<String, CatalogType>,
    rules: Vec<CapacityRule>,
}

impl Market {
    pub(super) fn new(seed: u64, types: impl IntoIterator<Item = CatalogType>) -> Self {
        let types = types.into_iter().map(|entry| (entry.facts.name.clone(), entry)).collect();
        Self { seed, types, rules: Vec::new() }
    }

    /// Whether a zone has a type at all.
    pub(super) fn offered(&self, instance_type: &str, zone: &str) -> bool {
        self.types.get(instance_type).is_some_and(|entry| entry.zones.contains_key(zone))
    }

    /// Price of an offering, micro-dollars an hour.
    pub(super) fn price(
        &self,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
        now: Timestamp,
    ) -> Option<u64> {
        let entry = self.types.get(instance_type)?;
        let spot = *entry.zones.get(zone)?;
        match capacity_type {
            CapacityType::Spot => {
                let share = self.swing(instance_type, zone, now);
                Some((spot?.saturating_mul(share) / 1_000_000).max(1))
            }
            CapacityType::OnDemand | CapacityType::Reserved => entry.on_demand_price,
        }
    }

    /// The spot price in millionths of its mean: it drifts by up to 6 % either way over hours.
    fn swing(&self, instance_type: &str, zone: &str, now: Timestamp) -> u64 {
        let lot = hash(self.seed, &["spot", instance_type, zone]);
        let period = SWING_MINUTES + (lot >> 24) % SWING_MINUTES;
        let minutes = u64::try_from(now.as_second() / 60).unwrap_or_default();
        let phase = (minutes + (lot >> 40) % period) % period;
        // A triangle from 0 up to period/2 and back, mapped onto 94 % to 106 %.
        let height = phase.min(period - phase);
        940_000 + 240_000 * height / period
    }

    /// How deep a spot pool is, 1 (about to run dry) to 10.
    fn depth(&self, instance_type: &str, zone: &str) -> u64 {
        1 + hash(self.seed, &["depth", instance_type, zone]) % 10
    }

    /// The order in which EC2 tries pools, lower first: `lowest-price` for on-demand;
    /// `price-capacity-optimized` for spot, where a shallow pool counts as up to twice as dear.
    pub(super) fn rank(
        &self,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
        now: Timestamp,
    ) -> u64 {
        let price = self.price(instance_type, zone, capacity_type, now).unwrap_or(u64::MAX / 1_000);
        match capacity_type {
            CapacityType::Spot => {
                let penalty = 100 + 10 * (10 - self.depth(instance_type, zone));
                price.saturating_mul(penalty) / 100
            }
            CapacityType::OnDemand | CapacityType::Reserved => price,
        }
    }

    /// Puts a capacity rule before all others; one for the same place is replaced.
    pub(super) fn limit(&mut self, rule: CapacityRule) {
        self.rules.retain(|old| !old.same_place(&rule));
        self.rules.insert(0, rule);
    }

    pub(super) fn rules(&self) -> &[CapacityRule] {
        &self.rules
    }

    /// Takes up to `wanted` instances of an offering; says how many there were.
    pub(super) fn take(
        &mut self,
        instance_type: &str,
        zone: &str,
        capacity_type: CapacityType,
        wanted: u32,
    ) -> u32 {
        let rule =
            self.rules.iter_mut().find(|rule| rule.covers(instance_type, zone, capacity_type));
        match rule.and_then(|rule| rule.available.as_mut()) {
            Some(left) => {
                let taken = wanted.min(*left);
                *left -= taken;
                taken
            }
            None => wanted,
        }
    }
}

/// A number that depends on the seed and the words alone (FNV-1a, then SplitMix64's mixing).
fn hash(seed: u64, words: &[&str]) -> u64 {
    let mut state = 0xCBF2_9CE4_8422_2325_u64 ^ seed;
    for word in words {
        for byte in word.bytes().chain([0]) {
            state = (state ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    Random::new(state).next()
}
