//! The leader's side of letting a replica in: the new member takes the log, and when it has caught up the
//! vote of whatever member was that replica before.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use openraft::Precondition;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, RaftError};
use openraft::metrics::RaftMetrics;
use tokio::sync::{Mutex, OwnedMutexGuard, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Raft;
use crate::bootstrap::address;
use crate::config::Peer;
use crate::leadership::Leadership;
use crate::types::{MemberId, MembershipChange, ReplicaId, StoredMembership, TypeConfig};

/// How long a new member may take to catch up. After that another's turn may come; whoever asks again goes
/// on where this ended.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// What a leader waits before it tries again what has failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Why a replica was not let in this time.
#[derive(Debug, thiserror::Error)]
enum AdmissionError {
    #[error("this replica does not lead any more")]
    NotLeading,
    #[error("it does not catch up")]
    Behind,
    #[error("member {member} is replica {replica} already")]
    OtherReplica { member: MemberId, replica: ReplicaId },
    #[error(transparent)]
    Raft(#[from] RaftError<TypeConfig, ClientWriteError<TypeConfig>>),
}

/// Changes the membership, one change at a time: openraft would take two at once and mix them up.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    pub(crate) raft: Raft,
    pub(crate) own: ReplicaId,
    pub(crate) peers: Arc<BTreeMap<ReplicaId, Peer>>,
    pub(crate) leadership: watch::Receiver<Leadership>,
    /// Whoever holds it changes the membership.
    pub(crate) turn: Arc<Mutex<()>>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl Admission {
    /// Whether `replica` may ask here: it is in the peer list and not this one.
    pub(crate) fn knows(&self, replica: ReplicaId) -> bool {
        replica != self.own && self.peers.contains_key(&replica)
    }

    /// Begins to let `replica` in as `member`, unless somebody is being let in; whether this replica leads,
    /// with a quorum that has answered lately. The one that asks sees in its own log what becomes of it, and
    /// asks again until then.
    pub(crate) fn begin(&self, replica: ReplicaId, member: MemberId) -> bool {
        if self.leadership.borrow().term().is_none() {
            return false;
        }
        if let Ok(turn) = Arc::clone(&self.turn).try_lock_owned() {
            let admission = self.clone();
            self.tasks.spawn(async move {
                let stop = admission.stop.clone();
                stop.run_until_cancelled(admission.admit_in_turn(replica, member, turn)).await
            });
        }
        true
    }

    /// The turn is kept for a while after a failure: who asks, asks several times a second.
    async fn admit_in_turn(self, replica: ReplicaId, member: MemberId, _turn: OwnedMutexGuard<()>) {
        match self.admit(replica, member).await {
            Ok(true) => tracing::info!(replica, %member, "A replica was let in."),
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(replica, %member, %error, "A replica was not let in.");
                sleep(TRY_AGAIN_AFTER).await;
            }
        }
    }

    /// Every step looks at what is there, so that a later leader goes on where this one ended. Whether
    /// anything had to be done.
    async fn admit(&self, replica: ReplicaId, member: MemberId) -> Result<bool, AdmissionError> {
        self.finish_change().await?;
        let membership = self.metrics().membership_config;
        match membership.get_node(&member).map(|node| node.replica_of(member)) {
            None => {
                let Some(peer) = self.peers.get(&replica) else { return Ok(false) };
                self.raft.add_learner(member, address(replica, peer), false).await?;
            }
            Some(known) if known == replica => {}
            Some(known) => return Err(AdmissionError::OtherReplica { member, replica: known }),
        }
        let others = others_of(&membership, replica, member);
        if membership.voter_ids().any(|voter| voter == member) && others.is_empty() {
            return Ok(false);
        }
        // A change that has begun is not cut off: openraft ends it by itself, or leadership does.
        timeout(PATIENCE, self.wait_until_caught_up(member))
            .await
            .map_err(|_elapsed| AdmissionError::Behind)??;
        self.give_vote(replica, member).await?;
        Ok(true)
    }

    /// Waits until `member` has all that the log held when this began.
    async fn wait_until_caught_up(&self, member: MemberId) -> Result<(), AdmissionError> {
        let goal = self.metrics().last_log_index;
        loop {
            let now = self.metrics();
            let Some(followers) = now.replication else { return Err(AdmissionError::NotLeading) };
            let matching = followers.get(&member).copied().flatten();
            if matching.map(|log_id| log_id.index) >= goal {
                return Ok(());
            }
            sleep(LOOK_AGAIN_AFTER).await;
        }
    }

    /// One joint change: `member` gets a vote, and whoever else was this replica is out.
    async fn give_vote(&self, replica: ReplicaId, member: MemberId) -> Result<(), AdmissionError> {
        let membership = self.metrics().membership_config;
        let others = others_of(&membership, replica, member);
        let mut voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let learners = others.difference(&voters).copied().collect();
        voters.insert(member);
        let voters = voters.difference(&others).copied().collect();
        let change = MembershipChange::Batch(vec![
            MembershipChange::RemoveNodes(learners),
            MembershipChange::ReplaceAllVoters(voters),
        ]);
        let unchanged =
            Precondition::LastMembershipLogId { last_membership_log_id: *membership.log_id() };
        self.raft.change_membership_if(change, false, [unchanged]).await?;
        Ok(())
    }

    /// Takes a change that is half done to its end.
    async fn finish_change(&self) -> Result<(), AdmissionError> {
        if self.metrics().membership_config.membership().get_joint_config().len() > 1 {
            let nothing = MembershipChange::AddVoterIds(BTreeSet::new());
            self.raft.change_membership(nothing, false).await?;
            tracing::info!("A change of the group's membership was finished.");
        }
        Ok(())
    }

    /// Finishes what an earlier leader began, each time this replica becomes the leader.
    pub(crate) async fn finish_for_earlier_leaders(self) {
        let mut leadership = self.leadership.clone();
        loop {
            let leading = |now: &Leadership| now.term().is_some();
            let Ok(term) = leadership.wait_for(leading).await.map(|now| now.term()) else { return };
            let turn = self.turn.lock().await;
            let finished = self.finish_change().await;
            drop(turn);
            if finished.is_err() {
                sleep(TRY_AGAIN_AFTER).await;
                continue;
            }
            if leadership.wait_for(|now| now.term() != term).await.is_err() {
                return;
            }
        }
    }

    fn metrics(&self) -> RaftMetrics<TypeConfig> {
        // The guard of a borrowed value blocks Raft's core, hence the copy.
        self.raft.metrics().borrow_watched().clone()
    }
}

/// The members other than `member` that are `replica`.
fn others_of(
    membership: &StoredMembership,
    replica: ReplicaId,
    member: MemberId,
) -> BTreeSet<MemberId> {
    membership
        .nodes()
        .filter(|(id, node)| **id != member && node.replica_of(**id) == replica)
        .map(|(id, _)| *id)
        .collect()
}
