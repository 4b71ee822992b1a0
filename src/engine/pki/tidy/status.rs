//! How the last tidying went, or how far the one under way is: what `tidy-status` tells. One at a time for a mount.

use std::time::Instant;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::super::validity;
use super::targets::Targets;
use crate::model::{Data, Fault};

/// What is told of a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";
/// What `tidy-status` says of a tidying, and does not know while there was none.
const FIELDS: [&str; 32] = [
    "acme_account_deleted_count",
    "acme_account_revoked_count",
    "acme_account_safety_buffer",
    "acme_orders_deleted_count",
    "cert_metadata_deleted_count",
    "cert_store_deleted_count",
    "cmpv2_nonce_deleted_count",
    "cross_revoked_cert_deleted_count",
    "current_cert_store_count",
    "current_revoked_cert_count",
    "error",
    "issuer_safety_buffer",
    "message",
    "missing_issuer_cert_count",
    "pause_duration",
    "revocation_queue_deleted_count",
    "revocation_queue_safety_buffer",
    "revoked_cert_deleted_count",
    "safety_buffer",
    "tidy_acme",
    "tidy_cert_metadata",
    "tidy_cert_store",
    "tidy_cmpv2_nonce_store",
    "tidy_cross_cluster_revoked_certs",
    "tidy_expired_issuers",
    "tidy_move_legacy_ca_bundle",
    "tidy_revocation_queue",
    "tidy_revoked_cert_issuer_associations",
    "tidy_revoked_certs",
    "time_finished",
    "time_started",
    "total_acme_account_count",
];

/// Why a tidying did not come to its end.
#[derive(Clone, Debug)]
pub(super) enum Halt {
    /// Somebody asked for it, the mount was disabled, or the daemon drains.
    Cancelled,
    Failed(Fault),
}

impl From<Fault> for Halt {
    fn from(fault: Fault) -> Halt {
        Halt::Failed(fault)
    }
}

/// How a tidying stands.
#[derive(Clone, Debug)]
enum Phase {
    Running,
    Cancelling,
    Finished,
    Cancelled,
    Failed(String),
}

/// What was removed, and found on the way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) certificates: u64,
    pub(super) revocations: u64,
    pub(super) unfinished: u64,
    pub(super) issuers: u64,
    /// Revocations whose issuer is not on the mount.
    pub(super) missing_issuers: u64,
}

#[derive(Clone, Debug)]
struct Status {
    targets: Targets,
    phase: Phase,
    /// Unix seconds.
    started: u64,
    /// Unix seconds; 0 while it is under way.
    finished: u64,
    message: String,
    tally: Tally,
}

/// The tidying of a mount.
#[derive(Debug)]
pub(in crate::engine::pki) struct Tidy(Mutex<State>);

#[derive(Debug)]
struct State {
    status: Option<Status>,
    /// Tells the one under way to stop.
    cancel: Option<watch::Sender<bool>>,
    /// No other is to begin: the mount is gone, or the daemon drains.
    is_over: bool,
    /// When the last one began or ended well, in Unix seconds; 0 if that never was.
    last: u64,
    /// When the mount was loaded, in Unix seconds.
    started: u64,
    /// Before this time none comes by itself; once it was asked for.
    not_before: Option<u64>,
    /// A moment, and what the clock said then, in Unix seconds.
    clock: (Instant, u64),
}

impl Tidy {
    /// None was under way yet; the last one that the store knows of began or ended then.
    pub(in crate::engine::pki) fn new(last: u64) -> Tidy {
        let (started, not_before) = (validity::now(), None);
        let clock = (Instant::now(), started);
        Tidy(Mutex::new(State { status: None, cancel: None, is_over: false, last, started, not_before, clock }))
    }

    /// Begins one; its receiver tells when it is to stop. `None` while there is another.
    pub(super) fn begin(&self, targets: &Targets) -> Option<watch::Receiver<bool>> {
        let mut state = self.0.lock();
        if state.cancel.is_some() || state.is_over {
            return None;
        }
        let (cancel, cancelled) = watch::channel(false);
        state.cancel = Some(cancel);
        state.status = Some(Status {
            targets: targets.clone(),
            phase: Phase::Running,
            started: validity::now(),
            finished: 0,
            message: String::new(),
            tally: Tally::default(),
        });
        Some(cancelled)
    }

    /// Notes what the one under way does, and what it has done.
    pub(super) fn progress(&self, message: String, note: impl FnOnce(&mut Tally)) {
        if let Some(status) = &mut self.0.lock().status {
            status.message = message;
            note(&mut status.tally);
        }
    }

    /// Notes how the one under way ended; answers what it did.
    pub(super) fn end(&self, outcome: &Result<(), Halt>) -> Tally {
        let mut state = self.0.lock();
        state.cancel = None;
        let Some(status) = &mut state.status else { return Tally::default() };
        status.finished = validity::now();
        status.phase = match outcome {
            Ok(()) => Phase::Finished,
            Err(Halt::Cancelled) => Phase::Cancelled,
            Err(Halt::Failed(fault)) => Phase::Failed(fault.to_string()),
        };
        status.tally.clone()
    }

    /// Asks the one under way to stop. Answers false if there is none.
    pub(super) fn cancel(&self) -> bool {
        let mut state = self.0.lock();
        let Some(cancel) = &state.cancel else { return false };
        cancel.send_replace(true);
        if let Some(status) = &mut state.status {
            status.phase = Phase::Cancelling;
        }
        true
    }

    /// Asks the one under way to stop, and lets none begin after it.
    pub(in crate::engine::pki) fn stop(&self) {
        self.0.lock().is_over = true;
        self.cancel();
    }

    /// When the last one began or ended well, in Unix seconds; 0 if that never was.
    pub(super) fn last(&self) -> u64 {
        self.0.lock().last
    }

    /// Whether it was stopped for good.
    pub(super) fn is_over(&self) -> bool {
        self.0.lock().is_over
    }

    /// Whether the mount was loaded long enough before `now`: past the time that `choose` makes, once, of when it was.
    pub(super) fn has_settled(&self, now: u64, choose: impl FnOnce(u64) -> Result<u64, Fault>) -> Result<bool, Fault> {
        let mut state = self.0.lock();
        let not_before = match state.not_before {
            Some(time) => time,
            None => choose(state.started)?,
        };
        state.not_before = Some(not_before);
        Ok(now >= not_before)
    }

    /// By how many seconds the clock, which says `now`, went forward since the mount was loaded, beyond the time that passed.
    pub(super) fn clock_ahead(&self, now: u64) -> u64 {
        let (moment, then) = self.0.lock().clock;
        now.saturating_sub(then + moment.elapsed().as_secs())
    }

    /// For tests: as if the clock had gone forward.
    #[cfg(test)]
    pub(in crate::engine::pki) fn jump(&self, seconds: u64) {
        let mut state = self.0.lock();
        state.clock.1 -= seconds;
    }

    /// For tests: as if the mount had been loaded, and last tidied, so much earlier.
    #[cfg(test)]
    pub(in crate::engine::pki) fn age(&self, seconds: u64) {
        let mut state = self.0.lock();
        state.last = state.last.saturating_sub(seconds);
        state.started = state.started.saturating_sub(seconds);
        state.not_before = state.not_before.map(|time| time.saturating_sub(seconds));
    }

    /// Notes when one began or ended well, in Unix seconds.
    pub(super) fn set_last(&self, last: u64) {
        self.0.lock().last = last;
    }

    /// As `tidy-status` shows it.
    pub(super) fn show(&self) -> Data {
        let state = self.0.lock();
        let mut data: Data = FIELDS.iter().map(|name| ((*name).to_owned(), Value::Null)).collect();
        data.insert("state".into(), "Inactive".into());
        data.insert("last_auto_tidy_finished".into(), moment(state.last).into());
        let Some(status) = &state.status else { return data };
        data.extend(status.targets.show());
        let (name, error) = match &status.phase {
            Phase::Running => ("Running", Value::Null),
            Phase::Cancelling => ("Cancelling", Value::Null),
            Phase::Finished => ("Finished", Value::Null),
            Phase::Cancelled => ("Cancelled", Value::Null),
            Phase::Failed(fault) => ("Error", fault.as_str().into()),
        };
        let is_finished = matches!(status.phase, Phase::Finished);
        let value = json!({
            "state": name,
            "error": error,
            "time_started": moment(status.started),
            "time_finished": (status.finished > 0).then(|| moment(status.finished)),
            "message": (!is_finished).then_some(&status.message),
            "cert_store_deleted_count": status.tally.certificates,
            "revoked_cert_deleted_count": status.tally.revocations,
            "missing_issuer_cert_count": status.tally.missing_issuers,
            "unfinished_deleted_count": status.tally.unfinished,
            "expired_issuers_deleted_count": status.tally.issuers,
            "revocation_queue_deleted_count": 0,
            "cross_revoked_cert_deleted_count": 0,
            "total_acme_account_count": 0,
            "acme_account_deleted_count": 0,
            "acme_account_revoked_count": 0,
            "acme_orders_deleted_count": 0,
            "cert_metadata_deleted_count": 0,
            "cmpv2_nonce_deleted_count": 0,
        });
        data.extend(value.as_object().cloned().unwrap_or_default());
        data
    }
}

fn moment(seconds: u64) -> String {
    if seconds == 0 { NEVER.into() } else { validity::rfc3339(seconds) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time_and_none_after_the_end() {
        let tidy = Tidy::new(0);
        assert!(!tidy.cancel());
        assert_eq!(tidy.show()["state"], "Inactive");
        assert_eq!(tidy.show()["last_auto_tidy_finished"], NEVER);
        let cancelled = tidy.begin(&Targets::default()).unwrap();
        assert!(tidy.begin(&Targets::default()).is_none());
        tidy.progress("checking".into(), |tally| tally.certificates += 7);
        assert_eq!((&tidy.show()["state"], &tidy.show()["message"]), (&json!("Running"), &json!("checking")));
        assert!(tidy.cancel() && *cancelled.borrow());
        assert_eq!(tidy.show()["state"], "Cancelling");
        assert_eq!(tidy.end(&Err(Halt::Cancelled)).certificates, 7);
        assert_eq!(tidy.show()["state"], "Cancelled");
        let _again = tidy.begin(&Targets::default()).unwrap();
        tidy.end(&Err(Halt::Failed(Fault::Sealed)));
        assert_eq!(
            (&tidy.show()["state"], &tidy.show()["error"]),
            (&json!("Error"), &json!(Fault::Sealed.to_string()))
        );
        let last = tidy.begin(&Targets::default()).unwrap();
        tidy.stop();
        assert!(*last.borrow());
        tidy.end(&Ok(()));
        assert_eq!((&tidy.show()["state"], &tidy.show()["message"]), (&json!("Finished"), &Value::Null));
        assert!(tidy.begin(&Targets::default()).is_none());
    }

    #[test]
    fn every_field_is_there_before_there_was_any() {
        let tidy = Tidy::new(7);
        let before = tidy.show();
        tidy.begin(&Targets::default());
        // Keyway's own two come beside Vault's.
        let own = ["unfinished_deleted_count", "expired_issuers_deleted_count"];
        let during = tidy.show();
        let new: Vec<&String> = during.keys().filter(|name| !before.contains_key(*name)).collect();
        assert!(new.iter().all(|name| own.contains(&name.as_str())), "{new:?}");
    }
}
