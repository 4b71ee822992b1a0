//! Keys and signature algorithms, by the names the field gives them.

use serde::{Deserialize, Serialize};

/// A curve for ECDSA: the NIST prime curves (FIPS 186-5), and one of SEC 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Curve {
    /// NIST P-256 (secp256r1).
    P256,
    /// NIST P-384 (secp384r1).
    P384,
    /// NIST P-521 (secp521r1).
    P521,
    /// secp256k1 (SEC 2, 2.4.1), of cryptocurrencies. JOSE signs with it as ES256K (RFC 8812), X.509's profiles not at all.
    Secp256k1,
}

impl Curve {
    /// Every curve.
    pub const ALL: [Curve; 4] = [Curve::P256, Curve::P384, Curve::P521, Curve::Secp256k1];

    /// Bytes of one field element: 32, 48 or 66. A raw `r || s` signature is twice as long.
    pub const fn field_bytes(self) -> usize {
        match self {
            Curve::P256 | Curve::Secp256k1 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    /// The curve's size as X.509 tools state it: 256, 384 or 521.
    pub const fn bits(self) -> u32 {
        match self {
            Curve::P256 | Curve::Secp256k1 => 256,
            Curve::P384 => 384,
            Curve::P521 => 521,
        }
    }

    /// Vault's name in key documents: `P-256`, `P-384`, `P-521`; and `secp256k1`, which it does not have.
    pub const fn name(self) -> &'static str {
        match self {
            Curve::P256 => "P-256",
            Curve::P384 => "P-384",
            Curve::P521 => "P-521",
            Curve::Secp256k1 => "secp256k1",
        }
    }
}

/// A parameter set of ML-DSA (FIPS 204, 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MlDsa {
    /// ML-DSA-44: security category 2.
    MlDsa44,
    /// ML-DSA-65: security category 3.
    MlDsa65,
    /// ML-DSA-87: security category 5.
    MlDsa87,
}

impl MlDsa {
    /// Every parameter set.
    pub const ALL: [MlDsa; 3] = [MlDsa::MlDsa44, MlDsa::MlDsa65, MlDsa::MlDsa87];

    /// The number in its name, by which Vault calls it: 44, 65 or 87.
    pub const fn number(self) -> u32 {
        match self {
            MlDsa::MlDsa44 => 44,
            MlDsa::MlDsa65 => 65,
            MlDsa::MlDsa87 => 87,
        }
    }

    /// Bytes of a public key.
    pub const fn public_bytes(self) -> usize {
        match self {
            MlDsa::MlDsa44 => 1312,
            MlDsa::MlDsa65 => 1952,
            MlDsa::MlDsa87 => 2592,
        }
    }

    /// Bytes of a signature.
    pub const fn signature_bytes(self) -> usize {
        match self {
            MlDsa::MlDsa44 => 2420,
            MlDsa::MlDsa65 => 3309,
            MlDsa::MlDsa87 => 4627,
        }
    }
}

/// What a key is, apart from its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// RSA with a modulus of `bits` bits.
    Rsa {
        /// Modulus length in bits.
        bits: u32,
    },
    /// An elliptic-curve key for ECDSA.
    Ec(Curve),
    /// Ed25519 (RFC 8032).
    Ed25519,
    /// ML-DSA (FIPS 204).
    MlDsa(MlDsa),
    /// A secret AES key (FIPS 197).
    Aes {
        /// Its length in bits: 128, 192 or 256.
        bits: u32,
    },
    /// A secret key for HMAC (FIPS 198-1).
    Hmac {
        /// Its length in bits; 0 where the token does not tell.
        bits: u32,
    },
}

impl KeyKind {
    /// Whether it is one secret key, and no key pair.
    pub const fn is_secret(self) -> bool {
        matches!(self, KeyKind::Aes { .. } | KeyKind::Hmac { .. })
    }
}

impl std::fmt::Display for KeyKind {
    /// Transit's key type names: `rsa-2048`, `P-256`, `ed25519`; and `aes-256`, `hmac-256`, which it has no word for.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyKind::Rsa { bits } => write!(f, "rsa-{bits}"),
            KeyKind::Ec(curve) => f.write_str(curve.name()),
            KeyKind::Ed25519 => f.write_str("ed25519"),
            KeyKind::MlDsa(set) => write!(f, "ml-dsa-{}", set.number()),
            KeyKind::Aes { bits } => write!(f, "aes-{bits}"),
            KeyKind::Hmac { bits: 0 } => f.write_str("hmac"),
            KeyKind::Hmac { bits } => write!(f, "hmac-{bits}"),
        }
    }
}

/// A hash function (FIPS 180-4, FIPS 202), or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hash {
    /// No hash: with PKCS#1 v1.5 the input is padded as it is, without a DigestInfo.
    None,
    /// SHA-1. For old peers only.
    Sha1,
    /// SHA-224.
    Sha2_224,
    /// SHA-256.
    Sha2_256,
    /// SHA-384.
    Sha2_384,
    /// SHA-512.
    Sha2_512,
    /// SHA3-224.
    Sha3_224,
    /// SHA3-256.
    Sha3_256,
    /// SHA3-384.
    Sha3_384,
    /// SHA3-512.
    Sha3_512,
}

impl Hash {
    /// Every hash, in the order documentation lists them.
    pub const ALL: [Hash; 10] = [
        Hash::None,
        Hash::Sha1,
        Hash::Sha2_224,
        Hash::Sha2_256,
        Hash::Sha2_384,
        Hash::Sha2_512,
        Hash::Sha3_224,
        Hash::Sha3_256,
        Hash::Sha3_384,
        Hash::Sha3_512,
    ];

    /// Vault's name, such as `sha2-256`.
    pub const fn name(self) -> &'static str {
        match self {
            Hash::None => "none",
            Hash::Sha1 => "sha1",
            Hash::Sha2_224 => "sha2-224",
            Hash::Sha2_256 => "sha2-256",
            Hash::Sha2_384 => "sha2-384",
            Hash::Sha2_512 => "sha2-512",
            Hash::Sha3_224 => "sha3-224",
            Hash::Sha3_256 => "sha3-256",
            Hash::Sha3_384 => "sha3-384",
            Hash::Sha3_512 => "sha3-512",
        }
    }

    /// The hash Vault calls `name`, if there is one.
    pub fn from_name(name: &str) -> Option<Hash> {
        Hash::ALL.into_iter().find(|hash| hash.name() == name)
    }

    /// Digest length in bytes; 0 for [`Hash::None`].
    pub const fn digest_bytes(self) -> usize {
        match self {
            Hash::None => 0,
            Hash::Sha1 => 20,
            Hash::Sha2_224 | Hash::Sha3_224 => 28,
            Hash::Sha2_256 | Hash::Sha3_256 => 32,
            Hash::Sha2_384 | Hash::Sha3_384 => 48,
            Hash::Sha2_512 | Hash::Sha3_512 => 64,
        }
    }
}

/// How a signature is made from a digest or message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SignatureScheme {
    /// RSASSA-PKCS1-v1_5 (RFC 8017, 8.2).
    RsaPkcs1,
    /// RSASSA-PSS (RFC 8017, 8.1), MGF1 with the same hash.
    RsaPss {
        /// Salt length in bytes.
        salt: u16,
    },
    /// ECDSA (FIPS 186-5). Signatures are DER `SEQUENCE { r, s }` everywhere but at the edges that ask otherwise.
    Ecdsa,
    /// Pure Ed25519 (RFC 8032): signs the message itself.
    Ed25519,
    /// Pure ML-DSA (FIPS 204, 5.2), without a context: signs the message itself.
    MlDsa,
}

impl SignatureScheme {
    /// Whether it signs the message itself, and no digest of it.
    pub const fn takes_message(self) -> bool {
        matches!(self, SignatureScheme::Ed25519 | SignatureScheme::MlDsa)
    }
}

/// How data is encrypted, apart from what is new with every message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CipherScheme {
    /// RSAES-PKCS1-v1_5 (RFC 8017, 7.2).
    RsaPkcs1,
    /// RSAES-OAEP (RFC 8017, 7.1), MGF1 with the same hash and no label.
    RsaOaep {
        /// The hash.
        hash: Hash,
    },
    /// AES-GCM (NIST SP 800-38D) with an IV of 12 bytes and a tag of 16.
    AesGcm,
    /// AES-CBC (NIST SP 800-38A), of whole blocks, or padded as PKCS#7 has it (RFC 5652, 6.3).
    AesCbc {
        /// Whether it is padded.
        padded: bool,
    },
    /// Authenticated encryption in a form of a cloud's service's own, which only that service reads: IV and tag are in it.
    ServiceAead,
}

/// The padding of RSA encryption that a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RsaPadding {
    /// RSAES-OAEP.
    Oaep,
    /// RSAES-PKCS1-v1_5.
    Pkcs1v15,
}

/// The PSS salt length a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum SaltLength {
    /// The longest that fits when signing; any length when verifying.
    #[default]
    Auto,
    /// As long as the digest.
    Hash,
    /// This many bytes.
    Bytes(u16),
}

/// How a signature value is written for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Marshaling {
    /// ECDSA as DER `SEQUENCE { r, s }`; base64 in the standard alphabet.
    #[default]
    Asn1,
    /// ECDSA as fixed-width `r || s` (RFC 7518, 3.4); base64 in the URL alphabet without padding.
    Jws,
}
