//! Which engines use which key pair. One that engines of one type use is no other type's: so an issuer's key signs only what PKI
//! built, and nothing that a client of Transit gives. They mix only where every managed key that leads to it says
//! `allow_raw_signing`.
//!
//! A key is known by what it is, whatever managed key, label or id led to it. The notes in the store are the truth; here is what
//! they come to, and the uses that are about to be noted. What the types of engines do with a key is none of this module's matter.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;

use super::registry::{Entry, ManagedKeys, gone};
use super::table::Table;
use super::uses;
use crate::crypto;
use crate::model::{Fault, Hash, Mount, Namespace};
use crate::store::Store;

/// Answers the mounts of a namespace, as they are now; also of one that is not served, as it would have them.
pub type Mounts = Arc<dyn Fn(&Namespace) -> Vec<Arc<Mount>> + Send + Sync>;

/// SHA-256 of a public key: not of the whole SubjectPublicKeyInfo, whose parameters libraries write in different ways.
type Fingerprint = [u8; 32];

/// Who uses which key pair. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Bindings(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    holders: HashMap<Fingerprint, Vec<Holder>>,
    /// UUIDs of managed keys whose `allow_raw_signing` is being taken back.
    withdrawing: HashSet<String>,
    /// UUIDs of managed keys that say `allow_raw_signing` and are not served now, nor changed.
    raw_away: HashSet<String>,
    /// `None` before anything was loaded.
    mounts: Option<Mounts>,
}

/// The uses of one managed key by one mount.
struct Holder {
    /// The UUID of the managed key.
    key: String,
    mount: Arc<Mount>,
    /// Uses that are noted in the store.
    noted: usize,
    /// Uses that are about to be.
    held: usize,
}

/// A use of a key pair that is about to be noted: until it is dropped, no engine of another type comes in between.
#[must_use = "the key is bound no longer than this is held"]
pub struct Binding(Option<Held>);

struct Held {
    bindings: Bindings,
    fingerprint: Fingerprint,
    key: String,
    mount: String,
}

impl Binding {
    /// The use is noted in the store: it lasts until [`ManagedKeys::unbind`].
    pub fn keep(mut self) {
        if let Some(held) = self.0.take() {
            held.end(true);
        }
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            held.end(false);
        }
    }
}

impl Held {
    fn end(self, is_noted: bool) {
        self.bindings.0.lock().change(&self.fingerprint, &self.key, &self.mount, |holder| {
            holder.held = holder.held.saturating_sub(1);
            holder.noted += usize::from(is_noted);
        });
    }
}

/// While it is held, nobody counts on the `allow_raw_signing` of one managed key.
pub(super) struct Withdrawal(Bindings, String);

impl Drop for Withdrawal {
    fn drop(&mut self) {
        self.0.0.lock().withdrawing.remove(&self.1);
    }
}

impl ManagedKeys {
    /// Binds the managed key `uuid` to engines of the type of `mount`, for a use that is about to be noted. A secret key is bound
    /// to nothing. The key must have had its first use.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] where engines of another type use the same key, or are about to, and not every managed key that
    /// leads to it says `allow_raw_signing`; [`Fault::Unavailable`] where that cannot be known.
    pub fn bind(&self, mount: &Arc<Mount>, uuid: &str) -> Result<Binding, Fault> {
        let entry = self.by_uuid(uuid).ok_or_else(|| gone(uuid))?;
        if entry.ready.is_none() {
            return Err(Fault::internal(format!("managed key {:?} is bound before its first use", entry.name)));
        }
        let Some(fingerprint) = fingerprint(&entry)? else { return Ok(Binding(None)) };
        let mut state = self.bindings().0.lock();
        // Looked at once nobody can change what it says of allow_raw_signing.
        state.check(&self.table(), &fingerprint, &entry, mount)?;
        if !state.is_bound(&fingerprint, uuid, mount) {
            self.check_uses_known(&entry)?;
        }
        state.holder(fingerprint, uuid, mount).held += 1;
        let (key, mount) = (uuid.to_owned(), mount.uuid.clone());
        Ok(Binding(Some(Held { bindings: self.bindings().clone(), fingerprint, key, mount })))
    }

    /// Ends one use of a managed key that was noted, and is noted no more.
    pub fn unbind(&self, mount: &Mount, uuid: &str) {
        let fingerprint = self.by_uuid(uuid).and_then(|entry| fingerprint(&entry).ok().flatten());
        if let Some(fingerprint) = fingerprint {
            self.bindings().0.lock().change(&fingerprint, uuid, &mount.uuid, |holder| {
                holder.noted = holder.noted.saturating_sub(1);
            });
        }
    }

    /// Begins to take `allow_raw_signing` back from a managed key, until what is answered is dropped. Refused while that is what
    /// lets engines of several types use the key.
    pub(super) fn withdraw_raw_signing(&self, uuid: &str) -> Result<Withdrawal, Fault> {
        let mut state = self.bindings().0.lock();
        let entry = self.by_uuid(uuid).ok_or_else(|| gone(uuid))?;
        if let Some(fingerprint) = fingerprint(&entry)? {
            let holders = state.live(&fingerprint);
            let engines: BTreeSet<&str> = holders.iter().map(|holder| holder.mount.engine.as_str()).collect();
            if engines.len() > 1 && holders.iter().any(|holder| holder.key == uuid) {
                let engines: Vec<&str> = engines.into_iter().collect();
                return Err(Fault::invalid(format!(
                    "allow_raw_signing of managed key {:?} cannot be taken back: its key is used by mounts of several types ({}); \
                     end the uses of all but one type first",
                    entry.name,
                    engines.join(", ")
                )));
            }
        }
        state.withdrawing.insert(uuid.to_owned());
        Ok(Withdrawal(self.bindings().clone(), uuid.to_owned()))
    }

    /// Reads who uses the keys of the table, and those of namespaces that are not served, from the store. Keys that engines of
    /// several types have come to use in a version that allowed it go on so, and are told of.
    pub(super) fn load_bindings(&self, mounts: Mounts, away: &[Arc<Entry>]) -> Result<(), Fault> {
        let table = self.table();
        let mut read = State::default();
        for (namespace, entries) in table.all() {
            let there = mounts(namespace);
            for entry in entries {
                let Some(fingerprint) = fingerprint(entry)? else { continue };
                read.load(self.store(), namespace, &entry.uuid, fingerprint, &there)?;
            }
        }
        for key in away {
            let Some(fingerprint) = fingerprint(key)? else { continue };
            read.load(self.store(), &key.namespace, &key.uuid, fingerprint, &mounts(&key.namespace))?;
            if key.settings.allow_raw_signing {
                read.raw_away.insert(key.uuid.clone());
            }
        }
        read.mounts = Some(mounts);
        read.holders.keys().for_each(|fingerprint| read.tell_if_mixed(&table, fingerprint));
        *self.bindings().0.lock() = read;
        Ok(())
    }

    /// Forgets the uses by mounts that `gone` says are.
    pub(super) fn forget_bindings(&self, gone: impl Fn(&Mount) -> bool) {
        self.bindings().0.lock().holders.retain(|_, holders| {
            holders.retain(|holder| !gone(&holder.mount));
            !holders.is_empty()
        });
    }
}

impl State {
    /// Reads who uses a key from the store.
    fn load(
        &mut self,
        store: &Store,
        namespace: &Namespace,
        key: &str,
        fingerprint: Fingerprint,
        there: &[Arc<Mount>],
    ) -> Result<(), Fault> {
        uses::each(store, namespace, key, |mount| {
            // That of a mount that is gone is stale.
            if let Some(mount) = there.iter().find(|known| known.uuid == mount) {
                self.holder(fingerprint, key, mount).noted += 1;
            }
        })
    }

    fn holder(&mut self, fingerprint: Fingerprint, key: &str, mount: &Arc<Mount>) -> &mut Holder {
        let holders = self.holders.entry(fingerprint).or_default();
        let index = holders.iter().position(|holder| holder.key == key && holder.mount.uuid == mount.uuid);
        let index = index.unwrap_or_else(|| {
            holders.push(Holder { key: key.to_owned(), mount: Arc::clone(mount), noted: 0, held: 0 });
            holders.len() - 1
        });
        &mut holders[index]
    }

    /// Changes the counts of a holder, if there is one, and forgets it with its last use.
    fn change(&mut self, fingerprint: &Fingerprint, key: &str, mount: &str, change: impl FnOnce(&mut Holder)) {
        let Some(holders) = self.holders.get_mut(fingerprint) else { return };
        let Some(index) = holders.iter().position(|holder| holder.key == key && holder.mount.uuid == mount) else {
            return;
        };
        change(&mut holders[index]);
        if holders[index].noted + holders[index].held == 0 {
            holders.swap_remove(index);
        }
        if holders.is_empty() {
            self.holders.remove(fingerprint);
        }
    }

    /// Whether engines of the type of `mount` use the key by this managed key.
    fn is_bound(&self, fingerprint: &Fingerprint, key: &str, mount: &Mount) -> bool {
        let mut holders = self.holders.get(fingerprint).into_iter().flatten();
        holders.any(|holder| holder.key == key && holder.mount.engine == mount.engine)
    }

    /// Those whose mounts are there.
    fn live(&self, fingerprint: &Fingerprint) -> Vec<&Holder> {
        let mut holders: Vec<&Holder> = self.holders.get(fingerprint).into_iter().flatten().collect();
        let Some(mounts) = &self.mounts else { return holders };
        let namespaces: HashSet<Namespace> = holders.iter().map(|holder| holder.mount.namespace.clone()).collect();
        let mounts = namespaces.iter().flat_map(|namespace| mounts(namespace));
        let there: HashSet<String> = mounts.map(|mount| mount.uuid.clone()).collect();
        holders.retain(|holder| there.contains(&holder.mount.uuid));
        holders
    }

    /// Whether a managed key's settings let engines of other types use its key too.
    fn allows_raw(&self, table: &Table, uuid: &str) -> bool {
        let served = table.by_uuid(uuid).map(|entry| entry.settings.allow_raw_signing);
        served.unwrap_or_else(|| self.raw_away.contains(uuid)) && !self.withdrawing.contains(uuid)
    }

    /// Refuses a use by `mount` of the key behind `entry`.
    fn check(&self, table: &Table, fingerprint: &Fingerprint, entry: &Entry, mount: &Mount) -> Result<(), Fault> {
        // Most keys are used by one mount: nobody else is looked for then.
        if self
            .holders
            .get(fingerprint)
            .is_none_or(|holders| holders.iter().all(|holder| holder.mount.engine == mount.engine))
        {
            return Ok(());
        }
        let holders = self.live(fingerprint);
        let (same, others): (Vec<&Holder>, Vec<&Holder>) =
            holders.iter().partition(|holder| holder.mount.engine == mount.engine);
        // One more of what there is changes nothing.
        if same.iter().any(|holder| holder.key == entry.uuid) {
            return Ok(());
        }
        let Some(other) = others.first() else { return Ok(()) };
        let keys = holders.iter().map(|holder| holder.key.as_str()).chain([entry.uuid.as_str()]);
        let forbidding: BTreeSet<&str> = keys.filter(|uuid| !self.allows_raw(table, uuid)).collect();
        if forbidding.is_empty() {
            return Ok(());
        }
        Err(refusal(table, &forbidding, other, entry, mount))
    }

    /// Tells the operator of a key that engines of several types use though its managed keys do not say that they may.
    fn tell_if_mixed(&self, table: &Table, fingerprint: &Fingerprint) {
        let holders = self.live(fingerprint);
        let engines: BTreeSet<&str> = holders.iter().map(|holder| holder.mount.engine.as_str()).collect();
        let entries = holders.iter().filter(|holder| !self.allows_raw(table, &holder.key));
        let names: BTreeSet<&str> =
            entries.filter_map(|holder| table.by_uuid(&holder.key)).map(|entry| entry.name.as_str()).collect();
        if engines.len() < 2 || names.is_empty() {
            return;
        }
        let namespace = holders.first().map(|holder| holder.mount.namespace.to_string()).unwrap_or_default();
        tracing::error!(
            namespace, keys = ?names, ?engines,
            "A KEY IS USED BY MOUNTS OF SEVERAL TYPES: whoever may sign by one of them can forge what the others sign. That goes \
             on, since it was so before; end the uses of all but one type, or set allow_raw_signing on these managed keys if \
             it is meant"
        );
    }
}

/// Names only what lies in the entry's own namespace.
fn refusal(table: &Table, forbidding: &BTreeSet<&str>, other: &Holder, entry: &Entry, mount: &Mount) -> Fault {
    let own = |uuid: &str| table.by_uuid(uuid).filter(|known| known.namespace == entry.namespace);
    let by = match own(&other.key) {
        Some(_) if other.key == entry.uuid => format!("mount {:?}", other.mount.path),
        Some(key) => format!("mount {:?}, as managed key {:?}", other.mount.path, key.name),
        None => "a mount of another namespace".to_owned(),
    };
    let names: BTreeSet<&str> = forbidding.iter().filter_map(|uuid| own(uuid)).map(|key| key.name.as_str()).collect();
    let names: Vec<String> = names.into_iter().map(|name| format!("{name:?}")).collect();
    Fault::invalid(format!(
        "managed key {:?} cannot be used by {} mount {:?}: its key is bound to type {} (by {by}), so that it signs nothing else; use \
         another key, or set allow_raw_signing on managed key {} if it is to serve both",
        entry.name,
        mount.engine,
        mount.path,
        other.mount.engine,
        names.join(" and ")
    ))
}

/// `None` of a secret key, and of one that was never used.
fn fingerprint(entry: &Entry) -> Result<Option<Fingerprint>, Fault> {
    let Some(public) = entry.ready.as_ref().and_then(|ready| ready.identity.public()) else { return Ok(None) };
    let digest = crypto::digest(Hash::Sha2_256, crypto::subject_public_key(public)?)?;
    let wrong = |_| Fault::internal("a SHA-256 digest has another length than 32 bytes");
    Fingerprint::try_from(digest.as_bytes()).map(Some).map_err(wrong)
}

#[cfg(test)]
#[path = "bindings_tests.rs"]
mod tests;
