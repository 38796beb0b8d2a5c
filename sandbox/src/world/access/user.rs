//! Identities.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::world::object;

/// Who makes a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Such as `system:serviceaccount:NAMESPACE:NAME`.
    pub name: String,
    /// Unique over time; may be empty.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the authenticator knows, such as the node of a pod's token.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    fn new<const N: usize>(name: String, groups: [&str; N]) -> Self {
        let groups = groups.into_iter().map(str::to_owned).collect();
        Self { name, groups, ..Self::default() }
    }

    /// The kubeconfig's user: cluster-admin.
    pub fn administrator() -> Self {
        Self::new("sandbox-admin".to_owned(), ["system:masters", "system:authenticated"])
    }

    /// A kubelet.
    pub fn node(name: &str) -> Self {
        Self::new(format!("system:node:{name}"), ["system:nodes", "system:authenticated"])
    }

    /// A service account.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let own = format!("system:serviceaccounts:{namespace}");
        let groups = ["system:serviceaccounts", &own, "system:authenticated"];
        Self::new(format!("system:serviceaccount:{namespace}:{name}"), groups)
    }

    /// The node a kubelet's identity speaks for.
    pub fn node_name(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:")?;
        self.is_in("system:nodes").then_some(name)
    }

    /// Whether the user belongs to a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }

    /// As reviews and admission write it (`username`, `uid`, `groups`, `extra`).
    pub fn to_json(&self) -> Value {
        let mut user = json!({ "username": self.name, "groups": self.groups });
        if !self.uid.is_empty() {
            object::set(&mut user, &["uid"], self.uid.as_str());
        }
        if !self.extra.is_empty() {
            object::set(&mut user, &["extra"], json!(self.extra));
        }
        user
    }

    /// The user that a SubjectAccessReview's `spec` asks about.
    pub fn of_review(spec: &Value) -> Self {
        let texts = |value: &Value| {
            value
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str)
                .map(str::to_owned)
                .collect()
        };
        let extra = spec.get("extra").and_then(Value::as_object).into_iter().flatten();
        Self {
            name: object::text(spec, "/user").to_owned(),
            uid: object::text(spec, "/uid").to_owned(),
            groups: spec.get("groups").map(texts).unwrap_or_default(),
            extra: extra.map(|(key, values)| (key.clone(), texts(values))).collect(),
        }
    }
}
