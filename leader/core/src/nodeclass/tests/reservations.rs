//! Capacity reservations of a class: asked for, told of, sold.

use drover_common::ec2::{CapacityReservation, ReservationTarget, ReservationTerm, ReservationUse};
use drover_common::instance_type::{Offering, ReservationKind};

use super::*;

fn selecting() -> Ec2NodeClass {
    class(json!({"capacityReservationSelectorTerms": [
        {"id": "cr-1"},
        {"tags": {"team": "*"}, "ownerID": "123456789012", "instanceMatchCriteria": "targeted"},
    ]}))
}

fn reservation(id: &str, zone: &str, available: u32) -> CapacityReservation {
    CapacityReservation {
        id: id.to_owned(),
        instance_type: "m5.large".to_owned(),
        zone: zone.to_owned(),
        owner: "123456789012".to_owned(),
        match_criteria: "targeted".to_owned(),
        kind: ReservationKind::Default,
        interruptible: true,
        ends_at: None,
        total: 9,
        available,
    }
}

fn block(id: &str, ends_in_minutes: i64) -> CapacityReservation {
    CapacityReservation {
        kind: ReservationKind::CapacityBlock,
        interruptible: false,
        ends_at: Some(Timestamp::from_second(ends_in_minutes * 60).unwrap()),
        ..reservation(id, "b", 1)
    }
}

fn with(told: Vec<CapacityReservation>) -> impl Fn(&Ec2Call) -> Result<Ec2Answer, Ec2Failure> {
    move |call| match call {
        Ec2Call::DescribeCapacityReservations(_) => {
            Ok(Ec2Answer::CapacityReservations(told.clone()))
        }
        other => answer(other),
    }
}

fn resolved_with(told: Vec<CapacityReservation>) -> ResolvedClass {
    let class = selecting();
    resolve(&class, &cluster(), &answers(&class, with(told)), Timestamp::UNIX_EPOCH)
}

fn reserved_offerings(resolved: &ResolvedClass, price: u64) -> Vec<Offering> {
    let mut cloud = cloud();
    let prices = vec![("m5.large".to_owned(), price)];
    cloud.record(&Ec2Call::GetOnDemandPrices, &Ec2Answer::OnDemandPrices(prices));
    let catalog = catalog(&selecting(), resolved, &cloud, &flags());
    let mut all = Vec::new();
    for kind in catalog.instance_types {
        all.extend(kind.offerings.into_iter().filter(|offering| offering.reservation.is_some()));
    }
    all
}

#[test]
fn terms_are_asked_for_as_they_are_and_only_where_there_are_any() {
    let asked = |class: &Ec2NodeClass| {
        let calls = class_calls(class, &cluster(), &ClassAnswers::default());
        calls.into_iter().find_map(|call| match call {
            Ec2Call::DescribeCapacityReservations(terms) => Some(terms),
            _ => None,
        })
    };
    assert_eq!(asked(&class(json!({}))), None);
    let by_id = ReservationTerm { id: Some("cr-1".to_owned()), ..ReservationTerm::default() };
    let by_rest = ReservationTerm {
        id: None,
        owner: Some("123456789012".to_owned()),
        match_criteria: Some("targeted".to_owned()),
        tags: Tags::from([("team".to_owned(), "*".to_owned())]),
    };
    assert_eq!(asked(&selecting()), Some(vec![by_id, by_rest]));
}

#[test]
fn the_status_shows_every_reservation_that_is_not_over() {
    let told = vec![
        reservation("cr-2", "a", 3),
        block("cr-1", 41),
        block("cr-3", 40),
        block("cr-over", 0),
    ];
    let resolved = resolved_with(told);
    assert!(resolved.is_ready(), "{:?}", resolved.conditions);
    assert!(Condition::is_true(&resolved.conditions, "CapacityReservationsReady"));
    let shown = serde_json::to_string_pretty(&resolved.status["status"]["capacityReservations"]);
    insta::assert_snapshot!(shown.unwrap());
}

#[test]
fn reservations_are_sold_next_to_nothing_in_the_zones_of_the_class() {
    let told = vec![reservation("cr-1", "a", 3), reservation("cr-2", "z", 3), block("cr-3", 40)];
    let resolved = resolved_with(told);
    let sold = reserved_offerings(&resolved, 96_000);
    let shown: Vec<_> = sold
        .iter()
        .map(|one| {
            let of = one.reservation.as_ref().unwrap();
            (of.id.as_str(), of.free, one.zone.as_str(), one.price, one.available)
        })
        .collect();
    assert_eq!(
        shown,
        [("cr-1", 3, "a", Some(1), true), ("cr-3", 1, "b", Some(1), false)],
        "one is in no subnet's zone, one is about to end"
    );
    assert!(sold.iter().all(|one| one.capacity_type == CapacityType::Reserved));
    let dear = reserved_offerings(&resolved, 98_320_000);
    assert_eq!(dear[0].price, Some(9), "the price on demand by ten millions");
}

#[test]
fn none_that_matches_is_no_fault_and_a_failed_read_is_unknown() {
    let none = resolved_with(Vec::new());
    assert!(none.is_ready());
    assert_eq!(none.status["status"].get("capacityReservations"), None);
    let fails = |kind| {
        move |call: &Ec2Call| match call {
            Ec2Call::DescribeCapacityReservations(_) => {
                Err(Ec2Failure { kind, code: "Some".to_owned(), message: "words".to_owned() })
            }
            other => answer(other),
        }
    };
    let class = selecting();
    let status_after = |kind| {
        let answers = answers(&class, fails(kind));
        let resolved = resolve(&class, &cluster(), &answers, Timestamp::UNIX_EPOCH);
        let status = |name| Condition::find(&resolved.conditions, name).unwrap().status;
        (status("CapacityReservationsReady"), status("Ready"))
    };
    let unknown = (ConditionStatus::Unknown, ConditionStatus::Unknown);
    assert_eq!(status_after(Ec2FailureKind::Throttled), unknown);
    let fine = (ConditionStatus::True, ConditionStatus::True);
    assert_eq!(status_after(Ec2FailureKind::Unsupported), fine, "there are none to be had");
}

#[test]
fn what_a_class_selected_before_goes_from_its_status() {
    let mut class = class(json!({}));
    let shown = resolved_with(vec![reservation("cr-1", "a", 3)]);
    class.status = serde_json::from_value(shown.status["status"].clone()).unwrap();
    let resolved = resolved(&class);
    assert_eq!(resolved.status["status"]["capacityReservations"], json!([]));
    assert!(Condition::find(&resolved.conditions, "CapacityReservationsReady").is_none());
    assert_eq!(resolved.reservations, None);
}

#[test]
fn a_template_is_another_for_every_reservation() {
    let resolved = resolved_with(vec![reservation("cr-1", "a", 3)]);
    let class = selecting();
    let name = |reservation: Option<ReservationUse>| {
        let tags = Tags::new();
        let template =
            launch_template(&class, &resolved, "ami", &node(), &cluster(), &tags, reservation);
        template.unwrap().name
    };
    let only = |id: &str| {
        let kind = ReservationKind::Default;
        Some(ReservationUse::Only(ReservationTarget { id: id.to_owned(), kind }))
    };
    let names = [None, Some(ReservationUse::Never), only("cr-1"), only("cr-2")].map(name);
    let distinct: std::collections::BTreeSet<&String> = names.iter().collect();
    assert_eq!(distinct.len(), 4);
}
