//! Rotating the keys of a store: a new term, a new root key, and the records of old terms encrypted anew behind requests.
//!
//! A term is durable before anything is encrypted in it. Once it is current, and what was begun in older ones is durable, nothing
//! more comes to be in those: whoever walks all records once then has found them all. A record is replaced only while it is
//! still what was read, which the writer compares. Then the old keys go, but those of records that did not open (`passed.rs`).

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::MutexGuard;

use super::barrier::{ROOT_KEY_BYTES, random};
use super::keyring::Keyring;
use super::name;
use super::passed::Passed;
use super::physical::Change;
use super::records::{Inner, Store};
use super::seal::StoredSeal;
use crate::model::{Fault, Secret};

/// Records looked at in a step; those of older terms among them, and their bytes, before it ends.
const STEP_LOOKS: usize = 16_384;
const STEP_RECORDS: usize = 256;
const STEP_BYTES: usize = 4 << 20;

/// What is known of the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyStatus {
    /// The term that records are encrypted in, from 0.
    pub term: u32,
    /// When it began, in seconds since 1970; 0 for the first.
    pub installed: u64,
    /// Records encrypted in it since the store was opened.
    pub encryptions: u64,
    /// Terms that records may still be under.
    pub old_terms: Vec<u32>,
    /// Records that were encrypted anew since the store was opened.
    pub reencrypted: u64,
    /// Records that did not open when all were last walked over, for which the old terms are kept.
    pub damaged: u64,
}

/// Where a walk over all records goes on. It begins with the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cursor(Vec<u8>);

/// What a step of the walk came to.
#[derive(Debug, Default)]
pub struct Step {
    /// Where to go on; `None` at the end.
    pub next: Option<Cursor>,
    /// What it could not encrypt anew.
    pub passed: Passed,
}

impl Store {
    /// Begins a term: records are encrypted under a new key from now on. Answers its number. Blocks for the disk.
    pub fn rotate(&self) -> Result<u32, Fault> {
        let inner = self.inner();
        let _one_at_a_time = inner.sure_of_root()?;
        let barrier = inner.barrier()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let next = barrier.keyring().with_next(now)?;
        let number = next.current()?.number;
        let value = next.seal(&barrier.root_key())?;
        inner.submit_and_wait(vec![Change::Put { key: name::KEYRING.to_vec(), value }])?;
        barrier.install(next)?;
        Ok(number)
    }

    /// Makes a new root key, wrapped by the seal, and encrypts the keyring under it: in one commit. Records need not change.
    /// Blocks for the disk, and for as long as the seal takes.
    pub fn rotate_root(&self) -> Result<(), Fault> {
        let inner = self.inner();
        let mut in_doubt = inner.sure_of_root()?;
        let barrier = inner.barrier()?;
        let mut bytes = zeroize::Zeroizing::new([0; ROOT_KEY_BYTES]);
        random(&mut *bytes)?;
        let root_key = Secret::new(&bytes[..]);
        let wrapped = inner.wrap.wrap_again(&root_key, inner)?;
        // Before the old one is gone.
        if inner.wrap.open(&wrapped, inner)?.expose() != root_key.expose() {
            return Err(Fault::Unavailable {
                what: "the seal does not open what it wrapped: nothing was changed".into(),
            });
        }
        let seal = StoredSeal::encode(inner.wrap.kind(), &wrapped)?;
        let keyring = barrier.keyring().seal(&root_key)?;
        // Until it is known which of the two is kept, nothing may be encrypted under either.
        *in_doubt = true;
        let done = inner.submit_and_wait(vec![
            Change::Put { key: name::SEAL.to_vec(), value: seal.clone() },
            Change::Put { key: name::KEYRING.to_vec(), value: keyring },
        ]);
        // A disk that failed may have written it all the same.
        let is_kept = done.is_ok() || inner.physical.get(name::SEAL)?.as_ref() == Some(&seal);
        *in_doubt = false;
        if is_kept {
            barrier.replace_root(root_key);
        }
        done
    }

    /// What is known of the keys.
    pub fn key_status(&self) -> Result<KeyStatus, Fault> {
        let barrier = self.inner().barrier()?;
        let keyring = barrier.keyring();
        let current = keyring.current()?;
        Ok(KeyStatus {
            term: current.number,
            installed: current.installed,
            encryptions: barrier.encryptions(),
            old_terms: keyring
                .terms
                .iter()
                .map(|term| term.number)
                .filter(|number| *number != current.number)
                .collect(),
            reencrypted: self.inner().reencrypted.load(Ordering::Relaxed),
            damaged: self.inner().damaged.load(Ordering::Relaxed),
        })
    }

    /// Waits until what was begun in older terms is durable, so that a walk that begins now finds all of it. Blocks.
    pub fn settle_terms(&self) -> Result<(), Fault> {
        let inner = self.inner();
        // Whoever came before the new term could be read has queued its change then.
        inner.encrypting.wait();
        // What was queued before is written before.
        inner.submit_and_wait(Vec::new())
    }

    /// Encrypts some records of older terms anew, from the cursor on; passes those that do not open. Blocks.
    pub fn reencrypt(&self, from: &Cursor) -> Result<Step, Fault> {
        let inner = self.inner();
        let barrier = inner.barrier()?;
        let (mut step, mut old) = (Step::default(), Vec::new());
        let (begin, until) = name::everything();
        let begin = if from.0.is_empty() { begin } else { from.0.clone() };
        let (mut seen, mut bytes) = (0, 0);
        inner.physical.scan(&begin, &until, &mut |entry, sealed| {
            if seen >= STEP_LOOKS || old.len() >= STEP_RECORDS || bytes >= STEP_BYTES {
                step.next = Some(Cursor(entry.to_vec()));
                return ControlFlow::Break(());
            }
            seen += 1;
            if !barrier.is_current(sealed) {
                bytes += sealed.len();
                old.push((entry.to_vec(), sealed.to_vec()));
            }
            ControlFlow::Continue(())
        })?;
        let mut changes = Vec::with_capacity(old.len());
        for (key, expected) in old {
            match barrier.open(&key, &expected)? {
                Some(record) => {
                    let value = barrier.seal(&key, record.version, record.value)?;
                    changes.push(Change::Replace { key, expected, value });
                }
                None => step.passed.add(key, barrier.old_term_of(&expected)),
            }
        }
        if !changes.is_empty() {
            let count = changes.len() as u64;
            inner.submit_and_wait(changes)?;
            inner.reencrypted.fetch_add(count, Ordering::Relaxed);
        }
        Ok(step)
    }

    /// Ends a walk that began in `term` and has passed these: forgets the keys of the terms before, under which no record is any
    /// more, but keeps those of what was passed; unless another term has begun meanwhile. Answers whether that was so. Blocks for
    /// the disk.
    pub fn drop_terms_before(&self, term: u32, passed: &Passed) -> Result<bool, Fault> {
        let inner = self.inner();
        let _one_at_a_time = inner.sure_of_root()?;
        let barrier = inner.barrier()?;
        let keyring = barrier.keyring();
        if keyring.current()?.number != term {
            return Ok(false);
        }
        let left: Keyring = keyring.keeping(|old| passed.needs(old))?;
        if left.terms.len() < keyring.terms.len() {
            let value = left.seal(&barrier.root_key())?;
            inner.submit_and_wait(vec![Change::Put { key: name::KEYRING.to_vec(), value }])?;
            barrier.install(left)?;
        }
        inner.damaged.store(passed.count(), Ordering::Relaxed);
        Ok(true)
    }

    /// Whether one of the records that a walk has passed is gone, or opens now, so that another walk may find that a key is needed
    /// no more. Blocks for the disk.
    pub fn is_any_mended(&self, passed: &Passed) -> Result<bool, Fault> {
        let inner = self.inner();
        let barrier = inner.barrier()?;
        for entry in passed.entries() {
            let Some(sealed) = inner.physical.get(entry)? else { return Ok(true) };
            if barrier.is_current(&sealed) || barrier.open(entry, &sealed)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn inner(&self) -> &Inner {
        self.inner_ref()
    }
}

impl Inner {
    /// To be held while the keyring or the root key changes. Refused where it is not known which root key is kept.
    fn sure_of_root(&self) -> Result<MutexGuard<'_, bool>, Fault> {
        let in_doubt = self.rotating.lock();
        if *in_doubt {
            let what =
                "the disk failed while the root key was replaced: seal and unseal, or restart, before keys are rotated";
            return Err(Fault::Unavailable { what: what.to_owned() });
        }
        Ok(in_doubt)
    }
}
