//! From planned nodes to launches: every type and zone a node may become, cheapest first.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use drover_common::cluster::ObjectKey;
use drover_common::ec2::ReservationTarget;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::Resources;
use smol_str::SmolStr;

use super::attach::without_attachments;
use super::bin::Bin;
use super::board::Board;
use super::choose::Chosen;
use super::market::Pool;
use super::{Launch, LaunchOffering};

/// What a launch decides of its node.
const DECIDED: [&str; 3] = [labels::INSTANCE_TYPE, labels::ZONE, labels::CAPACITY_TYPE];
/// The same in a capacity reservation.
const DECIDED_OF_RESERVED: [&str; 4] =
    [labels::INSTANCE_TYPE, labels::ZONE, labels::CAPACITY_TYPE, labels::RESERVATION_ID];
/// Labels that all offers of a launch have alike.
const OF_BILLING: [&str; 4] = [
    labels::CAPACITY_TYPE,
    labels::RESERVATION_ID,
    labels::RESERVATION_TYPE,
    labels::RESERVATION_INTERRUPTIBLE,
];

/// What makes planned nodes equal: the cheapest offer, the domains decided, and what is in.
type BinKey = (usize, BTreeMap<String, String>, Vec<(usize, usize)>);

fn bin_key(bin: &Bin) -> BinKey {
    let mut contents: Vec<(usize, usize)> =
        bin.contents.iter().map(|(group, pods)| (*group, pods.len())).collect();
    contents.sort_unstable();
    (bin.cheapest, bin.pinned.clone(), contents)
}

fn sorted_pods(bin: &Bin) -> Vec<ObjectKey> {
    let mut pods: Vec<ObjectKey> =
        bin.contents.iter().flat_map(|(_, pods)| pods.iter().cloned()).collect();
    pods.sort();
    pods
}

impl Board<'_> {
    /// Turns every planned node into a launch.
    pub(super) fn launches(&mut self) -> Vec<Launch> {
        let bins = std::mem::take(&mut self.bins);
        // Equal nodes become equal launches, so long as no limit is used up on the way.
        let mut known: BTreeMap<BinKey, Launch> = BTreeMap::new();
        let mut launches = Vec::with_capacity(bins.len());
        for bin in &bins {
            let limited = self.market.pools.get(bin.pool).is_none_or(Pool::is_limited);
            let key = bin_key(bin);
            if !limited && let Some(like) = known.get(&key) {
                launches.push(Launch { pods: sorted_pods(bin), ..like.clone() });
            } else if let Some(launch) = self.launch(bin) {
                known.insert(key, launch.clone());
                launches.push(launch);
            } else {
                self.give_up(bin);
            }
        }
        self.bins = bins;
        self.deal_zones(&mut launches);
        launches
    }

    /// What every planned node may become, cheapest first, without the rest of its launch; `None` if one can
    /// become nothing. Equal nodes share theirs.
    pub(super) fn listings(&mut self) -> Option<Vec<Rc<[LaunchOffering]>>> {
        let bins = std::mem::take(&mut self.bins);
        let mut known: BTreeMap<BinKey, Rc<[LaunchOffering]>> = BTreeMap::new();
        let mut listings = Vec::with_capacity(bins.len());
        for bin in &bins {
            let limited = self.market.pools.get(bin.pool).is_none_or(Pool::is_limited);
            let key = bin_key(bin);
            if !limited && let Some(like) = known.get(&key) {
                listings.push(Rc::clone(like));
            } else if let Some(chosen) = self.choose(bin) {
                let offerings = chosen.offers.iter().filter_map(|o| self.launch_offering(*o));
                let offerings: Rc<[LaunchOffering]> = offerings.collect();
                known.insert(key, Rc::clone(&offerings));
                listings.push(offerings);
            }
        }
        let whole = listings.len() == bins.len();
        self.bins = bins;
        whole.then_some(listings)
    }

    /// Leaves the pods of a node that can't be launched as planned.
    fn give_up(&mut self, bin: &Bin) {
        for (group, pods) in &bin.contents {
            if let Some(group) = self.groups.get_mut(*group) {
                group.give_back(pods.clone());
            }
        }
    }

    fn launch(&mut self, bin: &Bin) -> Option<Launch> {
        let Chosen { kinds, offers, short } = self.choose(bin)?;
        let cheapest = self.market.offers.get(bin.cheapest)?;
        let first = self.market.offers.get(*offers.first()?)?;
        let pool = self.market.pools.get(bin.pool)?;
        let template = self.market.templates.get(self.market.kinds.get(cheapest.kind)?.template)?;
        let zones: BTreeSet<&str> =
            offers.iter().filter_map(|o| Some(self.market.offers.get(*o)?.zone)).collect();
        Some(Launch {
            min_values_relaxed: short,
            nodepool: pool.name.clone(),
            nodeclass: pool.class.clone(),
            capacity_type: cheapest.capacity_type,
            reservation: cheapest.reservation.map(|held| ReservationTarget {
                id: held.reservation.id.clone(),
                kind: held.reservation.kind,
            }),
            zones: zones.iter().map(|zone| (*zone).to_owned()).collect(),
            requirements: self.claim_requirements(bin, &template.labels, &offers),
            requests: self.requests(bin, cheapest.kind),
            labels: self.known_labels(&template.labels, &kinds, &zones, &offers),
            taints: pool.taints.clone(),
            startup_taints: pool.startup_taints.clone(),
            pods: sorted_pods(bin),
            hourly_price_micro: first.price.unwrap_or(0),
            allocatable: self.least_allocatable(&kinds),
            offerings: offers.iter().filter_map(|offer| self.launch_offering(*offer)).collect(),
        })
    }

    fn launch_offering(&self, offer: usize) -> Option<LaunchOffering> {
        let entry = self.market.offers.get(offer)?;
        let kind = self.market.kinds.get(entry.kind)?;
        Some(LaunchOffering {
            instance_type: SmolStr::new(&kind.instance_type.name),
            zone: SmolStr::new(entry.zone),
            price_micro: entry.price,
        })
    }

    fn claim_requirements(
        &self,
        bin: &Bin,
        own_labels: &BTreeMap<String, String>,
        offers: &[usize],
    ) -> Vec<Requirement> {
        let decided = if offers.iter().any(|offer| self.market.slot_of(*offer).is_some()) {
            &DECIDED_OF_RESERVED[..]
        } else {
            &DECIDED[..]
        };
        let pool = self.market.pools.get(bin.pool);
        let from_pool = pool.map(|pool| pool.requirements.as_slice()).unwrap_or_default();
        let mut requirements: Vec<Requirement> = from_pool
            .iter()
            .filter(|r| !decided.contains(&r.key.as_str()) && !own_labels.contains_key(&r.key))
            .map(|requirement| {
                let values =
                    || offers.iter().filter_map(|o| self.market.label(*o, &requirement.key));
                let had = |least| within_reach(least, values().collect::<BTreeSet<_>>().len());
                Requirement {
                    min_values: requirement.min_values.and_then(had),
                    ..requirement.clone()
                }
            })
            .collect();
        for key in decided {
            let values: BTreeSet<&str> =
                offers.iter().filter_map(|offer| self.market.label(*offer, key)).collect();
            requirements.push(Requirement {
                key: (*key).to_owned(),
                operator: Operator::In,
                min_values: least_values(from_pool, key)
                    .and_then(|least| within_reach(least, values.len())),
                values: values.into_iter().map(str::to_owned).collect(),
            });
        }
        for (key, value) in own_labels {
            requirements.push(Requirement {
                key: key.clone(),
                operator: Operator::In,
                values: vec![value.clone()],
                min_values: None,
            });
        }
        requirements.sort();
        requirements
    }

    fn requests(&self, bin: &Bin, kind: usize) -> Resources {
        let mut requests = without_attachments(&self.dimensions.sparse(&bin.used));
        if let Some(kind) = self.market.kinds.get(kind) {
            requests.add(&self.dimensions.sparse(&kind.daemons));
        }
        requests
    }

    /// Labels that every node the launch may become has.
    fn known_labels(
        &self,
        own: &BTreeMap<String, String>,
        kinds: &[usize],
        zones: &BTreeSet<&str>,
        offers: &[usize],
    ) -> BTreeMap<String, String> {
        let mut types = kinds
            .iter()
            .filter_map(|kind| self.market.kinds.get(*kind))
            .map(|kind| kind.instance_type);
        let first = types.next();
        let mut all: Vec<(&String, &String)> =
            first.into_iter().flat_map(|first| &first.labels).collect();
        let mut name = first.map(|first| &first.name);
        for other in types {
            all.retain(|(key, value)| other.labels.get(*key) == Some(*value));
            name = name.filter(|name| **name == other.name);
        }
        let mut common: BTreeMap<String, String> =
            all.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        common.extend(name.map(|name| (labels::INSTANCE_TYPE.to_owned(), name.clone())));
        common.extend(own.iter().map(|(key, value)| (key.clone(), value.clone())));
        let first = offers.first().copied().unwrap_or(usize::MAX);
        for key in OF_BILLING {
            let value = self.market.label(first, key);
            common.extend(value.map(|value| (key.to_owned(), value.to_owned())));
        }
        if let (1, Some(zone)) = (zones.len(), zones.first()) {
            common.insert(labels::ZONE.to_owned(), (*zone).to_owned());
        }
        common
    }

    fn least_allocatable(&self, kinds: &[usize]) -> Resources {
        let mut types = kinds.iter().filter_map(|kind| self.market.kinds.get(*kind)).map(|kind| {
            let mut all = Cow::Borrowed(&kind.instance_type.allocatable);
            if !kind.added.is_empty() {
                all.to_mut().add(&kind.added);
            }
            all
        });
        let mut least = types.next().map(Cow::into_owned).unwrap_or_default();
        for other in types {
            least.keep_least(&other);
        }
        least
    }
}

/// `minValues` as far as it can be had, which Karpenter puts on the NodeClaim; none of no value.
fn within_reach(least: u32, values: usize) -> Option<u32> {
    let values = u32::try_from(values).unwrap_or(u32::MAX);
    Some(least.min(values)).filter(|least| *least > 0)
}

fn least_values(requirements: &[Requirement], key: &str) -> Option<u32> {
    requirements.iter().filter(|r| r.key == key).filter_map(|r| r.min_values).max()
}
