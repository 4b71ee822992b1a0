//! Typed records: JSON, with a version that grows when the type's shape changes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Record, RecordKey, Store, Write};
use crate::model::{Fault, Namespace};

/// A type kept as JSON records.
pub trait Versioned: Serialize + DeserializeOwned {
    /// The version written now, counted from 1.
    const VERSION: u16;

    /// The version that this value is written as: an older one than [`Versioned::VERSION`] where it says nothing that was not known
    /// then, so that older builds can read it.
    fn version(&self) -> u16 {
        Self::VERSION
    }

    /// Reads a value of an older version. A type that changes its shape says here how each older one becomes the present
    /// one; the record is rewritten when it is next put.
    fn upgrade(version: u16, value: &[u8]) -> Result<Self, Fault> {
        let _ = value;
        Err(Fault::internal(format!("format {version} has no way to format {}", Self::VERSION)))
    }
}

impl Write {
    /// Makes or replaces a typed record.
    pub fn put_record<T: Versioned>(key: RecordKey, value: &T) -> Result<Write, Fault> {
        let (version, value) = (value.version(), encode(&key, value)?);
        Ok(Write::Put { key, version, value })
    }

    /// Makes a typed record that must not be there yet.
    pub fn create_record<T: Versioned>(key: RecordKey, value: &T) -> Result<Write, Fault> {
        let (version, value) = (value.version(), encode(&key, value)?);
        Ok(Write::Create { key, version, value })
    }
}

impl Record {
    /// The typed value. A version newer than this Keyway knows is refused.
    pub fn decode<T: Versioned>(&self, key: &RecordKey) -> Result<T, Fault> {
        if self.version > T::VERSION {
            return Err(Fault::Unavailable {
                what: format!(
                    "{key} is of format {}, but this Keyway knows up to {}: run the version that wrote it, or a newer one",
                    self.version,
                    T::VERSION
                ),
            });
        }
        if self.version < T::VERSION {
            return T::upgrade(self.version, &self.value).map_err(|fault| match fault {
                Fault::Internal { what } => Fault::internal(format!("{key} cannot be upgraded: {what}")),
                other => other,
            });
        }
        // Position only: serde's text may quote the value.
        serde_json::from_slice(&self.value).map_err(|error| {
            Fault::internal(format!("{key} of format {} does not parse at column {}", self.version, error.column()))
        })
    }
}

impl Store {
    /// One typed record.
    pub fn read<T: Versioned>(&self, key: &RecordKey) -> Result<Option<T>, Fault> {
        self.get(key)?.map(|record| record.decode(key)).transpose()
    }

    /// Typed records of a collection with their names, as [`Store::scan`].
    pub fn read_all<T: Versioned>(
        &self,
        namespace: &Namespace,
        collection: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<(String, T)>, Fault> {
        let mut key = RecordKey::new(namespace, collection, "");
        let records = self.scan(namespace, collection, after, limit)?;
        records
            .into_iter()
            .map(|(name, record)| {
                key.name = name;
                let value = record.decode(&key)?;
                Ok((std::mem::take(&mut key.name), value))
            })
            .collect()
    }
}

fn encode<T: Versioned>(key: &RecordKey, value: &T) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(value).map_err(|_| Fault::internal(format!("{key} cannot be written as JSON")))
}
