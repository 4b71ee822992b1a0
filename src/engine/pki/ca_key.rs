//! The key of a CA: where the last part of `root/generate/:type` and its like says it comes from.

use super::Pki;
use super::registry::{Added, DEFAULT, Registry};
use super::signing_key::SigningKey;
use crate::engine::Call;
use crate::managed_keys::KeyRef;
use crate::model::{Fault, Fields, PublicKey};

/// Which key a request means.
pub(super) enum CaKeyChoice {
    /// `kms`: a managed key, by its name.
    ManagedName(String),
    /// `kms`: a managed key, by its UUID.
    ManagedId(String),
    /// `existing`: a key of the mount, by reference.
    Existing(String),
}

/// A CA's key, ready to sign.
pub(super) struct CaKey {
    pub(super) key: SigningKey,
    pub(super) public_key: PublicKey,
    /// The name it gets if it is new to the mount.
    name: String,
}

impl CaKeyChoice {
    /// Reads what a request to a path of type `kind` says of its key.
    pub(super) fn parse(kind: &str, fields: &mut Fields<'_>) -> Result<CaKeyChoice, Fault> {
        match kind {
            "kms" => {
                refuse_kind_of_key(fields)?;
                CaKeyChoice::managed(fields)
            }
            "existing" => {
                refuse_kind_of_key(fields)?;
                Ok(CaKeyChoice::Existing(fields.filled("key_ref")?.unwrap_or_else(|| DEFAULT.into())))
            }
            "internal" => Err(Fault::invalid(
                "type internal is not possible on this mount: it has no token in which it could make keys of its own; use \
                 type kms with a managed key (which is generated on its token where allow_generate_key is set), or existing",
            )),
            "exported" => Err(Fault::invalid(
                "type exported is not possible: Keyway holds no long-lived private keys, so it has none to hand out; use type \
                 kms with a managed key, or existing",
            )),
            _ => Err(Fault::NotFound { what: "unsupported path".into() }),
        }
    }

    fn managed(fields: &mut Fields<'_>) -> Result<CaKeyChoice, Fault> {
        match (fields.filled("managed_key_name")?, fields.filled("managed_key_id")?) {
            (Some(name), None) => Ok(CaKeyChoice::ManagedName(name)),
            (None, Some(uuid)) => Ok(CaKeyChoice::ManagedId(uuid)),
            (None, None) => Err(Fault::invalid(
                "unable to determine managed key id: missing argument managed_key_name or managed_key_id",
            )),
            (Some(_), Some(_)) => {
                Err(Fault::invalid("only one argument of managed_key_name or managed_key_id should be specified"))
            }
        }
    }
}

/// The kind of these keys is what they are.
fn refuse_kind_of_key(fields: &mut Fields<'_>) -> Result<(), Fault> {
    if fields.value("key_type").is_some() || fields.value("key_bits").is_some() {
        return Err(Fault::invalid(
            "invalid parameter for the kms/existing path parameter, key_type nor key_bits arguments can be set in this mode",
        ));
    }
    Ok(())
}

impl CaKey {
    /// Makes it a key of the mount, if it is none yet.
    pub(super) fn add_to(&self, registry: &mut Registry) -> Result<Added, Fault> {
        registry.add_key(&self.name, self.key.uuid(), &self.public_key)
    }
}

impl Pki {
    /// Gets a CA's key ready: a managed key is found, or generated where that is allowed, at its first use. `name` is for a
    /// key that is new to the mount.
    pub(super) async fn ca_key(&self, call: &Call, choice: &CaKeyChoice, name: String) -> Result<CaKey, Fault> {
        let reference = match choice {
            CaKeyChoice::Existing(reference) => {
                let authority = self.authority.load_full();
                let known = authority.registry.key(reference)?;
                let key = self.signing_key(&call.mount, known)?;
                return Ok(CaKey { key, public_key: known.public_key.clone(), name });
            }
            CaKeyChoice::ManagedName(name) => KeyRef::Name(name),
            CaKeyChoice::ManagedId(uuid) => KeyRef::Uuid(uuid),
        };
        // Before the token is asked, which may generate.
        let key = self.keys.resolve(&call.mount, reference)?;
        let authority = self.authority.load_full();
        if !authority.registry.keys.values().any(|known| known.record.managed_key == key.uuid()) {
            authority.registry.check_key_name(&name, "")?;
        }
        let (key, public_key) = key.ready(call.terms()).await?;
        Ok(CaKey { key, public_key, name })
    }
}
