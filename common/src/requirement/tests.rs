use proptest::prelude::*;

use super::*;

const SAMPLES: [&str; 9] = ["a", "b", "c", "0", "1", "5", "10", "07", "-3"];

fn requirement(operator: Operator, values: &[&str]) -> Requirement {
    Requirement::new("key", operator, values.iter().copied())
}

fn requirements(list: &[(&str, Operator, &[&str])]) -> Requirements {
    let list: Vec<_> = list
        .iter()
        .map(|(key, operator, values)| Requirement::new(*key, *operator, values.iter().copied()))
        .collect();
    Requirements::from_requirements(&list).unwrap()
}

/// Kubernetes' own meaning of an operator, said without sets.
fn accepts(requirement: &Requirement, label: Option<&str>) -> bool {
    let listed = |label: &str| requirement.values.iter().any(|value| value == label);
    let compare = |holds: fn(&i64, &i64) -> bool| {
        let bound = requirement.values.first().and_then(|value| value.parse::<i64>().ok());
        let own = label.and_then(|label| label.parse::<i64>().ok());
        own.zip(bound).is_some_and(|(own, bound)| holds(&own, &bound))
    };
    match requirement.operator {
        Operator::In => label.is_some_and(listed),
        Operator::NotIn => !label.is_some_and(listed),
        Operator::Exists => label.is_some(),
        Operator::DoesNotExist => label.is_none(),
        Operator::Gt => compare(i64::gt),
        Operator::Lt => compare(i64::lt),
        Operator::Gte => compare(i64::ge),
        Operator::Lte => compare(i64::le),
    }
}

fn accepted(set: &ValueSet, label: Option<&str>) -> bool {
    label.map_or(set.may_be_absent(), |label| set.contains(label))
}

fn any_requirement() -> impl Strategy<Value = Requirement> {
    let list = proptest::sample::subsequence(SAMPLES.to_vec(), 1..5);
    let bound = proptest::sample::select(vec!["-3", "0", "1", "5", "10", "9223372036854775807"]);
    let listed = (proptest::sample::select(vec![Operator::In, Operator::NotIn]), list)
        .prop_map(|(operator, values)| requirement(operator, &values));
    let bare = proptest::sample::select(vec![Operator::Exists, Operator::DoesNotExist])
        .prop_map(|operator| requirement(operator, &[]));
    let comparisons = vec![Operator::Gt, Operator::Lt, Operator::Gte, Operator::Lte];
    let compared = (proptest::sample::select(comparisons), bound)
        .prop_map(|(operator, value)| requirement(operator, &[value]));
    prop_oneof![listed, bare, compared]
}

fn labels_to_try() -> impl Iterator<Item = Option<&'static str>> {
    SAMPLES.into_iter().map(Some).chain([None, Some("zzz"), Some("7"), Some("9223372036854775807")])
}

proptest! {
    #[test]
    fn a_conjunction_accepts_what_every_part_accepts(parts in proptest::collection::vec(any_requirement(), 1..5)) {
        let all = Requirements::from_requirements(&parts).unwrap();
        let set = all.get("key").unwrap();
        for label in labels_to_try() {
            let expected = parts.iter().all(|part| accepts(part, label));
            prop_assert_eq!(accepted(set, label), expected, "{:?} {:?}", label, parts);
            prop_assert!(!(set.is_empty() && expected));
            let labels = label.map(|label| ("key".to_owned(), label.to_owned())).into_iter().collect();
            prop_assert_eq!(all.matches_labels(&labels), expected);
        }
    }

    #[test]
    fn sets_survive_being_written_and_read(parts in proptest::collection::vec(any_requirement(), 1..5)) {
        let all = Requirements::from_requirements(&parts).unwrap();
        let again = Requirements::from_requirements(&all.to_requirements()).unwrap();
        for label in labels_to_try() {
            let same = again.get("key").is_none_or(|set| accepted(set, label));
            prop_assert_eq!(same, accepted(all.get("key").unwrap(), label), "{:?}", parts);
        }
    }

    #[test]
    fn intersects_is_a_non_empty_intersection(left in any_requirement(), right in any_requirement()) {
        let (left, right) = (left.to_value_set().unwrap(), right.to_value_set().unwrap());
        let both = left.intersect(&right);
        prop_assert_eq!(left.intersects(&right), !both.is_empty());
        prop_assert_eq!(&both, &right.intersect(&left));
        prop_assert_eq!(&both.intersect(&left), &both);
        if let Some(value) = both.any_value() {
            prop_assert!(left.contains(&value) && right.contains(&value));
        }
    }
}

#[test]
fn a_list_of_nothing_rules_nothing_out() {
    let set = requirement(Operator::NotIn, &[]).to_value_set().unwrap();
    assert!(set.contains("anything") && set.may_be_absent());
    assert_eq!(set.to_requirements("key"), []);
}

#[test]
fn nothing_is_beyond_the_largest_numbers() {
    for (operator, bound) in [(Operator::Gt, i64::MAX), (Operator::Lt, i64::MIN)] {
        let bound = bound.to_string();
        let set = requirement(operator, &[&bound]).to_value_set().unwrap();
        assert!(!set.contains(&bound) && !set.contains("0") && !set.may_be_absent());
    }
}

#[test]
fn broken_requirements_say_key_and_reason() {
    let min = |operator, values: &[&str], least| Requirement {
        min_values: Some(least),
        ..requirement(operator, values)
    };
    for (broken, reason) in [
        (requirement(Operator::In, &[]), "In needs at least one value"),
        (requirement(Operator::Gt, &["1", "2"]), "Gt needs exactly one value, not 2"),
        (requirement(Operator::Lte, &["x"]), "Lte needs an integer, \"x\" is none"),
        (min(Operator::Exists, &[], 0), "minValues is 0, it must be 1 to 50"),
        (min(Operator::In, &["a"], 2), "minValues is 2, but there are 1 values"),
    ] {
        let error = Requirements::from_requirements(&[broken]).unwrap_err();
        assert_eq!((error.key.as_str(), error.reason.as_str()), ("key", reason));
    }
}

#[test]
fn custom_labels_must_be_defined_and_well_known_ones_need_not() {
    let pool = requirements(&[("team", Operator::In, &["a", "b"])]);
    let zone = requirements(&[(labels::ZONE, Operator::In, &["us-east-1a"])]);
    assert!(pool.compatible(&zone, true));
    assert_eq!(pool.incompatible_key(&zone, false), Some(labels::ZONE));
    assert!(!pool.compatible(&requirements(&[("shelf", Operator::Exists, &[])]), true));
    assert!(pool.compatible(&requirements(&[("shelf", Operator::NotIn, &["x"])]), true));
    assert!(pool.compatible(&requirements(&[("team", Operator::NotIn, &["a"])]), true));
    assert!(!pool.compatible(&requirements(&[("team", Operator::DoesNotExist, &[])]), true));
    assert!(!pool.compatible(&requirements(&[("team", Operator::In, &["c"])]), true));
}

#[test]
fn beta_keys_mean_the_stable_ones_and_min_values_keep_the_larger() {
    let mut all = requirements(&[
        ("failure-domain.beta.kubernetes.io/zone", Operator::In, &["a", "b"]),
        (labels::ZONE, Operator::In, &["b", "c"]),
    ]);
    assert_eq!(all.get(labels::ZONE).and_then(ValueSet::single), Some("b"));
    all.insert(labels::ZONE, ValueSet::present().with_min_values(Some(2)));
    all.insert("beta.kubernetes.io/arch", ValueSet::one_of(["arm64"]).with_min_values(Some(1)));
    assert_eq!(all.get(labels::ZONE).and_then(ValueSet::min_values), Some(2));
    assert_eq!(all.keys().collect::<Vec<_>>(), [labels::ARCH, labels::ZONE]);
}
