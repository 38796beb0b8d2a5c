//! Offerings and spot prices.

use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};
use jiff::Timestamp;

use super::page::page;
use super::parameters::{Parameters, unknown_filter};
use super::xml::Xml;
use crate::world::cloud::{Cloud, refuse};

pub(super) fn offerings(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    if parameters.text("LocationType") != Some("availability-zone") {
        let message = "LocationType: only availability-zone is simulated";
        return Err(refuse("UnsupportedOperation", message));
    }
    let call = Ec2Call::DescribeInstanceTypeOfferings;
    let Ec2Answer::Offerings(mut found) = cloud.apply(&call, now)? else {
        return Ok(Xml::default());
    };
    for (name, values) in parameters.filters() {
        let among = |have: &String| values.contains(have);
        match name.as_str() {
            "instance-type" => found.retain(|(instance_type, _)| among(instance_type)),
            "location" => found.retain(|(_, zone)| among(zone)),
            other => return Err(unknown_filter(other)),
        }
    }
    let page = page(found, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("instanceTypeOfferingSet", page.items, |xml, (instance_type, zone)| {
            xml.text("instanceType", instance_type);
            xml.text("locationType", "availability-zone");
            xml.text("location", zone);
        });
        xml.optional("nextToken", page.next);
    }))
}

/// The prices in force; the past is not simulated.
pub(super) fn spot_prices(
    cloud: &mut Cloud,
    parameters: &Parameters,
    now: Timestamp,
) -> Result<Xml, Ec2Failure> {
    if let Some((name, _)) = parameters.filters().first() {
        return Err(unknown_filter(name));
    }
    let call = Ec2Call::DescribeSpotPriceHistory;
    let Ec2Answer::SpotPrices(mut found) = cloud.apply(&call, now)? else {
        return Ok(Xml::default());
    };
    let products = parameters.texts("ProductDescription");
    if !products.is_empty() && !products.iter().any(|product| product.starts_with("Linux/UNIX")) {
        found.clear();
    }
    let types = parameters.texts("InstanceType");
    found.retain(|(instance_type, zone, _)| {
        (types.is_empty() || types.contains(instance_type))
            && parameters.text("AvailabilityZone").is_none_or(|wanted| wanted == zone)
    });
    let page = page(found, parameters, 1000)?;
    Ok(Xml::of(|xml| {
        xml.list("spotPriceHistorySet", page.items, |xml, (instance_type, zone, price)| {
            xml.text("instanceType", instance_type);
            xml.text("productDescription", "Linux/UNIX");
            xml.text("spotPrice", format!("{}.{:06}", price / 1_000_000, price % 1_000_000));
            xml.text("timestamp", now.strftime("%Y-%m-%dT%H:%M:%S.000Z"));
            xml.text("availabilityZone", zone);
        });
        xml.optional("nextToken", page.next);
    }))
}
