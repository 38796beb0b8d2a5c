//! Strategic merge, and the merge that server-side apply makes: lists of objects merge by key.

use serde_json::{Map, Value};

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;

/// The key by which the items of a list are the same item, by the list's name. Lists that are not
/// here are replaced as a whole (tolerations, taints, args, …).
fn merge_key(list: &str, items: &[Value]) -> Option<&'static str> {
    let key = match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "secrets"
        | "webhooks" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "conditions" | "addresses" => "type",
        "ownerReferences" => "uid",
        "hostAliases" | "podIPs" | "hostIPs" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        "ports" if items.iter().any(|item| item.get("containerPort").is_some()) => "containerPort",
        "ports" => "port",
        _ => return None,
    };
    // A list of plain texts may bear the same name.
    items.iter().all(Value::is_object).then_some(key)
}

/// Lists of plain values that are united instead of replaced.
fn is_united(list: &str) -> bool {
    matches!(list, "finalizers")
}

/// A strategic merge patch.
///
/// # Errors
/// 400 for an unknown directive or an item without its merge key.
pub(super) fn merge(target: Value, patch: &Value) -> ApiResult<Value> {
    let Some(changes) = patch.as_object() else {
        return Err(ApiFailure::bad_request("a strategic merge patch is an object"));
    };
    Ok(Value::Object(merge_object(target, changes)?))
}

fn merge_object(target: Value, changes: &Map<String, Value>) -> ApiResult<Map<String, Value>> {
    let mut fields = match target {
        Value::Object(fields) => fields,
        _ => Map::new(),
    };
    match changes.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let kept = changes.iter().filter(|(name, _)| !name.starts_with('$'));
            return Ok(kept.map(|(name, value)| (name.clone(), value.clone())).collect());
        }
        Some("delete") => return Ok(Map::new()),
        Some("merge") | None => {}
        Some(other) => {
            return Err(ApiFailure::bad_request(format!(
                "Unrecognized value for '$patch': {other}"
            )));
        }
    }
    if let Some(retained) = changes.get("$retainKeys").and_then(Value::as_array) {
        fields.retain(|name, _| retained.iter().any(|kept| kept == name));
    }
    for (name, change) in changes {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            delete_plain(&mut fields, list, change);
        }
    }
    for (name, change) in changes.iter().filter(|(name, _)| !name.starts_with('$')) {
        match change {
            Value::Null => {
                fields.remove(name);
            }
            Value::Object(inner) => {
                let merged = merge_object(fields.remove(name).unwrap_or_default(), inner)?;
                fields.insert(name.clone(), Value::Object(merged));
            }
            Value::Array(items) => {
                let merged = merge_list(name, fields.remove(name), items)?;
                fields.insert(name.clone(), Value::Array(merged));
            }
            plain => {
                fields.insert(name.clone(), plain.clone());
            }
        }
    }
    for (name, order) in changes {
        if let Some(list) = name.strip_prefix("$setElementOrder/") {
            reorder(&mut fields, list, order);
        }
    }
    Ok(fields)
}

fn delete_plain(fields: &mut Map<String, Value>, list: &str, gone: &Value) {
    let gone = gone.as_array().map_or(&[][..], Vec::as_slice);
    if let Some(Value::Array(items)) = fields.get_mut(list) {
        items.retain(|item| !gone.contains(item));
    }
}

fn merge_list(name: &str, current: Option<Value>, changes: &[Value]) -> ApiResult<Vec<Value>> {
    let mut items = match current {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    if is_united(name) {
        for change in changes {
            if !items.contains(change) {
                items.push(change.clone());
            }
        }
        return Ok(items);
    }
    let both: Vec<Value> = items.iter().chain(changes).cloned().collect();
    let Some(key) = merge_key(name, &both) else {
        return Ok(changes.to_vec());
    };
    let directive = |change: &Value, word: &str| object::text(change, "/$patch") == word;
    if changes.iter().any(|change| directive(change, "replace")) {
        return Ok(changes
            .iter()
            .filter(|change| !directive(change, "replace"))
            .cloned()
            .collect());
    }
    for change in changes {
        let Some(identity) = change.get(key) else {
            return Err(ApiFailure::bad_request(format!(
                "map: {change} does not contain declared merge key: {key}"
            )));
        };
        let place = items.iter().position(|item| item.get(key) == Some(identity));
        if directive(change, "delete") {
            items.retain(|item| item.get(key) != Some(identity));
            continue;
        }
        let none = Map::new();
        let fields = change.as_object().unwrap_or(&none);
        match place.and_then(|index| items.get_mut(index)) {
            Some(item) => *item = Value::Object(merge_object(item.take(), fields)?),
            None => items.push(Value::Object(merge_object(Value::Null, fields)?)),
        }
    }
    Ok(items)
}

/// Sorts a list as `$setElementOrder` says; items it does not name keep their place at the end.
fn reorder(fields: &mut Map<String, Value>, list: &str, order: &Value) {
    let order = order.as_array().map_or(&[][..], Vec::as_slice);
    let Some(Value::Array(items)) = fields.get_mut(list) else { return };
    let key = merge_key(list, items);
    let rank = |item: &Value| {
        let same = |wanted: &Value| match key {
            Some(key) => wanted.get(key) == item.get(key),
            None => wanted == item,
        };
        order.iter().position(same).unwrap_or(usize::MAX)
    };
    items.sort_by_key(rank);
}

/// What server-side apply makes of an object: the manager's fields as it now says them, without
/// those it said before and no longer does; everyone else's stay.
pub(super) fn apply(target: Value, wanted: &Value, manager: &str) -> Value {
    let before = object::list(&target, "/metadata/managedFields")
        .iter()
        .find(|entry| object::text(entry, "/manager") == manager)
        .and_then(|entry| entry.get("fieldsV1"))
        .cloned();
    let mut value = target;
    if let Some(before) = before {
        withdraw(&mut value, wanted, &before);
    }
    overlay(value, wanted, "")
}

/// Removes what the manager owned and says no longer.
fn withdraw(value: &mut Value, wanted: &Value, owned: &Value) {
    let (Some(fields), Some(owned)) = (value.as_object_mut(), owned.as_object()) else { return };
    for (name, inner) in owned {
        let Some(name) = name.strip_prefix("f:") else { continue };
        match (wanted.get(name), fields.get_mut(name)) {
            (None, Some(current)) if is_leaf(inner) || !current.is_object() => {
                fields.remove(name);
            }
            (still, Some(current)) => withdraw(current, still.unwrap_or(&Value::Null), inner),
            (_, None) => {}
        }
    }
}

fn is_leaf(owned: &Value) -> bool {
    owned.as_object().is_none_or(Map::is_empty)
}

fn overlay(current: Value, wanted: &Value, name: &str) -> Value {
    match (current, wanted) {
        (Value::Object(mut fields), Value::Object(changes)) => {
            for (name, change) in changes {
                let merged = overlay(fields.remove(name).unwrap_or_default(), change, name);
                fields.insert(name.clone(), merged);
            }
            Value::Object(fields)
        }
        (Value::Array(mut items), Value::Array(changes)) => {
            let both: Vec<Value> = items.iter().chain(changes).cloned().collect();
            let Some(key) = merge_key(name, &both) else { return wanted.clone() };
            for change in changes {
                let place = items.iter_mut().find(|item| item.get(key) == change.get(key));
                match place {
                    Some(item) => *item = overlay(item.take(), change, ""),
                    None => items.push(change.clone()),
                }
            }
            Value::Array(items)
        }
        (_, wanted) => wanted.clone(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn containers_merge_by_name_and_tolerations_are_replaced() {
        let pod = json!({
            "containers": [{"name": "a", "image": "a:1", "env": [{"name": "X", "value": "1"}]}, {"name": "b"}],
            "tolerations": [{"key": "one"}],
        });
        let patch = json!({
            "containers": [{"name": "a", "image": "a:2", "env": [{"name": "Y", "value": "2"}]}, {"name": "b", "$patch": "delete"}],
            "tolerations": [{"key": "two"}],
        });
        assert_eq!(
            merge(pod, &patch).unwrap(),
            json!({
                "containers": [{"name": "a", "image": "a:2", "env": [{"name": "X", "value": "1"}, {"name": "Y", "value": "2"}]}],
                "tolerations": [{"key": "two"}],
            })
        );
    }

    #[test]
    fn directives_replace_retain_order_and_delete() {
        let value = json!({"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}},
            "finalizers": ["a", "b"], "env": [{"name": "A"}, {"name": "B"}]});
        let patch = json!({
            "strategy": {"$retainKeys": ["type"], "type": "Recreate"},
            "$deleteFromPrimitiveList/finalizers": ["a"], "finalizers": ["c"],
            "$setElementOrder/env": [{"name": "B"}, {"name": "A"}],
        });
        assert_eq!(
            merge(value, &patch).unwrap(),
            json!({"strategy": {"type": "Recreate"}, "finalizers": ["b", "c"],
                "env": [{"name": "B"}, {"name": "A"}]})
        );
        assert_eq!(merge(json!({}), &json!({"$patch": "odd"})).unwrap_err().code, 400);
        let keyless = json!({"containers": [{"image": "a"}]});
        assert_eq!(merge(json!({}), &keyless).unwrap_err().code, 400);
    }

    #[test]
    fn apply_takes_back_what_the_manager_no_longer_says() {
        let current = json!({
            "metadata": {"labels": {"mine": "1", "theirs": "2"}, "managedFields": [
                {"manager": "me", "fieldsV1": {"f:metadata": {"f:labels": {"f:mine": {}}}}}]},
            "spec": {"replicas": 3},
        });
        let applied =
            apply(current, &json!({"metadata": {"labels": {}}, "spec": {"paused": true}}), "me");
        assert_eq!(applied["metadata"]["labels"], json!({"theirs": "2"}));
        assert_eq!(applied["spec"], json!({"replicas": 3, "paused": true}));
    }
}
