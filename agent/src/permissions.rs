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
/// An API server that has not said by then what it allows never will.
const TRIES: u32 = 6;
/// How soon it's asked again where something is denied: people may grant it meanwhile.
const AGAIN_AFTER: Duration = Duration::from_secs(10 * 60);

/// Tells the agent what is denied, until nothing is.
pub(crate) async fn look(
    node: NodeName,
    mut clients: watch::Receiver<Option<Client>>,
    inputs: mpsc::Sender<Input>,
) {
    let (mut pause, mut tries) = (PAUSE, 0);
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
                tokio::time::sleep(AGAIN_AFTER).await;
            }
            Err(error) => {
                tries += 1;
                if tries == TRIES {
                    tracing::info!(%error, "What the API server allows the agent is unknown.");
                    return;
                }
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
        }
    }
}

/// What the API server does not let the agent do, which is asked one by one.
///
/// # Errors
/// The API server said nothing, or can't tell.
pub(crate) async fn denied(
    client: &Client,
    node: &NodeName,
) -> Result<BTreeSet<Permission>, ReviewError> {
    let mut denied = BTreeSet::new();
    for permission in Permission::ALL {
        let asked = permission.attributes(node);
        if !drover_kubernetes::review_own_access(client, &asked, PATIENCE).await? {
            denied.insert(permission);
        }
    }
    Ok(denied)
}
