//! Asks IMDS, again and again, and never gives up.

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use drover_agent_core::{Answer, Input, NoticePath, imds as bodies};
use drover_kubernetes::part_of;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::imds::{Imds, ImdsError};
use crate::pulse::Pulse;

/// The longest pause after errors: a spot notice leaves two minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Link-local and answered by the hypervisor: what takes longer than this is lost.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// Questions follow each other on one connection as long as each is answered so soon. One that takes
/// longer is left to itself, and the next goes out beside it.
const PATIENCE: Duration = Duration::from_millis(50);
/// Single failures are everyday life; so many in a row mean that notices are missed.
const LASTING: u32 = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    /// Before it's known no notice counts.
    Instance,
    Notice(NoticePath),
}

impl Question {
    fn path(self) -> &'static str {
        match self {
            Question::Instance => "instance-id",
            Question::Notice(path) => path.path(),
        }
    }

    /// The pause after an answer, in intervals.
    fn pace(self) -> u32 {
        match self {
            Question::Instance | Question::Notice(NoticePath::SpotAction) => 1,
            // Neither leaves so little time; each question a second costs 0.03 % of a core.
            Question::Notice(NoticePath::Rebalance | NoticePath::AutoScaling) => 4,
            // It's announced days ahead.
            Question::Notice(NoticePath::Maintenance) => 60,
        }
    }

    fn is_urgent(self) -> bool {
        self == Question::Notice(NoticePath::SpotAction)
    }
}

/// When a question is asked next.
#[derive(Clone, Copy, Debug)]
struct Turn {
    question: Question,
    at: Instant,
    failures: u32,
    /// Whether it was told that the answer is none.
    told: bool,
}

/// Polls the notice paths and sends what they say until the receiver is dropped. Spot notices are asked
/// for every `interval`, the others less often. Each path backs off by itself, and one that fails or hangs does
/// not slow the others.
pub(crate) async fn poll(
    imds: Arc<Imds>,
    interval: Duration,
    pulse: Pulse,
    inputs: mpsc::Sender<Input>,
) {
    let start = Instant::now();
    let questions = std::iter::once(Question::Instance)
        .chain(NoticePath::ALL.into_iter().map(Question::Notice));
    let mut turns: Vec<Turn> =
        questions.map(|question| Turn { question, at: start, failures: 0, told: false }).collect();
    let mut asked = FuturesUnordered::new();
    // The last question that went out has been given its time then.
    let mut free_at = start;
    loop {
        let earliest = if asked.is_empty() { start } else { free_at };
        let next = next_turn(&turns, Instant::now().max(earliest));
        tokio::select! {
            biased;
            Some((turn, began, answered)) = asked.next() => {
                pulse.polled();
                match follow_up(turn, began, interval, answered) {
                    Next::Turn(turn) => turns.push(turn),
                    Next::Never => {}
                    Next::End => return,
                }
            }
            index = wait_for(next, earliest) => {
                let turn = turns.swap_remove(index);
                let began = Instant::now();
                free_at = began + PATIENCE;
                let asking = ask(&imds, turn.question, &inputs);
                asked.push(async move { (turn, began, asking.await) });
            }
        }
    }
}

/// The question to ask next, and when: of those that are due the most urgent.
fn next_turn(turns: &[Turn], now: Instant) -> Option<(usize, Instant)> {
    let due = |turn: &Turn| (turn.at.max(now), turn.question);
    let next = turns.iter().enumerate().min_by_key(|(_, turn)| due(turn));
    next.map(|(index, turn)| (index, turn.at))
}

async fn wait_for(next: Option<(usize, Instant)>, earliest: Instant) -> usize {
    match next {
        Some((index, at)) => {
            tokio::time::sleep_until(at.max(earliest)).await;
            index
        }
        None => std::future::pending().await,
    }
}

/// What comes after an answer.
enum Next {
    Turn(Turn),
    /// It need not be asked again.
    Never,
    /// The agent has ended.
    End,
}

fn follow_up(
    turn: Turn,
    began: Instant,
    interval: Duration,
    answered: Result<Heard, ImdsError>,
) -> Next {
    let Turn { question, failures, told, .. } = turn;
    let again = Turn { at: began + interval.saturating_mul(question.pace()), failures: 0, ..turn };
    match answered {
        Ok(Heard::Done) => {
            if told {
                tracing::info!("Instance id is known.");
            }
            Next::Never
        }
        Ok(Heard::Nobody) => Next::End,
        Ok(Heard::NoInstance(reason)) => {
            if !told {
                tracing::warn!(
                    %reason,
                    "Instance metadata service does not tell the instance id, without which no notice counts; retrying."
                );
            }
            Next::Turn(Turn { told: true, ..again })
        }
        Ok(Heard::Again) => {
            if failures >= LASTING && question.is_urgent() {
                tracing::info!("Instance metadata service answers again.");
            }
            Next::Turn(again)
        }
        Err(error) => {
            let failures = failures.saturating_add(1);
            if failures == LASTING && question.is_urgent() {
                tracing::warn!(%error, "Instance metadata service does not answer.");
            } else if failures == LASTING {
                tracing::debug!(%error, "A metadata path does not answer.");
            }
            Next::Turn(Turn { at: began + pause(interval, failures), failures, ..turn })
        }
    }
}

enum Heard {
    /// It need not be asked again.
    Done,
    Again,
    /// Not which instance this is, and why not.
    NoInstance(String),
    /// The agent has ended.
    Nobody,
}

async fn ask(
    imds: &Imds,
    question: Question,
    inputs: &mpsc::Sender<Input>,
) -> Result<Heard, ImdsError> {
    let answer = imds.read(question.path(), TIMEOUT).await?;
    let (input, heard) = match (question, answer) {
        (Question::Notice(path), answer) => (Input::Notice(path, answer), Heard::Again),
        (Question::Instance, Answer::Absent) => {
            return Ok(Heard::NoInstance("the metadata service has none".to_owned()));
        }
        (Question::Instance, Answer::Body(body)) => match bodies::instance_id(&body) {
            Ok(instance) => (Input::Instance(instance), Heard::Done),
            Err(error) => return Ok(Heard::NoInstance(error.to_string())),
        },
    };
    Ok(if inputs.send(input).await.is_ok() { heard } else { Heard::Nobody })
}

/// The interval, doubled by failures, with jitter so that nodes that failed together part.
fn pause(interval: Duration, failures: u32) -> Duration {
    part_of(interval.saturating_mul(1 << failures.min(4)).min(LONGEST_PAUSE.max(interval)))
}
