//! The cells of nodes.

use serde_json::Value;

use super::{AGE, Known, or_none};
use crate::world::object::{self, list, text};

pub(super) const COLUMNS: &[Known] = &[
    ("Status", 0, |node, _| status(node).into()),
    ("Roles", 0, |node, _| or_none(&roles(node))),
    AGE,
    ("Version", 0, |node, _| text(node, "/status/nodeInfo/kubeletVersion").into()),
    ("Internal-IP", 1, |node, _| or_none(address(node, "InternalIP"))),
    ("External-IP", 1, |node, _| or_none(address(node, "ExternalIP"))),
    ("OS-Image", 1, |node, _| text(node, "/status/nodeInfo/osImage").into()),
    ("Kernel-Version", 1, |node, _| text(node, "/status/nodeInfo/kernelVersion").into()),
    ("Container-Runtime", 1, |node, _| {
        text(node, "/status/nodeInfo/containerRuntimeVersion").into()
    }),
];

fn status(node: &Value) -> String {
    let ready = match object::condition(node, "Ready") {
        "True" => "Ready",
        "" => "Unknown",
        _ => "NotReady",
    };
    let cordoned =
        if object::flag(node, "/spec/unschedulable") { ",SchedulingDisabled" } else { "" };
    format!("{ready}{cordoned}")
}

fn roles(node: &Value) -> String {
    let labels = node.pointer("/metadata/labels").and_then(Value::as_object);
    let roles = labels
        .into_iter()
        .flatten()
        .filter_map(|(label, _)| label.strip_prefix("node-role.kubernetes.io/"));
    roles.collect::<Vec<_>>().join(",")
}

fn address<'a>(node: &'a Value, kind: &str) -> &'a str {
    let mut addresses = list(node, "/status/addresses").iter();
    addresses
        .find(|address| text(address, "/type") == kind)
        .map_or("", |address| text(address, "/address"))
}
