//! The cells of built-in kinds, as `kubectl get` prints them.

use jiff::Timestamp;
use serde_json::Value;

use crate::world::object::{self, integer, list, text};
use crate::world::resource::Resource;

mod node;
mod pod;

/// A column: name, priority (0 is always shown, 1 with `-o wide`), cell.
pub(super) type Known = (&'static str, i64, fn(&Value, Timestamp) -> Value);

const AGE: Known = ("Age", 0, age);

/// The columns of a built-in resource after its name.
pub(super) fn of(resource: &Resource) -> Vec<Known> {
    let columns: &[Known] = match (&*resource.group, &*resource.plural) {
        ("", "pods") => pod::COLUMNS,
        ("", "nodes") => node::COLUMNS,
        ("", "namespaces") => &[("Status", 0, |item, _| text(item, "/status/phase").into()), AGE],
        ("" | "events.k8s.io", "events") => EVENTS,
        ("", "services") => SERVICES,
        ("", "configmaps" | "secrets") => DATA,
        ("", "persistentvolumeclaims") => CLAIMS,
        ("", "persistentvolumes") => VOLUMES,
        ("apps", "deployments") => DEPLOYMENTS,
        ("apps", "replicasets") => REPLICA_SETS,
        ("apps", "statefulsets") => STATEFUL_SETS,
        ("apps", "daemonsets") => DAEMON_SETS,
        ("batch", "jobs") => JOBS,
        ("policy", "poddisruptionbudgets") => BUDGETS,
        ("coordination.k8s.io", "leases") => LEASES,
        ("scheduling.k8s.io", "priorityclasses") => PRIORITY_CLASSES,
        ("storage.k8s.io", "storageclasses") => STORAGE_CLASSES,
        ("storage.k8s.io", "csinodes") => {
            &[("Drivers", 0, |item, _| list(item, "/spec/drivers").len().into()), AGE]
        }
        ("storage.k8s.io", "volumeattachments") => ATTACHMENTS,
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            &[("Created At", 0, |item, _| text(item, "/metadata/creationTimestamp").into())]
        }
        _ => &[AGE],
    };
    columns.to_vec()
}

const EVENTS: &[Known] = &[
    ("Last Seen", 0, |item, now| {
        let seen = [
            "/lastTimestamp",
            "/deprecatedLastTimestamp",
            "/series/lastObservedTime",
            "/eventTime",
            "/metadata/creationTimestamp",
        ];
        let last = seen.iter().map(|pointer| text(item, pointer)).find(|text| !text.is_empty());
        age_of(last.unwrap_or_default(), now)
    }),
    ("Type", 0, |item, _| text(item, "/type").into()),
    ("Reason", 0, |item, _| text(item, "/reason").into()),
    ("Object", 0, |item, _| {
        let about = if item.get("regarding").is_some() { "/regarding" } else { "/involvedObject" };
        let (kind, name) =
            (text(item, &format!("{about}/kind")), text(item, &format!("{about}/name")));
        format!("{}/{name}", kind.to_lowercase()).into()
    }),
    ("Message", 0, |item, _| {
        let message = text(item, "/message");
        if message.is_empty() { text(item, "/note").into() } else { message.into() }
    }),
];

const SERVICES: &[Known] = &[
    ("Type", 0, |item, _| text(item, "/spec/type").into()),
    ("Cluster-IP", 0, |item, _| or_none(text(item, "/spec/clusterIP"))),
    ("External-IP", 0, |item, _| or_none(text(item, "/spec/externalName"))),
    ("Port(s)", 0, |item, _| {
        let ports = list(item, "/spec/ports").iter().map(|port| {
            format!("{}/{}", integer(port, "/port").unwrap_or(0), text(port, "/protocol"))
        });
        or_none(&ports.collect::<Vec<_>>().join(","))
    }),
    AGE,
    ("Selector", 1, |item, _| or_none(&labels(item.pointer("/spec/selector")))),
];

const DATA: &[Known] = &[
    ("Data", 0, |item, _| {
        let count = |member: &str| {
            item.get(member).and_then(Value::as_object).map_or(0, serde_json::Map::len)
        };
        (count("data") + count("binaryData")).into()
    }),
    AGE,
];

const CLAIMS: &[Known] = &[
    ("Status", 0, |item, _| text(item, "/status/phase").into()),
    ("Volume", 0, |item, _| text(item, "/spec/volumeName").into()),
    ("Capacity", 0, |item, _| text(item, "/status/capacity/storage").into()),
    ("Access Modes", 0, |item, _| access_modes(item)),
    ("StorageClass", 0, |item, _| text(item, "/spec/storageClassName").into()),
    AGE,
];

const VOLUMES: &[Known] = &[
    ("Capacity", 0, |item, _| text(item, "/spec/capacity/storage").into()),
    ("Access Modes", 0, |item, _| access_modes(item)),
    ("Reclaim Policy", 0, |item, _| text(item, "/spec/persistentVolumeReclaimPolicy").into()),
    ("Status", 0, |item, _| text(item, "/status/phase").into()),
    ("Claim", 0, |item, _| match text(item, "/spec/claimRef/name") {
        "" => "".into(),
        name => format!("{}/{name}", text(item, "/spec/claimRef/namespace")).into(),
    }),
    ("StorageClass", 0, |item, _| text(item, "/spec/storageClassName").into()),
    AGE,
];

const DEPLOYMENTS: &[Known] = &[
    ("Ready", 0, |item, _| of_wanted(item, "/status/readyReplicas")),
    ("Up-to-date", 0, |item, _| count(item, "/status/updatedReplicas")),
    ("Available", 0, |item, _| count(item, "/status/availableReplicas")),
    AGE,
    ("Containers", 1, |item, _| containers(item, "/name")),
    ("Images", 1, |item, _| containers(item, "/image")),
    ("Selector", 1, |item, _| selector(item)),
];

const REPLICA_SETS: &[Known] = &[
    ("Desired", 0, |item, _| count(item, "/spec/replicas")),
    ("Current", 0, |item, _| count(item, "/status/replicas")),
    ("Ready", 0, |item, _| count(item, "/status/readyReplicas")),
    AGE,
    ("Containers", 1, |item, _| containers(item, "/name")),
    ("Images", 1, |item, _| containers(item, "/image")),
    ("Selector", 1, |item, _| selector(item)),
];

const STATEFUL_SETS: &[Known] = &[
    ("Ready", 0, |item, _| of_wanted(item, "/status/readyReplicas")),
    AGE,
    ("Containers", 1, |item, _| containers(item, "/name")),
    ("Images", 1, |item, _| containers(item, "/image")),
];

const DAEMON_SETS: &[Known] = &[
    ("Desired", 0, |item, _| count(item, "/status/desiredNumberScheduled")),
    ("Current", 0, |item, _| count(item, "/status/currentNumberScheduled")),
    ("Ready", 0, |item, _| count(item, "/status/numberReady")),
    ("Up-to-date", 0, |item, _| count(item, "/status/updatedNumberScheduled")),
    ("Available", 0, |item, _| count(item, "/status/numberAvailable")),
    ("Node Selector", 0, |item, _| {
        or_none(&labels(item.pointer("/spec/template/spec/nodeSelector")))
    }),
    AGE,
    ("Containers", 1, |item, _| containers(item, "/name")),
    ("Images", 1, |item, _| containers(item, "/image")),
    ("Selector", 1, |item, _| selector(item)),
];

const JOBS: &[Known] = &[
    ("Status", 0, |item, _| {
        let status = match (object::condition(item, "Complete"), object::condition(item, "Failed"))
        {
            ("True", _) => "Complete",
            (_, "True") => "Failed",
            _ if object::flag(item, "/spec/suspend") => "Suspended",
            _ => "Running",
        };
        status.into()
    }),
    ("Completions", 0, |item, _| {
        let wanted =
            integer(item, "/spec/completions").or_else(|| integer(item, "/spec/parallelism"));
        format!("{}/{}", integer(item, "/status/succeeded").unwrap_or(0), wanted.unwrap_or(1))
            .into()
    }),
    ("Duration", 0, |item, now| {
        let Some(start) = object::time(item, "/status/startTime") else { return "".into() };
        let end = object::time(item, "/status/completionTime").unwrap_or(now);
        shorten(end.duration_since(start).as_secs()).into()
    }),
    AGE,
    ("Containers", 1, |item, _| containers(item, "/name")),
    ("Images", 1, |item, _| containers(item, "/image")),
];

const BUDGETS: &[Known] = &[
    ("Min Available", 0, |item, _| amount(item, "/spec/minAvailable")),
    ("Max Unavailable", 0, |item, _| amount(item, "/spec/maxUnavailable")),
    ("Allowed Disruptions", 0, |item, _| count(item, "/status/disruptionsAllowed")),
    AGE,
];

const LEASES: &[Known] = &[("Holder", 0, |item, _| text(item, "/spec/holderIdentity").into()), AGE];

const PRIORITY_CLASSES: &[Known] = &[
    ("Value", 0, |item, _| count(item, "/value")),
    ("Global-Default", 0, |item, _| object::flag(item, "/globalDefault").into()),
    AGE,
    ("PreemptionPolicy", 1, |item, _| text(item, "/preemptionPolicy").into()),
];

const STORAGE_CLASSES: &[Known] = &[
    ("Provisioner", 0, |item, _| text(item, "/provisioner").into()),
    ("ReclaimPolicy", 0, |item, _| text(item, "/reclaimPolicy").into()),
    ("VolumeBindingMode", 0, |item, _| text(item, "/volumeBindingMode").into()),
    ("AllowVolumeExpansion", 0, |item, _| object::flag(item, "/allowVolumeExpansion").into()),
    AGE,
];

const ATTACHMENTS: &[Known] = &[
    ("Attacher", 0, |item, _| text(item, "/spec/attacher").into()),
    ("PV", 0, |item, _| text(item, "/spec/source/persistentVolumeName").into()),
    ("Node", 0, |item, _| text(item, "/spec/nodeName").into()),
    ("Attached", 0, |item, _| object::flag(item, "/status/attached").into()),
    AGE,
];

fn count(item: &Value, pointer: &str) -> Value {
    integer(item, pointer).unwrap_or(0).into()
}

fn of_wanted(item: &Value, pointer: &str) -> Value {
    let (ready, wanted) = (integer(item, pointer), integer(item, "/spec/replicas"));
    format!("{}/{}", ready.unwrap_or(0), wanted.unwrap_or(0)).into()
}

fn amount(item: &Value, pointer: &str) -> Value {
    match item.pointer(pointer) {
        Some(Value::String(text)) => text.as_str().into(),
        Some(other) => other.to_string().into(),
        None => "N/A".into(),
    }
}

fn or_none(text: &str) -> Value {
    if text.is_empty() { "<none>".into() } else { text.into() }
}

fn labels(map: Option<&Value>) -> String {
    let pairs = map.and_then(Value::as_object).into_iter().flatten();
    let texts = pairs.map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()));
    texts.collect::<Vec<_>>().join(",")
}

fn selector(item: &Value) -> Value {
    or_none(&labels(item.pointer("/spec/selector/matchLabels")))
}

fn containers(item: &Value, pointer: &str) -> Value {
    let containers = list(item, "/spec/template/spec/containers").iter();
    containers.map(|container| text(container, pointer)).collect::<Vec<_>>().join(",").into()
}

fn access_modes(item: &Value) -> Value {
    let modes = list(item, "/spec/accessModes").iter().map(|mode| match mode.as_str() {
        Some("ReadWriteOnce") => "RWO",
        Some("ReadOnlyMany") => "ROX",
        Some("ReadWriteMany") => "RWX",
        Some("ReadWriteOncePod") => "RWOP",
        _ => "",
    });
    modes.collect::<Vec<_>>().join(",").into()
}

/// `AGE`.
pub(super) fn age(item: &Value, now: Timestamp) -> Value {
    age_of(text(item, "/metadata/creationTimestamp"), now)
}

/// The time since a timestamp, as kubectl shortens it.
pub(super) fn age_of(text: &str, now: Timestamp) -> Value {
    match text.parse::<Timestamp>() {
        Ok(then) => shorten(now.duration_since(then).as_secs()).into(),
        Err(_) => "<unknown>".into(),
    }
}

/// Seconds in kubectl's short form: `5s`, `3m20s`, `2h5m`, `3d4h`, `20d`, `2y10d`.
pub(super) fn shorten(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let pair = |large: i64, unit: &str, small: i64, small_unit: &str| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => pair(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => pair(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => pair(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        _ => pair(days / 365, "y", days % 365, "d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_shortened_as_kubectl_does() {
        for (seconds, text) in [
            (5, "5s"),
            (119, "119s"),
            (200, "3m20s"),
            (600, "10m"),
            (10_800, "3h"),
            (90_000, "25h"),
            (180_000, "2d2h"),
        ] {
            assert_eq!(shorten(seconds), text);
        }
    }
}
