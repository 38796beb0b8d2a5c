//! What systemd wants to hear from a unit of `Type=notify`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use sd_notify::NotifyState;

use super::Counters;

/// Says that the replica is ready, and then feeds the watchdog, where the unit has one, for as long as
/// decisions are made. Returns at once where there is no systemd.
pub(super) async fn follow(counters: Arc<Counters>) {
    if std::env::var_os("NOTIFY_SOCKET").is_none() {
        return;
    }
    tell(&[NotifyState::Ready, NotifyState::Status("replica is up")]);
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    let mut seen = None;
    loop {
        let steps = counters.steps.load(Ordering::Relaxed);
        if seen.replace(steps) != Some(steps) {
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
