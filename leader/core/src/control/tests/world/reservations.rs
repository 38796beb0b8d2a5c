//! Capacity reservations of the world's EC2, all of m5.large.

use drover_common::call::Kind;
use drover_common::ec2::{
    CapacityReservation, Ec2Answer, Ec2Failure, Ec2FailureKind, FleetError, FleetRequest,
    ReservationUse,
};
use drover_common::instance_type::{CapacityType, ReservationKind};
use serde_json::json;

use super::World;

impl World {
    /// Lets the class select reservations, and its pool be reserved or on demand.
    pub(in super::super) fn select_reservations(&mut self) {
        let class = (Kind::Ec2NodeClass, String::new(), "default".to_owned());
        let terms =
            json!({"spec": {"capacityReservationSelectorTerms": [{"tags": {"team": "a"}}]}});
        self.patch(&class, false, &terms).unwrap();
        let pool = (Kind::NodePool, String::new(), "general".to_owned());
        let billing = json!({"spec": {"template": {"spec": {"requirements": [
            {"key": "karpenter.sh/capacity-type", "operator": "In",
                "values": ["reserved", "on-demand"]}]}}}});
        self.patch(&pool, false, &billing).unwrap();
    }

    /// A reservation of so many m5.large.
    pub(in super::super) fn reserve(&mut self, id: &str, total: u32) {
        self.reservations.insert(id.to_owned(), total);
    }

    /// A capacity block of so many m5.large.
    pub(in super::super) fn reserve_block(&mut self, id: &str, total: u32) {
        self.reserve(id, total);
        self.blocks.insert(id.to_owned());
    }

    fn kind_of(&self, id: &str) -> ReservationKind {
        if self.blocks.contains(id) {
            ReservationKind::CapacityBlock
        } else {
            ReservationKind::Default
        }
    }

    /// A reservation ends; its instances run on.
    pub(in super::super) fn end_reservation(&mut self, id: &str) {
        self.reservations.remove(id);
        for instance in self.instances.values_mut() {
            if instance.reservation.as_deref() == Some(id) {
                instance.reservation = None;
                instance.capacity_type = CapacityType::OnDemand;
            }
        }
    }

    pub(super) fn describe_reservations(&mut self) -> Result<Ec2Answer, Ec2Failure> {
        self.reservation_reads += 1;
        if self.reservations.is_empty() {
            return Err(Ec2Failure {
                kind: Ec2FailureKind::Unsupported,
                code: "UnknownOperation".to_owned(),
                message: "no such call".to_owned(),
            });
        }
        let shown = self.reservations.iter().map(|(id, total)| CapacityReservation {
            id: id.clone(),
            instance_type: "m5.large".to_owned(),
            zone: "us-east-1a".to_owned(),
            owner: "123456789012".to_owned(),
            match_criteria: "targeted".to_owned(),
            kind: self.kind_of(id),
            interruptible: false,
            ends_at: None,
            total: *total,
            available: total - u32::try_from(self.held(id)).unwrap(),
        });
        Ok(Ec2Answer::CapacityReservations(shown.collect()))
    }

    fn held(&self, id: &str) -> usize {
        let held = self.instances.values().filter(|instance| {
            instance.reservation.as_deref() == Some(id) && !instance.state.is_gone()
        });
        held.count()
    }

    /// The reservation that one more instance of a request goes into.
    ///
    /// # Errors
    /// It is full, it is of another market than is asked for, or EC2 refuses.
    pub(super) fn room_for(
        &mut self,
        request: &FleetRequest,
    ) -> Result<Option<String>, FleetError> {
        let Some(ReservationUse::Only(target)) = self.uses.get(&request.launch_template) else {
            return Ok(None);
        };
        let total = self.reservations.get(&target.id).copied().unwrap_or(0);
        let kind = self.kind_of(&target.id);
        let is_block = kind == ReservationKind::CapacityBlock;
        let agrees = target.kind == kind && request.capacity_block == is_block;
        let has_room = self.held(&target.id) < total as usize;
        if self.refuses_reserved.is_none() && agrees && has_room {
            return Ok(Some(target.id.clone()));
        }
        self.overuses += 1;
        Err(FleetError {
            code: self.refuses_reserved.unwrap_or("ReservationCapacityExceeded").to_owned(),
            message: "it is not to be had".to_owned(),
            instance_type: Some("m5.large".to_owned()),
            zone: Some("us-east-1a".to_owned()),
        })
    }
}
