//! Very many managed keys, for `keyway bench`: what would take long to register and use is written to the store of a daemon
//! that does not run, as if it had been. Nothing else uses this.

use super::record::{COLLECTION, KeyRecord};
use crate::model::{Fault, Namespace};
use crate::store::{RecordKey, Store, Write};

/// A managed key that was used.
pub struct Template(KeyRecord);

impl Template {
    /// The one of this name, as the store has it.
    pub fn of(store: &Store, namespace: &Namespace, name: &str) -> Result<Template, Fault> {
        let found = store.read::<KeyRecord>(&RecordKey::new(namespace, COLLECTION, name))?;
        found.map(Template).ok_or_else(|| Fault::NotFound { what: format!("managed key {name:?}") })
    }

    /// The change that registers another for the same key on its token.
    pub fn copy(&self, namespace: &Namespace, name: &str) -> Result<Write, Fault> {
        let record = self.0.with_uuid(&uuid::Uuid::new_v4().to_string());
        Write::put_record(RecordKey::new(namespace, COLLECTION, name), &record)
    }
}
