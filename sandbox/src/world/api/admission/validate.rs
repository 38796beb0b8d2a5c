//! What users get wrong most in built-in objects, with the field's path.

use drover_common::resources::Resources;
use serde_json::Value;

use super::metadata::{check_labels, is_label};
use crate::world::failure::Cause;
use crate::world::object;
use crate::world::resource::Resource;
use crate::world::store::selector::Selector;

const QUANTITY: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";

/// Checks a built-in object.
pub(super) fn check(resource: &Resource, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => check_pod_spec(value.get("spec"), "spec", &mut causes),
        ("apps", "deployments" | "replicasets" | "statefulsets" | "daemonsets") => {
            check_selector(value, &mut causes);
            check_count(value, "/spec/replicas", "spec.replicas", &mut causes);
            check_template(value, &mut causes);
        }
        ("batch", "jobs") => {
            check_count(value, "/spec/parallelism", "spec.parallelism", &mut causes);
            check_count(value, "/spec/completions", "spec.completions", &mut causes);
            check_template(value, &mut causes);
            let policy = object::text(value, "/spec/template/spec/restartPolicy");
            if !matches!(policy, "OnFailure" | "Never") {
                let supported = ["OnFailure".to_owned(), "Never".to_owned()];
                let field = "spec.template.spec.restartPolicy";
                causes.push(Cause::not_supported(field, &policy.into(), &supported));
            }
        }
        ("", "services") => check_service(value, &mut causes),
        ("", "persistentvolumeclaims") => check_claim(value, &mut causes),
        ("policy", "poddisruptionbudgets") => check_budget(value, &mut causes),
        ("", "nodes") => check_taints(value, &mut causes),
        ("storage.k8s.io", "storageclasses") if object::text(value, "/provisioner").is_empty() => {
            causes.push(Cause::required("provisioner", ""));
        }
        _ => {}
    }
    causes
}

/// Checks what may not change.
pub(super) fn check_change(resource: &Resource, current: &Value, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut fixed = |pointer: &str, field: &str| {
        if current.pointer(pointer) != value.pointer(pointer) {
            let shown = value.pointer(pointer).cloned().unwrap_or_default();
            causes.push(Cause::invalid(field, &shown, "field is immutable"));
        }
    };
    match (&*resource.group, &*resource.plural) {
        ("apps", _) => fixed("/spec/selector", "spec.selector"),
        ("batch", "jobs") => {
            fixed("/spec/selector", "spec.selector");
            fixed("/spec/template", "spec.template");
            fixed("/spec/completions", "spec.completions");
        }
        ("storage.k8s.io", "storageclasses") => {
            fixed("/provisioner", "provisioner");
            fixed("/parameters", "parameters");
            fixed("/volumeBindingMode", "volumeBindingMode");
        }
        ("scheduling.k8s.io", "priorityclasses") => fixed("/value", "value"),
        ("", "nodes") if !object::text(current, "/spec/providerID").is_empty() => {
            fixed("/spec/providerID", "spec.providerID");
        }
        ("", "pods") if !pod_spec_may_become(current, value) => {
            causes.push(Cause::forbidden(
                "spec",
                "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
            ));
        }
        _ => {}
    }
    causes
}

fn pod_spec_may_become(current: &Value, value: &Value) -> bool {
    let stripped = |pod: &Value| {
        let mut spec = pod.get("spec").cloned().unwrap_or_default();
        for member in ["activeDeadlineSeconds", "tolerations", "schedulingGates", "nodeSelector"] {
            object::remove(&mut spec, &[member]);
        }
        for list in ["/containers", "/initContainers"] {
            let containers = spec.pointer_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                object::remove(container, &["image"]);
            }
        }
        spec
    };
    let kept = |pointer: &str| {
        let after = object::list(value, pointer);
        object::list(current, pointer).iter().all(|item| after.contains(item))
    };
    let gated = !object::list(current, "/spec/schedulingGates").is_empty();
    let gates_only_go = {
        let before = object::list(current, "/spec/schedulingGates");
        object::list(value, "/spec/schedulingGates").iter().all(|gate| before.contains(gate))
    };
    let selector_fixed =
        gated || current.pointer("/spec/nodeSelector") == value.pointer("/spec/nodeSelector");
    stripped(current) == stripped(value)
        && kept("/spec/tolerations")
        && gates_only_go
        && selector_fixed
}

fn check_selector(value: &Value, causes: &mut Vec<Cause>) {
    let Some(selector) = Selector::from_label_selector(value.pointer("/spec/selector")) else {
        causes.push(Cause::required("spec.selector", ""));
        return;
    };
    if selector.is_empty() {
        let detail = "empty selector is invalid for deployment";
        causes.push(Cause::invalid("spec.selector", &Value::Object(Default::default()), detail));
        return;
    }
    let labels = value.pointer("/spec/template/metadata/labels").cloned().unwrap_or_default();
    let template = serde_json::json!({ "metadata": { "labels": labels } });
    if !selector.matches(&template) {
        let detail = "`selector` does not match template `labels`";
        causes.push(Cause::invalid("spec.template.metadata.labels", &labels, detail));
    }
}

fn check_count(value: &Value, pointer: &str, field: &str, causes: &mut Vec<Cause>) {
    let Some(count) = value.pointer(pointer).filter(|count| !count.is_null()) else { return };
    match count.as_i64() {
        Some(number) if number >= 0 => {}
        Some(_) => {
            causes.push(Cause::invalid(field, count, "must be greater than or equal to 0"));
        }
        None => causes.push(Cause::invalid(field, count, "must be an integer")),
    }
}

fn check_template(value: &Value, causes: &mut Vec<Cause>) {
    let labels = value.pointer("/spec/template/metadata/labels");
    check_labels(labels, "spec.template.metadata.labels", causes);
    check_pod_spec(value.pointer("/spec/template/spec"), "spec.template.spec", causes);
}

fn check_pod_spec(spec: Option<&Value>, field: &str, causes: &mut Vec<Cause>) {
    let Some(spec) = spec.filter(|spec| spec.is_object()) else {
        causes.push(Cause::required(format!("{field}.containers"), ""));
        return;
    };
    if object::list(spec, "/containers").is_empty() {
        causes.push(Cause::required(format!("{field}.containers"), ""));
    }
    let mut names = Vec::new();
    for list in ["initContainers", "containers"] {
        for (index, container) in object::list(spec, &format!("/{list}")).iter().enumerate() {
            let field = format!("{field}.{list}[{index}]");
            check_container(container, &field, causes);
            let name = object::text(container, "/name");
            if !name.is_empty() && names.contains(&name) {
                causes.push(Cause::duplicate(format!("{field}.name"), &name.into()));
            }
            names.push(name);
        }
    }
    let policy = object::text(spec, "/restartPolicy");
    if !matches!(policy, "" | "Always" | "OnFailure" | "Never") {
        let supported = ["Always", "OnFailure", "Never"].map(str::to_owned);
        let field = format!("{field}.restartPolicy");
        causes.push(Cause::not_supported(field, &policy.into(), &supported));
    }
    check_count(
        spec,
        "/terminationGracePeriodSeconds",
        &format!("{field}.terminationGracePeriodSeconds"),
        causes,
    );
    check_tolerations(spec, field, causes);
    check_labels(spec.get("nodeSelector"), &format!("{field}.nodeSelector"), causes);
}

fn check_container(container: &Value, field: &str, causes: &mut Vec<Cause>) {
    let name = object::text(container, "/name");
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    } else if !is_label(name) {
        let detail = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
        causes.push(Cause::invalid(format!("{field}.name"), &name.into(), detail));
    }
    if object::text(container, "/image").is_empty() {
        causes.push(Cause::required(format!("{field}.image"), ""));
    }
    let amount = |side: &str, name: &str| {
        let value = container.pointer(&format!("/resources/{side}"))?.get(name)?;
        parse_quantity(name, value)
    };
    for side in ["requests", "limits"] {
        let amounts = container.pointer(&format!("/resources/{side}")).and_then(Value::as_object);
        for (name, value) in amounts.into_iter().flatten() {
            let field = format!("{field}.resources.{side}[{name}]");
            match parse_quantity(name, value) {
                None => causes.push(Cause::invalid(field, value, QUANTITY)),
                Some(number) if number < 0 => {
                    causes.push(Cause::invalid(field, value, "must be greater than or equal to 0"));
                }
                Some(number) => {
                    if side == "requests"
                        && amount("limits", name).is_some_and(|limit| number > limit)
                    {
                        let limit = container
                            .pointer("/resources/limits")
                            .and_then(|limits| limits.get(name));
                        let shown = limit.and_then(Value::as_str).unwrap_or_default();
                        let detail =
                            format!("must be less than or equal to {name} limit of {shown}");
                        causes.push(Cause::invalid(field, value, &detail));
                    }
                }
            }
        }
    }
}

/// A quantity in the planner's own units.
fn parse_quantity(name: &str, value: &Value) -> Option<i64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let amounts = Resources::from_quantities([(name, text.as_str())]).ok()?;
    amounts.iter().next().map(|(_, amount)| amount)
}

fn check_tolerations(spec: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (index, toleration) in object::list(spec, "/tolerations").iter().enumerate() {
        let field = format!("{field}.tolerations[{index}]");
        let (key, operator) =
            (object::text(toleration, "/key"), object::text(toleration, "/operator"));
        let value = object::text(toleration, "/value");
        match operator {
            "Exists" if !value.is_empty() => {
                let detail = "value must be empty when `operator` is 'Exists'";
                causes.push(Cause::invalid(format!("{field}.operator"), &value.into(), detail));
            }
            "Exists" => {}
            "" | "Equal" if key.is_empty() => {
                let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
                causes.push(Cause::invalid(format!("{field}.operator"), &operator.into(), detail));
            }
            "" | "Equal" => {}
            other => {
                let supported = ["Equal".to_owned(), "Exists".to_owned()];
                causes.push(Cause::not_supported(
                    format!("{field}.operator"),
                    &other.into(),
                    &supported,
                ));
            }
        }
        let effect = object::text(toleration, "/effect");
        if !matches!(effect, "" | "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"].map(str::to_owned);
            causes.push(Cause::not_supported(
                format!("{field}.effect"),
                &effect.into(),
                &supported,
            ));
        }
    }
}

fn check_taints(node: &Value, causes: &mut Vec<Cause>) {
    let mut seen = Vec::new();
    for (index, taint) in object::list(node, "/spec/taints").iter().enumerate() {
        let field = format!("spec.taints[{index}]");
        let (key, effect) = (object::text(taint, "/key"), object::text(taint, "/effect"));
        if key.is_empty() {
            causes.push(Cause::required(format!("{field}.key"), ""));
        }
        if !matches!(effect, "NoSchedule" | "PreferNoSchedule" | "NoExecute") {
            let supported = ["NoSchedule", "PreferNoSchedule", "NoExecute"].map(str::to_owned);
            causes.push(Cause::not_supported(
                format!("{field}.effect"),
                &effect.into(),
                &supported,
            ));
        }
        if seen.contains(&(key, effect)) {
            causes.push(Cause::duplicate(field, taint));
        }
        seen.push((key, effect));
    }
}

fn check_service(value: &Value, causes: &mut Vec<Cause>) {
    let ports = object::list(value, "/spec/ports");
    let needs_ports = object::text(value, "/spec/type") != "ExternalName"
        && object::text(value, "/spec/clusterIP") != "None";
    if needs_ports && ports.is_empty() {
        causes.push(Cause::required("spec.ports", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let number = port.get("port").cloned().unwrap_or_default();
        if !number.as_i64().is_some_and(|number| (1..=65_535).contains(&number)) {
            let field = format!("spec.ports[{index}].port");
            causes.push(Cause::invalid(field, &number, "must be between 1 and 65535, inclusive"));
        }
        if ports.len() > 1 && object::text(port, "/name").is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
}

fn check_claim(value: &Value, causes: &mut Vec<Cause>) {
    if object::list(value, "/spec/accessModes").is_empty() {
        causes.push(Cause::required("spec.accessModes", "at least 1 access mode is required"));
    }
    match value.pointer("/spec/resources/requests/storage") {
        None => causes.push(Cause::required("spec.resources[storage]", "")),
        Some(amount) if parse_quantity("storage", amount).is_none() => {
            causes.push(Cause::invalid("spec.resources[storage]", amount, QUANTITY));
        }
        Some(_) => {}
    }
}

fn check_budget(value: &Value, causes: &mut Vec<Cause>) {
    let spec = |member: &str| value.pointer("/spec").and_then(|spec| spec.get(member));
    if spec("minAvailable").is_some() && spec("maxUnavailable").is_some() {
        let shown = value.get("spec").cloned().unwrap_or_default();
        let detail = "minAvailable and maxUnavailable cannot be both set";
        causes.push(Cause::invalid("spec", &shown, detail));
    }
    for member in ["minAvailable", "maxUnavailable"] {
        let Some(amount) = spec(member) else { continue };
        let fits = match amount {
            Value::String(text) => text
                .strip_suffix('%')
                .and_then(|digits| digits.parse::<u32>().ok())
                .is_some_and(|percent| percent <= 100),
            other => other.as_i64().is_some_and(|number| number >= 0),
        };
        if !fits {
            let detail = "must be an integer that is not negative, or a percentage of at most 100%";
            causes.push(Cause::invalid(format!("spec.{member}"), amount, detail));
        }
    }
    let policy = object::text(value, "/spec/unhealthyPodEvictionPolicy");
    if !matches!(policy, "" | "IfHealthyBudget" | "AlwaysAllow") {
        let supported = ["AlwaysAllow", "IfHealthyBudget"].map(str::to_owned);
        let field = "spec.unhealthyPodEvictionPolicy";
        causes.push(Cause::not_supported(field, &policy.into(), &supported));
    }
}
