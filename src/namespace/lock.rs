//! The API lock: an administrator shuts a namespace, and all that lie in it, until it is unlocked with the key that locking
//! gave. What engines do by the clock goes on.

use std::collections::BTreeSet;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use serde::{Deserialize, Serialize};

use super::mounts::{NAMESPACES_MAX, Namespaces, exists};
use super::tree::Tree;
use crate::model::{Fault, Namespace, Secret};
use crate::store::{RecordKey, Store, Versioned, Write};

/// The collection, in the root namespace, of those that are locked; a record's name is the namespace's path.
const COLLECTION: &str = "namespaces-locked";
/// Random bytes of an unlock key; it is their hexadecimal.
const KEY_BYTES: usize = 16;

/// What is kept of a lock; never the key itself.
#[derive(Serialize, Deserialize)]
struct LockRecord {
    /// The keyed hash of the unlock key.
    key_hash: [u8; 32],
}

impl Versioned for LockRecord {
    const VERSION: u16 = 1;
}

impl Namespaces {
    /// Locks a namespace, durably, and answers the key that unlocks it. Requests that have begun go on.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] for the root, and for one that is locked.
    pub async fn lock(&self, namespace: &Namespace) -> Result<Secret, Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        self.0.changes.run(namespace, move || this.lock_now(&own)).await
    }

    fn lock_now(&self, namespace: &Namespace) -> Result<Secret, Fault> {
        self.require(namespace)?;
        if namespace.is_root() {
            return Err(Fault::invalid("the root namespace cannot be locked"));
        }
        if self.0.tree.load().is_locked(namespace) {
            return Err(Fault::invalid(format!("namespace {:?} is locked already", namespace.as_str())));
        }
        let mut bytes = zeroize::Zeroizing::new([0; KEY_BYTES]);
        SystemRandom::new().fill(&mut *bytes).map_err(|_| Fault::internal("the system's random generator fails"))?;
        let unlock_key = Secret::new(hex::encode(*bytes).into_bytes());
        let record = LockRecord { key_hash: self.hash(namespace, &unlock_key)? };
        self.0.store.commit_now(vec![Write::create_record(key(namespace), &record)?])?;
        self.publish(|tree| tree.lock(namespace));
        Ok(unlock_key)
    }

    /// Unlocks a namespace with the key that locking it gave; without any, where the caller may do all.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] for another key, for one that is not locked, and while one that it lies in is locked.
    pub async fn unlock(&self, namespace: &Namespace, unlock_key: Option<Secret>) -> Result<(), Fault> {
        let (this, own) = (self.clone(), namespace.clone());
        self.0.changes.run(namespace, move || this.unlock_now(&own, unlock_key.as_ref())).await
    }

    fn unlock_now(&self, namespace: &Namespace, unlock_key: Option<&Secret>) -> Result<(), Fault> {
        self.require(namespace)?;
        if let Some(above) = namespace.parent() {
            self.check_unlocked(&above)?;
        }
        let known = self.0.store.read::<LockRecord>(&key(namespace))?;
        let known = known.ok_or_else(|| Fault::invalid(format!("namespace {:?} is not locked", namespace.as_str())))?;
        if let Some(given) = unlock_key
            && verify_slices_are_equal(&self.hash(namespace, given)?, &known.key_hash).is_err()
        {
            return Err(Fault::invalid("incorrect unlock key"));
        }
        self.0.store.commit_now(vec![removal(namespace)])?;
        self.publish(|tree| tree.unlock(namespace));
        Ok(())
    }

    /// Refuses what is asked in a namespace that is locked, or lies in one that is.
    pub fn check_unlocked(&self, namespace: &Namespace) -> Result<(), Fault> {
        is_unlocked(&self.0.tree.load(), namespace)
    }

    /// Refuses one that does not exist, and then what [`Namespaces::check_unlocked`] does: in one look at the tree.
    pub fn require_open(&self, namespace: &Namespace) -> Result<(), Fault> {
        let tree = self.0.tree.load();
        exists(&tree, namespace)?;
        is_unlocked(&tree, namespace)
    }

    /// The hash of a key, which is of no use for another namespace.
    fn hash(&self, namespace: &Namespace, unlock_key: &Secret) -> Result<[u8; 32], Fault> {
        let path = namespace.as_str().as_bytes();
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(8 + path.len() + unlock_key.expose().len()));
        // The path's length keeps path and key apart.
        bytes.extend_from_slice(&(path.len() as u64).to_be_bytes());
        bytes.extend_from_slice(path);
        bytes.extend_from_slice(unlock_key.expose());
        self.0.store.keyed_hash("namespace-unlock-key", &bytes)
    }
}

fn is_unlocked(tree: &Tree, namespace: &Namespace) -> Result<(), Fault> {
    match tree.lock_over(namespace) {
        None => Ok(()),
        Some(locked) => Err(Fault::Locked { namespace: locked.clone() }),
    }
}

/// Those that are locked; of namespaces that are not served too, which come back so.
pub(super) fn load(store: &Store) -> Result<BTreeSet<Namespace>, Fault> {
    let names = store.list(&Namespace::root(), COLLECTION, None, NAMESPACES_MAX)?;
    Ok(names.iter().map(|path| Namespace::from_path(path)).collect())
}

/// The change that takes a lock away.
pub(super) fn removal(namespace: &Namespace) -> Write {
    Write::Delete { key: key(namespace) }
}

fn key(namespace: &Namespace) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, namespace.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Storage};
    use crate::namespace::MetadataChange;
    use crate::store::Ephemeral;

    fn started(store: &Store) -> Namespaces {
        let configured = ["s/t"].map(Namespace::from_path);
        let namespaces = Namespaces::new(store.clone(), &configured, &Limits::default());
        namespaces.load().unwrap();
        namespaces
    }

    #[tokio::test]
    async fn a_lock_shuts_a_namespace_and_those_in_it_over_restarts_until_its_key_comes() {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let namespaces = started(&store);
        let [root, a, b, s, t] = ["", "a", "a/b", "s", "s/t"].map(Namespace::from_path);
        namespaces.make(&root, "a", MetadataChange::Keep).await.unwrap();
        namespaces.make(&a, "b", MetadataChange::Keep).await.unwrap();
        let key_of_b = namespaces.lock(&b).await.unwrap();
        let key_of_a = namespaces.lock(&a).await.unwrap();
        let key_of_s = namespaces.lock(&s).await.unwrap();
        let namespaces = started(&store);
        let locked = |namespace: &Namespace| namespaces.check_unlocked(namespace);
        let by = |namespace: &Namespace| Err(Fault::Locked { namespace: namespace.clone() });
        assert_eq!([&root, &a, &b, &s, &t].map(locked), [Ok(()), by(&a), by(&a), by(&s), by(&s)]);
        assert!(namespaces.lock(&a).await.unwrap_err().to_string().contains("is locked already"));
        assert_eq!(namespaces.unlock(&b, Some(key_of_b.clone())).await, by(&a), "the one above it comes first");
        for wrong in [&key_of_b, &key_of_s, &Secret::from("")] {
            let refused = namespaces.unlock(&a, Some(wrong.clone())).await;
            assert_eq!(refused, Err(Fault::invalid("incorrect unlock key")));
        }
        namespaces.unlock(&a, Some(key_of_a.clone())).await.unwrap();
        assert_eq!([&a, &b].map(locked), [Ok(()), by(&b)]);
        assert!(namespaces.unlock(&a, Some(key_of_a)).await.unwrap_err().to_string().contains("is not locked"));
        // Who may do all needs no key.
        namespaces.unlock(&b, None).await.unwrap();
        namespaces.unlock(&s, None).await.unwrap();
        assert_eq!(started(&store).check_unlocked(&t), Ok(()));
    }

    #[tokio::test]
    async fn what_cannot_be_locked_is_not_and_a_lock_goes_with_its_namespace() {
        let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
        store.initialize().unwrap();
        let namespaces = started(&store);
        let [root, a] = ["", "a"].map(Namespace::from_path);
        assert_eq!(namespaces.lock(&root).await.err(), Some(Fault::invalid("the root namespace cannot be locked")));
        assert!(matches!(namespaces.lock(&a).await, Err(Fault::NotFound { .. })));
        namespaces.make(&root, "a", MetadataChange::Keep).await.unwrap();
        let unlock_key = namespaces.lock(&a).await.unwrap();
        for (name, record) in store.scan(&root, COLLECTION, None, 10).unwrap() {
            let kept = String::from_utf8_lossy(&record.value).into_owned();
            assert!(name == "a/" && !kept.contains(unlock_key.expose_str().unwrap()), "the key is kept nowhere");
        }
        namespaces.delete(&root, "a").await.unwrap();
        namespaces.end_removal(&a).await.unwrap();
        namespaces.make(&root, "a", MetadataChange::Keep).await.unwrap();
        assert_eq!(namespaces.check_unlocked(&a), Ok(()));
        assert_eq!(started(&store).check_unlocked(&a), Ok(()));
    }
}
