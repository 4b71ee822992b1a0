//! Where records are kept: every one encrypted by the barrier, versioned, and written in groups, so that an answer
//! leaves only after its record is durable.
//!
//! Three layers: a [`Physical`] store moves opaque bytes (`embedded`, on redb; `memory`), the barrier encrypts and
//! authenticates them, and [`Store`] is what the other rooms hold. This room must not know what any record means.

use crate::model::{Fault, Namespace};

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

/// One change.
#[derive(Clone, Debug)]
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
    /// Make a record that must not be there yet; else the whole commit fails with [`Fault::InvalidRequest`] and changes nothing.
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

/// A record as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Version of the value's format.
    pub version: u16,
    /// Its value, in clear.
    pub value: Vec<u8>,
}
