//! The table of built-in resources.

use super::{Definition, Resource};

/// Group, plural, kind, singular, short names, flags: `n`amespaced, `s`tatus, `S`cale, `a` for the
/// category `all`.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str], &'static str);

const ROWS: &[Row] = &[
    ("", "configmaps", "ConfigMap", &["cm"], "n"),
    ("", "endpoints", "Endpoints", &["ep"], "n"),
    ("", "events", "Event", &["ev"], "n"),
    ("", "limitranges", "LimitRange", &["limits"], "n"),
    ("", "namespaces", "Namespace", &["ns"], "s"),
    ("", "nodes", "Node", &["no"], "s"),
    ("", "persistentvolumeclaims", "PersistentVolumeClaim", &["pvc"], "ns"),
    ("", "persistentvolumes", "PersistentVolume", &["pv"], "s"),
    ("", "pods", "Pod", &["po"], "nsa"),
    ("", "podtemplates", "PodTemplate", &[], "n"),
    ("", "replicationcontrollers", "ReplicationController", &["rc"], "nsSa"),
    ("", "resourcequotas", "ResourceQuota", &["quota"], "ns"),
    ("", "secrets", "Secret", &[], "n"),
    ("", "serviceaccounts", "ServiceAccount", &["sa"], "n"),
    ("", "services", "Service", &["svc"], "nsa"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        &[],
        "s",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        &[],
        "",
    ),
    (
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        &["crd", "crds"],
        "s",
    ),
    ("apps", "controllerrevisions", "ControllerRevision", &[], "n"),
    ("apps", "daemonsets", "DaemonSet", &["ds"], "nsa"),
    ("apps", "deployments", "Deployment", &["deploy"], "nsSa"),
    ("apps", "replicasets", "ReplicaSet", &["rs"], "nsSa"),
    ("apps", "statefulsets", "StatefulSet", &["sts"], "nsSa"),
    ("batch", "cronjobs", "CronJob", &["cj"], "nsa"),
    ("batch", "jobs", "Job", &[], "nsa"),
    ("coordination.k8s.io", "leases", "Lease", &[], "n"),
    ("discovery.k8s.io", "endpointslices", "EndpointSlice", &[], "n"),
    ("events.k8s.io", "events", "Event", &["ev"], "n"),
    ("networking.k8s.io", "networkpolicies", "NetworkPolicy", &["netpol"], "n"),
    ("policy", "poddisruptionbudgets", "PodDisruptionBudget", &["pdb"], "ns"),
    ("rbac.authorization.k8s.io", "clusterrolebindings", "ClusterRoleBinding", &[], ""),
    ("rbac.authorization.k8s.io", "clusterroles", "ClusterRole", &[], ""),
    ("rbac.authorization.k8s.io", "rolebindings", "RoleBinding", &[], "n"),
    ("rbac.authorization.k8s.io", "roles", "Role", &[], "n"),
    ("scheduling.k8s.io", "priorityclasses", "PriorityClass", &["pc"], ""),
    ("storage.k8s.io", "csidrivers", "CSIDriver", &[], ""),
    ("storage.k8s.io", "csinodes", "CSINode", &[], ""),
    ("storage.k8s.io", "storageclasses", "StorageClass", &["sc"], ""),
    ("storage.k8s.io", "volumeattachments", "VolumeAttachment", &[], "s"),
];

/// The built-in resources, all served as v1.
pub(super) fn definitions() -> Vec<Definition> {
    ROWS.iter()
        .map(|(group, plural, kind, short_names, flags)| Definition {
            resource: Resource::new(group, plural),
            versions: vec!["v1".to_owned()],
            kind: (*kind).to_owned(),
            singular: kind.to_lowercase(),
            short_names: short_names.iter().map(|name| (*name).to_owned()).collect(),
            categories: if flags.contains('a') { vec!["all".to_owned()] } else { Vec::new() },
            namespaced: flags.contains('n'),
            status: flags.contains('s'),
            scale: flags.contains('S'),
            custom: None,
        })
        .collect()
}
