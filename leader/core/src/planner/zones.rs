//! Which zone on-demand nodes come to, where several cost the same: that with the fewest nodes of the pool.
//!
//! EC2 may put all nodes of one request into one zone. Pods that ask for nothing would lose them all with
//! it. The other zones stay on the list: a zone that is short is passed over.

use std::collections::BTreeMap;

use drover_common::id::NodePoolName;
use drover_common::instance_type::CapacityType;
use drover_common::labels;

use super::Launch;
use super::board::Board;

/// How many nodes of a pool there are by zone, with those that were dealt.
pub(super) type Counts = BTreeMap<NodePoolName, BTreeMap<String, usize>>;

impl Board<'_> {
    /// Puts one of the zones that cost the least first in each launch.
    pub(super) fn deal_zones(&mut self, launches: &mut [Launch]) {
        if !launches.iter().any(has_choice) {
            return;
        }
        let mut counts = match self.dealt.take() {
            Some(counts) => counts,
            None => self.nodes_by_zone(),
        };
        for launch in launches {
            let zones = counts.entry(launch.nodepool.clone()).or_default();
            if has_choice(launch) {
                put_first(launch, zones);
            }
            if let Some(first) = launch.offerings.first() {
                *zones.entry(first.zone.to_string()).or_default() += 1;
            }
        }
        self.dealt = Some(counts);
    }

    fn nodes_by_zone(&self) -> Counts {
        let mut counts = Counts::new();
        for place in &self.existing {
            let pool = place.labels.get(labels::NODEPOOL);
            if let Some((pool, zone)) = pool.zip(place.labels.get(labels::ZONE)) {
                let zones = counts.entry(NodePoolName::from(pool.as_str())).or_default();
                *zones.entry(zone.clone()).or_default() += 1;
            }
        }
        counts
    }
}

fn has_choice(launch: &Launch) -> bool {
    launch.capacity_type == CapacityType::OnDemand && launch.zones.len() > 1
}

/// Moves the zone with the fewest nodes to the front of each run of offerings of one type and price.
fn put_first(launch: &mut Launch, nodes: &BTreeMap<String, usize>) {
    let Some(cheapest) = launch.offerings.first().cloned() else { return };
    let alike = launch.offerings.iter().take_while(|one| {
        one.instance_type == cheapest.instance_type && one.price_micro == cheapest.price_micro
    });
    let fewest = alike
        .min_by_key(|one| (nodes.get(one.zone.as_str()).copied().unwrap_or(0), one.zone.clone()));
    let Some(zone) = fewest.map(|one| one.zone.clone()) else { return };
    let runs = launch
        .offerings
        .chunk_by_mut(|a, b| a.instance_type == b.instance_type && a.price_micro == b.price_micro);
    for run in runs {
        // Stable: the rest stays in order, so that as few requests as there are zones serve all.
        run.sort_by_key(|one| one.zone != zone);
    }
}
