//! How many certificates a mount has, where `config/auto-tidy` says to keep count: counted once, behind requests, and kept from
//! then on. Whatever is stored in the very moment its part of the store is being counted may be counted twice, until the next
//! start counts anew.

use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Pki;
use super::super::crl::off_worker;
use super::super::serial::Serial;
use super::auto::AutoTidy;
use crate::engine::Call;
use crate::model::{Data, Fault};

/// Names of one step.
const STEP: usize = 4096;

/// The count of a mount's certificates.
#[derive(Debug, Default)]
pub(in crate::engine::pki) struct Counts(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    progress: Progress,
    certificates: u64,
    error: Option<String>,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Progress {
    /// Nobody wants it.
    #[default]
    Off,
    Wanted,
    /// Counted up to the record of this name.
    Counting(String),
    Counted,
}

impl Counts {
    /// Nothing is counted yet.
    pub(in crate::engine::pki) fn new(config: &AutoTidy) -> Counts {
        let counts = Counts::default();
        counts.keep(config.maintain_stored_certificate_counts);
        counts
    }

    /// Whether it is to be kept.
    pub(super) fn keep(&self, is_wanted: bool) {
        let mut state = self.0.lock();
        if is_wanted != (state.progress != Progress::Off) {
            let progress = if is_wanted { Progress::Wanted } else { Progress::Off };
            *state = State { progress, ..State::default() };
        }
    }

    /// One was stored.
    pub(in crate::engine::pki) fn stored(&self, serial: &Serial) {
        self.note(serial, |count| count + 1);
    }

    /// One was removed.
    pub(super) fn removed(&self, serial: &Serial) {
        self.note(serial, |count| count.saturating_sub(1));
    }

    fn note(&self, serial: &Serial, change: impl FnOnce(u64) -> u64) {
        let mut state = self.0.lock();
        let is_counted = match &state.progress {
            Progress::Off | Progress::Wanted => false,
            // Those behind it are yet to be counted.
            Progress::Counting(last) => serial.record_name() <= *last,
            Progress::Counted => true,
        };
        if is_counted {
            state.certificates = change(state.certificates);
        }
    }

    /// Whether it is kept.
    pub(super) fn are_kept(&self) -> bool {
        self.0.lock().progress != Progress::Off
    }

    /// Whether to begin counting. Then whoever asked does.
    fn begin(&self) -> bool {
        let mut state = self.0.lock();
        let is_wanted = state.progress == Progress::Wanted;
        if is_wanted {
            *state = State { progress: Progress::Counting(String::new()), ..State::default() };
        }
        is_wanted
    }

    /// So many more were found, up to the record of this name. Answers whether to go on.
    fn found(&self, names: &[String]) -> bool {
        let mut state = self.0.lock();
        // It may have been turned off meanwhile, and on again.
        let Progress::Counting(last) = &mut state.progress else { return false };
        match names.last() {
            Some(name) => last.clone_from(name),
            None => state.progress = Progress::Counted,
        }
        state.certificates += names.len() as u64;
        state.progress != Progress::Counted
    }

    /// It failed, and is to be tried again.
    fn failed(&self, fault: &Fault) {
        let mut state = self.0.lock();
        if state.progress != Progress::Off {
            *state = State { progress: Progress::Wanted, error: Some(fault.to_string()), ..State::default() };
        }
    }

    /// The count, if it is kept, and whether it is all of them already.
    fn certificates(&self) -> Option<(u64, bool)> {
        let state = self.0.lock();
        (state.progress != Progress::Off).then(|| (state.certificates, state.progress == Progress::Counted))
    }
}

impl Pki {
    /// Has certificates counted if that is wanted, and shows the counts where they are to be shown.
    pub(in crate::engine::pki) fn keep_counts(self: &Arc<Self>, call: &Call) {
        if self.counts.begin() {
            tokio::spawn(Arc::clone(self).count_certificates(call.clone()));
        }
        let (mount, namespace) = (call.mount.path.as_str(), call.mount.namespace.to_string());
        let counted = self.counts.certificates().filter(|(_, is_whole)| *is_whole && !self.tidy.is_over());
        let shown = counted.filter(|_| self.auto_tidy.load().publish_stored_certificate_count_metrics);
        let figures = shown.zip(self.crls.whole());
        let figures = figures.map(|((certificates, _), whole)| (certificates, self.crls.len(whole) as u64));
        self.telemetry.stored(&namespace, mount, figures);
    }

    async fn count_certificates(self: Arc<Self>, call: Call) {
        let mut after: Option<String> = None;
        loop {
            let (pki, from) = (Arc::clone(&self), after.take());
            let list = move || {
                pki.store.list(pki.records.namespace(), &pki.records.collection("certs"), from.as_deref(), STEP)
            };
            match off_worker(true, list).await {
                Ok(names) if self.counts.found(&names) => after = names.into_iter().next_back(),
                Ok(_) => return,
                Err(fault) => {
                    self.counts.failed(&fault);
                    let (mount, namespace) = (&call.mount.path, &call.mount.namespace);
                    tracing::warn!(%mount, %namespace, %fault, "certificates cannot be counted; it is tried again");
                    return;
                }
            }
        }
    }

    /// What `tidy-status` says of the counts, and its warning while they are not whole.
    pub(super) fn show_counts(&self, data: &mut Data) -> Vec<String> {
        let Some((certificates, is_whole)) = self.counts.certificates() else { return Vec::new() };
        data.insert("current_cert_store_count".into(), certificates.into());
        let revoked = self.crls.whole().map(|whole| self.crls.len(whole));
        if let Some(revoked) = revoked {
            data.insert("current_revoked_cert_count".into(), revoked.into());
        }
        if let Some(error) = &self.counts.0.lock().error {
            data.insert("certificate_counting_error".into(), error.as_str().into());
        }
        let warning = "Certificates in storage are still being counted, current counts provided may be inaccurate";
        if is_whole && revoked.is_some() { Vec::new() } else { vec![warning.into()] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serial(byte: u8) -> Serial {
        Serial::from_bytes(&[byte]).unwrap()
    }

    #[test]
    fn what_comes_and_goes_while_they_are_counted_counts_once() {
        let counts = Counts::default();
        counts.stored(&serial(1));
        assert_eq!(counts.certificates(), None);
        counts.keep(true);
        counts.keep(true);
        assert!(counts.begin() && !counts.begin());
        assert!(counts.found(&["10".into(), "20".into()]));
        // Before the place it is at, and behind it.
        counts.stored(&serial(0x15));
        counts.stored(&serial(0x35));
        counts.removed(&serial(0x10));
        assert_eq!(counts.certificates(), Some((2, false)));
        assert!(counts.found(&["30".into(), "35".into()]));
        assert!(!counts.found(&[]));
        assert_eq!(counts.certificates(), Some((4, true)));
        counts.removed(&serial(0x30));
        counts.stored(&serial(0x31));
        counts.stored(&serial(0x32));
        assert_eq!(counts.certificates(), Some((5, true)));
        counts.keep(false);
        assert_eq!((counts.certificates(), counts.begin()), (None, false));
    }

    #[test]
    fn a_count_that_failed_begins_anew() {
        let counts = Counts::default();
        counts.keep(true);
        assert!(counts.begin() && counts.found(&["10".into()]));
        counts.failed(&Fault::Sealed);
        assert!(counts.certificates() == Some((0, false)) && counts.begin());
        counts.keep(false);
        counts.failed(&Fault::Sealed);
        assert!(!counts.found(&["10".into()]) && counts.certificates().is_none());
    }
}
