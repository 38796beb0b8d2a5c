//! Capacity reservations: reading them, and launching into one.

use std::collections::BTreeMap;

use aws_sdk_ec2::types::{
    CapacityReservationPreference, CapacityReservationTarget, CapacityReservationType, Filter,
    LaunchTemplateCapacityReservationSpecificationRequest,
    LaunchTemplateInstanceMarketOptionsRequest, MarketType, RequestLaunchTemplateData,
};
use drover_common::ec2::{
    CapacityReservation, Ec2Failure, Ec2FailureKind, ReservationTerm, ReservationUse,
};
use drover_common::instance_type::ReservationKind;
use jiff::Timestamp;

use crate::Ec2;
use crate::describe::tag_filters;
use crate::failure::failure;

impl Ec2 {
    pub(crate) async fn describe_capacity_reservations(
        &self,
        terms: &[ReservationTerm],
    ) -> Result<Vec<CapacityReservation>, Ec2Failure> {
        let mut found = BTreeMap::new();
        for term in terms {
            let ids = term.id.clone().map(|id| vec![id]);
            let call =
                self.reads.describe_capacity_reservations().set_capacity_reservation_ids(ids);
            let call = call.set_filters(Some(filters(term)));
            let mut pages = call.into_paginator().items().send();
            while let Some(shown) = pages.next().await {
                match shown.map_err(failure) {
                    Ok(shown) => {
                        if let Some(one) = reservation(&shown) {
                            found.insert(one.id.clone(), one);
                        }
                    }
                    // EC2 refuses an id that it does not know: the other terms may find theirs.
                    Err(refused) if refused.kind == Ec2FailureKind::NotFound => break,
                    Err(refused) => return Err(self.reservation_failure(refused)),
                }
            }
        }
        Ok(found.into_values().collect())
    }

    /// An imitated EC2 that has no reservations answers 500, for ever.
    fn reservation_failure(&self, mut failed: Ec2Failure) -> Ec2Failure {
        if self.ec2_is_custom && failed.code == "HTTP 500" {
            failed.kind = Ec2FailureKind::Unsupported;
        }
        failed
    }
}

fn filters(term: &ReservationTerm) -> Vec<Filter> {
    let mut filters = tag_filters(&term.tags);
    let mut add = |name: &str, value: &str| {
        filters.push(Filter::builder().name(name).values(value).build());
    };
    add("state", "active");
    if let Some(owner) = &term.owner {
        add("owner-id", owner);
    }
    if let Some(criteria) = &term.match_criteria {
        add("instance-match-criteria", criteria);
    }
    filters
}

/// A reservation without id, type or zone is nothing that can be launched into.
fn reservation(shown: &aws_sdk_ec2::types::CapacityReservation) -> Option<CapacityReservation> {
    let count = |number: Option<i32>| u32::try_from(number.unwrap_or(0)).unwrap_or(0);
    let criteria = shown.instance_match_criteria().map_or("open", |criteria| criteria.as_str());
    let block = shown.reservation_type() == Some(&CapacityReservationType::CapacityBlock);
    Some(CapacityReservation {
        id: shown.capacity_reservation_id()?.to_owned(),
        instance_type: shown.instance_type()?.to_owned(),
        zone: shown.availability_zone()?.to_owned(),
        owner: shown.owner_id().unwrap_or_default().to_owned(),
        match_criteria: criteria.to_owned(),
        kind: if block { ReservationKind::CapacityBlock } else { ReservationKind::Default },
        interruptible: shown.interruptible().unwrap_or(false),
        ends_at: shown.end_date().and_then(|end| Timestamp::new(end.secs(), 0).ok()),
        total: count(shown.total_instance_count()),
        available: count(shown.available_instance_count()),
    })
}

/// Writes into a launch template which reservations its instances use.
pub(crate) fn specify(data: &mut RequestLaunchTemplateData, reservation: Option<&ReservationUse>) {
    let specification = LaunchTemplateCapacityReservationSpecificationRequest::builder();
    let specification = match reservation {
        None => return,
        Some(ReservationUse::Never) => {
            specification.capacity_reservation_preference(CapacityReservationPreference::None)
        }
        // A target goes with this preference alone.
        Some(ReservationUse::Only(target)) => specification
            .capacity_reservation_preference(
                CapacityReservationPreference::CapacityReservationsOnly,
            )
            .capacity_reservation_target(
                CapacityReservationTarget::builder().capacity_reservation_id(&target.id).build(),
            ),
    };
    data.capacity_reservation_specification = Some(specification.build());
    if let Some(ReservationUse::Only(target)) = reservation
        && target.kind == ReservationKind::CapacityBlock
    {
        let market = LaunchTemplateInstanceMarketOptionsRequest::builder()
            .market_type(MarketType::CapacityBlock)
            .build();
        data.instance_market_options = Some(market);
    }
}
