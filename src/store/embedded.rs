//! The physical store in one redb file.
//!
//! One thread writes. It takes what has gathered in the queue as one group, makes it one redb commit and answers every
//! waiter after the disk has it, so that many commits share one wait for the disk. Quick repair is on: opening after a crash
//! does not walk the file.
//!
//! redb refuses everything after an I/O error until its file is opened again, so we do that: a disk that was full and has
//! room again needs no restart.
//!
//! Measured on two virtual cores and ext4, in a debug build with dependencies at `opt-level = 1`, each commit one new
//! record of 1,200 bytes under a random name, into a file growing to 500 MB: one committer 950 to 1,400 commits/s; 64
//! committers 15,000 to 20,000, in groups of about 32; 512 committers 22,000 to 26,000. Quick repair costs a lone committer
//! a third to a half of its rate, since each group also saves the allocator's state, and many committers little.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use redb::{Database, ReadableDatabase, ReadableTable, Table, TableDefinition};

use super::physical::{
    Change, Counters, NotQueued, Physical, Refused, Transaction, Verdict, Visitor, WhenFull, closed,
};
use super::queue::{Bounds, Queue};
use super::storage_file::{IfAbsent, StorageFile};
use crate::model::Fault;
use crate::pace::{Pace, Paced};

/// Its name.
pub(super) const KIND: &str = "redb";

const ENTRIES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("entries");

const BOUNDS: Bounds =
    Bounds { queued_max: 16_384, queued_bytes_max: 128 * 1024 * 1024, group_max: 4_096, group_bytes: 16 * 1024 * 1024 };

/// One redb file and the thread that writes it.
pub(super) struct Embedded {
    shared: Arc<Shared>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    file: StorageFile,
    opened: RwLock<Opened>,
    queue: Queue,
    counters: Counters,
}

/// The database, unless it is closed or could not be opened again.
struct Opened {
    database: Option<Database>,
    /// Counts openings, so that of all who meet the same error one opens again.
    generation: u64,
    closed: bool,
}

impl Embedded {
    /// Opens the file, or makes it with mode 0600.
    pub(super) fn open(path: &Path, pace: Pace) -> Result<Embedded, Fault> {
        Embedded::start(StorageFile::new(path), pace)
    }

    fn start(file: StorageFile, pace: Pace) -> Result<Embedded, Fault> {
        let database = prepare(&file, IfAbsent::Make)?;
        let shared = Arc::new(Shared {
            file,
            opened: RwLock::new(Opened { database: Some(database), generation: 0, closed: false }),
            queue: Queue::new(BOUNDS),
            counters: Counters::default(),
        });
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn({
                let writer = Writer { shared: Arc::clone(&shared) };
                move || writer.shared.write_groups(Paced::new(pace))
            })
            .map_err(|error| Fault::Unavailable { what: format!("cannot start the thread of the store: {error}") })?;
        Ok(Embedded { shared, writer: Mutex::new(Some(writer)) })
    }
}

impl Physical for Embedded {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        self.shared.attempt(&mut |database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            Ok(table.get(key)?.map(|value| value.value().to_vec()))
        })
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), Fault> {
        if from >= until {
            return Ok(());
        }
        // Where to go on if the file has to be opened again in the midst.
        let mut seen: Vec<u8> = Vec::new();
        self.shared.attempt(&mut |database| {
            let table = database.begin_read()?.open_table(ENTRIES)?;
            for entry in table.range::<&[u8]>(from..until)? {
                let (key, value) = entry?;
                if key.value() <= &*seen && !seen.is_empty() {
                    continue;
                }
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
                seen.clear();
                seen.extend_from_slice(key.value());
            }
            Ok(())
        })
    }

    fn scan_once(&self, visit: &mut Visitor<'_>) -> Result<(), Fault> {
        let mut shown = false;
        let whole = self.shared.attempt(&mut |database| {
            // Opened anew, the file may be of another moment.
            if shown {
                return Ok(false);
            }
            let table = database.begin_read()?.open_table(ENTRIES)?;
            for entry in table.iter()? {
                let (key, value) = entry?;
                shown = true;
                if visit(key.value(), value.value()).is_break() {
                    break;
                }
            }
            Ok(true)
        })?;
        let what = "the store's file was opened anew while it was read; try again".to_owned();
        if whole { Ok(()) } else { Err(Fault::Unavailable { what }) }
    }

    fn path(&self) -> Option<&Path> {
        Some(self.shared.file.path())
    }

    fn submit(&self, transaction: Transaction, when_full: WhenFull) -> Result<(), NotQueued> {
        self.shared.queue.push(transaction, when_full)
    }

    fn counters(&self) -> &Counters {
        &self.shared.counters
    }

    fn close(&self) {
        self.shared.queue.close();
        let Some(writer) = self.writer.lock().take() else { return };
        // A waiter woken by the writer may hold the last handle on the store: then we are that thread.
        if writer.thread().id() != std::thread::current().id() && writer.join().is_err() {
            tracing::error!(file = %self.shared.file, "the thread of the store ended by a panic");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.close();
    }
}

/// The writer thread's hold on the store. However the thread ends, nobody waits for it in vain afterwards.
struct Writer {
    shared: Arc<Shared>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.queue.close();
        while self.shared.queue.take_group().is_some() {}
        let mut opened = self.shared.opened.write();
        opened.closed = true;
        opened.database = None;
    }
}

impl Shared {
    /// The writer's life.
    fn write_groups(&self, mut paced: Paced) {
        while let Some(group) = self.queue.take_group() {
            paced.keep();
            match self.attempt(&mut |database| commit_group(database, &group)) {
                Ok(verdicts) => self.answer(group, verdicts),
                Err(fault) => {
                    self.counters.count_failure();
                    tracing::error!(commits = group.len(), %fault, "a group of commits was not written");
                    for transaction in group {
                        transaction.answer(Err(Refused::Failed(fault.clone())));
                    }
                }
            }
        }
    }

    fn answer(&self, group: Vec<Transaction>, verdicts: Vec<Verdict>) {
        let (mut commits, mut records) = (0, 0);
        for (transaction, verdict) in group.iter().zip(&verdicts) {
            if verdict.is_ok() && !transaction.changes().is_empty() {
                commits += 1;
                records += transaction.changes().len() as u64;
            }
        }
        if commits > 0 {
            self.counters.count_group(commits, records);
        }
        for (transaction, verdict) in group.into_iter().zip(verdicts) {
            transaction.answer(verdict);
        }
    }

    /// Does the work; if the database refuses it for an error of the past, opens it again and does the work once more.
    fn attempt<R>(&self, work: &mut dyn FnMut(&Database) -> Result<R, redb::Error>) -> Result<R, Fault> {
        let mut again = true;
        loop {
            let opened = self.opened.read();
            let generation = opened.generation;
            let error = match self.contained(opened, work)? {
                Some(Ok(done)) => return Ok(done),
                Some(Err(error)) => error,
                None => redb::Error::PreviousIo,
            };
            self.open_again(generation)?;
            if !(again && matches!(error, redb::Error::PreviousIo)) {
                return Err(self.file.fault("could not be written or read", &error));
            }
            again = false;
        }
    }

    /// Runs the work on the database, `None` if it is not open. A panic inside redb, as a damaged file can cause,
    /// becomes a fault.
    fn contained<R>(
        &self,
        opened: RwLockReadGuard<'_, Opened>,
        work: &mut dyn FnMut(&Database) -> Result<R, redb::Error>,
    ) -> Result<Option<Result<R, redb::Error>>, Fault> {
        if opened.closed {
            return Err(closed());
        }
        let Some(database) = &opened.database else { return Ok(None) };
        match catch_unwind(AssertUnwindSafe(|| work(database))) {
            Ok(result) => Ok(Some(result)),
            Err(_panic) => Ok(Some(Err(redb::Error::Corrupted("redb gave up on it".to_owned())))),
        }
    }

    /// Drops the database of this generation and opens the file anew.
    fn open_again(&self, generation: u64) -> Result<(), Fault> {
        let mut opened = self.opened.write();
        if opened.closed {
            return Err(closed());
        }
        if opened.generation != generation {
            return Ok(());
        }
        // First, since it holds the lock on the file.
        opened.database = None;
        opened.database = Some(prepare(&self.file, IfAbsent::Refuse)?);
        opened.generation += 1;
        Ok(())
    }
}

/// Opens the file and sees to it that the table is there.
fn prepare(file: &StorageFile, if_absent: IfAbsent) -> Result<Database, Fault> {
    let opened = catch_unwind(AssertUnwindSafe(|| {
        let database = file.open(if_absent)?;
        match database.begin_read()?.open_table(ENTRIES) {
            Ok(_) => {}
            Err(redb::TableError::TableDoesNotExist(_)) => {
                let transaction = database.begin_write()?;
                transaction.open_table(ENTRIES)?;
                transaction.commit()?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(database)
    }));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(error)) => Err(file.fault("cannot be opened", &error)),
        Err(_panic) => Err(file.fault("cannot be opened", &redb::Error::Corrupted("redb gave up on it".to_owned()))),
    }
}

fn commit_group(database: &Database, group: &[Transaction]) -> Result<Vec<Verdict>, redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    let verdicts = {
        let mut table = transaction.open_table(ENTRIES)?;
        group.iter().map(|each| apply(&mut table, each.changes())).collect::<Result<Vec<Verdict>, redb::Error>>()?
    };
    // One that changes nothing asks whether the writer lives, and costs the disk nothing.
    if group.iter().zip(&verdicts).any(|(each, verdict)| verdict.is_ok() && !each.changes().is_empty()) {
        transaction.commit()?;
    } else {
        transaction.abort()?;
    }
    Ok(verdicts)
}

/// Makes the changes, or none of them if one creates what is there.
fn apply(table: &mut Table<'_, &[u8], &[u8]>, changes: &[Change]) -> Result<Verdict, redb::Error> {
    let Some((first, others)) = changes.split_first() else { return Ok(Ok(())) };
    if let Some(key) = later_conflict(table, first, others)? {
        return Ok(Err(Refused::Exists(key.to_vec())));
    }
    if let Change::Create { key, value } = first {
        // Most commits create one record, first: to look for it beforehand would be a second way down the tree. Nothing is done
        // yet but this, so it is put back.
        let former = table.insert(key.as_slice(), value.as_slice())?.map(|former| former.value().to_vec());
        if let Some(former) = former {
            table.insert(key.as_slice(), former.as_slice())?;
            return Ok(Err(Refused::Exists(key.clone())));
        }
    } else {
        make(table, first)?;
    }
    others.iter().try_for_each(|change| make(table, change))?;
    Ok(Ok(()))
}

fn make(table: &mut Table<'_, &[u8], &[u8]>, change: &Change) -> Result<(), redb::Error> {
    match change {
        Change::Put { key, value } | Change::Create { key, value } => {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        Change::Replace { key, expected, value } => {
            if table.get(key.as_slice())?.is_some_and(|now| now.value() == expected.as_slice()) {
                table.insert(key.as_slice(), value.as_slice())?;
            }
        }
        Change::Delete { key } => {
            table.remove(key.as_slice())?;
        }
    }
    Ok(())
}

/// The first key that one of the `others`, made after `first`, creates though it is there, be it by an earlier change.
fn later_conflict<'c>(
    table: &Table<'_, &[u8], &[u8]>,
    first: &'c Change,
    others: &'c [Change],
) -> Result<Option<&'c [u8]>, redb::Error> {
    if !others.iter().any(|change| matches!(change, Change::Create { .. })) {
        return Ok(None);
    }
    let mut earlier: HashMap<&[u8], bool> = HashMap::new();
    for (index, change) in std::iter::once(first).chain(others).enumerate() {
        let key = change.key();
        if index > 0 && matches!(change, Change::Create { .. }) {
            let is_there = match earlier.get(key) {
                Some(&is_there) => is_there,
                None => table.get(key)?.is_some(),
            };
            if is_there {
                return Ok(Some(key));
            }
        }
        // One that is replaced is there or not as before.
        if !matches!(change, Change::Replace { .. }) {
            earlier.insert(key, !matches!(change, Change::Delete { .. }));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod power_tests;
#[cfg(test)]
mod tests;
