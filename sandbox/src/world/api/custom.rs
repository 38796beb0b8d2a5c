//! Custom resources: what a CustomResourceDefinition adds to the API.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::world::failure::Cause;
use crate::world::object;
use crate::world::resource::{Definition, Resource};

mod check;
pub mod rules;
pub mod schema;

use schema::Schema;

/// The parts of a CustomResourceDefinition that serving its objects needs.
#[derive(Clone, Debug, Default)]
pub struct CustomResource {
    /// The compiled schema of each served version.
    pub schemas: BTreeMap<String, Arc<Schema>>,
    /// The schema of each served version as it was written.
    pub texts: BTreeMap<String, Value>,
    /// `additionalPrinterColumns` of each served version.
    pub columns: BTreeMap<String, Vec<Value>>,
    /// The `scale` subresource's paths.
    pub scale: Option<Value>,
}

/// What is wrong with an object, or what was dropped from it.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Every field that is refused.
    pub causes: Vec<Cause>,
    /// Paths of fields the schema does not know.
    pub unknown: Vec<String>,
}

impl CustomResource {
    /// Completes an object with its schema's defaults, drops unknown fields and checks the rest.
    /// `current` is the object it replaces.
    pub fn admit(&self, version: &str, value: &mut Value, current: Option<&Value>) -> Findings {
        let mut findings = Findings::default();
        let Some(schema) = self.schemas.get(version) else { return findings };
        schema.complete(value);
        schema.prune_root(value, &mut findings.unknown);
        check::check(schema, value, current, "", &mut findings.causes);
        // Rules presume the shape: they run only on what has it.
        if findings.causes.is_empty() {
            rules::check(schema, value, current, "", &mut findings.causes);
        }
        findings
    }
}

/// Fills what Kubernetes defaults in a CustomResourceDefinition.
pub fn complete_definition(value: &mut Value) {
    let kind = object::text(value, "/spec/names/kind").to_owned();
    object::set_default(value, &["spec", "names", "singular"], kind.to_lowercase());
    object::set_default(value, &["spec", "names", "listKind"], format!("{kind}List"));
    object::set_default(value, &["spec", "conversion"], json!({ "strategy": "None" }));
}

/// The status of an accepted CustomResourceDefinition.
pub fn status_of_definition(value: &Value, now: jiff::Timestamp) -> Value {
    let time = object::seconds(now);
    let stored: Vec<&str> = object::list(value, "/spec/versions")
        .iter()
        .filter(|version| object::flag(version, "/storage"))
        .map(|version| object::text(version, "/name"))
        .collect();
    json!({
        "acceptedNames": value.pointer("/spec/names").cloned().unwrap_or_default(),
        "storedVersions": stored,
        "conditions": [
            {
                "type": "NamesAccepted", "status": "True", "reason": "NoConflicts",
                "message": "no conflicts found", "lastTransitionTime": time,
            },
            {
                "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                "message": "the initial names have been accepted", "lastTransitionTime": time,
            },
        ],
    })
}

/// What a CustomResourceDefinition says is to be served.
///
/// # Errors
/// Every field that keeps it from being served.
pub fn definition_of(value: &Value) -> Result<Definition, Vec<Cause>> {
    let text = |pointer: &str| object::text(value, pointer).to_owned();
    let mut causes = Vec::new();
    for (pointer, field) in [
        ("/spec/group", "spec.group"),
        ("/spec/names/plural", "spec.names.plural"),
        ("/spec/names/kind", "spec.names.kind"),
        ("/spec/scope", "spec.scope"),
    ] {
        if text(pointer).is_empty() {
            causes.push(Cause::required(field, ""));
        }
    }
    let (group, plural) = (text("/spec/group"), text("/spec/names/plural"));
    if causes.is_empty() && object::name(value) != format!("{plural}.{group}") {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid("metadata.name", &object::name(value).into(), detail));
    }
    if !matches!(object::text(value, "/spec/scope"), "" | "Cluster" | "Namespaced") {
        let supported = ["Cluster".to_owned(), "Namespaced".to_owned()];
        causes.push(Cause::not_supported("spec.scope", &text("/spec/scope").into(), &supported));
    }
    let versions = object::list(value, "/spec/versions");
    let stored = versions.iter().filter(|version| object::flag(version, "/storage")).count();
    if stored != 1 {
        let detail = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &Value::Array(versions.to_vec()), detail));
    }
    let mut custom = CustomResource::default();
    let mut served = Vec::new();
    for (index, version) in versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        read_version(version, &field, &mut custom, &mut causes);
        if object::flag(version, "/served") {
            // The stored version comes first: it is the preferred one.
            let place = if object::flag(version, "/storage") { 0 } else { served.len() };
            served.insert(place, object::text(version, "/name").to_owned());
        }
    }
    if !causes.is_empty() {
        return Err(causes);
    }
    let texts = |pointer: &str| -> Vec<String> {
        let items = object::list(value, pointer).iter();
        items.filter_map(|item| item.as_str().map(str::to_owned)).collect()
    };
    let has = |member: &str| {
        versions.iter().any(|version| version.pointer(&format!("/subresources/{member}")).is_some())
    };
    Ok(Definition {
        resource: Resource::named(&group, &plural),
        versions: served,
        kind: text("/spec/names/kind"),
        singular: text("/spec/names/singular"),
        short_names: texts("/spec/names/shortNames"),
        categories: texts("/spec/names/categories"),
        namespaced: text("/spec/scope") == "Namespaced",
        status: has("status"),
        scale: has("scale"),
        custom: Some(Arc::new(custom)),
    })
}

fn read_version(
    version: &Value,
    field: &str,
    custom: &mut CustomResource,
    causes: &mut Vec<Cause>,
) {
    let name = object::text(version, "/name").to_owned();
    if name.is_empty() {
        causes.push(Cause::required(format!("{field}.name"), ""));
    }
    let columns = object::list(version, "/additionalPrinterColumns").to_vec();
    custom.columns.insert(name.clone(), columns);
    if let Some(scale) = version.pointer("/subresources/scale") {
        custom.scale = Some(scale.clone());
    }
    let field = format!("{field}.schema.openAPIV3Schema");
    let Some(text) = version.pointer("/schema/openAPIV3Schema") else {
        causes.push(Cause::required(field, "schemas are required"));
        return;
    };
    let mut schema = Schema::compile(text, &field, causes);
    schema.embed_metadata();
    custom.schemas.insert(name.clone(), Arc::new(schema));
    custom.texts.insert(name, text.clone());
}

#[cfg(test)]
mod tests;
