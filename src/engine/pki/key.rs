//! A key of a mount: an entry with an id and a name, behind which a managed key signs. The private half is never here.

use serde::{Deserialize, Serialize};

use super::extensions::{self, KeyIdentifier};
use crate::crypto;
use crate::model::{Fault, KeyKind, PublicKey};
use crate::store::Versioned;

/// What is stored of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    pub(super) id: String,
    /// Empty if it has none.
    pub(super) name: String,
    /// UUID of the managed key that signs.
    pub(super) managed_key: String,
    /// DER of its SubjectPublicKeyInfo.
    #[serde(with = "hex")]
    pub(super) public_key: Vec<u8>,
}

impl Versioned for KeyRecord {
    const VERSION: u16 = 1;
}

/// A key as requests see it.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) record: KeyRecord,
    pub(super) public_key: PublicKey,
    pub(super) identifier: KeyIdentifier,
}

impl Key {
    /// Reads a record.
    pub(super) fn from_record(record: KeyRecord) -> Result<Key, Fault> {
        let public_key = crypto::parse_spki(&record.public_key)
            .map_err(|fault| Fault::internal(format!("the stored public key of key {}: {fault}", record.id)))?;
        Ok(Key { identifier: extensions::key_identifier(&public_key)?, public_key, record })
    }

    /// A new key of this name over a managed key.
    pub(super) fn new(name: String, managed_key: &str, public_key: &PublicKey) -> Result<Key, Fault> {
        Key::from_record(KeyRecord {
            id: uuid::Uuid::new_v4().to_string(),
            name,
            managed_key: managed_key.to_owned(),
            public_key: public_key.spki.to_vec(),
        })
    }

    /// Vault's name of its kind.
    pub(super) fn kind(&self) -> &'static str {
        kind_name(self.public_key.kind)
    }
}

/// Vault's name of a kind of keys.
pub(super) fn kind_name(kind: KeyKind) -> &'static str {
    match kind {
        KeyKind::Rsa { .. } => "rsa",
        KeyKind::Ec(_) => "ec",
        KeyKind::Ed25519 => "ed25519",
        KeyKind::MlDsa(_) => "ml-dsa",
        // Has no public key, and so is none of these.
        KeyKind::Aes { .. } | KeyKind::Hmac { .. } => "",
    }
}

/// How a key is named as the user of its managed key.
pub(super) fn user(id: &str) -> String {
    format!("key {id}")
}
