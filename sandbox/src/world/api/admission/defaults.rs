//! The defaults that clients see, as the v1 API fills them.

use serde_json::{Value, json};

use crate::world::object::{self, set_default};
use crate::world::resource::Resource;

/// Fills a built-in object's defaults.
pub(super) fn fill(resource: &Resource, value: &mut Value) {
    match (&*resource.group, &*resource.plural) {
        ("", "pods") => {
            if let Some(spec) = value.get_mut("spec") {
                pod_spec(spec);
                requests_from_limits(spec);
            }
        }
        ("", "namespaces") => namespace(value),
        ("", "nodes") => {
            if let Some(capacity) = value.pointer("/status/capacity").cloned() {
                set_default(value, &["status", "allocatable"], capacity);
            }
        }
        ("", "secrets") => secret(value),
        ("", "services") => service(value),
        ("", "persistentvolumeclaims") => {
            set_default(value, &["spec", "volumeMode"], "Filesystem");
            set_default(value, &["status", "phase"], "Pending");
        }
        ("", "persistentvolumes") => {
            set_default(value, &["spec", "volumeMode"], "Filesystem");
            set_default(value, &["spec", "persistentVolumeReclaimPolicy"], "Retain");
            set_default(value, &["status", "phase"], "Pending");
        }
        ("storage.k8s.io", "storageclasses") => {
            set_default(value, &["reclaimPolicy"], "Delete");
            set_default(value, &["volumeBindingMode"], "Immediate");
        }
        ("scheduling.k8s.io", "priorityclasses") => {
            set_default(value, &["preemptionPolicy"], "PreemptLowerPriority");
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => {
            set_default(value, &["roleRef", "apiGroup"], "rbac.authorization.k8s.io");
        }
        ("apps" | "batch", plural) => workload(plural, value),
        _ => {}
    }
}

fn namespace(value: &mut Value) {
    let name = object::name(value).to_owned();
    object::set(value, &["metadata", "labels", "kubernetes.io/metadata.name"], name);
    set_default(value, &["spec", "finalizers"], json!(["kubernetes"]));
    set_default(value, &["status", "phase"], "Active");
}

/// `stringData` is a way to write `data`.
fn secret(value: &mut Value) {
    use base64::Engine as _;
    set_default(value, &["type"], "Opaque");
    if let Some(Value::Object(texts)) = object::remove(value, &["stringData"]) {
        for (name, text) in texts {
            let encoded =
                base64::engine::general_purpose::STANDARD.encode(text.as_str().unwrap_or_default());
            object::set(value, &["data", &name], encoded);
        }
    }
}

fn service(value: &mut Value) {
    set_default(value, &["spec", "type"], "ClusterIP");
    set_default(value, &["spec", "sessionAffinity"], "None");
    set_default(value, &["spec", "internalTrafficPolicy"], "Cluster");
    set_default(value, &["spec", "ipFamilyPolicy"], "SingleStack");
    set_default(value, &["spec", "ipFamilies"], json!(["IPv4"]));
    set_default(value, &["status"], json!({ "loadBalancer": {} }));
    let external = object::text(value, "/spec/type") == "ExternalName";
    if object::text(value, "/spec/clusterIP").is_empty() && !external {
        // The address follows from the object's id: no allocator is needed to keep them apart.
        let hash = object::uid(value)
            .bytes()
            .fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let address = format!("10.96.{}.{}", (hash >> 8) & 0xff, 1 + (hash & 0xff) % 254);
        object::set(value, &["spec", "clusterIP"], address);
    }
    if let (false, Some(address)) = (external, value.pointer("/spec/clusterIP").cloned()) {
        set_default(value, &["spec", "clusterIPs"], json!([address]));
    }
    for port in items(value, "/spec/ports") {
        set_default(port, &["protocol"], "TCP");
        if let Some(number) = port.get("port").cloned() {
            set_default(port, &["targetPort"], number);
        }
    }
}

fn workload(plural: &str, value: &mut Value) {
    if !value.get("spec").is_some_and(Value::is_object) {
        return;
    }
    let Some(spec) = value.get_mut("spec") else { return };
    match plural {
        "deployments" => {
            set_default(spec, &["replicas"], 1);
            set_default(spec, &["revisionHistoryLimit"], 10);
            set_default(spec, &["progressDeadlineSeconds"], 600);
            set_default(spec, &["strategy", "type"], "RollingUpdate");
            if object::text(spec, "/strategy/type") == "RollingUpdate" {
                set_default(spec, &["strategy", "rollingUpdate", "maxSurge"], "25%");
                set_default(spec, &["strategy", "rollingUpdate", "maxUnavailable"], "25%");
            }
        }
        "replicasets" => set_default(spec, &["replicas"], 1),
        "statefulsets" => {
            set_default(spec, &["replicas"], 1);
            set_default(spec, &["revisionHistoryLimit"], 10);
            set_default(spec, &["podManagementPolicy"], "OrderedReady");
            set_default(spec, &["updateStrategy", "type"], "RollingUpdate");
            if object::text(spec, "/updateStrategy/type") == "RollingUpdate" {
                set_default(spec, &["updateStrategy", "rollingUpdate", "partition"], 0);
            }
        }
        "daemonsets" => {
            set_default(spec, &["revisionHistoryLimit"], 10);
            set_default(spec, &["updateStrategy", "type"], "RollingUpdate");
            if object::text(spec, "/updateStrategy/type") == "RollingUpdate" {
                set_default(spec, &["updateStrategy", "rollingUpdate", "maxUnavailable"], 1);
                set_default(spec, &["updateStrategy", "rollingUpdate", "maxSurge"], 0);
            }
        }
        "jobs" => job(value),
        "cronjobs" => {
            set_default(spec, &["concurrencyPolicy"], "Allow");
            set_default(spec, &["suspend"], false);
            set_default(spec, &["successfulJobsHistoryLimit"], 3);
            set_default(spec, &["failedJobsHistoryLimit"], 1);
        }
        _ => return,
    }
    if let Some(spec) = value.pointer_mut("/spec/template/spec") {
        pod_spec(spec);
    }
}

fn job(value: &mut Value) {
    let uid = object::uid(value).to_owned();
    let name = object::name(value).to_owned();
    let manual = object::flag(value, "/spec/manualSelector");
    let Some(spec) = value.get_mut("spec") else { return };
    if spec.get("completions").is_none() && spec.get("parallelism").is_none() {
        set_default(spec, &["completions"], 1);
    }
    set_default(spec, &["parallelism"], 1);
    set_default(spec, &["backoffLimit"], 6);
    set_default(spec, &["completionMode"], "NonIndexed");
    set_default(spec, &["suspend"], false);
    if !manual && spec.get("selector").is_none() && !uid.is_empty() {
        object::set(
            spec,
            &["selector", "matchLabels", "batch.kubernetes.io/controller-uid"],
            uid.clone(),
        );
        for (label, text) in [
            ("batch.kubernetes.io/controller-uid", &uid),
            ("batch.kubernetes.io/job-name", &name),
            ("controller-uid", &uid),
            ("job-name", &name),
        ] {
            object::set(spec, &["template", "metadata", "labels", label], text.clone());
        }
    }
}

fn pod_spec(spec: &mut Value) {
    if !spec.is_object() {
        return;
    }
    set_default(spec, &["restartPolicy"], "Always");
    set_default(spec, &["dnsPolicy"], "ClusterFirst");
    set_default(spec, &["schedulerName"], "default-scheduler");
    set_default(spec, &["terminationGracePeriodSeconds"], 30);
    set_default(spec, &["securityContext"], json!({}));
    set_default(spec, &["enableServiceLinks"], true);
    let host_network = object::flag(spec, "/hostNetwork");
    for list in ["/containers", "/initContainers"] {
        for container in items(spec, list) {
            fill_container(container, host_network);
        }
    }
    for volume in items(spec, "/volumes") {
        for kind in ["configMap", "secret", "projected"] {
            if volume.get(kind).is_some_and(Value::is_object) {
                set_default(volume, &[kind, "defaultMode"], 420);
            }
        }
        if volume.get("hostPath").is_some_and(Value::is_object) {
            set_default(volume, &["hostPath", "type"], "");
        }
    }
    for constraint in items(spec, "/topologySpreadConstraints") {
        set_default(constraint, &["whenUnsatisfiable"], "DoNotSchedule");
    }
}

fn fill_container(container: &mut Value, host_network: bool) {
    if !container.is_object() {
        return;
    }
    set_default(container, &["terminationMessagePath"], "/dev/termination-log");
    set_default(container, &["terminationMessagePolicy"], "File");
    set_default(container, &["resources"], json!({}));
    let image = object::text(container, "/image");
    let last = image.rsplit('/').next().unwrap_or_default();
    let latest = last.ends_with(":latest") || !last.contains([':', '@']);
    set_default(container, &["imagePullPolicy"], if latest { "Always" } else { "IfNotPresent" });
    for port in items(container, "/ports") {
        set_default(port, &["protocol"], "TCP");
        if let (true, Some(number)) = (host_network, port.get("containerPort").cloned()) {
            set_default(port, &["hostPort"], number);
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !container.get(probe).is_some_and(Value::is_object) {
            continue;
        }
        for (member, value) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            set_default(container, &[probe, member], value);
        }
        if container.pointer(&format!("/{probe}/httpGet")).is_some_and(Value::is_object) {
            set_default(container, &[probe, "httpGet", "path"], "/");
            set_default(container, &[probe, "httpGet", "scheme"], "HTTP");
        }
    }
    for variable in items(container, "/env") {
        if variable.pointer("/valueFrom/fieldRef").is_some_and(Value::is_object) {
            set_default(variable, &["valueFrom", "fieldRef", "apiVersion"], "v1");
        }
    }
}

/// What a pod limits it also requests (templates stay as they are written).
fn requests_from_limits(spec: &mut Value) {
    for list in ["/containers", "/initContainers"] {
        for container in items(spec, list) {
            let limits = container.pointer("/resources/limits").and_then(Value::as_object).cloned();
            for (name, amount) in limits.unwrap_or_default() {
                set_default(container, &["resources", "requests", &name], amount);
            }
        }
    }
}

fn items<'a>(value: &'a mut Value, pointer: &str) -> impl Iterator<Item = &'a mut Value> {
    value.pointer_mut(pointer).and_then(Value::as_array_mut).into_iter().flatten()
}
