//! Calls that launch, end and tag instances.

use aws_sdk_ec2::types::{
    DefaultTargetCapacityType, FleetCapacityReservationUsageStrategy,
    FleetLaunchTemplateConfigRequest, FleetLaunchTemplateOverrides,
    FleetLaunchTemplateOverridesRequest, FleetLaunchTemplateSpecificationRequest,
    FleetOnDemandAllocationStrategy, FleetType, InstanceType, OnDemandOptionsRequest, ResourceType,
    SpotAllocationStrategy, SpotOptionsRequest, Tag, TagSpecification,
    TargetCapacitySpecificationRequest,
};
use drover_common::ec2::{
    Ec2Failure, Ec2FailureKind, FleetAnswer, FleetError, FleetOverride, FleetRequest,
    LaunchedInstance, Tags,
};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;

use crate::Ec2;
use crate::failure::failure;

/// Most instances in one call (EC2 takes 1,000; Karpenter, too, stays at half of that).
const BATCH: usize = 500;

impl Ec2 {
    pub(crate) async fn create_fleet(
        &self,
        request: &FleetRequest,
    ) -> Result<FleetAnswer, Ec2Failure> {
        let mut call = self
            .writes
            .create_fleet()
            .r#type(FleetType::Instant)
            .client_token(&request.client_token)
            .launch_template_configs(template_config(request))
            .target_capacity_specification(target_capacity(request))
            .set_context(request.context.clone());
        if !request.tags.is_empty() {
            for resource in [ResourceType::Instance, ResourceType::Fleet] {
                call = call.tag_specifications(tag_specification(resource, &request.tags));
            }
        }
        call = match request.capacity_type {
            CapacityType::Spot => call.spot_options(
                SpotOptionsRequest::builder()
                    .allocation_strategy(SpotAllocationStrategy::PriceCapacityOptimized)
                    .build(),
            ),
            CapacityType::OnDemand => call.on_demand_options(on_demand(request).build()),
            // A capacity block is a market of its own, without options.
            CapacityType::Reserved if request.capacity_block => call,
            CapacityType::Reserved => call.on_demand_options(on_demand_reserved(request)),
        };
        let output = call.send().await.map_err(failure)?;
        let mut answer = FleetAnswer::default();
        for group in output.instances() {
            let overrides = group.launch_template_and_overrides().and_then(|one| one.overrides());
            let instance_type = group.instance_type().map(InstanceType::as_str);
            let chosen = chosen(request, overrides, instance_type);
            for id in group.instance_ids() {
                answer.instances.push(LaunchedInstance {
                    instance: InstanceId::from(id.as_str()),
                    instance_type: chosen.instance_type.clone(),
                    zone: chosen.zone.clone(),
                    subnet: chosen.subnet.clone(),
                    capacity_type: request.capacity_type,
                });
            }
        }
        for error in output.errors() {
            let overrides = error.launch_template_and_overrides().and_then(|one| one.overrides());
            let instance_type = overrides.and_then(|one| one.instance_type());
            answer.errors.push(FleetError {
                code: error.error_code().unwrap_or("UnknownError").to_owned(),
                message: error.error_message().unwrap_or_default().to_owned(),
                instance_type: instance_type.map(|name| name.as_str().to_owned()),
                zone: overrides.and_then(|one| zone_of(request, one)),
            });
        }
        Ok(answer)
    }

    /// Terminates what is there: EC2 refuses a whole batch for one id that it does not know, so
    /// the ids it names are left out and the rest is asked for again.
    pub(crate) async fn terminate_instances(
        &self,
        instances: &[InstanceId],
    ) -> Result<(), Ec2Failure> {
        for batch in instances.chunks(BATCH) {
            let mut ids: Vec<String> = batch.iter().map(|id| id.to_string()).collect();
            while !ids.is_empty() {
                let call = self.writes.terminate_instances().set_instance_ids(Some(ids.clone()));
                let Err(error) = call.send().await else { break };
                let refused = failure(error);
                if refused.kind != Ec2FailureKind::NotFound {
                    return Err(refused);
                }
                let before = ids.len();
                ids.retain(|id| !refused.message.contains(id.as_str()));
                if ids.len() == before {
                    return Err(refused);
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn create_tags(
        &self,
        instances: &[InstanceId],
        tags: &Tags,
    ) -> Result<(), Ec2Failure> {
        for batch in instances.chunks(BATCH) {
            self.writes
                .create_tags()
                .set_resources(Some(batch.iter().map(|id| id.to_string()).collect()))
                .set_tags(Some(sdk_tags(tags)))
                .send()
                .await
                .map_err(failure)?;
        }
        Ok(())
    }
}

fn template_config(request: &FleetRequest) -> FleetLaunchTemplateConfigRequest {
    let template = FleetLaunchTemplateSpecificationRequest::builder()
        .launch_template_name(&request.launch_template)
        .version("$Latest")
        .build();
    let overrides = request.overrides.iter().enumerate().map(|(number, wanted)| {
        FleetLaunchTemplateOverridesRequest::builder()
            .set_priority(request.prioritized.then_some(number as f64))
            .instance_type(InstanceType::from(wanted.instance_type.as_str()))
            .subnet_id(&wanted.subnet)
            // The subnet implies the zone; EC2 repeats it in errors, which are about zones.
            .availability_zone(&wanted.zone)
            .set_image_id(wanted.image.clone())
            .build()
    });
    FleetLaunchTemplateConfigRequest::builder()
        .launch_template_specification(template)
        .set_overrides(Some(overrides.collect()))
        .build()
}

fn target_capacity(request: &FleetRequest) -> TargetCapacitySpecificationRequest {
    let default_type = match request.capacity_type {
        CapacityType::Spot => DefaultTargetCapacityType::Spot,
        CapacityType::Reserved if request.capacity_block => {
            DefaultTargetCapacityType::CapacityBlock
        }
        CapacityType::OnDemand | CapacityType::Reserved => DefaultTargetCapacityType::OnDemand,
    };
    TargetCapacitySpecificationRequest::builder()
        .total_target_capacity(i32::try_from(request.count).unwrap_or(i32::MAX))
        .default_target_capacity_type(default_type)
        .build()
}

fn on_demand(
    request: &FleetRequest,
) -> aws_sdk_ec2::types::builders::OnDemandOptionsRequestBuilder {
    OnDemandOptionsRequest::builder().allocation_strategy(match request.prioritized {
        true => FleetOnDemandAllocationStrategy::Prioritized,
        false => FleetOnDemandAllocationStrategy::LowestPrice,
    })
}

fn on_demand_reserved(request: &FleetRequest) -> OnDemandOptionsRequest {
    let first = FleetCapacityReservationUsageStrategy::UseCapacityReservationsFirst;
    let options = aws_sdk_ec2::types::CapacityReservationOptionsRequest::builder()
        .usage_strategy(first)
        .build();
    on_demand(request).capacity_reservation_options(options).build()
}

/// The override that EC2 launched from. It repeats the override in its answer; imitations may leave
/// parts out, which are then taken from the first override of the request that agrees.
fn chosen(
    request: &FleetRequest,
    shown: Option<&FleetLaunchTemplateOverrides>,
    instance_type: Option<&str>,
) -> FleetOverride {
    let shown_type = shown.and_then(|one| one.instance_type()).map(InstanceType::as_str);
    let instance_type = instance_type.or(shown_type);
    let subnet = shown.and_then(|one| one.subnet_id());
    let zone = shown.and_then(|one| one.availability_zone());
    let agrees = |wanted: &&FleetOverride| {
        instance_type.is_none_or(|name| name == wanted.instance_type)
            && subnet.is_none_or(|id| id == wanted.subnet)
            && zone.is_none_or(|name| name == wanted.zone)
    };
    let request = request.overrides.iter().find(agrees);
    let pick = |shown: Option<&str>, requested: Option<&String>| {
        shown.map_or_else(|| requested.cloned().unwrap_or_default(), str::to_owned)
    };
    FleetOverride {
        instance_type: pick(instance_type, request.map(|one| &one.instance_type)),
        subnet: pick(subnet, request.map(|one| &one.subnet)),
        zone: pick(zone, request.map(|one| &one.zone)),
        image: None,
    }
}

fn zone_of(request: &FleetRequest, shown: &FleetLaunchTemplateOverrides) -> Option<String> {
    let of_subnet = || {
        let subnet = shown.subnet_id()?;
        request.overrides.iter().find(|one| one.subnet == subnet).map(|one| one.zone.clone())
    };
    shown.availability_zone().map(str::to_owned).or_else(of_subnet)
}

/// Tags as the SDK takes them.
pub(crate) fn sdk_tags(tags: &Tags) -> Vec<Tag> {
    tags.iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect()
}

/// Tags for one kind of resource.
pub(crate) fn tag_specification(resource: ResourceType, tags: &Tags) -> TagSpecification {
    TagSpecification::builder().resource_type(resource).set_tags(Some(sdk_tags(tags))).build()
}
