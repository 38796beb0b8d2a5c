//! Calls about instances that exist.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure, Instance, InstanceQuery, InstanceState};
use drover_common::id::InstanceId;
use drover_common::instance_type::CapacityType;
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Filter, Parameters, tag_filters, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::{Cloud, SimulatedInstance, refuse, unknown_instance};

pub(super) fn describe(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let named = ids(parameters, "InstanceId");
    let (tags, filters) = tag_filters(parameters.filters());
    let (by_id, filters): (Vec<Filter>, Vec<Filter>) =
        filters.into_iter().partition(|(name, _)| name == "instance-id");
    let filtered = by_id.into_iter().flat_map(|(_, values)| values).map(InstanceId::from);
    let query = InstanceQuery { instances: named.iter().cloned().chain(filtered).collect(), tags };
    let Ec2Answer::Instances(shown) = cloud.apply(&Ec2Call::DescribeInstances(query), now)? else {
        return Ok(Xml::default());
    };
    // An id in the parameter, unlike one in a filter, must be known.
    if let Some(missing) = named
        .iter()
        .find(|id| cloud.instance(id).is_none_or(|instance| instance.shown(now).is_none()))
    {
        return Err(unknown_instance(missing));
    }
    let mut found = Vec::new();
    for instance in shown {
        let Some(full) = cloud.instance(&instance.instance) else { continue };
        if all_hold(&filters, &instance, full)? {
            found.push((instance, full));
        }
    }
    let page = page(found, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("reservationSet", page.items, |xml, (instance, full)| {
            let digits = instance.instance.as_str().trim_start_matches("i-");
            xml.text("reservationId", format!("r-{digits}"));
            xml.list("instancesSet", [()], |xml, ()| encode(xml, &instance, full, cloud.vpc()));
        });
        xml.optional("nextToken", page.next);
    }))
}

fn all_hold(
    filters: &[Filter],
    instance: &Instance,
    full: &SimulatedInstance,
) -> Result<bool, Ec2Failure> {
    for (name, values) in filters {
        let among = |value: &str| values.iter().any(|wanted| wanted == value);
        let holds = match name.as_str() {
            "instance-state-name" => among(state_name(instance.state).0),
            "client-token" => among(&full.client_token),
            "instance-type" => among(&instance.instance_type),
            "availability-zone" => among(&instance.zone),
            "subnet-id" => among(&instance.subnet),
            "private-dns-name" => among(&instance.private_dns_name),
            "instance-lifecycle" => instance.capacity_type == CapacityType::Spot && among("spot"),
            "tag-key" => instance.tags.keys().any(|key| among(key)),
            name => match name.strip_prefix("tag:") {
                Some(key) => instance.tags.get(key).is_some_and(|value| among(value)),
                None => return Err(unknown_filter(name)),
            },
        };
        if !holds {
            return Ok(false);
        }
    }
    Ok(true)
}

fn encode(xml: &mut Xml, instance: &Instance, full: &SimulatedInstance, vpc: &str) {
    let gone = instance.state == InstanceState::Terminated;
    xml.text("instanceId", &instance.instance);
    xml.text("imageId", &instance.image);
    encode_state(xml, "instanceState", instance.state);
    xml.text("privateDnsName", &instance.private_dns_name);
    xml.text("dnsName", "");
    xml.text("amiLaunchIndex", 0);
    xml.text("instanceType", &instance.instance_type);
    xml.text("launchTime", instance.launch_time.strftime("%Y-%m-%dT%H:%M:%S.000Z"));
    xml.wrap("placement", |xml| {
        xml.text("availabilityZone", &instance.zone);
        xml.text("availabilityZoneId", &full.zone_id);
        xml.text("tenancy", "default");
    });
    if !gone {
        xml.text("subnetId", &instance.subnet);
        xml.text("vpcId", vpc);
        xml.text("privateIpAddress", full.private_address);
    }
    if let Some(reason) = full.reason {
        xml.wrap("stateReason", |xml| {
            xml.text("code", reason);
            xml.text("message", reason);
        });
    }
    let architecture = if full.architecture == "arm64" { "arm64" } else { "x86_64" };
    xml.text("architecture", architecture);
    xml.text("clientToken", &full.client_token);
    if instance.capacity_type == CapacityType::Spot {
        xml.text("instanceLifecycle", "spot");
    }
    xml.optional("capacityReservationId", instance.reservation.as_ref());
    if full.capacity_type == CapacityType::Reserved {
        xml.wrap("capacityReservationSpecification", |xml| {
            xml.text("capacityReservationPreference", "capacity-reservations-only");
        });
    }
    xml.tags(&instance.tags);
}

/// EC2's name and number of a state.
fn state_name(state: InstanceState) -> (&'static str, u32) {
    match state {
        InstanceState::Pending => ("pending", 0),
        InstanceState::Running => ("running", 16),
        InstanceState::ShuttingDown => ("shutting-down", 32),
        InstanceState::Terminated => ("terminated", 48),
        InstanceState::Stopping => ("stopping", 64),
        InstanceState::Stopped => ("stopped", 80),
    }
}

fn encode_state(xml: &mut Xml, name: &str, state: InstanceState) {
    let (word, code) = state_name(state);
    xml.wrap(name, |xml| {
        xml.text("code", code);
        xml.text("name", word);
    });
}

pub(super) fn terminate(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    change_state(cloud, parameters, |cloud, instances| {
        if let Some(missing) = cloud.unknown(&instances).first() {
            return Err(unknown_instance(missing));
        }
        cloud.apply(&Ec2Call::TerminateInstances(instances), now).map(drop)
    })
}

pub(super) fn stop(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    if parameters.flag("Hibernate") == Some(true) {
        let message = "The instance is not configured for hibernation.";
        return Err(refuse("UnsupportedHibernationConfiguration", message));
    }
    change_state(cloud, parameters, |cloud, instances| cloud.stop_instances(&instances, now))
}

pub(super) fn start(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    change_state(cloud, parameters, |cloud, instances| cloud.start_instances(&instances, now))
}

/// Changes the state of the named instances, and tells it before and after.
fn change_state(
    cloud: &mut Cloud,
    parameters: &Parameters,
    change: impl FnOnce(&mut Cloud, Vec<InstanceId>) -> Result<(), Ec2Failure>,
) -> Result<Xml, Ec2Failure> {
    let instances = ids(parameters, "InstanceId");
    if instances.is_empty() {
        parameters.required("InstanceId.1")?;
    }
    let state = |cloud: &Cloud, id| cloud.instance(id).map(|instance| instance.state);
    let before: Vec<_> = instances.iter().map(|id| state(cloud, id)).collect();
    change(cloud, instances.clone())?;
    Ok(Xml::of(|xml| {
        xml.list("instancesSet", instances.iter().zip(before), |xml, (id, before)| {
            xml.text("instanceId", id);
            if let (Some(before), Some(after)) = (before, state(cloud, id)) {
                encode_state(xml, "currentState", after);
                encode_state(xml, "previousState", before);
            }
        });
    }))
}

pub(super) fn create_tags(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let call = Ec2Call::CreateTags {
        instances: ids(parameters, "ResourceId"),
        tags: parameters.tags("Tag"),
    };
    cloud.apply(&call, now)?;
    Ok(Xml::of(|xml| xml.text("return", true)))
}

fn ids(parameters: &Parameters, prefix: &str) -> Vec<InstanceId> {
    parameters.texts(prefix).into_iter().map(InstanceId::from).collect()
}
