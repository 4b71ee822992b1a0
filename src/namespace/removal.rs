//! Removing what a disabled mount leaves: as many commits as it takes, and again at the next start if it was cut short.

use serde::{Deserialize, Serialize};

use crate::model::{Fault, Mount, Namespace};
use crate::store::{COMMIT_WRITES_MAX, RecordKey, Store, Versioned, Write};

/// The collection of mounts that were disabled since the last start; a record's name is the mount's UUID.
const COLLECTION: &str = "mounts-removed";
/// Names and collections looked at in one go.
const PAGE: usize = 1000;

/// What is needed to find a mount's records again.
#[derive(Serialize, Deserialize)]
struct RemovedMount {
    path: String,
    engine: String,
}

impl Versioned for RemovedMount {
    const VERSION: u16 = 1;
}

/// Notes, in the commit that disables `mount`, that its records are to go.
pub(super) fn note(mount: &Mount) -> Result<Write, Fault> {
    let removed = RemovedMount { path: mount.path.clone(), engine: mount.engine.clone() };
    Write::put_record(RecordKey::new(&mount.namespace, COLLECTION, &mount.uuid), &removed)
}

/// Commits any number of writes, in order. Blocks for the disk.
pub(super) fn commit(store: &Store, mut writes: Vec<Write>) -> Result<(), Fault> {
    while !writes.is_empty() {
        let rest = writes.split_off(writes.len().min(COMMIT_WRITES_MAX));
        store.commit_now(std::mem::replace(&mut writes, rest))?;
    }
    Ok(())
}

/// Removes every record of the mounts noted, then the notes. Blocks for the disk.
pub(super) fn sweep(store: &Store, namespace: &Namespace) -> Result<(), Fault> {
    loop {
        let noted = store.read_all::<RemovedMount>(namespace, COLLECTION, None, PAGE)?;
        if noted.is_empty() {
            return Ok(());
        }
        for (uuid, mount) in noted {
            // A mount's collections begin with its UUID, or with its engine's type and its UUID.
            let mut left = remove_collections(store, namespace, &uuid)?;
            left += remove_collections(store, namespace, &format!("{}/{uuid}", mount.engine))?;
            store.commit_now(vec![Write::Delete { key: RecordKey::new(namespace, COLLECTION, &uuid) }])?;
            if left > 0 {
                tracing::info!(%namespace, path = mount.path, records = left, "removed what a disabled mount had left");
            }
        }
    }
}

/// Empties the collections that begin with `prefix`. Answers how many records went.
pub(super) fn remove_collections(store: &Store, namespace: &Namespace, prefix: &str) -> Result<usize, Fault> {
    let mut removed = 0;
    loop {
        let collections = store.collections(namespace, prefix, PAGE)?;
        if collections.is_empty() {
            return Ok(removed);
        }
        for collection in collections {
            loop {
                let names = store.list(namespace, &collection, None, PAGE)?;
                if names.is_empty() {
                    break;
                }
                removed += names.len();
                let key = |name| RecordKey::new(namespace, collection.clone(), name);
                store.commit_now(names.into_iter().map(|name| Write::Delete { key: key(name) }).collect())?;
            }
        }
    }
}
