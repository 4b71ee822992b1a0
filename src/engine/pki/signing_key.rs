//! The keys that sign: managed keys, and in tests keys in memory.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::managed_keys::{Binding, Handle, KeyRef, ManagedKeys, OwnKey, Pending, Registration};
use crate::model::{Fault, KeyKind, KeyOperation, KeyUsage, Mount, Namespace, PublicKey, SignatureScheme, Terms};
use crate::store::Write;

use super::algorithm::SignatureAlgorithm;
#[cfg(test)]
use super::software::Keyring;

/// Where signing keys come from.
#[derive(Clone)]
pub(super) enum KeySource {
    /// The managed keys of the mount's namespace.
    Managed(ManagedKeys),
    /// Keys in memory.
    #[cfg(test)]
    Software(Arc<Keyring>),
}

/// One key, for one operation.
#[derive(Clone)]
pub(super) enum SigningKey {
    /// A managed key.
    Managed(Handle),
    /// A key in memory.
    #[cfg(test)]
    Software(super::software::TestKey),
}

impl KeySource {
    /// The key that `key` names, if `mount` may use it.
    pub(super) fn resolve(&self, mount: &Mount, key: KeyRef<'_>) -> Result<SigningKey, Fault> {
        match self {
            KeySource::Managed(keys) => keys.resolve(mount, key).map(SigningKey::Managed),
            #[cfg(test)]
            KeySource::Software(keys) => keys.resolve(key).map(SigningKey::Software),
        }
    }

    /// Makes a key pair of this kind for `mount` in its token. The registration is to be held until its use is noted.
    pub(super) async fn make_for(
        &self,
        mount: &Mount,
        kind: KeyKind,
        terms: Terms,
    ) -> Result<(SigningKey, PublicKey, Registration), Fault> {
        match self {
            KeySource::Managed(keys) => {
                let OwnKey { handle, identity, registration } = keys.make_for(mount, kind, terms.deadline).await?;
                let public = identity.public().cloned();
                let public = public.ok_or_else(|| Fault::internal("a key pair was recorded without its public key"))?;
                Ok((SigningKey::Managed(handle), public, registration))
            }
            #[cfg(test)]
            KeySource::Software(_) => Err(Fault::invalid("there is no token here")),
        }
    }

    /// Unregisters those of these keys that a mount of the namespace made and that nothing uses any more.
    pub(super) async fn end_unused(&self, namespace: &Namespace, uuids: Vec<String>) {
        match self {
            KeySource::Managed(keys) => keys.end_unused(namespace, uuids).await,
            #[cfg(test)]
            KeySource::Software(_) => {}
        }
    }

    /// Binds a key to this engine, for a use that is about to be noted.
    pub(super) fn bind(&self, mount: &Arc<Mount>, uuid: &str) -> Result<Option<Binding>, Fault> {
        match self {
            KeySource::Managed(keys) => keys.bind(mount, uuid).map(Some),
            #[cfg(test)]
            KeySource::Software(_) => Ok(None),
        }
    }

    /// Ends a use that was noted.
    pub(super) fn unbind(&self, mount: &Mount, uuid: &str) {
        match self {
            KeySource::Managed(keys) => keys.unbind(mount, uuid),
            #[cfg(test)]
            KeySource::Software(_) => {}
        }
    }

    /// The change that notes `user`'s use of a key.
    pub(super) fn note_use(&self, mount: &Mount, uuid: &str, user: &str) -> Option<Write> {
        match self {
            KeySource::Managed(keys) => Some(keys.note_use(mount, uuid, user)),
            #[cfg(test)]
            KeySource::Software(_) => None,
        }
    }

    /// The change that takes it back.
    pub(super) fn drop_use(&self, mount: &Mount, uuid: &str, user: &str) -> Option<Write> {
        match self {
            KeySource::Managed(keys) => Some(keys.drop_use(mount, uuid, user)),
            #[cfg(test)]
            KeySource::Software(_) => None,
        }
    }
}

impl SigningKey {
    /// Its name.
    pub(super) fn name(&self) -> &str {
        match self {
            SigningKey::Managed(handle) => handle.name(),
            #[cfg(test)]
            SigningKey::Software(key) => &key.name,
        }
    }

    /// Its UUID.
    pub(super) fn uuid(&self) -> &str {
        match self {
            SigningKey::Managed(handle) => handle.uuid(),
            #[cfg(test)]
            SigningKey::Software(key) => &key.name,
        }
    }

    /// Finds, or generates where that is allowed, the key on its device, for its first use; answers the key made ready and
    /// its public half.
    pub(super) async fn ready(&self, terms: Terms) -> Result<(SigningKey, PublicKey), Fault> {
        match self {
            SigningKey::Managed(handle) => {
                handle.require(KeyUsage::Sign)?;
                let (handle, public) = handle.ready(terms.deadline).await?;
                Ok((SigningKey::Managed(handle), public))
            }
            #[cfg(test)]
            SigningKey::Software(key) => Ok((self.clone(), key.pair.public().clone())),
        }
    }

    /// How it signs certificates and what belongs to them: with the hash of `signature_bits`, where 0 is what suits the key, and by
    /// PSS where that is asked or the key does nothing else.
    pub(super) fn algorithm(
        &self,
        kind: KeyKind,
        signature_bits: u32,
        use_pss: bool,
    ) -> Result<SignatureAlgorithm, Fault> {
        let bits = match (signature_bits, self) {
            (0, SigningKey::Managed(handle)) => handle.lent().default_hash().digest_bytes() as u32 * 8,
            (bits, _) => bits,
        };
        let algorithm = SignatureAlgorithm::choose(kind, bits, use_pss || self.prefers_pss()?)?;
        self.require_scheme(algorithm.scheme()).map(|()| algorithm)
    }

    /// Whether the key makes PSS signatures and no others, so that nobody needs to ask for them.
    fn prefers_pss(&self) -> Result<bool, Fault> {
        match self {
            SigningKey::Managed(handle) => {
                // The salt is chosen with the hash; here only the kind of scheme counts.
                let is_pss = matches!(handle.default_scheme(32)?, SignatureScheme::RsaPss { .. });
                Ok(is_pss && handle.require_scheme(SignatureScheme::RsaPkcs1).is_err())
            }
            #[cfg(test)]
            SigningKey::Software(_) => Ok(false),
        }
    }

    /// Refuses what the key's mechanism does not do.
    pub(super) fn require_scheme(&self, scheme: SignatureScheme) -> Result<(), Fault> {
        match self {
            SigningKey::Managed(handle) => handle.require_scheme(scheme),
            #[cfg(test)]
            SigningKey::Software(_) => Ok(()),
        }
    }

    /// Makes one signature.
    pub(super) async fn sign(&self, operation: KeyOperation, terms: Terms) -> Result<Bytes, Fault> {
        self.submit(operation, terms)?.await
    }

    /// Has one signature made. Where this is refused, no token ever heard of it.
    pub(super) fn submit(&self, operation: KeyOperation, terms: Terms) -> Result<Signing, Fault> {
        match self {
            SigningKey::Managed(handle) => handle.submit(operation, terms).map(Signing::Managed),
            #[cfg(test)]
            SigningKey::Software(key) => key.submit(&operation, terms).map(Signing::Software),
        }
    }
}

/// A signature to come.
pub(super) enum Signing {
    /// By a managed key.
    Managed(Pending),
    /// By a key in memory: at once, or never.
    #[cfg(test)]
    Software(Option<Result<Bytes, Fault>>),
}

impl Future for Signing {
    type Output = Result<Bytes, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Signing::Managed(pending) => Pin::new(pending).poll(context),
            #[cfg(test)]
            Signing::Software(answer) => answer.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}
