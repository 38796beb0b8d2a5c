//! Bearer tokens: which the sandbox has issued, and whom they stand for.

use std::collections::BTreeMap;

use drover_common::cluster::ObjectKey;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::{User, eks};
use crate::world::World;
use crate::world::failure::{ApiFailure, ApiResult, Cause};
use crate::world::object;
use crate::world::random::Random;
use crate::world::resource::{NODES, PODS, SERVICE_ACCOUNTS};
use crate::world::store::Store;

/// The kubeconfig's token.
pub const ADMINISTRATOR: &str = "sandbox-admin";

/// The API's own audience: a token without it is not accepted by the API itself.
pub const DEFAULT_AUDIENCE: &str = "https://kubernetes.default.svc";

/// A token before this is the credential of the kubelet of the node named after it; a simulated
/// kubelet has no certificate.
const NODE_PREFIX: &str = "sandbox:node:";

/// The shortest life of a token, seconds, as in Kubernetes.
const SHORTEST_LIFE: i64 = 600;
const USUAL_LIFE: i64 = 3600;

/// The tokens of service accounts.
#[derive(Debug)]
pub struct Tokens {
    issued: BTreeMap<String, Issued>,
    random: Random,
}

#[derive(Clone, Debug)]
struct Issued {
    account: ObjectKey,
    account_uid: String,
    /// Name and uid of the pod that the token is bound to.
    pod: Option<(String, String)>,
    audiences: Vec<String>,
    expires: Timestamp,
}

/// Whom a token stands for, and which of the asked-for audiences it is good for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who.
    pub user: User,
    /// For whom; never empty.
    pub audiences: Vec<String>,
}

impl Tokens {
    /// None yet.
    pub fn new(random: Random) -> Self {
        Self { issued: BTreeMap::new(), random }
    }

    /// Issues a token as a TokenRequest's `spec` asks for it.
    ///
    /// # Errors
    /// 404 without the account or the bound pod, 409 if the pod is another's, 422 for a life that is
    /// too short or an object that tokens can't be bound to.
    pub fn issue(
        &mut self,
        store: &Store,
        account: &ObjectKey,
        spec: &Value,
        now: Timestamp,
    ) -> ApiResult<(String, Timestamp)> {
        let found = store.require(&SERVICE_ACCOUNTS, account)?;
        let seconds = object::integer(spec, "/expirationSeconds").unwrap_or(USUAL_LIFE);
        let expires = now.checked_add(SignedDuration::from_secs(seconds)).ok();
        let Some(expires) = expires.filter(|_| seconds >= SHORTEST_LIFE) else {
            return Err(refuse(Cause::invalid(
                "spec.expirationSeconds",
                &seconds.into(),
                "may not specify a duration less than 10 minutes",
            )));
        };
        let mut audiences: Vec<String> = object::list(spec, "/audiences")
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect();
        if audiences.is_empty() {
            audiences.push(DEFAULT_AUDIENCE.to_owned());
        }
        let issued = Issued {
            account: account.clone(),
            account_uid: object::uid(found).to_owned(),
            pod: bound_pod(store, account, spec)?,
            audiences,
            expires,
        };
        self.issued.retain(|_, old| old.expires > now);
        let token = format!("sandbox-token-{}", self.random.hex(40));
        self.issued.insert(token.clone(), issued);
        Ok((token, expires))
    }

    /// Whom a token stands for; `None` if it was not issued here, has expired, was made for others,
    /// or if its account or pod is gone.
    pub fn authenticate(
        &self,
        world: &World,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Option<Authenticated> {
        let default = [DEFAULT_AUDIENCE.to_owned()];
        let asked = if audiences.is_empty() { &default } else { audiences };
        let store = &world.store;
        let (user, own) = if token == ADMINISTRATOR {
            (User::administrator(), default.to_vec())
        } else if eks::is_one(token) {
            let found = eks::node(world, token, now);
            let node = found.inspect_err(|reason| {
                tracing::debug!(reason, "A token of EKS was refused.");
            });
            (User::node(&node.ok()?), default.to_vec())
        } else if let Some(node) = token.strip_prefix(NODE_PREFIX) {
            // A kubelet shows its certificate before its Node is there: it creates it.
            (User::node(node), default.to_vec())
        } else {
            let issued = self.issued.get(token).filter(|issued| issued.expires > now)?;
            (issued.user(store)?, issued.audiences.clone())
        };
        let audiences: Vec<String> =
            asked.iter().filter(|audience| own.contains(audience)).cloned().collect();
        (!audiences.is_empty()).then_some(Authenticated { user, audiences })
    }
}

impl Issued {
    fn user(&self, store: &Store) -> Option<User> {
        let account = store.get(&SERVICE_ACCOUNTS, &self.account)?;
        if object::uid(account) != self.account_uid {
            return None;
        }
        let mut user = User::service_account(&self.account.namespace, &self.account.name);
        user.uid = self.account_uid.clone();
        if let Some((name, uid)) = &self.pod {
            let pod = store.find(&PODS, &self.account.namespace, name)?;
            if object::uid(pod) != uid {
                return None;
            }
            let mut tell = |key: &str, value: &str| {
                let key = format!("authentication.kubernetes.io/{key}");
                user.extra.insert(key, vec![value.to_owned()]);
            };
            tell("pod-name", name);
            tell("pod-uid", uid);
            let node = object::text(pod, "/spec/nodeName");
            if !node.is_empty() {
                tell("node-name", node);
                if let Some(node) = store.find(&NODES, "", node) {
                    tell("node-uid", object::uid(node));
                }
            }
        }
        Some(user)
    }
}

fn bound_pod(
    store: &Store,
    account: &ObjectKey,
    spec: &Value,
) -> ApiResult<Option<(String, String)>> {
    let kind = object::text(spec, "/boundObjectRef/kind");
    if kind.is_empty() {
        return Ok(None);
    }
    if kind != "Pod" {
        let detail = "the sandbox binds tokens to pods alone";
        return Err(refuse(Cause::invalid("spec.boundObjectRef.kind", &kind.into(), detail)));
    }
    let name = object::text(spec, "/boundObjectRef/name");
    let pod = store
        .find(&PODS, &account.namespace, name)
        .ok_or_else(|| ApiFailure::not_found(&PODS, name))?;
    let uid = object::text(spec, "/boundObjectRef/uid");
    if !uid.is_empty() && uid != object::uid(pod) {
        let detail = "the UID in the bound object reference does not match the UID in record";
        return Err(ApiFailure::conflict(&PODS, name, detail));
    }
    let own = match object::text(pod, "/spec/serviceAccountName") {
        "" => "default",
        own => own,
    };
    if own != account.name {
        let detail = "cannot bind token for serviceaccount to pod running with different serviceaccount name";
        return Err(refuse(Cause::forbidden("spec.boundObjectRef.name", detail)));
    }
    Ok(Some((name.to_owned(), object::uid(pod).to_owned())))
}

fn refuse(cause: Cause) -> Box<ApiFailure> {
    ApiFailure::invalid("authentication.k8s.io", "TokenRequest", "", vec![cause])
}
