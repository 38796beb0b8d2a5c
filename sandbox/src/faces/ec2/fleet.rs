//! `CreateFleet`.

use drover_common::ec2::{
    Ec2Answer, Ec2Call, Ec2Failure, FleetAnswer, FleetOverride, FleetRequest,
};
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;

use super::parameters::Parameters;
use super::xml::Xml;
use crate::world::cloud::{Cloud, refuse};

pub(super) fn create(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let request = decode(cloud, parameters)?;
    let fleet = cloud.request_id();
    match cloud.apply(&Ec2Call::CreateFleet(request.clone()), now)? {
        Ec2Answer::Fleet(answer) => Ok(encode(&request, &answer, &fleet)),
        _ => Ok(Xml::default()),
    }
}

fn decode(cloud: &Cloud, parameters: &Parameters) -> Result<FleetRequest, Ec2Failure> {
    if parameters.text("Type") != Some("instant") {
        let message = "Type: only fleets of type instant are simulated";
        return Err(refuse("UnsupportedOperation", message));
    }
    let mut configs = parameters.list("LaunchTemplateConfigs");
    if configs.len() > 1 {
        let message = "LaunchTemplateConfigs: only one is simulated";
        return Err(refuse("UnsupportedOperation", message));
    }
    let config = configs.pop().unwrap_or_default();
    let template = config.below("LaunchTemplateSpecification");
    let launch_template =
        match (template.text("LaunchTemplateName"), template.text("LaunchTemplateId")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(id)) => cloud.launch_template_name(id).unwrap_or(id).to_owned(),
            (None, None) => template.required("LaunchTemplateName")?.to_owned(),
        };
    let capacity = parameters.below("TargetCapacitySpecification");
    capacity.required("TotalTargetCapacity")?;
    let specifications = parameters.list("TagSpecification").into_iter();
    let instance_tags = specifications.filter(|one| one.text("ResourceType") == Some("instance"));
    let strategy = parameters.below("OnDemandOptions");
    let prioritized = strategy.text("AllocationStrategy") == Some("prioritized");
    let mut overrides = config.list("Overrides");
    if prioritized {
        // The lowest number comes first, and what has none last.
        let priority = |one: &Parameters| -> f64 {
            one.text("Priority").and_then(|text| text.parse().ok()).unwrap_or(f64::INFINITY)
        };
        overrides.sort_by(|a, b| priority(a).total_cmp(&priority(b)));
    }
    Ok(FleetRequest {
        client_token: parameters.text("ClientToken").unwrap_or_default().to_owned(),
        launch_template,
        overrides: overrides.iter().map(|one| decode_override(cloud, one)).collect(),
        prioritized,
        capacity_type: capacity_type(parameters, &capacity),
        capacity_block: capacity.text("DefaultTargetCapacityType") == Some("capacity-block"),
        count: capacity.number("TotalTargetCapacity")?.unwrap_or_default(),
        tags: instance_tags.flat_map(|one| one.tags("Tag")).collect(),
        context: parameters.text("Context").map(str::to_owned),
    })
}

fn decode_override(cloud: &Cloud, parameters: &Parameters) -> FleetOverride {
    let text = |key| parameters.text(key).unwrap_or_default().to_owned();
    let subnet = text("SubnetId");
    let zone = parameters.text("AvailabilityZone").map(str::to_owned);
    FleetOverride {
        instance_type: text("InstanceType"),
        zone: zone.or_else(|| cloud.zone_of_subnet(&subnet)).unwrap_or_default(),
        subnet,
        image: parameters.text("ImageId").map(str::to_owned),
    }
}

fn capacity_type(parameters: &Parameters, capacity: &Parameters) -> CapacityType {
    let reservations = parameters.below("OnDemandOptions").below("CapacityReservationOptions");
    match capacity.text("DefaultTargetCapacityType") {
        Some("spot") => CapacityType::Spot,
        Some("capacity-block") => CapacityType::Reserved,
        _ if reservations.is_empty() => CapacityType::OnDemand,
        _ => CapacityType::Reserved,
    }
}

fn encode(request: &FleetRequest, answer: &FleetAnswer, fleet: &str) -> Xml {
    let lifecycle = match request.capacity_type {
        CapacityType::Spot => "spot",
        CapacityType::OnDemand | CapacityType::Reserved => "on-demand",
    };
    let chosen = |xml: &mut Xml, instance_type: &str, zone: &str, subnet: Option<&str>| {
        xml.wrap("launchTemplateAndOverrides", |xml| {
            xml.wrap("launchTemplateSpecification", |xml| {
                xml.text("launchTemplateName", &request.launch_template);
                xml.text("version", "1");
            });
            xml.wrap("overrides", |xml| {
                xml.text("instanceType", instance_type);
                xml.optional("subnetId", subnet);
                xml.text("availabilityZone", zone);
            });
        });
        xml.text("lifecycle", lifecycle);
    };
    Xml::of(|xml| {
        xml.text("fleetId", format!("fleet-{fleet}"));
        xml.list("errorSet", &answer.errors, |xml, error| {
            let instance_type = error.instance_type.as_deref().unwrap_or_default();
            chosen(xml, instance_type, error.zone.as_deref().unwrap_or_default(), None);
            xml.text("errorCode", &error.code);
            xml.text("errorMessage", &error.message);
        });
        xml.list("fleetInstanceSet", &answer.instances, |xml, launched| {
            chosen(xml, &launched.instance_type, &launched.zone, Some(&launched.subnet));
            xml.texts("instanceIds", [&launched.instance]);
            xml.text("instanceType", &launched.instance_type);
        });
    })
}
