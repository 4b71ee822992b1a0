//! Who signs: an issuer, together with its key, for one use that was found allowed. There is no other way to a key.

use std::sync::Arc;

use super::Pki;
use super::issuer::Issuer;
use super::issuer_usage::IssuerUsage;
use super::key::Key;
use super::signing_key::SigningKey;
use crate::managed_keys::KeyRef;
use crate::model::{Fault, Mount};

/// An issuer that may sign.
pub(super) struct Signatory {
    pub(super) issuer: Arc<Issuer>,
    pub(super) key: SigningKey,
}

impl Pki {
    /// The issuer as one that signs, if its settings allow `usage`, its key is here, and the mount may use that now.
    pub(super) fn signatory(
        &self,
        mount: &Mount,
        issuer: &Arc<Issuer>,
        usage: IssuerUsage,
    ) -> Result<Signatory, Fault> {
        issuer.require(usage)?;
        let key = self.signing_key(mount, issuer.key()?)?;
        Ok(Signatory { issuer: Arc::clone(issuer), key })
    }

    /// The managed key behind a key, as this mount may use it now.
    pub(super) fn signing_key(&self, mount: &Mount, key: &Key) -> Result<SigningKey, Fault> {
        self.keys.resolve(mount, KeyRef::Uuid(&key.record.managed_key))
    }
}
