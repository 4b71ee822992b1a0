//! Reading the revocations of a mount, behind requests: issuing needs none of them, and a million take seconds.
//!
//! Whatever needs all of them shows a [`Whole`], which there is from the moment the last one is in memory, and never before. So
//! nothing can be made of a part, and nothing adds or removes any while they are read. What could not be read is told and
//! tried again when the mount is next looked after; a few are read at once, and nobody waits.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use parking_lot::Mutex;

use super::{Crls, SignerCrl};
use crate::config::or_cores;
use crate::engine::pki::crl::Crl;
use crate::engine::pki::revocation::Revocation;
use crate::engine::pki::serial::Serial;
use crate::model::{Deadline, Fault};

/// Records read from the store at a time. As many as are read at once, where there are no more.
const STEP: usize = 4096;
/// Threads that read, at the most: half of the cores, since others have work to do.
const THREADS: usize = 8;

/// That every revocation of a mount is in memory: there is no other way to come by one.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine::pki) struct Whole(());

/// How far they are read.
#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// Nobody has begun.
    Waiting,
    Reading,
    /// It is to be begun again.
    Failed(Fault),
    Whole,
}

/// One attempt at reading them. Dropped without an end, as by a panic, it has failed.
struct Attempt {
    crls: Crls,
    begun: Instant,
    is_ended: bool,
}

/// Up to where the names of records are taken.
#[derive(Default)]
struct Cursor {
    after: Option<String>,
    is_at_the_end: bool,
}

impl Crls {
    /// That all are read, if so.
    pub(in crate::engine::pki) fn whole(&self) -> Option<Whole> {
        matches!(*self.0.stage.borrow(), Stage::Whole).then_some(Whole(()))
    }

    /// Waits until all are read.
    pub(in crate::engine::pki) async fn whole_by(&self, deadline: Deadline) -> Result<Whole, Fault> {
        let mut stage = self.0.stage.subscribe();
        let settled = stage.wait_for(|stage| matches!(stage, Stage::Whole | Stage::Failed(_)));
        match tokio::time::timeout_at(deadline.instant().into(), settled).await {
            Ok(Ok(stage)) => match &*stage {
                Stage::Failed(fault) => Err(Fault::Unavailable {
                    what: format!(
                        "the revocations of the mount could not be read ({fault}); it is tried again within a minute"
                    ),
                }),
                _ => Ok(Whole(())),
            },
            Ok(Err(_)) => Err(Fault::internal("nobody reads the revocations of the mount")),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "reading the revocations of the mount" }),
        }
    }

    /// Begins to read them, unless they are being read, or are. Few are read here and now, blocking; many on other threads.
    pub(in crate::engine::pki) fn begin(&self) {
        let begin = |stage: &mut Stage| {
            let is_due = matches!(stage, Stage::Waiting | Stage::Failed(_));
            if is_due {
                *stage = Stage::Reading;
            }
            is_due
        };
        if self.0.is_over.load(Ordering::Relaxed) || !self.0.stage.send_if_modified(begin) {
            return;
        }
        let attempt = Attempt { crls: self.clone(), begun: Instant::now(), is_ended: false };
        match self.are_few() {
            Ok(true) => attempt.run(1),
            Ok(false) => {
                let read = move || attempt.run((or_cores(0) / 2).clamp(1, THREADS));
                // One that does not start drops the attempt, which says so.
                let _ = std::thread::Builder::new().name("revocations".into()).spawn(read);
            }
            Err(fault) => attempt.end(Err(fault)),
        }
    }

    /// Reads no more: the mount is gone, or the daemon drains.
    pub(in crate::engine::pki) fn stop(&self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }

    fn are_few(&self) -> Result<bool, Fault> {
        let names = self.0.store.list(self.0.records.namespace(), &self.0.records.collection("revoked"), None, STEP)?;
        Ok(names.len() < STEP)
    }

    /// Reads all, each thread one part after the other. Those that an attempt before this one read stay as they are.
    fn read(&self, threads: usize) -> Result<(), Fault> {
        let cursor = Mutex::default();
        std::thread::scope(|scope| {
            let others: Vec<_> = (1..threads).map(|_| scope.spawn(|| self.read_parts(&cursor))).collect();
            let outcome = self.read_parts(&cursor);
            others.into_iter().fold(outcome, |outcome, thread| {
                outcome.and(thread.join().unwrap_or_else(|_| Err(Fault::internal("reading revocations panicked"))))
            })
        })?;
        self.0.signers.load().values().for_each(|own| own.compare());
        Ok(())
    }

    fn read_parts(&self, cursor: &Mutex<Cursor>) -> Result<(), Fault> {
        let (namespace, collection) = (self.0.records.namespace(), self.0.records.collection("revoked"));
        while let Some(after) = self.take_part(cursor)? {
            if self.0.is_over.load(Ordering::Relaxed) {
                return Err(Fault::Unavailable { what: "the mount is going down".into() });
            }
            let part = self.0.store.read_all::<Revocation>(namespace, &collection, after.as_deref(), STEP)?;
            for same in part.chunk_by(|(_, one), (_, next)| one.signer == next.signer) {
                self.add(same)?;
            }
        }
        Ok(())
    }

    /// The name that the next part comes after; `None` if all are taken. To find where a part ends costs little beside
    /// reading it: names are not decrypted.
    fn take_part(&self, cursor: &Mutex<Cursor>) -> Result<Option<Option<String>>, Fault> {
        let mut cursor = cursor.lock();
        if cursor.is_at_the_end {
            return Ok(None);
        }
        // Whatever the others do if this fails, they do not read it in vain.
        cursor.is_at_the_end = true;
        let (namespace, collection) = (self.0.records.namespace(), self.0.records.collection("revoked"));
        let names = self.0.store.list(namespace, &collection, cursor.after.as_deref(), STEP)?;
        cursor.is_at_the_end = names.len() < STEP;
        let after = cursor.after.take();
        cursor.after = names.last().cloned();
        Ok((!names.is_empty()).then_some(after))
    }

    /// Adds what one signer revoked; locks once for all of it.
    fn add(&self, same: &[(String, Revocation)]) -> Result<(), Fault> {
        let Some((_, first)) = same.first() else { return Ok(()) };
        let own = self.of(&first.signer);
        let mut revoked = own.revoked.lock();
        for (name, revocation) in same {
            let odd = || Fault::internal(format!("the revocation of {name:?} is of no serial number"));
            revoked.add(Serial::parse(name).ok_or_else(odd)?, revocation.time)?;
        }
        Ok(())
    }
}

impl SignerCrl {
    /// Finds out what the last CRLs lack of what was read.
    fn compare(&self) {
        let Some(crl) = self.crl.load_full() else { return };
        let mut revoked = self.revoked.lock();
        let changes = revoked.compare(crl.entries, crl.this_update);
        if let Some(delta) = self.delta.load_full() {
            let changes = if delta.entries == revoked.since() { revoked.changes() } else { changes };
            self.delta.store(Some(Arc::new(Crl { changes, ..Crl::clone(&delta) })));
        }
        self.crl.store(Some(Arc::new(Crl { changes, ..Crl::clone(&crl) })));
    }
}

impl Attempt {
    fn run(self, threads: usize) {
        let outcome = self.crls.read(threads);
        self.end(outcome);
    }

    fn end(mut self, outcome: Result<(), Fault>) {
        self.is_ended = true;
        self.tell(outcome);
    }

    fn tell(&self, outcome: Result<(), Fault>) {
        let shared = &self.crls.0;
        let (mount, namespace) = (&shared.mount, shared.records.namespace());
        match &outcome {
            Ok(()) => {
                let (count, milliseconds) = (self.crls.len(Whole(())), self.begun.elapsed().as_millis() as u64);
                tracing::debug!(%mount, %namespace, count, milliseconds, "revocations read");
            }
            Err(_) if shared.is_over.load(Ordering::Relaxed) => {}
            Err(fault) => tracing::error!(
                %mount, %namespace, %fault,
                "the revocations of a mount could not be read: it issues certificates and answers for single ones, but makes no \
                 CRLs, revokes and tidies nothing; it is tried again within a minute"
            ),
        }
        shared.stage.send_replace(outcome.map_or_else(Stage::Failed, |()| Stage::Whole));
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        if !self.is_ended {
            self.tell(Err(Fault::internal("the thread that reads revocations did not start, or panicked")));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Storage;
    use crate::engine::pki::ca_certificate::SignerId;
    use crate::engine::pki::records::Records;
    use crate::model::{Mount, MountConfig, Namespace};
    use crate::store::{Ephemeral, Store, Versioned, Write};

    fn empty() -> Crls {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let mount = Mount {
            namespace: Namespace::root(),
            path: "pki/".into(),
            engine: "pki".into(),
            uuid: "u".into(),
            accessor: "a".into(),
            description: String::new(),
            options: Default::default(),
            config: MountConfig::default(),
        };
        Crls::open(&mount, &store, &Records::new(&mount)).unwrap()
    }

    fn signer(name: &str) -> SignerId {
        SignerId::from_record_name(name.into())
    }

    fn serial(number: u32) -> Serial {
        Serial::from_bytes(&[&[0x3F; 4][..], &number.to_be_bytes()].concat()).unwrap()
    }

    impl Crls {
        fn store_some(&self, serials: &[Serial], signer: &SignerId) {
            let write = |serial: &Serial| {
                let revocation = Revocation { time: 7, issuer: "i".into(), signer: signer.clone(), not_after: None };
                Write::put_record(self.0.records.revocation(serial), &revocation).unwrap()
            };
            for some in serials.chunks(1000) {
                self.0.store.commit_now(some.iter().map(write).collect()).unwrap();
            }
        }

        async fn settled(&self) -> Result<Whole, Fault> {
            self.whole_by(Deadline::after(Duration::from_secs(60))).await
        }
    }

    #[test]
    fn each_of_many_is_read_once_whatever_its_number_and_by_however_many_threads() {
        let (crls, signer) = (empty(), signer("s"));
        // Short ones, and those on the bounds of each part; then more than one step has.
        let edges = (1..=255_u8).flat_map(|first| [vec![first], vec![first, 0], vec![first, 0xFF]]);
        let edges = edges.map(|bytes| Serial::from_bytes(&bytes).unwrap());
        let mut all: Vec<Serial> = edges.chain((0..STEP as u32).map(serial)).collect();
        crls.store_some(&all, &signer);
        all.sort();
        all.dedup();
        // Again over what is read: as after one that failed.
        for threads in [1, 2, THREADS, 3] {
            crls.read(threads).unwrap();
            let (count, of_signer) = (all.len(), crls.of(&signer));
            let revoked = of_signer.revoked.lock();
            assert_eq!((revoked.len(), revoked.entries().count, revoked.changes()), (count, count, count as u64));
            assert!(all.iter().all(|serial| revoked.time(serial) == Some(7)));
        }
    }

    #[tokio::test]
    async fn few_are_read_at_once_and_many_behind_whoever_begins() {
        let crls = empty();
        assert!(crls.whole().is_none());
        crls.store_some(&[serial(1)], &signer("s"));
        crls.begin();
        assert_eq!(crls.len(crls.whole().unwrap()), 1);
        let crls = empty();
        crls.store_some(&(0..2 * STEP as u32).map(serial).collect::<Vec<_>>(), &signer("s"));
        crls.begin();
        crls.begin();
        assert_eq!(crls.len(crls.settled().await.unwrap()), 2 * STEP);
    }

    #[tokio::test]
    async fn before_they_are_read_the_store_is_asked_and_says_who_revoked() {
        let (crls, own, other) = (empty(), signer("own"), signer("other"));
        crls.store_some(&[serial(1)], &own);
        let told = |crls: &Crls| {
            [(&own, 1), (&other, 1), (&own, 2)].map(|(signer, number)| crls.time_by(signer, &serial(number)).unwrap())
        };
        assert_eq!((told(&crls), crls.time(&serial(1)).unwrap()), ([Some(7), None, None], Some(7)));
        crls.begin();
        assert!(crls.whole().is_some());
        assert_eq!((told(&crls), crls.time(&serial(1)).unwrap()), ([Some(7), None, None], Some(7)));
    }

    #[tokio::test]
    async fn what_fails_is_told_to_all_who_wait_and_can_be_tried_again() {
        let crls = empty();
        crls.store_some(&[serial(1)], &signer("s"));
        let place = crls.0.records.revocation(&serial(2));
        let unread = Write::Put { key: place.clone(), version: Revocation::VERSION + 1, value: b"{}".to_vec() };
        crls.0.store.commit_now(vec![unread]).unwrap();
        let waiting = tokio::spawn({
            let crls = crls.clone();
            async move { crls.settled().await }
        });
        crls.begin();
        assert!(crls.whole().is_none());
        for outcome in [waiting.await.unwrap(), crls.settled().await] {
            let told = outcome.unwrap_err();
            assert!(told.retryable() && told.to_string().contains("run the version that wrote it"), "{told}");
        }
        crls.0.store.commit_now(vec![Write::Delete { key: place }]).unwrap();
        crls.begin();
        assert_eq!(crls.len(crls.settled().await.unwrap()), 1);
    }

    #[tokio::test]
    async fn whoever_waits_waits_no_longer_than_it_may_and_one_that_was_stopped_begins_no_more() {
        let crls = empty();
        let late = crls.whole_by(Deadline::after(Duration::ZERO)).await;
        assert!(matches!(late, Err(Fault::DeadlineExceeded { .. })));
        crls.stop();
        crls.begin();
        assert!(crls.whole().is_none());
        // A thread that ends by a panic has failed.
        crls.0.stage.send_replace(Stage::Reading);
        drop(Attempt { crls: crls.clone(), begun: Instant::now(), is_ended: false });
        assert!(matches!(crls.settled().await, Err(Fault::Unavailable { .. })));
    }
}
