//! Applying manifests: every document that can be applied is, and every one that can't gets an
//! error that names file, document, object and field.

use std::path::{Path, PathBuf};

use kube::api::{Api, DynamicObject, Patch, PatchParams, ValidationDirective};
use kube::discovery::{Discovery, Scope};
use serde_json::Value;

/// One document of one file.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    file: String,
    number: usize,
    object: Value,
}

/// What became of a set of manifests.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// `kind/name` of what was applied, in order.
    pub(crate) objects: Vec<String>,
    /// One line for each document that could not be applied.
    pub(crate) errors: Vec<String>,
}

/// Reads all documents of `text`; a document that is no YAML does not hide the others.
pub(crate) fn parse(file: &str, text: &str, errors: &mut Vec<String>) -> Vec<Document> {
    let mut documents = Vec::new();
    for (index, part) in split_documents(text).into_iter().enumerate() {
        let number = index + 1;
        match serde_saphyr::from_str::<Value>(&part) {
            Ok(Value::Null) => {}
            Ok(Value::Object(map)) if map.get("items").is_some_and(Value::is_array) => {
                let items = map.get("items").and_then(Value::as_array).cloned().unwrap_or_default();
                documents.extend(items.into_iter().map(|object| Document {
                    file: file.to_owned(),
                    number,
                    object,
                }));
            }
            Ok(object @ Value::Object(_)) => {
                documents.push(Document { file: file.to_owned(), number, object });
            }
            Ok(_) => errors.push(format!("{file}, document {number}: not an object")),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.lines().next().unwrap_or_default();
                errors.push(format!("{file}, document {number}: not YAML: {reason}"));
            }
        }
    }
    documents
}

/// Cuts a stream at its `---` lines, so that one broken document can't spoil the rest.
fn split_documents(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    for line in text.lines() {
        if line == "---" || line.starts_with("--- ") {
            parts.push(String::new());
            continue;
        }
        if let Some(part) = parts.last_mut() {
            part.push_str(line);
            part.push('\n');
        }
    }
    parts.retain(|part| {
        part.lines().any(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'))
    });
    parts
}

/// Reads files, and folders in the order of their names.
pub(crate) fn read(paths: &[PathBuf], errors: &mut Vec<String>) -> Vec<Document> {
    let mut documents = Vec::new();
    for path in paths {
        for file in files_of(path, errors) {
            match std::fs::read_to_string(&file) {
                Ok(text) => documents.extend(parse(&file.display().to_string(), &text, errors)),
                Err(error) => errors.push(format!("{}: {error}", file.display())),
            }
        }
    }
    documents
}

fn files_of(path: &Path, errors: &mut Vec<String>) -> Vec<PathBuf> {
    if !path.is_dir() {
        return vec![path.to_owned()];
    }
    match std::fs::read_dir(path) {
        Ok(entries) => {
            let mut files: Vec<PathBuf> = entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|file| {
                    file.extension()
                        .is_some_and(|ext| ext == "yaml" || ext == "yml" || ext == "json")
                })
                .collect();
            files.sort();
            files
        }
        Err(error) => {
            errors.push(format!("{}: {error}", path.display()));
            Vec::new()
        }
    }
}

/// Applies documents in order by server-side apply with strict field validation.
pub(crate) async fn apply(client: &kube::Client, documents: &[Document]) -> Applied {
    let mut applied = Applied::default();
    let discovery = match Discovery::new(client.clone()).run().await {
        Ok(discovery) => discovery,
        Err(error) => {
            applied.errors.push(format!("the API's kinds can't be read: {error}"));
            return applied;
        }
    };
    for document in documents {
        match apply_one(client, &discovery, document).await {
            Ok(object) => applied.objects.push(object),
            Err(reason) => {
                applied
                    .errors
                    .push(format!("{}, document {}: {reason}", document.file, document.number));
            }
        }
    }
    applied
}

async fn apply_one(
    client: &kube::Client,
    discovery: &Discovery,
    document: &Document,
) -> Result<String, String> {
    let text = |pointer: &str| document.object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").ok_or("field kind: missing")?;
    let api_version = text("/apiVersion").ok_or("field apiVersion: missing")?;
    let name = text("/metadata/name").ok_or_else(|| format!("{kind}: metadata.name: missing"))?;
    let title = format!("{} {name}", kind.to_lowercase());
    let (group, version) = api_version.rsplit_once('/').unwrap_or(("", api_version));
    let gvk = kube::core::GroupVersionKind::gvk(group, version, kind);
    let (resource, capabilities) = discovery
        .resolve_gvk(&gvk)
        .ok_or_else(|| format!("{title}: the cluster has no kind {kind} in {api_version}"))?;
    let api: Api<DynamicObject> = match capabilities.scope {
        Scope::Cluster => Api::all_with(client.clone(), &resource),
        Scope::Namespaced => {
            let namespace = text("/metadata/namespace").unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
    };
    let parameters = PatchParams {
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::apply("drover-sandbox").force()
    };
    api.patch(name, &parameters, &Patch::Apply(&document.object))
        .await
        .map(|_| title.clone())
        .map_err(|error| format!("{title}: {}", reason_of(&error)))
}

/// The server's own words, which name the field.
fn reason_of(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_document_does_not_hide_the_others() {
        let mut errors = Vec::new();
        let text = "# comment\n---\nkind: A\n---\nkind: [\n---\n7\n---\nkind: B\n";
        let documents = parse("f.yaml", text, &mut errors);
        let kinds: Vec<&str> =
            documents.iter().filter_map(|document| document.object["kind"].as_str()).collect();
        assert_eq!(kinds, ["A", "B"]);
        assert_eq!(errors.len(), 2, "{errors:?}");
        assert!(errors[0].starts_with("f.yaml, document 2: not YAML"), "{errors:?}");
        assert_eq!(errors[1], "f.yaml, document 3: not an object");
    }

    #[test]
    fn lists_are_opened() {
        let mut errors = Vec::new();
        let text = "kind: List\nitems:\n- kind: A\n- kind: B\n";
        assert_eq!(parse("f.yaml", text, &mut errors).len(), 2);
        assert!(errors.is_empty());
    }
}
