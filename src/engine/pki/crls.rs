//! The revocations and the CRL of each signer of a mount, found by who signed.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::ca_certificate::SignerId;
use super::crl::Crl;
use super::crl_config::CrlConfig;
use super::rebuild::Rebuild;
use super::records::Records;
use super::revocation::Revocation;
use super::revoked::Revoked;
use super::serial::Serial;
use super::validity;
use crate::config::or_cores;
use crate::model::Fault;
use crate::store::Store;

/// Records read from the store at a time when a mount starts.
const LOAD_STEP: usize = 4096;
/// Threads that read revocations, at the most.
const LOAD_THREADS: usize = 8;
/// Signers whose CRLs are read: all that a mount can come to have in practice.
const SIGNERS_MAX: usize = 100_000;

/// What one signer revoked, and its CRL.
#[derive(Debug, Default)]
pub(super) struct SignerCrl {
    pub(super) revoked: Mutex<Revoked>,
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
    /// A number never used before, even by a CRL whose making failed half-way.
    pub(super) fn next_number(&self) -> u64 {
        self.number.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Whether a complete CRL is due: there is none, or it is time, or it lacks a revocation that it need not wait with.
    pub(super) fn is_due(&self, config: &CrlConfig) -> bool {
        if config.disable {
            return false;
        }
        let changes = self.revoked.lock().changes();
        let (crl, now) = (self.crl.load(), validity::now());
        crl.as_ref().is_none_or(|crl| match config.auto_rebuild {
            true => now + config.auto_rebuild_grace_period.seconds >= crl.next_update,
            false => crl.is_aging(now) || crl.changes != changes,
        })
    }

    /// Whether a certificate that ended at `end` (Unix seconds) is on a complete CRL made after that. RFC 5280, 3.3 and 5.2.4:
    /// before then its entry leaves neither complete nor delta CRLs.
    pub(super) fn has_listed(&self, serial: &Serial, end: u64) -> bool {
        // In this order: a CRL is served before its entries count as listed.
        let is_listed = self.revoked.lock().is_listed(serial);
        is_listed && self.crl.load().as_ref().is_some_and(|crl| crl.this_update > end)
    }

    /// Whether a delta CRL is due: there is none for the complete one, or it is time, or revocations have waited long enough.
    pub(super) fn is_delta_due(&self, config: &CrlConfig) -> bool {
        if config.disable || !config.enable_delta {
            return false;
        }
        let changes = self.revoked.lock().changes();
        let (Some(crl), now) = (self.crl.load_full(), validity::now()) else { return true };
        self.delta.load().as_ref().is_none_or(|delta| {
            let has_waited = now >= delta.this_update + config.delta_rebuild_interval.seconds;
            delta.number < crl.number || delta.is_aging(now) || (delta.changes != changes && has_waited)
        })
    }
}

/// All of them. Only ever grows: a signer whose issuer is gone may come back with it.
#[derive(Debug, Default)]
pub(super) struct Crls(ArcSwap<HashMap<SignerId, Arc<SignerCrl>>>);

impl Crls {
    /// That of a signer, made if there was none.
    pub(super) fn of(&self, signer: &SignerId) -> Arc<SignerCrl> {
        if let Some(known) = self.0.load().get(signer) {
            return Arc::clone(known);
        }
        let new = Arc::new(SignerCrl::default());
        let before = self.0.rcu(|crls| {
            let mut crls = HashMap::clone(crls);
            crls.entry(signer.clone()).or_insert_with(|| Arc::clone(&new));
            crls
        });
        before.get(signer).cloned().unwrap_or(new)
    }

    /// When a certificate was revoked, in Unix seconds, whoever signed it.
    pub(super) fn time(&self, serial: &Serial) -> Option<u64> {
        self.0.load().values().find_map(|crl| crl.revoked.lock().time(serial))
    }

    /// How many certificates are revoked.
    pub(super) fn len(&self) -> usize {
        self.0.load().values().map(|crl| crl.revoked.lock().len()).sum()
    }

    /// Reads every revocation and every signer's last CRL. Also those of signers whose issuer is gone: it may be imported
    /// again, and numbers of CRLs never come twice.
    pub(super) fn load(store: &Store, records: &Records) -> Result<Crls, Fault> {
        let crls = Crls::default();
        crls.load_revocations(store, records)?;
        // A signer has had an issuer, so there are not many.
        for name in store.list(records.namespace(), &records.collection("crls"), None, SIGNERS_MAX)? {
            crls.load_crl(&SignerId::from_record_name(name), store, records)?;
        }
        Ok(crls)
    }

    /// Reads revocations, many of them on several threads, each its part of the serial numbers.
    fn load_revocations(&self, store: &Store, records: &Records) -> Result<(), Fault> {
        let (collection, parts) = (records.collection("revoked"), or_cores(0).clamp(1, LOAD_THREADS));
        if store.list(records.namespace(), &collection, None, LOAD_STEP)?.len() < LOAD_STEP {
            return self.load_part(store, records, None, None);
        }
        // The names of records are hexadecimal: of two digits and a `g`, none comes between these and the next number.
        let bound = |part: usize| (part > 0 && part < parts).then(|| format!("{:02x}g", part * 0x100 / parts - 1));
        std::thread::scope(|scope| {
            let load = |part| move || self.load_part(store, records, bound(part), bound(part + 1));
            let threads: Vec<_> = (0..parts).map(|part| scope.spawn(load(part))).collect();
            threads.into_iter().try_for_each(|thread| {
                thread.join().unwrap_or_else(|_| Err(Fault::internal("reading revocations panicked")))
            })
        })
    }

    /// Reads those whose records' names are above `last` and not above `end`.
    fn load_part(
        &self,
        store: &Store,
        records: &Records,
        mut last: Option<String>,
        end: Option<String>,
    ) -> Result<(), Fault> {
        let collection = records.collection("revoked");
        let mut of: Option<(SignerId, Arc<SignerCrl>)> = None;
        loop {
            let step = store.read_all::<Revocation>(records.namespace(), &collection, last.as_deref(), LOAD_STEP)?;
            last = step.last().map(|(name, _)| name.clone());
            for (name, Revocation { signer, time, .. }) in step {
                if end.as_ref().is_some_and(|end| name > *end) {
                    return Ok(());
                }
                let odd = || Fault::internal(format!("the revocation of {name:?} is of no serial number"));
                let serial = Serial::parse(&name).ok_or_else(odd)?;
                if of.as_ref().is_none_or(|(known, _)| *known != signer) {
                    of = Some((signer.clone(), self.of(&signer)));
                }
                if let Some((_, own)) = &of {
                    own.revoked.lock().add(serial, time)?;
                }
            }
            if last.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads the last CRLs of a signer. Revocations are read before.
    fn load_crl(&self, signer: &SignerId, store: &Store, records: &Records) -> Result<(), Fault> {
        let Some(record) = store.get(&records.crl(signer))? else { return Ok(()) };
        let entry = self.of(signer);
        let mut crl = Crl::from_stored(&record)?;
        crl.changes = entry.revoked.lock().compare(crl.entries, crl.this_update);
        let mut number = crl.number;
        if let Some(record) = store.get(&records.delta_crl(signer))? {
            let mut delta = Crl::from_stored(&record)?;
            number = number.max(delta.number);
            let revoked = entry.revoked.lock();
            delta.changes = if delta.entries == revoked.since() { revoked.changes() } else { crl.changes };
            drop(revoked);
            entry.delta.store(Some(Arc::new(delta)));
        }
        entry.number.store(number, Ordering::Relaxed);
        entry.crl.store(Some(Arc::new(crl)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Pace, Storage};
    use crate::model::Namespace;
    use crate::store::{Ephemeral, Write};

    #[test]
    fn each_of_many_revocations_is_read_once_whatever_its_number() {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap()), Pace::Prompt).unwrap();
        store.initialize().unwrap();
        let records = Records::of(&Namespace::root(), "u");
        let signer = SignerId::from_record_name("s".into());
        // Short ones, and those on the bounds of each part; then more than one step has.
        let edges = (1..=255_u8).flat_map(|first| [vec![first], vec![first, 0], vec![first, 0xFF]]);
        let long = (0..LOAD_STEP as u32).map(|number| [&[0x3F; 4][..], &number.to_be_bytes()].concat());
        let mut all: Vec<Serial> = edges.chain(long).map(|bytes| Serial::from_bytes(&bytes).unwrap()).collect();
        for some in all.chunks(1000) {
            let write = |serial: &Serial| {
                let revocation = Revocation { time: 7, issuer: "i".into(), signer: signer.clone(), not_after: None };
                Write::put_record(records.revocation(serial), &revocation).unwrap()
            };
            store.commit_now(some.iter().map(write).collect()).unwrap();
        }
        all.sort();
        all.dedup();
        let crls = Crls::load(&store, &records).unwrap();
        let of_signer = crls.of(&signer);
        let (count, revoked) = (all.len(), of_signer.revoked.lock());
        assert_eq!((revoked.len(), revoked.entries().count, revoked.changes()), (count, count, count as u64));
        drop(revoked);
        assert!(all.iter().all(|serial| crls.time(serial) == Some(7)));
    }
}
