//! The machine's power, by the system bus: whether the machine shuts down, the lock that delays that
//! for as long as a drain is under way, and the last resort of an agent that is cut off.

mod attend;
mod bus;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::time::Duration;

use drover_agent_core::Input;
use tokio::sync::{mpsc, oneshot};

use attend::attend;
use bus::Machine;

/// Between two tries to reach a bus that isn't there.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A bus that says nothing for so long about a shutdown is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a machine is looked at anew.
pub(crate) const LOOKS_EVERY: Duration = Duration::from_secs(30);

/// Where the bus is found below the host's root.
pub(crate) const SOCKET: &str = "run/dbus/system_bus_socket";

/// What is asked of the machine.
#[derive(Debug)]
enum Ask {
    PowerOff(u32),
    AllowShutdown,
    IsShuttingDown(oneshot::Sender<bool>),
}

/// The way to [`follow`].
#[derive(Clone, Debug)]
pub(crate) struct Power(mpsc::Sender<Ask>);

impl Power {
    /// A way, and its other end.
    pub(crate) fn new() -> (Self, Asked) {
        let (asks, asked) = mpsc::channel(16);
        (Self(asks), Asked(asked))
    }

    /// Powers the machine off; what comes of that is an [`Input::PoweredOff`].
    ///
    /// # Errors
    /// Nobody takes the request; in words.
    pub(crate) fn power_off(&self, attempt: u32) -> Result<(), String> {
        self.0.try_send(Ask::PowerOff(attempt)).map_err(|_full| "the bus is stuck".to_owned())
    }

    /// Lets a shutdown go on that waits for the agent.
    pub(crate) fn allow_shutdown(&self) {
        // Should it be stuck, logind goes on by itself in a moment.
        let _stuck = self.0.try_send(Ask::AllowShutdown);
    }

    /// Whether the machine is shutting down. Where nobody can tell, it is not.
    pub(crate) async fn is_shutting_down(&self) -> bool {
        let (answer, answered) = oneshot::channel();
        let asked = self.0.try_send(Ask::IsShuttingDown(answer)).is_ok();
        asked && matches!(tokio::time::timeout(PATIENCE, answered).await, Ok(Ok(true)))
    }
}

/// The other end of a [`Power`].
#[derive(Debug)]
pub(crate) struct Asked(mpsc::Receiver<Ask>);

/// What the machine's power is about.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The system bus' socket.
    pub(crate) socket: PathBuf,
    /// Whether the machine may be powered off.
    pub(crate) may_power_off: bool,
    /// How long the agent's unit may take to stop, once logind waits no longer.
    pub(crate) stop_grace: Duration,
    /// Between two looks at what the bus does not tell by itself.
    pub(crate) looks_every: Duration,
}

/// Follows the bus, for as long as the agent runs: says whether the machine can be powered off, when
/// it shuts down, and what came of requests.
pub(crate) async fn follow(settings: Settings, inputs: mpsc::Sender<Input>, mut asked: Asked) {
    let mut told = false;
    loop {
        let error = match Machine::reach(&settings.socket).await {
            Ok(machine) => match attend(machine, &settings, &inputs, &mut asked).await {
                Ok(()) => return,
                Err(left) => {
                    told &= !left.reached;
                    left.error
                }
            },
            Err(error) => error,
        };
        if inputs.send(Input::PowerOff(None)).await.is_err() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                socket = %settings.socket.display(),
                %error,
                "System bus is out of reach: the machine can't be powered off from here, and its shutdown does not wait."
            );
        }
        refuse(&mut asked, &inputs, &error).await;
    }
}

/// Says no to everything for a while.
async fn refuse(asked: &mut Asked, inputs: &mpsc::Sender<Input>, error: &zbus::Error) {
    let until = tokio::time::Instant::now() + AGAIN_AFTER;
    while let Ok(ask) = tokio::time::timeout_at(until, asked.0.recv()).await {
        match ask {
            Some(Ask::PowerOff(attempt)) => {
                let outcome = Err(error.to_string());
                // Nobody listens only when the agent stops.
                let _stopping = inputs.send(Input::PoweredOff(attempt, outcome)).await;
            }
            Some(Ask::AllowShutdown | Ask::IsShuttingDown(_)) => {}
            None => return,
        }
    }
}
