//! The way in for an agent without a token for leaders: it writes the leader's nonce on its own Node.
//! Credentials of the API server never go to a leader.

use std::time::Duration;

use drover_common::call::{Kind, KubernetesCall, Target};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::protocol::NonceAnswer;
use drover_kubernetes::Client;
use serde_json::json;
use tokio::sync::{Mutex, watch};

/// How long the API server may take for the nonce.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the agent is let in by, once it has proved whose it is.
pub(super) struct Proof {
    node: NodeName,
    clients: watch::Receiver<Option<Client>>,
    token: Mutex<Option<String>>,
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Proof").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Proof {
    /// An agent that has proved nothing yet; `clients` brings the way to the API server.
    pub(super) fn new(node: NodeName, clients: watch::Receiver<Option<Client>>) -> Self {
        Self { node, clients, token: Mutex::new(None) }
    }

    /// Whose agent this is.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// The token, if there is one.
    pub(super) async fn token(&self) -> Option<String> {
        self.token.lock().await.clone()
    }

    /// Gets another token in place of `refused`, and writes what makes it count on the Node. Where
    /// somebody did that in the meantime, there is nothing left to do.
    ///
    /// # Errors
    /// The leader gives no nonce, or it can't be written; in words.
    pub(super) async fn renew(
        &self,
        refused: Option<&str>,
        asking: impl Future<Output = Result<NonceAnswer, String>>,
    ) -> Result<String, String> {
        let mut token = self.token.lock().await;
        if let Some(newer) = token.as_deref().filter(|newer| Some(*newer) != refused) {
            return Ok(newer.to_owned());
        }
        let client = self.clients.borrow().clone();
        let client =
            client.ok_or("the API server can't be reached to prove whose agent this is")?;
        let NonceAnswer { nonce, token: fresh } = asking.await?;
        let call = KubernetesCall::MergePatch {
            target: Target::cluster(Kind::Node, self.node.as_str()),
            status: false,
            patch: json!({ "metadata": { "annotations": { labels::AGENT_NONCE: nonce } } }),
        };
        drover_kubernetes::execute(&client, &call, PATIENCE).await.map_err(|failure| {
            format!("the leader's nonce can't be written: {}", failure.message)
        })?;
        tracing::info!(node = %self.node, "The leader's nonce was written on the Node.");
        *token = Some(fresh.clone());
        Ok(fresh)
    }
}
