//! The machine's power, by the system bus: whether the machine shuts down, the lock that delays that
//! for as long as a drain is under way, and the last resort of an agent that is cut off.

mod bus;
#[cfg(test)]
pub(crate) mod tests;

use std::path::PathBuf;
use std::time::Duration;

use drover_agent_core::Input;
use futures::StreamExt;
use jiff::SignedDuration;
use tokio::sync::{mpsc, oneshot};

use bus::{LoginProxy, Machine};

/// Between two tries to reach a bus that isn't there.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// A bus that says nothing for so long about a shutdown is not waited for.
const PATIENCE: Duration = Duration::from_secs(2);

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
}

/// Follows the bus, for as long as the agent runs: says whether the machine can be powered off, when
/// it shuts down, and what came of requests.
pub(crate) async fn follow(settings: Settings, inputs: mpsc::Sender<Input>, mut asked: Asked) {
    let mut told = false;
    loop {
        let error = match Machine::reach(&settings.socket).await {
            Ok(machine) => {
                told = false;
                let Err(error) = attend(machine, &settings, &inputs, &mut asked).await else {
                    return;
                };
                error
            }
            Err(error) => error,
        };
        if inputs.send(Input::PowerOff(None)).await.is_err() {
            return;
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(
                socket = %settings.socket.display(),
                %error,
                "System bus can't be reached: the machine can't be powered off from here, and its shutdown does not wait."
            );
        }
        refuse(&mut asked, &inputs, &error).await;
    }
}

/// Stays on a bus until it goes, which is the error; ends well with the agent.
async fn attend(
    machine: Machine,
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
    asked: &mut Asked,
) -> zbus::Result<()> {
    let Machine { login, systemd } = machine;
    let mut signals = login.receive_prepare_for_shutdown().await?;
    let delay = Duration::from_micros(login.inhibit_delay_max().await?);
    let mut lock = delay_shutdown(&login).await;
    tracing::info!(
        seconds = delay.as_secs(),
        delays_shutdown = lock.is_some(),
        may_power_off = settings.may_power_off,
        "System bus was reached."
    );
    let grace = settings.may_power_off.then(|| signed(delay));
    let waits = signed(delay.saturating_add(settings.stop_grace));
    let mut news = vec![Input::PowerOff(grace)];
    if login.preparing_for_shutdown().await? {
        news.push(Input::Shutdown(Some(waits)));
    }
    loop {
        for input in news.drain(..) {
            if inputs.send(input).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            signal = signals.next() => {
                let signal = signal.ok_or_else(|| zbus::Error::Failure("it closed".to_owned()))?;
                if signal.args()?.begins {
                    news.push(Input::Shutdown(Some(waits)));
                } else {
                    lock = delay_shutdown(&login).await;
                    news.push(Input::Shutdown(None));
                }
            }
            ask = asked.0.recv() => match ask {
                None => return Ok(()),
                Some(Ask::AllowShutdown) => drop(lock.take()),
                Some(Ask::PowerOff(attempt)) => {
                    let outcome = login.power_off(false).await.map_err(|error| error.to_string());
                    news.push(Input::PoweredOff(attempt, outcome));
                }
                Some(Ask::IsShuttingDown(answer)) => {
                    let stopping = systemd.system_state().await.is_ok_and(|at| at == "stopping");
                    // The agent may have lost its patience.
                    let _late = answer.send(stopping);
                }
            }
        }
    }
}

/// Takes a lock that delays a shutdown; without it the agent has only what its unit gives it.
async fn delay_shutdown(login: &LoginProxy<'_>) -> Option<zbus::OwnedFd> {
    let why = "the node is drained first";
    match login.inhibit("shutdown", "drover-agent", why, "delay").await {
        Ok(lock) => Some(lock),
        Err(error) => {
            tracing::warn!(%error, "Shutdowns of the machine can't be delayed.");
            None
        }
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

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
