//! OpenAPI v3: what `kubectl explain` shows, and how kubectl learns which parameters are served.

use schemars::SchemaGenerator;
use serde_json::{Map, Value, json};

use super::discovery::group_versions;
use crate::world::api::builtin;
use crate::world::object;
use crate::world::resource::{Definition, Registry};

/// The list of documents, one per group and version.
pub(super) fn index(registry: &Registry) -> Value {
    let mut paths = Map::new();
    let mut add = |path: String| {
        let url = format!("/openapi/v3/{path}");
        paths.insert(path, json!({ "serverRelativeURL": url }));
    };
    add("api/v1".to_owned());
    for (group, versions) in group_versions(registry) {
        for version in versions {
            add(format!("apis/{group}/{version}"));
        }
    }
    json!({ "paths": paths })
}

/// An OpenAPI v2 document in protobuf without any path (field 1: the format's version; field 2: title
/// and version): all that is served is described in v3, but clients ask here for what they do not
/// find there.
pub(super) const EMPTY_V2: &[u8] = b"\n\x032.0\x12\x0f\n\nKubernetes\x12\x011";

/// The document of one group and version.
pub(super) fn document(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let served: Vec<_> = registry
        .iter()
        .filter(|definition| {
            definition.resource.group == group
                && definition.versions.iter().any(|own| own == version)
        })
        .collect();
    if served.is_empty() && !group_versions(registry).contains_key(group) {
        return None;
    }
    let mut generator = builtin::generator();
    let (mut paths, mut schemas) = (Map::new(), Map::new());
    for definition in served {
        let names = describe(definition, version, &mut generator, &mut schemas);
        add_paths(definition, version, &names, &mut paths);
    }
    for (name, schema) in generator.take_definitions(true) {
        schemas.entry(name).or_insert(schema);
    }
    for definition in registry.iter().filter(|definition| definition.resource.group == group) {
        tag(definition, version, &mut schemas);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.34.0" },
        "paths": paths,
        "components": { "schemas": schemas },
    }))
}

/// Adds a kind's schema; its name among the components.
fn describe(
    definition: &Definition,
    version: &str,
    generator: &mut SchemaGenerator,
    schemas: &mut Map<String, Value>,
) -> String {
    let name = builtin::schema_name(definition, version);
    match &definition.custom {
        Some(custom) => {
            let mut schema = custom.texts.get(version).cloned().unwrap_or_else(|| json!({}));
            object::set_default(&mut schema, &["type"], "object");
            let meta = "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
            generator.subschema_for::<k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>();
            object::set(
                &mut schema,
                &["properties", "metadata"],
                json!({
                    "description": "Standard object's metadata.", "allOf": [{ "$ref": meta }],
                }),
            );
            schemas.insert(name.clone(), schema);
        }
        None => builtin::describe(definition, generator),
    }
    name
}

fn tag(definition: &Definition, version: &str, schemas: &mut Map<String, Value>) {
    if let Some(schema) = schemas.get_mut(&builtin::schema_name(definition, version)) {
        object::set(
            schema,
            &["x-kubernetes-group-version-kind"],
            json!([{
                "group": definition.resource.group, "version": version, "kind": definition.kind,
            }]),
        );
    }
}

fn add_paths(definition: &Definition, version: &str, schema: &str, paths: &mut Map<String, Value>) {
    let (group, plural) = (&*definition.resource.group, &definition.resource.plural);
    let root = if group.is_empty() {
        format!("/api/{version}")
    } else {
        format!("/apis/{group}/{version}")
    };
    let base = if definition.namespaced {
        format!("{root}/namespaces/{{namespace}}/{plural}")
    } else {
        format!("{root}/{plural}")
    };
    let kind = json!({ "group": group, "version": version, "kind": definition.kind });
    let reference = json!({ "$ref": format!("#/components/schemas/{schema}") });
    let content = json!({ "application/json": { "schema": reference } });
    let operation = |action: &str, parameters: &[&str]| {
        let parameters: Vec<Value> = parameters
            .iter()
            .map(|name| json!({ "name": name, "in": "query", "schema": { "type": "string" } }))
            .collect();
        json!({
            "operationId": format!("{action}{}", definition.kind),
            "parameters": parameters,
            "responses": { "200": { "description": "OK", "content": content } },
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        })
    };
    let write = ["dryRun", "fieldManager", "fieldValidation"];
    let list = ["labelSelector", "fieldSelector", "limit", "continue", "resourceVersion", "watch"];
    paths.insert(
        base.clone(),
        json!({
            "get": operation("list", &list), "post": operation("post", &write),
        }),
    );
    let mut patch = operation("patch", &["dryRun", "fieldManager", "fieldValidation", "force"]);
    // Strategic merge is served but not offered here: its merge keys are not in these schemas, and
    // clients that build such patches know them from their own types.
    let patches = json!({
        "application/merge-patch+json": {}, "application/json-patch+json": {},
        "application/apply-patch+yaml": {},
    });
    object::set(&mut patch, &["requestBody"], json!({ "content": patches, "required": true }));
    paths.insert(
        format!("{base}/{{name}}"),
        json!({
            "get": operation("get", &[]), "put": operation("put", &write), "patch": patch,
            "delete": operation("delete", &["dryRun", "gracePeriodSeconds", "propagationPolicy"]),
        }),
    );
}
