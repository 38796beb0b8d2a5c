//! Names, labels, annotations and finalizers: what every object has.

use serde_json::Value;

use crate::world::failure::Cause;
use crate::world::object;
use crate::world::resource::Definition;

const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SERVICE: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
const KEY_NAME: &str = "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

/// Annotations may be so long altogether.
const LONGEST_ANNOTATIONS: usize = 256 * 1024;

/// Checks an object's metadata.
pub(super) fn check(definition: &Definition, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    check_name(definition, object::name(value), &mut causes);
    check_labels(value.pointer("/metadata/labels"), "metadata.labels", &mut causes);
    check_annotations(value, &mut causes);
    for finalizer in object::list(value, "/metadata/finalizers") {
        let text = finalizer.as_str().unwrap_or_default();
        if let Some(detail) = wrong_key(text) {
            causes.push(Cause::invalid("metadata.finalizers", finalizer, detail));
        }
    }
    for (index, owner) in object::list(value, "/metadata/ownerReferences").iter().enumerate() {
        for member in ["apiVersion", "kind", "name", "uid"] {
            if object::text(owner, &format!("/{member}")).is_empty() {
                let field = format!("metadata.ownerReferences[{index}].{member}");
                causes.push(Cause::invalid(field, &"".into(), "must not be empty"));
            }
        }
    }
    causes
}

fn check_name(definition: &Definition, name: &str, causes: &mut Vec<Cause>) {
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
        return;
    }
    let (fits, detail) = match (&*definition.resource.group, &*definition.resource.plural) {
        // RBAC's names hold colons and more; they need only fit into a path.
        ("rbac.authorization.k8s.io", _) => {
            (!name.contains(['/', '%']), "may not contain '/' or '%'")
        }
        ("", "namespaces") => (is_label(name), LABEL),
        ("", "services") => {
            (is_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()), SERVICE)
        }
        _ => (is_subdomain(name), SUBDOMAIN),
    };
    if !fits {
        causes.push(Cause::invalid("metadata.name", &name.into(), detail));
    }
}

/// Whether a text is an RFC 1123 label.
pub(super) fn is_label(text: &str) -> bool {
    let alphanumeric =
        |character: char| character.is_ascii_lowercase() || character.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.chars().all(|character| alphanumeric(character) || character == '-')
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}

fn is_subdomain(text: &str) -> bool {
    let part =
        |part: &str| !part.is_empty() && is_label(part.get(..part.len().min(63)).unwrap_or(part));
    text.len() <= 253 && text.split('.').all(part)
}

/// Checks a map of labels.
pub(super) fn check_labels(labels: Option<&Value>, field: &str, causes: &mut Vec<Cause>) {
    let Some(labels) = labels.filter(|labels| !labels.is_null()) else { return };
    let Some(labels) = labels.as_object() else {
        causes.push(Cause::type_invalid(field, "labels", "must be a map of texts"));
        return;
    };
    for (key, value) in labels {
        if let Some(detail) = wrong_key(key) {
            causes.push(Cause::invalid(field, &key.as_str().into(), detail));
        }
        match value.as_str() {
            Some(text) if text.len() > 63 => {
                causes.push(Cause::invalid(field, value, "must be no more than 63 characters"));
            }
            Some(text) if is_name(text) || text.is_empty() => {}
            Some(_) => causes.push(Cause::invalid(field, value, LABEL_VALUE)),
            None => {
                causes.push(Cause::invalid(format!("{field}.{key}"), value, "must be a string"))
            }
        }
    }
}

fn check_annotations(value: &Value, causes: &mut Vec<Cause>) {
    let field = "metadata.annotations";
    let annotations = value.pointer("/metadata/annotations").and_then(Value::as_object);
    let mut length = 0;
    for (key, value) in annotations.into_iter().flatten() {
        if let Some(detail) = wrong_key(&key.to_lowercase()) {
            causes.push(Cause::invalid(field, &key.as_str().into(), detail));
        }
        match value.as_str() {
            Some(text) => length += key.len() + text.len(),
            None => {
                causes.push(Cause::invalid(format!("{field}.{key}"), value, "must be a string"))
            }
        }
    }
    if length > LONGEST_ANNOTATIONS {
        causes.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {LONGEST_ANNOTATIONS} bytes"),
            field: field.to_owned(),
        });
    }
}

/// What is wrong with a qualified name (`prefix/name`).
fn wrong_key(key: &str) -> Option<&'static str> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if prefix.is_some_and(|prefix| !is_subdomain(prefix)) {
        return Some("prefix part must be a lowercase RFC 1123 subdomain");
    }
    if name.is_empty() {
        return Some("name part must be non-empty");
    }
    if name.len() > 63 {
        return Some("name part must be no more than 63 characters");
    }
    if is_name(name) { None } else { Some(KEY_NAME) }
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |character: char| character.is_ascii_alphanumeric();
    text.chars().all(|character| alphanumeric(character) || "-_.".contains(character))
        && text.starts_with(alphanumeric)
        && text.ends_with(alphanumeric)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_keys_are_judged_as_kubernetes_does() {
        for (text, fits) in
            [("a", true), ("a-b.c", true), ("A", false), ("-a", false), ("a.", false), ("", false)]
        {
            assert_eq!(is_subdomain(text), fits, "{text}");
        }
        for (key, fits) in [
            ("app", true),
            ("karpenter.sh/nodepool", true),
            ("a/b/c", false),
            ("/a", false),
            ("a/", false),
            ("A_b", true),
        ] {
            assert_eq!(wrong_key(key).is_none(), fits, "{key}");
        }
    }
}
