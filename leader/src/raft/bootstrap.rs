//! How a group comes to be: once, by the replica with the lowest number.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Raft;
use super::identity::IdentityFile;
use super::peer_clients::{PeerClients, Purpose};
use super::types::{ReplicaAddress, ReplicaId};
use super::wire::{IDENTITY_PATH, IdentityAnswer};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// What the peers told of themselves.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// A majority (this replica counted) is in no group, and nobody told of one.
    Found,
    /// Somebody is in a group: this replica waits for its leader.
    Join,
    /// Too few have answered.
    Ask,
}

/// Makes all configured replicas voters of a new group. Only for a replica whose log is empty.
pub(super) async fn found_group(
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

fn judge(voters: usize, answers: &[Option<IdentityAnswer>]) -> Verdict {
    if answers.iter().flatten().any(|answer| answer.cluster.is_some()) {
        return Verdict::Join;
    }
    let answered = answers.iter().flatten().count().saturating_add(1);
    if answered > voters / 2 { Verdict::Found } else { Verdict::Ask }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_founded_by_a_majority_without_one() {
        let free = || Some(IdentityAnswer { replica: 2, cluster: None });
        let taken = || Some(IdentityAnswer { replica: 3, cluster: Some("abc".to_owned()) });
        assert_eq!(judge(1, &[]), Verdict::Found);
        assert_eq!(judge(3, &[None, None]), Verdict::Ask);
        assert_eq!(judge(3, &[free(), None]), Verdict::Found);
        assert_eq!(judge(3, &[free(), taken()]), Verdict::Join);
        assert_eq!(judge(3, &[None, taken()]), Verdict::Join);
        assert_eq!(judge(5, &[free(), None, None, None]), Verdict::Ask);
    }
}
