//! Where records are kept: every one encrypted by the barrier, versioned, and written in groups, so that an answer
//! leaves only after its record is durable.
//!
//! Three layers: a `Physical` store moves opaque bytes (`embedded`, on redb; `memory`), the barrier encrypts and
//! authenticates them, and [`Store`] is what the other rooms hold. This room must not know what any record means.

mod barrier;
mod changes;
mod embedded;
mod key_file;
mod keyring;
mod memory;
mod name;
mod notes_file;
mod passage;
mod passed;
mod physical;
mod place;
mod pulse;
mod queue;
mod records;
mod replacement;
mod restore;
mod rotation;
mod seal;
mod snapshot;
mod storage_file;
mod versioned;

#[cfg(test)]
mod tests;

use std::fmt;

use crate::model::Namespace;

pub use changes::Changes;
pub use key_file::KeyFile;
pub use name::NAME_BYTES_MAX;
pub use passed::Passed;
pub use physical::Stats;
pub use place::{Place, Unopened};
pub use records::{COMMIT_WRITES_MAX, CommitFuture, Store, VALUE_BYTES_MAX};
pub use replacement::Replaced;
pub use restore::{KnownFormat, Restored};
pub use rotation::{Cursor, KeyStatus, Step};
pub use seal::{Ephemeral, RootKeyWrap, SealNotes, from_config as seal_from_config};
pub use versioned::Versioned;

/// The name of one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RecordKey {
    /// The tenant it belongs to.
    pub namespace: Namespace,
    /// What kind of record it is, and, for an engine's records, whose: `mounts`, `pki/<mount uuid>/cert`.
    pub collection: String,
    /// Its name in that collection.
    pub name: String,
}

impl RecordKey {
    /// A record of `collection` in `namespace`.
    pub fn new(namespace: &Namespace, collection: impl Into<String>, name: impl Into<String>) -> RecordKey {
        RecordKey { namespace: namespace.clone(), collection: collection.into(), name: name.into() }
    }
}

impl fmt::Display for RecordKey {
    /// For errors: `record "config" of "pki/…" in namespace root`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "record {:?} of {:?} in namespace {}", self.name, self.collection, self.namespace)
    }
}

/// One change. `Debug` does not show the value.
#[derive(Clone)]
pub enum Write {
    /// Make or replace a record.
    Put {
        /// Its name.
        key: RecordKey,
        /// Version of the value's format, counted from 1.
        version: u16,
        /// Its value, in clear.
        value: Vec<u8>,
    },
    /// Make a record that must not be there yet; else the whole commit fails with
    /// [`Fault::InvalidRequest`](crate::model::Fault::InvalidRequest) and changes nothing.
    Create {
        /// Its name.
        key: RecordKey,
        /// Version of the value's format.
        version: u16,
        /// Its value, in clear.
        value: Vec<u8>,
    },
    /// Remove a record; absent is fine.
    Delete {
        /// Its name.
        key: RecordKey,
    },
}

impl Write {
    /// The record it changes.
    pub fn key(&self) -> &RecordKey {
        match self {
            Write::Put { key, .. } | Write::Create { key, .. } | Write::Delete { key } => key,
        }
    }
}

impl fmt::Debug for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (change, key, bytes) = match self {
            Write::Put { key, value, .. } => ("Put", key, value.len()),
            Write::Create { key, value, .. } => ("Create", key, value.len()),
            Write::Delete { key } => ("Delete", key, 0),
        };
        f.debug_struct(change).field("key", key).field("value_bytes", &bytes).finish()
    }
}

/// A record as read. `Debug` does not show the value.
#[derive(Clone, PartialEq, Eq)]
pub struct Record {
    /// Version of the value's format.
    pub version: u16,
    /// Its value, in clear.
    pub value: Vec<u8>,
}

impl fmt::Debug for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record").field("version", &self.version).field("value_bytes", &self.value.len()).finish()
    }
}
