//! What a managed key is registered as: by a PKCS#11 mechanism, or as a kind of key of a cloud's. That says what the key does.

use super::abilities::Abilities;
use super::mechanism::Mechanism;
use crate::model::{CipherScheme, CloudKind, Fault, Hash, KeyKind, KeyUsages, SignatureScheme};

/// What a managed key is registered as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyType {
    /// By the mechanism that it is used with.
    Mechanism(Mechanism),
    /// As a kind of key that a service has.
    Cloud(&'static CloudKind),
}

impl KeyType {
    /// Whether it is a secret key, and not a key pair.
    pub(super) fn is_secret(self) -> bool {
        match self {
            KeyType::Mechanism(mechanism) => mechanism.is_secret(),
            KeyType::Cloud(kind) => kind.kind.is_secret(),
        }
    }

    /// What such a key can be used for.
    pub(super) fn uses(self) -> KeyUsages {
        match self {
            KeyType::Mechanism(mechanism) => mechanism.uses(),
            KeyType::Cloud(kind) => kind.does.usages(),
        }
    }

    /// The hash of a signature whose client names none: SHA-256, or the only one that such a key signs with.
    pub(super) fn default_hash(self) -> Hash {
        match self {
            // ECDSA signs digests of every hash.
            KeyType::Cloud(CloudKind { kind: KeyKind::Ec(_), .. }) => Hash::Sha2_256,
            KeyType::Cloud(kind)
                if !kind.signs.is_empty() && kind.signs.iter().all(|way| way.hash != Hash::Sha2_256) =>
            {
                kind.signs.first().map_or(Hash::Sha2_256, |way| way.hash)
            }
            KeyType::Cloud(_) | KeyType::Mechanism(_) => Hash::Sha2_256,
        }
    }

    /// Whether its PSS signatures have a salt as long as the hash, and no other.
    pub(super) fn has_fixed_salt(self) -> bool {
        matches!(self, KeyType::Cloud(_))
    }

    /// Refuses a key that is none such.
    pub(super) fn require_kind(self, key: &str, found: KeyKind) -> Result<(), Fault> {
        match self {
            KeyType::Mechanism(mechanism) => mechanism.require_kind(key, found),
            KeyType::Cloud(kind) if kind.kind == found => Ok(()),
            KeyType::Cloud(kind) => Err(Fault::invalid(format!(
                "managed key {key:?} is registered as {}, but the key of that name in {} is {found}: correct key_type, key_bits or \
                 curve, or the key's name",
                kind.kind,
                kind.service.title()
            ))),
        }
    }

    /// What a key does; with `oaep_hash`, or `cipher` as the usual way of encryption, where that is the managed key's to say.
    pub(super) fn abilities(self, oaep_hash: Option<Hash>, cipher: Option<CipherScheme>) -> Abilities {
        match self {
            KeyType::Mechanism(mechanism) => mechanism.abilities(oaep_hash),
            KeyType::Cloud(kind) => {
                let mut schemes: Vec<SignatureScheme> = kind.signs.iter().map(|way| way.scheme).collect();
                schemes.dedup();
                let ciphers = kind.decrypts.iter().map(|(scheme, _)| *scheme).filter(|scheme| Some(*scheme) != cipher);
                let ciphers = cipher.into_iter().chain(ciphers);
                Abilities::of_kind(self, schemes, ciphers, kind.macs.iter().map(|(hash, _)| *hash))
            }
        }
    }

    pub(super) fn cannot(self, what: &str, key: &str) -> Fault {
        Fault::NotSupported { what: format!("{what} with managed key {key:?}, {}", self.described()) }
    }

    /// As the end of a sentence that names the key: `whose mechanism is …`.
    pub(super) fn described(self) -> String {
        match self {
            KeyType::Mechanism(mechanism) => format!("whose mechanism is {mechanism}"),
            KeyType::Cloud(kind) => format!("which is {kind}"),
        }
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyType::Mechanism(mechanism) => mechanism.fmt(f),
            KeyType::Cloud(kind) => kind.fmt(f),
        }
    }
}
