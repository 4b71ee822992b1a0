//! Snapshots of the store: every entry as it is kept, encrypted, in one file that vouches for itself.
//!
//! A line of text that names the format; then every entry in the order of keys, the keys' own first: two lengths (32 bits
//! each, big-endian), key, value; then the mark of the end, the number of entries (64 bits), the SHA-256 of all that precedes it,
//! and a MAC of that under the root key. So what is cut off, altered, put together from others or left out is known before a store
//! is made of it (`restore.rs`).

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write as _};
use std::ops::ControlFlow;

use sha2::{Digest, Sha256};

use super::barrier::Barrier;
use super::records::{Store, VALUE_BYTES_MAX};
use crate::model::Fault;

const FORMAT: &[u8] = b"keyway snapshot 1\n";
/// In the place of a key's length: no entry follows.
const END: u32 = u32::MAX;
/// Longer keys are in no store.
const KEY_BYTES_MAX: usize = 16 * 1024;
/// What encryption adds to a value is less.
const SEALED_BYTES_MAX: usize = VALUE_BYTES_MAX + 4096;
/// What the MAC is made for.
const PURPOSE: &str = "snapshot";

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
pub(super) type Entry = (Vec<u8>, Vec<u8>);

/// Reads what it hashes.
pub(super) struct Reader<'f> {
    from: BufReader<&'f mut File>,
    hash: Sha256,
    entries: u64,
}

impl<'f> Reader<'f> {
    pub(super) fn new(file: &'f mut File) -> Result<Reader<'f>, Fault> {
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
    pub(super) fn entry(&mut self) -> Result<Option<Entry>, Fault> {
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

    pub(super) fn finish(mut self, barrier: &Barrier) -> Result<(), Fault> {
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

pub(super) fn refused(why: &str) -> Fault {
    Fault::invalid(format!("the snapshot is refused, and nothing was changed: {why}"))
}

fn unwritten(error: &io::Error) -> Fault {
    Fault::Unavailable { what: format!("a snapshot cannot be written beside the store: {error}") }
}

fn unread(error: &io::Error) -> Fault {
    Fault::Unavailable { what: format!("a snapshot cannot be read again: {error}") }
}
