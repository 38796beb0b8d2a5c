//! How a replica comes to have a vote: it founds the group, once, or is counted in by the replica that
//! does, or asks to be let in.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use openraft::async_runtime::WatchReceiver;

use crate::Raft;
use crate::config::Peer;
use crate::identity::IdentityFile;
use crate::peer_clients::{PeerClients, Purpose};
use crate::told::Told;
use crate::types::{MemberId, ReplicaAddress, ReplicaId, StoredMembership};
use crate::wire::{IDENTITY_PATH, IdentityAnswer, JOIN_PATH, JoinRequest, PROTOCOL};

const ASK_TIMEOUT: Duration = Duration::from_secs(1);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// How long a majority waits for the others before it founds the group without them.
const LINGER: Duration = Duration::from_secs(3);
/// A vote is committed moments after it is written. Where it is not, its leader is gone, or was interrupted
/// between a change's two entries and does not know.
const REMIND_AFTER: Duration = Duration::from_secs(2);

/// What the peers told of themselves.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Everybody has answered, and nobody is in a group.
    Found,
    /// A majority (this replica counted) is in no group, and nobody told of one; some have not answered.
    Linger,
    /// Somebody is in a group: its leader has to let this replica in.
    Join,
    /// Too few have answered.
    Ask,
}

/// What the answers of other replicas mean in a group of so many voters.
pub fn judge(voters: usize, answers: &[IdentityAnswer]) -> Verdict {
    if answers.iter().any(|answer| answer.cluster.is_some()) {
        return Verdict::Join;
    }
    let answered = answers.len().saturating_add(1);
    match answered {
        _ if answered >= voters => Verdict::Found,
        _ if answered > voters / 2 => Verdict::Linger,
        _ => Verdict::Ask,
    }
}

/// What this replica's log tells of its vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Vote {
    None,
    /// An entry gives it one and may yet be cut off, or its leader is yet to finish the change.
    Written,
    Committed,
}

/// A replica on its way to a vote.
pub(crate) struct Newcomer {
    pub(crate) raft: Raft,
    pub(crate) identity: Arc<IdentityFile>,
    pub(crate) replica: ReplicaId,
    pub(crate) member: MemberId,
    pub(crate) peers: Arc<BTreeMap<ReplicaId, Peer>>,
    /// Whether it is the one that founds the group where there is none.
    pub(crate) may_found: bool,
    pub(crate) clients: PeerClients,
    pub(crate) progress: Progress,
}

/// How far a newcomer has come.
#[derive(Debug)]
pub(crate) struct Progress {
    /// Since when a majority would do.
    lingering_since: Option<Instant>,
    /// Since when its log has had its vote.
    written_since: Option<Instant>,
    has_asked: bool,
    /// What was told of who refuses it, and under its own number of what keeps it from founding.
    told: Told<ReplicaId>,
}

impl Default for Progress {
    fn default() -> Self {
        let told = Told::nothing();
        Self { lingering_since: None, written_since: None, has_asked: false, told }
    }
}

impl Newcomer {
    /// Asks until this replica has a vote for good.
    pub(crate) async fn seek_vote(mut self) {
        // Metrics are true only once the core has started, which this waits for.
        if self.raft.is_initialized().await.is_err() {
            return;
        }
        loop {
            match self.vote() {
                Vote::Committed => break,
                Vote::Written => {
                    let since = *self.progress.written_since.get_or_insert_with(Instant::now);
                    if since.elapsed() >= REMIND_AFTER {
                        self.ask_to_be_let_in().await;
                    }
                }
                Vote::None => {
                    self.progress.written_since = None;
                    self.ask_for_vote().await;
                }
            }
            tokio::time::sleep(ASK_AGAIN_AFTER).await;
        }
        if self.progress.has_asked {
            tracing::info!(replica = self.replica, "This replica was let in.");
        }
    }

    async fn ask_for_vote(&mut self) {
        let known = self.identity.cluster();
        let answers = self.ask_all().await;
        let verdict = judge(self.peers.len(), &answers);
        if verdict != Verdict::Linger {
            self.progress.lingering_since = None;
        }
        match verdict {
            Verdict::Found if self.may_found => self.found_group(&answers, known.as_deref()).await,
            Verdict::Linger if self.may_found => {
                let since = *self.progress.lingering_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= LINGER {
                    self.found_group(&answers, known.as_deref()).await;
                }
            }
            Verdict::Join => {
                if !self.progress.has_asked {
                    tracing::info!(
                        replica = self.replica,
                        member = %self.member,
                        "This replica has no vote and its peers are in a group: it asks to be let in."
                    );
                    self.progress.has_asked = true;
                }
                self.ask_to_be_let_in().await;
            }
            Verdict::Found | Verdict::Linger | Verdict::Ask => {}
        }
    }

    fn vote(&self) -> Vote {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let counts_me = |configuration: &StoredMembership| {
            configuration.voter_ids().any(|voter| voter == self.member)
        };
        let committed = &metrics.committed_membership_config;
        if committed.get_joint_config().len() == 1 && counts_me(committed) {
            Vote::Committed
        } else if counts_me(&metrics.membership_config) {
            Vote::Written
        } else {
            Vote::None
        }
    }

    fn others(&self) -> impl Iterator<Item = (ReplicaId, &Peer)> {
        let others = self.peers.iter().filter(|(replica, _)| **replica != self.replica);
        others.map(|(replica, peer)| (*replica, peer))
    }

    async fn ask_all(&self) -> Vec<IdentityAnswer> {
        let answers = join_all(self.others().map(|(replica, peer)| self.ask(replica, peer))).await;
        answers.into_iter().flatten().collect()
    }

    /// A replica's word of itself. One that can't tell its member id can't be counted in.
    async fn ask(&self, replica: ReplicaId, peer: &Peer) -> Option<IdentityAnswer> {
        let url = format!("{}{IDENTITY_PATH}", self.clients.url(&peer.raft));
        let request = self.clients.get(Purpose::Heartbeat).get(url).timeout(ASK_TIMEOUT);
        let answer = request.send().await.ok()?.error_for_status().ok()?;
        let answer: IdentityAnswer = answer.json().await.ok()?;
        let usable = answer.member.is_some() || answer.cluster.is_some();
        (usable && answer.replica == replica).then_some(answer)
    }

    /// Whoever leads lets this replica in; the others refuse. Nothing is waited for: this replica's own log
    /// tells when it has a vote.
    async fn ask_to_be_let_in(&self) {
        let request = JoinRequest {
            protocol: PROTOCOL,
            cluster: self.identity.cluster(),
            replica: self.replica,
            member: self.member,
        };
        let request = &request;
        join_all(self.others().map(|(replica, peer)| async move {
            let url = format!("{}{JOIN_PATH}", self.clients.url(&peer.raft));
            let asking = self.clients.get(Purpose::Heartbeat).post(url).timeout(ASK_TIMEOUT);
            match asking.json(request).send().await {
                Ok(answer) if answer.status().is_client_error() => {
                    self.tell_refusal(replica, peer, answer).await;
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(peer = peer.raft, %error, "A peer could not be asked.");
                }
            }
        }))
        .await;
    }

    /// Time changes nothing about such an answer: somebody has to look after this replica or its peer.
    async fn tell_refusal(&self, replica: ReplicaId, peer: &Peer, answer: reqwest::Response) {
        let status = answer.status();
        let reason = answer.text().await.unwrap_or_default();
        if self.progress.told.is_news(replica, &reason) {
            let peer = &peer.raft;
            tracing::warn!(peer, %status, reason, "A peer refuses to let this replica in.");
        }
    }

    /// Makes all configured replicas voters of a new group. Those that have not answered have no volume that
    /// could vote: they count, so that a majority is one of all, and are replaced when they ask.
    async fn found_group(&mut self, answers: &[IdentityAnswer], known: Option<&str>) {
        let cluster = match self.identity.found(known) {
            Ok(cluster) => cluster,
            Err(error) => {
                if self.progress.told.is_news(self.replica, &error.to_string()) {
                    tracing::error!(%error, "The group's id could not be kept, so no group was founded.");
                }
                return;
            }
        };
        let members: BTreeMap<_, _> = self
            .peers
            .iter()
            .map(|(replica, peer)| (self.member_of(*replica, answers), address(*replica, peer)))
            .collect();
        let founded = self.raft.initialize(members).await;
        // Refused it would be again: the log has been written to.
        self.may_found = false;
        match founded {
            Ok(()) => tracing::info!(%cluster, "A leader group was founded."),
            Err(error) => tracing::warn!(%error, "The leader group was not founded."),
        }
    }

    fn member_of(&self, replica: ReplicaId, answers: &[IdentityAnswer]) -> MemberId {
        if replica == self.replica {
            return self.member;
        }
        let answer = answers.iter().find(|answer| answer.replica == replica);
        answer.and_then(|answer| answer.member).unwrap_or_else(|| MemberId::of_replica(replica))
    }
}

/// A replica as membership entries tell it.
pub(crate) fn address(replica: ReplicaId, peer: &Peer) -> ReplicaAddress {
    ReplicaAddress { replica: Some(replica), raft: peer.raft.clone(), api: peer.api.clone() }
}
