//! What EC2 and Pricing say of the region, the same for every class.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::ec2::{Ec2Answer, Ec2Call};
use drover_common::instance_type::InstanceTypeFacts;

/// Prices below this, in micro-dollars an hour, are taken for missing: the cheapest instance there
/// is costs about a thousand, and imitations of EC2 answer with next to nothing.
const LEAST_PRICE: u64 = 500;

/// Instance types, where they are offered, and prices. Empty until [`CloudFacts::global_calls`] are
/// answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudFacts {
    /// By name.
    pub instance_types: BTreeMap<String, InstanceTypeFacts>,
    /// Zones by instance type.
    pub offerings: BTreeMap<String, BTreeSet<String>>,
    /// Micro-dollars an hour by instance type and zone.
    pub spot_prices: BTreeMap<String, BTreeMap<String, u64>>,
    /// Micro-dollars an hour by instance type.
    pub on_demand_prices: BTreeMap<String, u64>,
    /// Zone ids by zone name.
    pub zones: BTreeMap<String, String>,
}

impl CloudFacts {
    /// The calls whose answers are wanted, to be repeated when they have aged.
    pub fn global_calls() -> Vec<Ec2Call> {
        vec![
            Ec2Call::DescribeInstanceTypes,
            Ec2Call::DescribeInstanceTypeOfferings,
            Ec2Call::DescribeAvailabilityZones,
            Ec2Call::GetOnDemandPrices,
            Ec2Call::DescribeSpotPriceHistory,
        ]
    }

    /// Takes in an answer; whatever it tells replaces what an earlier one told. Returns whether it
    /// is an answer to one of the global calls.
    pub fn record(&mut self, call: &Ec2Call, answer: &Ec2Answer) -> bool {
        match (call, answer) {
            (Ec2Call::DescribeInstanceTypes, Ec2Answer::InstanceTypes(types)) => {
                self.instance_types =
                    types.iter().map(|facts| (facts.name.clone(), facts.clone())).collect();
            }
            (Ec2Call::DescribeInstanceTypeOfferings, Ec2Answer::Offerings(offerings)) => {
                self.offerings.clear();
                for (instance_type, zone) in offerings {
                    self.offerings.entry(instance_type.clone()).or_default().insert(zone.clone());
                }
            }
            (Ec2Call::DescribeAvailabilityZones, Ec2Answer::Zones(zones)) => {
                self.zones = zones.iter().cloned().collect();
            }
            (Ec2Call::GetOnDemandPrices, Ec2Answer::OnDemandPrices(prices)) => {
                self.on_demand_prices =
                    prices.iter().filter(|(_, price)| *price >= LEAST_PRICE).cloned().collect();
            }
            (Ec2Call::DescribeSpotPriceHistory, Ec2Answer::SpotPrices(prices)) => {
                self.spot_prices.clear();
                for (instance_type, zone, price) in prices {
                    if *price >= LEAST_PRICE {
                        let zones = self.spot_prices.entry(instance_type.clone()).or_default();
                        zones.insert(zone.clone(), *price);
                    }
                }
            }
            _ => return false,
        }
        true
    }

    /// Whether instance types can be planned with: prices may be missing, types and zones not.
    pub fn is_usable(&self) -> bool {
        !self.instance_types.is_empty() && !self.offerings.is_empty()
    }
}
