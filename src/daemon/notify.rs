//! Tells systemd how the daemon stands (sd_notify(3)), where that has started it and wants to know: `Type=notify` of its unit.
//! Else nothing happens here.

use sd_notify::NotifyState;

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

/// It ends.
pub(super) fn stopping() {
    say(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

fn say(states: &[NotifyState<'_>]) {
    // Whoever started the daemon and does not listen is no reason not to serve.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be told how the daemon stands");
    }
}
