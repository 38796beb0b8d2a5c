//! How a group comes to be: once, by the replica with the lowest number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::Raft;
use crate::identity::IdentityFile;
use crate::peer_clients::{PeerClients, Purpose};
use crate::types::{ReplicaAddress, ReplicaId};
use crate::wire::{IDENTITY_PATH, IdentityAnswer};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What the peers told of themselves.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A majority (this replica counted) is in no group, and nobody told of one.
    Found,
    /// Somebody is in a group: this replica waits for its leader.
    Join,
    /// Too few have answered.
    Ask,
}

/// Makes all configured replicas voters of a new group. Only for a replica whose log is empty.
pub(crate) async fn found_group(
    raft: Raft,
    identity: Arc<IdentityFile>,
    own: ReplicaId,
    members: BTreeMap<ReplicaId, ReplicaAddress>,
    clients: PeerClients,
) {
    loop {
        let answers = ask_all(own, &members, &clients).await;
        match judge(members.len(), &answers) {
            Verdict::Found => break,
            Verdict::Join => {
                tracing::warn!(
                    replica = own,
                    "This replica's log is empty and its peers are in a group: it waits to be told."
                );
                return;
            }
            Verdict::Ask => tokio::time::sleep(ASK_AGAIN_AFTER).await,
        }
    }
    let cluster = match identity.found() {
        Ok(cluster) => cluster,
        Err(error) => {
            tracing::error!(%error, "The group's id could not be kept, so no group was founded.");
            return;
        }
    };
    match raft.initialize(members).await {
        Ok(()) => tracing::info!(%cluster, "A leader group was founded."),
        // A vote that arrived meanwhile makes this impossible, and needless.
        Err(error) => tracing::warn!(%error, "The leader group was not founded."),
    }
}

async fn ask_all(
    own: ReplicaId,
    members: &BTreeMap<ReplicaId, ReplicaAddress>,
    clients: &PeerClients,
) -> Vec<Option<IdentityAnswer>> {
    let others = members.iter().filter(|(replica, _)| **replica != own);
    futures::future::join_all(others.map(|(_, address)| ask(clients, &address.raft))).await
}

async fn ask(clients: &PeerClients, address: &str) -> Option<IdentityAnswer> {
    let url = format!("{}{IDENTITY_PATH}", clients.url(address));
    let request = clients.get(Purpose::Heartbeat).get(url).timeout(ASK_TIMEOUT);
    request.send().await.ok()?.error_for_status().ok()?.json().await.ok()
}

/// What the answers of all other replicas (`None` where there was none) mean in a group of so many voters.
pub fn judge(voters: usize, answers: &[Option<IdentityAnswer>]) -> Verdict {
    if answers.iter().flatten().any(|answer| answer.cluster.is_some()) {
        return Verdict::Join;
    }
    let answered = answers.iter().flatten().count().saturating_add(1);
    if answered > voters / 2 { Verdict::Found } else { Verdict::Ask }
}
