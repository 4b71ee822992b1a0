//! The key of a CA: where the last part of `root/generate/:type` and its like says it comes from.

use super::Pki;
use super::algorithm::{SignatureAlgorithm, require_certifiable};
use super::registry::{Added, DEFAULT, Registry};
use super::signing_key::SigningKey;
use crate::engine::Call;
use crate::managed_keys::{Binding, KeyRef, Registration};
use crate::model::{Curve, Fault, Fields, KeyKind, MlDsa, PublicKey};

/// Which key a request means.
pub(super) enum CaKeyChoice {
    /// `kms`: a managed key, by its name.
    ManagedName(String),
    /// `kms`: a managed key, by its UUID.
    ManagedId(String),
    /// `existing`: a key of the mount, by reference.
    Existing(String),
    /// `internal`: a key of this kind, which the mount makes in its token.
    Own(KeyKind),
}

/// A CA's key, ready to sign.
pub(super) struct CaKey {
    pub(super) key: SigningKey,
    pub(super) public_key: PublicKey,
    /// The name it gets if it is new to the mount.
    name: String,
    /// Of a key just made: to be held until the key is stored as one of the mount's.
    _registration: Option<Registration>,
    /// Of a key that may be new to the mount: nothing is signed by a key that then turns out to be another engine's.
    _binding: Option<Binding>,
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
            "internal" => own_kind(fields).map(CaKeyChoice::Own),
            "exported" => Err(Fault::invalid(
                "type exported is not possible: Keyway holds no long-lived private keys, so it has none to hand out; use type \
                 internal, kms with a managed key, or existing",
            )),
            _ => Err(Fault::NotFound { what: "unsupported path".into() }),
        }
    }

    /// Refuses what a key that is yet to be made could not sign with, before it is made.
    pub(super) fn check_algorithm(&self, signature_bits: u32, use_pss: bool) -> Result<(), Fault> {
        match self {
            CaKeyChoice::Own(KeyKind::Rsa { .. }) if use_pss => Err(Fault::invalid(
                "use_pss is not possible with type internal, whose RSA keys make PKCS#1 v1.5 signatures: use type kms with a \
                 managed key of mechanism CKM_RSA_PKCS_PSS",
            )),
            CaKeyChoice::Own(kind) => SignatureAlgorithm::choose(*kind, signature_bits, use_pss).map(|_| ()),
            CaKeyChoice::ManagedName(_) | CaKeyChoice::ManagedId(_) | CaKeyChoice::Existing(_) => Ok(()),
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
    if fields.is_given("key_type") || fields.is_given("key_bits") {
        return Err(Fault::invalid(
            "invalid parameter for the kms/existing path parameter, key_type nor key_bits arguments can be set in this mode",
        ));
    }
    Ok(())
}

/// The kind of key that `key_type` and `key_bits` ask for, with Vault's defaults.
fn own_kind(fields: &mut Fields<'_>) -> Result<KeyKind, Fault> {
    let key_type = fields.filled("key_type")?.unwrap_or_else(|| "rsa".into());
    let bits = fields.integer("key_bits")?.unwrap_or(0);
    let unsupported = |known: &str| Err(Fault::invalid(format!("key_bits {bits} of key_type {key_type}: use {known}")));
    match (key_type.as_str(), bits) {
        ("rsa", 0 | 2048) => Ok(KeyKind::Rsa { bits: 2048 }),
        ("rsa", 3072) => Ok(KeyKind::Rsa { bits: 3072 }),
        ("rsa", 4096) => Ok(KeyKind::Rsa { bits: 4096 }),
        ("rsa", _) => unsupported("2048, 3072 or 4096"),
        ("ec", 0 | 256) => Ok(KeyKind::Ec(Curve::P256)),
        ("ec", 384) => Ok(KeyKind::Ec(Curve::P384)),
        ("ec", 521) => Ok(KeyKind::Ec(Curve::P521)),
        ("ec", _) => unsupported("256, 384 or 521"),
        ("ed25519", _) => Ok(KeyKind::Ed25519),
        ("ml-dsa", bits) => {
            let named = MlDsa::ALL.into_iter().find(|set| i64::from(set.number()) == bits);
            named.map_or_else(|| unsupported("44, 65 or 87"), |set| Ok(KeyKind::MlDsa(set)))
        }
        _ => Err(Fault::invalid(format!("unknown key_type {key_type:?}: use rsa, ec, ed25519 or ml-dsa"))),
    }
}

impl CaKey {
    /// Makes it a key of the mount, if it is none yet.
    pub(super) fn add_to(&self, registry: &mut Registry) -> Result<Added, Fault> {
        registry.add_key(&self.name, self.key.uuid(), &self.public_key)
    }
}

impl Pki {
    /// Gets a CA's key ready: a managed key is found, or generated where that is allowed, at its first use; the mount's own is
    /// made. `name` is for a
    /// key that is new to the mount.
    pub(super) async fn ca_key(&self, call: &Call, choice: &CaKeyChoice, name: String) -> Result<CaKey, Fault> {
        let reference = match choice {
            CaKeyChoice::Existing(reference) => {
                let authority = self.authority.load_full();
                let known = authority.registry.key(reference)?;
                let key = self.signing_key(&call.mount, known)?;
                let public_key = known.public_key.clone();
                return Ok(CaKey { key, public_key, name, _registration: None, _binding: None });
            }
            CaKeyChoice::Own(kind) => {
                self.authority.load().registry.check_key_name(&name, "")?;
                let (key, public_key, registration) = self.keys.make_for(&call.mount, *kind, call.terms()).await?;
                let binding = self.keys.bind(&call.mount, key.uuid())?;
                return Ok(CaKey { key, public_key, name, _registration: Some(registration), _binding: binding });
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
        require_certifiable(public_key.kind)?;
        let binding = self.keys.bind(&call.mount, key.uuid())?;
        Ok(CaKey { key, public_key, name, _registration: None, _binding: binding })
    }
}
