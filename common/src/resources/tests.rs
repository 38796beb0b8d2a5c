use proptest::prelude::*;
use serde_json::json;

use super::*;

fn milli(text: &str) -> i64 {
    parse_quantity(text).unwrap().thousandths()
}

fn units(text: &str) -> i64 {
    parse_quantity(text).unwrap().units()
}

#[test]
fn every_form_of_quantity_is_read() {
    for (text, expected) in [
        ("1", 1000),
        ("+1", 1000),
        ("-1", -1000),
        ("1.", 1000),
        (".5", 500),
        ("100m", 100),
        ("0.0001", 1),
        ("1u", 1),
        ("1n", 1),
        ("0", 0),
        ("0n", 0),
        ("-0.5m", -1),
        ("1500000u", 1500),
        ("2k", 2_000_000),
        ("1e3", 1_000_000),
        ("1E3", 1_000_000),
        ("1e+3", 1_000_000),
        ("1500e-3", 1500),
        ("0.1Ki", 102_400),
    ] {
        assert_eq!(milli(text), expected, "{text}");
    }
    for (text, expected) in [
        ("1Ki", 1 << 10),
        ("1Mi", 1 << 20),
        ("1Gi", 1 << 30),
        ("1Ti", 1 << 40),
        ("1Pi", 1 << 50),
        ("1Ei", 1 << 60),
        ("1k", 1_000),
        ("1M", 1_000_000),
        ("1G", 1_000_000_000),
        ("1T", 1_000_000_000_000),
        ("1P", 1_000_000_000_000_000),
        ("1E", 1_000_000_000_000_000_000),
        ("1.5Gi", 3 << 29),
        ("100m", 1),
        ("99E", i64::MAX),
        ("-99E", -i64::MAX),
        ("1e999999999999", i64::MAX),
        ("0e999999999999", 0),
        ("1e-999999999999", 1),
        ("99999999999999999999999999999999999999999999", i64::MAX),
        ("1.00000000000000000000000000000", 1),
        ("1.00000000000000000000000000001", 2),
    ] {
        assert_eq!(units(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_a_quantity_is_refused() {
    for text in
        ["", "-", "m", "1K", "1ki", "1 Gi", "1.2.3", "e3", "1e", "1e3k", "0x10", "1Kib", "--1", "é"]
    {
        assert!(parse_quantity(text).is_err(), "{text}");
    }
}

#[test]
fn resources_are_read_from_text_and_numbers_and_printed_canonically() {
    let resources: Resources = serde_json::from_value(json!({
        "cpu": 1.5, "memory": "1073741824", "pods": 110, "ephemeral-storage": "20Gi", "nvidia.com/gpu": "1"
    }))
    .unwrap();
    assert_eq!(
        serde_json::to_value(&resources).unwrap(),
        json!({"cpu": "1500m", "memory": "1Gi", "pods": "110", "ephemeral-storage": "20Gi", "nvidia.com/gpu": "1"})
    );
    let error = serde_json::from_value::<Resources>(json!({"cpu": "lots"})).unwrap_err();
    assert!(error.to_string().contains("cpu"), "{error}");
}

#[test]
fn zero_requests_fit_even_where_nothing_is_left() {
    let mut free = Resources::from_quantities([("cpu", "1")]).unwrap();
    free.subtract(&Resources::from_quantities([("cpu", "2"), ("memory", "1Gi")]).unwrap());
    assert_eq!(free.get(&ResourceName::Cpu), -1000);
    assert!(Resources::from_quantities([("cpu", "0"), ("memory", "0")]).unwrap().fits_in(&free));
    assert!(!Resources::from_quantities([("pods", "1")]).unwrap().fits_in(&free));
}

#[test]
fn the_least_of_two_has_nothing_that_one_lacks() {
    let amounts = |list: &[(&str, i64)]| -> Resources {
        list.iter().map(|(name, amount)| (ResourceName::from(*name), *amount)).collect()
    };
    let mut least = amounts(&[("cpu", 4000), ("memory", 8), ("nvidia.com/gpu", 1)]);
    least.keep_least(&amounts(&[("cpu", 2000), ("memory", 16), ("pods", 110)]));
    assert_eq!(least, amounts(&[("cpu", 2000), ("memory", 8), ("nvidia.com/gpu", 0)]));
}

proptest! {
    #[test]
    fn no_text_panics(text in "[-+]?[0-9.]{0,40}[a-zA-Z]{0,3}[-+]?[0-9]{0,12}") {
        let _ = parse_quantity(&text);
    }

    #[test]
    fn decimals_are_exact_and_round_up(whole in 0_i64..1_000_000, thousandths in 0_i64..1000) {
        let text = format!("{whole}.{thousandths:03}");
        prop_assert_eq!(milli(&text), whole * 1000 + thousandths);
        prop_assert_eq!(units(&text), whole + i64::from(thousandths > 0));
        prop_assert_eq!(milli(&format!("{}m", whole * 1000 + thousandths)), whole * 1000 + thousandths);
    }

    #[test]
    fn printed_amounts_are_read_back(amount in any::<i64>().prop_map(|amount| amount.max(-i64::MAX))) {
        for name in ["cpu", "memory", "pods", "nvidia.com/gpu"] {
            // Thousandths of cpu past the 64-bit whole range are not representable in Kubernetes.
            let name = ResourceName::from(name);
            let text = format_amount(&name, amount);
            prop_assert_eq!(amount_of(&name, parse_quantity(&text).unwrap()), amount, "{}", text);
        }
    }

    #[test]
    fn adding_and_subtracting_cancel(left in -1_000_000_i64..1_000_000, right in -1_000_000_i64..1_000_000) {
        let mut sum = Resources::from_iter([(ResourceName::Memory, left)]);
        let other = Resources::from_iter([(ResourceName::Memory, right), (ResourceName::Pods, 1)]);
        sum.add(&other);
        prop_assert_eq!(sum.get(&ResourceName::Memory), left + right);
        sum.subtract(&other);
        prop_assert_eq!(sum.get(&ResourceName::Memory), left);
        prop_assert_eq!(sum.get(&ResourceName::Pods), 0);
    }
}
