//! What replacements may become, and what that costs at the worst.

use std::collections::BTreeSet;

use drover_common::instance_type::CapacityType;

use super::ceiling::Ceiling;
use super::trial::Attempt;
use super::yard::Yard;
use crate::planner::market::Pool;
use crate::planner::{Launch, LaunchOffering, MinValuesPolicy};

const NOTHING_CHEAPER: &str = "a replacement could become nothing that is cheaper";

impl Yard<'_> {
    /// Launches that cost `most` at the worst, whatever they become.
    pub(super) fn launches_under(
        &mut self,
        attempt: &Attempt<'_>,
        most: u64,
    ) -> Result<Vec<Launch>, String> {
        let limits = self.limits();
        let listed = self.board.listings().ok_or(NOTHING_CHEAPER)?;
        let all = listed.iter().map(|offerings| dearest_of(offerings)).fold(0, u64::saturating_add);
        if all > most {
            let least = if attempt.spot { self.input.settings.min_spot_types } else { 1 };
            let ceiling = Ceiling::under(listed.iter().map(AsRef::as_ref), most, least);
            let ceiling = ceiling.map_err(|worst| {
                let dear = self.too_dear(attempt.price, worst);
                let spot = || format!("{dear}, with up to {least} types to choose from on spot");
                if attempt.spot { spot() } else { dear.clone() }
            })?;
            self.board.ceiling = Some(ceiling);
        }
        self.set_limits(limits);
        let launches = self.all_launches();
        self.board.ceiling = None;
        let launches = launches?;
        match launches.iter().map(dearest).fold(0, u64::saturating_add) {
            worst if worst > most => Err(self.too_dear(attempt.price, worst)),
            _ => Ok(launches),
        }
    }

    fn all_launches(&mut self) -> Result<Vec<Launch>, String> {
        let launches = self.board.launches();
        if launches.len() == self.board.bins.len() {
            Ok(launches)
        } else {
            Err(NOTHING_CHEAPER.to_owned())
        }
    }

    pub(super) fn too_dear(&self, price: u64, replaced: u64) -> String {
        format!(
            "its pods would cost {} on new nodes against {} now; at least {} % must be saved",
            dollars(replaced),
            dollars(price),
            self.input.settings.min_saving_percent
        )
    }

    /// Spot for spot only where it is wanted, and `minValues` also under the ceiling. One spot node alone
    /// needs many cheaper types, as Karpenter has it, or it would go on to ever cheaper and fewer ones. Of
    /// more nodes, launches list all that there are of those: none of them is cheaper than the rest.
    pub(super) fn check_diversity(
        &self,
        attempt: &Attempt<'_>,
        launches: &[Launch],
    ) -> Result<(), String> {
        for launch in launches {
            let is_spot = attempt.spot && launch.capacity_type == CapacityType::Spot;
            if is_spot && !self.input.settings.spot_to_spot {
                return Err("spot nodes are not replaced by spot nodes".to_owned());
            }
            let types: BTreeSet<&str> =
                launch.offerings.iter().map(|offering| offering.instance_type.as_str()).collect();
            let least = self.input.settings.min_spot_types;
            if is_spot && attempt.nodes == 1 && types.len() < least {
                return Err(format!(
                    "a spot replacement needs {least} cheaper types to choose from, and has {}",
                    types.len()
                ));
            }
            let pool = self.board.market.pools.iter().find(|pool| pool.name == launch.nodepool);
            if self.board.settings.min_values_policy == MinValuesPolicy::Strict
                && let Some(pool) = pool
                && launch.reservation.is_none()
            {
                self.check_min_values(pool, launch)?;
            }
        }
        Ok(())
    }

    fn check_min_values(&self, pool: &Pool, launch: &Launch) -> Result<(), String> {
        let wanted = pool.requirements.iter().filter_map(|r| Some((r, r.min_values?)));
        for (requirement, least) in wanted {
            let mut values: BTreeSet<&str> = BTreeSet::new();
            for offer in pool.offers.clone() {
                let Some(entry) = self.board.market.offers.get(offer) else { continue };
                let Some(kind) = self.board.market.kind_of(offer) else { continue };
                let listed = entry.capacity_type == launch.capacity_type
                    && launch.offerings.iter().any(|listed| {
                        listed.instance_type == kind.instance_type.name && listed.zone == entry.zone
                    });
                if listed {
                    values.extend(self.board.market.label(offer, &requirement.key));
                }
            }
            if values.len() < least as usize {
                return Err(format!(
                    "too few cheaper types: minValues wants {least} values of {}",
                    requirement.key
                ));
            }
        }
        Ok(())
    }
}

/// The most that a launch may cost.
pub(super) fn dearest(launch: &Launch) -> u64 {
    dearest_of(&launch.offerings)
}

fn dearest_of(offerings: &[LaunchOffering]) -> u64 {
    let prices = offerings.iter().map(|offering| offering.price_micro.unwrap_or(u64::MAX));
    prices.max().unwrap_or(u64::MAX)
}

pub(super) fn dollars(micro: u64) -> String {
    format!("${:.4}/h", micro as f64 / 1e6)
}
