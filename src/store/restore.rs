//! A store made of a snapshot: every record opened, all of it durable, before it has the name of a store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use super::RecordKey;
use super::barrier::Barrier;
use super::embedded::Embedded;
use super::keyring::Keyring;
use super::name;
use super::notes_file::NotesFile;
use super::physical::{Change, Physical, Transaction, WhenFull, closed};
use super::place::Place;
use super::records::Store;
use super::replacement::{new_beside, remove_leftovers, replaced_beside};
use super::seal::{RootKeyWrap, SealNotes, StoredSeal};
use super::snapshot::{Reader, refused};
use super::storage_file::sync_folder_of;
use crate::model::{Fault, Namespace, Secret};
use crate::pace::Pace;

/// So much is written to the new file at a time.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// No store has more entries than these beside its records, or longer ones: they are kept in memory for a while.
const OWN_ENTRIES_MAX: usize = 16;
const OWN_ENTRY_BYTES_MAX: usize = 1024 * 1024;
/// What it is proven by that two root keys are of one store.
const PURPOSE: &str = "snapshot";

/// The newest format that is known here of a record of this name.
pub type KnownFormat = fn(&RecordKey) -> u16;

/// A store's content, verified and durable in a file beside the place it is made for. Dropped, it is gone.
pub struct Restored {
    pub(super) new: PathBuf,
    pub(super) place: PathBuf,
    /// Records in it.
    pub records: u64,
}

impl Restored {
    fn beside(place: &Path) -> Result<Restored, Fault> {
        Ok(Restored { new: new_beside(place)?, place: place.to_owned(), records: 0 })
    }

    fn fill(&mut self, file: &mut File, taking: &Taking<'_>) -> Result<(), Fault> {
        let mut from = Reader::new(file)?;
        let into = Group { physical: Embedded::open(&self.new, Pace::default())?, changes: Vec::new(), bytes: 0 };
        let mut filling = Filling { taking, into, own: BTreeMap::new(), barrier: None, records: 0 };
        let mut before: Vec<u8> = Vec::new();
        while let Some((key, value)) = from.entry()? {
            if key <= before {
                return Err(refused("its entries are not in order"));
            }
            before.clone_from(&key);
            filling.entry(key, value)?;
        }
        from.finish(filling.barrier()?)?;
        self.records = filling.finish()?;
        Ok(())
    }

    /// Gives it the name of the store, unless there is a file of that name. Durable when it returns.
    fn name(&self) -> Result<(), Fault> {
        match std::fs::hard_link(&self.new, &self.place).and_then(|()| sync_folder_of(&self.place)) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Err(taken(&self.place)),
            Err(error) => {
                let what = format!("the store made of the snapshot cannot be named {}: {error}", self.place.display());
                Err(Fault::Unavailable { what })
            }
        }
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.new);
    }
}

impl Store {
    /// Makes a store of the snapshot in `file`, beside this one. It must be of this store, or, if `is_foreign`, of any whose root
    /// key this seal opens, and its records of formats that are `known`. Of one of this store's, these `kept` collections are
    /// then as they are in this store now. Blocks for the disk, and for the seal.
    ///
    /// # Errors
    /// It is not whole, not genuine, of a newer Keyway, or not of this store; nothing is left then.
    pub fn restore(
        &self,
        file: &mut File,
        is_foreign: bool,
        kept: &[(Namespace, &str)],
        known: KnownFormat,
    ) -> Result<Restored, Fault> {
        self.barrier()?;
        let place = self.physical().path().ok_or_else(in_memory)?;
        let mut restored = Restored::beside(place)?;
        let own = (!is_foreign).then_some((self, kept));
        restored.fill(file, &Taking { seals: self.seals(), notes: Notes::OfStore(self.seal_notes()), own, known })?;
        Ok(restored)
    }
}

impl Place {
    /// Makes the store of the snapshot in `file`, where there is none yet: of any store whose root key the seal opens, and of
    /// records of formats that are `known`. Answers how many there are. Blocks for the disk, and for the seal.
    ///
    /// # Errors
    /// There is a store, or what may be one, which is left alone. Or the snapshot is not whole, not genuine, or of a newer
    /// Keyway; nothing is left then, but a note of a PIN that was refused.
    pub fn restore(&self, file: &mut File, known: KnownFormat) -> Result<u64, Fault> {
        let place = self.path().ok_or_else(in_memory)?;
        let replaced = replaced_beside(place);
        for taken_by in [place, &replaced] {
            match taken_by.symlink_metadata() {
                Ok(_) => return Err(taken(taken_by)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Fault::Unavailable {
                        what: format!("{} cannot be looked at: {error}", taken_by.display()),
                    });
                }
            }
        }
        remove_leftovers(place);
        let notes = NotesFile::beside(place);
        let mut restored = Restored::beside(place)?;
        restored.fill(file, &Taking { seals: self.seals(), notes: Notes::InFile(&notes), own: None, known })?;
        restored.name()?;
        // From now on the store has them.
        notes.remove();
        Ok(restored.records)
    }
}

fn in_memory() -> Fault {
    Fault::invalid("this store is in memory only: a snapshot is restored to storage \"redb\"")
}

fn taken(place: &Path) -> Fault {
    Fault::invalid(format!(
        "{} exists, and is left alone: if a store is in use there, start Keyway and restore the snapshot by `keyway operator \
         snapshot restore`; else stop Keyway, move the file away, and do this again",
        place.display()
    ))
}

/// How a snapshot is taken.
struct Taking<'s> {
    /// One of these opens the root key.
    seals: Vec<&'s dyn RootKeyWrap>,
    notes: Notes<'s>,
    /// The store whose place it takes, if it must be that store's, and the collections that stay as they are there.
    own: Option<(&'s Store, &'s [(Namespace, &'s str)])>,
    known: KnownFormat,
}

/// Where the seal's notes are: they are about the seal, and no older ones take their place.
enum Notes<'s> {
    /// In a store that is open. What the snapshot has is of the past.
    OfStore(&'s dyn SealNotes),
    /// Nowhere else than in the snapshot, or in a file that an earlier attempt has left.
    InFile(&'s NotesFile),
}

impl Taking<'_> {
    fn notes(&self) -> &dyn SealNotes {
        match self.notes {
            Notes::OfStore(notes) => notes,
            Notes::InFile(notes) => notes,
        }
    }

    /// The barrier of a snapshot's root key and keyring.
    fn barrier(&self, own: &BTreeMap<Vec<u8>, Vec<u8>>) -> Result<Barrier, Fault> {
        let stored = own.get(name::SEAL).ok_or_else(|| refused("it has no root key"))?;
        let newer = "its root key is of a format unknown here: restore it by the version of Keyway that saved it, or a newer one";
        let root_key = self.root_key(&StoredSeal::decode(stored).ok_or_else(|| refused(newer))?)?;
        let barrier = match own.get(name::KEYRING) {
            None => Barrier::new(&root_key)?,
            Some(sealed) => {
                let keyring = Keyring::open(&root_key, sealed)?;
                Barrier::with_keyring(
                    &root_key,
                    keyring
                        .ok_or_else(|| refused("its keyring does not open: it was altered, or is of a newer Keyway"))?,
                )?
            }
        };
        let name = |barrier: &Barrier| barrier.keyed_hash(PURPOSE, b"whose");
        if let Some((store, _)) = self.own
            && name(&barrier)? != name(store.barrier()?.as_ref())?
        {
            return Err(refused(
                "it is of another store, with another root key: restore it by sys/storage/raft/snapshot-force (-force), which \
                 puts that store, with its tokens, in the place of this one",
            ));
        }
        Ok(barrier)
    }

    fn root_key(&self, stored: &StoredSeal) -> Result<Secret, Fault> {
        let mut why = None;
        for seal in self.seals.iter().filter(|seal| seal.kind() == stored.kind) {
            match seal.open(&stored.wrapped, self.notes()) {
                Ok(root_key) => return Ok(root_key),
                Err(fault) => why = why.or(Some(fault)),
            }
        }
        Err(refused(&match why {
            Some(fault) => format!(
                "this daemon's seal does not open its root key ({fault}): configure the seal it was saved under"
            ),
            None => format!(
                "its root key is wrapped by a seal of the kind {:?}, and this daemon's is {:?}: configure that seal",
                stored.kind,
                self.seals.first().map_or("none", |seal| seal.kind())
            ),
        }))
    }
}

/// A snapshot on its way into a store.
struct Filling<'s> {
    taking: &'s Taking<'s>,
    into: Group,
    /// The entries that are no records, which come first.
    own: BTreeMap<Vec<u8>, Vec<u8>>,
    /// From the first record on.
    barrier: Option<Barrier>,
    records: u64,
}

impl Filling<'_> {
    fn entry(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<(), Fault> {
        let Some(record) = name::decode(&key) else {
            if self.own.len() >= OWN_ENTRIES_MAX || value.len() > OWN_ENTRY_BYTES_MAX || self.barrier.is_some() {
                return Err(refused("it has entries that are no records of a store"));
            }
            self.own.insert(key, value);
            return Ok(());
        };
        let known = (self.taking.known)(&record);
        let opened = self.barrier()?.open(&key, &value)?.ok_or_else(|| refused(&format!("{record} does not open")))?;
        if opened.version > known {
            return Err(refused(&format!(
                "{record} is of format {}, and this Keyway knows up to {known}: restore it by the version of Keyway that saved \
                 it, or a newer one",
                opened.version
            )));
        }
        self.records += 1;
        self.into.put(Change::Put { key, value })
    }

    /// Asks the seal, the first time.
    fn barrier(&mut self) -> Result<&Barrier, Fault> {
        let barrier = match self.barrier.take() {
            Some(barrier) => barrier,
            None => {
                if let Notes::InFile(notes) = self.taking.notes {
                    notes.begin_with(self.own.get(name::SEAL_NOTES).map(Vec::as_slice));
                }
                self.taking.barrier(&self.own)?
            }
        };
        Ok(self.barrier.insert(barrier))
    }

    fn finish(self) -> Result<u64, Fault> {
        let Filling { taking, mut into, mut own, barrier, records } = self;
        let barrier = barrier.ok_or_else(|| Fault::internal("a snapshot without a root key was taken"))?;
        if let Some((store, kept)) = taking.own {
            for (namespace, collection) in kept {
                copy(store, namespace, collection, &barrier, &mut into)?;
            }
        }
        own.remove(name::SEAL_NOTES);
        own.extend(taking.notes().read()?.map(|note| (name::SEAL_NOTES.to_vec(), note)));
        for (key, value) in own {
            into.put(Change::Put { key, value })?;
        }
        into.finish()?;
        Ok(records)
    }
}

/// Puts a collection of a store in, encrypted under the keys of the snapshot.
fn copy(store: &Store, namespace: &Namespace, collection: &str, to: &Barrier, into: &mut Group) -> Result<(), Fault> {
    let from = store.barrier()?;
    let prefix = name::collection(namespace, collection)?;
    let mut result = Ok(());
    store.physical().scan(&prefix, &name::after_prefix(&prefix), &mut |key, value| {
        result = from.open(key, value).and_then(|record| {
            let record = record.ok_or_else(|| refused("what this store remembers does not open"))?;
            let value = to.seal(key, record.version, record.value)?;
            into.put(Change::Put { key: key.to_vec(), value })
        });
        if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    result
}

/// Changes of a store that is being filled.
struct Group {
    physical: Embedded,
    changes: Vec<Change>,
    bytes: usize,
}

impl Group {
    fn put(&mut self, change: Change) -> Result<(), Fault> {
        self.bytes += change.bytes();
        self.changes.push(change);
        if self.bytes < GROUP_BYTES { Ok(()) } else { self.write() }
    }

    fn write(&mut self) -> Result<(), Fault> {
        self.bytes = 0;
        let (transaction, waiting) = Transaction::for_thread(std::mem::take(&mut self.changes));
        self.physical.submit(transaction, WhenFull::Wait).map_err(|_| closed())?;
        waiting.recv().map_err(|_| closed())?.map_err(super::records::fault)
    }

    fn finish(mut self) -> Result<(), Fault> {
        self.write()?;
        self.physical.close();
        Ok(())
    }
}
