//! The types of keys that a mount makes for itself, by Vault's names.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::model::{Curve, Data, Fault, Fields, KeyKind, MlDsa};

/// The type of a key whose request names none.
pub(super) const DEFAULT: &str = "aes256-gcm96";
/// Bytes of an HMAC key whose request says nothing of it: as many as the longest HMAC has, since tokens make none that is longer
/// than its key.
const HMAC_BYTES: u32 = 64;

/// A type as a request gives it, and as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct OwnType {
    /// Vault's name.
    name: String,
    /// Of an HMAC key, in bytes; 0 of others.
    key_size: u32,
    /// Of an ML-DSA key; empty of others.
    parameter_set: String,
}

impl OwnType {
    /// The type that a request names with `name`, and what it says besides.
    pub(super) fn parse(name: Option<String>, fields: &mut Fields<'_>) -> Result<OwnType, Fault> {
        let name = name.unwrap_or_else(|| DEFAULT.into());
        let key_size = match fields.integer("key_size")?.unwrap_or(0) {
            0 if name == "hmac" => HMAC_BYTES,
            0 => 0,
            bytes @ 32..=512 if name == "hmac" => u32::try_from(bytes).unwrap_or(HMAC_BYTES),
            bytes if name == "hmac" => {
                return Err(Fault::invalid(format!("key_size {bytes} is not supported: use 32 to 512 bytes")));
            }
            _ => return Err(Fault::invalid(format!("key_size is for keys of type hmac, and the type is {name}"))),
        };
        let parameter_set = fields.filled("parameter_set")?.unwrap_or_default();
        if name != "ml-dsa" && !parameter_set.is_empty() {
            return Err(Fault::invalid(format!("parameter_set is for keys of type ml-dsa, and the type is {name}")));
        }
        let own = OwnType { name, key_size, parameter_set };
        own.kind()?;
        Ok(own)
    }

    /// The kind of key that it is.
    pub(super) fn kind(&self) -> Result<KeyKind, Fault> {
        Ok(match self.name.as_str() {
            "ecdsa-p256" => KeyKind::Ec(Curve::P256),
            "ecdsa-p384" => KeyKind::Ec(Curve::P384),
            "ecdsa-p521" => KeyKind::Ec(Curve::P521),
            "ed25519" => KeyKind::Ed25519,
            "aes128-gcm96" => KeyKind::Aes { bits: 128 },
            "aes256-gcm96" => KeyKind::Aes { bits: 256 },
            "hmac" => KeyKind::Hmac { bits: self.key_size * 8 },
            "ml-dsa" => {
                let named = MlDsa::ALL.into_iter().find(|set| set.number().to_string() == self.parameter_set);
                KeyKind::MlDsa(named.ok_or_else(|| {
                    Fault::invalid(format!(
                        "parameter_set {:?} is not supported: a key of type ml-dsa takes 44, 65 or 87",
                        self.parameter_set
                    ))
                })?)
            }
            "rsa-2048" => KeyKind::Rsa { bits: 2048 },
            "rsa-3072" => KeyKind::Rsa { bits: 3072 },
            "rsa-4096" => KeyKind::Rsa { bits: 4096 },
            other => {
                return Err(Fault::invalid(format!(
                    "key type {other:?} is not offered: use rsa-2048, rsa-3072, rsa-4096, ecdsa-p256, ecdsa-p384, ecdsa-p521, \
                     ed25519, ml-dsa, aes128-gcm96, aes256-gcm96, hmac, or managed_key with managed_key_name"
                )));
            }
        })
    }

    /// Vault's name of it.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether keys of this type encrypt and decrypt, and whether they sign.
    pub(super) fn supports(&self) -> (bool, bool) {
        let (is_aes, is_rsa) = (self.name.starts_with("aes"), self.name.starts_with("rsa"));
        (is_aes || is_rsa, !is_aes && self.name != "hmac")
    }

    /// Whether keys of this type make HMACs: in Vault others do too, by a second key which it keeps beside the first.
    pub(super) fn makes_hmacs(&self) -> bool {
        self.name == "hmac"
    }

    /// What the key document says of this type alone.
    pub(super) fn add_to(&self, document: &mut Data) {
        if self.key_size > 0 {
            document.insert("key_size".into(), json!(self.key_size));
        }
        if !self.parameter_set.is_empty() {
            document.insert("parameter_set".into(), json!(self.parameter_set));
        }
    }
}
