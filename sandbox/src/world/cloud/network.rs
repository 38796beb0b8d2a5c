//! The default network: one subnet per zone, and the security groups.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use drover_common::ec2::{SelectorTerm, Subnet, Tags};

/// Tag by which Karpenter's manifests discover subnets, security groups and images.
pub(super) const DISCOVERY_TAG: &str = "karpenter.sh/discovery";

/// Addresses of a /19, less the five that AWS keeps in every subnet.
const SUBNET_ADDRESSES: u32 = 8192 - 5;

/// Zone letters and the numbers of their zone ids, as one real account sees us-east-1.
const ZONES: [(char, u8); 6] = [('a', 4), ('b', 6), ('c', 1), ('d', 2), ('e', 3), ('f', 5)];

/// One availability zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Zone {
    /// Name, e.g. `us-east-1a`.
    pub(super) name: String,
    /// Id, e.g. `use1-az4`.
    pub(super) id: String,
}

/// A subnet with its addresses.
#[derive(Clone, Debug)]
pub(super) struct SimulatedSubnet {
    pub(super) id: String,
    pub(super) zone: Zone,
    pub(super) tags: Tags,
    base: u32,
    cursor: u32,
    used: BTreeSet<u32>,
}

/// A security group.
#[derive(Clone, Debug)]
pub(super) struct SecurityGroup {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) tags: Tags,
}

/// The account's default VPC.
#[derive(Clone, Debug)]
pub(super) struct Network {
    pub(super) vpc: String,
    pub(super) subnets: BTreeMap<String, SimulatedSubnet>,
    pub(super) groups: Vec<SecurityGroup>,
}

impl Network {
    pub(super) fn new(region: &str, cluster: &str, mut id: impl FnMut(&str) -> String) -> Self {
        let vpc = id("vpc");
        let discovery = |name: String| {
            Tags::from([
                ("Name".to_owned(), name),
                (DISCOVERY_TAG.to_owned(), cluster.to_owned()),
                (format!("kubernetes.io/cluster/{cluster}"), "owned".to_owned()),
            ])
        };
        let mut subnets = BTreeMap::new();
        for (index, zone) in zones(region).into_iter().enumerate() {
            let block = u32::try_from(index).unwrap_or_default() * 8192;
            let subnet = SimulatedSubnet {
                id: id("subnet"),
                tags: discovery(format!("{cluster}-private-{}", zone.name)),
                zone,
                base: u32::from(Ipv4Addr::new(10, 0, 0, 0)) + block,
                cursor: 0,
                used: BTreeSet::new(),
            };
            subnets.insert(subnet.id.clone(), subnet);
        }
        let groups = vec![
            SecurityGroup { id: id("sg"), name: "default".to_owned(), tags: Tags::new() },
            SecurityGroup {
                id: id("sg"),
                name: format!("{cluster}-node"),
                tags: discovery(format!("{cluster}-node")),
            },
        ];
        Self { vpc, subnets, groups }
    }

    /// Subnets that match any of the terms (all of them where there is no term).
    pub(super) fn matching_subnets(&self, terms: &[SelectorTerm]) -> Vec<Subnet> {
        let mut found: Vec<&SimulatedSubnet> = self
            .subnets
            .values()
            .filter(|subnet| {
                any_term(terms, |term| {
                    id_matches(term, &subnet.id) && tags_match(&term.tags, &subnet.tags)
                })
            })
            .collect();
        found.sort_by(|left, right| left.zone.name.cmp(&right.zone.name));
        found.into_iter().map(SimulatedSubnet::shown).collect()
    }

    /// Security groups that match any of the terms, as (id, name).
    pub(super) fn matching_groups(&self, terms: &[SelectorTerm]) -> Vec<(String, String)> {
        self.groups
            .iter()
            .filter(|group| {
                any_term(terms, |term| {
                    id_matches(term, &group.id)
                        && term.name.as_ref().is_none_or(|name| wildcard(name, &group.name))
                        && tags_match(&term.tags, &group.tags)
                })
            })
            .map(|group| (group.id.clone(), group.name.clone()))
            .collect()
    }
}

impl SimulatedSubnet {
    /// As `DescribeSubnets` shows it.
    fn shown(&self) -> Subnet {
        Subnet {
            id: self.id.clone(),
            zone: self.zone.name.clone(),
            zone_id: self.zone.id.clone(),
            available_addresses: self.available(),
        }
    }

    /// Free addresses.
    pub(super) fn available(&self) -> u32 {
        SUBNET_ADDRESSES.saturating_sub(u32::try_from(self.used.len()).unwrap_or(u32::MAX))
    }

    /// Takes the next free address. Addresses come back into use late, so that a new node seldom
    /// gets the name of one that has just gone.
    pub(super) fn take_address(&mut self) -> Option<Ipv4Addr> {
        for step in 0..SUBNET_ADDRESSES {
            let offset = (self.cursor + step) % SUBNET_ADDRESSES;
            if self.used.insert(offset) {
                self.cursor = (offset + 1) % SUBNET_ADDRESSES;
                // The first four addresses of a subnet are AWS's own.
                return Some(Ipv4Addr::from(self.base + 4 + offset));
            }
        }
        None
    }

    /// Gives an address back.
    pub(super) fn release(&mut self, address: Ipv4Addr) {
        if let Some(offset) = u32::from(address).checked_sub(self.base + 4) {
            self.used.remove(&offset);
        }
    }
}

/// The region's zones in order of their names.
pub(super) fn zones(region: &str) -> Vec<Zone> {
    ZONES
        .iter()
        .map(|(letter, number)| Zone {
            name: format!("{region}{letter}"),
            id: format!("{}-az{number}", short_region(region)),
        })
        .collect()
}

/// `us-east-1` is `use1` in zone ids.
fn short_region(region: &str) -> String {
    let mut parts = region.split('-');
    let area = parts.next().unwrap_or_default();
    let rest: String = parts.filter_map(|part| part.chars().next()).collect();
    format!("{area}{rest}")
}

/// Whether any term holds; no term at all means no condition.
pub(super) fn any_term(terms: &[SelectorTerm], holds: impl Fn(&SelectorTerm) -> bool) -> bool {
    terms.is_empty() || terms.iter().any(holds)
}

/// Whether the term names this id, or none.
pub(super) fn id_matches(term: &SelectorTerm, id: &str) -> bool {
    term.id.as_ref().is_none_or(|wanted| wanted == id)
}

/// Whether a resource's tags have every wanted key with the wanted value (`*` for any).
pub(super) fn tags_match(wanted: &Tags, tags: &Tags) -> bool {
    wanted.iter().all(|(key, value)| tags.get(key).is_some_and(|have| wildcard(value, have)))
}

/// EC2's filter patterns: `*` stands for any text, `?` for one character.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at_pattern, mut at_text) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some('*') => {
                retry = Some((at_pattern, at_text));
                at_pattern += 1;
            }
            Some(&wanted) if wanted == '?' || text.get(at_text) == Some(&wanted) => {
                at_pattern += 1;
                at_text += 1;
            }
            _ => match retry {
                Some((star, from)) => {
                    retry = Some((star, from + 1));
                    at_pattern = star + 1;
                    at_text = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern.iter().skip(at_pattern).all(|&rest| rest == '*')
}
