//! Reading and writing fields of JSON objects by path.

use drover_common::cluster::ObjectKey;
use jiff::Timestamp;
use serde_json::{Map, Value};

/// The text at a JSON pointer (`/metadata/name`); empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The integer at a JSON pointer.
pub fn integer(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// Whether the value at a JSON pointer is `true`.
pub fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The list at a JSON pointer; empty if there is none.
pub fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The timestamp at a JSON pointer.
pub fn time(object: &Value, pointer: &str) -> Option<Timestamp> {
    text(object, pointer).parse().ok()
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// `metadata.namespace`; empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    text(object, "/metadata/namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Namespace and name.
pub fn key(object: &Value) -> ObjectKey {
    ObjectKey::new(namespace(object), name(object))
}

/// One label's value.
pub fn label<'a>(object: &'a Value, label: &str) -> Option<&'a str> {
    object.pointer("/metadata/labels")?.get(label)?.as_str()
}

/// One annotation's value.
pub fn annotation<'a>(object: &'a Value, annotation: &str) -> Option<&'a str> {
    object.pointer("/metadata/annotations")?.get(annotation)?.as_str()
}

/// Whether deletion has been asked for.
pub fn is_deleting(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some_and(|value| !value.is_null())
}

/// The owner reference with `controller: true`.
pub fn controller(object: &Value) -> Option<&Value> {
    list(object, "/metadata/ownerReferences").iter().find(|owner| flag(owner, "/controller"))
}

/// The status of a condition (`True`, `False`, `Unknown`) by type; empty if it is absent.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a str {
    list(object, "/status/conditions")
        .iter()
        .find(|condition| text(condition, "/type") == kind)
        .map_or("", |condition| text(condition, "/status"))
}

/// Sets a condition by its type. `lastTransitionTime` moves only when the status changes. Returns
/// whether anything changed.
pub fn set_condition(
    object: &mut Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> bool {
    let conditions = entry(entry(object, "status"), "conditions");
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    let Value::Array(conditions) = conditions else { return false };
    let mut wanted = Map::new();
    wanted.insert("type".to_owned(), kind.into());
    wanted.insert("status".to_owned(), status.into());
    if !reason.is_empty() {
        wanted.insert("reason".to_owned(), reason.into());
    }
    if !message.is_empty() {
        wanted.insert("message".to_owned(), message.into());
    }
    let existing = conditions.iter_mut().find(|condition| text(condition, "/type") == kind);
    let since = existing
        .as_ref()
        .filter(|condition| text(condition, "/status") == status)
        .map(|condition| text(condition, "/lastTransitionTime").to_owned())
        .filter(|since| !since.is_empty())
        .unwrap_or_else(|| seconds(now));
    wanted.insert("lastTransitionTime".to_owned(), since.into());
    match existing {
        Some(condition) => {
            let before = condition.clone();
            // Heartbeats and observed generations of other writers stay.
            if let Value::Object(fields) = condition {
                fields.remove("reason");
                fields.remove("message");
                fields.extend(wanted);
            }
            *condition != before
        }
        None => {
            conditions.push(Value::Object(wanted));
            true
        }
    }
}

/// The member of an object, made if absent. A value that is not an object becomes one.
pub fn entry<'a>(object: &'a mut Value, member: &str) -> &'a mut Value {
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    match object {
        Value::Object(fields) => fields.entry(member).or_insert(Value::Null),
        other => other,
    }
}

/// Sets the value at a path of members, making objects on the way.
pub fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut place = object;
    for member in path {
        place = entry(place, member);
    }
    *place = value.into();
}

/// Sets the value at a path only where there is none (or null).
pub fn set_default(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    let mut place = object;
    for member in path {
        place = entry(place, member);
    }
    if place.is_null() {
        *place = value.into();
    }
}

/// Removes a member by path; absent members on the way are left absent.
pub fn remove(object: &mut Value, path: &[&str]) -> Option<Value> {
    let (last, parents) = path.split_last()?;
    let mut place = object;
    for member in parents {
        place = place.get_mut(member)?;
    }
    place.as_object_mut()?.remove(*last)
}

/// A timestamp as Kubernetes writes most of them: UTC, whole seconds.
pub fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A timestamp as leases and new events carry it: UTC, microseconds.
pub fn microseconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_keeps_its_transition_time_until_its_status_changes() {
        let mut node = json!({});
        let (one, two): (Timestamp, Timestamp) =
            ("2026-01-01T00:00:00Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        assert!(set_condition(&mut node, "Ready", "False", "Booting", "", one));
        assert!(!set_condition(&mut node, "Ready", "False", "Booting", "", two));
        assert_eq!(
            list(&node, "/status/conditions")[0]["lastTransitionTime"],
            "2026-01-01T00:00:00Z"
        );
        assert!(set_condition(&mut node, "Ready", "True", "KubeletReady", "", two));
        assert_eq!(
            list(&node, "/status/conditions")[0]["lastTransitionTime"],
            "2026-01-01T00:01:00Z"
        );
        assert_eq!(condition(&node, "Ready"), "True");
    }

    #[test]
    fn paths_are_made_on_writing_only() {
        let mut pod = json!({"spec": null});
        assert_eq!(remove(&mut pod, &["spec", "nodeName"]), None);
        set_default(&mut pod, &["spec", "nodeName"], "a");
        set_default(&mut pod, &["spec", "nodeName"], "b");
        assert_eq!(text(&pod, "/spec/nodeName"), "a");
        assert_eq!(
            microseconds("2026-01-01T00:00:00.5Z".parse().unwrap()),
            "2026-01-01T00:00:00.500000Z"
        );
    }
}
