//! A managed key as an engine sees it.

use std::sync::Arc;

use super::pkcs11::oaep_hash_name;
use super::ready::Ready;
use super::registry::{Entry, ManagedKeys};
use crate::model::{
    CipherScheme, CloudKind, Deadline, Fault, Hash, KeyIdentity, KeyOperation, KeyUsage, PublicKey, RsaPadding,
    SignatureScheme, Terms,
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
        self.entry.ready.as_ref().and_then(|ready| ready.identity.public())
    }

    /// Makes the key ready for an engine's first use: finds it, or generates it where that is allowed, has it proven, and
    /// records its public key durably. The handle answered has it; this one stays as it was. For engines that use key pairs.
    pub async fn ready(&self, deadline: Deadline) -> Result<(Handle, PublicKey), Fault> {
        let key_type = self.entry.settings.key_type();
        if key_type.is_secret() {
            let (name, described) = (&self.entry.name, key_type.described());
            let what = format!("a public key of managed key {name:?}, {described}");
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

    /// The scheme of a test signature, which may say whether it is to be by PSS. `salt` is the PSS salt length to use.
    pub fn tested_scheme(&self, use_pss: Option<bool>, salt: u16) -> Result<SignatureScheme, Fault> {
        self.entry.abilities.tested_scheme(&self.entry.name, use_pss, salt)
    }

    /// Whether what is encrypted for it goes into an envelope: with a key of its own, which the key encrypts.
    pub fn makes_envelopes(&self) -> bool {
        self.entry.settings.cloud().is_some_and(|cloud| cloud.envelope)
    }

    /// Whether it may have made envelopes.
    pub fn opens_envelopes(&self) -> bool {
        self.entry.settings.cloud_kind().is_some_and(CloudKind::takes_envelopes)
    }

    /// How the key encrypts and decrypts, with the padding that a client asks for; refuses where it does not.
    pub fn cipher(&self, asked: Option<RsaPadding>) -> Result<CipherScheme, Fault> {
        self.entry.abilities.cipher(&self.entry.name, asked)
    }

    /// The hash of the HMACs the key makes: the one that a client asks for, or its own. Refuses where it makes none such.
    pub fn mac_hash(&self, asked: Option<Hash>) -> Result<Hash, Fault> {
        self.entry.abilities.mac_hash(&self.entry.name, asked)
    }

    /// The hash of OAEP, of a key that does that, by its name in this API.
    pub fn oaep_hash(&self) -> Option<&'static str> {
        self.entry.abilities.oaep_hash().map(oaep_hash_name)
    }

    /// What is otherwise than with a key that Vault holds itself, for who had a mount make it.
    pub fn warnings(&self) -> Vec<String> {
        let kind = self.entry.ready.as_ref().map(|ready| ready.identity.kind());
        kind.map(|kind| self.entry.abilities.warnings(kind)).unwrap_or_default()
    }

    /// The same key, lent out.
    pub fn lent(&self) -> Lent<'_> {
        Lent { keys: &self.keys, entry: &self.entry }
    }

    /// See [`Lent::require`].
    pub fn require(&self, usage: KeyUsage) -> Result<(), Fault> {
        self.lent().require(usage)
    }

    /// See [`Lent::require_scheme`].
    pub fn require_scheme(&self, scheme: SignatureScheme) -> Result<(), Fault> {
        self.lent().require_scheme(scheme)
    }

    /// See [`Lent::default_scheme`].
    pub fn default_scheme(&self, salt: u16) -> Result<SignatureScheme, Fault> {
        self.lent().default_scheme(salt)
    }

    /// See [`Lent::submit`].
    pub fn submit(&self, operation: KeyOperation, terms: Terms) -> Result<Pending, Fault> {
        self.lent().submit(operation, terms)
    }
}

/// A managed key that is in nobody's hands but its table's: what is asked of it at once is counted nowhere that threads share.
#[derive(Clone, Copy)]
pub struct Lent<'k> {
    pub(super) keys: &'k ManagedKeys,
    pub(super) entry: &'k Arc<Entry>,
}

impl Lent<'_> {
    /// The key, to be kept.
    pub fn kept(self) -> Handle {
        Handle { keys: self.keys.clone(), entry: Arc::clone(self.entry) }
    }

    /// Refuses where `usages` lacks `usage`.
    pub fn require(&self, usage: KeyUsage) -> Result<(), Fault> {
        if self.entry.settings.usages.allows(usage) {
            return Ok(());
        }
        let (name, usage) = (&self.entry.name, usage.name());
        Err(Fault::invalid(format!("managed key {name:?} does not allow usage {usage:?}: add it to the key's usages")))
    }

    /// The scheme used when the client names none. `salt` is the PSS salt length to use.
    pub fn default_scheme(&self, salt: u16) -> Result<SignatureScheme, Fault> {
        self.entry.abilities.default_scheme(&self.entry.name, salt)
    }

    /// The hash of a signature whose client names none: SHA-256, or the only one that the key signs with.
    pub fn default_hash(&self) -> Hash {
        self.entry.settings.key_type().default_hash()
    }

    /// Whether its PSS signatures have a salt as long as the hash, and no other.
    pub fn has_fixed_salt(&self) -> bool {
        self.entry.settings.key_type().has_fixed_salt()
    }

    /// Refuses where the key makes no signatures of `scheme`.
    pub fn require_scheme(&self, scheme: SignatureScheme) -> Result<(), Fault> {
        self.entry.abilities.require_scheme(&self.entry.name, scheme)
    }

    /// Refuses what `usages` or the key's abilities forbid.
    fn allow(&self, operation: &KeyOperation) -> Result<(), Fault> {
        let usage = match operation {
            KeyOperation::Sign { .. } => KeyUsage::Sign,
            KeyOperation::Encrypt { .. } => KeyUsage::Encrypt,
            KeyOperation::Decrypt { .. } => KeyUsage::Decrypt,
            KeyOperation::Mac { .. } => KeyUsage::Mac,
        };
        let does = self.entry.abilities.does(&self.entry.name, operation)?;
        self.require(usage)?;
        if does {
            return Ok(());
        }
        Err(Fault::internal("an operation does not fit the mechanism of its managed key"))
    }

    /// Queues one operation. Refuses at once where `usages` or the key's abilities forbid it, or the lane is full.
    pub fn submit(&self, operation: KeyOperation, terms: Terms) -> Result<Pending, Fault> {
        self.allow(&operation)?;
        if let Some(route) = self.entry.ready.as_ref().and_then(Ready::served) {
            return route.submit(operation, terms);
        }
        let Some(route) = self.keys.route(self.entry)? else {
            let reason = "it was never used: run its test/sign first".into();
            return Err(Fault::KeyUnavailable { key: self.entry.name.clone(), reason });
        };
        route.submit(operation, terms)
    }
}
