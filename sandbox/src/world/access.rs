//! Who makes a request, and whether they may: tokens, RBAC, the rules for nodes.

mod eks;
mod node;
pub mod rbac;
mod token;
mod user;

#[cfg(test)]
mod tests;

pub use node::restrict;
pub use token::{ADMINISTRATOR, Authenticated, DEFAULT_AUDIENCE, Tokens};
pub use user::User;

use crate::world::store::selector::Selector;

/// What a request would do, as RBAC tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action<'a> {
    /// In lower case: `get`, `list`, `watch`, `create`, …
    pub verb: &'a str,
    /// To what.
    pub target: Target<'a>,
}

/// What an action is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// Objects of the API; empty where it does not apply, or where it is all of them.
    Resource {
        /// API group; empty for core.
        group: &'a str,
        /// Plural.
        resource: &'a str,
        /// Such as `status`.
        subresource: &'a str,
        /// Namespace.
        namespace: &'a str,
        /// Name; of a list or watch the one that its field selector asks for.
        name: &'a str,
        /// What a list or watch is narrowed to.
        fields: Option<&'a Selector>,
    },
    /// A path that is no resource, such as `/metrics`.
    Path(&'a str),
}

/// Whether an action is allowed, and by what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The answer.
    pub allowed: bool,
    /// For people.
    pub reason: String,
}

impl std::fmt::Display for Action<'_> {
    /// As a refusal tells it: `cannot list resource "pods" in API group "" at the cluster scope`.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.target {
            Target::Path(path) => write!(formatter, "cannot {} path {path:?}", self.verb),
            Target::Resource { group, resource, subresource, namespace, .. } => {
                let slash = if subresource.is_empty() { "" } else { "/" };
                write!(
                    formatter,
                    "cannot {} resource \"{resource}{slash}{subresource}\" in API group {group:?}",
                    self.verb
                )?;
                if namespace.is_empty() {
                    formatter.write_str(" at the cluster scope")
                } else {
                    write!(formatter, " in the namespace {namespace:?}")
                }
            }
        }
    }
}
