//! Carries out what the brain wants: proposals in order, calls side by side.

use std::sync::Arc;
use std::time::Duration;

use drover_common::call::Call;
use drover_core::command::Command;
use drover_core::control::{CallKey, Effect};
use drover_core::state::Applied;
use drover_raft::{Group, Leadership};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::super::calls::Caller;
use super::super::counters::Counters;
use super::Feedback;

/// A command that is not applied by then is reported as not taken; proposing it again is harmless.
const PROPOSAL_TIMEOUT: Duration = Duration::from_secs(10);

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
            let taken = match submitted {
                Ok(applied) => tokio::time::timeout(PROPOSAL_TIMEOUT, applied).await,
                Err(error) => Ok(Err(error)),
            };
            match taken {
                Ok(Ok((index, applied))) => {
                    Counters::add_one(&counters.proposals_committed);
                    if let Applied::Rejected { reason } = applied {
                        Counters::add_one(&counters.proposals_refused);
                        tracing::warn!(index, %reason, "The state refused a command.");
                    }
                    return;
                }
                Ok(Err(error)) => tracing::info!(%error, "A command did not enter the log."),
                Err(_) => tracing::warn!("A command was not applied in time."),
            }
            Counters::add_one(&counters.proposals_failed);
            // The brain ends before this only when the replica stops.
            let _ = feedback.send(Feedback::Rejected { term, command });
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
