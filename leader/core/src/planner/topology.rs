//! Spread, affinity and anti-affinity as counts of pods by domain.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use drover_common::cluster::{
    LabelSelector, LabelSelectorRequirement, PodAffinityTerm, TopologySpreadConstraint,
};
use drover_common::labels;
use drover_common::taint::Taint;
use fixedbitset::FixedBitSet;

use super::market::Market;
use super::matching::{current_key, selects};
use super::rules::{KeyIndex, NodeRules, Variant, is_soft};
use crate::view::{PodShape, View};

/// What a term demands of the domain a pod goes to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum TermKind {
    /// At most so many more pods than the emptiest domain has.
    Spread {
        max_skew: i64,
        min_domains: Option<i64>,
        nodes: NodeRules,
        honour: Honour,
        /// Keys of the pod's other constraints: a node without one of them is not counted.
        keys: Vec<String>,
    },
    /// A pod that matches must be there already.
    Affinity,
    /// No pod that matches may be there, and pods that match may not come to the one that has the term.
    AntiAffinity,
    /// The same as a preference, which binds nobody but the pod that has it.
    PreferredAntiAffinity,
}

/// Which nodes a spread constraint counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Honour {
    pub affinity: bool,
    pub taints: bool,
}

/// Which pods a term is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PodSelector {
    /// `None`: all.
    pub namespaces: Option<BTreeSet<String>>,
    /// `None`: no pod.
    pub labels: Option<LabelSelector>,
}

impl PodSelector {
    pub(super) fn matches(&self, shape: &PodShape) -> bool {
        self.namespaces.as_ref().is_none_or(|names| names.contains(&shape.namespace))
            && self.labels.as_ref().is_some_and(|selector| selects(selector, &shape.labels))
    }
}

/// A term of some pod, interned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Term {
    pub kind: TermKind,
    pub key: String,
    /// A pod must match all of them. There are several where a pod has several required affinity
    /// terms: Kubernetes counts only pods that match every one.
    pub selectors: Vec<PodSelector>,
}

impl Term {
    /// A label that all pods it is about have.
    fn label(&self) -> Option<(&String, &String)> {
        let labels = self.selectors.iter().filter_map(|selector| selector.labels.as_ref());
        labels.flat_map(|selector| &selector.match_labels).next()
    }

    /// Whether it is about pods of this shape.
    pub(super) fn matches(&self, shape: &PodShape) -> bool {
        self.selectors.iter().all(|selector| selector.matches(shape))
    }
}

/// A term with its counts.
#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub term: Term,
    /// Pods that match, by domain.
    pub matching: BTreeMap<String, i64>,
    /// Pods that have the term, by domain; for anti-affinity, which works both ways.
    pub owning: BTreeMap<String, i64>,
    /// Domains that a spread takes its minimum over.
    pub universe: BTreeSet<String>,
    /// Those of nodes that are there or on their way.
    pub there: BTreeSet<String>,
}

/// All terms that a plan must watch.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    pub terms: Vec<Tracked>,
    index: BTreeMap<Term, usize>,
    /// Terms that ask for some label, by that label; those of one label are looked at only for pods
    /// that have it.
    by_label: BTreeMap<String, BTreeMap<String, Vec<usize>>>,
    /// Terms that ask for no label in particular.
    broad: Vec<usize>,
}

/// The terms that a group of pods takes part in.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Part {
    /// Terms of its own.
    pub own: Vec<usize>,
    /// Terms whose selector matches it.
    pub matched: Vec<usize>,
}

impl Part {
    /// Whether placing such a pod depends on or changes any count.
    pub(super) fn is_free(&self) -> bool {
        self.own.is_empty() && self.matched.is_empty()
    }
}

impl Topology {
    pub(super) fn intern(&mut self, term: Term) -> usize {
        if let Some(index) = self.index.get(&term) {
            return *index;
        }
        let index = self.terms.len();
        self.index.insert(term.clone(), index);
        match term.label() {
            Some((key, value)) => {
                let values = self.by_label.entry(key.clone()).or_default();
                values.entry(value.clone()).or_default().push(index);
            }
            None => self.broad.push(index),
        }
        self.terms.push(Tracked {
            term,
            matching: BTreeMap::new(),
            owning: BTreeMap::new(),
            universe: BTreeSet::new(),
            there: BTreeSet::new(),
        });
        index
    }

    /// The number of a term, if it is watched.
    pub(super) fn position(&self, term: &Term) -> Option<usize> {
        self.index.get(term).copied()
    }

    /// Terms whose selector matches the shape.
    pub(super) fn matched_by(&self, shape: &PodShape) -> Vec<usize> {
        let labels = shape.labels.iter();
        let by_label = labels.filter_map(|(key, value)| self.by_label.get(key)?.get(value));
        let likely = by_label.flatten().chain(&self.broad).copied();
        let matches = |index: &usize| self.terms.get(*index).is_some_and(|t| t.term.matches(shape));
        let mut matched: Vec<usize> = likely.filter(matches).collect();
        matched.sort_unstable();
        matched
    }

    /// Counts pods into the domains of the host they go to. `domain` is the host's domain of a
    /// term, if its pods count for it.
    pub(super) fn place<'d>(
        &mut self,
        part: &Part,
        domain: &dyn Fn(&Tracked) -> Option<Cow<'d, str>>,
        count: i64,
    ) {
        for index in &part.matched {
            if let Some(tracked) = self.terms.get_mut(*index)
                && let Some(value) = domain(tracked)
            {
                add(&mut tracked.matching, value, count);
            }
        }
        for index in &part.own {
            if let Some(tracked) = self.terms.get_mut(*index)
                && let Some(value) = domain(tracked)
            {
                add(&mut tracked.owning, value, count);
            }
        }
    }

    /// Whether a term asks for company.
    pub(super) fn is_affinity(&self, term: usize) -> bool {
        self.terms.get(term).is_some_and(|tracked| tracked.term.kind == TermKind::Affinity)
    }

    /// Keys other than the host name whose value decides for such a pod.
    pub(super) fn keys(&self, part: &Part) -> Vec<String> {
        let indices: BTreeSet<usize> = part.own.iter().chain(&part.matched).copied().collect();
        let keys: BTreeSet<&String> = indices
            .iter()
            .filter_map(|index| self.terms.get(*index))
            .map(|tracked| &tracked.term.key)
            .filter(|key| key.as_str() != labels::HOSTNAME)
            .collect();
        keys.into_iter().cloned().collect()
    }

    /// Whether one more such pod may go to this domain of this key.
    pub(super) fn allows(&self, part: &Part, key: &str, domain: Option<&str>) -> bool {
        let own = part.own.iter().filter_map(|index| Some((*index, self.terms.get(*index)?)));
        for (index, tracked) in own.filter(|(_, tracked)| tracked.term.key == key) {
            let itself = part.matched.contains(&index);
            if !tracked.allows_owner(domain, itself, || self.nobody_to_join(part, tracked)) {
                return false;
            }
        }
        let matched = part.matched.iter().filter_map(|index| self.terms.get(*index));
        matched.filter(|tracked| tracked.term.key == key).all(|tracked| {
            tracked.term.kind != TermKind::AntiAffinity
                || domain.is_none_or(|domain| tracked.owning.get(domain).is_none_or(|n| *n == 0))
        })
    }

    /// Whether no pod is there that the required affinity terms a term belongs to are about.
    fn nobody_to_join(&self, part: &Part, of: &Tracked) -> bool {
        let own = part.own.iter().filter_map(|index| self.terms.get(*index));
        own.filter(|t| t.term.kind == of.term.kind && t.term.selectors == of.term.selectors)
            .all(|tracked| tracked.matching.values().all(|count| *count == 0))
    }

    /// How full a domain is, for choosing among those allowed: pods counted by the group's own
    /// spread terms; a domain that affinity already favours comes first.
    pub(super) fn weight(&self, part: &Part, key: &str, domain: &str) -> i64 {
        part.own
            .iter()
            .filter_map(|index| self.terms.get(*index))
            .filter(|tracked| tracked.term.key == key)
            .map(|tracked| {
                let count = tracked.matching.get(domain).copied().unwrap_or(0);
                if tracked.term.kind == TermKind::Affinity { -count.min(1) } else { count }
            })
            .sum()
    }
}

/// Most domains are known: their names are not copied.
fn add(counts: &mut BTreeMap<String, i64>, domain: Cow<'_, str>, count: i64) {
    match counts.get_mut(domain.as_ref()) {
        Some(known) => *known += count,
        None => drop(counts.insert(domain.into_owned(), count)),
    }
}

impl Tracked {
    fn allows_owner(
        &self,
        domain: Option<&str>,
        matches_itself: bool,
        nobody_to_join: impl Fn() -> bool,
    ) -> bool {
        let count = |domain: &str| self.matching.get(domain).copied().unwrap_or(0);
        match &self.term.kind {
            TermKind::Spread { max_skew, min_domains, .. } => {
                let Some(domain) = domain else { return false };
                let own = i64::from(matches_itself);
                count(domain) + own - self.least(*min_domains) <= *max_skew
            }
            TermKind::Affinity => {
                let Some(domain) = domain else { return false };
                count(domain) > 0 || (matches_itself && nobody_to_join())
            }
            TermKind::AntiAffinity | TermKind::PreferredAntiAffinity => {
                domain.is_none_or(|domain| count(domain) == 0)
            }
        }
    }

    /// Whether the pods that run are as a term would have them whose pods match it (`itself`). Of others it
    /// is not known where they are.
    pub(super) fn is_kept_now(&self, itself: bool) -> bool {
        let most = self.matching.values().copied().max().unwrap_or(0);
        match &self.term.kind {
            TermKind::Spread { max_skew, min_domains, .. } => {
                most.saturating_sub(self.least(*min_domains)) <= *max_skew
            }
            TermKind::Affinity => most > 0,
            TermKind::AntiAffinity | TermKind::PreferredAntiAffinity => itself && most <= 1,
        }
    }

    /// The emptiest domain's count. A new host can always be made, so there it is zero.
    pub(super) fn least(&self, min_domains: Option<i64>) -> i64 {
        let domains = i64::try_from(self.universe.len()).unwrap_or(i64::MAX);
        if self.term.key == labels::HOSTNAME || min_domains.is_some_and(|least| domains < least) {
            return 0;
        }
        let count = |domain: &String| self.matching.get(domain).copied().unwrap_or(0);
        self.universe.iter().map(count).min().unwrap_or(0)
    }

    /// Offers of nodes whose pods the term counts.
    pub(super) fn counted_offers(&self, market: &Market<'_>, index: &mut KeyIndex) -> FixedBitSet {
        let mut offers = market.available.clone();
        let TermKind::Spread { nodes, honour, keys, .. } = &self.term.kind else { return offers };
        for pool in market.pools.iter().filter(|_| honour.taints) {
            if nodes.repelled_by(&pool.taints).is_some() {
                offers.remove_range(pool.offers.clone());
            }
        }
        if honour.affinity {
            offers.intersect_with(&nodes.offers(market, index));
        }
        for key in keys {
            let mut labelled = FixedBitSet::with_capacity(market.offers.len());
            for bits in index.values(market, key).values() {
                labelled.union_with(bits);
            }
            offers.intersect_with(&labelled);
        }
        offers
    }

    /// Whether a node has the keys without which a spread does not count it; `has` says so of one. Source:
    /// kube-scheduler's `nodeLabelsMatchSpreadConstraints`.
    pub(super) fn has_keys(&self, has: &dyn Fn(&str) -> bool) -> bool {
        match &self.term.kind {
            TermKind::Spread { keys, .. } => keys.iter().all(|key| has(key)),
            _ => true,
        }
    }

    /// Whether a node that has the keys is one whose pods the term counts.
    pub(super) fn counts_node<'l>(
        &self,
        label: &dyn Fn(&str) -> Option<&'l str>,
        taints: &[Taint],
    ) -> bool {
        match &self.term.kind {
            TermKind::Spread { nodes, honour, .. } => {
                (!honour.affinity || nodes.admit(label))
                    && (!honour.taints || nodes.repelled_by(taints).is_none())
            }
            TermKind::Affinity | TermKind::AntiAffinity | TermKind::PreferredAntiAffinity => true,
        }
    }
}

/// The terms of a variant of a shape.
pub(super) fn terms_of(view: &View, shape: &PodShape, variant: &Variant) -> Vec<Term> {
    let spread = variant.spread.iter().map(|constraint| spread_term(shape, variant, constraint));
    let away = variant.anti_affinity.iter().map(|term| anti_affinity_term(view, shape, term));
    let rather_away = variant.preferred_anti_affinity.iter().map(|term| Term {
        kind: TermKind::PreferredAntiAffinity,
        ..anti_affinity_term(view, shape, term)
    });
    let near = affinity_terms(view, shape, &variant.affinity, true);
    let preferred = affinity_terms(view, shape, &variant.preferred_affinity, false);
    spread.chain(near).chain(preferred).chain(away).chain(rather_away).collect()
}

fn spread_term(shape: &PodShape, variant: &Variant, spread: &TopologySpreadConstraint) -> Term {
    let honour = Honour {
        affinity: spread.node_affinity_policy.as_deref() != Some("Ignore"),
        taints: spread.node_taints_policy.as_deref() == Some("Honor"),
    };
    let selector = spread
        .label_selector
        .as_ref()
        .map(|selector| with_keys(selector, &spread.match_label_keys, shape, "In"));
    Term {
        kind: TermKind::Spread {
            max_skew: i64::from(spread.max_skew.max(1)),
            min_domains: spread.min_domains.map(i64::from),
            nodes: variant.counted_nodes.clone(),
            honour,
            keys: other_keys(variant, spread),
        },
        key: current_key(&spread.topology_key).to_owned(),
        selectors: vec![PodSelector {
            namespaces: Some(BTreeSet::from([shape.namespace.clone()])),
            labels: selector,
        }],
    }
}

/// Keys of the constraints that are as hard as one, besides its own. Every node has a host name.
fn other_keys(variant: &Variant, spread: &TopologySpreadConstraint) -> Vec<String> {
    let own = current_key(&spread.topology_key);
    let alike = variant.spread.iter().filter(|other| is_soft(other) == is_soft(spread));
    let keys: BTreeSet<&str> = alike
        .map(|other| current_key(&other.topology_key))
        .filter(|key| *key != own && *key != labels::HOSTNAME)
        .collect();
    keys.into_iter().map(str::to_owned).collect()
}

/// Pod affinity terms of a pod of this shape, which must hold for the same pods (`together`) or
/// each for its own.
fn affinity_terms(
    view: &View,
    shape: &PodShape,
    terms: &[PodAffinityTerm],
    together: bool,
) -> Vec<Term> {
    let each: Vec<PodSelector> = terms.iter().map(|term| selector(view, shape, term)).collect();
    let all: Vec<PodSelector> = each.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let terms = terms.iter().zip(each);
    terms
        .map(|(term, own)| Term {
            kind: TermKind::Affinity,
            key: current_key(&term.topology_key).to_owned(),
            selectors: if together { all.clone() } else { vec![own] },
        })
        .collect()
}

/// A pod anti-affinity term of a pod of this shape.
pub(super) fn anti_affinity_term(view: &View, shape: &PodShape, term: &PodAffinityTerm) -> Term {
    Term {
        kind: TermKind::AntiAffinity,
        key: current_key(&term.topology_key).to_owned(),
        selectors: vec![selector(view, shape, term)],
    }
}

fn selector(view: &View, shape: &PodShape, term: &PodAffinityTerm) -> PodSelector {
    let labels = term.label_selector.as_ref().map(|selector| {
        let same = with_keys(selector, &term.match_label_keys, shape, "In");
        with_keys(&same, &term.mismatch_label_keys, shape, "NotIn")
    });
    PodSelector { namespaces: namespaces(view, shape, term), labels }
}

fn namespaces(view: &View, shape: &PodShape, term: &PodAffinityTerm) -> Option<BTreeSet<String>> {
    let mut names: BTreeSet<String> = term.namespaces.iter().cloned().collect();
    match &term.namespace_selector {
        Some(selector) if *selector == LabelSelector::default() => return None,
        Some(selector) => {
            let selected = view
                .namespaces()
                .iter()
                .filter(|(_, namespace)| selects(selector, &namespace.metadata.labels));
            names.extend(selected.map(|(name, _)| name.clone()));
        }
        None if names.is_empty() => {
            names.insert(shape.namespace.clone());
        }
        None => {}
    }
    Some(names)
}

fn with_keys(
    selector: &LabelSelector,
    keys: &[String],
    shape: &PodShape,
    operator: &str,
) -> LabelSelector {
    let mut selector = selector.clone();
    for key in keys {
        if let Some(value) = shape.labels.get(key) {
            selector.match_expressions.push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: vec![value.clone()],
            });
        }
    }
    selector
}
