//! What marks an object as one that is to go, and when it has nothing left to wait for.

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::write::{DeleteOptions, Propagation};
use crate::world::object;
use crate::world::resource::{NAMESPACES, PODS, Resource};

/// The grace a pod's deletion gets: the shortest that anybody asked for.
fn grace(resource: &Resource, value: &Value, options: &DeleteOptions) -> i64 {
    if *resource != PODS {
        return 0;
    }
    let settled = matches!(object::text(value, "/status/phase"), "Succeeded" | "Failed")
        || object::text(value, "/spec/nodeName").is_empty();
    if settled {
        return 0;
    }
    let own = object::integer(value, "/spec/terminationGracePeriodSeconds").unwrap_or(30);
    let asked = options.grace_seconds.unwrap_or(own).max(0);
    if object::is_deleting(value) {
        let given = object::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or(asked);
        return if options.grace_seconds.is_some() { asked.min(given) } else { given };
    }
    asked
}

/// Marks an object as one that is to go, or shortens the grace of a pod that is.
pub(super) fn mark_deleted(
    resource: &Resource,
    value: &mut Value,
    options: &DeleteOptions,
    now: Timestamp,
) {
    let grace = grace(resource, value, options);
    let finalizer = match options.propagation {
        Propagation::Background => None,
        Propagation::Foreground => Some("foregroundDeletion"),
        Propagation::Orphan => Some("orphan"),
    };
    if let Some(finalizer) = finalizer
        && !object::is_deleting(value)
    {
        let finalizers = object::entry(object::entry(value, "metadata"), "finalizers");
        match finalizers {
            Value::Array(list) if list.iter().any(|item| item == finalizer) => {}
            Value::Array(list) => list.push(finalizer.into()),
            other => *other = Value::Array(vec![finalizer.into()]),
        }
    }
    let end = if object::is_deleting(value) {
        shortened(value, grace, now)
    } else {
        Some((after(now, grace), grace))
    };
    if let Some((due, grace)) = end {
        object::set(value, &["metadata", "deletionTimestamp"], object::seconds(due));
        object::set(value, &["metadata", "deletionGracePeriodSeconds"], grace);
    }
    if *resource == NAMESPACES {
        object::set(value, &["status", "phase"], "Terminating");
    }
}

/// The new end of a deletion under way and its grace, if this one is shorter. It is counted from the first
/// deletion, and what would be over by now ends now, since Kubernetes 1.33 with a grace of a second.
fn shortened(value: &Value, grace: i64, now: Timestamp) -> Option<(Timestamp, i64)> {
    let given = object::integer(value, "/metadata/deletionGracePeriodSeconds")?;
    let end: Timestamp = object::text(value, "/metadata/deletionTimestamp").parse().ok()?;
    let due = after(end, grace.saturating_sub(given));
    (grace < given).then_some(if due < now { (now, grace.min(1)) } else { (due, grace) })
}

fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds)).unwrap_or(time)
}

/// Whether a marked object has nothing left to wait for.
pub(super) fn is_finished(resource: &Resource, value: &Value) -> bool {
    object::is_deleting(value)
        && object::list(value, "/metadata/finalizers").is_empty()
        && object::integer(value, "/metadata/deletionGracePeriodSeconds").unwrap_or(0) == 0
        && (*resource != NAMESPACES || object::list(value, "/spec/finalizers").is_empty())
}
