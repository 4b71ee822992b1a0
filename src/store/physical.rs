//! The seam below the barrier: a sorted map of opaque bytes with durable, atomic transactions.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use tokio::sync::oneshot;

use crate::model::Fault;

/// One change of an entry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Change {
    /// Make or replace.
    Put {
        /// The entry's key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Make; an entry that is there already refuses the whole transaction.
    Create {
        /// The entry's key.
        key: Vec<u8>,
        /// Its value.
        value: Vec<u8>,
    },
    /// Replace, if it is still this; else nothing happens.
    Replace {
        /// The entry's key.
        key: Vec<u8>,
        /// Its value so far.
        expected: Vec<u8>,
        /// Its value from now on.
        value: Vec<u8>,
    },
    /// Remove, if there.
    Delete {
        /// The entry's key.
        key: Vec<u8>,
    },
}

impl Change {
    /// The key of the entry changed.
    pub(super) fn key(&self) -> &[u8] {
        match self {
            Change::Put { key, .. }
            | Change::Create { key, .. }
            | Change::Replace { key, .. }
            | Change::Delete { key } => key,
        }
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Change::Put { key, value } | Change::Create { key, value } => key.len() + value.len(),
            Change::Replace { key, expected, value } => key.len() + expected.len() + value.len(),
            Change::Delete { key } => key.len(),
        }
    }
}

/// Why a transaction changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// [`Change::Create`] of this key, which is there.
    Exists(Vec<u8>),
    /// The store could not.
    Failed(Fault),
}

/// What becomes of a transaction.
pub(super) type Verdict = Result<(), Refused>;

/// Changes that happen together or not at all, in order, and where their verdict goes.
pub(super) struct Transaction {
    changes: Vec<Change>,
    bytes: usize,
    answer: Answer,
}

/// Where a verdict goes: to a task or to a blocked thread. A transaction dropped unanswered closes the channel, which its
/// waiter takes as a failure.
enum Answer {
    Task(oneshot::Sender<Verdict>),
    Thread(mpsc::SyncSender<Verdict>),
}

impl Transaction {
    /// One whose verdict a task awaits.
    pub(super) fn for_task(changes: Vec<Change>) -> (Transaction, oneshot::Receiver<Verdict>) {
        let (sender, receiver) = oneshot::channel();
        (Transaction::new(changes, Answer::Task(sender)), receiver)
    }

    /// One whose verdict a thread waits for.
    pub(super) fn for_thread(changes: Vec<Change>) -> (Transaction, mpsc::Receiver<Verdict>) {
        let (sender, receiver) = mpsc::sync_channel(1);
        (Transaction::new(changes, Answer::Thread(sender)), receiver)
    }

    fn new(changes: Vec<Change>, answer: Answer) -> Transaction {
        let bytes = changes.iter().map(Change::bytes).sum();
        Transaction { changes, bytes, answer }
    }

    /// The changes, in order.
    pub(super) fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// How many bytes it holds.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Tells the waiter; one that left is no error.
    pub(super) fn answer(self, verdict: Verdict) {
        match self.answer {
            Answer::Task(sender) => drop(sender.send(verdict)),
            Answer::Thread(sender) => drop(sender.send(verdict)),
        }
    }
}

/// What to do when the queue of transactions is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WhenFull {
    /// Answer so at once.
    Refuse,
    /// Block this thread until there is room.
    Wait,
}

/// Why a transaction was not even queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NotQueued {
    /// As many wait as may; the number is the bound.
    Full(usize),
    /// The store is closed.
    Closed,
}

/// Is shown keys and values, until it breaks.
pub(super) type Visitor<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// A sorted map of opaque bytes. Reads see what was committed when they began.
pub(super) trait Physical: Send + Sync {
    /// Its name, as Vault's `storage_type` has it.
    fn kind(&self) -> &'static str;

    /// The value of a key.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault>;

    /// Shows the entries with `from <= key < until` in order of their keys, until `visit` breaks. `visit` must not call
    /// this store.
    fn scan(&self, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), Fault>;

    /// Shows every entry in order of their keys, as all of them were at one moment, until `visit` breaks.
    fn scan_once(&self, visit: &mut Visitor<'_>) -> Result<(), Fault> {
        // No key begins so.
        self.scan(&[], &[0xFF], visit)
    }

    /// The file it is in, if it is in one.
    fn path(&self) -> Option<&Path> {
        None
    }

    /// Queues a transaction, whose verdict is told once its changes are durable or refused.
    fn submit(&self, transaction: Transaction, when_full: WhenFull) -> Result<(), NotQueued>;

    /// What it counted.
    fn counters(&self) -> &Counters;

    /// Ends: what is queued is written first, what comes later is refused. A second call does nothing.
    fn close(&self);
}

/// What is answered once a store is closed.
pub(super) fn closed() -> Fault {
    Fault::Unavailable { what: "the store is closed: Keyway is stopping".to_owned() }
}

/// What a physical store counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    commits: AtomicU64,
    groups: AtomicU64,
    records: AtomicU64,
    failures: AtomicU64,
}

impl Counters {
    /// A group of transactions became durable together: so many transactions, with so many changes.
    pub(super) fn count_group(&self, commits: u64, records: u64) {
        self.groups.fetch_add(1, Ordering::Relaxed);
        self.commits.fetch_add(commits, Ordering::Relaxed);
        self.records.fetch_add(records, Ordering::Relaxed);
    }

    /// A group could not be written.
    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }

    /// The counts now.
    pub(super) fn snapshot(&self) -> Stats {
        Stats {
            commits: self.commits.load(Ordering::Relaxed),
            groups: self.groups.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
        }
    }
}

/// What a store did since it was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits that are durable.
    pub commits: u64,
    /// Groups they were written in: about one wait for the disk each.
    pub groups: u64,
    /// Records put, created or deleted by them.
    pub records: u64,
    /// Groups that could not be written.
    pub failures: u64,
}
