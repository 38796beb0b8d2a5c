//! What systemd wants to hear from a unit of `Type=notify`.

use std::time::Duration;

use sd_notify::NotifyState;

use crate::pulse::Pulse;

/// How often it's looked whether the agent has started.
const STARTING: Duration = Duration::from_millis(50);

/// Says that the agent is ready once its loops turn, and then feeds the watchdog, where the unit has
/// one, for as long as both of them go on turning. Returns at once where there is no systemd.
pub(crate) async fn follow(pulse: Pulse) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    while pulse.counts().0 == 0 || pulse.counts().1 == 0 {
        tokio::time::sleep(STARTING).await;
    }
    tell(&[NotifyState::Ready, NotifyState::Status("guarding the node")]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut seen = (0, 0);
    loop {
        let counts = pulse.counts();
        if counts.0 != seen.0 && counts.1 != seen.1 {
            seen = counts;
            tell(&[NotifyState::Watchdog]);
        }
        tokio::time::sleep(limit / 3).await;
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd can't be told.");
    }
}
