//! Offerings and prices.

use std::collections::BTreeMap;
use std::time::SystemTime;

use aws_sdk_ec2::primitives::DateTime;
use aws_sdk_ec2::types::LocationType;
use aws_sdk_pricing::types::{Filter, FilterType};
use drover_common::ec2::{Ec2Failure, Ec2FailureKind};
use serde_json::Value;

use crate::Ec2;
use crate::failure::failure;

/// Micro-dollars an hour below which a price is a placeholder: the cheapest real type costs more
/// than ten times as much.
const ABSURD: u64 = 100;

impl Ec2 {
    pub(crate) async fn describe_offerings(&self) -> Result<Vec<(String, String)>, Ec2Failure> {
        let call = self.reads.describe_instance_type_offerings();
        let call = call.location_type(LocationType::AvailabilityZone).max_results(1000);
        let mut pages = call.into_paginator().items().send();
        let mut found = Vec::new();
        while let Some(offering) = pages.next().await {
            let offering = offering.map_err(failure)?;
            if let (Some(name), Some(zone)) = (offering.instance_type(), offering.location()) {
                found.push((name.as_str().to_owned(), zone.to_owned()));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    pub(crate) async fn describe_spot_prices(
        &self,
    ) -> Result<Vec<(String, String, u64)>, Ec2Failure> {
        // From now on: EC2 then gives the price in force of each pool, and none older.
        let call =
            self.reads.describe_spot_price_history().start_time(DateTime::from(SystemTime::now()));
        let call =
            call.product_descriptions("Linux/UNIX").product_descriptions("Linux/UNIX (Amazon VPC)");
        let mut pages = call.max_results(1000).into_paginator().items().send();
        let mut newest: BTreeMap<(String, String), (i64, u64)> = BTreeMap::new();
        while let Some(row) = pages.next().await {
            let row = row.map_err(failure)?;
            let (Some(name), Some(zone)) = (row.instance_type(), row.availability_zone()) else {
                continue;
            };
            let Some(price) = row.spot_price().and_then(micro_dollars) else { continue };
            let time = row.timestamp().map_or(0, DateTime::secs);
            let key = (name.as_str().to_owned(), zone.to_owned());
            let entry = newest.entry(key).or_insert((time, price));
            if entry.0 < time {
                *entry = (time, price);
            }
        }
        let prices = newest.into_iter().filter(|(_, (_, price))| *price >= ABSURD);
        Ok(prices.map(|((name, zone), (_, price))| (name, zone, price)).collect())
    }

    pub(crate) async fn get_on_demand_prices(&self) -> Result<Vec<(String, u64)>, Ec2Failure> {
        let mut prices = BTreeMap::new();
        // Bare metal is sold by the whole host, which Pricing calls dedicated.
        for (tenancy, family) in
            [("Shared", "Compute Instance"), ("Dedicated", "Compute Instance (bare metal)")]
        {
            let filters = [
                ("regionCode", self.region.as_str()),
                ("serviceCode", "AmazonEC2"),
                ("preInstalledSw", "NA"),
                ("operatingSystem", "Linux"),
                ("capacitystatus", "Used"),
                ("marketoption", "OnDemand"),
                ("tenancy", tenancy),
                ("productFamily", family),
            ];
            let mut call = self.pricing.get_products().service_code("AmazonEC2").max_results(100);
            for (field, value) in filters {
                let filter =
                    Filter::builder().r#type(FilterType::TermMatch).field(field).value(value);
                call = call.filters(filter.build().map_err(|error| Ec2Failure {
                    kind: Ec2FailureKind::Invalid,
                    code: "RequestNotBuilt".to_owned(),
                    message: error.to_string(),
                })?);
            }
            let mut pages = call.into_paginator().items().send();
            while let Some(product) = pages.next().await {
                let product = product.map_err(|error| self.pricing_failure(failure(error)))?;
                if let Some((name, price)) = on_demand_price(&product) {
                    prices.insert(name, price);
                }
            }
        }
        Ok(prices.into_iter().collect())
    }

    /// An imitated AWS that has no Pricing answers 5xx, for ever.
    fn pricing_failure(&self, mut failed: Ec2Failure) -> Ec2Failure {
        let no_aws_code = failed.code.starts_with("HTTP ");
        if self.pricing_is_custom && no_aws_code && failed.kind == Ec2FailureKind::Unknown {
            failed.kind = Ec2FailureKind::Unsupported;
        }
        failed
    }
}

/// Type and price of one entry of the price list (a JSON document in a string).
fn on_demand_price(product: &str) -> Option<(String, u64)> {
    let product: Value = serde_json::from_str(product).ok()?;
    let name = product.pointer("/product/attributes/instanceType")?.as_str()?;
    let terms = product.pointer("/terms/OnDemand")?.as_object()?;
    let dimensions = terms.values().find_map(|term| term.get("priceDimensions")?.as_object())?;
    let per_unit = dimensions.values().find_map(|dimension| dimension.get("pricePerUnit"))?;
    // The China partition prices in yuan.
    let price = per_unit.get("USD").or_else(|| per_unit.get("CNY"))?.as_str()?;
    let price = micro_dollars(price).filter(|price| *price >= ABSURD)?;
    Some((name.to_owned(), price))
}

/// A decimal number of dollars in micro-dollars, rounded to the nearest.
fn micro_dollars(text: &str) -> Option<u64> {
    let (whole, fraction) = text.trim().split_once('.').unwrap_or((text.trim(), ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let padded: String = fraction.chars().chain("0000000".chars()).take(7).collect();
    let tenths: u64 = padded.parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(tenths.saturating_add(5) / 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_dollars_become_exact_micro_dollars() {
        assert_eq!(micro_dollars("0.0960000000"), Some(96_000));
        assert_eq!(micro_dollars("113.568"), Some(113_568_000));
        assert_eq!(micro_dollars("4"), Some(4_000_000));
        assert_eq!(micro_dollars(".5"), Some(500_000));
        assert_eq!(micro_dollars("0.0000005"), Some(1));
        for bad in ["", ".", "-1", "1e3", "x", "1.2.3"] {
            assert_eq!(micro_dollars(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_price_list_s_placeholders_are_no_prices() {
        let entry = |price: &str| {
            format!(
                r#"{{"product":{{"attributes":{{"instanceType":"m5.large"}}}},
                    "terms":{{"OnDemand":{{"A.B":{{"priceDimensions":{{"A.B.C":
                    {{"pricePerUnit":{{"USD":"{price}"}}}}}}}}}}}}}}"#
            )
        };
        assert_eq!(on_demand_price(&entry("0.0960000000")), Some(("m5.large".to_owned(), 96_000)));
        assert_eq!(on_demand_price(&entry("0.0000000000")), None);
        assert_eq!(on_demand_price("{}"), None);
        assert_eq!(on_demand_price("not JSON"), None);
    }
}
