//! The revocations and the CRL of each signer of a mount, found by who signed.
//!
//! The last CRLs are read when a mount starts, its revocations behind requests: see `loading`. Until all of them are read,
//! memory answers nothing about them: what is asked of one certificate is asked of the store, and the rest waits.

mod loading;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use super::ca_certificate::SignerId;
use super::crl::Crl;
use super::crl_config::CrlConfig;
use super::rebuild::Rebuild;
use super::records::Records;
use super::revocation::Revocation;
use super::revoked::Revoked;
use super::serial::Serial;
use super::validity;
use crate::model::{Fault, Mount};
use crate::store::Store;
use loading::Stage;
pub(super) use loading::Whole;

/// Signers whose CRLs are read: all that a mount can come to have in practice.
const SIGNERS_MAX: usize = 100_000;

/// What one signer revoked, and its CRL.
#[derive(Debug, Default)]
pub(super) struct SignerCrl {
    revoked: Mutex<Revoked>,
    /// The CRL served, once there is one.
    pub(super) crl: ArcSwapOption<Crl>,
    /// The delta CRL served, once there is one.
    pub(super) delta: ArcSwapOption<Crl>,
    /// Whether the next round makes a complete CRL; else it makes a delta CRL alone.
    pub(super) wants_complete: AtomicBool,
    /// The highest CRL number ever taken.
    number: AtomicU64,
    pub(super) rebuild: Rebuild,
}

impl SignerCrl {
    /// What it revoked, once all of that is known: what is made of less would leave some out.
    pub(super) fn revoked(&self, _: Whole) -> MutexGuard<'_, Revoked> {
        self.revoked.lock()
    }

    /// A number never used before, even by a CRL whose making failed half-way.
    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a complete CRL is due: there is none, or it is time, or it lacks a revocation that it need not wait with.
    pub(super) fn is_due(&self, config: &CrlConfig, whole: Whole) -> bool {
        if config.disable {
            return false;
        }
        let changes = self.revoked(whole).changes();
        let (crl, now) = (self.crl.load(), validity::now());
        crl.as_ref().is_none_or(|crl| match config.auto_rebuild {
            true => now + config.auto_rebuild_grace_period.seconds >= crl.next_update,
            false => crl.is_aging(now) || crl.changes != changes,
        })
    }

    /// Whether a certificate that ended at `end` (Unix seconds) is on a complete CRL made after that. RFC 5280, 3.3 and 5.2.4:
    /// before then its entry leaves neither complete nor delta CRLs.
    pub(super) fn has_listed(&self, serial: &Serial, end: u64, whole: Whole) -> bool {
        // In this order: a CRL is served before its entries count as listed.
        let is_listed = self.revoked(whole).is_listed(serial);
        is_listed && self.crl.load().as_ref().is_some_and(|crl| crl.this_update > end)
    }

    /// Whether a delta CRL is due: there is none for the complete one, or it is time, or revocations have waited long enough.
    pub(super) fn is_delta_due(&self, config: &CrlConfig, whole: Whole) -> bool {
        if config.disable || !config.enable_delta {
            return false;
        }
        let changes = self.revoked(whole).changes();
        let (Some(crl), now) = (self.crl.load_full(), validity::now()) else { return true };
        self.delta.load().as_ref().is_none_or(|delta| {
            let has_waited = now >= delta.this_update + config.delta_rebuild_interval.seconds;
            delta.number < crl.number || delta.is_aging(now) || (delta.changes != changes && has_waited)
        })
    }
}

/// All of them. Cheap to clone. Only ever grows: a signer whose issuer is gone may come back with it.
#[derive(Clone, Debug)]
pub(super) struct Crls(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    store: Store,
    records: Records,
    /// The path of the mount, for logs.
    mount: String,
    signers: ArcSwap<HashMap<SignerId, Arc<SignerCrl>>>,
    /// How far revocations are read.
    stage: watch::Sender<Stage>,
    /// No more is to be read: the mount is gone, or the daemon drains.
    is_over: AtomicBool,
}

impl Crls {
    /// Reads every signer's last CRL, and not yet what they revoked. Also those of signers whose issuer is gone: it may be
    /// imported again, and numbers of CRLs never come twice.
    pub(super) fn open(mount: &Mount, store: &Store, records: &Records) -> Result<Crls, Fault> {
        let crls = Crls(Arc::new(Shared {
            store: store.clone(),
            records: records.clone(),
            mount: mount.path.clone(),
            signers: ArcSwap::default(),
            stage: watch::Sender::new(Stage::Waiting),
            is_over: AtomicBool::new(false),
        }));
        // A signer has had an issuer, so there are not many.
        for name in store.list(records.namespace(), &records.collection("crls"), None, SIGNERS_MAX)? {
            crls.read_crls(&SignerId::from_record_name(name))?;
        }
        Ok(crls)
    }

    /// Reads the last CRLs of a signer. What they lack is known once its revocations are read.
    fn read_crls(&self, signer: &SignerId) -> Result<(), Fault> {
        let Shared { store, records, .. } = &*self.0;
        let Some(record) = store.get(&records.crl(signer))? else { return Ok(()) };
        let entry = self.of(signer);
        let crl = Crl::from_stored(&record)?;
        let mut number = crl.number;
        if let Some(record) = store.get(&records.delta_crl(signer))? {
            let delta = Crl::from_stored(&record)?;
            number = number.max(delta.number);
            entry.delta.store(Some(Arc::new(delta)));
        }
        entry.number.store(number, Ordering::Relaxed);
        entry.crl.store(Some(Arc::new(crl)));
        Ok(())
    }

    /// That of a signer, made if there was none.
    pub(super) fn of(&self, signer: &SignerId) -> Arc<SignerCrl> {
        if let Some(known) = self.0.signers.load().get(signer) {
            return Arc::clone(known);
        }
        let new = Arc::new(SignerCrl::default());
        let before = self.0.signers.rcu(|crls| {
            let mut crls = HashMap::clone(crls);
            crls.entry(signer.clone()).or_insert_with(|| Arc::clone(&new));
            crls
        });
        before.get(signer).cloned().unwrap_or(new)
    }

    /// When a certificate was revoked, in Unix seconds, whoever signed it.
    pub(super) fn time(&self, serial: &Serial) -> Result<Option<u64>, Fault> {
        match self.whole() {
            Some(whole) => Ok(self.0.signers.load().values().find_map(|crl| crl.revoked(whole).time(serial))),
            None => Ok(self.stored(serial)?.map(|revocation| revocation.time)),
        }
    }

    /// When this signer revoked a certificate, in Unix seconds.
    pub(super) fn time_by(&self, signer: &SignerId, serial: &Serial) -> Result<Option<u64>, Fault> {
        match self.whole() {
            Some(whole) => Ok(self.of(signer).revoked(whole).time(serial)),
            None => Ok(self.stored(serial)?.filter(|stored| stored.signer == *signer).map(|stored| stored.time)),
        }
    }

    /// A revocation is stored before memory has it, so the store knows no less.
    fn stored(&self, serial: &Serial) -> Result<Option<Revocation>, Fault> {
        self.0.store.read(&self.0.records.revocation(serial))
    }

    /// How many certificates are revoked.
    pub(super) fn len(&self, whole: Whole) -> usize {
        self.0.signers.load().values().map(|crl| crl.revoked(whole).len()).sum()
    }
}
