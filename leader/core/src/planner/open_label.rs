//! Labels that a NodePool leaves open: a requirement such as `team In [a, b]` on a key that no
//! instance type decides. Each combination that some pod could care for becomes a template of its
//! own, so that everything after this sees fixed labels.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::NodePool;
use drover_common::id::NodePoolName;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};

use super::market::{DeterminedKeys, single_values};
use super::matching::fulfils;

/// Most combinations of open labels that are looked at for one pool: a template each, with all the types
/// that the pool admits. Where those are many the market has room for fewer.
const MOST_COMBINATIONS: usize = 128;

/// Neighbours of the numbers that pods name which are looked at.
const MOST_NEIGHBOURS: usize = 16;

/// Label keys that pods select nodes by.
pub(super) type LabelUses = BTreeMap<String, LabelUse>;

/// How pods select nodes by a label.
#[derive(Clone, Debug, Default)]
pub(super) struct LabelUse {
    /// Values that they name.
    pub values: BTreeSet<String>,
    /// Whether some could have, or tell apart, any value: they spread over it, or name what they don't want.
    pub any: bool,
    /// Whether some want values that they don't name, or none.
    pub others: bool,
}

impl LabelUse {
    pub(super) fn note(&mut self, requirement: &Requirement) {
        self.values.extend(requirement.values.iter().cloned());
        let others = requirement.operator != Operator::In;
        self.any |= others;
        self.others |= others;
    }
}

/// A pool's own labels, and what was left out of them.
#[derive(Clone, Debug, Default)]
pub(super) struct OpenLabels {
    pub combinations: Vec<BTreeMap<String, String>>,
    /// How many there are.
    pub all: usize,
    /// The last label that has several values.
    pub key: Option<String>,
}

/// Every combination of a pool's own labels that pods may care for.
///
/// # Errors
/// A reason why the pool can make no node: its requirements contradict its labels.
pub(super) fn open_labels(
    name: &NodePoolName,
    pool: &NodePool,
    requirements: &[Requirement],
    determined: DeterminedKeys<'_>,
    uses: &LabelUses,
) -> Result<OpenLabels, String> {
    let spec = &pool.spec.template.spec;
    let mut fixed = pool.spec.template.metadata.labels.clone();
    for (key, value) in single_values(requirements) {
        if !determined.contains(&key) {
            fixed.entry(key).or_insert(value);
        }
    }
    fixed.insert(labels::NODEPOOL.to_owned(), name.to_string());
    fixed.insert(labels::NODECLASS.to_owned(), spec.node_class_ref.name.clone());
    let mut open: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for requirement in requirements.iter().filter(|r| !determined.contains(&r.key)) {
        match fixed.get(&requirement.key) {
            Some(value) if !fulfils(requirement, Some(value)) => {
                return Err(format!(
                    "requirement {} contradicts the NodePool's own label {value}",
                    super::matching::requirement_text(requirement)
                ));
            }
            Some(_) => {}
            None => open.entry(&requirement.key).or_default().push(requirement),
        }
    }
    let mut found = OpenLabels { combinations: vec![fixed], all: 1, key: None };
    for (key, rules) in open {
        let values = possible_values(key, &rules, uses);
        if values.is_empty() {
            if may_be_absent(&rules) {
                continue;
            }
            return Err(format!("no value of label {key} fulfils the NodePool's requirements"));
        }
        found.all = found.all.saturating_mul(values.len());
        if values.len() > 1 {
            found.key = Some(key.to_owned());
        }
        found.combinations = found
            .combinations
            .iter()
            .flat_map(|labels| {
                values.iter().map(|value| {
                    let mut labels = labels.clone();
                    labels.extend(value.iter().map(|value| (key.to_owned(), value.clone())));
                    labels
                })
            })
            .take(MOST_COMBINATIONS)
            .collect();
    }
    Ok(found)
}

/// The values of an open key worth a template: of those that the pool lists the ones that pods name, all if
/// they could have any, and the first if nobody asks; else those that pods name and the pool admits, and where some
/// want others than they name, others, and none (`None`).
fn possible_values(key: &str, rules: &[&Requirement], uses: &LabelUses) -> Vec<Option<String>> {
    let admitted = |value: &&String| rules.iter().all(|r| fulfils(r, Some(value)));
    let listed: BTreeSet<&String> =
        rules.iter().filter(|r| r.operator == Operator::In).flat_map(|r| &r.values).collect();
    if !listed.is_empty() {
        let values: Vec<&String> = listed.into_iter().filter(admitted).collect();
        let wanted = |value: &&&String| {
            uses.get(key).is_some_and(|used| used.any || used.values.contains(**value))
        };
        let named: Vec<Option<String>> =
            values.iter().filter(wanted).map(|value| Some((*value).clone())).collect();
        let first = values.into_iter().take(1).cloned().map(Some);
        return if named.is_empty() { first.collect() } else { named };
    }
    let used = uses.get(key);
    let mut values: BTreeSet<String> =
        used.into_iter().flat_map(|used| &used.values).filter(admitted).cloned().collect();
    let others = used.filter(|used| used.others);
    values.extend(others.into_iter().flat_map(unnamed).filter(|value| admitted(&value)));
    if !values.is_empty() {
        let absent = others.is_some() && may_be_absent(rules);
        return values.into_iter().map(Some).chain(absent.then_some(None)).collect();
    }
    // `Exists` and bounds without a value that anyone named: any value will do.
    let numbers = rules.iter().filter_map(|r| r.values.first()?.parse::<i64>().ok());
    let mut guesses: Vec<String> = numbers
        .flat_map(|n| [n, n.saturating_add(1), n.saturating_sub(1)])
        .map(|n| n.to_string())
        .collect();
    guesses.push("true".to_owned());
    if may_be_absent(rules) {
        return Vec::new();
    }
    guesses.iter().find(|value| admitted(value)).cloned().into_iter().map(Some).collect()
}

fn may_be_absent(rules: &[&Requirement]) -> bool {
    rules.iter().all(|rule| fulfils(rule, None))
}

/// Neighbours of the numbers that pods name, for bounds, and a value that none of them names.
fn unnamed(used: &LabelUse) -> Vec<String> {
    let numbers = used.values.iter().filter_map(|value| value.parse::<i64>().ok());
    let near = numbers.flat_map(|n| [n.saturating_sub(1), n.saturating_add(1)]);
    let mut values: Vec<String> = near.take(MOST_NEIGHBOURS).map(|n| n.to_string()).collect();
    let names = (0..).map(|n| if n == 0 { "other".to_owned() } else { format!("other-{n}") });
    values.extend(names.into_iter().find(|name| !used.values.contains(name)));
    values
}
