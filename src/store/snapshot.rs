//! Snapshots of the store: every entry as it is kept, encrypted, in one file that vouches for itself.
//!
//! A line of text that names the format; then every entry in the order of keys, the keys' own first: two lengths (32 bits
//! each, big-endian), key, value; then the mark of the end, the number of entries (64 bits), the SHA-256 of all that precedes it,
//! and a MAC of that under the root key. So what is cut off, altered, put together from others or left out is known before
//! anything is replaced; and each record is opened, too.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write as _};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::barrier::Barrier;
use super::embedded::Embedded;
use super::keyring::Keyring;
use super::name;
use super::physical::{Change, Physical, Transaction, WhenFull, closed};
use super::records::{Store, VALUE_BYTES_MAX};
use super::seal::StoredSeal;
use super::storage_file::sync_folder_of;
use crate::config::Pace;
use crate::model::{Fault, Namespace};

const FORMAT: &[u8] = b"keyway snapshot 1\n";
/// In the place of a key's length: no entry follows.
const END: u32 = u32::MAX;
/// Longer keys are in no store.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// What encryption adds to a value is less.
const SEALED_BYTES_MAX: usize = VALUE_BYTES_MAX + 4096;
/// So much is written to the new file at a time.
const GROUP_BYTES: usize = 4 * 1024 * 1024;
/// What the MAC is made for.
const PURPOSE: &str = "snapshot";
/// The name of a file that is about to take the store's place is the store's and this.
const NEW: &str = ".restored";

/// A store's content, verified and durable in a file beside the store's, which it is to replace. Dropped, it is gone.
pub struct Restored {
    new: PathBuf,
    place: PathBuf,
    /// Records in it.
    pub records: u64,
}

impl Restored {
    /// Takes the place of the store's file, durably and in one step. Nobody may have the store open.
    pub fn put_in_place(self) -> Result<(), Fault> {
        let failed = |error: io::Error| Fault::Unavailable {
            what: format!("cannot put {} in the place of {}: {error}", self.new.display(), self.place.display()),
        };
        std::fs::rename(&self.new, &self.place).map_err(failed)?;
        sync_folder_of(&self.place).map_err(failed)
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.new);
    }
}

impl Store {
    /// A file for a snapshot, which no name leads to: on the disk of the store, for there is room for another such.
    pub fn spool(&self) -> Result<File, Fault> {
        let made = match self.physical().path() {
            Some(path) => tempfile::tempfile_in(super::storage_file::folder_of(path)),
            None => tempfile::tempfile(),
        };
        made.map_err(|error| unwritten(&error))
    }

    /// Writes the store's content, as it is at one moment, to `file`; answers its length. Commits go on meanwhile. Blocks for
    /// the disk.
    ///
    /// # Errors
    /// It would be longer than `most` bytes, or cannot be read or written.
    pub fn save(&self, file: &mut File, most: u64) -> Result<u64, Fault> {
        let barrier = self.barrier()?;
        let mut to = Writer::new(file, most);
        let mut result = to.put(FORMAT);
        let mut entries = 0_u64;
        if result.is_ok() {
            self.physical().scan_once(&mut |key, value| {
                entries += 1;
                // Whoever seals waits for this.
                result = self.barrier().and_then(|_| to.entry(key, value));
                if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        result?;
        to.put(&END.to_be_bytes())?;
        to.put(&entries.to_be_bytes())?;
        to.finish(&barrier)
    }

    /// Makes a store of the snapshot in `file`, beside this one. It must be of this store, or, if `is_foreign`, of any whose root
    /// key this seal opens. Of one of this store's, these `kept` collections are then as they are in this store now. Blocks for
    /// the disk, and for the seal.
    ///
    /// # Errors
    /// It is not whole, not genuine, or not of this store; nothing is left then.
    pub fn restore(&self, file: &mut File, is_foreign: bool, kept: &[(Namespace, &str)]) -> Result<Restored, Fault> {
        let place = self.physical().path().map(Path::to_owned).ok_or_else(|| {
            Fault::invalid("this store is in memory only: a snapshot is restored to storage \"redb\"")
        })?;
        let mut new = place.clone().into_os_string();
        new.push(NEW);
        let mut restored = Restored { new: new.into(), place, records: 0 };
        let _ = std::fs::remove_file(&restored.new);
        let into = Group { physical: Embedded::open(&restored.new, Pace::Prompt)?, changes: Vec::new(), bytes: 0 };
        restored.records = self.fill(into, file, is_foreign, kept)?;
        Ok(restored)
    }

    fn fill(
        &self,
        mut into: Group,
        file: &mut File,
        is_foreign: bool,
        kept: &[(Namespace, &str)],
    ) -> Result<u64, Fault> {
        let mut from = Reader::new(file)?;
        let (mut keyring, mut barrier) = (None, None);
        let mut records = 0;
        let mut before: Vec<u8> = Vec::new();
        while let Some((key, value)) = from.entry()? {
            if key <= before {
                return Err(refused("its entries are not in order"));
            }
            before.clone_from(&key);
            if key == name::SEAL_NOTES {
                // What the seal has noted is about itself, and as it is now.
                continue;
            }
            if key == name::KEYRING {
                keyring = Some(value.clone());
            } else if key == name::SEAL {
                barrier = Some(self.barrier_of(&value, keyring.as_deref(), is_foreign)?);
            } else if let Some(record) = name::decode(&key) {
                let barrier = barrier.as_ref().ok_or_else(|| refused("it has no root key"))?;
                if barrier.open(&key, &value)?.is_none() {
                    return Err(refused(&format!("{record} does not open")));
                }
                records += 1;
            }
            into.put(Change::Put { key, value })?;
        }
        let barrier = barrier.ok_or_else(|| refused("it has no root key"))?;
        from.finish(&barrier)?;
        if !is_foreign {
            for (namespace, collection) in kept {
                self.copy(namespace, collection, &barrier, &mut into)?;
            }
        }
        if let Some(value) = self.physical().get(name::SEAL_NOTES)? {
            into.put(Change::Put { key: name::SEAL_NOTES.to_vec(), value })?;
        }
        into.finish()?;
        Ok(records)
    }

    /// The barrier of a snapshot's root key and keyring.
    fn barrier_of(&self, stored: &[u8], keyring: Option<&[u8]>, is_foreign: bool) -> Result<Barrier, Fault> {
        let stored = StoredSeal::decode(stored).ok_or_else(|| refused("its root key is of a format unknown here"))?;
        if stored.kind != self.seal_kind() {
            return Err(refused(&format!(
                "its root key is wrapped by a seal of the kind {:?}, and this daemon's is {:?}: configure that seal",
                stored.kind,
                self.seal_kind()
            )));
        }
        let root_key = self.wrap().open(&stored.wrapped, self.seal_notes()).map_err(|fault| {
            refused(&format!(
                "this daemon's seal does not open its root key ({fault}): configure the seal it was saved under"
            ))
        })?;
        let barrier = match keyring {
            None => Barrier::new(&root_key)?,
            Some(sealed) => {
                let keyring = Keyring::open(&root_key, sealed)?;
                Barrier::with_keyring(&root_key, keyring.ok_or_else(|| refused("its keyring does not open"))?)?
            }
        };
        let name = |barrier: &Barrier| barrier.keyed_hash(PURPOSE, b"whose");
        if !is_foreign && name(&barrier)? != name(self.barrier()?.as_ref())? {
            return Err(refused(
                "it is of another store, with another root key: restore it by sys/storage/raft/snapshot-force (-force), which \
                 puts that store, with its tokens, in the place of this one",
            ));
        }
        Ok(barrier)
    }

    /// Puts a collection of this store in, encrypted under the keys of the snapshot.
    fn copy(&self, namespace: &Namespace, collection: &str, to: &Barrier, into: &mut Group) -> Result<(), Fault> {
        let from = self.barrier()?;
        let prefix = name::collection(namespace, collection)?;
        let mut result = Ok(());
        self.physical().scan(&prefix, &name::after_prefix(&prefix), &mut |key, value| {
            result = from.open(key, value).and_then(|record| {
                let record = record.ok_or_else(|| refused("what this store remembers does not open"))?;
                let value = to.seal(key, record.version, record.value)?;
                into.put(Change::Put { key: key.to_vec(), value })
            });
            if result.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        result
    }
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

/// Writes what it hashes.
struct Writer<'f> {
    to: BufWriter<&'f mut File>,
    hash: Sha256,
    bytes: u64,
    most: u64,
}

impl<'f> Writer<'f> {
    fn new(file: &'f mut File, most: u64) -> Writer<'f> {
        Writer { to: BufWriter::with_capacity(256 << 10, file), hash: Sha256::new(), bytes: 0, most }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Fault> {
        self.bytes += bytes.len() as u64;
        if self.bytes > self.most {
            let what = format!("a snapshot of more than {} bytes: raise limits {{ snapshot_max }}", self.most);
            return Err(Fault::TooLarge { what });
        }
        self.hash.update(bytes);
        self.to.write_all(bytes).map_err(|error| unwritten(&error))
    }

    fn entry(&mut self, key: &[u8], value: &[u8]) -> Result<(), Fault> {
        let length = |bytes: &[u8]| {
            u32::try_from(bytes.len()).map_err(|_| Fault::internal("an entry is too long for a snapshot"))
        };
        self.put(&length(key)?.to_be_bytes())?;
        self.put(&length(value)?.to_be_bytes())?;
        self.put(key)?;
        self.put(value)
    }

    fn finish(mut self, barrier: &Barrier) -> Result<u64, Fault> {
        let digest = self.hash.clone().finalize();
        self.put(&digest)?;
        self.put(&barrier.keyed_hash(PURPOSE, &digest)?)?;
        let file = self.to.into_inner().map_err(|error| unwritten(error.error()))?;
        file.seek(SeekFrom::Start(0)).map_err(|error| unwritten(&error))?;
        Ok(self.bytes)
    }
}

/// A key and its value.
type Entry = (Vec<u8>, Vec<u8>);

/// Reads what it hashes.
struct Reader<'f> {
    from: BufReader<&'f mut File>,
    hash: Sha256,
    entries: u64,
}

impl<'f> Reader<'f> {
    fn new(file: &'f mut File) -> Result<Reader<'f>, Fault> {
        file.seek(SeekFrom::Start(0)).map_err(|error| unread(&error))?;
        let from = BufReader::with_capacity(256 << 10, file);
        let mut reader = Reader { from, hash: Sha256::new(), entries: 0 };
        if reader.take(FORMAT.len())? != FORMAT {
            return Err(refused("it does not begin as a snapshot of Keyway's does"));
        }
        Ok(reader)
    }

    fn take(&mut self, length: usize) -> Result<Vec<u8>, Fault> {
        // Grows with what is there: a length that is a lie takes no memory.
        let mut bytes = Vec::new();
        (&mut self.from).take(length as u64).read_to_end(&mut bytes).map_err(|error| unread(&error))?;
        if bytes.len() < length {
            return Err(refused("it ends too early"));
        }
        self.hash.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32, Fault> {
        let bytes = self.take(4)?;
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// The next entry; `None` at the mark of the end.
    fn entry(&mut self) -> Result<Option<Entry>, Fault> {
        let key = self.number()?;
        if key == END {
            return Ok(None);
        }
        let (key, value) = (key as usize, self.number()? as usize);
        if key == 0 || key > KEY_BYTES_MAX || value > SEALED_BYTES_MAX {
            return Err(refused("an entry of it is longer than any of a store"));
        }
        self.entries += 1;
        Ok(Some((self.take(key)?, self.take(value)?)))
    }

    fn finish(mut self, barrier: &Barrier) -> Result<(), Fault> {
        if self.take(8)? != self.entries.to_be_bytes() {
            return Err(refused("it has another number of entries than it says"));
        }
        let digest = self.hash.clone().finalize();
        let altered = || refused("it was altered, or damaged on its way: its checksum is another");
        if self.take(digest.len())? != digest[..] {
            return Err(altered());
        }
        let mac = barrier.keyed_hash(PURPOSE, &digest)?;
        if self.take(mac.len())? != mac {
            return Err(altered());
        }
        match self.from.read(&mut [0]).map_err(|error| unread(&error))? {
            0 => Ok(()),
            _ => Err(refused("something follows its end")),
        }
    }
}

fn refused(why: &str) -> Fault {
    Fault::invalid(format!("the snapshot is refused, and nothing was changed: {why}"))
}

fn unwritten(error: &io::Error) -> Fault {
    Fault::Unavailable { what: format!("a snapshot cannot be written beside the store: {error}") }
}

fn unread(error: &io::Error) -> Fault {
    Fault::Unavailable { what: format!("a snapshot cannot be read again: {error}") }
}
