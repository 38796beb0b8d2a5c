//! Who may ask what: agents by the token of their pod or by what they write on their Node, operators by
//! their Kubernetes token.
//!
//! The API server is asked once and its answer is kept for a minute. While it does not answer, what it
//! said before still counts for some time: a notice must get through when the API server is down. To
//! a new leader all agents come at once: it asks of a few at a time, and keeps turns for news of what ends a
//! node.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use drover_common::call::{Kind, KubernetesCall, Target};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::protocol::NonceAnswer;
use drover_kubernetes::{Client, Identity, ReviewError, review_access, review_token};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{ApiError, Shared};
use crate::config::AccountName;
use kept::{AnswerKey, Kept, Lane};
use nonce::{Nonces, Proof};

mod kept;
mod nonce;
#[cfg(test)]
mod tests;

/// What a token must be made for to be shown to a leader.
const AUDIENCE: &str = "drover";
/// How long the API server may take.
const PATIENCE: Duration = Duration::from_secs(3);

/// Why somebody is not let in. The text goes to whoever asked: it tells nothing they don't know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("a bearer token is needed")]
    NoToken,
    #[error("the token is not known to the API server, or not made for this")]
    UnknownToken,
    #[error("{0}")]
    Forbidden(String),
    #[error(transparent)]
    Unreviewed(#[from] ReviewError),
    #[error("too many wait to be let in")]
    Busy,
}

/// Decides who is let in.
#[derive(Clone)]
pub(crate) struct Gate(Option<Arc<Guard>>);

struct Guard {
    client: Client,
    account: AccountName,
    nonces: Nonces,
    agents: Kept<NodeName>,
    operators: Kept<String>,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_some() { "Gate::Guarded" } else { "Gate::Open" })
    }
}

impl Gate {
    /// Lets in agents that run as `account`, and operators that RBAC allows.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub(crate) fn guarded(
        client: Client,
        account: AccountName,
    ) -> Result<Self, rustls::crypto::GetRandomFailed> {
        let (agents, operators) = (Kept::default(), Kept::default());
        let nonces = Nonces::new()?;
        Ok(Self(Some(Arc::new(Guard { client, account, nonces, agents, operators }))))
    }

    /// Lets everybody in.
    pub(crate) fn open() -> Self {
        Self(None)
    }

    /// What the agent of `node` needs to prove itself by its Node.
    pub(super) fn nonce_for(&self, node: &NodeName) -> Result<NonceAnswer, Refusal> {
        let Some(guard) = &self.0 else {
            return Err(Refusal::Forbidden("everybody is let in here".to_owned()));
        };
        let answer = guard.nonces.issue(node, SystemTime::now());
        answer.map_err(|_| {
            let reason = "the system has no random numbers".to_owned();
            Refusal::Unreviewed(ReviewError { reason })
        })
    }

    /// Checks that a request comes from the agent of `node`. What is urgent waits for no other's turn.
    pub(super) async fn admit_agent(
        &self,
        headers: &HeaderMap,
        node: &NodeName,
        urgent: bool,
    ) -> Result<(), Refusal> {
        let Some(guard) = &self.0 else { return Ok(()) };
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let lane = if urgent { Lane::Urgent } else { Lane::Routine };
        let review = {
            let (guard, token) = (Arc::clone(guard), token.to_owned());
            async move { guard.review_token_or_proof(&token).await }
        };
        let own = guard.agents.get(key(&[token]), Instant::now(), lane, review).await?;
        if own == *node {
            Ok(())
        } else {
            Err(Refusal::Forbidden(format!("this is the token of node {own}, and not of {node}")))
        }
    }

    /// Checks that a request may be made by whoever makes it; their name.
    async fn admit_operator(
        &self,
        headers: &HeaderMap,
        verb: &str,
        path: &str,
    ) -> Result<String, Refusal> {
        let Some(guard) = &self.0 else { return Ok(String::new()) };
        let token = bearer(headers).ok_or(Refusal::NoToken)?;
        let asked = key(&[token, verb, path]);
        let review = {
            let guard = Arc::clone(guard);
            let (token, verb, path) = (token.to_owned(), verb.to_owned(), path.to_owned());
            async move { guard.review_operator(&token, &verb, &path).await }
        };
        guard.operators.get(asked, Instant::now(), Lane::Urgent, review).await
    }
}

/// Lets operators in before a handler runs.
pub(super) async fn operators(
    State(shared): State<Shared>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let verb = request.method().as_str().to_ascii_lowercase();
    shared.gate.admit_operator(request.headers(), &verb, request.uri().path()).await?;
    Ok(next.run(request).await)
}

impl Guard {
    /// The node whose agent shows this.
    async fn review_token_or_proof(&self, token: &str) -> Result<NodeName, Refusal> {
        if !Nonces::is_meant(token) {
            return self.review_agent(token).await;
        }
        let proof = self.nonces.read(token, SystemTime::now()).ok_or(Refusal::UnknownToken)?;
        self.review_node(proof).await
    }

    /// The node that a token's pod runs on.
    async fn review_agent(&self, token: &str) -> Result<NodeName, Refusal> {
        let who = review_token(&self.client, token, Some(AUDIENCE), PATIENCE)
            .await?
            .ok_or(Refusal::UnknownToken)?;
        let claim = AgentClaim::of(&who, &self.account)?;
        let target = Target::namespaced(Kind::Pod, &self.account.namespace, &claim.pod);
        let call = KubernetesCall::Get { target };
        let pod =
            drover_kubernetes::execute(&self.client, &call, PATIENCE).await.map_err(|failure| {
                use drover_common::call::KubernetesFailureKind::NotFound;
                if failure.kind == NotFound {
                    Refusal::Forbidden(format!("pod {} is gone", claim.pod))
                } else {
                    Refusal::Unreviewed(ReviewError { reason: failure.message })
                }
            })?;
        claim.confirm(&pod, &self.account)
    }

    /// Whether the Node bears the nonce that a token was made with; its name.
    async fn review_node(&self, proof: Proof) -> Result<NodeName, Refusal> {
        let Proof { node, nonce } = proof;
        let call = KubernetesCall::Get { target: Target::cluster(Kind::Node, node.as_str()) };
        let found = drover_kubernetes::execute(&self.client, &call, PATIENCE).await;
        let found = found.map_err(|failure| {
            use drover_common::call::KubernetesFailureKind::NotFound;
            if failure.kind == NotFound {
                Refusal::Forbidden(format!("Node {node} is not there"))
            } else {
                Refusal::Unreviewed(ReviewError { reason: failure.message })
            }
        })?;
        let annotations = found.pointer("/metadata/annotations");
        let borne =
            annotations.and_then(|all| all.get(labels::AGENT_NONCE)).and_then(Value::as_str);
        if borne == Some(nonce.as_str()) {
            Ok(node)
        } else {
            Err(Refusal::Forbidden(format!("Node {node} does not bear the token's nonce")))
        }
    }

    async fn review_operator(
        &self,
        token: &str,
        verb: &str,
        path: &str,
    ) -> Result<String, Refusal> {
        let who = review_token(&self.client, token, None, PATIENCE)
            .await?
            .ok_or(Refusal::UnknownToken)?;
        if review_access(&self.client, &who, verb, path, PATIENCE).await? {
            Ok(who.username)
        } else {
            Err(Refusal::Forbidden(format!("{} may not {verb} {path}", who.username)))
        }
    }
}

/// What an agent's token says of its pod.
#[derive(Clone, Debug, PartialEq, Eq)]
struct AgentClaim {
    pod: String,
    pod_uid: String,
    /// Kubernetes before 1.30 does not tell it.
    node: Option<String>,
}

impl AgentClaim {
    fn of(who: &Identity, account: &AccountName) -> Result<Self, Refusal> {
        let wanted = Some((account.namespace.as_str(), account.name.as_str()));
        if who.service_account() != wanted {
            let name = &who.username;
            return Err(Refusal::Forbidden(format!("{name} is not the agents' account {account}")));
        }
        let (Some(pod), Some(uid)) = (who.bound("pod-name"), who.bound("pod-uid")) else {
            return Err(Refusal::Forbidden("the token is not bound to a pod".to_owned()));
        };
        let node = who.bound("node-name").map(str::to_owned);
        Ok(Self { pod: pod.to_owned(), pod_uid: uid.to_owned(), node })
    }

    /// Compares the claim with the pod as it is; its node.
    fn confirm(&self, pod: &Value, account: &AccountName) -> Result<NodeName, Refusal> {
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let refuse = |reason: &str| Err(Refusal::Forbidden(format!("pod {}: {reason}", self.pod)));
        if text("/metadata/uid") != self.pod_uid {
            return refuse("it is another than the token's");
        }
        if text("/metadata/namespace") != account.namespace
            || text("/spec/serviceAccountName") != account.name
        {
            return refuse("it does not run as the agents' account");
        }
        let node = text("/spec/nodeName");
        if node.is_empty() || self.node.as_deref().is_some_and(|told| told != node) {
            return refuse("it runs on another node than the token's");
        }
        Ok(NodeName::from(node))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = text.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// A hash in place of the token: what is kept must be of no use to anybody.
fn key(parts: &[&str]) -> AnswerKey {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part.len().to_le_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}
