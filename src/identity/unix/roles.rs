//! The roles of every namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::Mutex;

use super::super::Token;
use super::implicit::Implicit;
use super::role::UnixRole;
use crate::config::Limits;
use crate::model::{Caller, Fault, Namespace, Tally};
use crate::store::{Changes, RecordKey, Store, Write};

/// The collection of a namespace's roles, by their names.
const COLLECTION: &str = "unix-roles";
/// Longest name of a role, in bytes.
const NAME_BYTES: usize = 128;
/// Roles that are read of one namespace: the most that `unix_roles_per_namespace` may ever have been.
const ROLES_MAX: usize = 100_000;
/// Namespaces in the store.
const NAMESPACES_MAX: usize = 200_000;

/// The roles of every namespace. Cheap to clone.
#[derive(Clone)]
pub struct UnixRoles {
    store: Store,
    changes: Changes,
    /// Only these are kept in memory.
    implicit: Arc<Implicit>,
    /// How many there are. Changed by `changes` only.
    counted: Arc<Mutex<Tally>>,
    /// Of one namespace and all below it.
    per_namespace: usize,
}

impl UnixRoles {
    pub(in super::super) fn new(store: Store, limits: &Limits) -> UnixRoles {
        let per_namespace = limits.unix_roles_per_namespace;
        let (implicit, counted) = (Arc::default(), Arc::default());
        UnixRoles { store, changes: Changes::default(), implicit, counted, per_namespace }
    }

    /// Reads those that count without a login from the store.
    pub(in super::super) fn load(&self) -> Result<(), Fault> {
        let mut found: HashMap<Namespace, BTreeMap<String, Arc<UnixRole>>> = HashMap::new();
        let mut counted = Tally::default();
        for namespace in self.store.namespaces(NAMESPACES_MAX)? {
            let roles = self.store.read_all::<UnixRole>(&namespace, COLLECTION, None, ROLES_MAX)?;
            counted.set(&namespace, roles.len());
            for (name, role) in roles.into_iter().filter(|(_, role)| role.implicit) {
                found.entry(namespace.clone()).or_default().insert(name, Arc::new(role));
            }
        }
        self.implicit.load(found);
        *self.counted.lock() = counted;
        Ok(())
    }

    /// What the caller's process is due in a namespace without a token, in the form of one that nobody bears.
    pub(in super::super) fn due(&self, caller: &Caller, namespace: &Namespace) -> Option<Arc<Token>> {
        self.implicit.due(caller, namespace)
    }

    /// A role, if it is there.
    pub fn get(&self, namespace: &Namespace, name: &str) -> Result<Option<UnixRole>, Fault> {
        if check_name(name).is_err() { Ok(None) } else { self.store.read(&key(namespace, name)) }
    }

    /// The names of a namespace's roles, sorted.
    pub fn names(&self, namespace: &Namespace) -> Result<Vec<String>, Fault> {
        self.store.list(namespace, COLLECTION, None, ROLES_MAX)
    }

    /// Makes a role of what is there, if anything, and answers what `edit` tells beside. One edit sees what the one before it
    /// has made. The role counts once it is durable.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] if the role has no bounds, gives `root` or is too large, or if there are too many.
    pub async fn edit<T, E>(&self, namespace: &Namespace, name: &str, edit: E) -> Result<T, Fault>
    where
        T: Send + 'static,
        E: FnOnce(Option<UnixRole>) -> Result<(UnixRole, T), Fault> + Send + 'static,
    {
        check_name(name)?;
        let (this, own, name) = (self.clone(), namespace.clone(), name.to_owned());
        let change = move || {
            let key = key(&own, &name);
            let known = this.store.read::<UnixRole>(&key)?;
            let is_new = known.is_none();
            let (role, told) = edit(known)?;
            role.check()?;
            if is_new && this.counted.lock().of_tenant(&own) >= this.per_namespace {
                return Err(Fault::invalid(format!(
                    "namespace {} and those below it have {} roles of auth/unix together, as many as there may be: delete one, \
                     or raise unix_roles_per_namespace in limits",
                    own.tenant(),
                    this.per_namespace
                )));
            }
            this.store.commit_now(vec![Write::put_record(key, &role)?])?;
            this.counted.lock().add(&own, usize::from(is_new));
            this.implicit.set(&own, &name, role.implicit.then(|| Arc::new(role)));
            Ok(told)
        };
        self.changes.run(namespace, change).await
    }

    /// Puts a role in the place of what is there.
    #[cfg(test)]
    pub(super) async fn write(&self, namespace: &Namespace, name: &str, role: UnixRole) -> Result<(), Fault> {
        self.edit(namespace, name, move |_| Ok((role, ()))).await
    }

    /// Deletes a role; absent is fine. Tokens that were made by it are not renewed any more.
    pub async fn delete(&self, namespace: &Namespace, name: &str) -> Result<(), Fault> {
        check_name(name)?;
        let (this, own, name) = (self.clone(), namespace.clone(), name.to_owned());
        let change = move || {
            let key = key(&own, &name);
            if this.store.get(&key)?.is_none() {
                return Ok(());
            }
            this.store.commit_now(vec![Write::Delete { key }])?;
            this.counted.lock().take(&own, 1);
            this.implicit.set(&own, &name, None);
            Ok(())
        };
        self.changes.run(namespace, change).await
    }

    /// Waits for the changes that are under way in a namespace that was deleted, so that none comes after its records are
    /// gone.
    pub async fn settle(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.changes.run(namespace, || Ok(())).await
    }

    /// Forgets the roles of a namespace that was deleted, with its records.
    pub fn forget(&self, namespace: &Namespace) {
        self.implicit.forget(namespace);
        self.counted.lock().set(namespace, 0);
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
