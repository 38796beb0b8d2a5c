//! Pricing's `GetProducts` for Linux on demand, in AWS's JSON 1.1 protocol.

use axum::Router;
use drover_common::ec2::{Ec2Answer, Ec2Call, Ec2Failure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::faces::aws_json::{self, Service};
use crate::faces::page::cut;
use crate::shared::SharedWorld;
use crate::world::cloud::{Cloud, refuse};
use crate::world::faults::Face;

/// Products on a page, unless fewer are asked for.
const PAGE: usize = 100;

/// Pricing's router.
pub(crate) fn router(world: SharedWorld) -> Router {
    let prefix = "AWSPriceListService.";
    aws_json::router(
        world,
        Service { face: Face::Pricing, prefix, perform, patience: aws_json::never },
    )
}

fn perform(
    cloud: &mut Cloud,
    operation: &str,
    input: &Value,
    now: Timestamp,
) -> Result<Value, Ec2Failure> {
    if operation != "GetProducts" {
        return Err(aws_json::unknown_operation(operation));
    }
    let text = |key| input.get(key).and_then(Value::as_str);
    if text("ServiceCode") != Some("AmazonEC2") {
        return Err(refuse(
            "InvalidParameterException",
            "ServiceCode: only AmazonEC2 is simulated",
        ));
    }
    let Ec2Answer::OnDemandPrices(prices) = cloud.apply(&Ec2Call::GetOnDemandPrices, now)? else {
        return Ok(Value::Null);
    };
    let empty = Vec::new();
    let filters = input.get("Filters").and_then(Value::as_array).unwrap_or(&empty);
    let products: Vec<Product> = prices
        .into_iter()
        .map(|(name, price)| Product {
            bare_metal: cloud.facts(&name).is_some_and(|facts| facts.bare_metal),
            name,
            price,
        })
        .filter(|product| filters.iter().all(|filter| product.holds(filter, &cloud.options.region)))
        .collect();
    let wanted = input.get("MaxResults").and_then(Value::as_u64).unwrap_or(PAGE as u64);
    let size = usize::try_from(wanted).unwrap_or(PAGE).clamp(1, PAGE);
    let page = cut(products, text("NextToken"), size)
        .ok_or_else(|| refuse("InvalidNextTokenException", "The token is invalid"))?;
    let region = &cloud.options.region;
    let list: Vec<String> = page.items.iter().map(|one| one.document(region)).collect();
    Ok(json!({"FormatVersion": "aws_v1", "PriceList": list, "NextToken": page.next}))
}

struct Product {
    name: String,
    price: u64,
    bare_metal: bool,
}

impl Product {
    fn attribute(&self, field: &str, region: &str) -> Option<String> {
        let text = match field {
            "instanceType" => self.name.as_str(),
            "regionCode" => region,
            "serviceCode" | "servicecode" => "AmazonEC2",
            "preInstalledSw" => "NA",
            "operatingSystem" => "Linux",
            "capacitystatus" => "Used",
            "marketoption" => "OnDemand",
            "tenancy" if self.bare_metal => "Dedicated",
            "tenancy" => "Shared",
            "productFamily" if self.bare_metal => "Compute Instance (bare metal)",
            "productFamily" => "Compute Instance",
            _ => return None,
        };
        Some(text.to_owned())
    }

    /// Whether a `TERM_MATCH` filter lets this product through; an unknown field matches nothing,
    /// as on AWS.
    fn holds(&self, filter: &Value, region: &str) -> bool {
        let text = |key| filter.get(key).and_then(Value::as_str);
        let (Some(field), Some(value)) = (text("Field"), text("Value")) else { return false };
        self.attribute(field, region).is_some_and(|have| have == value)
    }

    /// The product's entry of the price list: a JSON document in a string.
    fn document(&self, region: &str) -> String {
        let sku = format!("SKU{}", self.name.replace('.', "").to_uppercase());
        let (term, dimension) =
            (format!("{sku}.JRTCKXETXF"), format!("{sku}.JRTCKXETXF.6YS6EN2CT7"));
        let price = format!("{}.{:06}0000", self.price / 1_000_000, self.price % 1_000_000);
        let attribute = |field| self.attribute(field, region);
        json!({
            "product": {
                "productFamily": attribute("productFamily"),
                "sku": sku,
                "attributes": {
                    "instanceType": self.name,
                    "regionCode": region,
                    "operatingSystem": "Linux",
                    "tenancy": attribute("tenancy"),
                    "preInstalledSw": "NA",
                    "capacitystatus": "Used",
                },
            },
            "serviceCode": "AmazonEC2",
            "terms": {"OnDemand": {term: {"priceDimensions": {dimension: {
                "unit": "Hrs",
                "pricePerUnit": {"USD": price},
            }}}}},
        })
        .to_string()
    }
}
