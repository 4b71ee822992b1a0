//! Every managed key: an immutable table that requests read, changed by one writer at a time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::abilities::Abilities;
use super::bindings::Bindings;
use super::claims::Claims;
use super::cloud::unsupported;
use super::first_use::FirstUse;
use super::handle::{Handle, KeyRef, Lent};
use super::ready::Ready;
use super::record::{COLLECTION, KeyRecord};
use super::settings::{PKCS11, Settings, is_type};
use super::table::Table;
use super::{tokens, uses};
use crate::config::Limits;
use crate::model::{Data, Fault, Fields, KeyIdentity, Mount, Namespace, Status, TokenSelector};
use crate::store::{Changes, RecordKey, Store, Write};
use crate::supervisor::{FoundAt, KeyPlace, KeySpec, LibraryInfo, PreparedKey, Supervisor};

/// Managed keys of one namespace, whatever the limit was when they were written.
pub(super) const KEYS_MAX: usize = 100_000;
/// Longest name in bytes.
const NAME_BYTES: usize = 128;
/// Largest stored record of a managed key, in bytes: every one is kept in memory.
const RECORD_BYTES: usize = 64 * 1024;

/// Every managed key. Cheap to clone.
#[derive(Clone)]
pub struct ManagedKeys(pub(super) Arc<Inner>);

pub(super) struct Inner {
    store: Store,
    supervisor: Supervisor,
    /// Of one namespace and all below it.
    keys_max: usize,
    /// Of one token or pool.
    pub(super) served_at_start: usize,
    pub(super) table: ArcSwap<Table>,
    bindings: Bindings,
    changes: Changes,
    /// Follows the table; touched by changes alone.
    pub(super) claims: Mutex<Claims>,
}

/// One managed key, as it is now.
pub(super) struct Entry {
    pub(super) uuid: String,
    pub(super) name: String,
    pub(super) namespace: Namespace,
    pub(super) settings: Settings,
    /// Since when it names what it names: in Unix milliseconds, but later than that of any written before.
    pub(super) named_since: u64,
    /// What it does, as the settings have it.
    pub(super) abilities: Abilities,
    /// What was recorded of it, and the way of its jobs, once there was a first use.
    pub(super) ready: Option<Ready>,
    /// The attempt at a first use under way, shared by all who ask, so that two first users do not generate two keys.
    pub(super) first_use: Arc<FirstUse>,
}

impl ManagedKeys {
    /// The managed keys of this store. Nothing is read before [`ManagedKeys::load`].
    pub fn new(store: Store, supervisor: Supervisor, limits: &Limits) -> ManagedKeys {
        ManagedKeys(Arc::new(Inner {
            store,
            supervisor,
            keys_max: limits.managed_keys_per_namespace,
            served_at_start: limits.managed_keys_at_start,
            table: ArcSwap::default(),
            bindings: Bindings::default(),
            changes: Changes::default(),
            claims: Mutex::default(),
        }))
    }

    /// The managed key `key` names, if `mount` may use it: same namespace, and `any_mount` or listed in the mount's
    /// `allowed_managed_keys`; a key made for a mount is for that alone. Looks at snapshots only.
    pub fn resolve(&self, mount: &Mount, key: KeyRef<'_>) -> Result<Handle, Fault> {
        self.lend(mount, key, |lent| lent.kept())
    }

    /// What `ask` makes of that key, which is lent to it.
    pub fn lend<R>(&self, mount: &Mount, key: KeyRef<'_>, ask: impl FnOnce(Lent<'_>) -> R) -> Result<R, Fault> {
        let table = self.0.table.load();
        let entry = match key {
            KeyRef::Name(name) => table.get(&mount.namespace, name),
            KeyRef::Uuid(uuid) => table.by_uuid.get(uuid).filter(|entry| entry.namespace == mount.namespace),
        };
        let Some(entry) = entry else {
            table.check_read(&mount.namespace, key)?;
            return Err(not_found(key));
        };
        let why = match &entry.settings.owner {
            Some(owner) if *owner == mount.uuid => return Ok(ask(Lent { keys: self, entry })),
            Some(_) => ", which was made for another mount",
            None if entry.settings.any_mount || mount.config.allowed_managed_keys.contains(&entry.name) => {
                return Ok(ask(Lent { keys: self, entry }));
            }
            None => ": add it to the mount's allowed_managed_keys, or set any_mount",
        };
        Err(Fault::invalid(format!("mount {:?} may not use managed key {:?}{why}", mount.path, entry.name)))
    }

    /// The managed key of this type and name, whoever asks: for the operator's own test.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] where there is none; [`Fault::Unavailable`] where its record cannot be read.
    pub fn find(&self, namespace: &Namespace, key_type: &str, name: &str) -> Result<Handle, Fault> {
        let table = self.0.table.load();
        let Some(entry) = table.get(namespace, name).filter(|entry| entry.settings.type_name() == key_type) else {
            table.check_read(namespace, KeyRef::Name(name))?;
            return Err(not_found(KeyRef::Name(name)));
        };
        Ok(Handle { keys: self.clone(), entry: Arc::clone(entry) })
    }

    /// Refuses a type of managed keys that there is not, or that the namespace may not use, in words by which Vault's clients know
    /// that a server was built without it.
    pub fn require_type(&self, namespace: &Namespace, key_type: &str) -> Result<(), Fault> {
        if key_type == PKCS11 || is_type(key_type) && self.look_up(namespace, key_type).is_ok() {
            return Ok(());
        }
        Err(unsupported(key_type))
    }

    /// The names of a namespace's managed keys of a type, sorted; also of those whose records cannot be read.
    pub fn names(&self, namespace: &Namespace, key_type: &str) -> Vec<String> {
        let table = self.0.table.load();
        let of_type = table.entries(namespace).filter(|entry| entry.settings.type_name() == key_type);
        let unread = table.unread_names(namespace, key_type).cloned();
        let mut names: Vec<String> = of_type.map(|entry| entry.name.clone()).chain(unread).collect();
        names.sort_unstable();
        names
    }

    /// How the keys of a namespace are served, and by which members; of the root namespace, everything there is. Looks at
    /// every key: not for a thread that others wait for.
    pub fn status(&self, namespace: &Namespace) -> Status {
        let table = self.0.table.load();
        let all = table.by_uuid.values().filter(|_| namespace.is_root());
        let own = table.entries(namespace).filter(|_| !namespace.is_root());
        let status = self.0.supervisor.status_of(all.chain(own).map(|entry| KeyPlace {
            namespace: &entry.namespace,
            name: &entry.name,
            library: &entry.settings.library,
            token: entry.settings.token.as_ref(),
            route: entry.ready.as_ref().and_then(Ready::served),
        }));
        if !namespace.is_root() {
            return status;
        }
        let (members, libraries) = (self.0.supervisor.members(), self.0.supervisor.library_names(|_| true));
        Status { members, libraries, ..status }
    }

    /// The fields of a managed key, secrets redacted.
    ///
    /// # Errors
    ///
    /// [`Fault::absent`] where there is none; [`Fault::Unavailable`] where its record cannot be read.
    pub fn show(&self, namespace: &Namespace, key_type: &str, name: &str) -> Result<Data, Fault> {
        let table = self.0.table.load();
        let Some(entry) = table.get(namespace, name).filter(|entry| entry.settings.type_name() == key_type) else {
            table.check_read(namespace, KeyRef::Name(name))?;
            return Err(Fault::absent());
        };
        Ok(entry.settings.show(&entry.name, &entry.uuid))
    }

    /// Makes a managed key, or replaces the configuration of one. Its UUID, name and type never change. Answers warnings.
    pub async fn write(
        &self,
        namespace: &Namespace,
        key_type: &str,
        name: &str,
        data: &Data,
    ) -> Result<Vec<String>, Fault> {
        valid_name(name)?;
        let (this, own, data) = (self.clone(), namespace.clone(), data.clone());
        let (key_type, name) = (key_type.to_owned(), name.to_owned());
        self.0.changes.run(namespace, move || this.write_now(&own, &key_type, &name, &data)).await
    }

    fn write_now(&self, namespace: &Namespace, key_type: &str, name: &str, data: &Data) -> Result<Vec<String>, Fault> {
        let table = self.0.table.load_full();
        table.check_read(namespace, KeyRef::Name(name))?;
        let old = table.get(namespace, name);
        if let Some(old) = old.filter(|old| old.settings.type_name() != key_type) {
            let known = old.settings.type_name();
            return Err(Fault::invalid(format!(
                "managed key {name:?} is of type {known}: its type cannot change, and names are unique across all types"
            )));
        }
        let mut fields = Fields::new(data);
        fields.text("name")?;
        fields.text("type")?;
        let settings = Settings::read(namespace, key_type, &mut fields, old.map(|old| &old.settings), |library| {
            self.look_up(namespace, library)
        })?;
        if let Some(old) = old {
            check_change(old, &settings)?;
        }
        let is_withdrawn = |old: &Arc<Entry>| old.settings.allow_raw_signing && !settings.allow_raw_signing;
        let withdrawn = old.filter(|old| is_withdrawn(old)).map(|old| self.withdraw_raw_signing(&old.uuid));
        // Held until the settings are what everybody sees.
        let _withdrawal = withdrawn.transpose()?;
        let uuid = old.map_or_else(|| uuid::Uuid::new_v4().to_string(), |old| old.uuid.clone());
        let warnings = fields.warnings().into_iter().chain(settings.generation_warning());
        let warnings = warnings.chain(settings.usage_warning()).chain(settings.pin_warning()).collect();
        self.put_now(namespace, name, uuid, settings, old)?;
        Ok(warnings)
    }

    /// Stores and publishes a managed key, in the place of `old`. Part of a change.
    pub(super) fn put_now(
        &self,
        namespace: &Namespace,
        name: &str,
        uuid: String,
        settings: Settings,
        old: Option<&Arc<Entry>>,
    ) -> Result<Arc<Entry>, Fault> {
        self.check_open(namespace)?;
        let guarded = self.0.supervisor.guarded();
        if settings.token.as_ref().is_some_and(|token| guarded.names(&settings.library, token, &settings.selector())) {
            return Err(is_the_seals(name));
        }
        let table = self.0.table.load_full();
        let most = self.0.keys_max;
        if old.is_none() && table.of_tenants.get(&namespace.tenant()).is_some_and(|count| *count >= most) {
            return Err(Fault::invalid(format!(
                "namespace {} and those below it have {most} managed keys together, as limits {{ managed_keys_per_namespace }} \
                 allows: delete one, or have the operator raise it",
                namespace.tenant()
            )));
        }
        if old.is_none_or(|old| !old.settings.same_token(&settings)) {
            let others = table.of_tenant(namespace).filter(|known| known.uuid != uuid);
            tokens::check(&self.0.supervisor, namespace, &settings, others.map(|entry| &entry.settings))?;
        }
        let identity = old.and_then(|old| old.ready.as_ref()).map(|ready| ready.identity.clone());
        // Whoever names another key comes after those who named it before.
        let named_since = match old.filter(|old| old.settings.names_as(&settings)) {
            Some(old) => old.named_since,
            None => self.0.claims.lock().next(),
        };
        let entry = Entry {
            uuid,
            name: name.to_owned(),
            namespace: namespace.clone(),
            named_since,
            abilities: settings.abilities(),
            ready: identity.map(Ready::new),
            first_use: old.map(|old| Arc::clone(&old.first_use)).unwrap_or_default(),
            settings,
        };
        let write = Write::put_record(RecordKey::new(namespace, COLLECTION, name), &KeyRecord::of(&entry))?;
        if let Write::Put { value, .. } = &write
            && value.len() > RECORD_BYTES
        {
            let what = format!("the settings of managed key {name:?}: at most {RECORD_BYTES} bytes are stored");
            return Err(Fault::TooLarge { what });
        }
        self.0.store.commit_now(vec![write])?;
        // One that nobody has asked for since the start stays so.
        let waits = old.and_then(|old| old.ready.as_ref()).is_some_and(|ready| ready.served().is_none());
        let entry = Arc::new(if waits { entry } else { self.served(entry) });
        self.publish(Arc::clone(&entry));
        if let Some(old) = old {
            self.let_go(old);
        }
        Ok(entry)
    }

    /// Deletes the entry; the key in the backend stays. Absent is fine. Refused while one of `mounts` lists it or something
    /// in one of them uses it.
    pub async fn delete<M>(&self, namespace: &Namespace, key_type: &str, name: &str, mounts: M) -> Result<(), Fault>
    where
        M: FnOnce() -> Vec<Arc<Mount>> + Send + 'static,
    {
        let (this, own) = (self.clone(), namespace.clone());
        let (key_type, name) = (key_type.to_owned(), name.to_owned());
        self.0.changes.run(namespace, move || this.delete_now(&own, &key_type, &name, mounts)).await
    }

    fn delete_now(
        &self,
        namespace: &Namespace,
        key_type: &str,
        name: &str,
        mounts: impl FnOnce() -> Vec<Arc<Mount>>,
    ) -> Result<(), Fault> {
        let table = self.0.table.load_full();
        table.check_read(namespace, KeyRef::Name(name))?;
        let entry = table.get(namespace, name).filter(|entry| entry.settings.type_name() == key_type);
        let Some(entry) = entry else { return Ok(()) };
        let mut writes =
            uses::removal(&self.0.store, namespace, name, &entry.uuid, entry.settings.owner.as_ref(), mounts)?;
        writes.push(Write::Delete { key: RecordKey::new(namespace, COLLECTION, name) });
        self.0.store.commit_now(writes)?;
        self.unpublish(std::slice::from_ref(entry));
        Ok(())
    }

    /// Takes entries that are not stored any more from the table. Part of a change.
    pub(super) fn unpublish(&self, entries: &[Arc<Entry>]) {
        self.change_table(|table| entries.iter().for_each(|entry| table.remove(entry)));
        entries.iter().for_each(|entry| self.unclaim(entry));
        entries.iter().for_each(|entry| self.let_go(entry));
    }

    /// The UUIDs of the keys of a namespace that were made for a mount whose UUID is one of `owners`.
    pub(super) fn owned(&self, namespace: &Namespace, owners: impl Fn(&str) -> bool) -> Vec<String> {
        let table = self.0.table.load();
        let owned = table.entries(namespace).filter(|entry| entry.settings.owner.as_deref().is_some_and(&owners));
        owned.map(|entry| entry.uuid.clone()).collect()
    }

    /// Lets go of the token that this entry named, unless the key it stands for names it still. To be called once the table
    /// says so: a first use that begins later names what the table says then, and one that ends later comes here too.
    pub(super) fn let_go(&self, was: &Entry) {
        match self.by_uuid(&was.uuid) {
            None => self.0.supervisor.release(&was.uuid),
            Some(now) if !now.settings.same_token(&was.settings) => {
                self.0.supervisor.leave_token(&was.uuid, &was.settings.library, was.settings.token.as_ref());
            }
            Some(_) => {}
        }
    }

    /// A change for an engine's own commit: notes that `user` (such as `issuer 0b7e`, `key doc version 1`) of `mount` uses
    /// the managed key `uuid`, so that it cannot be deleted while the mount is enabled.
    pub fn note_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Put { key: uses::key(mount, uuid, user), version: 1, value: Vec::new() }
    }

    /// The change that takes [`ManagedKeys::note_use`] back.
    pub fn drop_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Delete { key: uses::key(mount, uuid, user) }
    }

    pub(super) fn by_uuid(&self, uuid: &str) -> Option<Arc<Entry>> {
        self.0.table.load().by_uuid.get(uuid).cloned()
    }

    /// Refuses the key of the seal, and one that another namespace has recorded, or named before, unless the configuration shares
    /// it. Part of the change that records it.
    pub(super) fn check_claim(&self, entry: &Entry, found: &PreparedKey) -> Result<(), Fault> {
        if self.0.supervisor.guarded().is(&found.identity) {
            tracing::warn!(key = entry.name, namespace = %entry.namespace, "the key of the seal was refused to a managed key");
            return Err(is_the_seals(&entry.name));
        }
        if self.is_shared(entry) {
            return Ok(());
        }
        self.check_owners_known(entry)?;
        let may_name = |other: &Entry, at: &FoundAt| {
            self.0.supervisor.may_lead_to(&other.settings.library, other.settings.token.as_ref(), at)
        };
        self.0.claims.lock().check(entry, found, may_name)
    }

    /// Whether a key that was used is that of the seal, which is then told: it is served to nobody.
    pub(super) fn is_told_of_the_seals(&self, entry: &Entry) -> bool {
        let is_the_seals = entry.ready.as_ref().is_some_and(|ready| self.0.supervisor.guarded().is(&ready.identity));
        if is_the_seals {
            tracing::error!(
                key = entry.name, namespace = %entry.namespace,
                "THE KEY OF THE SEAL is a managed key's as well, so whoever may use that can open the store: it is not served; delete \
                 the managed key, give the seal another key (the old stanza with disabled = true beside the new one), then rotate \
                 by sys/rotate/root and sys/rotate"
            );
        }
        is_the_seals
    }

    /// Where other namespaces named a key of the entry's label before it did.
    pub(super) fn taken(&self, entry: &Entry) -> Vec<TokenSelector> {
        if self.is_shared(entry) {
            return Vec::new();
        }
        let (own, claims) = (&entry.settings.library, self.0.claims.lock());
        let others = claims.labels_before(entry).map(|other| &other.settings);
        others.flat_map(|other| self.0.supervisor.tokens_of(&other.library, other.token.as_ref(), own)).collect()
    }

    /// Whether the configuration has several namespaces share the key. By its label on the token, which is in the operator's
    /// hands: what names a key by its id alone shares nothing.
    pub(super) fn is_shared(&self, entry: &Entry) -> bool {
        let library = self.look_up(&entry.namespace, &entry.settings.library);
        let label = entry.settings.shared_name();
        library.is_ok_and(|library| label.is_some_and(|label| library.namespaces.share(&label)))
    }

    fn unclaim(&self, entry: &Entry) {
        self.0.claims.lock().remove(entry);
    }

    /// Nothing of a namespace is claimed any more. Part of a change.
    pub(super) fn end_claims(&self, namespace: &Namespace) {
        self.0.claims.lock().end(namespace);
    }

    pub(super) fn store(&self) -> &Store {
        &self.0.store
    }

    /// The store, for stories of the rooms above.
    #[cfg(test)]
    pub(crate) fn store_for_tests(&self) -> Store {
        self.0.store.clone()
    }

    pub(super) fn bindings(&self) -> &Bindings {
        &self.0.bindings
    }

    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    pub(super) fn table(&self) -> Arc<Table> {
        self.0.table.load_full()
    }

    /// Shows another table. Part of a change.
    pub(super) fn change_table(&self, change: impl Fn(&mut Table)) {
        self.0.table.rcu(|table| {
            let mut table = Table::clone(table);
            change(&mut table);
            table
        });
    }

    pub(super) fn changes(&self) -> &Changes {
        &self.0.changes
    }

    /// The library or pool of this name, as far as the namespace may use it: to others it is as if it were not there.
    pub(super) fn look_up(&self, namespace: &Namespace, library: &str) -> Result<LibraryInfo, Fault> {
        let libraries = self.0.supervisor.libraries();
        let mut open = libraries.iter().filter(|known| known.namespaces.allow(namespace));
        let found = open.clone().find(|known| known.name.eq_ignore_ascii_case(library));
        found.cloned().ok_or_else(|| {
            let known = open.by_ref().filter(|known| known.service.is_none());
            let known: Vec<&str> = known.map(|known| known.name.as_str()).collect();
            let known =
                if known.is_empty() { "there is none".into() } else { format!("there are: {}", known.join(", ")) };
            Fault::invalid(format!("there is no kms_library or kms_pool {library:?} in the configuration; {known}"))
        })
    }

    /// Has it served from now on, if it was ever used.
    pub(super) fn served(&self, entry: Entry) -> Entry {
        if let Some(ready) = &entry.ready {
            ready.serve(&entry, &self.0.supervisor);
        }
        entry
    }

    /// Shows an entry, in the place of the one of its UUID. Part of a change.
    pub(super) fn publish(&self, entry: Arc<Entry>) {
        let old = self.by_uuid(&entry.uuid);
        self.0.claims.lock().add(&entry);
        self.change_table(|table| table.insert(Arc::clone(&entry)));
        old.iter().for_each(|old| self.unclaim(old));
    }
}

impl Entry {
    /// The same, with what was recorded of it.
    pub(super) fn with(&self, identity: KeyIdentity) -> Entry {
        Entry {
            uuid: self.uuid.clone(),
            name: self.name.clone(),
            namespace: self.namespace.clone(),
            settings: self.settings.clone(),
            named_since: self.named_since,
            abilities: self.settings.abilities(),
            ready: Some(Ready::new(identity)),
            first_use: Arc::clone(&self.first_use),
        }
    }
}

pub(super) fn spec(entry: &Entry, recorded: Option<&KeyIdentity>) -> KeySpec {
    KeySpec {
        uuid: entry.uuid.clone(),
        name: entry.name.clone(),
        namespace: entry.namespace.clone(),
        library: entry.settings.library.clone(),
        token: entry.settings.token.clone(),
        pin: entry.settings.pin().cloned(),
        selector: entry.settings.selector(),
        generate: None,
        taken: Vec::new(),
        recorded: recorded.cloned(),
        max_parallel: entry.settings.max_parallel.map(|cap| cap as usize),
    }
}

pub(super) fn is_the_seals(name: &str) -> Fault {
    Fault::invalid(format!(
        "managed key {name:?} cannot be used: the key it names on its token is that of the seal, which guards the store; name \
         another label or id"
    ))
}

pub(super) fn gone(uuid: &str) -> Fault {
    not_found(KeyRef::Uuid(uuid))
}

fn not_found(key: KeyRef<'_>) -> Fault {
    Fault::invalid(match key {
        KeyRef::Name(name) => format!("no managed key found with name {name:?}"),
        KeyRef::Uuid(uuid) => format!("no managed key found with uuid {uuid:?}"),
    })
}

/// A key that was used keeps naming what it names: everything made with it depends on that. (Nothing uses a key before its
/// public key or check value is recorded.)
fn check_change(old: &Entry, new: &Settings) -> Result<(), Fault> {
    if old.ready.is_none() || old.settings.same_key(new) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "managed key {:?} has been used: its library, token, label, id and mechanism cannot change; register a new one",
        old.name
    )))
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

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "secret_tests.rs"]
mod secret_tests;
