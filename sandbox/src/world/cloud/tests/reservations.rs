//! Capacity reservations: what goes into them, and what becomes of their instances.

use drover_common::ec2::{CapacityReservation, ReservationTarget, ReservationTerm, ReservationUse};
use drover_common::instance_type::ReservationKind;

use super::*;

fn order(id: &str, count: u32) -> ReservationOrder {
    let text = format!(
        r#"{{"id": "{id}", "instance_type": "m5.large", "zone": "us-east-1a", "count": {count}}}"#
    );
    serde_json::from_str(&text).unwrap()
}

/// A request for the reservation `cr-1` alone, and the template that names it.
fn reserved(cloud: &mut Cloud, token: &str, kind: ReservationKind, count: u32) -> FleetRequest {
    let mut request = request(cloud, token, &["m5.large"], count);
    let image = cloud.templates.get("lt-one").unwrap().content.image.clone();
    let mut template = template(&format!("lt-reserved-{token}"), &image);
    let target = ReservationTarget { id: "cr-1".to_owned(), kind };
    template.reservation = Some(ReservationUse::Only(target));
    request.launch_template.clone_from(&template.name);
    request.capacity_type = CapacityType::Reserved;
    request.capacity_block = kind == ReservationKind::CapacityBlock;
    request.overrides.retain(|wanted| wanted.zone == "us-east-1a");
    cloud.apply(&Ec2Call::CreateLaunchTemplate(template), start()).unwrap();
    request
}

fn described(cloud: &mut Cloud, now: Timestamp) -> Vec<CapacityReservation> {
    let call = Ec2Call::DescribeCapacityReservations(vec![ReservationTerm::default()]);
    match cloud.apply(&call, now) {
        Ok(Ec2Answer::CapacityReservations(found)) => found,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reservation_is_filled_counted_down_and_given_back() {
    let mut cloud = cloud();
    cloud.reserve_capacity(order("cr-1", 2));
    let rule = CapacityRule {
        instance_type: "*".to_owned(),
        zone: "*".to_owned(),
        capacity_type: "*".to_owned(),
        available: Some(0),
    };
    cloud.limit_capacity(rule);
    let wanted = reserved(&mut cloud, "one", ReservationKind::Default, 3);
    let answer = create(&mut cloud, &wanted, start());
    assert_eq!(answer.instances.len(), 2, "what is reserved is there in a shortage, too");
    assert_eq!(answer.errors[0].code, "ReservationCapacityExceeded");
    assert!(answer.errors[0].is_unfulfillable());
    assert_eq!(described(&mut cloud, at(1))[0].available, 0);
    let shown = describe(&mut cloud, at(3));
    assert_eq!(shown[0].reservation.as_deref(), Some("cr-1"));
    assert_eq!(shown[0].capacity_type, CapacityType::Reserved);
    let ended = vec![answer.instances[0].instance.clone()];
    cloud.apply(&Ec2Call::TerminateInstances(ended), at(4)).unwrap();
    assert_eq!(described(&mut cloud, at(5))[0].available, 1);
    let again = reserved(&mut cloud, "two", ReservationKind::Default, 1);
    assert_eq!(create(&mut cloud, &again, at(6)).instances.len(), 1);
}

#[test]
fn an_open_reservation_takes_what_matches_unless_the_template_says_never() {
    let mut cloud = cloud();
    let open = ReservationOrder { instance_match_criteria: "open".to_owned(), ..order("cr-1", 5) };
    cloud.reserve_capacity(open);
    let mut plain = request(&mut cloud, "one", &["m5.large"], 1);
    plain.capacity_type = CapacityType::OnDemand;
    plain.overrides.retain(|wanted| wanted.zone == "us-east-1a");
    create(&mut cloud, &plain, start());
    assert_eq!(described(&mut cloud, at(1))[0].available, 4);
    let image = cloud.templates.get("lt-one").unwrap().content.image.clone();
    let mut never = template("lt-never", &image);
    never.reservation = Some(ReservationUse::Never);
    cloud.apply(&Ec2Call::CreateLaunchTemplate(never), start()).unwrap();
    let other = FleetRequest {
        client_token: "two".to_owned(),
        launch_template: "lt-never".to_owned(),
        ..plain
    };
    create(&mut cloud, &other, at(1));
    assert_eq!(described(&mut cloud, at(2))[0].available, 4);
    let shown = describe(&mut cloud, at(30));
    assert_eq!(shown.iter().filter(|one| one.reservation.is_some()).count(), 1);
    let on_demand =
        |one: &drover_common::ec2::Instance| one.capacity_type == CapacityType::OnDemand;
    assert!(shown.len() == 2 && shown.iter().all(on_demand), "neither was launched for it");
}

#[test]
fn instances_outlive_a_reservation_but_not_a_capacity_block() {
    let mut cloud = cloud();
    let end = Some(at(3600));
    cloud.reserve_capacity(ReservationOrder { end_time: end, ..order("cr-1", 1) });
    let wanted = reserved(&mut cloud, "one", ReservationKind::Default, 1);
    create(&mut cloud, &wanted, start());
    cloud.tick(at(3599));
    assert_eq!(describe(&mut cloud, at(3599))[0].capacity_type, CapacityType::Reserved);
    assert_eq!(cloud.next_due(), Some(at(3600)));
    cloud.tick(at(3600));
    let lapsed = describe(&mut cloud, at(3600)).remove(0);
    assert_eq!((lapsed.capacity_type, lapsed.reservation), (CapacityType::OnDemand, None));
    assert!(described(&mut cloud, at(3600)).is_empty());

    let kind = ReservationKind::CapacityBlock;
    let end = Some(at(3 * 3600));
    cloud.reserve_capacity(ReservationOrder { kind, end_time: end, ..order("cr-1", 1) });
    let wrong = reserved(&mut cloud, "two", ReservationKind::Default, 1);
    let unasked =
        FleetRequest { capacity_block: false, ..reserved(&mut cloud, "unasked", kind, 1) };
    for wrong in [wrong, unasked] {
        let refused = create(&mut cloud, &wrong, at(3601));
        assert_eq!(refused.instances.len(), 0, "a block is a market of its own");
    }
    let wanted = reserved(&mut cloud, "three", kind, 1);
    let block = create(&mut cloud, &wanted, at(3601)).instances.remove(0).instance;
    cloud.tick(at(3 * 3600 - 1801));
    assert!(!cloud.instance(&block).unwrap().state.is_gone());
    cloud.tick(at(3 * 3600 - 1800));
    assert!(cloud.instance(&block).unwrap().state.is_gone());
}
