//! Who makes a request, from its headers, and whether they may.

use axum::http::{HeaderMap, header};

use super::path::{ResourcePath, decode_percent};
use super::{Verb, header_text};
use crate::shared::SharedWorld;
use crate::world::access::{Action, Target, User, rbac};
use crate::world::failure::{ApiFailure, ApiResult};
use crate::world::resource::Resource;
use crate::world::store::Store;
use crate::world::store::selector::Selector;

/// Who a request comes from: the token's user, or whom an allowed user pretends to be.
///
/// Without a token it is the kubeconfig's user: kubectl shows no token where there is no TLS, and this API
/// is on loopback.
///
/// # Errors
/// 401 for a token that stands for nobody, 403 for an impersonation that is not allowed.
pub(super) fn authenticate(world: &SharedWorld, headers: &HeaderMap) -> ApiResult<User> {
    let authorization = header_text(headers, header::AUTHORIZATION);
    let token = authorization.strip_prefix("Bearer ").unwrap_or_default().trim();
    world.with(|world, now| {
        let user = if authorization.is_empty() {
            User::administrator()
        } else {
            world
                .tokens
                .authenticate(world, token, &[], now)
                .ok_or_else(ApiFailure::unauthorized)?
                .user
        };
        impersonate(&world.store, user, headers)
    })
}

/// `kubectl --as NAME --as-group GROUP`.
fn impersonate(store: &Store, user: User, headers: &HeaderMap) -> ApiResult<User> {
    let named = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(name) = named("impersonate-user") else { return Ok(user) };
    let groups: Vec<&str> = headers
        .get_all("impersonate-group")
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .collect();
    let subject = |resource, name| Target::Resource {
        group: "",
        resource,
        subresource: "",
        namespace: "",
        name,
        fields: None,
    };
    let mut wanted = vec![subject("users", name)];
    let mut other =
        match name.strip_prefix("system:serviceaccount:").and_then(|own| own.split_once(':')) {
            Some((namespace, account)) => {
                wanted = vec![Target::Resource {
                    group: "",
                    resource: "serviceaccounts",
                    subresource: "",
                    namespace,
                    name: account,
                    fields: None,
                }];
                User::service_account(namespace, account)
            }
            None => User {
                name: name.to_owned(),
                groups: vec!["system:authenticated".to_owned()],
                ..User::default()
            },
        };
    wanted.extend(groups.iter().map(|group| subject("groups", *group)));
    for target in wanted {
        authorize(store, &user, &Action { verb: "impersonate", target })?;
    }
    other.groups.extend(groups.into_iter().map(str::to_owned));
    for (header, value) in headers {
        if let (Some(key), Ok(value)) =
            (header.as_str().strip_prefix("impersonate-extra-"), value.to_str())
        {
            other.extra.entry(decode_percent(key)).or_default().push(value.to_owned());
        }
    }
    Ok(other)
}

/// Refuses what a user may not do.
///
/// # Errors
/// 403.
pub(super) fn authorize(store: &Store, user: &User, action: &Action<'_>) -> ApiResult<()> {
    let decision = rbac::decide(store, user, action);
    if decision.allowed {
        return Ok(());
    }
    let mut detail = format!("User {:?} {action}", user.name);
    if !decision.reason.is_empty() {
        detail = format!("{detail}: {}", decision.reason);
    }
    Err(match action.target {
        Target::Path(_) => ApiFailure::forbidden_path(&detail),
        Target::Resource { group, resource, name, .. } => {
            ApiFailure::forbidden(&Resource::named(group, resource), name, &detail)
        }
    })
}

/// Refuses a request for a resource that its user may not make.
///
/// # Errors
/// 403.
pub(super) fn authorize_resource(
    world: &SharedWorld,
    user: &User,
    verb: Verb,
    path: &ResourcePath,
    selector: &Selector,
) -> ApiResult<()> {
    let fields = matches!(verb, Verb::List | Verb::Watch).then_some(selector);
    // A list of one object counts as naming it.
    let name = match fields.and_then(|fields| fields.exact("metadata.name")) {
        Some(selected) if path.name.is_empty() => selected,
        _ => &path.name,
    };
    // A namespace is an object, and the place that RBAC looks for roles in.
    let namespace = if path.plural == "namespaces" { &path.name } else { &path.namespace };
    let target = Target::Resource {
        group: &path.group,
        resource: &path.plural,
        subresource: &path.subresource,
        namespace,
        name,
        fields,
    };
    world.with(|world, _| authorize(&world.store, user, &Action { verb: verb.as_str(), target }))
}

/// Refuses a request for a path that is no resource.
///
/// # Errors
/// 403.
pub(super) fn authorize_path(world: &SharedWorld, user: &User, path: &str) -> ApiResult<()> {
    let action = Action { verb: "get", target: Target::Path(path) };
    world.with(|world, _| authorize(&world.store, user, &action))
}
