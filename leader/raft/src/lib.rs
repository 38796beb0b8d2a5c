//! The leader group: a replicated log of commands and the state it leads to. Everything of openraft
//! and of the log's file stays in this crate.
//!
//! [`Group`] is one replica. Commands are proposed under the term in which they were decided, and
//! are refused once another term has begun, so that a deposed leader's late decision never enters
//! the log.

mod admission;
mod bootstrap;
mod config;
mod flusher;
mod heard;
mod identity;
mod leadership;
mod log_size;
mod log_store;
mod network;
mod peer_clients;
mod server;
mod snapshot_file;
mod state_machine;
mod status;
mod told;
mod transport;
mod types;
mod whole_file;
mod wire;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use drover_core::command::Command;
use drover_core::state::{Applied, State};
use drover_tls::Credentials;
use futures::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal};
use openraft::impls::ProgressResponder;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use admission::Admission;
use bootstrap::{Newcomer, Progress};
use config::raft_settings;
use heard::Heard;
use identity::IdentityFile;
use log_store::LogStore;
use network::Network;
use peer_clients::PeerClients;
use server::{Receiver, Reception};
use state_machine::{SharedState, StateMachine};
use types::{LogCommand, TypeConfig, replica_of};

pub use config::{GroupConfig, Peer, Timings};
pub use identity::IdentityError;
pub use leadership::Leadership;
pub use status::{GroupStatus, Role};
pub use transport::Transport;
pub use types::{MemberId, ReplicaId};

/// What a replica is made of, for this crate's tests. Whoever takes part in a group needs [`Group`] alone.
pub mod parts {
    pub use crate::bootstrap::{Verdict, judge};
    pub use crate::identity::{Identity, IdentityFile};
    pub use crate::log_store::LogStore;
    pub use crate::snapshot_file::{SnapshotFolder, StoredSnapshot};
    pub use crate::state_machine::{SharedState, StateMachine};
    pub use crate::types::{
        Entry, LogCommand, LogId, ReplicaAddress, Snapshot, SnapshotMeta, StoredMembership,
        TypeConfig, Vote,
    };
    pub use crate::wire::IdentityAnswer;
}

type Raft = openraft::Raft<TypeConfig, StateMachine>;

/// Why a replica can't take part, or not any more.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Log or snapshots can't be read.
    #[error("the Raft log in {folder} can't be used: {source}")]
    Storage {
        /// The volume.
        folder: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The log's beginning was purged into a snapshot that is not readable any more.
    #[error(
        "the Raft log in {folder} begins after entry {purged}, and the newest readable snapshot \
         ends at {applied}: replace this replica"
    )]
    SnapshotLost {
        /// The volume.
        folder: PathBuf,
        /// The last purged entry.
        purged: u64,
        /// The snapshot's last entry.
        applied: u64,
    },
    /// The volume is another's.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The timings contradict each other.
    #[error("the Raft timings are not possible: {0}")]
    Timings(String),
    /// No HTTP client could be made.
    #[error("no HTTP client could be made: {0}")]
    Client(#[from] reqwest::Error),
    /// Raft has stopped; the process has to exit.
    #[error("Raft has stopped: {0}")]
    Fatal(String),
}

/// Why a command is not in the log.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead, or not in the term the command was decided in.
    #[error("leadership is over")]
    NotLeading,
    /// Leadership ended while the command was under way: it may or may not be committed.
    #[error("leadership ended before the command was known to be committed")]
    Unknown,
    /// Raft has stopped.
    #[error("Raft has stopped: {0}")]
    Stopped(String),
}

/// A command's log position, and what it did.
pub type Written = Result<(u64, Applied), ProposeError>;

/// One running replica of the group.
///
/// What may take a while comes as a boxed future: an `async fn` would be compiled by each crate that waits
/// for it, and with it all that openraft makes of our types.
#[derive(Debug)]
pub struct Group {
    config: GroupConfig,
    raft: Raft,
    log: LogStore,
    identity: Arc<IdentityFile>,
    state: SharedState,
    leadership: watch::Receiver<Leadership>,
    heard: Heard,
    gate: leadership::Gate,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Who is dropped without a shutdown hands nothing to Raft any more either.
    _stop_when_dropped: DropGuard,
}

impl Group {
    /// Opens the volume and starts to take part over `transport`. A new group is founded by the replica
    /// with the lowest number, once, and only if no peer is in a group already. A replica whose volume is new
    /// asks the group to let it in, and has no vote until then.
    ///
    /// # Errors
    /// The volume can't be used, or a timing is impossible.
    pub fn start(
        config: GroupConfig,
        transport: Transport,
    ) -> BoxFuture<'static, Result<Self, GroupError>> {
        Box::pin(Self::take_part(config, transport))
    }

    async fn take_part(config: GroupConfig, transport: Transport) -> Result<Self, GroupError> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (identity, log, machine) = open_volume(&config).await?;
        let state = machine.shared();
        let may_found = log.is_empty()
            && machine.applied().is_none()
            && config.peers.keys().next() == Some(&config.replica);
        let (replica, member) = (config.replica, log.member());
        let peers = Arc::new(config.peers.clone());
        let clients = PeerClients::new(transport.credentials().map(Credentials::clients))?;
        let network = Network::new(
            member,
            replica,
            Arc::clone(&identity),
            Arc::clone(&peers),
            config.timings.election_min,
            clients.clone(),
        );
        let settings = Arc::new(raft_settings(&config)?);
        let raft = Raft::new(member, settings, network, log.clone(), machine)
            .await
            .map_err(|error| GroupError::Fatal(error.to_string()))?;

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let gate = leadership::Gate::default();
        let lease = config.timings.election_max;
        let leadership = leadership::watch(&raft, &gate, lease, &tasks, &stop);
        let admission = Admission {
            raft: raft.clone(),
            own: replica,
            peers: Arc::clone(&peers),
            leadership: leadership.clone(),
            turn: Arc::default(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let heard = Heard::default();
        let receiver = Receiver {
            raft: raft.clone(),
            replica,
            member,
            identity: Arc::clone(&identity),
            admission: admission.clone(),
            heard: heard.clone(),
        };
        let reception = Reception { tasks: tasks.clone(), stop: stop.clone() };
        transport.serve(server::router(receiver, reception), clients.clone(), &tasks, &stop);
        let most = config.timings.snapshot_after_bytes;
        let small = log_size::keep_small(raft.clone(), log.clone(), most);
        let changes = admission.finish_for_earlier_leaders();
        let newcomer = Newcomer {
            raft: raft.clone(),
            identity: Arc::clone(&identity),
            replica,
            member,
            peers,
            may_found,
            clients,
            progress: Progress::default(),
        };
        let beside = async move { tokio::join!(small, changes, newcomer.seek_vote()) };
        let ended = stop.clone();
        tasks.spawn(async move { ended.run_until_cancelled(beside).await });
        let _stop_when_dropped = stop.clone().drop_guard();
        let group = Self {
            config,
            raft,
            log,
            identity,
            state,
            leadership,
            heard,
            gate,
            tasks,
            stop,
            _stop_when_dropped,
        };
        Ok(group)
    }

    /// The replicated state as of now. It never changes under the caller.
    pub fn state(&self) -> Arc<State> {
        self.state.current()
    }

    /// Tells the last applied position, each time it moves.
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.state.applied_index()
    }

    /// Who leads. [`Leadership::Leading`] is told only once everything committed earlier is applied.
    pub fn leadership(&self) -> watch::Receiver<Leadership> {
        self.leadership.clone()
    }

    /// Hands in a command that was decided in `term`. Commands enter the log in the order in which
    /// they are handed in. The future that comes back ends when the command is applied here, with
    /// its log position and what it did.
    ///
    /// # Errors
    /// [`ProposeError::NotLeading`]: it is not in the log and never will be.
    /// [`ProposeError::Unknown`]: it may be.
    pub fn submit(
        &self,
        term: u64,
        command: Command,
    ) -> BoxFuture<'_, Result<BoxFuture<'static, Written>, ProposeError>> {
        Box::pin(self.hand_in(term, command))
    }

    async fn hand_in(
        &self,
        term: u64,
        command: Command,
    ) -> Result<BoxFuture<'static, Written>, ProposeError> {
        let (responder, answer) = ProgressResponder::complete_only();
        let stopped = |error: Fatal<TypeConfig>| ProposeError::Stopped(error.to_string());
        let handing_in = self.gate.read().await;
        if self.leadership.borrow().term() != Some(term) {
            return Err(ProposeError::NotLeading);
        }
        self.raft
            .write(LogCommand(Arc::new(command)))
            .with_leader(term)
            .responder(responder)
            .await
            .map_err(stopped)?;
        drop(handing_in);
        Ok(Box::pin(async move {
            match answer.await {
                Ok(Ok(written)) => Ok((written.log_id.index, written.data)),
                Ok(Err(ClientWriteError::LogEntryDiscarded(_))) | Err(_) => {
                    Err(ProposeError::Unknown)
                }
                Ok(Err(_)) => Err(ProposeError::NotLeading),
            }
        }))
    }

    /// Hands leadership to the follower that is furthest, and waits until it is gone, for one
    /// longest election at most. Does nothing on a follower.
    pub fn transfer_leadership(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.hand_over())
    }

    async fn hand_over(&self) {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = &metrics.membership_config;
        let voters: BTreeSet<MemberId> = membership.voter_ids().collect();
        let others = metrics.replication.iter().flatten();
        let heir = others
            .filter(|(member, _)| **member != metrics.id && voters.contains(member))
            .max_by_key(|(_, matching)| **matching);
        let Some((heir, _)) = heir.filter(|_| metrics.state.is_leader()) else { return };
        if self.raft.trigger().transfer_leader(*heir).await.is_err() {
            return;
        }
        let patience = Some(self.config.timings.election_max);
        let own = metrics.id;
        let gone = self
            .raft
            .wait(patience)
            .metrics(|now| now.current_leader != Some(own), "leadership is handed over")
            .await;
        let heir = replica_of(membership, *heir);
        match gone {
            Ok(_) => tracing::info!(?heir, "Leadership was handed over."),
            Err(_) => tracing::warn!(?heir, "Leadership was not taken over in time."),
        }
    }

    /// Returns when Raft has stopped by itself, with the reason.
    pub async fn failed(&self) -> GroupError {
        let mut leadership = self.leadership.clone();
        let failed = leadership.wait_for(|now| matches!(now, Leadership::Failed { .. })).await;
        let reason = match failed.as_deref() {
            Ok(Leadership::Failed { reason }) => reason.clone(),
            _ => "its watch has ended".to_owned(),
        };
        GroupError::Fatal(reason)
    }

    /// Stops taking part. Leadership should be handed over first.
    pub fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.end())
    }

    async fn end(&self) {
        self.stop.cancel();
        self.tasks.close();
        // Raft goes last: who still called it would wait for its end, and may be dropped meanwhile.
        self.tasks.wait().await;
        if let Err(error) = self.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly.");
        }
    }

    /// The peer list.
    pub fn peers(&self) -> &BTreeMap<ReplicaId, Peer> {
        &self.config.peers
    }

    /// This replica.
    pub fn replica(&self) -> ReplicaId {
        self.config.replica
    }
}

type Volume = (Arc<IdentityFile>, LogStore, StateMachine);

async fn open_volume(config: &GroupConfig) -> Result<Volume, GroupError> {
    let folder = config.folder.clone();
    let replica = config.replica;
    let open = move || -> Result<Volume, GroupError> {
        let failed = |source: io::Error| GroupError::Storage { folder: folder.clone(), source };
        std::fs::create_dir_all(&folder).map_err(failed)?;
        // Before anything is written: the volume may be another replica's.
        let identity = IdentityFile::open(&folder, replica)?;
        let log = LogStore::open(&folder.join("log.redb"), replica).map_err(failed)?;
        let machine = StateMachine::open(&folder.join("snapshots")).map_err(failed)?;
        Ok((Arc::new(identity), log, machine))
    };
    let (identity, log, machine) = match tokio::task::spawn_blocking(open).await {
        Ok(opened) => opened?,
        Err(error) => {
            let source = io::Error::other(error);
            return Err(GroupError::Storage { folder: config.folder.clone(), source });
        }
    };
    if log.last_purged() > machine.applied() {
        return Err(GroupError::SnapshotLost {
            folder: config.folder.clone(),
            purged: log.last_purged().map_or(0, |log_id| log_id.index),
            applied: machine.applied().map_or(0, |log_id| log_id.index),
        });
    }
    Ok((identity, log, machine))
}
