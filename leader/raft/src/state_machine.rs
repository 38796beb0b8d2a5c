//! The replicated state in memory, rebuilt at start from the newest snapshot and the log.

use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use drover_core::state::{Applied, State};
use futures::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};

use tokio::sync::watch;

use crate::snapshot_file::SnapshotFolder;
use crate::types::{Entry, LogId, Snapshot, SnapshotMeta, StoredMembership, TypeConfig};

/// The state and how far it is.
#[derive(Clone, Debug, Default)]
struct Position {
    state: Arc<State>,
    applied: Option<LogId>,
    membership: StoredMembership,
}

/// A handle to read the state with; cheap to clone, never blocks the log for long.
#[derive(Clone, Debug, Default)]
pub struct SharedState {
    position: Arc<RwLock<Position>>,
    applied_index: watch::Sender<u64>,
}

impl SharedState {
    /// The state as of now. It does not change under the caller: applying a command while this is
    /// held copies the state.
    pub fn current(&self) -> Arc<State> {
        self.read(|position| Arc::clone(&position.state))
    }

    /// Tells the last applied position, each time it moves.
    pub fn applied_index(&self) -> watch::Receiver<u64> {
        self.applied_index.subscribe()
    }

    fn read<T>(&self, read: impl FnOnce(&Position) -> T) -> T {
        read(&self.position.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, write: impl FnOnce(&mut Position) -> T) -> T {
        let mut position = self.position.write().unwrap_or_else(PoisonError::into_inner);
        let written = write(&mut position);
        let index = position.applied.map_or(0, |log_id| log_id.index);
        drop(position);
        self.applied_index.send_replace(index);
        written
    }
}

/// openraft's view of the state.
#[derive(Clone, Debug)]
pub struct StateMachine {
    shared: SharedState,
    snapshots: SnapshotFolder,
}

impl StateMachine {
    /// Loads the newest whole snapshot of a folder.
    ///
    /// # Errors
    /// The folder can't be read, or a snapshot that is whole does not hold a state.
    pub fn open(path: &Path) -> io::Result<Self> {
        let snapshots = SnapshotFolder::open(path)?;
        let shared = SharedState::default();
        if let Some(stored) = snapshots.newest()? {
            let state = parse_state(&stored.state)?;
            shared.write(|position| position.replace(&stored.meta, state));
        }
        Ok(Self { shared, snapshots })
    }

    /// The handle for readers.
    pub fn shared(&self) -> SharedState {
        self.shared.clone()
    }

    /// The last entry the loaded snapshot holds, or what was applied since.
    pub fn applied(&self) -> Option<LogId> {
        self.shared.read(|position| position.applied)
    }
}

impl Position {
    fn apply(&mut self, entry: Entry) -> Applied {
        self.applied = Some(entry.log_id);
        match entry.payload {
            EntryPayload::Blank => Applied::Unchanged,
            EntryPayload::Normal(command) => {
                Arc::make_mut(&mut self.state).apply(entry.log_id.index, &command.0)
            }
            EntryPayload::Membership(membership) => {
                self.membership = StoredMembership::new(Some(entry.log_id), membership);
                Applied::Done
            }
        }
    }

    fn replace(&mut self, meta: &SnapshotMeta, state: State) {
        self.state = Arc::new(state);
        self.applied = meta.last_log_id;
        self.membership = meta.last_membership.clone();
    }
}

fn parse_state(bytes: &[u8]) -> io::Result<State> {
    serde_json::from_slice(bytes)
        .map_err(|error| io::Error::other(format!("a snapshot's state is unreadable: {error}")))
}

/// Runs disk work off the async threads.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let position = self.shared.read(Clone::clone);
        let snapshots = self.snapshots.clone();
        off_thread(move || {
            let meta = SnapshotMeta {
                last_log_id: position.applied,
                last_membership: position.membership,
            };
            let state = Bytes::from(serde_json::to_vec(&*position.state)?);
            snapshots.save(&meta, &state)?;
            Ok(Snapshot { meta, snapshot: state })
        })
        .await
    }
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        Ok(self.shared.read(|position| (position.applied, position.membership.clone())))
    }

    async fn apply<Strm>(&mut self, mut entries: Strm) -> Result<(), io::Error>
    where
        Strm: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let applied = self.shared.write(|position| position.apply(entry));
            if let Some(responder) = responder {
                responder.send(applied);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Self::SnapshotBuilder {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Bytes,
    ) -> Result<(), io::Error> {
        let snapshots = self.snapshots.clone();
        let saved = meta.clone();
        let state = off_thread(move || {
            let state = parse_state(&snapshot)?;
            snapshots.save(&saved, &snapshot)?;
            Ok(state)
        })
        .await?;
        self.shared.write(|position| position.replace(meta, state));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        let snapshots = self.snapshots.clone();
        off_thread(move || {
            let newest = snapshots.newest()?;
            Ok(newest.map(|stored| Snapshot { meta: stored.meta, snapshot: stored.state }))
        })
        .await
    }
}
