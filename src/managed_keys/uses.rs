//! Who uses which managed key: records that engines write in their own commits.

use std::sync::Arc;

use crate::model::{Fault, Mount, Namespace};
use crate::store::{RecordKey, Store, Write};

/// The collection of a key's users is this and the key's UUID; a record's name is the mount's UUID and the user.
const COLLECTION: &str = "managed-key-uses";
/// Users looked at; with so many, one that is not stale is among them.
const USERS_MAX: usize = 100_000;
/// Notes read from the store at a time.
const STEP: usize = 4096;
/// Stale notes removed with a key; what is left of more than these is never looked at again.
const STALE_MAX: usize = 5000;

/// The record that says that `user` of `mount` uses the managed key `uuid`.
pub(super) fn key(mount: &Mount, uuid: &str, user: &str) -> RecordKey {
    RecordKey::new(&mount.namespace, collection(uuid), format!("{}/{user}", mount.uuid))
}

/// The changes that remove the notes on a key. Refused while one of `mounts` is its owner or lists the key, or something in one
/// uses it.
///
/// A note of a mount that was disabled is stale: an engine's request that was under way then may have written it late.
/// `mounts` is asked after the notes were read, so that a mount made meanwhile is not taken for one that is gone.
pub(super) fn removal(
    store: &Store,
    namespace: &Namespace,
    name: &str,
    uuid: &str,
    owner: Option<&String>,
    mounts: impl FnOnce() -> Vec<Arc<Mount>>,
) -> Result<Vec<Write>, Fault> {
    let in_use = |by: String| Err(Fault::invalid(format!("managed key {name:?} is in use by {by}: end that first")));
    let collection = collection(uuid);
    let notes = store.list(namespace, &collection, None, USERS_MAX)?;
    let mounts = mounts();
    if let Some(mount) = mounts.iter().find(|mount| Some(&mount.uuid) == owner) {
        return in_use(format!("mount {:?}, which it was made for: it goes with what uses it there", mount.path));
    }
    if let Some(mount) = mounts.iter().find(|mount| mount.config.allowed_managed_keys.iter().any(|key| key == name)) {
        return in_use(format!("mount {:?}, which lists it in allowed_managed_keys", mount.path));
    }
    let live = |note: &String| {
        let (uuid, user) = note.split_once('/')?;
        let mount = mounts.iter().find(|mount| mount.uuid == uuid)?;
        Some(format!("{user} of mount {:?}", mount.path))
    };
    if let Some(user) = notes.iter().find_map(live) {
        return in_use(user);
    }
    let delete = |note| Write::Delete { key: RecordKey::new(namespace, collection.clone(), note) };
    Ok(notes.into_iter().take(STALE_MAX).map(delete).collect())
}

/// Calls `note` with the UUID of the mount of every use that is noted of the key.
pub(super) fn each(store: &Store, namespace: &Namespace, uuid: &str, mut note: impl FnMut(&str)) -> Result<(), Fault> {
    let collection = collection(uuid);
    let mut last: Option<String> = None;
    loop {
        let names = store.list(namespace, &collection, last.as_deref(), STEP)?;
        names.iter().filter_map(|name| name.split_once('/')).for_each(|(mount, _)| note(mount));
        match names.into_iter().next_back() {
            Some(name) => last = Some(name),
            None => return Ok(()),
        }
    }
}

/// Whether anything is noted to use the key.
pub(super) fn any(store: &Store, namespace: &Namespace, uuid: &str) -> Result<bool, Fault> {
    Ok(!store.list(namespace, &collection(uuid), None, 1)?.is_empty())
}

fn collection(uuid: &str) -> String {
    format!("{COLLECTION}/{uuid}")
}
