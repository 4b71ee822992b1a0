//! Every managed key: an immutable table that requests read, changed by one writer at a time.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;

use super::handle::{Handle, KeyRef};
use super::record::{COLLECTION, KeyRecord, USES};
use super::settings::Settings;
use crate::model::{Data, Deadline, Fault, Fields, Mount, Namespace, PublicKey};
use crate::store::{RecordKey, Store, Write};
use crate::supervisor::{KeyRoute, KeySpec, Supervisor};

/// Managed keys of one namespace.
const KEYS_MAX: usize = 100_000;
/// Longest name in bytes.
const NAME_BYTES: usize = 128;

/// Every managed key. Cheap to clone.
#[derive(Clone)]
pub struct ManagedKeys(Arc<Inner>);

struct Inner {
    store: Store,
    supervisor: Supervisor,
    table: ArcSwap<Table>,
    /// Held while the table changes: one change at a time.
    changing: Mutex<()>,
}

#[derive(Clone, Default)]
struct Table {
    by_name: HashMap<Namespace, HashMap<String, Arc<Entry>>>,
    by_uuid: HashMap<String, Arc<Entry>>,
}

/// One managed key, as it is now.
pub(super) struct Entry {
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) namespace: Namespace,
    pub(super) settings: Settings,
    /// Its public key and the way of its jobs, once there was a first use.
    pub(super) ready: Option<(PublicKey, Arc<KeyRoute>)>,
    /// Held during the first use, so that two first users do not generate two keys.
    first_use: Arc<Mutex<()>>,
}

impl ManagedKeys {
    /// The managed keys of this store. Nothing is read before [`ManagedKeys::load`].
    pub fn new(store: Store, supervisor: Supervisor) -> ManagedKeys {
        ManagedKeys(Arc::new(Inner { store, supervisor, table: ArcSwap::default(), changing: Mutex::default() }))
    }

    /// Reads the managed keys from the store and has those that were used before served again.
    pub fn load(&self) -> Result<(), Fault> {
        let root = Namespace::root();
        let mut table = Table::default();
        for (name, record) in self.0.store.read_all::<KeyRecord>(&root, COLLECTION, None, KEYS_MAX)? {
            let (uuid, settings, public) = record.open()?;
            table.put(self.entry(uuid, name, root.clone(), settings, public, Arc::default()));
        }
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// The managed key `key` names, if `mount` may use it: same namespace, and `any_mount` or listed in the mount's
    /// `allowed_managed_keys`. Looks at snapshots only.
    pub fn resolve(&self, mount: &Mount, key: KeyRef<'_>) -> Result<Handle, Fault> {
        let table = self.0.table.load();
        let entry = match key {
            KeyRef::Name(name) => table.get(&mount.namespace, name),
            KeyRef::Uuid(uuid) => table.by_uuid.get(uuid).filter(|entry| entry.namespace == mount.namespace),
        };
        let Some(entry) = entry else {
            return Err(Fault::invalid(match key {
                KeyRef::Name(name) => format!("no managed key found with name {name:?}"),
                KeyRef::Uuid(uuid) => format!("no managed key found with uuid {uuid:?}"),
            }));
        };
        if entry.settings.any_mount || mount.config.allowed_managed_keys.contains(&entry.name) {
            return Ok(Handle { keys: self.clone(), entry: Arc::clone(entry) });
        }
        Err(Fault::invalid(format!(
            "mount {:?} may not use managed key {:?}: add it to the mount's allowed_managed_keys, or set any_mount",
            mount.path, entry.name
        )))
    }

    /// The managed key of this name, whoever asks: for the operator's own test.
    pub fn find(&self, namespace: &Namespace, name: &str) -> Option<Handle> {
        let entry = self.0.table.load().get(namespace, name).cloned()?;
        Some(Handle { keys: self.clone(), entry })
    }

    /// The names of a namespace's managed keys, sorted.
    pub fn names(&self, namespace: &Namespace) -> Vec<String> {
        let table = self.0.table.load();
        let mut names: Vec<String> =
            table.by_name.get(namespace).into_iter().flatten().map(|(name, _)| name.clone()).collect();
        names.sort_unstable();
        names
    }

    /// The fields of a managed key, secrets redacted.
    pub fn show(&self, namespace: &Namespace, name: &str) -> Option<Data> {
        self.0.table.load().get(namespace, name).map(|entry| entry.settings.show(&entry.name, &entry.uuid))
    }

    /// Makes a managed key, or replaces the configuration of one. Its UUID, name and type never change. Answers warnings.
    pub async fn write(&self, namespace: &Namespace, name: &str, data: &Data) -> Result<Vec<String>, Fault> {
        valid_name(name)?;
        let _changing = self.0.changing.lock().await;
        let table = self.0.table.load_full();
        let old = table.get(namespace, name);
        let mut fields = Fields::new(data);
        let settings =
            Settings::read(&mut fields, old.map(|old| &old.settings), |library| self.library_has_pin(library))?;
        if settings.allow_generate_key && settings.key_id.is_none() {
            settings.template()?;
        }
        fields.text("name")?;
        fields.text("type")?;
        if let Some(old) = old {
            self.check_change(old, &settings)?;
        } else if table.by_name.get(namespace).is_some_and(|names| names.len() >= KEYS_MAX) {
            return Err(Fault::invalid(format!(
                "the namespace has {KEYS_MAX} managed keys, which is the most allowed"
            )));
        }
        let uuid = old.map_or_else(|| uuid::Uuid::new_v4().to_string(), |old| old.uuid.clone());
        let public = old.and_then(|old| old.ready.as_ref()).map(|(public, _)| public.clone());
        let gate = old.map(|old| Arc::clone(&old.first_use)).unwrap_or_default();
        let key = RecordKey::new(namespace, COLLECTION, name);
        let record = KeyRecord::of(&uuid, &settings, public.as_ref());
        self.0.store.commit(vec![Write::put_record(key, &record)?]).await?;
        self.publish(self.entry(uuid, name.to_owned(), namespace.clone(), settings, public, gate));
        Ok(fields.ignored().into_iter().collect())
    }

    /// A key that is recorded or in use keeps naming what it names: everything made with it depends on that.
    fn check_change(&self, old: &Entry, new: &Settings) -> Result<(), Fault> {
        if old.settings.same_key(new) {
            return Ok(());
        }
        if old.ready.is_some() {
            return Err(Fault::invalid(format!(
                "managed key {:?} has been used: its library, token, label, id and mechanism cannot change; register a new one",
                old.name
            )));
        }
        Ok(())
    }

    /// Deletes the entry; the key in the backend stays. Refused while `mounts` list it or anything uses it.
    pub async fn delete(&self, namespace: &Namespace, name: &str, mounts: &[Arc<Mount>]) -> Result<(), Fault> {
        let _changing = self.0.changing.lock().await;
        let table = self.0.table.load_full();
        let Some(entry) = table.get(namespace, name) else { return Ok(()) };
        let in_use = |by: &str| Err(Fault::invalid(format!("managed key {name:?} is in use by {by}: end that first")));
        if let Some(mount) = mounts.iter().find(|mount| mount.config.allowed_managed_keys.iter().any(|key| key == name))
        {
            return in_use(&format!("mount {:?}, which lists it in allowed_managed_keys", mount.path));
        }
        if let Some(user) = self.0.store.list(namespace, &uses(&entry.uuid), None, 1)?.first() {
            return in_use(user);
        }
        self.0.store.commit(vec![Write::Delete { key: RecordKey::new(namespace, COLLECTION, name) }]).await?;
        self.0.supervisor.forget(&entry.uuid);
        let mut table = Table::clone(&table);
        table.remove(entry);
        self.0.table.store(Arc::new(table));
        Ok(())
    }

    /// A change for an engine's own commit: notes that `user` (such as `issuer 0b7e`, `key doc version 1`) of `mount` uses
    /// the managed key `uuid`, so that it cannot be deleted.
    pub fn note_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Put { key: use_key(mount, uuid, user), version: 1, value: Vec::new() }
    }

    /// The change that takes [`ManagedKeys::note_use`] back.
    pub fn drop_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Delete { key: use_key(mount, uuid, user) }
    }

    pub(super) async fn ready(&self, entry: &Arc<Entry>, deadline: Deadline) -> Result<(Arc<Entry>, PublicKey), Fault> {
        if let Some((public, _)) = &entry.ready {
            return Ok((Arc::clone(entry), public.clone()));
        }
        let _first = entry.first_use.lock().await;
        // Somebody else may have been first.
        let entry = self.0.table.load().by_uuid.get(&entry.uuid).cloned().ok_or_else(|| gone(&entry.uuid))?;
        if let Some((public, _)) = &entry.ready {
            let public = public.clone();
            return Ok((entry, public));
        }
        let mut spec = spec(&entry, None);
        spec.generate = entry.settings.template()?;
        let prepared = self.0.supervisor.prepare(spec, deadline).await?;
        entry.settings.mechanism.require_kind(&entry.name, prepared.public.kind)?;
        if prepared.generated {
            tracing::info!(key = entry.name, namespace = %entry.namespace, kind = %prepared.public.kind, "key generated");
        }
        self.record(&entry.uuid, prepared.public).await
    }

    /// Records the public key of a first use, durably, and publishes the key with it.
    async fn record(&self, uuid: &str, public: PublicKey) -> Result<(Arc<Entry>, PublicKey), Fault> {
        let _changing = self.0.changing.lock().await;
        // Its settings may have changed meanwhile; its UUID says whether it is the same key.
        let entry = self.0.table.load().by_uuid.get(uuid).cloned().ok_or_else(|| gone(uuid))?;
        let key = RecordKey::new(&entry.namespace, COLLECTION, &entry.name);
        let record = KeyRecord::of(&entry.uuid, &entry.settings, Some(&public));
        self.0.store.commit(vec![Write::put_record(key, &record)?]).await?;
        let entry = self.entry(
            entry.uuid.clone(),
            entry.name.clone(),
            entry.namespace.clone(),
            entry.settings.clone(),
            Some(public.clone()),
            Arc::clone(&entry.first_use),
        );
        Ok((self.publish(entry), public))
    }

    fn library_has_pin(&self, library: &str) -> Result<bool, Fault> {
        let libraries = self.0.supervisor.libraries();
        let found = libraries.iter().find(|known| known.name.eq_ignore_ascii_case(library));
        found.map(|found| found.has_pin).ok_or_else(|| {
            let known: Vec<&str> = libraries.iter().map(|known| known.name.as_str()).collect();
            Fault::invalid(format!(
                "there is no kms_library {library:?} in the configuration; there are: {}",
                known.join(", ")
            ))
        })
    }

    fn entry(
        &self,
        uuid: String,
        name: String,
        namespace: Namespace,
        settings: Settings,
        public: Option<PublicKey>,
        first_use: Arc<Mutex<()>>,
    ) -> Entry {
        let mut entry = Entry { uuid, name, namespace, settings, ready: None, first_use };
        if let Some(public) = public {
            let route = self.0.supervisor.adopt(spec(&entry, Some(&public)), &public);
            entry.ready = Some((public, route));
        }
        entry
    }

    fn publish(&self, entry: Entry) -> Arc<Entry> {
        let entry = Arc::new(entry);
        self.0.table.rcu(|table| {
            let mut table = Table::clone(table);
            table.insert(Arc::clone(&entry));
            table
        });
        entry
    }
}

impl Table {
    fn get(&self, namespace: &Namespace, name: &str) -> Option<&Arc<Entry>> {
        self.by_name.get(namespace)?.get(name)
    }

    fn put(&mut self, entry: Entry) {
        self.insert(Arc::new(entry));
    }

    fn insert(&mut self, entry: Arc<Entry>) {
        self.by_uuid.insert(entry.uuid.clone(), Arc::clone(&entry));
        self.by_name.entry(entry.namespace.clone()).or_default().insert(entry.name.clone(), entry);
    }

    fn remove(&mut self, entry: &Entry) {
        self.by_uuid.remove(&entry.uuid);
        if let Some(names) = self.by_name.get_mut(&entry.namespace) {
            names.remove(&entry.name);
        }
    }
}

fn spec(entry: &Entry, public: Option<&PublicKey>) -> KeySpec {
    KeySpec {
        uuid: entry.uuid.clone(),
        name: entry.name.clone(),
        namespace: entry.namespace.clone(),
        library: entry.settings.library.clone(),
        token: entry.settings.token.clone(),
        pin: entry.settings.pin.clone(),
        selector: entry.settings.selector(),
        generate: None,
        recorded: public.cloned(),
        max_parallel: entry.settings.max_parallel.map(|cap| cap as usize),
    }
}

fn uses(uuid: &str) -> String {
    format!("{USES}/{uuid}")
}

fn use_key(mount: &Mount, uuid: &str, user: &str) -> RecordKey {
    RecordKey::new(&mount.namespace, uses(uuid), format!("{user} of mount {:?}", mount.path))
}

fn gone(uuid: &str) -> Fault {
    Fault::invalid(format!("no managed key found with uuid {uuid:?}"))
}

/// Lowercase letters, digits, `-`, `_` and `.` inside.
fn valid_name(name: &str) -> Result<(), Fault> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if name.len() <= NAME_BYTES && name.chars().all(inner) && edge(name.chars().next()) && edge(name.chars().last()) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "name {name:?} must be lowercase letters, digits, '-', '_' and '.' (not at its ends), at most {NAME_BYTES} bytes"
    )))
}
