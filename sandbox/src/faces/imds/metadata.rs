//! What stands at the metadata paths of an instance.

use std::collections::BTreeMap;

use drover_common::instance_type::CapacityType;
use jiff::Timestamp;
use serde_json::json;

use crate::world::cloud::{
    InstanceCredentials, MaintenanceEvent, MaintenanceState, SimulatedInstance, SpotAction,
};

/// The account in identity documents.
const ACCOUNT: &str = "123456789012";

/// The body at a path without leading or trailing slash; a directory lists what is in it. `None`
/// where there is nothing, which for notices means that there is no notice.
pub(super) fn read(
    instance: &SimulatedInstance,
    region: &str,
    credentials: Option<&InstanceCredentials>,
    path: &str,
) -> Option<String> {
    let path = path.strip_prefix("latest/").or_else(|| path.strip_prefix("2021-07-15/"))?;
    if path == "user-data" {
        return Some(instance.user_data.clone()).filter(|text| !text.is_empty());
    }
    if path == "dynamic/instance-identity/document" {
        return Some(identity_document(instance, region));
    }
    let path = match path {
        "meta-data" => "",
        path => path.strip_prefix("meta-data/")?,
    };
    let mut tree = tree(instance, region);
    if let (Some(role), Some(credentials)) = (instance.role(), credentials) {
        tree.insert("iam/info".to_owned(), role_info(role, credentials));
        let path = format!("iam/security-credentials/{role}");
        tree.insert(path, role_credentials(credentials));
    }
    tree.get(path).cloned().or_else(|| listing(&tree, path))
}

/// The names below a directory, those that are directories themselves with a slash.
fn listing(tree: &BTreeMap<String, String>, path: &str) -> Option<String> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}/") };
    let mut names: Vec<String> = tree
        .keys()
        .filter_map(|key| key.strip_prefix(&prefix))
        .map(|rest| match rest.split_once('/') {
            Some((directory, _)) => format!("{directory}/"),
            None => rest.to_owned(),
        })
        .collect();
    names.dedup();
    (!names.is_empty()).then(|| names.join("\n"))
}

fn tree(instance: &SimulatedInstance, region: &str) -> BTreeMap<String, String> {
    let life_cycle = match instance.capacity_type {
        CapacityType::Spot => "spot",
        CapacityType::OnDemand | CapacityType::Reserved => "on-demand",
    };
    let maintenance = instance.notices.maintenance.iter();
    let (scheduled, history): (Vec<_>, Vec<_>) =
        maintenance.partition(|event| event.state == MaintenanceState::Active);
    let address = instance.private_address.to_string();
    let mut tree = BTreeMap::from(
        [
            ("ami-id", instance.image.clone()),
            ("events/maintenance/history", events(&history)),
            ("events/maintenance/scheduled", events(&scheduled)),
            ("hostname", instance.private_dns_name()),
            ("instance-id", instance.id.to_string()),
            ("instance-life-cycle", life_cycle.to_owned()),
            ("instance-type", instance.instance_type.clone()),
            ("local-hostname", instance.private_dns_name()),
            ("local-ipv4", address),
            ("mac", instance.mac()),
            ("placement/availability-zone", instance.zone.clone()),
            ("placement/availability-zone-id", instance.zone_id.clone()),
            ("placement/region", region.to_owned()),
            ("services/domain", "amazonaws.com".to_owned()),
        ]
        .map(|(path, value)| (path.to_owned(), value)),
    );
    if let Some(notice) = &instance.notices.spot {
        let time = whole_seconds(notice.time);
        let body = json!({"action": notice.action, "time": time}).to_string();
        tree.insert("spot/instance-action".to_owned(), body);
        if notice.action == SpotAction::Terminate {
            tree.insert("spot/termination-time".to_owned(), time);
        }
    }
    if let Some(noticed) = instance.notices.rebalance {
        let body = json!({"noticeTime": whole_seconds(noticed)}).to_string();
        tree.insert("events/recommendations/rebalance".to_owned(), body);
    }
    if let Some(state) = instance.notices.target_lifecycle_state {
        tree.insert("autoscaling/target-lifecycle-state".to_owned(), state.as_str().to_owned());
    }
    // EC2 does not show keys that would not be one path segment.
    let tags = instance.tags.iter().filter(|(key, _)| !key.contains(['/', ' ']));
    tree.extend(tags.map(|(key, value)| (format!("tags/instance/{key}"), value.clone())));
    tree
}

fn role_info(role: &str, credentials: &InstanceCredentials) -> String {
    json!({
        "Code": "Success",
        "LastUpdated": credentials.updated,
        "InstanceProfileArn": format!("arn:aws:iam::{ACCOUNT}:instance-profile/{role}"),
        "InstanceProfileId": "AIPASANDBOX",
    })
    .to_string()
}

fn role_credentials(credentials: &InstanceCredentials) -> String {
    json!({
        "Code": "Success",
        "LastUpdated": credentials.updated,
        "Type": "AWS-HMAC",
        "AccessKeyId": credentials.access_key_id,
        "SecretAccessKey": credentials.secret_access_key,
        "Token": credentials.token,
        "Expiration": credentials.expires,
    })
    .to_string()
}

fn events(events: &[&MaintenanceEvent]) -> String {
    // EC2's layout here is not RFC 3339: `21 Jan 2019 09:00:43 GMT`, the day without a zero.
    let layout = |time: Timestamp| time.strftime("%-d %b %Y %H:%M:%S GMT").to_string();
    let list = events.iter().map(|event| {
        let mut told = json!({
            "NotBefore": layout(event.not_before),
            "Code": event.code,
            "Description": event.told_description(),
            "EventId": event.event_id,
            "State": event.state,
        });
        if let Some(not_after) = event.not_after {
            told["NotAfter"] = layout(not_after).into();
        }
        told
    });
    serde_json::Value::Array(list.collect()).to_string()
}

fn identity_document(instance: &SimulatedInstance, region: &str) -> String {
    let architecture = if instance.architecture == "arm64" { "arm64" } else { "x86_64" };
    json!({
        "accountId": ACCOUNT,
        "architecture": architecture,
        "availabilityZone": instance.zone,
        "billingProducts": null,
        "devpayProductCodes": null,
        "marketplaceProductCodes": null,
        "imageId": instance.image,
        "instanceId": instance.id,
        "instanceType": instance.instance_type,
        "kernelId": null,
        "pendingTime": whole_seconds(instance.launched),
        "privateIp": instance.private_address,
        "ramdiskId": null,
        "region": region,
        "version": "2017-09-30",
    })
    .to_string()
}

fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
