//! What a PKCS#11 mechanism number means for a managed key: which key it works with, and what that key then does. One table
//! says it; dispatch, errors, generation and the README follow it.

use super::abilities::Abilities;
use super::key_type::KeyType;
use crate::model::{CipherScheme, Curve, Fault, Hash, KeyKind, KeyUsage, KeyUsages, MlDsa, SignatureScheme};

/// The hash of OAEP where `rsa_oaep_hash` names none.
const OAEP_HASH: Hash = Hash::Sha2_256;

/// The keys that a mechanism works with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    Rsa,
    Ec,
    Ed25519,
    MlDsa,
    Aes,
    Hmac,
}

impl Family {
    const fn has(self, kind: KeyKind) -> bool {
        matches!(
            (self, kind),
            (Family::Rsa, KeyKind::Rsa { .. })
                | (Family::Ec, KeyKind::Ec(_))
                | (Family::Ed25519, KeyKind::Ed25519)
                | (Family::MlDsa, KeyKind::MlDsa(_))
                | (Family::Aes, KeyKind::Aes { .. })
                | (Family::Hmac, KeyKind::Hmac { .. })
        )
    }

    const fn is_secret(self) -> bool {
        matches!(self, Family::Aes | Family::Hmac)
    }
}

/// One mechanism.
struct Row {
    number: u64,
    name: &'static str,
    family: Family,
    /// The signatures it makes, of any salt.
    signs: Option<SignatureScheme>,
    /// How it encrypts and decrypts; OAEP with whatever hash the managed key names.
    encrypts: Option<CipherScheme>,
    /// The hash of the HMACs it makes.
    macs: Option<Hash>,
}

const fn row(number: u64, name: &'static str, family: Family) -> Row {
    Row { number, name, family, signs: None, encrypts: None, macs: None }
}

const fn hmac(number: u64, name: &'static str, hash: Hash) -> Row {
    Row { macs: Some(hash), ..row(number, name, Family::Hmac) }
}

/// Every mechanism that does something here. Any other number is accepted and stored, and refused when it is used.
const TABLE: &[Row] = &[
    Row {
        signs: Some(SignatureScheme::RsaPkcs1),
        encrypts: Some(CipherScheme::RsaPkcs1),
        ..row(0x0001, "CKM_RSA_PKCS", Family::Rsa)
    },
    Row { encrypts: Some(CipherScheme::RsaOaep { hash: OAEP_HASH }), ..row(0x0009, "CKM_RSA_PKCS_OAEP", Family::Rsa) },
    Row { signs: Some(SignatureScheme::RsaPss { salt: 0 }), ..row(0x000d, "CKM_RSA_PKCS_PSS", Family::Rsa) },
    Row { signs: Some(SignatureScheme::MlDsa), ..row(0x001d, "CKM_ML_DSA", Family::MlDsa) },
    hmac(0x0221, "CKM_SHA_1_HMAC", Hash::Sha1),
    hmac(0x0251, "CKM_SHA256_HMAC", Hash::Sha2_256),
    hmac(0x0256, "CKM_SHA224_HMAC", Hash::Sha2_224),
    hmac(0x0261, "CKM_SHA384_HMAC", Hash::Sha2_384),
    hmac(0x0271, "CKM_SHA512_HMAC", Hash::Sha2_512),
    Row { signs: Some(SignatureScheme::Ecdsa), ..row(0x1041, "CKM_ECDSA", Family::Ec) },
    Row { signs: Some(SignatureScheme::Ed25519), ..row(0x1057, "CKM_EDDSA", Family::Ed25519) },
    Row { encrypts: Some(CipherScheme::AesCbc { padded: false }), ..row(0x1082, "CKM_AES_CBC", Family::Aes) },
    Row { encrypts: Some(CipherScheme::AesCbc { padded: true }), ..row(0x1085, "CKM_AES_CBC_PAD", Family::Aes) },
    Row { encrypts: Some(CipherScheme::AesGcm), ..row(0x1087, "CKM_AES_GCM", Family::Aes) },
];

/// A mechanism, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanism(pub u64);

impl Mechanism {
    /// What a key of this kind is registered for that no operator registers.
    pub(super) fn of_kind(kind: KeyKind) -> Mechanism {
        Mechanism(match kind {
            KeyKind::Rsa { .. } => 0x0001,
            KeyKind::Ec(_) => 0x1041,
            KeyKind::Ed25519 => 0x1057,
            KeyKind::MlDsa(_) => 0x001d,
            KeyKind::Aes { .. } => 0x1087,
            KeyKind::Hmac { .. } => 0x0251,
        })
    }

    fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.number == self.0)
    }

    /// Whether it works with a secret key, and not with a key pair.
    pub fn is_secret(self) -> bool {
        self.row().is_some_and(|row| row.family.is_secret())
    }

    /// Whether the hash of its padding is the operator's to choose.
    pub fn takes_oaep_hash(self) -> bool {
        matches!(self.row().and_then(|row| row.encrypts), Some(CipherScheme::RsaOaep { .. }))
    }

    /// What a key can be used for with it.
    pub fn uses(self) -> KeyUsages {
        let Some(row) = self.row() else { return KeyUsages::NONE };
        let signs = row.signs.map(|_| [KeyUsage::Sign, KeyUsage::Verify]);
        let encrypts = row.encrypts.map(|_| [KeyUsage::Encrypt, KeyUsage::Decrypt]);
        let pairs = signs.into_iter().chain(encrypts).flatten();
        pairs.chain(row.macs.map(|_| KeyUsage::Mac)).collect()
    }

    /// Refuses a size that no key of this mechanism has; 0 is none given.
    pub fn check_bits(self, bits: i64) -> Result<u32, Fault> {
        let (fits, sizes) = match self.row().map(|row| row.family) {
            Some(Family::Aes) => (matches!(bits, 0 | 128 | 192 | 256), "128, 192 or 256"),
            Some(Family::Hmac) => {
                (bits == 0 || ((128..=4096).contains(&bits) && bits % 8 == 0), "whole bytes from 128 to 4096 bits")
            }
            _ => (matches!(bits, 0 | 2048 | 3072 | 4096), "2048, 3072 or 4096"),
        };
        match u32::try_from(bits) {
            Ok(bits) if fits => Ok(bits),
            _ => Err(Fault::invalid(format!("key_bits {bits} is not supported: use {sizes}"))),
        }
    }

    /// The kind of key to generate for it, from `key_bits`, `curve` and `parameter_set`.
    pub fn generated_kind(
        self,
        key_bits: u32,
        curve: Option<Curve>,
        parameter_set: Option<MlDsa>,
    ) -> Result<KeyKind, Fault> {
        let Some(row) = self.row() else {
            return Err(Fault::invalid(format!("cannot generate a key for mechanism {}", self.0)));
        };
        let bits = self.check_bits(key_bits.into())?;
        match row.family {
            Family::Rsa if bits == 0 => {
                Err(Fault::invalid("key_bits is required to generate an RSA key: 2048, 3072 or 4096"))
            }
            Family::Rsa => Ok(KeyKind::Rsa { bits }),
            Family::Ec => curve.map(KeyKind::Ec).ok_or_else(|| {
                Fault::invalid("curve is required to generate an EC key: P256, P384, P521 or secp256k1")
            }),
            Family::Ed25519 => Ok(KeyKind::Ed25519),
            Family::MlDsa => parameter_set
                .map(KeyKind::MlDsa)
                .ok_or_else(|| Fault::invalid("parameter_set is required to generate an ML-DSA key: 44, 65 or 87")),
            Family::Aes if bits == 0 => {
                Err(Fault::invalid("key_bits is required to generate an AES key: 128, 192 or 256"))
            }
            Family::Aes => Ok(KeyKind::Aes { bits }),
            // A shorter key than the hash is weaker than the hash (RFC 2104, 3).
            Family::Hmac if bits == 0 => {
                let hash = row.macs.unwrap_or(Hash::Sha2_256);
                Ok(KeyKind::Hmac { bits: u32::try_from(hash.digest_bytes() * 8).unwrap_or(256) })
            }
            Family::Hmac => Ok(KeyKind::Hmac { bits }),
        }
    }

    /// Refuses a key that this mechanism cannot use.
    pub fn require_kind(self, key: &str, kind: KeyKind) -> Result<(), Fault> {
        if self.row().is_none_or(|row| row.family.has(kind)) {
            return Ok(());
        }
        Err(Fault::invalid(format!(
            "managed key {key:?} has mechanism {self}, but the key on the token is {kind}: correct the mechanism or the key's label"
        )))
    }

    /// What a key does with it; with `oaep_hash`, where that is the managed key's to say.
    pub(super) fn abilities(self, oaep_hash: Option<Hash>) -> Abilities {
        let row = self.row();
        let cipher = row.and_then(|row| row.encrypts).map(|scheme| match scheme {
            CipherScheme::RsaOaep { hash } => CipherScheme::RsaOaep { hash: oaep_hash.unwrap_or(hash) },
            scheme => scheme,
        });
        Abilities::of_mechanism(
            KeyType::Mechanism(self),
            row.and_then(|row| row.signs),
            cipher,
            row.and_then(|row| row.macs),
        )
    }
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.row() {
            Some(row) => write!(f, "{} ({:#06x})", row.name, self.0),
            None => write!(f, "{:#06x}", self.0),
        }
    }
}

#[cfg(test)]
#[path = "mechanism_tests.rs"]
mod tests;
