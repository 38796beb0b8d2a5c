//! An agent on a bus: what it hears there, asks there and holds there.

use std::time::Duration;

use drover_agent_core::Input;
use futures::StreamExt;
use jiff::SignedDuration;
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::bus::{LoginProxy, Machine, SystemdProxy};
use super::{Ask, Asked, Settings};

/// A shutdown that has begun does not wait longer for what is only good to know.
const HURRY: Duration = Duration::from_secs(1);

/// Why an agent is no longer on a bus.
#[derive(Debug)]
pub(super) struct Left {
    /// Whether all that it needs was there once.
    pub(super) reached: bool,
    pub(super) error: zbus::Error,
}

struct Attendant<'s> {
    login: LoginProxy<'static>,
    systemd: SystemdProxy<'static>,
    settings: &'s Settings,
    /// How long logind lets the lock delay a shutdown.
    delay: Option<Duration>,
    lock: Option<zbus::OwnedFd>,
    told_lockless: bool,
    stops: bool,
}

/// Stays on a bus until it goes, which is the error; ends well with the agent.
pub(super) async fn attend(
    machine: Machine,
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
    asked: &mut Asked,
) -> Result<(), Left> {
    let mut reached = false;
    let stayed = stay(machine, settings, inputs, asked, &mut reached).await;
    stayed.map_err(|error| Left { reached, error })
}

async fn stay(
    machine: Machine,
    settings: &Settings,
    inputs: &mpsc::Sender<Input>,
    asked: &mut Asked,
    reached: &mut bool,
) -> zbus::Result<()> {
    let Machine { login, systemd, mut signals } = machine;
    let stops = login.preparing_for_shutdown().await?;
    let mut attendant = Attendant {
        login,
        systemd,
        settings,
        delay: None,
        lock: None,
        told_lockless: false,
        stops,
    };
    let mut news = attendant.look().await?;
    // A shutdown that was called off while nobody listened is over, too.
    news.push(Input::Shutdown(attendant.stops.then(|| attendant.waits())));
    *reached = true;
    tracing::info!(
        seconds = attendant.delay.unwrap_or_default().as_secs(),
        delays_shutdown = attendant.lock.is_some(),
        may_power_off = settings.may_power_off,
        "System bus was reached."
    );
    let mut looks = interval(settings.looks_every);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.reset();
    loop {
        for input in news.drain(..) {
            if inputs.send(input).await.is_err() {
                return Ok(());
            }
        }
        tokio::select! {
            signal = signals.next() => {
                let signal = signal.ok_or_else(|| zbus::Error::Failure("it closed".to_owned()))?;
                news = attendant.hear(signal.args()?.begins).await;
            }
            ask = asked.0.recv() => match ask {
                None => return Ok(()),
                Some(ask) => news.extend(attendant.answer(ask).await),
            },
            _ = looks.tick() => news = attendant.look_again(None).await,
        }
    }
}

impl Attendant<'_> {
    /// Reads anew what changes unheard, and takes the lock where it is missing. Returns the news.
    async fn look(&mut self) -> zbus::Result<Vec<Input>> {
        let delay = Duration::from_micros(self.login.inhibit_delay_max().await?);
        if !self.stops && self.lock.is_none() {
            self.take_lock().await;
        }
        if self.delay.replace(delay) == Some(delay) {
            return Ok(Vec::new());
        }
        let grace = self.settings.may_power_off.then(|| signed(delay));
        Ok(vec![Input::PowerOff(grace)])
    }

    /// As [`Self::look`], by someone who is on the bus and stays, whatever comes of it: to leave would give
    /// up the lock.
    async fn look_again(&mut self, hurry: Option<Duration>) -> Vec<Input> {
        let looked = match hurry {
            Some(hurry) => timeout(hurry, self.look()).await.ok(),
            None => Some(self.look().await),
        };
        match looked {
            Some(Ok(news)) => news,
            Some(Err(error)) => {
                tracing::debug!(%error, "logind does not say how long it waits.");
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// A shutdown begins, or is called off.
    async fn hear(&mut self, begins: bool) -> Vec<Input> {
        self.stops = begins;
        // The kubelet raises the delay when it starts, which may be after the last look.
        let mut news = self.look_again(begins.then_some(HURRY)).await;
        news.push(Input::Shutdown(begins.then(|| self.waits())));
        news
    }

    async fn answer(&mut self, ask: Ask) -> Option<Input> {
        match ask {
            Ask::AllowShutdown => drop(self.lock.take()),
            Ask::PowerOff(attempt) => {
                let outcome = self.login.power_off(false).await.map_err(|error| error.to_string());
                return Some(Input::PoweredOff(attempt, outcome));
            }
            Ask::IsShuttingDown(answer) => {
                let stopping = self.systemd.system_state().await.is_ok_and(|at| at == "stopping");
                // The agent may have lost its patience.
                let _late = answer.send(stopping);
            }
        }
        None
    }

    /// How long a shutdown waits for this agent.
    fn waits(&self) -> SignedDuration {
        signed(self.delay.unwrap_or_default().saturating_add(self.settings.stop_grace))
    }

    /// Takes a lock that delays a shutdown; without it the agent has only what its unit gives it.
    async fn take_lock(&mut self) {
        let why = "the node is drained first";
        match self.login.inhibit("shutdown", "drover-agent", why, "delay").await {
            Ok(lock) => {
                self.lock = Some(lock);
                self.told_lockless = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.told_lockless, true) {
                    tracing::warn!(%error, "Shutdowns of the machine can't be delayed.");
                }
            }
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}
