//! Role-based access control over the stored roles and bindings, after the rules that need none:
//! `system:masters` may do everything, and kubelets what kubelets do.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Action, Decision, Target, User, node};
use crate::world::object;
use crate::world::resource::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, ROLE_BINDINGS, ROLES};
use crate::world::store::Store;
use crate::world::store::selector::Selector;

/// Whether a user may do something.
pub fn decide(store: &Store, user: &User, action: &Action<'_>) -> Decision {
    let allow = |reason: String| Decision { allowed: true, reason };
    if user.is_in("system:masters") {
        return allow(String::new());
    }
    let refusal = match node::decide(store, user, action) {
        Some(Ok(())) => return allow("the node authorizer allows it".to_owned()),
        Some(Err(reason)) => reason,
        None => String::new(),
    };
    let namespace = match action.target {
        Target::Resource { namespace, .. } => namespace,
        Target::Path(_) => "",
    };
    for granted in grants(store, user, namespace) {
        if granted.rules.iter().any(|rule| covers(rule, action)) {
            return allow(format!("RBAC: allowed by {}", granted.binding));
        }
    }
    Decision { allowed: false, reason: refusal }
}

/// The rules that hold for a user in a namespace, as a SelfSubjectRulesReview tells them.
pub fn rules(store: &Store, user: &User, namespace: &str) -> Value {
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    if user.is_in("system:masters") {
        resources.push(json!({ "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"] }));
        paths.push(json!({ "verbs": ["*"], "nonResourceURLs": ["*"] }));
    }
    for rule in grants(store, user, namespace).into_iter().flat_map(|granted| granted.rules) {
        let to = if rule.get("nonResourceURLs").is_some() { &mut paths } else { &mut resources };
        to.push(rule);
    }
    json!({ "incomplete": false, "resourceRules": resources, "nonResourceRules": paths })
}

/// What one binding gives to a user.
struct Grant {
    binding: String,
    rules: Vec<Value>,
}

fn grants(store: &Store, user: &User, namespace: &str) -> Vec<Grant> {
    let mut found = Vec::new();
    for (key, binding) in store.iter(&CLUSTER_ROLE_BINDINGS) {
        if names(binding, user, "") {
            let binding_name = format!("ClusterRoleBinding {:?}", key.name);
            found.push(Grant { binding: binding_name, rules: rules_of(store, binding, "") });
        }
    }
    if namespace.is_empty() {
        return found;
    }
    for (key, binding) in store.iter_namespace(&ROLE_BINDINGS, namespace) {
        if names(binding, user, namespace) {
            let mut rules = rules_of(store, binding, namespace);
            // What is no resource has no namespace, so that no RoleBinding gives it.
            rules.retain(|rule| rule.get("nonResourceURLs").is_none());
            let binding_name = format!("RoleBinding \"{}/{namespace}\"", key.name);
            found.push(Grant { binding: binding_name, rules });
        }
    }
    found
}

fn names(binding: &Value, user: &User, namespace: &str) -> bool {
    object::list(binding, "/subjects").iter().any(|subject| {
        let name = object::text(subject, "/name");
        match object::text(subject, "/kind") {
            "User" => name == user.name,
            "Group" => user.is_in(name),
            "ServiceAccount" => {
                let namespace = match object::text(subject, "/namespace") {
                    "" => namespace,
                    own => own,
                };
                user.name == format!("system:serviceaccount:{namespace}:{name}")
            }
            _ => false,
        }
    })
}

/// The rules of the role that a binding refers to; a role that is not there gives nothing.
fn rules_of(store: &Store, binding: &Value, namespace: &str) -> Vec<Value> {
    let name = object::text(binding, "/roleRef/name");
    let role = match object::text(binding, "/roleRef/kind") {
        "ClusterRole" => store.find(&CLUSTER_ROLES, "", name),
        _ => store.find(&ROLES, namespace, name),
    };
    let Some(role) = role else { return Vec::new() };
    let mut rules = object::list(role, "/rules").to_vec();
    for selector in object::list(role, "/aggregationRule/clusterRoleSelectors") {
        let Some(selector) = Selector::from_label_selector(Some(selector)) else { continue };
        let others = store
            .iter(&CLUSTER_ROLES)
            .filter(|(_, other)| selector.matches(other) && !Arc::ptr_eq(other, role));
        rules.extend(others.flat_map(|(_, other)| object::list(other, "/rules").to_vec()));
    }
    rules
}

fn covers(rule: &Value, action: &Action<'_>) -> bool {
    let has = |pointer: &str, wanted: &str| {
        object::list(rule, pointer).iter().any(|own| own == "*" || own == wanted)
    };
    if !has("/verbs", action.verb) {
        return false;
    }
    match action.target {
        Target::Path(path) => {
            object::list(rule, "/nonResourceURLs").iter().filter_map(Value::as_str).any(|own| {
                own == path || own.strip_suffix('*').is_some_and(|start| path.starts_with(start))
            })
        }
        Target::Resource { group, resource, subresource, name, .. } => {
            let listed = object::list(rule, "/resourceNames");
            let resource_fits = if subresource.is_empty() {
                has("/resources", resource)
            } else {
                has("/resources", &format!("{resource}/{subresource}"))
                    || has("/resources", &format!("*/{subresource}"))
            };
            has("/apiGroups", group)
                && resource_fits
                && (listed.is_empty() || listed.iter().any(|own| own == name))
        }
    }
}
