//! Asks IMDS, again and again, and never gives up.

use std::time::Duration;

use drover_agent_core::{Answer, Input, NoticePath, imds as bodies};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::disk::random;
use crate::imds::{Imds, ImdsError};

/// The longest pause after errors: a spot notice leaves two minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Polls the notice paths and sends what they say until the receiver is dropped. The spot notice is
/// asked for each `interval`, what is less urgent less often.
pub(crate) async fn poll(mut imds: Imds, interval: Duration, inputs: mpsc::Sender<Input>) {
    let mut known = false;
    let mut failures = 0_u32;
    let mut round = 0_u32;
    loop {
        let began = Instant::now();
        let answered = poll_round(&mut imds, round, &mut known, &inputs).await;
        match answered {
            Ok(true) => {
                if failures >= 3 {
                    tracing::info!("Instance metadata service answers again.");
                }
                failures = 0;
                round = round.wrapping_add(1);
            }
            Ok(false) => return,
            Err(error) => {
                failures = failures.saturating_add(1);
                // Single failures are everyday life; lasting ones mean that notices are missed.
                if failures == 3 {
                    tracing::warn!(%error, "Instance metadata service does not answer.");
                }
            }
        }
        let pause = pause(interval, failures);
        tokio::time::sleep_until(began + pause).await;
    }
}

/// One round; returns whether anyone still listens.
async fn poll_round(
    imds: &mut Imds,
    round: u32,
    known: &mut bool,
    inputs: &mpsc::Sender<Input>,
) -> Result<bool, ImdsError> {
    if !*known && let Answer::Body(body) = imds.read("instance-id").await? {
        match bodies::instance_id(&body) {
            Ok(instance) => {
                *known = true;
                if inputs.send(Input::Instance(instance)).await.is_err() {
                    return Ok(false);
                }
            }
            Err(error) => tracing::debug!(%error, "Instance id is unreadable."),
        }
    }
    for path in NoticePath::ALL {
        let every = match path {
            NoticePath::SpotAction => 1,
            NoticePath::Rebalance => 4,
            NoticePath::Maintenance => 60,
        };
        if round.is_multiple_of(every) {
            let answer = imds.read(path.path()).await?;
            if inputs.send(Input::Notice(path, answer)).await.is_err() {
                return Ok(false);
            }
        }
    }
    Ok(true)
}

/// The interval, doubled by failures, with jitter so that nodes that failed together part.
fn pause(interval: Duration, failures: u32) -> Duration {
    if failures == 0 {
        return interval;
    }
    let full = interval.saturating_mul(1 << failures.min(4)).min(LONGEST_PAUSE.max(interval));
    let permille = u32::try_from(random() % 500).unwrap_or(0).saturating_add(500);
    full.saturating_mul(permille) / 1000
}
