//! Zones, subnets and security groups.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure, Subnet};
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Filter, Parameters, combined, terms_of, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::Cloud;

/// The account that owns everything here.
pub(super) const ACCOUNT: &str = "123456789012";

pub(super) fn zones(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let region = cloud.options.region.clone();
    for (name, _) in parameters.filters() {
        // All zones are available, opted in, and of the usual kind.
        if !matches!(name.as_str(), "state" | "zone-type" | "region-name" | "opt-in-status") {
            return Err(unknown_filter(&name));
        }
    }
    let Ec2Answer::Zones(zones) = cloud.apply(&Ec2Call::DescribeAvailabilityZones, now)? else {
        return Ok(Xml::default());
    };
    Ok(Xml::of(|xml| {
        xml.list("availabilityZoneInfo", zones, |xml, (name, id)| {
            xml.text("zoneName", name);
            xml.text("zoneId", id);
            xml.text("zoneState", "available");
            xml.text("regionName", &region);
            xml.text("groupName", format!("{region}-zg-1"));
            xml.text("networkBorderGroup", &region);
            xml.text("zoneType", "availability-zone");
            xml.text("optInStatus", "opt-in-not-required");
        });
    }))
}

pub(super) fn subnets(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let (mut terms, rest) = terms_of(parameters.filters(), "subnet-id", "");
    let named = parameters.texts("SubnetId");
    if !named.is_empty() {
        terms = combined(&terms, &named, |term, id| term.id = Some(id.to_owned()));
    }
    let Ec2Answer::Subnets(found) = cloud.apply(&Ec2Call::DescribeSubnets(terms), now)? else {
        return Ok(Xml::default());
    };
    let mut kept = Vec::new();
    for subnet in found {
        if subnet_holds(&rest, &subnet, cloud.vpc())? {
            kept.push(subnet);
        }
    }
    let page = page(kept, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("subnetSet", page.items, |xml, subnet| {
            xml.text("subnetId", &subnet.id);
            xml.text("state", "available");
            xml.text("vpcId", cloud.vpc());
            xml.text("availableIpAddressCount", subnet.available_addresses);
            xml.text("availabilityZone", &subnet.zone);
            xml.text("availabilityZoneId", &subnet.zone_id);
            xml.text("ownerId", ACCOUNT);
            xml.text("defaultForAz", true);
            xml.text("mapPublicIpOnLaunch", false);
            xml.tags(&cloud.network_tags(&subnet.id).cloned().unwrap_or_default());
        });
        xml.optional("nextToken", page.next);
    }))
}

fn subnet_holds(filters: &[Filter], subnet: &Subnet, vpc: &str) -> Result<bool, Ec2Failure> {
    for (name, values) in filters {
        let have = match name.as_str() {
            "availability-zone" => &subnet.zone,
            "availability-zone-id" => &subnet.zone_id,
            "vpc-id" => vpc,
            "state" => "available",
            other => return Err(unknown_filter(other)),
        };
        if !values.iter().any(|value| value == have) {
            return Ok(false);
        }
    }
    Ok(true)
}

pub(super) fn security_groups(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    let (mut terms, rest) = terms_of(parameters.filters(), "group-id", "group-name");
    let named = parameters.texts("GroupId");
    if !named.is_empty() {
        terms = combined(&terms, &named, |term, id| term.id = Some(id.to_owned()));
    }
    // One VPC has them all.
    if let Some((name, _)) = rest.iter().find(|(name, _)| name != "vpc-id") {
        return Err(unknown_filter(name));
    }
    let Ec2Answer::SecurityGroups(found) =
        cloud.apply(&Ec2Call::DescribeSecurityGroups(terms), now)?
    else {
        return Ok(Xml::default());
    };
    let page = page(found, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("securityGroupInfo", page.items, |xml, (id, name)| {
            xml.text("ownerId", ACCOUNT);
            xml.text("groupId", &id);
            xml.text("groupName", name);
            xml.text("vpcId", cloud.vpc());
            xml.tags(&cloud.network_tags(&id).cloned().unwrap_or_default());
        });
        xml.optional("nextToken", page.next);
    }))
}
