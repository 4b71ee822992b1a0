//! Tells systemd how the daemon stands (sd_notify(3)), where that has started it and wants to know: `Type=notify` of its unit.
//! Else nothing happens here.

use std::time::Duration;

use sd_notify::NotifyState;

/// What an end takes beyond the drain: the store is closed, processes end.
const LAST_CALLS: Duration = Duration::from_secs(15);

/// It serves.
pub(super) fn ready() {
    say(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It reads its configuration again: [`reloaded`] follows.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => say(&[NotifyState::Reloading, now]),
        Err(_) => say(&[NotifyState::Reloading]),
    }
}

/// That has ended, and so.
pub(super) fn reloaded(how: &str) {
    say(&[NotifyState::Ready, NotifyState::Status(how)]);
}

/// It ends, within `limit` and what its last calls take.
pub(super) fn stopping(limit: Duration) {
    let limit = limit.saturating_add(LAST_CALLS);
    let most = u32::try_from(limit.as_micros()).unwrap_or(u32::MAX);
    say(&[NotifyState::Stopping, NotifyState::Status("draining"), NotifyState::ExtendTimeoutUsec(most)]);
}

/// How long systemd waits for the next sign of life, if it waits for any (`WatchdogSec=` of the unit).
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().filter(|limit| !limit.is_zero())
}

/// It lives.
pub(super) fn alive() {
    say(&[NotifyState::Watchdog]);
}

fn say(states: &[NotifyState<'_>]) {
    // Whoever started the daemon and does not listen is no reason not to serve.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be told how the daemon stands");
    }
}
