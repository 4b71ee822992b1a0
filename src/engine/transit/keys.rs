//! `keys/:name`: create, read, list and delete.

use std::collections::HashMap;
use std::sync::Arc;

use super::key::{TYPE, TransitKey, VersionRecord};
use super::making::Turn;
use super::own_type::{DEFAULT, OwnType};
use super::{Transit, auto_rotate};
use crate::engine::Call;
use crate::engine::name::{NAME_MAX, is_name};
use crate::managed_keys::{Binding, Handle, KeyRef, OwnKey, Registration};
use crate::model::{Data, Deadline, Fault, Fields, KeyIdentity, Mount, Response};
use crate::store::Write;

/// The most keys of one mount.
const KEYS_MAX: usize = 100_000;
/// Fields of Vault's that mean nothing for a key in a token; refused when they are set.
const OTHER_TYPES: [&str; 4] = ["hybrid_key_type_pqc", "hybrid_key_type_ec", "exportable", "allow_plaintext_backup"];

/// What `POST keys/:name` and `POST keys/:name/rotate` say.
#[derive(Clone)]
pub(super) struct Wish {
    /// The type of a key that the mount makes itself.
    pub(super) own: Option<OwnType>,
    managed_key_name: Option<String>,
    managed_key_id: Option<String>,
    /// Of a new key.
    auto_rotate_seconds: u64,
    pub(super) warnings: Vec<String>,
}

impl Wish {
    fn parse(data: &Data) -> Result<Wish, Fault> {
        let mut fields = Fields::below(data, &["name"]);
        let kind = fields.filled("type")?;
        let derived = fields.boolean("derived")?.unwrap_or(false);
        if fields.boolean("convergent_encryption")?.unwrap_or(false) || derived {
            return Err(Fault::invalid(format!(
                "key derivation and convergent encryption not supported for keys of type {}",
                kind.as_deref().unwrap_or(DEFAULT)
            )));
        }
        fields.refuse(&OTHER_TYPES)?;
        let own = if kind.as_deref() == Some(TYPE) {
            fields.refuse(&["key_size", "parameter_set"])?;
            None
        } else {
            Some(OwnType::parse(kind, &mut fields)?)
        };
        let auto_rotate_seconds = auto_rotate::period(&mut fields, own.as_ref())?.unwrap_or(0);
        Ok(Wish { auto_rotate_seconds, ..Wish::of_version(own, fields)? })
    }

    /// The next version of a key that the mount makes.
    pub(super) fn next_of(own: OwnType) -> Wish {
        Wish {
            own: Some(own),
            managed_key_name: None,
            managed_key_id: None,
            auto_rotate_seconds: 0,
            warnings: Vec::new(),
        }
    }

    /// What a request says of the next version of a key, with the fields that name a managed key the last to be read. A key of
    /// an `own` type takes none.
    pub(super) fn of_version(own: Option<OwnType>, mut fields: Fields<'_>) -> Result<Wish, Fault> {
        let managed_key_name = fields.filled("managed_key_name")?;
        let managed_key_id = fields.filled("managed_key_id")?;
        if let Some(own) = &own
            && (managed_key_name.is_some() || managed_key_id.is_some())
        {
            return Err(Fault::invalid(format!(
                "managed_key_name and managed_key_id are for keys of type {TYPE}, and this one's is {}",
                own.name()
            )));
        }
        Ok(Wish { own, managed_key_name, managed_key_id, auto_rotate_seconds: 0, warnings: fields.warnings() })
    }

    /// Whether it names a managed key, and has none made.
    pub(super) fn is_managed(&self) -> bool {
        self.own.is_none()
    }

    fn managed_key(&self) -> Result<KeyRef<'_>, Fault> {
        match (self.managed_key_name.as_deref(), self.managed_key_id.as_deref()) {
            (Some(name), None) => Ok(KeyRef::Name(name)),
            (None, Some(id)) => Ok(KeyRef::Uuid(id)),
            (None, None) => Err(Fault::invalid("missing argument managed_key_name or managed_key_id")),
            (Some(_), Some(_)) => {
                Err(Fault::invalid("only one argument of managed_key_name or managed_key_id should be specified"))
            }
        }
    }
}

/// How a use of a managed key is noted.
pub(super) fn user(name: &str, version: u32) -> String {
    format!("transit key {name} version {version}")
}

/// The managed key of a new version.
pub(super) struct NewVersion {
    pub(super) handle: Handle,
    pub(super) identity: KeyIdentity,
    /// To be kept once its use is noted.
    pub(super) binding: Binding,
    /// Of a key that was made for this; to be held until its use is noted.
    pub(super) _registration: Option<Registration>,
}

impl NewVersion {
    /// What is said of it, and `more`.
    pub(super) fn warnings(&self, more: Vec<String>) -> Vec<String> {
        more.into_iter().chain(self.handle.warnings()).collect()
    }
}

impl Transit {
    /// Finds the managed key of a new version, or makes it.
    pub(super) async fn new_version(&self, call: &Call, wish: &Wish) -> Result<NewVersion, Fault> {
        if let Some(own) = &wish.own {
            let made = self.keys.make_able_for(&call.mount, own.kind()?, call.deadline).await?;
            let OwnKey { handle, identity, registration } = made;
            let binding = self.keys.bind(&call.mount, handle.uuid())?;
            return Ok(NewVersion { handle, identity, binding, _registration: Some(registration) });
        }
        let handle = self.keys.resolve(&call.mount, wish.managed_key()?)?;
        let (handle, identity) = handle.identified(call.deadline).await?;
        let binding = self.keys.bind(&call.mount, handle.uuid())?;
        Ok(NewVersion { handle, identity, binding, _registration: None })
    }

    /// `POST keys/:name`. The managed key is found, or generated where that is allowed, before the answer.
    pub(super) async fn create_key(self: Arc<Self>, call: Call, name: String, data: Data) -> Result<Response, Fault> {
        if !is_name(&name) {
            return Err(Fault::invalid(format!(
                "key name {name:?}: expected letters, digits, _, - and ., at most {NAME_MAX}, with a letter or digit at \
                 both ends"
            )));
        }
        if let Some(key) = self.key(&name) {
            return already_there(&name, &key);
        }
        let wish = Wish::parse(&data)?;
        if wish.is_managed() {
            return self.create(call, name, wish).await;
        }
        self.check_room()?;
        let begin = || Arc::clone(&self).create(self.making_call(&call), name.clone(), wish);
        match self.making.turn(&name, begin)? {
            Turn::Mine(attempt) => attempt.await,
            Turn::Others(attempt) => {
                attempt.await?;
                let key = self.key(&name).ok_or_else(|| Fault::Unavailable {
                    what: format!("key {name} was deleted while it was waited for; try again"),
                })?;
                already_there(&name, &key)
            }
        }
    }

    fn check_room(&self) -> Result<(), Fault> {
        if self.table.load().len() < KEYS_MAX {
            return Ok(());
        }
        Err(Fault::invalid(format!("this mount has {KEYS_MAX} keys, as many as there may be")))
    }

    /// A call that has all the time which a token may take to make a key.
    pub(super) fn making_call(&self, call: &Call) -> Call {
        Call { deadline: Deadline::after(self.making_span), ..call.clone() }
    }

    async fn create(self: Arc<Self>, call: Call, name: String, wish: Wish) -> Result<Response, Fault> {
        let new = self.new_version(&call, &wish).await?;
        let warnings = new.warnings(wish.warnings);
        let key = Arc::new(TransitKey::new(&new.handle, &new.identity, wish.own, wish.auto_rotate_seconds)?);
        let mount = Arc::clone(&call.mount);
        let this = Arc::clone(&self);
        self.change(move |transit| {
            if let Some(key) = transit.key(&name) {
                return already_there(&name, &key);
            }
            transit.check_room()?;
            let mut table = HashMap::clone(&transit.table.load());
            let NewVersion { handle, identity: _, binding, _registration } = new;
            let uses = this.keys.note_use(&mount, handle.uuid(), &user(&name, 1));
            transit.store.commit_now(vec![Write::create_record(transit.records.key(&name), &key.record)?, uses])?;
            binding.keep();
            tracing::info!(
                namespace = %mount.namespace, mount = mount.path, key = name, managed_key = handle.name(),
                uid = call.caller.peer.uid, "transit key created"
            );
            let shown = key.show(&name)?;
            table.insert(name, key);
            transit.table.store(Arc::new(table));
            Ok(Response::with_warnings(shown, warnings))
        })
        .await
    }

    /// `GET keys/:name`.
    pub(super) fn read_key(&self, name: &str) -> Result<Response, Fault> {
        let key = self.key(name).ok_or_else(Fault::absent)?;
        key.show(name).map(Response::data)
    }

    /// `LIST keys`.
    pub(super) fn list_keys(&self) -> Result<Response, Fault> {
        let mut names: Vec<String> = self.table.load().keys().cloned().collect();
        names.sort_unstable();
        if names.is_empty() { Err(Fault::absent()) } else { Ok(Response::keys(names)) }
    }

    /// `DELETE keys/:name`. The managed keys stay registered, but for those that the mount made.
    pub(super) async fn delete_key(self: Arc<Self>, call: Call, name: String) -> Result<Response, Fault> {
        let refused = |name: &str, why: &str| Err(Fault::invalid(format!("error deleting policy {name}: {why}")));
        let (this, namespace) = (Arc::clone(&self), call.mount.namespace.clone());
        let freed = self.change(move |transit| {
            let mut table = HashMap::clone(&transit.table.load());
            let Some(key) = table.remove(&name) else { return refused(&name, "could not delete key; not found") };
            if !key.record.deletion_allowed {
                return refused(&name, "deletion is not allowed for this policy");
            }
            transit.store.commit_now(transit.key_removal(&call.mount, &name, &key))?;
            let managed_keys = || key.record.versions.iter().map(|version| version.managed_key.clone());
            managed_keys().for_each(|uuid| transit.keys.unbind(&call.mount, &uuid));
            transit.table.store(Arc::new(table));
            tracing::info!(
                namespace = %call.mount.namespace, mount = call.mount.path, key = name, uid = call.caller.peer.uid,
                "transit key deleted"
            );
            Ok(managed_keys().collect())
        });
        this.keys.end_unused(&namespace, freed.await?).await;
        Ok(Response::Empty)
    }

    /// The changes that remove a key.
    pub(super) fn key_removal(&self, mount: &Mount, name: &str, key: &TransitKey) -> Vec<Write> {
        let drop_use = |(number, version): (u32, &VersionRecord)| {
            self.keys.drop_use(mount, &version.managed_key, &user(name, number))
        };
        let mut writes: Vec<Write> = key.record.numbered().map(drop_use).collect();
        writes.push(Write::Delete { key: self.records.key(name) });
        writes
    }
}

fn already_there(name: &str, key: &TransitKey) -> Result<Response, Fault> {
    Ok(Response::with_warnings(key.show(name)?, vec![format!("key {name} already existed")]))
}
