//! The way in for an agent without a token for leaders: it writes the leader's nonce on its own Node.
//! Credentials of the API server never go to a leader.

use std::time::Duration;

use drover_common::call::{Kind, KubernetesCall, KubernetesFailureKind, Target};
use drover_common::id::NodeName;
use drover_common::labels;
use drover_common::protocol::NonceAnswer;
use drover_kubernetes::Client;
use serde_json::json;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How long the API server may take for the nonce.
const PATIENCE: Duration = Duration::from_secs(5);
/// A proof that no leader has taken is not made again before this; twice as long after each further one,
/// up to the longest. A patch of a Node is news to all who watch Nodes.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the agent is let in by, once it has proved whose it is.
pub(super) struct Proof {
    node: NodeName,
    clients: watch::Receiver<Option<Client>>,
    token: watch::Sender<Option<String>>,
    /// Held by the one who proves.
    tries: Mutex<Tries>,
}

/// Proofs that were made since a leader last took one.
#[derive(Debug, Default)]
struct Tries {
    count: u32,
    not_before: Option<Instant>,
}

impl Tries {
    fn is_too_soon(&self, now: Instant) -> bool {
        self.not_before.is_some_and(|time| now < time)
    }

    /// One was made: the Node was written.
    fn made(&mut self, now: Instant) {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.count.min(6)).min(LONGEST_PAUSE);
        self.count = self.count.saturating_add(1);
        self.not_before = now.checked_add(pause);
    }
}

impl std::fmt::Debug for Proof {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Proof").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Proof {
    /// An agent that has proved nothing yet; `clients` brings the way to the API server.
    pub(super) fn new(node: NodeName, clients: watch::Receiver<Option<Client>>) -> Self {
        Self { node, clients, token: watch::Sender::new(None), tries: Mutex::default() }
    }

    /// Whose agent this is.
    pub(super) fn node(&self) -> &NodeName {
        &self.node
    }

    /// The token, if there is one.
    pub(super) fn token(&self) -> Option<String> {
        self.token.borrow().clone()
    }

    /// A leader took the token.
    pub(super) fn succeed(&self) {
        // Whoever holds it proves anew, and comes here afterwards.
        if let Ok(mut tries) = self.tries.try_lock() {
            *tries = Tries::default();
        }
    }

    /// Gets another token in place of `refused`, and writes what makes it count on the Node. Where
    /// somebody did that in the meantime, there is nothing left to do.
    ///
    /// # Errors
    /// It is too soon after another try, the leader gives no nonce, or it can't be written; in words.
    pub(super) async fn renew(
        &self,
        refused: Option<&str>,
        asking: impl Future<Output = Result<NonceAnswer, String>>,
    ) -> Result<String, String> {
        let mut tries = self.tries.lock().await;
        if let Some(newer) = self.token().filter(|newer| Some(newer.as_str()) != refused) {
            return Ok(newer);
        }
        if tries.is_too_soon(Instant::now()) {
            return Err("whose agent this is was not believed a moment ago".to_owned());
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
            let hint = match failure.kind {
                KubernetesFailureKind::Forbidden => {
                    " (an agent of a service account shows leaders a token instead: --token-file)"
                }
                _ => "",
            };
            format!("the leader's nonce can't be written: {}{hint}", failure.message)
        })?;
        tries.made(Instant::now());
        tracing::info!(node = %self.node, "The leader's nonce was written on the Node.");
        self.token.send_replace(Some(fresh.clone()));
        Ok(fresh)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proofs_that_no_leader_takes_become_rare() {
        let begun = Instant::now();
        let (mut tries, mut now) = (Tries::default(), begun);
        let mut made = 0;
        while now.duration_since(begun) < Duration::from_secs(600) {
            if !tries.is_too_soon(now) {
                tries.made(now);
                made += 1;
            }
            now += Duration::from_millis(250);
        }
        // After 0, 1, 3, 7, 15, 31 and 63 seconds, then one a minute.
        assert_eq!(made, 15);
    }
}
