//! The names of the records of one mount, and how they are read at its start.

use std::sync::Arc;

use super::Table;
use super::key::{KeyRecord, TransitKey};
use crate::model::{Fault, Mount, Namespace};
use crate::store::{RecordKey, Store};

/// Records read from the store at a time.
const LOAD_STEP: usize = 4096;

/// Makes the names of a mount's records: in the mount's namespace, in collections that begin with its UUID.
#[derive(Clone, Debug)]
pub(super) struct Records {
    namespace: Namespace,
    keys: String,
    config: String,
}

impl Records {
    /// Those of `mount`.
    pub(super) fn new(mount: &Mount) -> Records {
        let collection = |name: &str| format!("transit/{}/{name}", mount.uuid);
        Records { namespace: mount.namespace.clone(), keys: collection("keys"), config: collection("config") }
    }

    /// The namespace they are in.
    pub(super) fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// A key.
    pub(super) fn key(&self, name: &str) -> RecordKey {
        RecordKey::new(&self.namespace, self.keys.as_str(), name)
    }

    /// The settings of the mount.
    pub(super) fn keys_config(&self) -> RecordKey {
        RecordKey::new(&self.namespace, self.config.as_str(), "keys")
    }

    /// The size of a cache that there is not.
    pub(super) fn cache_config(&self) -> RecordKey {
        RecordKey::new(&self.namespace, self.config.as_str(), "cache")
    }

    /// Every key of the mount.
    pub(super) fn load(&self, store: &Store) -> Result<Table, Fault> {
        let mut keys = Table::default();
        let mut last: Option<String> = None;
        loop {
            let step = store.read_all::<KeyRecord>(&self.namespace, &self.keys, last.as_deref(), LOAD_STEP)?;
            last = step.last().map(|(name, _)| name.clone());
            for (name, record) in step {
                keys.insert(name, Arc::new(TransitKey::open(record)?));
            }
            if last.is_none() {
                return Ok(keys);
            }
        }
    }
}
