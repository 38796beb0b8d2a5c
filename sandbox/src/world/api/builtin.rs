//! Schemas of the built-in kinds, from the types of k8s-openapi.

use std::sync::LazyLock;

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, batch::v1 as batch,
    coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery,
    events::v1 as events, networking::v1 as networking, policy::v1 as policy, rbac::v1 as rbac,
    scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as extensions;
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value};

use crate::world::object;
use crate::world::resource::{Definition, Registry};

/// The schemas of all built-in kinds and of all they refer to, by name.
static SCHEMAS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let mut generator = generator();
    for definition in Registry::default().iter() {
        describe(definition, &mut generator);
    }
    generator.take_definitions(true)
});

/// A generator whose references lead to OpenAPI's components.
pub fn generator() -> SchemaGenerator {
    SchemaGenerator::new(SchemaSettings::openapi3().with(|settings| settings.meta_schema = None))
}

/// A kind's name among OpenAPI's components.
pub fn schema_name(definition: &Definition, version: &str) -> String {
    let (group, kind) = (&*definition.resource.group, &definition.kind);
    if definition.custom.is_some() {
        let reversed: Vec<&str> = group.rsplit('.').collect();
        return format!("{}.{version}.{kind}", reversed.join("."));
    }
    if group == "apiextensions.k8s.io" {
        return format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.{version}.{kind}");
    }
    let short = match group.split('.').next().unwrap_or_default() {
        "" => "core",
        short => short,
    };
    format!("io.k8s.api.{short}.{version}.{kind}")
}

/// What is wrong with the shape of a built-in object: fields that its kind does not have, and values
/// of another type, each with its path.
pub fn misfits(definition: &Definition, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = SCHEMAS.get(&schema_name(definition, "v1")) {
        walk(schema, value, "", &mut found);
    }
    found
}

fn walk(schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Some(schema) = resolve(schema) else { return };
    let wanted = object::text(schema, "/type");
    let fits = match (wanted, value) {
        (_, Value::Null) | ("", _) => true,
        ("object", value) => value.is_object(),
        ("array", value) => value.is_array(),
        // Quantities and ports may be written as numbers.
        ("string", value) => value.is_string() || value.is_number(),
        ("boolean", value) => value.is_boolean(),
        ("integer" | "number", value) => value.is_number(),
        _ => true,
    };
    if !fits {
        found.push(format!("field {path:?} must be of type {wanted}"));
        return;
    }
    match value {
        Value::Object(fields) => {
            let known = schema.get("properties").and_then(Value::as_object);
            let others = schema.get("additionalProperties");
            for (name, inner) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match known.and_then(|known| known.get(name)).or(others) {
                    Some(schema) => walk(schema, inner, &path, found),
                    None if known.is_some() => found.push(format!("unknown field {path:?}")),
                    None => {}
                }
            }
        }
        Value::Array(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter().enumerate() {
                walk(schema, item, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// The schema that a reference leads to.
fn resolve(schema: &Value) -> Option<&Value> {
    let mut schema = schema;
    // References lead to references only a few times; a bound keeps a loop from hanging us.
    for _ in 0..8 {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = reference.rsplit('/').next()?;
            // Any value at all, though the schema of this type says an object.
            if name.ends_with(".apiextensions.v1.JSON") {
                return None;
            }
            schema = SCHEMAS.get(name)?;
        } else if let Some(inner) = schema.pointer("/allOf/0") {
            schema = inner;
        } else {
            return Some(schema);
        }
    }
    None
}

macro_rules! generators {
    ($generator:ident, $key:expr, { $($group:literal / $kind:literal => $type:ty,)* }) => {
        match $key {
            $(($group, $kind) => { $generator.subschema_for::<$type>(); })*
            _ => {}
        }
    };
}

/// Adds the schema of a built-in kind, and of all it refers to, to the generator's definitions.
pub fn describe(definition: &Definition, generator: &mut SchemaGenerator) {
    generators!(generator, (&*definition.resource.group, definition.kind.as_str()), {
        "" / "ConfigMap" => core::ConfigMap,
        "" / "Endpoints" => core::Endpoints,
        "" / "Event" => core::Event,
        "" / "LimitRange" => core::LimitRange,
        "" / "Namespace" => core::Namespace,
        "" / "Node" => core::Node,
        "" / "PersistentVolumeClaim" => core::PersistentVolumeClaim,
        "" / "PersistentVolume" => core::PersistentVolume,
        "" / "Pod" => core::Pod,
        "" / "PodTemplate" => core::PodTemplate,
        "" / "ReplicationController" => core::ReplicationController,
        "" / "ResourceQuota" => core::ResourceQuota,
        "" / "Secret" => core::Secret,
        "" / "ServiceAccount" => core::ServiceAccount,
        "" / "Service" => core::Service,
        "admissionregistration.k8s.io" / "ValidatingAdmissionPolicy" => admission::ValidatingAdmissionPolicy,
        "admissionregistration.k8s.io" / "ValidatingAdmissionPolicyBinding" => admission::ValidatingAdmissionPolicyBinding,
        "apiextensions.k8s.io" / "CustomResourceDefinition" => extensions::CustomResourceDefinition,
        "apps" / "ControllerRevision" => apps::ControllerRevision,
        "apps" / "DaemonSet" => apps::DaemonSet,
        "apps" / "Deployment" => apps::Deployment,
        "apps" / "ReplicaSet" => apps::ReplicaSet,
        "apps" / "StatefulSet" => apps::StatefulSet,
        "batch" / "CronJob" => batch::CronJob,
        "batch" / "Job" => batch::Job,
        "coordination.k8s.io" / "Lease" => coordination::Lease,
        "discovery.k8s.io" / "EndpointSlice" => discovery::EndpointSlice,
        "events.k8s.io" / "Event" => events::Event,
        "networking.k8s.io" / "NetworkPolicy" => networking::NetworkPolicy,
        "policy" / "PodDisruptionBudget" => policy::PodDisruptionBudget,
        "rbac.authorization.k8s.io" / "ClusterRole" => rbac::ClusterRole,
        "rbac.authorization.k8s.io" / "ClusterRoleBinding" => rbac::ClusterRoleBinding,
        "rbac.authorization.k8s.io" / "Role" => rbac::Role,
        "rbac.authorization.k8s.io" / "RoleBinding" => rbac::RoleBinding,
        "scheduling.k8s.io" / "PriorityClass" => scheduling::PriorityClass,
        "storage.k8s.io" / "CSIDriver" => storage::CSIDriver,
        "storage.k8s.io" / "CSINode" => storage::CSINode,
        "storage.k8s.io" / "StorageClass" => storage::StorageClass,
        "storage.k8s.io" / "VolumeAttachment" => storage::VolumeAttachment,
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::world::resource::{DEPLOYMENTS, Resource};

    fn judge(resource: &Resource, value: &Value) -> Vec<String> {
        misfits(Registry::default().get(resource).unwrap(), value)
    }

    #[test]
    fn unknown_fields_and_wrong_types_are_told_with_their_path() {
        let value = json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a", "labels": {"any": "b"}},
            "spec": {"replicass": 3, "replicas": "three", "selector": {}, "template": {"spec": {"containers": [
                {"name": "a", "resources": {"limits": {"cpu": 1}}, "ports": [{"containerPort": 80}], "imag": "b"}]}}},
        });
        assert_eq!(
            judge(&DEPLOYMENTS, &value),
            [
                "field \"spec.replicas\" must be of type integer",
                "unknown field \"spec.replicass\"",
                "unknown field \"spec.template.spec.containers[0].imag\"",
            ]
        );
    }

    #[test]
    fn every_built_in_kind_has_a_schema() {
        for definition in Registry::default().iter() {
            assert!(SCHEMAS.contains_key(&schema_name(definition, "v1")), "{}", definition.kind);
        }
    }
}
