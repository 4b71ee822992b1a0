//! Keys of a mount's own, for clients that never heard of managed keys: each is registered for one mount, generated at once
//! where the mount's options say, and unregistered once nothing of the mount uses it. The key on the token always stays.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::abilities::{self, Own};
use super::handle::Handle;
use super::pkcs11::Pkcs11;
use super::record::COLLECTION;
use super::registry::{Entry, ManagedKeys, gone};
use super::settings::{Native, Settings};
use super::{trial, uses};
use crate::model::{Class, Deadline, Fault, KeyIdentity, KeyKind, Mount, Namespace, Terms, TokenSelector};
use crate::store::{RecordKey, Write};

/// The option that names a library that carries its PIN.
const LIBRARY: &str = "kms_library";
/// The option that names a pool.
const POOL: &str = "kms_pool";
/// The option that names the library's token.
const TOKEN: &str = "token_label";

/// Keys unregistered by one commit.
const ENDED_AT_ONCE: usize = 1000;

/// Where a mount makes keys of its own.
struct Place {
    library: String,
    token: Option<TokenSelector>,
}

/// A key just made for a mount.
pub struct OwnKey {
    /// The key, ready for use.
    pub handle: Handle,
    /// What was recorded of it.
    pub identity: KeyIdentity,
    /// To be held until the use of the key is noted in the store.
    pub registration: Registration,
}

/// The registration of a key just made. Dropped, it is taken back unless a use of the key was noted: so it does not outlive
/// a request that failed, or whose asker left.
pub struct Registration(ManagedKeys, Arc<Entry>);

impl Drop for Registration {
    fn drop(&mut self) {
        // Without a runtime the daemon is going down, and its next start does the same.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (keys, namespace, uuid) = (self.0.clone(), self.1.namespace.clone(), self.1.uuid.clone());
        runtime.spawn(async move { keys.end_unused(&namespace, vec![uuid]).await });
    }
}

impl ManagedKeys {
    /// Refuses options of a mount in `namespace` that name no place where keys can be made. Those that name none at all are fine, and
    /// options of other names are not looked at.
    pub fn check_options(&self, namespace: &Namespace, options: &BTreeMap<String, String>) -> Result<(), Fault> {
        self.place(namespace, options).map(|_| ())
    }

    /// Whether the mount's options name a place where keys can be made.
    pub fn makes_keys_for(&self, mount: &Mount) -> bool {
        matches!(self.place(&mount.namespace, &mount.options), Ok(Some(_)))
    }

    /// Makes a key of this kind for `mount`, where its options say: registers it, for this mount alone, has it generated and
    /// proven, and records it. It does the one thing that the mechanism of its kind does.
    ///
    /// # Errors
    ///
    /// [`Fault::InvalidRequest`] where the options name no place; else those of a first use. Nothing stays registered then.
    pub async fn make_for(&self, mount: &Mount, kind: KeyKind, deadline: Deadline) -> Result<OwnKey, Fault> {
        let place = self.place(&mount.namespace, &mount.options)?.ok_or_else(|| no_place(mount))?;
        let uuid = uuid::Uuid::new_v4().to_string();
        let name = format!("mount-{}-{uuid}", mount.uuid.get(..8).unwrap_or(&mount.uuid));
        let settings = settings(place, &name, kind, mount);
        let (this, namespace) = (self.clone(), mount.namespace.clone());
        let register = move || {
            let entry = this.put_now(&namespace, &name, uuid, settings, None)?;
            Ok(Registration(this, entry))
        };
        let registration = self.changes().run(&mount.namespace, register).await?;
        let (entry, identity) = self.ready(&registration.1, deadline).await.map_err(|fault| not_made(kind, fault))?;
        Ok(OwnKey { handle: Handle { keys: self.clone(), entry }, identity, registration })
    }

    /// The same, of a key that does all that its kind does in Vault and its token can: it is tried here.
    pub async fn make_able_for(&self, mount: &Mount, kind: KeyKind, deadline: Deadline) -> Result<OwnKey, Fault> {
        let mut made = self.make_for(mount, kind, deadline).await?;
        if abilities::of_own(kind).is_empty() {
            return Ok(made);
        }
        let Some(route) = self.route(&made.handle.entry)? else {
            return Err(Fault::internal("a key is not ready after its first use"));
        };
        let terms = Terms { class: Class::Interactive, deadline };
        let shown = trial::shown(&route, &made.identity, terms).await?;
        let (this, uuid) = (self.clone(), made.handle.entry.uuid.clone());
        let note = move || this.note_shown_now(&uuid, shown);
        made.handle.entry = self.changes().run(&mount.namespace, note).await?;
        Ok(made)
    }

    fn note_shown_now(&self, uuid: &str, shown: Vec<&'static Own>) -> Result<Arc<Entry>, Fault> {
        let entry = self.by_uuid(uuid).ok_or_else(|| gone(uuid))?;
        let settings = Settings { shown: Some(shown), ..entry.settings.clone() };
        self.put_now(&entry.namespace, &entry.name, entry.uuid.clone(), settings, Some(&entry))
    }

    /// Unregisters those of the keys `uuids` that are a mount's own and that nothing uses any more. What fails is logged: the
    /// next start does it.
    pub async fn end_unused(&self, namespace: &Namespace, uuids: Vec<String>) {
        let (this, own) = (self.clone(), namespace.clone());
        let end = move || this.end_unused_now(&uuids);
        if let Err(fault) = self.changes().run(namespace, end).await {
            tracing::warn!(
                namespace = %own, %fault,
                "keys that nothing of their mount uses stay registered: the next start unregisters them"
            );
        }
    }

    /// The same for all keys of a mount that was disabled.
    pub async fn end_mount(&self, mount: &Mount) {
        self.forget_bindings(|known| known.uuid == mount.uuid);
        let owned = self.owned(&mount.namespace, |owner| owner == mount.uuid);
        if !owned.is_empty() {
            self.end_unused(&mount.namespace, owned).await;
        }
    }

    /// The same for every mount of a namespace, at the start: nothing is being made then.
    pub(super) fn end_leftovers(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.end_unused_now(&self.owned(namespace, |_| true))
    }

    fn end_unused_now(&self, uuids: &[String]) -> Result<(), Fault> {
        uuids.chunks(ENDED_AT_ONCE).try_for_each(|uuids| self.end_some(uuids))
    }

    fn end_some(&self, uuids: &[String]) -> Result<(), Fault> {
        let mut ended = Vec::new();
        for entry in uuids.iter().filter_map(|uuid| self.by_uuid(uuid)) {
            if entry.settings.owner.is_some() && !uses::any(self.store(), &entry.namespace, &entry.uuid)? {
                ended.push(entry);
            }
        }
        if ended.is_empty() {
            return Ok(());
        }
        let record = |entry: &Arc<Entry>| RecordKey::new(&entry.namespace, COLLECTION, &entry.name);
        self.store().commit_now(ended.iter().map(|entry| Write::Delete { key: record(entry) }).collect())?;
        self.unpublish(&ended);
        for entry in ended {
            tracing::warn!(
                key = entry.name, namespace = %entry.namespace, library = entry.settings.library,
                "a key made for a mount, which nothing there uses, is not registered any more; what was generated on its \
                 token under that label stays there"
            );
        }
        Ok(())
    }

    fn place(&self, namespace: &Namespace, options: &BTreeMap<String, String>) -> Result<Option<Place>, Fault> {
        let given = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
        let refused = |why: String| Err(Fault::invalid(format!("the mount's options: {why}")));
        let (name, label) = match (given(LIBRARY), given(POOL), given(TOKEN)) {
            (None, None, None) => return Ok(None),
            (None, None, Some(_)) => return refused(format!("{TOKEN} says nothing without {LIBRARY}")),
            (Some(_), Some(_), _) => return refused(format!("only one of {LIBRARY} and {POOL} may be given")),
            (Some(_), None, None) => return refused(format!("{LIBRARY} takes a {TOKEN}, which is missing")),
            (None, Some(_), Some(_)) => {
                return refused(format!("{TOKEN} cannot be given with {POOL}, whose members name their tokens"));
            }
            (Some(library), None, label) => (library, label),
            (None, Some(pool), None) => (pool, None),
        };
        let info = self.look_up(namespace, name)?;
        match label {
            Some(_) if info.is_pool => refused(format!("{name:?} is a kms_pool: name it as {POOL}, without {TOKEN}")),
            None if !info.is_pool => refused(format!("{name:?} is a kms_library: name it as {LIBRARY}, with {TOKEN}")),
            Some(_) if !info.has_pin => refused(format!(
                "kms_library {name:?} carries no pin in the configuration, so no keys can be made with it"
            )),
            label => {
                let token = label.map(|label| TokenSelector::Label(label.to_owned()));
                Ok(Some(Place { library: info.name, token }))
            }
        }
    }
}

fn no_place(mount: &Mount) -> Fault {
    Fault::invalid(format!(
        "mount {path:?} has no token in which it could make keys of its own, and Keyway holds no private keys itself: name \
         one in the mount's options (sys/mounts/{path}tune with options {{\"{LIBRARY}\": …, \"{TOKEN}\": …}} or \
         {{\"{POOL}\": …}}), or name a managed key in the request",
        path = mount.path
    ))
}

/// Says which key it was that a token refuses to make: what a token says of its own accord is seldom that.
fn not_made(kind: KeyKind, fault: Fault) -> Fault {
    match fault {
        Fault::NotSupported { what } => {
            Fault::NotSupported { what: format!("a key of kind {kind} in the mount's token: {what}") }
        }
        fault => fault,
    }
}

fn settings(place: Place, name: &str, kind: KeyKind, mount: &Mount) -> Settings {
    let pkcs11 = Pkcs11::made(name, kind);
    let usages = pkcs11.mechanism.uses();
    Settings {
        library: place.library,
        token: place.token,
        native: Native::Pkcs11(Box::new(pkcs11)),
        allow_generate_key: true,
        allow_replace_key: false,
        allow_store_key: false,
        any_mount: false,
        allow_raw_signing: false,
        max_parallel: None,
        usages,
        owner: Some(mount.uuid.clone()),
        shown: None,
    }
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
