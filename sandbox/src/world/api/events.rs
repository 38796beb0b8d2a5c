//! The two event APIs are views of the same objects: core/v1 is what is stored.

use serde_json::{Value, json};

use crate::world::object;

/// Members that differ: core/v1 name, events.k8s.io/v1 name.
const MEMBERS: [(&str, &str); 6] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
];

/// An events.k8s.io/v1 event as core/v1.
pub fn to_core(event: Value) -> Value {
    let mut event = rename(event, "v1", |(core, new)| (new, core));
    if let Some(controller) = object::remove(&mut event, &["reportingController"]) {
        object::set(&mut event, &["reportingComponent"], controller);
    }
    event
}

/// A core/v1 event as events.k8s.io/v1.
pub fn from_core(event: Value) -> Value {
    let mut event = rename(event, "events.k8s.io/v1", |names| names);
    if let Some(component) = object::remove(&mut event, &["reportingComponent"]) {
        object::set(&mut event, &["reportingController"], component);
    }
    event
}

fn rename<'a>(
    mut event: Value,
    api_version: &str,
    direction: impl Fn((&'a str, &'a str)) -> (&'a str, &'a str),
) -> Value {
    for (from, to) in MEMBERS.into_iter().map(direction) {
        if let Some(value) = object::remove(&mut event, &[from]) {
            object::set(&mut event, &[to], value);
        }
    }
    if event.is_object() {
        object::set(&mut event, &["apiVersion"], json!(api_version));
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_survives_both_conversions() {
        let event = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "note": "Bound.", "reason": "Scheduled",
            "regarding": {"kind": "Pod", "name": "a"}, "reportingController": "drover.dev/leader",
        });
        let core = to_core(event.clone());
        assert_eq!(core["involvedObject"]["name"], "a");
        assert_eq!(core["message"], "Bound.");
        assert_eq!(from_core(core), event);
    }
}
