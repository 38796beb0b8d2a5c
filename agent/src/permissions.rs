//! Asks the API server, beside all else, whether it lets the agent do what an interruption will need.

use std::collections::BTreeSet;
use std::time::Duration;

use drover_agent_core::Input;
use drover_agent_core::permission::Permission;
use drover_common::id::NodeName;
use drover_kubernetes::{Client, ReviewError};
use tokio::sync::{mpsc, watch};

/// For each answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// After the first question that has no answer; twice as long after each one more.
const PAUSE: Duration = Duration::from_secs(5);
/// So many without an answer are told of, and from then on [`AGAIN_AFTER`] passes between them.
const TRIES: u32 = 6;
/// How soon it's asked again where something is denied: people may grant it meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Tells the agent what is denied, until nothing is. An API server that can't tell is asked ever more rarely.
pub(crate) async fn look(
    node: NodeName,
    mut clients: watch::Receiver<Option<Client>>,
    inputs: mpsc::Sender<Input>,
) {
    let mut pace = Pace::default();
    loop {
        let Ok(client) = clients.wait_for(Option::is_some).await.map(|client| client.clone())
        else {
            return;
        };
        let Some(client) = client else { continue };
        match denied(&client, &node).await {
            Ok(denied) => {
                let is_done = denied.is_empty();
                let ends = inputs.send(Input::Denied(denied)).await.is_err();
                if is_done || ends {
                    return;
                }
                pace = Pace::default();
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Err(error) => {
                let (pause, is_long) = pace.unanswered();
                if is_long {
                    tracing::info!(%error, "What the API server allows the agent is unknown.");
                }
                tokio::time::sleep(pause).await;
            }
        }
    }
}

/// How soon an API server that does not say is asked again.
#[derive(Debug, Default)]
struct Pace {
    tries: u32,
}

impl Pace {
    /// The pause after one more question without an answer, and whether it is the one that is told of.
    fn unanswered(&mut self) -> (Duration, bool) {
        self.tries = self.tries.saturating_add(1);
        let pause = if self.tries < TRIES {
            PAUSE.saturating_mul(1 << (self.tries - 1))
        } else {
            AGAIN_AFTER
        };
        (pause, self.tries == TRIES)
    }
}

/// What the API server does not let the agent do. All is asked at once: a start waits for the answers.
///
/// # Errors
/// The API server said nothing of some of it, or can't tell, and denies nothing of the rest.
pub(crate) async fn denied(
    client: &Client,
    node: &NodeName,
) -> Result<BTreeSet<Permission>, ReviewError> {
    let questions = Permission::ALL.map(|permission| async move {
        let asked = permission.attributes(node);
        (permission, drover_kubernetes::review_own_access(client, &asked, PATIENCE).await)
    });
    let (mut denied, mut failed) = (BTreeSet::new(), None);
    for (permission, answer) in futures::future::join_all(questions).await {
        match answer {
            Ok(true) => {}
            Ok(false) => drop(denied.insert(permission)),
            Err(error) => failed = Some(error),
        }
    }
    match failed {
        Some(error) if denied.is_empty() => Err(error),
        _ => Ok(denied),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_say_is_asked_ever_more_rarely_and_told_of_once() {
        let mut pace = Pace::default();
        let paused: Vec<(u64, bool)> = (0..9)
            .map(|_| pace.unanswered())
            .map(|(pause, is_told)| (pause.as_secs(), is_told))
            .collect();
        let later = (600, false);
        let first = [5, 10, 20, 40, 80].map(|pause| (pause, false));
        assert_eq!(paused, [&first[..], &[(600, true), later, later, later]].concat());
    }
}
