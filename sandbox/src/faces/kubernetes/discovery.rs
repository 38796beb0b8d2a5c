//! What the API serves, as clients discover it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::reviews::REVIEWS;
use super::{json as answer_json, openapi};
use crate::shared::SharedWorld;
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::object;
use crate::world::resource::{Definition, Registry, SERVICE_ACCOUNTS};

/// The Kubernetes version that is imitated.
const VERSION: (&str, &str) = ("1", "34");

/// Answers a path that is about the API itself; `None` for every other.
pub(super) fn answer(world: &SharedWorld, path: &str) -> Option<ApiResult<Response>> {
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let registry = || world.with(|world, _| world.store.registry().clone());
    let found = match segments.as_slice() {
        ["version"] => Some(version()),
        ["api"] => Some(json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => Some(groups(&registry())),
        ["apis", group] => group_of(&registry(), group),
        ["api", version] => resources(&registry(), "", version),
        ["apis", group, version] => resources(&registry(), group, version),
        ["openapi", "v3"] => Some(openapi::index(&registry())),
        ["openapi", "v3", "api", version] => openapi::document(&registry(), "", version),
        ["openapi", "v3", "apis", group, version] => openapi::document(&registry(), group, version),
        ["openapi", "v2"] => {
            let kind = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
            let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(kind))];
            return Some(Ok((headers, openapi::EMPTY_V2).into_response()));
        }
        [] => Some(json!({ "paths": ["/api", "/apis", "/healthz", "/openapi/v3", "/version"] })),
        _ => return None,
    };
    Some(
        found.map(|found| answer_json(StatusCode::OK, &found)).ok_or_else(ApiFailure::unknown_path),
    )
}

fn version() -> Value {
    let (major, minor) = VERSION;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0-sandbox"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// Groups with their versions, the preferred one first; core is not among them.
pub(super) fn group_versions(registry: &Registry) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (group, _, _, _) in REVIEWS {
        groups.insert(group.to_owned(), vec!["v1".to_owned()]);
    }
    for definition in registry.iter().filter(|definition| !definition.resource.group.is_empty()) {
        let versions = groups.entry(definition.resource.group.to_string()).or_default();
        for version in &definition.versions {
            if !versions.contains(version) {
                versions.push(version.clone());
            }
        }
    }
    groups
}

fn group_json(group: &str, versions: &[String]) -> Value {
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
}

fn groups(registry: &Registry) -> Value {
    let groups: Vec<Value> = group_versions(registry)
        .iter()
        .map(|(group, versions)| group_json(group, versions))
        .collect();
    json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
}

fn group_of(registry: &Registry, group: &str) -> Option<Value> {
    let versions = group_versions(registry).remove(group)?;
    let mut found = group_json(group, &versions);
    object::set(&mut found, &["kind"], "APIGroup");
    object::set(&mut found, &["apiVersion"], "v1");
    Some(found)
}

fn resources(registry: &Registry, group: &str, version: &str) -> Option<Value> {
    let mut listed = Vec::new();
    for definition in registry.iter().filter(|definition| definition.resource.group == group) {
        if definition.versions.iter().any(|served| served == version) {
            list_definition(definition, &mut listed);
        }
    }
    for (review_group, plural, kind, namespaced) in REVIEWS {
        if review_group == group && version == "v1" {
            listed.push(json!({
                "name": plural, "singularName": kind.to_lowercase(), "namespaced": namespaced,
                "kind": kind, "verbs": ["create"],
            }));
        }
    }
    if listed.is_empty() {
        return None;
    }
    let group_version =
        if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": listed,
    }))
}

fn list_definition(definition: &Arc<Definition>, listed: &mut Vec<Value>) {
    let plural = &definition.resource.plural;
    let mut own = json!({
        "name": plural,
        "singularName": definition.singular,
        "namespaced": definition.namespaced,
        "kind": definition.kind,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    });
    if !definition.short_names.is_empty() {
        object::set(&mut own, &["shortNames"], definition.short_names.clone());
    }
    if !definition.categories.is_empty() {
        object::set(&mut own, &["categories"], definition.categories.clone());
    }
    listed.push(own);
    let mut subresources = definition.subresources();
    if definition.resource == SERVICE_ACCOUNTS {
        subresources.push("token");
    }
    for subresource in subresources {
        let mut entry = json!({
            "name": format!("{plural}/{subresource}"), "singularName": "",
            "namespaced": definition.namespaced, "kind": definition.kind,
            "verbs": ["get", "patch", "update"],
        });
        let other = match subresource {
            "scale" => Some(("autoscaling", "Scale", None)),
            "eviction" => Some(("policy", "Eviction", Some("create"))),
            "binding" => Some(("", "Binding", Some("create"))),
            "token" => Some(("authentication.k8s.io", "TokenRequest", Some("create"))),
            _ => None,
        };
        if let Some((group, kind, verb)) = other {
            object::set(&mut entry, &["kind"], kind);
            if !group.is_empty() {
                object::set(&mut entry, &["group"], group);
                object::set(&mut entry, &["version"], "v1");
            }
            if let Some(verb) = verb {
                object::set(&mut entry, &["verbs"], vec![verb]);
            }
        }
        listed.push(entry);
    }
}
