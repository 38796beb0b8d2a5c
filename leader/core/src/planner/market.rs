//! What can be bought: NodePools with their open labels fixed, the node kinds they allow, and the
//! offerings of those.

mod fruitless;
mod kind;
mod label;
mod left;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Range;

use drover_common::crd::{NodePool, validate_node_pool};
use drover_common::id::NodePoolName;
use drover_common::instance_type::{CapacityType, InstanceType};
use drover_common::labels;
use drover_common::requirement::Requirement;
use drover_common::resources::Resources;
use drover_common::taint::Taint;
use fixedbitset::FixedBitSet;
use jiff::Timestamp;

use super::PlanInput;
use super::attach::AttachLimits;
use super::daemon::Daemon;
use super::dimension::{Amounts, Dimensions};
use super::open_label::{LabelUses, open_labels};
use super::overlay::Overlays;
use super::reserved::{Held, Slots};
use crate::view::HostPort;

use fruitless::fruitless;
use label::reservation_label;
pub(super) use label::{DeterminedKeys, is_offer_key, offering_label, type_label};
use left::{limits_left, pool_requirements};
pub(super) use left::{single_values, unavailable_until};

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
    /// Whether every combination of the labels that it leaves open has a template.
    pub looks_at_all: bool,
    /// What may still be added under `limits`, by dimension; `None` is unlimited.
    pub left: Vec<Option<i64>>,
    /// Nodes that may still be added.
    pub nodes_left: Option<i64>,
    /// Whether that is because more could not be launched: its limits leave too few types for its `minValues`.
    pub is_cut: bool,
    /// Why it can make no node at all.
    pub fruitless: Option<String>,
    pub offers: Range<usize>,
    /// The same as a set.
    pub bits: FixedBitSet,
}

impl Pool {
    /// Whether any limit is set.
    pub(super) fn is_limited(&self) -> bool {
        self.nodes_left.is_some() || self.left.iter().any(Option::is_some)
    }

    /// Whether its launches need `minValues` to choose from.
    pub(super) fn wants_values(&self) -> bool {
        self.requirements.iter().any(|requirement| requirement.min_values.is_some())
    }
}

/// An instance type under a template: what a node of it has room for. Where overlays add resources, or daemons run, in
/// some zones or under some capacity types alone, a type is several kinds.
#[derive(Clone, Debug)]
pub(super) struct NodeKind<'a> {
    pub template: usize,
    pub offers: Range<usize>,
    /// The offers of the type, whatever their kind.
    pub of_type: Range<usize>,
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
    pub zone_id: Option<&'a str>,
    pub capacity_type: CapacityType,
    pub price: Option<u64>,
    pub available: bool,
    /// Until when it is left alone, where it is.
    pub until: Option<Timestamp>,
    /// The reservation that it is bought from, where that is counted.
    pub reservation: Option<Held<'a>>,
}

/// Offers that templates for open labels may make of all pools together: what a plan costs grows with them. One pool
/// makes half of what is left, and one template of each is always there.
const MOST_OPEN_OFFERS: usize = 800_000;

/// Price that an offering of unknown price is taken to have: dearer than any.
pub(super) const UNKNOWN_PRICE: u64 = 1_000_000_000_000;

impl Offer<'_> {
    pub(super) fn cost(&self) -> u64 {
        self.price.unwrap_or(UNKNOWN_PRICE)
    }
}

/// Everything that can be bought. Offers of a kind, kinds of a type, types of a template and templates of a
/// pool are contiguous.
#[derive(Clone, Debug, Default)]
pub(super) struct Market<'a> {
    pub pools: Vec<Pool>,
    pub templates: Vec<Template>,
    pub kinds: Vec<NodeKind<'a>>,
    pub offers: Vec<Offer<'a>>,
    /// Each offer's place in the order that offers are bought in.
    pub ranks: Vec<usize>,
    /// All offers in that order.
    pub by_rank: Vec<usize>,
    /// Offers that EC2 is thought to have.
    pub available: FixedBitSet,
    /// Offers that are nothing special: no GPU, no accelerator, no bare metal.
    pub plain: FixedBitSet,
    /// Offers not larger than nodes should be.
    pub capped: FixedBitSet,
    /// Offers of known price.
    pub priced: FixedBitSet,
    /// How many more nodes reservations have room for.
    pub slots: Slots<'a>,
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
        let conflicts = market.overlays.conflicts.iter();
        market.problems.extend(conflicts.map(|(name, first)| {
            format!("NodeOverlay {name} says the same of some types as {first}, of the same weight, which counts")
        }));
        market.mark(input.settings.max_node_vcpus);
        market.rank_offers();
        market
    }

    /// Fills the sets that rules are made of.
    fn mark(&mut self, max_vcpus: u32) {
        let count = self.offers.len();
        let set = |wanted: &dyn Fn(&Offer<'_>, &NodeKind<'_>) -> bool| {
            let mut bits = FixedBitSet::with_capacity(count);
            for (index, offer) in self.offers.iter().enumerate() {
                let kind = self.kinds.get(offer.kind);
                bits.set(index, kind.is_some_and(|kind| wanted(offer, kind)));
            }
            bits
        };
        let available = set(&|offer, _| offer.available);
        let plain = set(&|_, kind| !kind.exotic);
        // A large node that is reserved is paid for, used or not.
        let capped = set(&|offer, kind| kind.vcpus <= max_vcpus || offer.reservation.is_some());
        let priced = set(&|offer, _| offer.price.is_some());
        (self.available, self.plain, self.capped, self.priced) = (available, plain, capped, priced);
        for pool in &mut self.pools {
            pool.bits = FixedBitSet::with_capacity(count);
            pool.bits.insert_range(pool.offers.clone());
        }
    }

    fn rank_offers(&mut self) {
        let mut order: Vec<_> =
            (0..self.offers.len()).map(|offer| (self.price_order(offer), offer)).collect();
        order.sort_unstable();
        let by_rank: Vec<usize> = order.into_iter().map(|(_, offer)| offer).collect();
        let mut ranks = vec![usize::MAX; by_rank.len()];
        for (rank, offer) in by_rank.iter().enumerate() {
            if let Some(slot) = ranks.get_mut(*offer) {
                *slot = rank;
            }
        }
        (self.ranks, self.by_rank) = (ranks, by_rank);
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
        // A node more would keep it from going.
        let of_view = input.view.classes().get(&class);
        if of_view.is_some_and(|class| class.metadata.deletion_timestamp.is_some()) {
            return Err(format!("EC2NodeClass {class} is being deleted"));
        }
        let Some(catalog) = input.catalogs.get(&class) else {
            return Err(format!("EC2NodeClass {class} is not there or not ready"));
        };
        let determined = DeterminedKeys::of(catalog);
        let requirements = pool_requirements(pool, determined);
        let first_offer = self.offers.len();
        let pool_index = self.pools.len();
        let (left, nodes_left) = limits_left(input, dimensions, name, pool, &mut self.problems);
        let open = open_labels(name, pool, &requirements, determined, uses)?;
        let most = first_offer + MOST_OPEN_OFFERS.saturating_sub(first_offer) / 2;
        let mut looked_at = 0;
        for labels in open.combinations {
            let per_template = (self.offers.len() - first_offer) / looked_at.max(1);
            if looked_at > 0 && self.offers.len() + per_template > most {
                break;
            }
            looked_at += 1;
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
                    determined,
                    &pool.spec.template.spec.taints,
                );
            }
            let end = self.offers.len();
            if let Some(template) = self.templates.last_mut() {
                template.offers = start..end;
            }
        }
        if let Some(key) = open.key.filter(|_| looked_at < open.all) {
            self.problems.push(format!(
                "NodePool {name}: of {} combinations of its labels up to {key} the first {looked_at} are looked at",
                open.all
            ));
        }
        let fruitless = (self.offers.len() == first_offer)
            .then(|| fruitless(&class, &catalog.instance_types, &requirements, determined));
        self.pools.push(Pool {
            looks_at_all: looked_at == open.all,
            name: name.clone(),
            weight: pool.spec.weight.unwrap_or(0),
            class,
            taints: pool.spec.template.spec.taints.clone(),
            startup_taints: pool.spec.template.spec.startup_taints.clone(),
            requirements,
            left,
            nodes_left,
            is_cut: false,
            fruitless,
            offers: first_offer..self.offers.len(),
            bits: FixedBitSet::new(),
        });
        Ok(())
    }

    /// The order offers are bought in: reserved capacity first, then price, then spot before
    /// on-demand, then the smaller type, then by name and zone.
    fn price_order(&self, offer: usize) -> (bool, u64, CapacityType, u32, &str, &str) {
        let Some((entry, kind)) = self.offers.get(offer).zip(self.kind_of(offer)) else {
            return (true, u64::MAX, CapacityType::OnDemand, u32::MAX, "", "");
        };
        (
            entry.capacity_type != CapacityType::Reserved,
            entry.reservation.map_or(entry.cost(), |held| held.worth),
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
            labels::ZONE_ID => return offer.zone_id,
            labels::CAPACITY_TYPE => return Some(offer.capacity_type.as_str()),
            labels::HOSTNAME => return None,
            _ if is_offer_key(key) => {
                return reservation_label(offer.reservation.map(|held| held.reservation), key);
            }
            _ => {}
        }
        let kind = self.kinds.get(offer.kind)?;
        if let Some(value) = self.templates.get(kind.template)?.labels.get(key) {
            return Some(value);
        }
        type_label(kind.instance_type, key)
    }

    /// How an offer is billed, and under which template: nodes of one sort differ by type and zone alone.
    pub(super) fn sort_of(&self, offer: usize) -> Option<(CapacityType, usize)> {
        Some((self.offers.get(offer)?.capacity_type, self.kind_of(offer)?.template))
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

/// GPUs, accelerators or bare metal: dear, and taken only for those who need them.
pub(super) fn is_exotic(instance_type: &InstanceType) -> bool {
    let has = |key: &str| instance_type.labels.get(key).is_some_and(|count| count != "0");
    has("karpenter.k8s.aws/instance-gpu-count")
        || has("karpenter.k8s.aws/instance-accelerator-count")
        || instance_type.name.contains(".metal")
}
