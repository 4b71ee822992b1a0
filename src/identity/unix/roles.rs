//! The roles of every namespace.

use super::role::UnixRole;
use crate::config::Limits;
use crate::model::{Fault, Namespace};
use crate::store::{Changes, RecordKey, Store, Write};

/// The collection of a namespace's roles, by their names.
const COLLECTION: &str = "unix-roles";
/// Longest name of a role, in bytes.
const NAME_BYTES: usize = 128;

/// The roles of every namespace. Cheap to clone.
#[derive(Clone)]
pub struct UnixRoles {
    store: Store,
    changes: Changes,
    per_namespace: usize,
}

impl UnixRoles {
    pub(in super::super) fn new(store: Store, limits: &Limits) -> UnixRoles {
        UnixRoles { store, changes: Changes::default(), per_namespace: limits.unix_roles_per_namespace }
    }

    /// A role, if it is there.
    pub fn get(&self, namespace: &Namespace, name: &str) -> Result<Option<UnixRole>, Fault> {
        if check_name(name).is_err() { Ok(None) } else { self.store.read(&key(namespace, name)) }
    }

    /// The names of a namespace's roles, sorted.
    pub fn names(&self, namespace: &Namespace) -> Result<Vec<String>, Fault> {
        self.store.list(namespace, COLLECTION, None, self.per_namespace)
    }

    /// Makes a role, or replaces it. It counts once it is durable.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] if the role has no bounds, gives `root` or is too large, or if there are too many.
    pub async fn write(&self, namespace: &Namespace, name: &str, role: UnixRole) -> Result<(), Fault> {
        check_name(name)?;
        role.check()?;
        let (this, own, name) = (self.clone(), namespace.clone(), name.to_owned());
        let change = move || {
            let key = key(&own, &name);
            if this.store.get(&key)?.is_none() && this.names(&own)?.len() >= this.per_namespace {
                return Err(Fault::invalid(format!(
                    "the namespace has {} roles of auth/unix, as many as there may be: delete one, or raise \
                     unix_roles_per_namespace in limits",
                    this.per_namespace
                )));
            }
            this.store.commit_now(vec![Write::put_record(key, &role)?])
        };
        self.changes.run(namespace, change).await
    }

    /// Deletes a role; absent is fine. Tokens that were made by it are not renewed any more.
    pub async fn delete(&self, namespace: &Namespace, name: &str) -> Result<(), Fault> {
        check_name(name)?;
        let (this, key) = (self.clone(), key(namespace, name));
        self.changes.run(namespace, move || this.store.commit_now(vec![Write::Delete { key }])).await
    }

    /// Waits for the changes that are under way in a namespace that was deleted, so that none comes after its records are
    /// gone.
    pub async fn settle(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.changes.run(namespace, || Ok(())).await
    }
}

fn check_name(name: &str) -> Result<(), Fault> {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_.@".contains(letter);
    match (1..=NAME_BYTES).contains(&name.len()) && name.chars().all(is_plain) {
        true => Ok(()),
        false => Err(Fault::invalid(format!(
            "a role's name has 1 to {NAME_BYTES} letters, digits, hyphens, underscores, periods and @"
        ))),
    }
}

fn key(namespace: &Namespace, name: &str) -> RecordKey {
    RecordKey::new(namespace, COLLECTION, name)
}
