//! A managed key as an engine sees it.

use std::sync::Arc;

use super::registry::{Entry, ManagedKeys};
use crate::model::{
    CipherScheme, Deadline, Fault, Hash, KeyIdentity, KeyOperation, KeyUsage, PublicKey, SignatureScheme, Terms,
};
use crate::supervisor::Pending;

/// How a request names a managed key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRef<'a> {
    /// By its name in the mount's namespace.
    Name(&'a str),
    /// By its UUID, which a new key of the same name does not inherit.
    Uuid(&'a str),
}

/// One managed key, lent to an engine for one operation. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    pub(super) keys: ManagedKeys,
    pub(super) entry: Arc<Entry>,
}

impl Handle {
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.entry.name
    }

    /// The key's UUID, which engines store.
    pub fn uuid(&self) -> &str {
        &self.entry.uuid
    }

    /// The public key recorded, once there was a first use; a secret key has none.
    pub fn public_key(&self) -> Option<&PublicKey> {
        self.entry.ready.as_ref().and_then(|(identity, _)| identity.public())
    }

    /// Makes the key ready for an engine's first use: finds it, or generates it where that is allowed, has it proven, and
    /// records its public key durably. The handle answered has it; this one stays as it was. For engines that use key pairs.
    pub async fn ready(&self, deadline: Deadline) -> Result<(Handle, PublicKey), Fault> {
        if self.entry.settings.mechanism.is_secret() {
            let (name, mechanism) = (&self.entry.name, self.entry.settings.mechanism);
            let what = format!("a public key of managed key {name:?}, whose mechanism is {mechanism}");
            return Err(Fault::NotSupported { what });
        }
        let (handle, identity) = self.identified(deadline).await?;
        let public = identity.public().cloned();
        let public = public.ok_or_else(|| Fault::internal("a key pair was recorded without its public key"))?;
        Ok((handle, public))
    }

    /// The same for a key of any kind: answers what is recorded of it.
    pub async fn identified(&self, deadline: Deadline) -> Result<(Handle, KeyIdentity), Fault> {
        let (entry, identity) = self.keys.ready(&self.entry, deadline).await?;
        Ok((Handle { keys: self.keys.clone(), entry }, identity))
    }

    /// Refuses where `usages` lacks `usage`.
    pub fn require(&self, usage: KeyUsage) -> Result<(), Fault> {
        if self.entry.settings.usages.allows(usage) {
            return Ok(());
        }
        let (name, usage) = (&self.entry.name, usage.name());
        Err(Fault::invalid(format!("managed key {name:?} does not allow usage {usage:?}: add it to the key's usages")))
    }

    /// The scheme used when the client names none: what the key's mechanism says. `salt` is the PSS salt length to use.
    pub fn default_scheme(&self, salt: u16) -> Result<SignatureScheme, Fault> {
        self.entry.settings.mechanism.default_scheme(&self.entry.name, salt)
    }

    /// Refuses where the key's mechanism does not allow `scheme`.
    pub fn require_scheme(&self, scheme: SignatureScheme) -> Result<(), Fault> {
        self.entry.settings.mechanism.require_scheme(&self.entry.name, scheme)
    }

    /// How the key encrypts and decrypts; refuses where its mechanism does not.
    pub fn cipher(&self) -> Result<CipherScheme, Fault> {
        let settings = &self.entry.settings;
        settings.mechanism.cipher(&self.entry.name, settings.rsa_oaep_hash)
    }

    /// The hash of the HMACs the key makes; refuses where its mechanism makes none.
    pub fn mac_hash(&self) -> Result<Hash, Fault> {
        self.entry.settings.mechanism.mac_hash(&self.entry.name)
    }

    /// Refuses what `usages` or the mechanism forbid.
    fn allow(&self, operation: &KeyOperation) -> Result<(), Fault> {
        let (usage, fits) = match operation {
            KeyOperation::Sign { scheme, .. } => {
                self.require(KeyUsage::Sign)?;
                return self.require_scheme(*scheme);
            }
            KeyOperation::Encrypt { cipher, .. } => (KeyUsage::Encrypt, cipher.scheme() == Some(self.cipher()?)),
            KeyOperation::Decrypt { cipher, .. } => (KeyUsage::Decrypt, cipher.scheme() == Some(self.cipher()?)),
            KeyOperation::Mac { hash, .. } => (KeyUsage::Mac, *hash == self.mac_hash()?),
        };
        self.require(usage)?;
        if fits { Ok(()) } else { Err(Fault::internal("an operation does not fit the mechanism of its managed key")) }
    }

    /// Queues one operation. Refuses at once where `usages` or the mechanism forbid it, or the lane is full.
    pub fn submit(&self, operation: KeyOperation, terms: Terms) -> Result<Pending, Fault> {
        self.allow(&operation)?;
        let Some((_, route)) = &self.entry.ready else {
            let reason = "it was never used: run its test/sign first".into();
            return Err(Fault::KeyUnavailable { key: self.entry.name.clone(), reason });
        };
        route.submit(operation, terms)
    }
}
