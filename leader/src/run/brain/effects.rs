//! Carries out what the brain wants: proposals in order, calls side by side.

use std::sync::Arc;
use std::time::Duration;

use drover_common::call::Call;
use drover_core::command::Command;
use drover_core::control::{CallKey, Effect};
use drover_core::state::Applied;
use drover_raft::{Group, Leadership, ProposeError, Written};
use futures::future::BoxFuture;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::calls::Caller;
use super::super::counters::Counters;
use super::Feedback;

/// A command that is not applied by then is told of in the log. It is waited for all the same: it may be applied
/// at any time, and to launch something a second time is not harmless.
const PROPOSAL_TAKES_LONG: Duration = Duration::from_secs(10);

pub(super) struct Hands {
    group: Arc<Group>,
    caller: Caller,
    leadership: watch::Receiver<Leadership>,
    feedback: mpsc::UnboundedSender<Feedback>,
    counters: Arc<Counters>,
    stop: CancellationToken,
}

impl Hands {
    pub(super) fn new(
        group: Arc<Group>,
        caller: Caller,
        feedback: mpsc::UnboundedSender<Feedback>,
        counters: Arc<Counters>,
        stop: CancellationToken,
    ) -> Self {
        let leadership = group.leadership();
        Self { group, caller, leadership, feedback, counters, stop }
    }

    /// Hands every effect out; what comes of it arrives as [`Feedback`].
    pub(super) async fn carry_out(&self, term: u64, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Propose(command) => self.propose(term, command).await,
                Effect::Call { key, call } => self.call(term, key, call),
            }
        }
    }

    async fn propose(&self, term: u64, command: Box<Command>) {
        let feedback = self.feedback.clone();
        let counters = Arc::clone(&self.counters);
        // Waits only until the log's queue has taken it, which keeps the order of commands.
        let submitted = self.group.submit(term, (*command).clone()).await;
        let waiting = async move {
            let written = match submitted {
                Ok(applied) => patiently(applied).await,
                Err(error) => Err(error),
            };
            let back = match written {
                Ok((index, Applied::Rejected { reason })) => {
                    Counters::add_one(&counters.proposals_committed);
                    Counters::add_one(&counters.proposals_refused);
                    tracing::warn!(index, %reason, "The state refused a command.");
                    Feedback::Refused { term, command }
                }
                Ok(_) => return Counters::add_one(&counters.proposals_committed),
                Err(error) => {
                    Counters::add_one(&counters.proposals_failed);
                    tracing::info!(%error, "A command did not enter the log.");
                    if !matches!(error, ProposeError::NotLeading) {
                        // What became of it the next reign sees in the state.
                        return;
                    }
                    Feedback::Rejected { term, command }
                }
            };
            // The brain ends before this only when the replica stops.
            let _ = feedback.send(back);
        };
        self.spawn(waiting);
    }

    fn call(&self, term: u64, key: CallKey, call: Box<Call>) {
        let caller = self.caller.clone();
        let leadership = self.leadership.clone();
        let feedback = self.feedback.clone();
        self.spawn(async move {
            let leads = || leadership.borrow().term() == Some(term);
            let outcome = caller.execute(&call, leads).await;
            // The brain ends before this only when the replica stops.
            let _ = feedback.send(Feedback::Answer { term, key, outcome });
        });
    }

    fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
    }
}

/// Waits for a command, and says so once if that takes long.
async fn patiently(mut applied: BoxFuture<'static, Written>) -> Written {
    match tokio::time::timeout(PROPOSAL_TAKES_LONG, &mut applied).await {
        Ok(written) => written,
        Err(_) => {
            tracing::warn!("A command was not applied in time.");
            applied.await
        }
    }
}
