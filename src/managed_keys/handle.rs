//! A managed key as an engine sees it.

use crate::model::{
    Deadline, Fault, KeyKind, KeyOperation, KeyUsage, Mount, PublicKey, SignatureScheme, Terms,
};
use crate::store::Write;
use crate::supervisor::Pending;

/// How a request names a managed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRef<'a> {
    /// By its name in the mount's namespace.
    Name(&'a str),
    /// By its UUID, which a new key of the same name does not inherit.
    Uuid(&'a str),
}

/// Every managed key. Cheap to clone.
#[derive(Clone, Debug)]
pub struct ManagedKeys {}

impl ManagedKeys {
    /// The managed key `key` names, if `mount` may use it: same namespace, and `any_mount` or listed in the mount's
    /// `allowed_managed_keys`. Looks at snapshots only.
    pub fn resolve(&self, _mount: &Mount, _key: KeyRef<'_>) -> Result<Handle, Fault> {
        Err(Fault::internal("not built yet"))
    }

    /// A change for an engine's own commit: notes that `user` (such as `issuer 0b7e…`, `key doc version 1`) of `mount`
    /// uses the managed key `uuid`, so that it cannot be deleted.
    pub fn note_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Delete { key: crate::store::RecordKey::new(&mount.namespace, uuid, user) }
    }

    /// The change that takes [`ManagedKeys::note_use`] back.
    pub fn drop_use(&self, mount: &Mount, uuid: &str, user: &str) -> Write {
        Write::Delete { key: crate::store::RecordKey::new(&mount.namespace, uuid, user) }
    }
}

/// One managed key, lent to an engine for one operation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Handle {}

impl Handle {
    /// The key's name.
    pub fn name(&self) -> &str {
        ""
    }

    /// The key's UUID, which engines store.
    pub fn uuid(&self) -> &str {
        ""
    }

    /// The public key recorded, once there was a first use.
    pub fn public_key(&self) -> Option<PublicKey> {
        None
    }

    /// Makes the key ready for an engine's first use: finds it, or generates it where that is allowed, has it proven,
    /// and records its public key durably.
    pub async fn ready(&self, _deadline: Deadline) -> Result<PublicKey, Fault> {
        Err(Fault::internal("not built yet"))
    }

    /// Refuses with Vault's words where `usages` lacks `usage`.
    pub fn require(&self, _usage: KeyUsage) -> Result<(), Fault> {
        Ok(())
    }

    /// The scheme used when the client names none: what the key's mechanism says (PSS with `salt`, where it says PSS).
    pub fn default_scheme(&self, _kind: KeyKind, _salt: u16) -> Result<SignatureScheme, Fault> {
        Err(Fault::internal("not built yet"))
    }

    /// Refuses where the key's mechanism does not allow `scheme`.
    pub fn require_scheme(&self, _scheme: SignatureScheme) -> Result<(), Fault> {
        Ok(())
    }

    /// Queues one operation; see [`crate::supervisor::KeyRoute::submit`]. Checks `usages` for it, too.
    pub fn submit(&self, _operation: KeyOperation, _terms: &Terms) -> Result<Pending, Fault> {
        Err(Fault::internal("not built yet"))
    }
}
