//! Which resources the API serves: group, versions, plural, kind, scope, subresources.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use drover_common::call::Kind;

use super::api::custom::CustomResource;

mod builtin;

/// A resource: API group and plural. Displays as Kubernetes writes it (`nodeclaims.karpenter.sh`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resource {
    /// API group; empty for core.
    pub group: Cow<'static, str>,
    /// The path segment.
    pub plural: Cow<'static, str>,
}

impl Resource {
    /// A resource named at compile time.
    pub const fn new(group: &'static str, plural: &'static str) -> Self {
        Self { group: Cow::Borrowed(group), plural: Cow::Borrowed(plural) }
    }

    /// A resource named at run time.
    pub fn named(group: &str, plural: &str) -> Self {
        Self { group: Cow::Owned(group.to_owned()), plural: Cow::Owned(plural.to_owned()) }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.plural)?;
        if !self.group.is_empty() {
            write!(formatter, ".{}", self.group)?;
        }
        Ok(())
    }
}

impl From<Kind> for Resource {
    fn from(kind: Kind) -> Self {
        let endpoint = kind.endpoint();
        Self::new(endpoint.group, endpoint.plural)
    }
}

macro_rules! resources {
    ($($name:ident = $group:literal $plural:literal;)*) => {
        $(
            #[doc = concat!("`", $plural, "` of group `", $group, "`.")]
            pub const $name: Resource = Resource::new($group, $plural);
        )*
    };
}

resources! {
    PODS = "" "pods";
    NODES = "" "nodes";
    NAMESPACES = "" "namespaces";
    SERVICES = "" "services";
    EVENTS = "" "events";
    NEW_EVENTS = "events.k8s.io" "events";
    SECRETS = "" "secrets";
    SERVICE_ACCOUNTS = "" "serviceaccounts";
    CONFIG_MAPS = "" "configmaps";
    PERSISTENT_VOLUMES = "" "persistentvolumes";
    PERSISTENT_VOLUME_CLAIMS = "" "persistentvolumeclaims";
    DEPLOYMENTS = "apps" "deployments";
    REPLICA_SETS = "apps" "replicasets";
    STATEFUL_SETS = "apps" "statefulsets";
    DAEMON_SETS = "apps" "daemonsets";
    JOBS = "batch" "jobs";
    CRON_JOBS = "batch" "cronjobs";
    POD_DISRUPTION_BUDGETS = "policy" "poddisruptionbudgets";
    LEASES = "coordination.k8s.io" "leases";
    PRIORITY_CLASSES = "scheduling.k8s.io" "priorityclasses";
    STORAGE_CLASSES = "storage.k8s.io" "storageclasses";
    CSI_NODES = "storage.k8s.io" "csinodes";
    VOLUME_ATTACHMENTS = "storage.k8s.io" "volumeattachments";
    ENDPOINT_SLICES = "discovery.k8s.io" "endpointslices";
    ROLES = "rbac.authorization.k8s.io" "roles";
    ROLE_BINDINGS = "rbac.authorization.k8s.io" "rolebindings";
    CLUSTER_ROLES = "rbac.authorization.k8s.io" "clusterroles";
    CLUSTER_ROLE_BINDINGS = "rbac.authorization.k8s.io" "clusterrolebindings";
    VALIDATING_ADMISSION_POLICIES = "admissionregistration.k8s.io" "validatingadmissionpolicies";
    VALIDATING_ADMISSION_POLICY_BINDINGS = "admissionregistration.k8s.io" "validatingadmissionpolicybindings";
    CUSTOM_RESOURCE_DEFINITIONS = "apiextensions.k8s.io" "customresourcedefinitions";
    NODE_POOLS = "karpenter.sh" "nodepools";
    NODE_CLAIMS = "karpenter.sh" "nodeclaims";
    EC2_NODE_CLASSES = "karpenter.k8s.aws" "ec2nodeclasses";
}

/// How a resource is served.
#[derive(Clone, Debug)]
pub struct Definition {
    /// Group and plural.
    pub resource: Resource,
    /// Served versions, the preferred one first.
    pub versions: Vec<String>,
    /// The kind's name.
    pub kind: String,
    /// For people.
    pub singular: String,
    /// What kubectl may call it.
    pub short_names: Vec<String>,
    /// Groups of resources that kubectl may ask for at once (`all`).
    pub categories: Vec<String>,
    /// Whether objects lie in a namespace.
    pub namespaced: bool,
    /// Whether `status` is a subresource of its own.
    pub status: bool,
    /// Whether there is a `scale` subresource.
    pub scale: bool,
    /// Schema, defaults, rules and columns of a custom resource.
    pub custom: Option<Arc<CustomResource>>,
}

impl Definition {
    /// `apiVersion` of the preferred version.
    pub fn api_version(&self) -> String {
        self.api_version_of(self.versions.first().map_or("v1", String::as_str))
    }

    /// `apiVersion` of one version.
    pub fn api_version_of(&self, version: &str) -> String {
        if self.resource.group.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.resource.group)
        }
    }

    /// The names of its subresources.
    pub fn subresources(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        if self.status {
            names.push("status");
        }
        if self.scale {
            names.push("scale");
        }
        if self.resource == PODS {
            names.extend(["binding", "eviction"]);
        }
        names
    }
}

/// All resources served.
#[derive(Clone, Debug)]
pub struct Registry {
    definitions: BTreeMap<Resource, Arc<Definition>>,
}

impl Default for Registry {
    fn default() -> Self {
        let definitions = builtin::definitions()
            .into_iter()
            .map(|definition| (definition.resource.clone(), Arc::new(definition)))
            .collect();
        Self { definitions }
    }
}

impl Registry {
    /// One resource's definition.
    pub fn get(&self, resource: &Resource) -> Option<&Arc<Definition>> {
        self.definitions.get(resource)
    }

    /// The definition of a kind.
    pub fn by_kind(&self, group: &str, kind: &str) -> Option<&Arc<Definition>> {
        self.definitions
            .values()
            .find(|definition| definition.resource.group == group && definition.kind == kind)
    }

    /// All definitions, ordered by group and plural.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.definitions.values()
    }

    /// Serves a resource from now on.
    pub fn insert(&mut self, definition: Definition) {
        self.definitions.insert(definition.resource.clone(), Arc::new(definition));
    }

    /// Stops serving a resource.
    pub fn remove(&mut self, resource: &Resource) {
        self.definitions.remove(resource);
    }
}
