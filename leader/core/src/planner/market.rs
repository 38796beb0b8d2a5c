//! What can be bought: NodePools with their open labels fixed, the node kinds they allow, and the
//! offerings of those.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use drover_common::crd::{NodePool, validate_node_pool};
use drover_common::id::NodePoolName;
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};
use drover_common::resources::{ResourceName, Resources};
use drover_common::taint::Taint;
use fixedbitset::FixedBitSet;
use jiff::Timestamp;

use super::attach::AttachLimits;
use super::daemon::{Daemon, load_of};
use super::dimension::{Amounts, Dimensions};
use super::matching::{current_key, fulfils};
use super::open_label::{LabelUses, open_labels};
use super::overlay::{Overlays, common};
use super::{PlanInput, UnavailableOffering};
use crate::view::HostPort;

/// What nodes are planned for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stock<'n> {
    /// Pods; static pools make no nodes for them.
    Pods,
    /// One static pool, whatever the pods.
    Pool(&'n NodePoolName),
}

/// A NodePool with every label that is not the type's or the offering's fixed.
#[derive(Clone, Debug)]
pub(super) struct Template {
    pub pool: usize,
    pub labels: BTreeMap<String, String>,
    pub offers: Range<usize>,
}

/// A NodePool that can be planned for.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    pub name: NodePoolName,
    pub weight: i32,
    pub class: String,
    pub taints: Vec<Taint>,
    pub startup_taints: Vec<Taint>,
    pub requirements: Vec<Requirement>,
    /// What may still be added under `limits`, by dimension; `None` is unlimited.
    pub left: Vec<Option<i64>>,
    /// Nodes that may still be added.
    pub nodes_left: Option<i64>,
    pub offers: Range<usize>,
}

impl Pool {
    /// Whether any limit is set.
    pub(super) fn is_limited(&self) -> bool {
        self.nodes_left.is_some() || self.left.iter().any(Option::is_some)
    }
}

/// An instance type under a template: what a node of it has room for.
#[derive(Clone, Debug)]
pub(super) struct NodeKind<'a> {
    pub template: usize,
    pub instance_type: &'a InstanceType,
    /// What overlays add to the type's resources.
    pub added: Resources,
    pub vcpus: u32,
    /// Allocatable less daemons.
    pub room: Amounts,
    /// Capacity, for limits.
    pub capacity: Amounts,
    /// What daemons will take.
    pub daemons: Amounts,
    pub daemon_ports: Vec<HostPort>,
    /// GPUs, accelerators or bare metal.
    pub exotic: bool,
}

/// One way to buy a node kind.
#[derive(Clone, Debug)]
pub(super) struct Offer<'a> {
    pub kind: usize,
    pub zone: &'a str,
    pub capacity_type: CapacityType,
    pub price: Option<u64>,
    pub available: bool,
    /// Until when it is left alone, where it is.
    pub until: Option<Timestamp>,
}

/// Price that an offering of unknown price is taken to have: dearer than any.
pub(super) const UNKNOWN_PRICE: u64 = 1_000_000_000_000;

impl Offer<'_> {
    pub(super) fn cost(&self) -> u64 {
        self.price.unwrap_or(UNKNOWN_PRICE)
    }
}

/// Everything that can be bought. Offers of a kind, kinds of a template and templates of a pool are
/// contiguous.
#[derive(Clone, Debug, Default)]
pub(super) struct Market<'a> {
    pub pools: Vec<Pool>,
    pub templates: Vec<Template>,
    pub kinds: Vec<NodeKind<'a>>,
    pub offers: Vec<Offer<'a>>,
    /// Each offer's place in the order that offers are bought in.
    pub ranks: Vec<usize>,
    /// Offers that EC2 is thought to have.
    pub available: FixedBitSet,
    /// Why a pool is not planned for.
    pub refused: Vec<(NodePoolName, String)>,
    /// Things that were skipped.
    pub problems: Vec<String>,
    /// Overlays, and which of them contradict each other.
    pub overlays: Overlays,
}

impl<'a> Market<'a> {
    pub(super) fn build(
        input: &PlanInput<'a>,
        dimensions: &Dimensions,
        daemons: &[Daemon],
        uses: &LabelUses,
        limits: &AttachLimits,
        stock: Stock<'_>,
    ) -> Self {
        let mut market = Self { overlays: Overlays::of(input.view), ..Self::default() };
        let refused = market.overlays.refused.iter();
        market.problems.extend(refused.map(|(name, why)| format!("NodeOverlay {name} {why}")));
        let mut order: Vec<(&NodePoolName, &NodePool)> =
            input.view.pools().iter().map(|(name, pool)| (name, pool.as_ref())).collect();
        order.sort_by_key(|(name, pool)| (Reverse(pool.spec.weight.unwrap_or(0)), *name));
        for (name, pool) in order {
            if let Err(reason) =
                market.add_pool(input, dimensions, daemons, uses, limits, stock, name, pool)
            {
                market.refused.push((name.clone(), reason));
            }
        }
        market.available = FixedBitSet::with_capacity(market.offers.len());
        for (index, offer) in market.offers.iter().enumerate() {
            market.available.set(index, offer.available);
        }
        let mut order: Vec<usize> = (0..market.offers.len()).collect();
        order.sort_by(|a, b| market.price_order(*a).cmp(&market.price_order(*b)));
        market.ranks = vec![usize::MAX; market.offers.len()];
        for (rank, offer) in order.into_iter().enumerate() {
            if let Some(slot) = market.ranks.get_mut(offer) {
                *slot = rank;
            }
        }
        market
    }

    #[allow(clippy::too_many_arguments, reason = "one step of a pipeline, called once")]
    fn add_pool(
        &mut self,
        input: &PlanInput<'a>,
        dimensions: &Dimensions,
        daemons: &[Daemon],
        uses: &LabelUses,
        limits: &AttachLimits,
        stock: Stock<'_>,
        name: &NodePoolName,
        pool: &NodePool,
    ) -> Result<(), String> {
        if pool.metadata.deletion_timestamp.is_some() {
            return Err("the NodePool is being deleted".to_owned());
        }
        match (pool.spec.replicas, stock) {
            (Some(_), Stock::Pods) => {
                return Err("the NodePool keeps a fixed number of nodes (spec.replicas)".to_owned());
            }
            (_, Stock::Pool(wanted)) if wanted != name => {
                return Err("another NodePool is planned for".to_owned());
            }
            _ => {}
        }
        if let Some(error) = validate_node_pool(pool).first() {
            return Err(format!("the NodePool is not valid: {error}"));
        }
        let class = pool.spec.template.spec.node_class_ref.name.clone();
        let Some(catalog) = input.catalogs.get(&class) else {
            return Err(format!("EC2NodeClass {class} is not there or not ready"));
        };
        let requirements = pool_requirements(pool);
        let determined = determined_keys(&catalog.instance_types);
        let first_offer = self.offers.len();
        let pool_index = self.pools.len();
        let (left, nodes_left) = limits_left(input, dimensions, name, pool, &mut self.problems);
        let variants = open_labels(name, pool, &requirements, &determined, uses)?;
        for labels in variants {
            let template = Template { pool: pool_index, labels, offers: 0..0 };
            let start = self.offers.len();
            self.templates.push(template);
            for instance_type in &catalog.instance_types {
                self.add_kind(
                    input,
                    dimensions,
                    daemons,
                    limits,
                    instance_type,
                    &requirements,
                    &determined,
                    &pool.spec.template.spec.taints,
                );
            }
            let end = self.offers.len();
            if let Some(template) = self.templates.last_mut() {
                template.offers = start..end;
            }
        }
        self.pools.push(Pool {
            name: name.clone(),
            weight: pool.spec.weight.unwrap_or(0),
            class,
            taints: pool.spec.template.spec.taints.clone(),
            startup_taints: pool.spec.template.spec.startup_taints.clone(),
            requirements,
            left,
            nodes_left,
            offers: first_offer..self.offers.len(),
        });
        Ok(())
    }

    #[allow(clippy::too_many_arguments, reason = "one step of a pipeline, called once")]
    fn add_kind(
        &mut self,
        input: &PlanInput<'a>,
        dimensions: &Dimensions,
        daemons: &[Daemon],
        limits: &AttachLimits,
        instance_type: &'a InstanceType,
        requirements: &[Requirement],
        determined: &BTreeSet<&str>,
        taints: &[Taint],
    ) {
        let template = self.templates.len().saturating_sub(1);
        let by_type = |requirement: &&Requirement| {
            let key = current_key(&requirement.key);
            determined.contains(key) && !is_offer_key(key)
        };
        let allowed = requirements
            .iter()
            .filter(by_type)
            .all(|r| fulfils(r, type_label(instance_type, current_key(&r.key))));
        if !allowed {
            return;
        }
        let offer_allowed = |zone: &str, capacity_type: CapacityType| {
            requirements.iter().all(|r| match current_key(&r.key) {
                labels::ZONE => fulfils(r, Some(zone)),
                labels::CAPACITY_TYPE => fulfils(r, Some(capacity_type.as_str())),
                _ => true,
            })
        };
        let kind = self.kinds.len();
        let mut added: Option<Resources> = None;
        let fixed = self.templates.get(template).map(|t| t.labels.clone()).unwrap_or_default();
        for offering in &instance_type.offerings {
            if offer_allowed(&offering.zone, offering.capacity_type) {
                let label = |key: &str| match key {
                    labels::ZONE => Some(offering.zone.as_str()),
                    labels::CAPACITY_TYPE => Some(offering.capacity_type.as_str()),
                    _ => fixed.get(key).map(String::as_str).or(type_label(instance_type, key)),
                };
                let mut price = offering.price;
                let mut here = Resources::new();
                if !self.overlays.is_empty() {
                    price = self.overlays.price(&label, price);
                    here = self.overlays.capacity(&label);
                }
                added = Some(added.map_or_else(|| here.clone(), |known| common(&known, &here)));
                let until = unavailable_until(input.unavailable, &instance_type.name, offering);
                self.offers.push(Offer {
                    kind,
                    zone: &offering.zone,
                    capacity_type: offering.capacity_type,
                    price,
                    available: offering.available && until.is_none(),
                    until,
                });
            }
        }
        if let Some(added) = added {
            let load = load_of(daemons, instance_type, Some(&fixed), taints, dimensions);
            self.kinds.push(node_kind(template, instance_type, added, dimensions, limits, load));
        }
    }

    /// The order offers are bought in: reserved capacity first, then price, then spot before
    /// on-demand, then the smaller type, then by name and zone.
    fn price_order(&self, offer: usize) -> (bool, u64, CapacityType, u32, &str, &str) {
        let Some((entry, kind)) = self.offers.get(offer).zip(self.kind_of(offer)) else {
            return (true, u64::MAX, CapacityType::OnDemand, u32::MAX, "", "");
        };
        (
            entry.capacity_type != CapacityType::Reserved,
            entry.cost(),
            entry.capacity_type,
            kind.vcpus,
            &kind.instance_type.name,
            entry.zone,
        )
    }

    /// An offer's place in that order.
    pub(super) fn rank(&self, offer: usize) -> usize {
        self.ranks.get(offer).copied().unwrap_or(usize::MAX)
    }

    /// The value of a node label if this offer is bought.
    pub(super) fn label(&self, offer: usize, key: &str) -> Option<&str> {
        let offer = self.offers.get(offer)?;
        match key {
            labels::ZONE => return Some(offer.zone),
            labels::CAPACITY_TYPE => return Some(offer.capacity_type.as_str()),
            labels::HOSTNAME => return None,
            _ => {}
        }
        let kind = self.kinds.get(offer.kind)?;
        if let Some(value) = self.templates.get(kind.template)?.labels.get(key) {
            return Some(value);
        }
        type_label(kind.instance_type, key)
    }

    /// The node kind of an offer.
    pub(super) fn kind_of(&self, offer: usize) -> Option<&NodeKind<'a>> {
        self.kinds.get(self.offers.get(offer)?.kind)
    }

    /// The pool of an offer.
    pub(super) fn pool_of(&self, offer: usize) -> Option<usize> {
        Some(self.templates.get(self.kind_of(offer)?.template)?.pool)
    }
}

fn node_kind<'a>(
    template: usize,
    instance_type: &'a InstanceType,
    added: Resources,
    dimensions: &Dimensions,
    limits: &AttachLimits,
    load: (Amounts, Vec<HostPort>),
) -> NodeKind<'a> {
    let (daemons, daemon_ports) = load;
    let with_added = |own: &Resources| {
        let mut all = own.clone();
        all.add(&added);
        dimensions.dense(&all)
    };
    let mut room = with_added(&instance_type.allocatable);
    limits.set_type_room(Some(&instance_type.name), dimensions, &mut room);
    for (room, taken) in room.iter_mut().zip(&daemons) {
        *room = room.saturating_sub(*taken);
    }
    NodeKind {
        template,
        instance_type,
        added: added.clone(),
        vcpus: u32::try_from(instance_type.capacity.get(&ResourceName::Cpu) / 1000).unwrap_or(0),
        room,
        capacity: with_added(&instance_type.capacity),
        daemons,
        daemon_ports,
        exotic: is_exotic(instance_type),
    }
}

/// GPUs, accelerators or bare metal: dear, and taken only for those who need them.
pub(super) fn is_exotic(instance_type: &InstanceType) -> bool {
    let has = |key: &str| instance_type.labels.get(key).is_some_and(|count| count != "0");
    has("karpenter.k8s.aws/instance-gpu-count")
        || has("karpenter.k8s.aws/instance-accelerator-count")
        || instance_type.name.contains(".metal")
}

/// The value of a label that follows from the type.
pub(super) fn type_label<'t>(instance_type: &'t InstanceType, key: &str) -> Option<&'t str> {
    if key == labels::INSTANCE_TYPE {
        return Some(&instance_type.name);
    }
    instance_type.labels.get(key).map(String::as_str)
}

/// Keys whose value follows from the offering, not from the type.
pub(super) fn is_offer_key(key: &str) -> bool {
    matches!(key, labels::ZONE | labels::CAPACITY_TYPE)
}

/// Keys that type or offering decide; any other is the pool's to choose.
pub(super) fn determined_keys(types: &[InstanceType]) -> BTreeSet<&str> {
    let mut keys: BTreeSet<&str> =
        types.iter().flat_map(|t| t.labels.keys().map(String::as_str)).collect();
    keys.extend([
        labels::ZONE,
        labels::CAPACITY_TYPE,
        labels::INSTANCE_TYPE,
        labels::ARCH,
        labels::OS,
        labels::HOSTNAME,
    ]);
    keys
}

fn pool_requirements(pool: &NodePool) -> Vec<Requirement> {
    let mut requirements = pool.spec.template.spec.requirements.clone();
    for requirement in &mut requirements {
        requirement.key = current_key(&requirement.key).to_owned();
    }
    requirements
}

/// Until when an offering is left alone, if it is.
pub(super) fn unavailable_until(
    unavailable: &BTreeMap<UnavailableOffering, Timestamp>,
    instance_type: &str,
    offering: &drover_common::instance_type::Offering,
) -> Option<Timestamp> {
    if unavailable.is_empty() {
        return None;
    }
    let names = [None, Some(instance_type.to_owned())];
    let zones = [None, Some(offering.zone.clone())];
    let keys = names.iter().flat_map(|name| zones.iter().map(move |zone| (name, zone)));
    keys.filter_map(|(name, zone)| {
        unavailable.get(&UnavailableOffering {
            capacity_type: offering.capacity_type,
            instance_type: name.clone(),
            zone: zone.clone(),
        })
    })
    .max()
    .copied()
}

/// What the pool's limits leave, and how many nodes.
fn limits_left(
    input: &PlanInput<'_>,
    dimensions: &Dimensions,
    name: &NodePoolName,
    pool: &NodePool,
    problems: &mut Vec<String>,
) -> (Vec<Option<i64>>, Option<i64>) {
    let none = Resources::default();
    let usage = input.pool_usage.get(name).unwrap_or(&none);
    let mut left = vec![None; dimensions.len()];
    let mut nodes_left = None;
    for (key, quantity) in &pool.spec.limits {
        let text = quantity.to_string();
        let parsed = Resources::from_quantities([(key.as_str(), text.as_str())]);
        let resource = ResourceName::from(key.as_str());
        // A limit that can't be read must not read as "unlimited".
        let limit = match parsed {
            Ok(parsed) => parsed.get(&resource),
            Err(error) => {
                problems.push(format!("NodePool {name} spec.limits.{key}: {error}"));
                0
            }
        };
        let remaining = limit.saturating_sub(usage.get(&resource));
        if key == "nodes" {
            nodes_left = Some(remaining);
        } else if let Some(slot) = dimensions
            .names()
            .iter()
            .position(|known| *known == resource)
            .and_then(|index| left.get_mut(index))
        {
            *slot = Some(remaining);
        }
    }
    (left, nodes_left)
}

/// Requirements with one possible value, as labels.
pub(super) fn single_values(requirements: &[Requirement]) -> BTreeMap<String, String> {
    requirements
        .iter()
        .filter(|r| r.operator == Operator::In && r.values.len() == 1)
        .filter_map(|r| Some((r.key.clone(), r.values.first()?.clone())))
        .collect()
}
