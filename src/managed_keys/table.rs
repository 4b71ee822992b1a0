//! The table of managed keys that requests read: by namespace and name, and by UUID. It knows nothing of where keys are, or of
//! the store.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::loading::Unread;
use super::registry::Entry;
use crate::model::{Namespace, Shards};

#[derive(Clone, Default)]
pub(super) struct Table {
    pub(super) by_name: Shards<Namespace, Arc<HashMap<String, Arc<Entry>>>>,
    pub(super) by_uuid: Shards<String, Arc<Entry>>,
    /// How many each tenant has in all its namespaces.
    pub(super) of_tenants: Shards<Namespace, usize>,
    /// Keys whose records cannot be read, by namespace and name.
    pub(super) unread: Arc<HashMap<Namespace, HashMap<String, Unread>>>,
    /// Namespaces that are being deleted.
    pub(super) closed: Arc<HashSet<Namespace>>,
}

impl Table {
    pub(super) fn get(&self, namespace: &Namespace, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(namespace)?.get(name)
    }

    pub(super) fn by_uuid(&self, uuid: &str) -> Option<&Arc<Entry>> {
        self.by_uuid.get(uuid)
    }

    /// The keys of each namespace.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Namespace, impl Iterator<Item = &Arc<Entry>>)> {
        self.by_name.iter().map(|(namespace, keys)| (namespace, keys.values()))
    }

    /// The keys of a namespace.
    pub(super) fn entries(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Entry>> + Clone {
        self.by_name.get(namespace).into_iter().flat_map(|names| names.values())
    }

    /// The keys of all namespaces of a namespace's tenant. Looks at every namespace.
    pub(super) fn of_tenant(&self, namespace: &Namespace) -> impl Iterator<Item = &Arc<Entry>> + Clone {
        let tenant = namespace.tenant();
        let own: Vec<_> =
            self.by_name.iter().filter(|(known, _)| known.tenant() == tenant).map(|(_, names)| names).collect();
        own.into_iter().flat_map(|names| names.values())
    }

    /// Takes out all that there is of a namespace.
    pub(super) fn end(&mut self, namespace: &Namespace) {
        let names = self.by_name.remove(namespace);
        if self.unread.contains_key(namespace) {
            Arc::make_mut(&mut self.unread).remove(namespace);
        }
        self.count(namespace, |count| count.saturating_sub(names.as_ref().map_or(0, |names| names.len())));
        names.iter().flat_map(|names| names.values()).for_each(|entry| drop(self.by_uuid.remove(&entry.uuid)));
    }

    pub(super) fn count(&mut self, namespace: &Namespace, change: impl FnOnce(usize) -> usize) {
        let tenant = namespace.tenant();
        let count = change(self.of_tenants.get(&tenant).copied().unwrap_or_default());
        match count {
            0 => drop(self.of_tenants.remove(&tenant)),
            count => drop(self.of_tenants.insert(tenant, count)),
        }
    }

    pub(super) fn insert(&mut self, entry: Arc<Entry>) {
        if self.by_uuid.insert(entry.uuid.clone(), Arc::clone(&entry)).is_none() {
            self.count(&entry.namespace, |count| count + 1);
        }
        if let Some(names) = self.by_name.entry(&entry.namespace) {
            Arc::make_mut(names).insert(entry.name.clone(), entry);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        if self.by_uuid.remove(&entry.uuid).is_some() {
            self.count(&entry.namespace, |count| count.saturating_sub(1));
        }
        let Some(names) = self.by_name.entry(&entry.namespace) else { return };
        Arc::make_mut(names).remove(&entry.name);
        if names.is_empty() {
            self.by_name.remove(&entry.namespace);
        }
    }
}
