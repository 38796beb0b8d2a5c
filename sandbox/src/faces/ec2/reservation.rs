//! `DescribeCapacityReservations`.

use drover_common::ec2::{
    CapacityReservation, Ec2Answer, Ec2Call, Ec2Failure, ReservationTerm, SelectorTerm,
};
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Filter, Parameters, combined, terms_of, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::{Cloud, refuse};

pub(super) fn describe(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let (mut terms, rest) = terms_of(parameters.filters(), "", "instance-match-criteria");
    let named = parameters.texts("CapacityReservationId");
    if !named.is_empty() {
        terms = combined(&terms, &named, |term, id| term.id = Some(id.to_owned()));
    }
    if let Some(missing) = named.iter().find(|id| cloud.reservation_tags(id).is_none()) {
        return Err(refuse(
            "InvalidCapacityReservationId.NotFound",
            format!("The capacity reservation '{missing}' does not exist"),
        ));
    }
    let call = Ec2Call::DescribeCapacityReservations(terms.into_iter().map(term).collect());
    let Ec2Answer::CapacityReservations(found) = cloud.apply(&call, now)? else {
        return Ok(Xml::default());
    };
    let mut kept = Vec::new();
    for reservation in found {
        if holds(&rest, &reservation)? {
            kept.push(reservation);
        }
    }
    let page = page(kept, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("capacityReservationSet", page.items, |xml, shown| encode(xml, cloud, &shown));
        xml.optional("nextToken", page.next);
    }))
}

fn term(term: SelectorTerm) -> ReservationTerm {
    ReservationTerm { id: term.id, owner: None, match_criteria: term.name, tags: term.tags }
}

fn holds(filters: &[Filter], shown: &CapacityReservation) -> Result<bool, Ec2Failure> {
    for (name, values) in filters {
        let have = match name.as_str() {
            "owner-id" => &shown.owner,
            "instance-type" => &shown.instance_type,
            "availability-zone" => &shown.zone,
            // Others are forgotten.
            "state" => "active",
            other => return Err(unknown_filter(other)),
        };
        if !values.iter().any(|value| value == have) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn encode(xml: &mut Xml, cloud: &Cloud, shown: &CapacityReservation) {
    xml.text("capacityReservationId", &shown.id);
    xml.text("ownerId", &shown.owner);
    xml.text("availabilityZone", &shown.zone);
    xml.text("instanceType", &shown.instance_type);
    xml.text("instancePlatform", "Linux/UNIX");
    xml.text("tenancy", "default");
    xml.text("instanceMatchCriteria", &shown.match_criteria);
    xml.text("reservationType", shown.kind.as_str());
    xml.text("interruptible", shown.interruptible);
    xml.text("totalInstanceCount", shown.total);
    xml.text("availableInstanceCount", shown.available);
    xml.text("state", "active");
    let end = shown.ends_at.map(|end| end.strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string());
    xml.text("endDateType", if end.is_some() { "limited" } else { "unlimited" });
    xml.optional("endDate", end);
    xml.tags(&cloud.reservation_tags(&shown.id).cloned().unwrap_or_default());
}
