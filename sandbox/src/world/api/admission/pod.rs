//! Pod admission: priority, service account, default tolerations, quality of service.

use serde_json::{Value, json};

use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{Definition, PODS, PRIORITY_CLASSES};
use crate::world::store::Store;

/// Completes a new pod; other kinds pass.
pub(super) fn admit(store: &Store, definition: &Definition, pod: &mut Value) -> ApiResult<()> {
    if definition.resource != PODS {
        return Ok(());
    }
    resolve_priority(store, pod)?;
    object::set_default(pod, &["spec", "serviceAccountName"], "default");
    let account = object::text(pod, "/spec/serviceAccountName").to_owned();
    object::set(pod, &["spec", "serviceAccount"], account);
    add_tolerations(pod);
    object::set(pod, &["status", "phase"], "Pending");
    let quality = quality_of_service(pod);
    object::set(pod, &["status", "qosClass"], quality);
    if !object::list(pod, "/spec/schedulingGates").is_empty() {
        let gated = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastTransitionTime": object::text(pod, "/metadata/creationTimestamp"),
        }]);
        object::set(pod, &["status", "conditions"], gated);
    }
    Ok(())
}

fn resolve_priority(store: &Store, pod: &mut Value) -> ApiResult<()> {
    let name = object::text(pod, "/spec/priorityClassName").to_owned();
    let class = if name.is_empty() {
        let default = |class: &&Value| object::flag(class, "/globalDefault");
        store.iter(&PRIORITY_CLASSES).map(|(_, class)| &**class).find(default)
    } else {
        let found = store.find(&PRIORITY_CLASSES, "", &name).map(|class| &**class);
        if found.is_none() {
            let detail = format!("no PriorityClass with name {name} was found");
            return Err(ApiFailure::forbidden(&PODS, object::name(pod), &detail));
        }
        found
    };
    let priority = class.and_then(|class| object::integer(class, "/value")).unwrap_or(0);
    let policy = class.map_or("", |class| object::text(class, "/preemptionPolicy")).to_owned();
    let class_name = class.map_or("", |class| object::name(class)).to_owned();
    object::set(pod, &["spec", "priority"], priority);
    if !class_name.is_empty() {
        object::set(pod, &["spec", "priorityClassName"], class_name);
    }
    let policy = if policy.is_empty() { "PreemptLowerPriority".to_owned() } else { policy };
    object::set_default(pod, &["spec", "preemptionPolicy"], policy);
    Ok(())
}

/// Pods outlive a node's failure for five minutes, unless they say otherwise.
fn add_tolerations(pod: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = object::list(pod, "/spec/tolerations").iter().any(|toleration| {
            matches!(object::text(toleration, "/effect"), "" | "NoExecute")
                && (object::text(toleration, "/key") == key
                    || (object::text(toleration, "/key").is_empty()
                        && object::text(toleration, "/operator") == "Exists"))
        });
        if tolerated {
            continue;
        }
        let added = json!({
            "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300,
        });
        match object::entry(object::entry(pod, "spec"), "tolerations") {
            Value::Array(tolerations) => tolerations.push(added),
            other => *other = json!([added]),
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`, from cpu and memory of all containers.
fn quality_of_service(pod: &Value) -> &'static str {
    let containers = || {
        object::list(pod, "/spec/containers")
            .iter()
            .chain(object::list(pod, "/spec/initContainers"))
    };
    let amount = |container: &Value, side: &str, name: &str| {
        container.pointer(&format!("/resources/{side}/{name}")).cloned()
    };
    let mut any = false;
    let mut guaranteed = true;
    for container in containers() {
        for name in ["cpu", "memory"] {
            let (request, limit) =
                (amount(container, "requests", name), amount(container, "limits", name));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}
