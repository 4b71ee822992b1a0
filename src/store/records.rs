//! The store as the other rooms hold it: clear records in and out, encrypted on the way.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::barrier::{Barrier, ROOT_KEY_BYTES, random};
use super::keyring::Keyring;
use super::name;
use super::passage::Passage;
use super::physical::{Change, NotQueued, Physical, Refused, Stats, Transaction, Verdict, WhenFull, closed};
use super::place::{Place, Unopened};
use super::seal::{RootKeyWrap, SealNotes, StoredSeal};
use super::{Record, RecordKey, Write};
use crate::config;
use crate::model::{Fault, Namespace, Secret};

/// The largest value of a record, in bytes: a CRL of six million entries.
pub const VALUE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// The most writes of one commit.
pub const COMMIT_WRITES_MAX: usize = 10_000;

/// When to come again to a full queue: about what the disk takes for a group.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Is shown a record's name in its collection, its key in the physical store, and its stored form.
type Show<'s> = dyn FnMut(&str, &[u8], &[u8]) -> Result<(), Fault> + 's;

/// A handle on the store; clones are handles on the same one. When the last is dropped, the store is closed.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What the handles share.
pub(super) struct Inner {
    pub(super) physical: Box<dyn Physical>,
    pub(super) wrap: Arc<dyn RootKeyWrap>,
    /// Whose place it takes.
    former: Option<Arc<dyn RootKeyWrap>>,
    /// There while the root key is known.
    barrier: ArcSwapOption<Barrier>,
    /// Its keys were wiped: it is of no more use.
    sealed: AtomicBool,
    initializing: Mutex<()>,
    /// Held while the keyring or the root key changes. Set while it is not known which root key is kept.
    pub(super) rotating: Mutex<bool>,
    /// Whoever encrypts changes is inside until they are queued. Some wait there for room, and threads that others wait for come
    /// as well: so who waits for all of them must not stand in the way of those.
    pub(super) encrypting: Passage,
    /// Records that were encrypted anew.
    pub(super) reencrypted: AtomicU64,
    /// Records that did not open when all were last to be.
    pub(super) damaged: AtomicU64,
}

impl Store {
    /// Opens what the configuration names and, if it is initialised, its root key. Refused, and nothing changed, if the
    /// file is damaged or open elsewhere, or if the seal does not open the root key.
    pub fn open(storage: &config::Storage, wrap: Box<dyn RootKeyWrap>) -> Result<Store, Fault> {
        Place::new(storage, wrap).open().map_err(Unopened::into_fault)
    }

    pub(super) fn over(
        physical: Box<dyn Physical>,
        wrap: Arc<dyn RootKeyWrap>,
        former: Option<Arc<dyn RootKeyWrap>>,
    ) -> Result<Store, Unopened> {
        let inner = Inner {
            physical,
            wrap,
            former,
            barrier: ArcSwapOption::empty(),
            sealed: AtomicBool::new(false),
            initializing: Mutex::new(()),
            rotating: Mutex::new(false),
            encrypting: Passage::default(),
            reencrypted: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        };
        inner.open_barrier()?;
        Ok(Store { inner: Arc::new(inner) })
    }

    /// Whether there is a root key.
    pub fn is_initialized(&self) -> bool {
        self.inner.barrier.load().is_some()
    }

    /// The kind of seal that guards the root key: `file`.
    pub fn seal_kind(&self) -> &'static str {
        self.inner.wrap.kind()
    }

    /// The kind of storage, as Vault names it: `redb`, `inmem`.
    pub fn storage_kind(&self) -> &'static str {
        self.inner.physical.kind()
    }

    /// Makes the root key, has the seal wrap it and stores the wrapping. Blocks for the disk. A second call is refused.
    pub fn initialize(&self) -> Result<(), Fault> {
        let _one_at_a_time = self.inner.initializing.lock();
        // An earlier attempt may have been told that the disk failed, and yet have been written.
        if self.is_initialized() || self.inner.open_barrier().map_err(Unopened::into_fault)? {
            return Err(already_initialized());
        }
        let mut bytes = zeroize::Zeroizing::new([0; ROOT_KEY_BYTES]);
        random(&mut *bytes)?;
        let root_key = Secret::new(&bytes[..]);
        let barrier = Barrier::new(&root_key)?;
        let stored = StoredSeal::encode(self.inner.wrap.kind(), &self.inner.wrap.wrap(&root_key, &*self.inner)?)?;
        self.inner.submit_and_wait(vec![Change::Create { key: name::SEAL.to_vec(), value: stored }])?;
        self.inner.barrier.store(Some(Arc::new(barrier)));
        Ok(())
    }

    /// One record. Blocks for the disk if it is not cached.
    pub fn get(&self, key: &RecordKey) -> Result<Option<Record>, Fault> {
        let barrier = self.inner.barrier()?;
        let entry = name::encode(key)?;
        let Some(sealed) = self.inner.physical.get(&entry)? else { return Ok(None) };
        barrier.open(&entry, &sealed)?.ok_or_else(|| altered(key)).map(Some)
    }

    /// Names in a collection, sorted by their bytes: at most `limit`, from the first one after `after`.
    pub fn list(
        &self,
        namespace: &Namespace,
        collection: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, Fault> {
        self.inner.barrier()?;
        let mut names = Vec::new();
        self.inner.visit(namespace, collection, after, limit, &mut |name, _, _| {
            names.push(name.to_owned());
            Ok(())
        })?;
        Ok(names)
    }

    /// Records of a collection with their names, in the order and bounds of [`Store::list`].
    pub fn scan(
        &self,
        namespace: &Namespace,
        collection: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, Record)>, Fault> {
        let barrier = self.inner.barrier()?;
        let mut records = Vec::new();
        self.inner.visit(namespace, collection, after, limit, &mut |name, entry, sealed| {
            let altered = || altered(&RecordKey::new(namespace, collection, name));
            let record = barrier.open(entry, sealed)?.ok_or_else(altered)?;
            records.push((name.to_owned(), record));
            Ok(())
        })?;
        Ok(records)
    }

    /// Those collections of a namespace that have records and begin with `prefix`, sorted: at most `limit`. So whoever
    /// removes a mount finds all that is its own.
    pub fn collections(&self, namespace: &Namespace, prefix: &str, limit: usize) -> Result<Vec<String>, Fault> {
        self.inner.barrier()?;
        let mut from = name::collections(namespace, prefix)?;
        let until = name::after_prefix(&from);
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(key) = self.inner.first(&from, &until)? else { break };
            from = name::after_prefix(&name::collection(namespace, &key.collection)?);
            found.push(key.collection);
        }
        Ok(found)
    }

    /// The namespaces that have records, sorted: at most `limit`. Costs one look into the store for each.
    pub fn namespaces(&self, limit: usize) -> Result<Vec<Namespace>, Fault> {
        self.inner.barrier()?;
        let (mut from, until) = name::everything();
        let mut found = Vec::new();
        while found.len() < limit {
            let Some(key) = self.inner.first(&from, &until)? else { break };
            from = name::after_prefix(&name::collections(&key.namespace, "")?);
            found.push(key.namespace);
        }
        Ok(found)
    }

    /// Writes together or not at all, in order. The future resolves when they are durable, and need not be awaited for
    /// them to happen. Refused at once if too many wait ([`Fault::Overloaded`]).
    ///
    /// Encrypts on the calling thread: the writer's thread is the one that all commits share.
    pub fn commit(&self, writes: Vec<Write>) -> CommitFuture {
        CommitFuture(match self.inner.begin(writes) {
            Ok(Some(waiting)) => Commit::Waiting(waiting),
            Ok(None) => Commit::Known(Some(Ok(()))),
            Err(fault) => Commit::Known(Some(Err(fault))),
        })
    }

    /// As [`Store::commit`], blocking this thread; where too many wait, it waits for room. Not for tasks.
    pub fn commit_now(&self, writes: Vec<Write>) -> Result<(), Fault> {
        if writes.is_empty() {
            return self.inner.barrier().map(drop);
        }
        let waiting = {
            let _encrypting = self.inner.encrypting.enter();
            self.inner.submit_waiting(self.inner.encrypt(writes)?)?
        };
        waiting.recv().map_err(|_| closed())?.map_err(fault)
    }

    /// HMAC-SHA-256 of the bytes, under a key derived from the root key for this purpose. What must be recognised but never
    /// read back (tokens, PINs) is stored so.
    pub fn keyed_hash(&self, purpose: &'static str, bytes: &[u8]) -> Result<[u8; 32], Fault> {
        self.inner.barrier()?.keyed_hash(purpose, bytes)
    }

    pub(super) fn barrier(&self) -> Result<Arc<Barrier>, Fault> {
        self.inner.barrier()
    }

    /// What the seal has noted.
    pub(super) fn seal_notes(&self) -> &dyn SealNotes {
        &*self.inner
    }

    /// The seals that may have wrapped a root key of this store, the present one first.
    pub(super) fn seals(&self) -> Vec<&dyn RootKeyWrap> {
        [Some(&self.inner.wrap), self.inner.former.as_ref()].into_iter().flatten().map(AsRef::as_ref).collect()
    }

    pub(super) fn physical(&self) -> &dyn Physical {
        self.inner.physical.as_ref()
    }

    /// What was written since the store was opened.
    pub fn stats(&self) -> Stats {
        self.inner.physical.counters().snapshot()
    }

    pub(super) fn inner_ref(&self) -> &Inner {
        &self.inner
    }

    /// Tells whether the keys are in memory yet.
    #[cfg(test)]
    pub(super) fn weak_barrier(&self) -> std::sync::Weak<Barrier> {
        self.inner.barrier.load().as_ref().map(Arc::downgrade).unwrap_or_default()
    }

    /// Writes what is queued, ends the writer's thread and lets go of the file. Later calls answer [`Fault::Unavailable`].
    pub fn close(&self) {
        self.inner.physical.close();
    }

    /// Writes what is queued, closes the file and wipes the keys, whoever holds this store still. Later calls answer
    /// [`Fault::Sealed`]. Blocks for the disk.
    pub fn seal(&self) {
        // First, so that nothing more is queued.
        self.inner.sealed.store(true, Ordering::Release);
        self.inner.physical.close();
        // Wiped with the last call that is inside it.
        self.inner.barrier.store(None);
    }
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store").field("initialized", &self.is_initialized()).finish_non_exhaustive()
    }
}

impl SealNotes for Inner {
    fn read(&self) -> Result<Option<Vec<u8>>, Fault> {
        self.physical.get(name::SEAL_NOTES)
    }

    fn write(&self, note: &[u8]) -> Result<(), Fault> {
        self.submit_and_wait(vec![Change::Put { key: name::SEAL_NOTES.to_vec(), value: note.to_vec() }])
    }
}

impl Inner {
    pub(super) fn barrier(&self) -> Result<Arc<Barrier>, Fault> {
        if self.sealed.load(Ordering::Acquire) {
            return Err(Fault::Sealed);
        }
        self.barrier.load_full().ok_or(Fault::NotInitialized)
    }

    /// Opens the stored root key, if there is one, and says whether.
    fn open_barrier(&self) -> Result<bool, Unopened> {
        let Some(stored) = self.stored_seal().map_err(Unopened::Storage)? else { return Ok(false) };
        let root_key = self.open_wrapping(&stored)?;
        let barrier = self.barrier_of(&root_key).map_err(Unopened::Storage)?;
        self.barrier.store(Some(Arc::new(barrier)));
        Ok(true)
    }

    fn barrier_of(&self, root_key: &Secret) -> Result<Barrier, Fault> {
        let Some(sealed) = self.physical.get(name::KEYRING)? else { return Barrier::new(root_key) };
        let damaged = || {
            Fault::Unavailable {
            what: "the keyring in the storage file does not open: it was altered outside Keyway, or is of a newer one; restore \
                   the storage file from a backup"
                .to_owned(),
        }
        };
        Barrier::with_keyring(root_key, Keyring::open(root_key, &sealed)?.ok_or_else(damaged)?)
    }

    /// The root key. If the former seal has wrapped it, it is wrapped by the new one first, in one commit.
    fn open_wrapping(&self, StoredSeal { kind, wrapped }: &StoredSeal) -> Result<Secret, Unopened> {
        let former = self.former.as_ref().filter(|former| former.kind() == kind);
        let refused = match (kind == self.wrap.kind()).then(|| self.wrap.open(wrapped, self)) {
            Some(Ok(root_key)) => return Ok(root_key),
            Some(Err(fault)) => Some(fault),
            None => None,
        };
        let Some(former) = former else {
            return Err(refused.map_or_else(|| Unopened::Storage(other_seal(kind, self.wrap.kind())), Unopened::Seal));
        };
        let root_key = former.open(wrapped, self).map_err(Unopened::Seal)?;
        let again = self.wrap.wrap(&root_key, self).map_err(Unopened::Seal)?;
        let value = StoredSeal::encode(self.wrap.kind(), &again).map_err(Unopened::Storage)?;
        let change = Change::Put { key: name::SEAL.to_vec(), value };
        self.submit_and_wait(vec![change]).map_err(Unopened::Storage)?;
        tracing::warn!(
            from = kind,
            to = self.wrap.kind(),
            "the root key is wrapped by the new seal: take the stanza of the old one, which is disabled, out of the \
             configuration; copies of the store from before need the old one still"
        );
        Ok(root_key)
    }

    /// The stored wrapping, if there is one.
    fn stored_seal(&self) -> Result<Option<StoredSeal>, Fault> {
        let Some(bytes) = self.physical.get(name::SEAL)? else { return Ok(None) };
        let damaged = || Fault::Unavailable {
            what:
                "the wrapped root key in the storage file is damaged or of a newer Keyway: run the version that wrote \
                   it, or restore the file from a backup"
                    .to_owned(),
        };
        StoredSeal::decode(&bytes).ok_or_else(damaged).map(Some)
    }

    fn begin(&self, writes: Vec<Write>) -> Result<Option<oneshot::Receiver<Verdict>>, Fault> {
        let Some(first) = writes.first() else { return self.barrier().map(|_| None) };
        let namespace = first.key().namespace.clone();
        let _encrypting = self.encrypting.enter();
        let (transaction, waiting) = Transaction::for_task(self.encrypt(writes)?);
        self.physical.submit(transaction, WhenFull::Refuse).map_err(|refused| match refused {
            NotQueued::Full(limit) => {
                Fault::Overloaded { namespace, limit, unit: "queued jobs", retry_after: RETRY_AFTER }
            }
            NotQueued::Closed => closed(),
        })?;
        Ok(Some(waiting))
    }

    pub(super) fn submit_and_wait(&self, changes: Vec<Change>) -> Result<(), Fault> {
        self.submit_waiting(changes)?.recv().map_err(|_| closed())?.map_err(fault)
    }

    /// Queues changes, waiting for room; the verdict comes later.
    fn submit_waiting(&self, changes: Vec<Change>) -> Result<mpsc::Receiver<Verdict>, Fault> {
        let (transaction, waiting) = Transaction::for_thread(changes);
        self.physical.submit(transaction, WhenFull::Wait).map_err(|_| closed())?;
        Ok(waiting)
    }

    fn encrypt(&self, writes: Vec<Write>) -> Result<Vec<Change>, Fault> {
        let barrier = self.barrier()?;
        if writes.len() > COMMIT_WRITES_MAX {
            return Err(Fault::TooLarge {
                what: format!("a commit has {} writes; at most {COMMIT_WRITES_MAX} go together", writes.len()),
            });
        }
        writes.into_iter().map(|write| encrypt(&barrier, write)).collect()
    }

    /// The name of the first record in a range.
    fn first(&self, from: &[u8], until: &[u8]) -> Result<Option<RecordKey>, Fault> {
        let mut first = None;
        self.physical.scan(from, until, &mut |entry, _| {
            first = Some(name::decode(entry));
            ControlFlow::Break(())
        })?;
        let unreadable = || Fault::internal("the store holds an entry whose name cannot be read");
        first.map(|key| key.ok_or_else(unreadable)).transpose()
    }

    /// Shows the records of a collection after a name, up to a number.
    fn visit(
        &self,
        namespace: &Namespace,
        collection: &str,
        after: Option<&str>,
        limit: usize,
        show: &mut Show<'_>,
    ) -> Result<(), Fault> {
        let prefix = name::collection(namespace, collection)?;
        let (until, start) = (name::after_prefix(&prefix), prefix.len());
        let mut from = prefix;
        if let Some(after) = after {
            // The least text above `after` is `after` and a zero.
            from.extend_from_slice(after.as_bytes());
            from.push(0);
        }
        let mut left = limit;
        let mut outcome = Ok(());
        if left == 0 {
            return outcome;
        }
        self.physical.scan(&from, &until, &mut |entry, sealed| {
            left -= 1;
            // What follows the prefix is the name as it is.
            outcome = match entry.get(start..).and_then(|name| std::str::from_utf8(name).ok()) {
                Some(name) => show(name, entry, sealed),
                None => Err(Fault::internal("the store holds an entry whose name cannot be read")),
            };
            if left == 0 || outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        outcome
    }
}

fn encrypt(barrier: &Barrier, write: Write) -> Result<Change, Fault> {
    let entry = name::encode(write.key())?;
    if let Write::Put { key, value, .. } | Write::Create { key, value, .. } = &write
        && value.len() > VALUE_BYTES_MAX
    {
        return Err(Fault::TooLarge {
            what: format!("{key} has {} bytes; at most {VALUE_BYTES_MAX} are stored", value.len()),
        });
    }
    Ok(match write {
        Write::Put { version, value, .. } => {
            let value = barrier.seal(&entry, version, value)?;
            Change::Put { key: entry, value }
        }
        Write::Create { version, value, .. } => {
            let value = barrier.seal(&entry, version, value)?;
            Change::Create { key: entry, value }
        }
        Write::Delete { .. } => Change::Delete { key: entry },
    })
}

pub(super) fn fault(refused: Refused) -> Fault {
    match refused {
        Refused::Failed(fault) => fault,
        Refused::Exists(entry) if entry == name::SEAL => already_initialized(),
        Refused::Exists(entry) => match name::decode(&entry) {
            Some(key) => Fault::invalid(format!("{key} already exists")),
            None => Fault::internal("a record whose name cannot be read already exists"),
        },
    }
}

fn other_seal(stored: &str, configured: &str) -> Fault {
    Fault::Unavailable {
        what: format!(
            "the store is sealed by a seal of kind {stored:?}, but {configured:?} is configured: configure the one it was \
             initialized with, or that one with disabled = true beside the new one, which then takes over"
        ),
    }
}

fn already_initialized() -> Fault {
    Fault::invalid("Vault is already initialized")
}

fn altered(key: &RecordKey) -> Fault {
    Fault::Unavailable {
        what: format!(
            "{key} does not open: it was altered or moved outside Keyway; restore the storage file from a backup"
        ),
    }
}

/// Resolves when a commit is durable or refused.
#[must_use = "a commit may fail: await it"]
pub struct CommitFuture(Commit);

enum Commit {
    Known(Option<Result<(), Fault>>),
    Waiting(oneshot::Receiver<Verdict>),
}

impl Future for CommitFuture {
    type Output = Result<(), Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Commit::Known(result) => {
                Poll::Ready(result.take().unwrap_or_else(|| Err(Fault::internal("a commit was polled after its end"))))
            }
            Commit::Waiting(waiting) => Pin::new(waiting).poll(context).map(|verdict| match verdict {
                Ok(verdict) => verdict.map_err(fault),
                Err(_) => Err(closed()),
            }),
        }
    }
}
