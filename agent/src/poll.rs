//! Asks IMDS, again and again, and never gives up.

use std::time::Duration;

use drover_agent_core::{Answer, Input, NoticePath, imds as bodies};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::disk::part_of;
use crate::imds::{Imds, ImdsError};
use crate::pulse::Pulse;

/// The longest pause after errors: a spot notice leaves two minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Link-local and answered by the hypervisor: what takes longer than this is lost.
const TIMEOUT: Duration = Duration::from_millis(1_500);
/// What is less urgent than the spot notice must not keep it waiting.
const SHORT_TIMEOUT: Duration = Duration::from_millis(500);
/// Single failures are everyday life; so many in a row mean that notices are missed.
const LASTING: u32 = 3;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
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
            Question::Notice(NoticePath::Rebalance | NoticePath::AutoScaling) => 4,
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
}

/// Polls the notice paths and sends what they say until the receiver is dropped. The spot notice is
/// asked for each `interval`, what is less urgent less often. Each path backs off by itself, so that
/// one that fails does not slow the others.
pub(crate) async fn poll(
    mut imds: Imds,
    interval: Duration,
    pulse: Pulse,
    inputs: mpsc::Sender<Input>,
) {
    let start = Instant::now();
    let questions = std::iter::once(Question::Instance)
        .chain(NoticePath::ALL.into_iter().map(Question::Notice));
    let mut turns: Vec<Turn> =
        questions.map(|question| Turn { question, at: start, failures: 0 }).collect();
    while let Some(turn) = turns.iter_mut().min_by_key(|turn| turn.at) {
        tokio::time::sleep_until(turn.at).await;
        let began = Instant::now();
        let answered = ask(&mut imds, turn.question, &inputs).await;
        pulse.polled();
        match answered {
            Ok(Heard::Done) => {
                let question = turn.question;
                turns.retain(|turn| turn.question != question);
            }
            Ok(Heard::Again) => {
                if turn.failures >= LASTING && turn.question.is_urgent() {
                    tracing::info!("Instance metadata service answers again.");
                }
                turn.failures = 0;
                turn.at = began + interval.saturating_mul(turn.question.pace());
            }
            Ok(Heard::Nobody) => return,
            Err(error) => {
                turn.failures = turn.failures.saturating_add(1);
                if turn.failures == LASTING && turn.question.is_urgent() {
                    tracing::warn!(%error, "Instance metadata service does not answer.");
                } else if turn.failures == LASTING {
                    tracing::debug!(%error, "A metadata path does not answer.");
                }
                turn.at = began + pause(interval, turn.failures);
            }
        }
    }
}

enum Heard {
    /// It need not be asked again.
    Done,
    Again,
    /// The agent has ended.
    Nobody,
}

async fn ask(
    imds: &mut Imds,
    question: Question,
    inputs: &mpsc::Sender<Input>,
) -> Result<Heard, ImdsError> {
    let timeout = if question.is_urgent() { TIMEOUT } else { SHORT_TIMEOUT };
    let answer = imds.read(question.path(), timeout).await?;
    let (input, heard) = match (question, answer) {
        (Question::Notice(path), answer) => (Input::Notice(path, answer), Heard::Again),
        (Question::Instance, Answer::Absent) => return Ok(Heard::Again),
        (Question::Instance, Answer::Body(body)) => match bodies::instance_id(&body) {
            Ok(instance) => (Input::Instance(instance), Heard::Done),
            Err(error) => {
                tracing::debug!(%error, "Instance id is unreadable.");
                return Ok(Heard::Again);
            }
        },
    };
    Ok(if inputs.send(input).await.is_ok() { heard } else { Heard::Nobody })
}

/// The interval, doubled by failures, with jitter so that nodes that failed together part.
fn pause(interval: Duration, failures: u32) -> Duration {
    part_of(interval.saturating_mul(1 << failures.min(4)).min(LONGEST_PAUSE.max(interval)))
}
