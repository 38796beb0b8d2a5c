//! Labels that a NodePool leaves open: a requirement such as `team In [a, b]` on a key that no
//! instance type decides. Each combination that some pod could care for becomes a template of its
//! own, so that everything after this sees fixed labels.

use std::collections::{BTreeMap, BTreeSet};

use drover_common::crd::NodePool;
use drover_common::id::NodePoolName;
use drover_common::labels;
use drover_common::requirement::{Operator, Requirement};

use super::market::single_values;
use super::matching::fulfils;

/// Most combinations of open labels that are looked at for one pool.
const MOST_COMBINATIONS: usize = 32;

/// Label keys that pods select nodes by, with the values they name.
pub(super) type LabelUses = BTreeMap<String, BTreeSet<String>>;

/// Every combination of a pool's own labels.
///
/// # Errors
/// A reason why the pool can make no node: its requirements contradict its labels.
pub(super) fn open_labels(
    name: &NodePoolName,
    pool: &NodePool,
    requirements: &[Requirement],
    determined: &BTreeSet<&str>,
    uses: &LabelUses,
) -> Result<Vec<BTreeMap<String, String>>, String> {
    let spec = &pool.spec.template.spec;
    let mut fixed = pool.spec.template.metadata.labels.clone();
    for (key, value) in single_values(requirements) {
        if !determined.contains(key.as_str()) {
            fixed.entry(key).or_insert(value);
        }
    }
    fixed.insert(labels::NODEPOOL.to_owned(), name.to_string());
    fixed.insert(labels::NODECLASS.to_owned(), spec.node_class_ref.name.clone());
    let mut open: BTreeMap<&str, Vec<&Requirement>> = BTreeMap::new();
    for requirement in requirements.iter().filter(|r| !determined.contains(r.key.as_str())) {
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
    let mut combinations = vec![fixed];
    for (key, rules) in open {
        let values = possible_values(key, &rules, uses);
        if values.is_empty() {
            if rules.iter().all(|r| fulfils(r, None)) {
                continue;
            }
            return Err(format!("no value of label {key} fulfils the NodePool's requirements"));
        }
        combinations = combinations
            .iter()
            .flat_map(|labels| {
                values.iter().map(|value| {
                    let mut labels = labels.clone();
                    labels.insert(key.to_owned(), value.clone());
                    labels
                })
            })
            .take(MOST_COMBINATIONS)
            .collect();
    }
    Ok(combinations)
}

/// The values of an open key worth a template: those the pool lists if some pod selects by the
/// key, else the first; or those that pods name and the pool admits.
fn possible_values(key: &str, rules: &[&Requirement], uses: &LabelUses) -> Vec<String> {
    let admitted = |value: &&String| rules.iter().all(|r| fulfils(r, Some(value)));
    let listed: BTreeSet<&String> =
        rules.iter().filter(|r| r.operator == Operator::In).flat_map(|r| &r.values).collect();
    if !listed.is_empty() {
        let values = listed.into_iter().filter(admitted).cloned();
        return if uses.contains_key(key) { values.collect() } else { values.take(1).collect() };
    }
    let named: Vec<String> =
        uses.get(key).into_iter().flatten().filter(admitted).cloned().collect();
    if !named.is_empty() {
        return named;
    }
    // `Exists` and bounds without a value that anyone named: any value will do.
    let numbers = rules.iter().filter_map(|r| r.values.first()?.parse::<i64>().ok());
    let mut guesses: Vec<String> = numbers
        .flat_map(|n| [n, n.saturating_add(1), n.saturating_sub(1)])
        .map(|n| n.to_string())
        .collect();
    guesses.push("true".to_owned());
    if rules.iter().all(|r| fulfils(r, None)) {
        return Vec::new();
    }
    guesses.iter().find(|value| admitted(value)).cloned().into_iter().collect()
}
