//! A pod shape's rules on nodes, with preferences as rules that can be dropped one by one.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use drover_common::cluster::{
    LabelSelector, NodeSelectorTerm, PodAffinity, PodAffinityTerm, TopologySpreadConstraint,
};
use drover_common::id::NodeName;
use drover_common::requirement::{Operator, Requirement};
use drover_common::taint::{Taint, Toleration};
use fixedbitset::FixedBitSet;

use super::PreferencePolicy;
use super::market::{Market, is_offer_key};
use super::matching::{current_key, fulfils, repelling};
use super::open_label::LabelUses;
use crate::view::PodShape;

/// What fields of nodes are asked for by; no label can be called so.
const FIELD: &str = "field ";
/// What a node's name is asked for by.
pub(super) const NODE_NAME: &str = "field metadata.name";

/// Alternatives of which one must hold, each a conjunction.
pub(super) type Alternatives = Vec<Vec<Requirement>>;

/// What a node must be like.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeRules {
    /// All must hold.
    pub all: Vec<Requirement>,
    /// One of each must hold: required node affinity, and every volume.
    pub any: Vec<Alternatives>,
    /// Tolerations.
    pub tolerations: Vec<Toleration>,
    /// Whether `PreferNoSchedule` taints count.
    pub strict_taints: bool,
}

impl NodeRules {
    /// Whether labels fulfil the rules (taints aside).
    pub(super) fn admit<'l>(&self, label: &dyn Fn(&str) -> Option<&'l str>) -> bool {
        let holds = |requirement: &Requirement| fulfils(requirement, label(&requirement.key));
        self.all.iter().all(holds)
            && self.any.iter().all(|terms| terms.iter().any(|term| term.iter().all(holds)))
    }

    /// The label keys that they speak of.
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        let requirements = self.all.iter().chain(self.any.iter().flatten().flatten());
        requirements.map(|requirement| requirement.key.as_str())
    }

    /// The taint that keeps the pods away.
    pub(super) fn repelled_by<'t>(&self, taints: &'t [Taint]) -> Option<&'t Taint> {
        repelling(taints, &self.tolerations, self.strict_taints)
    }

    /// Offers whose labels and taints fulfil the rules.
    pub(super) fn offers(&self, market: &Market<'_>, index: &mut KeyIndex) -> FixedBitSet {
        let mut mask = FixedBitSet::with_capacity(market.offers.len());
        for pool in &market.pools {
            if self.repelled_by(&pool.taints).is_none() {
                mask.insert_range(pool.offers.clone());
            }
        }
        for requirement in &self.all {
            mask.intersect_with(index.mask(market, requirement));
        }
        for alternatives in &self.any {
            let mut union = FixedBitSet::with_capacity(market.offers.len());
            for term in alternatives {
                let mut part = mask.clone();
                for requirement in term {
                    part.intersect_with(index.mask(market, requirement));
                }
                union.union_with(&part);
            }
            mask = union;
        }
        mask
    }
}

/// Offers by label value, made once a key is asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyIndex {
    values: BTreeMap<String, BTreeMap<String, FixedBitSet>>,
    masks: BTreeMap<Requirement, FixedBitSet>,
}

impl KeyIndex {
    /// The offers with each value of a key.
    pub(super) fn values(
        &mut self,
        market: &Market<'_>,
        key: &str,
    ) -> &BTreeMap<String, FixedBitSet> {
        if !self.values.contains_key(key) {
            let mut values: BTreeMap<String, FixedBitSet> = BTreeMap::new();
            let mut note = |offers: std::ops::Range<usize>, value: Option<&str>| {
                let Some(value) = value else { return };
                if let Some(bits) = values.get_mut(value) {
                    bits.insert_range(offers);
                } else {
                    let mut bits = FixedBitSet::with_capacity(market.offers.len());
                    bits.insert_range(offers);
                    values.insert(value.to_owned(), bits);
                }
            };
            for kind in &market.kinds {
                if is_offer_key(key) {
                    for offer in kind.offers.clone() {
                        note(offer..offer + 1, market.label(offer, key));
                    }
                } else {
                    note(kind.offers.clone(), market.label(kind.offers.start, key));
                }
            }
            self.values.insert(key.to_owned(), values);
        }
        self.values.entry(key.to_owned()).or_default()
    }

    /// The offers with each value of a key that was asked for before.
    pub(super) fn known(&self, key: &str) -> Option<&BTreeMap<String, FixedBitSet>> {
        self.values.get(key)
    }

    /// The offers that fulfil a requirement.
    pub(super) fn mask(&mut self, market: &Market<'_>, requirement: &Requirement) -> &FixedBitSet {
        if !self.masks.contains_key(requirement) {
            let mut mask = FixedBitSet::with_capacity(market.offers.len());
            let mut labelled = FixedBitSet::with_capacity(market.offers.len());
            for (value, bits) in self.values(market, &requirement.key) {
                labelled.union_with(bits);
                if fulfils(requirement, Some(value)) {
                    mask.union_with(bits);
                }
            }
            if fulfils(requirement, None) {
                labelled.toggle_range(..);
                mask.union_with(&labelled);
            }
            self.masks.insert(requirement.clone(), mask);
        }
        self.masks.entry(requirement.clone()).or_default()
    }
}

/// Rules of one step of relaxation.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Variant {
    pub rules: NodeRules,
    pub spread: Vec<TopologySpreadConstraint>,
    /// Required terms; they are about pods that match all of them.
    pub affinity: Vec<PodAffinityTerm>,
    pub preferred_affinity: Vec<PodAffinityTerm>,
    pub anti_affinity: Vec<PodAffinityTerm>,
    pub preferred_anti_affinity: Vec<PodAffinityTerm>,
    /// The nodes that spread counts, as far as it honours the pod's rules: selector and required
    /// affinity, but neither volumes nor preferences.
    pub counted_nodes: NodeRules,
}

const CLAIMS_DEVICES: &str =
    "asks for devices by spec.resourceClaims, and no plan knows which nodes would have them";

/// The steps of relaxation of a shape, strictest first. The order is Karpenter's: preferred pod
/// affinity, preferred pod anti-affinity, preferred node affinity (each heaviest first, of equal weight the
/// one listed first, and of the last only the heaviest is a rule at a time), soft spread in the order
/// listed, taints that only prefer. Of each sort of preferences `most` are looked at, the heaviest.
///
/// # Errors
/// A reason, if the shape asks for something that no planned node can promise.
pub(super) fn variants(
    shape: &PodShape,
    volumes: &[Alternatives],
    policy: PreferencePolicy,
    soft_taints: bool,
    most: usize,
) -> Result<Vec<Variant>, String> {
    if shape.claims_devices {
        return Err(CLAIMS_DEVICES.to_owned());
    }
    let affinity = &shape.affinity;
    let mut strict = required(shape, volumes)?;
    let weigh = |terms: &[drover_common::cluster::WeightedPodAffinityTerm]| {
        let mut terms = terms.to_vec();
        terms.sort_by_key(|term| Reverse(term.weight));
        terms.into_iter().rev().map(|term| term.pod_affinity_term).collect::<Vec<_>>()
    };
    // Lightest first, so that `pop` drops the heaviest.
    let mut near = weigh(affinity.pod_affinity.as_ref().map_or(&[], |a| &a.preferred));
    let mut away = weigh(affinity.pod_anti_affinity.as_ref().map_or(&[], |a| &a.preferred));
    let mut nodes =
        affinity.node_affinity.as_ref().map(|a| a.preferred.clone()).unwrap_or_default();
    nodes.sort_by_key(|term| Reverse(term.weight));
    nodes.reverse();
    let mut soft: Vec<_> = shape.spread.iter().rev().filter(|s| is_soft(s)).cloned().collect();
    if policy == PreferencePolicy::Ignore {
        return Ok(vec![strict]);
    }
    near.drain(..near.len().saturating_sub(most));
    away.drain(..away.len().saturating_sub(most));
    nodes.drain(..nodes.len().saturating_sub(most));
    soft.truncate(most);
    strict.rules.strict_taints = soft_taints;
    let mut steps = Vec::new();
    loop {
        let mut step = strict.clone();
        step.preferred_affinity.extend(near.iter().cloned());
        step.preferred_anti_affinity.extend(away.iter().cloned());
        step.spread.extend(soft.iter().cloned());
        if let Some(preferred) = nodes.last() {
            step.rules.all.extend(all_of(&preferred.preference));
        }
        steps.push(step);
        let dropped = near.pop().is_some()
            || away.pop().is_some()
            || nodes.pop().is_some()
            || soft.pop().is_some()
            || std::mem::take(&mut strict.rules.strict_taints);
        if !dropped {
            return Ok(steps);
        }
    }
}

/// A label selector of a pod with an operator that Kubernetes does not have, in words.
fn unknown_operator(shape: &PodShape) -> Option<String> {
    let near = shape.affinity.pod_affinity.as_ref();
    let away = shape.affinity.pod_anti_affinity.as_ref();
    let spread = shape.spread.iter().filter_map(|spread| spread.label_selector.as_ref());
    let found = [
        ("affinity.podAffinity", near.and_then(unknown_in_affinity)),
        ("affinity.podAntiAffinity", away.and_then(unknown_in_affinity)),
        ("topologySpreadConstraints", spread.into_iter().find_map(unknown_in)),
    ];
    let (field, operator) = found.into_iter().find_map(|(field, name)| Some((field, name?)))?;
    Some(format!("spec.{field}: a label selector has no operator {operator:?}"))
}

fn unknown_in_affinity(affinity: &PodAffinity) -> Option<&str> {
    let preferred = affinity.preferred.iter().map(|term| &term.pod_affinity_term);
    let terms = affinity.required.iter().chain(preferred);
    terms
        .flat_map(|term| [&term.label_selector, &term.namespace_selector])
        .flatten()
        .find_map(unknown_in)
}

fn unknown_in(selector: &LabelSelector) -> Option<&str> {
    let operators =
        selector.match_expressions.iter().map(|expression| expression.operator.as_str());
    operators.into_iter().find(|name| !["In", "NotIn", "Exists", "DoesNotExist"].contains(name))
}

fn required(shape: &PodShape, volumes: &[Alternatives]) -> Result<Variant, String> {
    if let Some(reason) = unknown_operator(shape) {
        return Err(reason);
    }
    let mut rules = NodeRules { tolerations: shape.tolerations.clone(), ..NodeRules::default() };
    for (key, value) in &shape.node_selector {
        rules.all.push(Requirement {
            key: current_key(key).to_owned(),
            operator: Operator::In,
            values: vec![value.clone()],
            min_values: None,
        });
    }
    let selector = shape.affinity.node_affinity.as_ref().and_then(|a| a.required.as_ref());
    if let Some(selector) = selector {
        rules.any.push(terms(&selector.node_selector_terms));
    }
    let counted_nodes = rules.clone();
    rules.any.extend(volumes.iter().cloned());
    let spread = shape.spread.iter().filter(|s| !is_soft(s)).cloned();
    let affinity = &shape.affinity;
    Ok(Variant {
        rules,
        spread: spread.collect(),
        counted_nodes,
        preferred_affinity: Vec::new(),
        preferred_anti_affinity: Vec::new(),
        affinity: affinity.pod_affinity.as_ref().map(|a| a.required.clone()).unwrap_or_default(),
        anti_affinity: affinity
            .pod_anti_affinity
            .as_ref()
            .map(|a| a.required.clone())
            .unwrap_or_default(),
    })
}

/// Whether a spread constraint is only a preference.
pub(super) fn is_soft(spread: &TopologySpreadConstraint) -> bool {
    spread.when_unsatisfiable == "ScheduleAnyway"
}

/// Terms of a node selector. An empty term matches nothing, and so does one with fields that can't be read: those
/// that are no name, or compare it with other than one (Kubernetes' rules).
fn terms(terms: &[NodeSelectorTerm]) -> Alternatives {
    let is_empty =
        |term: &NodeSelectorTerm| term.match_expressions.is_empty() && term.match_fields.is_empty();
    let can_be_read = |field: &Requirement| {
        field.key == "metadata.name"
            && matches!(field.operator, Operator::In | Operator::NotIn)
            && field.values.len() == 1
    };
    terms
        .iter()
        .filter(|term| !is_empty(term) && term.match_fields.iter().all(can_be_read))
        .map(all_of)
        .collect()
}

/// What a term asks of labels and of fields.
fn all_of(term: &NodeSelectorTerm) -> Vec<Requirement> {
    let mut all = normalized(&term.match_expressions);
    let fields = term.match_fields.iter();
    all.extend(fields.map(|one| Requirement { key: format!("{FIELD}{}", one.key), ..one.clone() }));
    all
}

/// Whether alternatives are all about nodes that have names already.
pub(super) fn name_nodes(alternatives: &[Vec<Requirement>]) -> bool {
    let names = |one: &Requirement| one.key.starts_with(FIELD) && one.operator == Operator::In;
    !alternatives.is_empty() && alternatives.iter().all(|term| term.iter().any(names))
}

/// Whether a node's name is all that they allow.
pub(super) fn name_only(alternatives: &[Vec<Requirement>], node: &NodeName) -> bool {
    let others = |one: &Requirement| one.values.iter().any(|name| name != node.as_str());
    name_nodes(alternatives)
        && !alternatives.iter().flatten().any(|one| one.key == NODE_NAME && others(one))
}

/// What is said of pods for which only nodes with a name will do.
pub(super) const NAMES_A_NODE: &str =
    "node affinity with matchFields names one node, and new nodes have no name yet";

/// Requirements under today's label keys.
pub(super) fn normalized(requirements: &[Requirement]) -> Vec<Requirement> {
    requirements
        .iter()
        .map(|r| Requirement { key: current_key(&r.key).to_owned(), ..r.clone() })
        .collect()
}

/// Notes the label keys and values that a variant selects nodes by.
pub(super) fn note_uses(variant: &Variant, uses: &mut LabelUses) {
    let rules = &variant.rules;
    for requirement in rules.all.iter().chain(rules.any.iter().flatten().flatten()) {
        uses.entry(requirement.key.clone()).or_default().note(requirement);
    }
    let pods = variant.affinity.iter().chain(&variant.preferred_affinity);
    let away = variant.anti_affinity.iter().chain(&variant.preferred_anti_affinity);
    let pods = pods.chain(away).map(|term| &term.topology_key);
    let keys = variant.spread.iter().map(|s| &s.topology_key).chain(pods);
    for key in keys {
        uses.entry(current_key(key).to_owned()).or_default().any = true;
    }
}
