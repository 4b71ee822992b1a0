//! A managed key that was used: what it is known again by, and the way of its jobs, made when it is needed. Of a hundred
//! thousand that were used once, few are in use at a time, and proving one costs its token a signature.

use std::sync::{Arc, OnceLock};

use super::registry::{Entry, ManagedKeys, gone, is_the_seals, spec};
use crate::model::{Fault, KeyIdentity};
use crate::supervisor::{KeyRoute, Supervisor};

/// What was recorded of a key at its first use, and the way of its jobs once it is served.
pub(super) struct Ready {
    pub(super) identity: KeyIdentity,
    route: OnceLock<Arc<KeyRoute>>,
}

impl Ready {
    /// Of a key that nobody serves yet.
    pub(super) fn new(identity: KeyIdentity) -> Ready {
        Ready { identity, route: OnceLock::new() }
    }

    /// The way of its jobs, if it is served.
    pub(super) fn served(&self) -> Option<&Arc<KeyRoute>> {
        self.route.get()
    }

    /// Has it served from now on; answers the way of its jobs. `entry` is the one that it is of.
    pub(super) fn serve(&self, entry: &Entry, supervisor: &Supervisor) -> &Arc<KeyRoute> {
        self.route.get_or_init(|| supervisor.adopt(spec(entry, Some(&self.identity)), &self.identity))
    }
}

impl ManagedKeys {
    /// The way of an entry's jobs; `None` before its first use. A key that is not served yet is from now on.
    pub(super) fn route(&self, entry: &Entry) -> Result<Option<Arc<KeyRoute>>, Fault> {
        let Some(ready) = &entry.ready else { return Ok(None) };
        if let Some(route) = ready.served() {
            return Ok(Some(Arc::clone(route)));
        }
        if self.supervisor().guarded().is(&ready.identity) {
            return Err(is_the_seals(&entry.name));
        }
        // It may have been changed or deleted since it was lent: what is served is what there is now.
        let mut now = self.by_uuid(&entry.uuid).ok_or_else(|| gone(&entry.uuid))?;
        loop {
            let Some(ready) = &now.ready else { return Ok(None) };
            let route = Arc::clone(ready.serve(&now, self.supervisor()));
            match self.by_uuid(&entry.uuid) {
                Some(still) if Arc::ptr_eq(&still, &now) => return Ok(Some(route)),
                // Its new settings were told before these were: they are told again.
                Some(other) => {
                    if let Some(ready) = &other.ready {
                        self.supervisor().adopt(spec(&other, Some(&ready.identity)), &ready.identity);
                    }
                    now = other;
                }
                None => {
                    self.supervisor().release(&entry.uuid);
                    return Err(gone(&entry.uuid));
                }
            }
        }
    }
}
