//! Keys in memory, for tests of everything above the token.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::crypto::SoftwareKey;
use crate::managed_keys::KeyRef;
use crate::model::{Class, Fault, KeyKind, KeyOperation, Terms};

/// Keys by name; a key's UUID is its name.
pub(super) struct Keyring {
    keys: HashMap<String, TestKey>,
}

/// A key, and what was done with it.
#[derive(Clone)]
pub(super) struct TestKey {
    pub(super) name: String,
    pub(super) pair: Arc<SoftwareKey>,
    pub(super) record: Arc<Record>,
}

/// What was done with a key, and what it does next.
#[derive(Default)]
pub(super) struct Record {
    pub(super) signatures: AtomicUsize,
    pub(super) control: AtomicUsize,
    pub(super) bulk: AtomicUsize,
    /// Answers a signature that is wrong.
    pub(super) lies: AtomicBool,
    /// Answers that the device is gone.
    pub(super) is_gone: AtomicBool,
    /// Takes what it is asked, and never answers.
    pub(super) hangs: AtomicBool,
    /// So many it has taken so.
    pub(super) held: AtomicUsize,
    /// Takes what it is asked, and answers this.
    pub(super) fails: Mutex<Option<Fault>>,
}

impl Keyring {
    /// A ring of keys of these kinds.
    pub(super) fn new(kinds: &[(&str, KeyKind)]) -> Keyring {
        let key = |(name, kind): &(&str, KeyKind)| {
            let pair = Arc::new(SoftwareKey::generate(*kind).expect("a key"));
            ((*name).to_owned(), TestKey { name: (*name).to_owned(), pair, record: Arc::default() })
        };
        Keyring { keys: kinds.iter().map(key).collect() }
    }

    /// The key of this name.
    pub(super) fn get(&self, name: &str) -> &TestKey {
        &self.keys[name]
    }

    pub(super) fn resolve(&self, key: KeyRef<'_>) -> Result<TestKey, Fault> {
        let (KeyRef::Name(name) | KeyRef::Uuid(name)) = key;
        let missing = || Fault::invalid(format!("no managed key found with name {name:?}"));
        self.keys.get(name).cloned().ok_or_else(missing)
    }
}

impl TestKey {
    /// Refuses, or answers at once, or never.
    pub(super) fn submit(&self, operation: &KeyOperation, terms: Terms) -> Result<Option<Result<Bytes, Fault>>, Fault> {
        if self.record.is_gone.load(Ordering::Relaxed) {
            return Err(Fault::KeyUnavailable { key: self.name.clone(), reason: "no member serves".into() });
        }
        let hangs = self.record.hangs.load(Ordering::Relaxed);
        self.record.held.fetch_add(usize::from(hangs), Ordering::Relaxed);
        Ok((!hangs).then(|| self.sign(operation, terms)))
    }

    fn sign(&self, operation: &KeyOperation, terms: Terms) -> Result<Bytes, Fault> {
        if let Some(fault) = self.record.fails.lock().clone() {
            return Err(fault);
        }
        self.record.signatures.fetch_add(1, Ordering::Relaxed);
        match terms.class {
            Class::Control => self.record.control.fetch_add(1, Ordering::Relaxed),
            Class::Bulk => self.record.bulk.fetch_add(1, Ordering::Relaxed),
            Class::Interactive => 0,
        };
        let mut signature = self.pair.perform(operation)?.to_vec();
        if self.record.lies.load(Ordering::Relaxed)
            && let Some(last) = signature.last_mut()
        {
            *last ^= 1;
        }
        Ok(signature.into())
    }
}
