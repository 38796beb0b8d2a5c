//! Capacity reservations: filled, never beyond their room, refused, lacking, and over.

use drover_common::call::{Call, Kind};
use drover_common::ec2::Ec2Call;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::rig::*;
use crate::control::Input;
use crate::control::node_patch::{self, Wanted};
use crate::control::out_of_service::OutOfService;
use crate::state::State;

fn reserved(id: &str, total: u32) -> Rig {
    let mut rig = Rig::new();
    rig.world.select_reservations();
    rig.world.reserve(id, total);
    rig.lead();
    rig
}

fn billing(rig: &Rig) -> Vec<CapacityType> {
    let mut billing: Vec<CapacityType> =
        rig.world.running_instances().iter().map(|instance| instance.capacity_type).collect();
    billing.sort();
    billing
}

fn values<'v>(objects: &[&'v Value], label: &str) -> Vec<&'v str> {
    let value = |object: &&'v Value| object["metadata"]["labels"][label].as_str().unwrap_or("");
    objects.iter().map(value).collect()
}

#[test]
fn room_is_counted_before_ec2_tells_of_it() {
    let mut rig = reserved("cr-1", 1);
    rig.run(5);
    rig.world.add_pods("web", 2, 800);
    rig.run(4);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
    // The class is read each minute: what was read still has room for the node that is there.
    rig.world.add_pods("api", 2, 800);
    rig.run(10);
    assert_eq!(billing(&rig), [CapacityType::Reserved, CapacityType::OnDemand]);
    assert_eq!(rig.world.overuses, 0);
    assert_eq!(rig.rejected, Vec::<String>::new());
    let record = rig.state.claims.values().find(|claim| claim.hourly_price_micro == 1).unwrap();
    assert_eq!(record.instance.as_ref().unwrap().reservation.as_deref(), Some("cr-1"));
    rig.check_settled();
}

#[test]
fn a_full_reservation_is_left_alone_for_three_minutes() {
    let mut rig = reserved("cr-1", 2);
    rig.world.refuses_reserved = Some("ReservationCapacityExceeded");
    rig.world.add_pods("web", 2, 800);
    rig.run(30);
    let keys: Vec<String> = rig.state.unavailable.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["m5.large/us-east-1a/reserved/cr-1"]);
    assert_eq!(billing(&rig), [CapacityType::OnDemand]);
    assert_eq!(rig.world.overuses, 1, "it is not tried over and over");
    let until = *rig.state.unavailable.values().next().unwrap();
    let left = until.duration_since(rig.world.now).as_secs();
    assert!((145..180).contains(&left), "{left} s of three minutes are left");
}

#[test]
fn whatever_the_refusal_the_next_launch_is_on_demand() {
    let mut rig = reserved("cr-1", 2);
    rig.world.refuses_reserved = Some("UnauthorizedOperation");
    rig.world.add_pods("web", 2, 800);
    rig.run(30);
    assert_eq!(billing(&rig), [CapacityType::OnDemand]);
    assert_eq!(rig.world.overuses, 1, "it is not tried over and over");
    assert_eq!(rig.world.running_pods(), 2);
}

#[test]
fn a_claim_that_kubernetes_refuses_says_nothing_of_the_reservation() {
    let mut rig = reserved("cr-1", 2);
    rig.world.refuses_claims = true;
    rig.world.add_pods("web", 2, 800);
    rig.run(10);
    let failed = rig.state.closed_intents.len();
    assert!(failed > 0 && rig.state.unavailable.is_empty(), "{:?}", rig.state.unavailable);
    rig.world.refuses_claims = false;
    rig.run(60);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
}

#[test]
fn claims_by_hand_made_at_once_do_not_take_the_same_room() {
    let mut rig = reserved("cr-1", 1);
    rig.run(5);
    let own = json!({"requirements": [
        {"key": labels::CAPACITY_TYPE, "operator": "In", "values": ["reserved", "on-demand"]},
        {"key": labels::INSTANCE_TYPE, "operator": "Exists", "minValues": 2},
    ]});
    rig.world.add_claim_by_hand("one", &own);
    rig.world.add_claim_by_hand("two", &own);
    rig.run(20);
    assert_eq!(rig.rejected, Vec::<String>::new());
    assert_eq!(billing(&rig), [CapacityType::Reserved, CapacityType::OnDemand]);
    assert_eq!(rig.world.overuses, 0);
    rig.check_settled();
}

#[test]
fn a_claim_by_hand_does_not_take_the_room_that_a_plan_of_the_same_step_takes() {
    // Pods are planned for some time after they came: at one of these steps.
    for steps in 0..12 {
        let mut rig = reserved("cr-1", 1);
        rig.run(5);
        rig.world.add_pods("web", 2, 800);
        for _ in 0..steps {
            rig.world.now += SignedDuration::from_millis(250);
            rig.step(Input::Tick);
        }
        let own = json!({"requirements": [
            {"key": labels::CAPACITY_TYPE, "operator": "In", "values": ["reserved", "on-demand"]},
        ]});
        rig.world.add_claim_by_hand("mine", &own);
        rig.run(20);
        assert_eq!(rig.world.overuses, 0, "after {steps} steps");
        assert_eq!(rig.world.running_pods(), 2);
    }
}

/// A second class that selects the same reservations, and is read half a minute after the first.
fn shared_by_two_classes(total: u32) -> Rig {
    let mut rig = reserved("cr-1", total);
    rig.run(30);
    let mut other = rig.world.list(Kind::Ec2NodeClass)[0].clone();
    other["metadata"] = json!({"name": "other"});
    other.as_object_mut().unwrap().remove("status");
    rig.world.put(Kind::Ec2NodeClass, other);
    rig.run(3);
    rig
}

/// The pool's class was read again since a node of it went into the reservation, the other one not.
fn shared(total: u32) -> Rig {
    let mut rig = shared_by_two_classes(total);
    rig.world.add_pods("web", 2, 800);
    rig.run(30);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
    rig
}

fn claim_of_the_other_class(rig: &mut Rig) {
    let own = json!({"nodeClassRef": {"name": "other"}, "requirements": [
        {"key": labels::CAPACITY_TYPE, "operator": "In", "values": ["reserved", "on-demand"]},
    ]});
    rig.world.add_claim_by_hand("mine", &own);
}

#[test]
fn the_newest_reading_of_a_reservation_speaks_for_all_classes_that_share_it() {
    let mut rig = shared(1);
    claim_of_the_other_class(&mut rig);
    rig.run(10);
    assert_eq!(billing(&rig), [CapacityType::Reserved, CapacityType::OnDemand]);
    assert_eq!(rig.world.overuses, 0);
}

#[test]
fn a_launch_that_the_newest_reading_counts_is_not_counted_again() {
    for by_hand in [false, true] {
        let mut rig = shared(2);
        if by_hand {
            claim_of_the_other_class(&mut rig);
        } else {
            rig.world.add_pods("api", 2, 800);
        }
        rig.run(10);
        assert_eq!(billing(&rig), [CapacityType::Reserved; 2], "by hand: {by_hand}");
        assert_eq!(rig.world.overuses, 0);
    }
}

#[test]
fn a_reading_that_tells_what_it_told_before_takes_the_place_of_what_another_class_was_told() {
    let mut rig = shared_by_two_classes(2);
    rig.run(32);
    // After a reading of the pool's class, and gone before the next; the other one's is between.
    rig.world.add_pods("web", 2, 800);
    rig.run(30);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
    let ended = rig.world.running_instances()[0].instance.clone();
    rig.world.remove_pods("web");
    rig.world.end_instance(&ended);
    rig.run(35);
    rig.world.add_pods("api", 4, 800);
    rig.run(10);
    assert_eq!(billing(&rig), [CapacityType::Reserved; 2]);
}

#[test]
fn a_reserved_instance_that_ec2_ends_leaves_room_for_another() {
    let mut rig = reserved("cr-1", 1);
    rig.world.add_pods("web", 2, 800);
    rig.run(20);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
    let ended = rig.world.running_instances()[0].instance.clone();
    rig.world.remove_pods("web");
    rig.world.end_instance(&ended);
    // Instances are read each half minute, the class each minute.
    rig.run(95);
    rig.world.add_pods("api", 2, 800);
    rig.run(20);
    assert_eq!(billing(&rig), [CapacityType::Reserved]);
    assert_ne!(rig.world.running_instances()[0].instance, ended);
    assert_eq!(rig.world.overuses, 0);
    assert_eq!(rig.world.running_pods(), 2);
}

#[test]
fn a_log_that_is_lost_finds_the_reservation_of_a_reserved_instance_again() {
    // One on demand only landed in a reservation that is open to all.
    for (found, reservation) in
        [(CapacityType::Reserved, Some("cr-1")), (CapacityType::OnDemand, None)]
    {
        let mut rig = reserved("cr-1", 1);
        rig.world.add_pods("web", 2, 800);
        rig.run(20);
        rig.world.instances.values_mut().for_each(|instance| instance.capacity_type = found);
        rig.state = State::default();
        rig.lead();
        rig.run(20);
        let instance = rig.state.claims.values().next().unwrap().instance.clone().unwrap();
        assert_eq!(instance.reservation.as_deref(), reservation, "{found}");
    }
}

#[test]
fn a_capacity_block_is_asked_for_as_one() {
    let mut rig = Rig::new();
    rig.world.select_reservations();
    rig.world.reserve_block("cr-1", 1);
    rig.lead();
    rig.world.add_pods("web", 2, 800);
    rig.run(20);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::RESERVATION_TYPE), ["capacity-block"]);
    assert_eq!((billing(&rig), rig.world.overuses), (vec![CapacityType::Reserved], 0));
}

#[test]
fn an_ec2_without_reservations_is_told_once_and_worked_without() {
    let mut rig = Rig::new();
    rig.world.select_reservations();
    rig.lead();
    rig.world.add_pods("web", 2, 800);
    rig.run(200);
    assert_eq!(billing(&rig), [CapacityType::OnDemand]);
    assert_eq!(rig.world.reservation_reads, 1);
    let status = rig.control.status(&rig.state, rig.world.now);
    let told = status.problems.iter().find(|(subject, _)| subject.contains("Reservations"));
    assert!(told.is_some_and(|(_, words)| words.contains("not offered here")), "{told:?}");
    let class = rig.world.list(Kind::Ec2NodeClass)[0];
    assert!(conditions(class).contains(&"CapacityReservationsReady".to_owned()), "{class}");
    assert!(conditions(class).contains(&"Ready".to_owned()), "{class}");
}

#[test]
fn reservations_are_not_read_where_no_class_selects_any() {
    let mut rig = Rig::new();
    rig.world.reserve("cr-1", 1);
    rig.run(100);
    assert_eq!(rig.world.reservation_reads, 0);
}

#[test]
fn a_node_whose_reservation_is_over_is_one_on_demand() {
    let mut rig = reserved("cr-1", 1);
    rig.world.reserve("cr-2", 0);
    rig.world.add_pods("web", 2, 800);
    rig.run(20);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::CAPACITY_TYPE), ["reserved"]);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::RESERVATION_ID), ["cr-1"]);
    rig.world.end_reservation("cr-1");
    rig.run(120);
    assert_eq!(rig.rejected, Vec::<String>::new());
    for kind in [Kind::Node, Kind::NodeClaim] {
        let objects = rig.world.list(kind);
        assert_eq!(values(&objects, labels::CAPACITY_TYPE), ["on-demand"], "{kind:?}");
        for label in labels::RESERVATION_LABELS {
            assert_eq!(values(&objects, label), [""], "{kind:?} {label}");
        }
    }
    let record = rig.state.claims.values().next().unwrap();
    assert_eq!(record.hourly_price_micro, 96_000, "it costs what it costs on demand");
    assert_eq!(rig.world.running_pods(), 2);
    // A label that a kubelet set from its own settings is not true any more, either.
    let name = rig.world.list(Kind::Node)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let stale = json!({"metadata": {"labels": {labels::RESERVATION_ID: "cr-1"}}});
    rig.world.change(Kind::Node, "", &name, &stale);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::RESERVATION_ID), ["cr-1"]);
    rig.run(5);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::RESERVATION_ID), [""]);
    // One that registers only now loses it at once.
    let (name, record) = rig.state.claims.iter().next().unwrap();
    let mut node = (*rig.control.node_of(record).unwrap()).clone();
    node.metadata.labels.remove(labels::REGISTERED);
    node.metadata.labels.insert(labels::RESERVATION_ID.to_owned(), "cr-1".to_owned());
    let claim = rig.control.view.claims().get(name).map(AsRef::as_ref);
    let (draining, initializes, candidate) = (None, false, None);
    let out_of_service = OutOfService::default();
    let wanted = Wanted {
        name,
        record,
        claim,
        draining,
        initializes,
        candidate,
        recommended: false,
        out_of_service,
    };
    let patch = node_patch::patch(&node, &wanted).unwrap();
    let wanted = patch["metadata"]["labels"].as_object().unwrap();
    assert_eq!(wanted[labels::REGISTERED], "true");
    assert_eq!(wanted.get(labels::RESERVATION_ID), Some(&Value::Null));
}

#[test]
fn a_lapse_is_recorded_once_the_price_on_demand_is_known() {
    let mut rig = reserved("cr-1", 1);
    rig.world.reserve("cr-2", 0);
    rig.world.add_pods("web", 2, 800);
    rig.run(90);
    rig.world.end_reservation("cr-1");
    // A new leader sees the instance before it has read what anything costs.
    rig.fail = Some(|call| matches!(call, Call::Ec2(Ec2Call::DescribeSubnets(_))));
    rig.lead();
    // Before anything cheaper is found in its place.
    rig.run(8);
    assert_eq!(values(&rig.world.list(Kind::Node), labels::CAPACITY_TYPE), ["on-demand"]);
    assert_eq!(rig.state.claims.values().next().unwrap().hourly_price_micro, 96_000);
}
