//! Tells when this replica begins and ceases to lead.

use std::sync::Arc;
use std::time::Duration;

use openraft::Instant;
use openraft::async_runtime::WatchReceiver;
use openraft::metrics::RaftMetrics;
use openraft::raft::ReadPolicy;
use tokio::sync::{RwLock, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Raft;
use crate::types::{ReplicaId, TypeConfig, replica_of};

/// How often the lease is looked at when nothing else happens.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// Who leads, as this replica knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leadership {
    /// This replica leads, holds the quorum's lease, and has applied all that earlier leaders
    /// committed and all that it put into the log itself before this is told.
    Leading {
        /// The term: commands decided now are fenced with it.
        term: u64,
    },
    /// Another leads, or nobody.
    Following {
        /// The leader, if known.
        leader: Option<ReplicaId>,
    },
    /// Raft has stopped for good.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Leadership {
    /// The term this replica leads in.
    pub fn term(&self) -> Option<u64> {
        match self {
            Leadership::Leading { term } => Some(*term),
            Leadership::Following { .. } | Leadership::Failed { .. } => None,
        }
    }
}

/// Commands are handed to Raft under it for reading, once leadership is seen to hold. Whoever takes it for
/// writing after leadership was told to be over knows that none comes any more.
pub(crate) type Gate = Arc<RwLock<()>>;

/// Starts the watch. It ends with `stop` or with Raft.
pub(crate) fn watch(
    raft: &Raft,
    gate: &Gate,
    lease: Duration,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> watch::Receiver<Leadership> {
    let (tell, told) = watch::channel(Leadership::Following { leader: None });
    let (raft, gate) = (raft.clone(), Arc::clone(gate));
    let stop = stop.clone();
    tasks.spawn(async move { stop.run_until_cancelled(follow(raft, gate, lease, tell)).await });
    told
}

async fn follow(raft: Raft, gate: Gate, lease: Duration, tell: watch::Sender<Leadership>) {
    let mut metrics = raft.metrics();
    loop {
        // The guard of a borrowed value blocks Raft's core, hence the copy.
        let now = metrics.borrow_watched().clone();
        if let Err(error) = &now.running_state {
            tell.send_replace(Leadership::Failed { reason: error.to_string() });
            return;
        }
        let announced = tell.borrow().term();
        match leading_term(&now, lease) {
            Some(term) if announced == Some(term) => {}
            Some(term) => {
                if announced.is_some() {
                    announce(&tell, Leadership::Following { leader: None });
                }
                drop(gate.write().await);
                if is_caught_up(&raft, lease).await
                    && leading_term(&metrics.borrow_watched().clone(), lease) == Some(term)
                {
                    announce(&tell, Leadership::Leading { term });
                }
            }
            None => {
                let leader = now.current_leader;
                let leader = leader.and_then(|leader| replica_of(&now.membership_config, leader));
                announce(&tell, Leadership::Following { leader });
            }
        }
        tokio::select! {
            changed = metrics.changed() => if changed.is_err() {
                let reason = "Raft's core has ended".to_owned();
                tell.send_replace(Leadership::Failed { reason });
                return;
            },
            () = sleep(LOOK_AGAIN_AFTER) => {}
        }
    }
}

fn announce(tell: &watch::Sender<Leadership>, leadership: Leadership) {
    tell.send_if_modified(|current| {
        let modified = *current != leadership;
        if modified {
            tracing::info!(?leadership, "Leadership changed.");
            *current = leadership;
        }
        modified
    });
}

/// The term in which this replica leads with a quorum that answered within the lease.
fn leading_term(metrics: &RaftMetrics<TypeConfig>, lease: Duration) -> Option<u64> {
    let leads = metrics.state.is_leader()
        && metrics.vote.is_committed()
        && metrics.current_leader == Some(metrics.id);
    let alone = metrics.membership_config.membership().voter_ids().count() <= 1;
    let acknowledged = metrics.last_quorum_acked.is_some_and(|at| at.elapsed() <= lease);
    (leads && (alone || acknowledged)).then_some(metrics.current_term)
}

/// Waits until everything committed before is applied here, as the quorum confirms, and everything that this
/// replica has in its log. A replica may cease and begin to lead in one term: what it put into the log before
/// is not committed then, but will be, and whoever decides without it decides it a second time.
async fn is_caught_up(raft: &Raft, lease: Duration) -> bool {
    let Ok(Ok(last)) =
        timeout(lease, raft.with_raft_state(|state| state.log_ids.last().cloned())).await
    else {
        return false;
    };
    let read = timeout(lease, raft.ensure_linearizable(ReadPolicy::ReadIndex)).await;
    let own = last.map(|id| id.index);
    let applied = raft.wait(Some(lease)).applied_index_at_least(own, "its own log").await;
    matches!(read, Ok(Ok(_))) && applied.is_ok()
}
