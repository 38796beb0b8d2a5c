//! The task that owns the brain: it gathers inputs, steps, and hands effects out. It never waits for
//! anything but its next input.

mod effects;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use drover_common::call::Outcome;
use drover_common::cluster::ClusterEvent;
use drover_common::id::{InstanceId, NodeName};
use drover_common::protocol::{Directive, Report};
use drover_core::command::Command;
use drover_core::control::{CallKey, Control, Effect, Input, NodeSummary, Status};
use drover_core::state::{Stage, State};
use drover_raft::{Group, Leadership};
use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::calls::Caller;
use super::counters::Counters;
use effects::Hands;

/// The longest time between two looks at everything.
const USUAL_TICK: Duration = Duration::from_millis(250);
/// The shortest, so that a trickle of events is looked at together.
const SHORTEST_TICK: Duration = Duration::from_millis(5);
/// How long a look that is due may be put off by inputs that keep coming.
const LONGEST_DELAY: Duration = Duration::from_millis(50);
/// Inputs taken in at once.
const LARGEST_BATCH: usize = 512;
const WAITING_QUESTIONS: usize = 1024;

/// What draining nodes are told, by node: the instance it holds for, and the directives.
pub(crate) type Board = BTreeMap<NodeName, (Option<InstanceId>, Vec<Directive>)>;

/// What a report led to so far.
#[derive(Clone, Debug)]
pub(crate) struct Reported {
    /// Whether this replica leads.
    pub(crate) leading: bool,
    /// Whether all its notices are in the log.
    pub(crate) committed: bool,
    /// Whether it told what is new of pods, and the rest is not known here.
    pub(crate) lacks_usage: bool,
    /// Whether it is left to the agent to tell people of it.
    pub(crate) untold: bool,
}

/// The brain's task has ended.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the replica is stopping")]
pub(crate) struct BrainClosed;

/// A question of the API to the brain.
enum Question {
    Report { report: Arc<Report>, first: bool, answer: oneshot::Sender<Reported> },
    Status { answer: oneshot::Sender<Box<Status>> },
    Nodes { answer: oneshot::Sender<Vec<NodeSummary>> },
}

/// What comes back from effects.
pub(super) enum Feedback {
    Answer { term: u64, key: CallKey, outcome: Outcome },
    Rejected { term: u64, command: Box<Command> },
    Refused { term: u64, command: Box<Command> },
}

/// The way to the brain for the API.
#[derive(Clone, Debug)]
pub(crate) struct BrainHandle {
    questions: mpsc::Sender<Question>,
    board: watch::Receiver<Arc<Board>>,
}

impl BrainHandle {
    /// Hands a report in; `first` is false when it is only asked what has become of it.
    pub(crate) async fn report(
        &self,
        report: Arc<Report>,
        first: bool,
    ) -> Result<Reported, BrainClosed> {
        self.ask(|answer| Question::Report { report, first, answer }).await
    }

    /// The replica at a glance.
    pub(crate) async fn status(&self) -> Result<Box<Status>, BrainClosed> {
        self.ask(|answer| Question::Status { answer }).await
    }

    /// Every claim that is not gone.
    pub(crate) async fn nodes(&self) -> Result<Vec<NodeSummary>, BrainClosed> {
        self.ask(|answer| Question::Nodes { answer }).await
    }

    /// What draining nodes are told; changes as it does.
    pub(crate) fn board(&self) -> watch::Receiver<Arc<Board>> {
        self.board.clone()
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Question,
    ) -> Result<T, BrainClosed> {
        let (answer, answered) = oneshot::channel();
        self.questions.send(question(answer)).await.map_err(|_| BrainClosed)?;
        answered.await.map_err(|_| BrainClosed)
    }
}

struct Brain {
    control: Control,
    group: Arc<Group>,
    hands: Hands,
    counters: Arc<Counters>,
    board: watch::Sender<Arc<Board>>,
    term: Option<u64>,
    last_tick: Instant,
    /// How long the last two looks took.
    ticks_took: [Duration; 2],
    state_changed: bool,
}

/// Starts the task. It ends with `stop`.
pub(super) fn start(
    control: Control,
    group: Arc<Group>,
    caller: Caller,
    events: mpsc::Receiver<ClusterEvent>,
    counters: Arc<Counters>,
    stop: &CancellationToken,
) -> (BrainHandle, JoinHandle<()>) {
    let (questions, asked) = mpsc::channel(WAITING_QUESTIONS);
    let (feedback, returned) = mpsc::unbounded_channel();
    let (board, shown) = watch::channel(Arc::default());
    let hands =
        Hands::new(Arc::clone(&group), caller, feedback, Arc::clone(&counters), stop.clone());
    let brain = Brain {
        control,
        group,
        hands,
        counters,
        board,
        term: None,
        last_tick: Instant::now(),
        ticks_took: [Duration::ZERO; 2],
        state_changed: false,
    };
    let stop = stop.clone();
    let task = tokio::spawn(async move {
        stop.run_until_cancelled(brain.live(asked, returned, events)).await;
    });
    (BrainHandle { questions, board: shown }, task)
}

/// Until the next look, where one is due. Looks that take long are followed by longer pauses. One that
/// planned is an exception, and what it decided is not kept waiting for it.
fn pause_after(ticks_took: [Duration; 2]) -> Duration {
    SHORTEST_TICK.max(ticks_took[0].min(ticks_took[1]) * 2)
}

impl Brain {
    async fn live(
        mut self,
        mut asked: mpsc::Receiver<Question>,
        mut returned: mpsc::UnboundedReceiver<Feedback>,
        mut events: mpsc::Receiver<ClusterEvent>,
    ) {
        let mut leadership = self.group.leadership();
        let mut applied = self.group.applied();
        let now = leadership.borrow_and_update().clone();
        self.follow_leadership(&now).await;
        let (mut questions, mut feedback, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        loop {
            let due = self.next_tick();
            let idle = asked.is_empty() && returned.is_empty() && events.is_empty();
            let now = Instant::now();
            if now >= due && (idle || now >= due + LONGEST_DELAY) {
                self.tick().await;
                continue;
            }
            tokio::select! {
                biased;
                changed = leadership.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = leadership.borrow_and_update().clone();
                    self.follow_leadership(&now).await;
                }
                count = asked.recv_many(&mut questions, LARGEST_BATCH) => {
                    if count == 0 {
                        return;
                    }
                    for question in questions.drain(..) {
                        self.answer(question).await;
                    }
                }
                _ = returned.recv_many(&mut feedback, LARGEST_BATCH) => {
                    let term = self.term;
                    let inputs = feedback.drain(..).filter_map(|item| input_of(item, term));
                    self.step(inputs.collect()).await;
                }
                count = events.recv_many(&mut changes, LARGEST_BATCH) => {
                    if count == 0 {
                        return;
                    }
                    self.step(changes.drain(..).map(Input::Cluster).collect()).await;
                }
                changed = applied.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    applied.mark_unchanged();
                    self.state_changed = true;
                }
                () = sleep_until(due) => {}
            }
        }
    }

    /// When everything is looked at next.
    fn next_tick(&self) -> Instant {
        let due = self.state_changed || self.control.next_wakeup().is_some();
        self.last_tick + if due { pause_after(self.ticks_took) } else { USUAL_TICK }
    }

    async fn tick(&mut self) {
        self.state_changed = false;
        let begun = Instant::now();
        self.step(vec![Input::Tick]).await;
        self.last_tick = Instant::now();
        self.ticks_took = [self.last_tick - begun, self.ticks_took[0]];
        let board = board_of(&self.control, &self.group.state());
        self.board.send_if_modified(|shown| {
            let modified = **shown != board;
            if modified {
                *shown = Arc::new(board);
            }
            modified
        });
    }

    async fn follow_leadership(&mut self, leadership: &Leadership) {
        let term = leadership.term();
        if term == self.term {
            return;
        }
        if self.term.is_some() {
            self.step(vec![Input::Deposed]).await;
        }
        self.term = term;
        if let Some(term) = term {
            self.step(vec![Input::Leading { term }]).await;
        }
    }

    async fn answer(&mut self, question: Question) {
        // Whoever asked may have gone meanwhile: an answer that nobody takes is dropped.
        match question {
            Question::Report { report, first, answer } => {
                if first {
                    Counters::add_one(&self.counters.reports);
                    self.step(vec![Input::Report(Box::new((*report).clone()))]).await;
                }
                let state = self.group.state();
                let _ = answer.send(Reported {
                    leading: self.term.is_some(),
                    committed: self.control.notices_committed(&state, &report),
                    lacks_usage: self.control.lacks_usage(&report),
                    untold: self.control.leaves_telling(&report),
                });
            }
            Question::Status { answer } => {
                let status = self.control.status(&self.group.state(), Timestamp::now());
                let _ = answer.send(Box::new(status));
            }
            Question::Nodes { answer } => {
                let _ = answer.send(self.control.nodes(&self.group.state()));
            }
        }
    }

    async fn step(&mut self, inputs: Vec<Input>) {
        if inputs.is_empty() {
            return;
        }
        let count = inputs.len() as u64;
        let begun = std::time::Instant::now();
        let state = self.group.state();
        let control = &mut self.control;
        let effects: Vec<Effect> = off_the_scheduler(|| {
            let steps =
                inputs.into_iter().flat_map(|input| control.step(&state, input, Timestamp::now()));
            steps.collect()
        });
        drop(state);
        self.counters.stepped(count, begun.elapsed());
        for (purpose, violation) in self.control.take_violations() {
            let (purpose, rule) = (purpose.as_str(), violation.rule);
            tracing::error!(purpose, subject = %violation.subject, %rule, "A plan breaks a rule and is not acted on.");
        }
        if let Some(term) = self.term {
            self.hands.carry_out(term, effects).await;
        }
    }
}

/// Deciding may take long: where the runtime has several threads, the others go on meanwhile.
fn off_the_scheduler<T>(work: impl FnOnce() -> T) -> T {
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::MultiThread => tokio::task::block_in_place(work),
        _ => work(),
    }
}

/// What came back is taken in only while the term lasts in which it was asked for.
fn input_of(feedback: Feedback, now: Option<u64>) -> Option<Input> {
    match feedback {
        Feedback::Answer { term, key, outcome } => {
            (Some(term) == now).then_some(Input::Answer { key, outcome })
        }
        Feedback::Rejected { term, command } => {
            (Some(term) == now).then_some(Input::ProposalRejected(command))
        }
        Feedback::Refused { term, command } => {
            (Some(term) == now).then_some(Input::CommandRefused(command))
        }
    }
}

fn board_of(control: &Control, state: &State) -> Board {
    let draining = state.claims.values().filter(|claim| claim.stage == Stage::Draining);
    draining
        .filter_map(|claim| {
            let node = claim.node.as_ref()?;
            let instance = claim.instance.as_ref().map(|instance| instance.id.clone());
            let directives = control.directives(state, node, instance.as_ref());
            Some((node.clone(), (instance, directives)))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_long_look_delays_nothing_and_many_do() {
        let after = |last, before| {
            pause_after([Duration::from_millis(last), Duration::from_millis(before)]).as_millis()
        };
        assert_eq!(after(600, 1), 5, "it planned");
        assert_eq!(after(1, 600), 5);
        assert_eq!(after(600, 500), 1_000);
    }
}
