//! What AWS KMS does with each kind of key (AWS KMS developer guide, "Key spec reference").

use super::{CloudKind, CloudService, CloudSigning, CloudUse};
use crate::model::{CipherScheme, Curve, Hash, KeyKind, SignatureScheme};

/// Most bytes of a message that is signed whole, made a MAC of, or encrypted with a symmetric key.
const MESSAGE_MAX: usize = 4096;

const fn signing(scheme: SignatureScheme, hash: Hash, native: &'static str) -> CloudSigning {
    CloudSigning { scheme, hash, native }
}

const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 0 };
const RSA: &[CloudSigning] = &[
    signing(PSS, Hash::Sha2_256, "RSASSA_PSS_SHA_256"),
    signing(PSS, Hash::Sha2_384, "RSASSA_PSS_SHA_384"),
    signing(PSS, Hash::Sha2_512, "RSASSA_PSS_SHA_512"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_256, "RSASSA_PKCS1_V1_5_SHA_256"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_384, "RSASSA_PKCS1_V1_5_SHA_384"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_512, "RSASSA_PKCS1_V1_5_SHA_512"),
];
const ECDSA_SHA256: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_256, "ECDSA_SHA_256")];
const P384: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_384, "ECDSA_SHA_384")];
const P521: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_512, "ECDSA_SHA_512")];
const ED25519: &[CloudSigning] = &[signing(SignatureScheme::Ed25519, Hash::None, "ED25519_SHA_512")];

const OAEP: &[(CipherScheme, &str)] = &[
    (CipherScheme::RsaOaep { hash: Hash::Sha2_256 }, "RSAES_OAEP_SHA_256"),
    (CipherScheme::RsaOaep { hash: Hash::Sha1 }, "RSAES_OAEP_SHA_1"),
];

const SEALS: &[(CipherScheme, &str)] = &[(CipherScheme::ServiceAead, "SYMMETRIC_DEFAULT")];

const fn row(key_type: &'static str, kind: KeyKind, does: CloudUse, native: &'static str) -> CloudKind {
    let service = CloudService::AwsKms;
    let message_max = MESSAGE_MAX;
    CloudKind { service, key_type, kind, does, native, signs: &[], decrypts: &[], macs: &[], message_max }
}

const fn signs(
    key_type: &'static str,
    kind: KeyKind,
    native: &'static str,
    signs: &'static [CloudSigning],
) -> CloudKind {
    CloudKind { signs, ..row(key_type, kind, CloudUse::Sign, native) }
}

const fn rsa(bits: u32, native: &'static str) -> CloudKind {
    signs("RSA", KeyKind::Rsa { bits }, native, RSA)
}

const fn rsa_decrypts(bits: u32, native: &'static str) -> CloudKind {
    CloudKind { decrypts: OAEP, ..row("RSA", KeyKind::Rsa { bits }, CloudUse::Decrypt, native) }
}

const fn ec(curve: Curve, native: &'static str, how: &'static [CloudSigning]) -> CloudKind {
    signs("ECDSA", KeyKind::Ec(curve), native, how)
}

const fn hmac(bits: u32, native: &'static str, macs: &'static [(Hash, &'static str)]) -> CloudKind {
    CloudKind { macs, ..row("HMAC", KeyKind::Hmac { bits }, CloudUse::Mac, native) }
}

const fn symmetric(native: &'static str) -> CloudKind {
    CloudKind { decrypts: SEALS, ..row("SYMMETRIC", KeyKind::Aes { bits: 256 }, CloudUse::Decrypt, native) }
}

pub(super) const KINDS: &[CloudKind] = &[
    rsa(2048, "RSA_2048"),
    rsa(3072, "RSA_3072"),
    rsa(4096, "RSA_4096"),
    rsa_decrypts(2048, "RSA_2048"),
    rsa_decrypts(3072, "RSA_3072"),
    rsa_decrypts(4096, "RSA_4096"),
    ec(Curve::P256, "ECC_NIST_P256", ECDSA_SHA256),
    ec(Curve::P384, "ECC_NIST_P384", P384),
    ec(Curve::P521, "ECC_NIST_P521", P521),
    ec(Curve::Secp256k1, "ECC_SECG_P256K1", ECDSA_SHA256),
    signs("ED25519", KeyKind::Ed25519, "ECC_NIST_EDWARDS25519", ED25519),
    symmetric("SYMMETRIC_DEFAULT"),
    hmac(224, "HMAC_224", &[(Hash::Sha2_224, "HMAC_SHA_224")]),
    hmac(256, "HMAC_256", &[(Hash::Sha2_256, "HMAC_SHA_256")]),
    hmac(384, "HMAC_384", &[(Hash::Sha2_384, "HMAC_SHA_384")]),
    hmac(512, "HMAC_512", &[(Hash::Sha2_512, "HMAC_SHA_512")]),
];
