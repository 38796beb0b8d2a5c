//! `CreateFleet` of type `instant`.

use drover_common::ec2::{
    Ec2Failure, FleetAnswer, FleetError, FleetOverride, FleetRequest, InstanceState,
    LaunchTemplateRequest, LaunchedInstance, ReservationUse,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use drover_common::labels;
use jiff::Timestamp;

use super::super::random::Random;
use super::instance::{SimulatedInstance, after};
use super::notice::Notices;
use super::{Cloud, refuse};

/// Most overrides a request may hold (EC2's limit).
const MAX_OVERRIDES: usize = 300;
/// Longest client token (EC2's limit).
const MAX_TOKEN: usize = 64;

impl Cloud {
    /// Launches, or repeats the answer that the request's token was given before.
    pub(super) fn create_fleet(
        &mut self,
        request: &FleetRequest,
        now: Timestamp,
    ) -> Result<FleetAnswer, Ec2Failure> {
        let token = &request.client_token;
        if token.len() > MAX_TOKEN || !token.is_ascii() {
            return Err(refuse(
                "InvalidParameterValue",
                "ClientToken: at most 64 ASCII characters",
            ));
        }
        if !token.is_empty() {
            self.books.tokens.entry(token.clone()).or_default().requests += 1;
            if let Some((earlier, answer)) = self.tokens.get(token) {
                if earlier == request {
                    return Ok(answer.clone());
                }
                self.books.token_mismatches += 1;
                return Err(refuse(
                    "IdempotentParameterMismatch",
                    format!("ClientToken {token} was used with different parameters"),
                ));
            }
        }
        let template = self.check(request)?;
        let answer = self.fulfil(request, &template, now);
        self.books.launched(token, request.count, request.tags.get(labels::INTENT_TAG), &answer);
        if !token.is_empty() {
            self.tokens.insert(token.clone(), (request.clone(), answer.clone()));
        }
        Ok(answer)
    }

    /// What makes EC2 refuse a whole request.
    fn check(&self, request: &FleetRequest) -> Result<LaunchTemplateRequest, Ec2Failure> {
        if request.count == 0 {
            return Err(refuse(
                "InvalidParameterValue",
                "TargetCapacitySpecification.TotalTargetCapacity: must be at least 1",
            ));
        }
        if request.overrides.is_empty() {
            return Err(refuse("MissingParameter", "LaunchTemplateConfigs.Overrides: none given"));
        }
        if request.overrides.len() > MAX_OVERRIDES {
            return Err(refuse("InvalidParameterValue", "more than 300 launch template overrides"));
        }
        match self.templates.get(&request.launch_template) {
            Some(stored) => Ok(stored.content.clone()),
            None => Err(refuse(
                "InvalidLaunchTemplateName.NotFoundException",
                format!("launch template {} does not exist", request.launch_template),
            )),
        }
    }

    /// Tries the overrides in the strategy's order, or in their own, until the count is reached.
    fn fulfil(
        &mut self,
        request: &FleetRequest,
        template: &LaunchTemplateRequest,
        now: Timestamp,
    ) -> FleetAnswer {
        let mut order: Vec<&FleetOverride> = request.overrides.iter().collect();
        if !(request.prioritized && request.capacity_type == CapacityType::OnDemand) {
            order.sort_by_cached_key(|wanted| {
                self.market.rank(&wanted.instance_type, &wanted.zone, request.capacity_type, now)
            });
        }
        let mut answer = FleetAnswer::default();
        let mut missing = request.count;
        for wanted in order {
            if missing == 0 {
                break;
            }
            if let Err((code, message)) = self.check_override(request, template, wanted) {
                answer.errors.push(fleet_error(wanted, code, message));
                continue;
            }
            // What is reserved is there, however short the market is.
            let mut taken = match &template.reservation {
                Some(ReservationUse::Only(target)) => missing.min(self.room_in(&target.id)),
                _ => self.market.take(
                    &wanted.instance_type,
                    &wanted.zone,
                    request.capacity_type,
                    missing,
                ),
            };
            while taken > 0 {
                match self.launch(request, template, wanted, now) {
                    Some(launched) => answer.instances.push(launched),
                    None => break,
                }
                taken -= 1;
                missing -= 1;
            }
            if taken > 0 {
                let message = format!("subnet {} has no free address left", wanted.subnet);
                answer.errors.push(fleet_error(
                    wanted,
                    "InsufficientFreeAddressesInSubnet",
                    message,
                ));
            } else if missing > 0
                && let Err((code, message)) = self.check_reservation(request, template, wanted)
            {
                answer.errors.push(fleet_error(wanted, code, message));
            } else if missing > 0 {
                answer.errors.push(insufficient_capacity(wanted));
            }
        }
        answer
    }

    /// What makes EC2 pass over one override.
    fn check_override(
        &self,
        request: &FleetRequest,
        template: &LaunchTemplateRequest,
        wanted: &FleetOverride,
    ) -> Result<(), (&'static str, String)> {
        let Some(subnet) = self.network.subnets.get(&wanted.subnet) else {
            let message = format!("The subnet ID '{}' does not exist", wanted.subnet);
            return Err(("InvalidSubnetID.NotFound", message));
        };
        if subnet.zone.name != wanted.zone {
            let message = format!("subnet {} is not in {}", wanted.subnet, wanted.zone);
            return Err(("InvalidParameterCombination", message));
        }
        if !self.market.offered(&wanted.instance_type, &wanted.zone) {
            let message = format!(
                "Your requested instance type ({}) is not supported in your requested \
                 Availability Zone ({}).",
                wanted.instance_type, wanted.zone
            );
            return Err(("Unsupported", message));
        }
        let image = wanted.image.as_ref().unwrap_or(&template.image);
        let Some(image) = self.images.images.get(image) else {
            return Err((
                "InvalidAMIID.NotFound",
                format!("The image id '[{image}]' does not exist"),
            ));
        };
        let Some(entry) = self.market.types.get(&wanted.instance_type) else {
            return Err(("InvalidParameterValue", format!("no type {}", wanted.instance_type)));
        };
        if entry.facts.arch != image.image.architecture {
            let message = format!(
                "The architecture '{}' of the specified instance type does not match the \
                 architecture '{}' of the specified AMI.",
                entry.facts.arch, image.image.architecture
            );
            return Err(("InvalidParameterValue", message));
        }
        match request.capacity_type {
            CapacityType::Spot if !entry.facts.spot => {
                Err(("Unsupported", format!("{} is not offered as spot", wanted.instance_type)))
            }
            CapacityType::Reserved if template.reservation.is_none() => {
                Err(("ReservationCapacityExceeded", "there is no capacity reservation".to_owned()))
            }
            _ => self.check_reservation(request, template, wanted),
        }
    }

    /// Makes one instance; `None` when the subnet is full.
    fn launch(
        &mut self,
        request: &FleetRequest,
        template: &LaunchTemplateRequest,
        wanted: &FleetOverride,
        now: Timestamp,
    ) -> Option<LaunchedInstance> {
        let subnet = self.network.subnets.get_mut(&wanted.subnet)?;
        let private_address = subnet.take_address()?;
        let zone_id = subnet.zone.id.clone();
        let price =
            self.market.price(&wanted.instance_type, &wanted.zone, request.capacity_type, now);
        let architecture = self.market.types.get(&wanted.instance_type)?.facts.arch.clone();
        let reservation = self.reservation_for(template, wanted, request.capacity_type);
        let id = InstanceId::from(resource_id(&mut self.random, "i"));
        let ends = self.doomed.take().map(|after_launch| after(now, after_launch));
        let instance = SimulatedInstance {
            id: id.clone(),
            instance_type: wanted.instance_type.clone(),
            architecture,
            zone: wanted.zone.clone(),
            zone_id,
            subnet: wanted.subnet.clone(),
            capacity_type: request.capacity_type,
            reservation,
            image: wanted.image.clone().unwrap_or_else(|| template.image.clone()),
            private_address,
            launch_template: template.name.clone(),
            instance_profile: template.instance_profile.clone(),
            user_data: template.user_data.clone(),
            imds_tokens_required: template.metadata_options.http_tokens != "optional",
            client_token: request.client_token.clone(),
            price: price.unwrap_or_default(),
            launched: now,
            boots: 1,
            state: InstanceState::Pending,
            since: now,
            reason: None,
            notices: Notices::default(),
            tags: request.tags.clone(),
            visible_from: after(now, self.options.visible_after),
            stale_tags: Vec::new(),
            spent: 0,
            hibernated: false,
            billed_until: None,
            ends: ends.map(|at| (at, "Server.InternalError")),
        };
        self.instances.insert(id.clone(), instance);
        Some(LaunchedInstance {
            instance: id,
            instance_type: wanted.instance_type.clone(),
            zone: wanted.zone.clone(),
            subnet: wanted.subnet.clone(),
            capacity_type: request.capacity_type,
        })
    }
}

/// An EC2 resource id: the prefix, a dash and 17 hexadecimal digits.
pub(super) fn resource_id(random: &mut Random, prefix: &str) -> String {
    format!("{prefix}-0{}", random.hex(16))
}

fn insufficient_capacity(wanted: &FleetOverride) -> FleetError {
    let message = format!(
        "We currently do not have sufficient {} capacity in the Availability Zone you requested \
         ({}).",
        wanted.instance_type, wanted.zone
    );
    fleet_error(wanted, "InsufficientInstanceCapacity", message)
}

fn fleet_error(wanted: &FleetOverride, code: &str, message: String) -> FleetError {
    FleetError {
        code: code.to_owned(),
        message,
        instance_type: Some(wanted.instance_type.clone()),
        zone: Some(wanted.zone.clone()),
    }
}
