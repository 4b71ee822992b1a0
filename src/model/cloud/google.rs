//! What Google Cloud KMS does with each kind of key (Google Cloud KMS, "Key purposes and algorithms"). An algorithm there says
//! all of it: the key, its one hash and its one padding.

use super::{CloudKind, CloudService, CloudSigning, CloudUse};
use crate::model::{CipherScheme, Curve, Hash, KeyKind, SignatureScheme};

/// Most bytes of a message that is signed whole, made a MAC of, or encrypted with a symmetric key. Symmetric keys in HSMs encrypt fewer.
const MESSAGE_MAX: usize = 64 * 1024;

const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 0 };
const PKCS1: SignatureScheme = SignatureScheme::RsaPkcs1;

/// The fields of a request to sign: the service has no other name for how an algorithm signs.
const DIGEST: &str = "digest";
const DATA: &str = "data";

const fn digest(scheme: SignatureScheme, hash: Hash) -> CloudSigning {
    CloudSigning { scheme, hash, native: DIGEST }
}

const fn data(scheme: SignatureScheme, hash: Hash) -> CloudSigning {
    CloudSigning { scheme, hash, native: DATA }
}

const PSS_SHA256: &[CloudSigning] = &[digest(PSS, Hash::Sha2_256)];
const PSS_SHA512: &[CloudSigning] = &[digest(PSS, Hash::Sha2_512)];
const PKCS1_SHA256: &[CloudSigning] = &[digest(PKCS1, Hash::Sha2_256)];
const PKCS1_SHA512: &[CloudSigning] = &[digest(PKCS1, Hash::Sha2_512)];
const ECDSA_SHA256: &[CloudSigning] = &[digest(SignatureScheme::Ecdsa, Hash::Sha2_256)];
const P384: &[CloudSigning] = &[digest(SignatureScheme::Ecdsa, Hash::Sha2_384)];
const ED25519: &[CloudSigning] = &[data(SignatureScheme::Ed25519, Hash::None)];
/// Of a DigestInfo that is made here, or of bytes as they are: the service but pads them.
const RAW: &[CloudSigning] = &[
    data(PKCS1, Hash::Sha2_256),
    data(PKCS1, Hash::Sha2_384),
    data(PKCS1, Hash::Sha2_512),
    data(PKCS1, Hash::Sha2_224),
    data(PKCS1, Hash::Sha3_224),
    data(PKCS1, Hash::Sha3_256),
    data(PKCS1, Hash::Sha3_384),
    data(PKCS1, Hash::Sha3_512),
    data(PKCS1, Hash::Sha1),
    data(PKCS1, Hash::None),
];

const fn row(native: &'static str, kind: KeyKind, does: CloudUse) -> CloudKind {
    let service = CloudService::GcpCkms;
    let message_max = MESSAGE_MAX;
    CloudKind { service, key_type: native, kind, does, native, signs: &[], decrypts: &[], macs: &[], message_max }
}

const fn signs(native: &'static str, kind: KeyKind, signs: &'static [CloudSigning]) -> CloudKind {
    CloudKind { signs, ..row(native, kind, CloudUse::Sign) }
}

const fn rsa(native: &'static str, bits: u32, how: &'static [CloudSigning]) -> CloudKind {
    signs(native, KeyKind::Rsa { bits }, how)
}

const fn decrypts(native: &'static str, bits: u32, how: &'static [(CipherScheme, &'static str)]) -> CloudKind {
    CloudKind { decrypts: how, ..row(native, KeyKind::Rsa { bits }, CloudUse::Decrypt) }
}

const fn mac(native: &'static str, bits: u32, macs: &'static [(Hash, &'static str)]) -> CloudKind {
    CloudKind { macs, ..row(native, KeyKind::Hmac { bits }, CloudUse::Mac) }
}

/// Of whole blocks.
const CBC: &[(CipherScheme, &str)] = &[(CipherScheme::AesCbc { padded: false }, DATA)];
/// The service makes the IVs.
const GCM: &[(CipherScheme, &str)] = &[(CipherScheme::AesGcm, DATA)];
const SEALS: &[(CipherScheme, &str)] = &[(CipherScheme::ServiceAead, DATA)];

const fn aes(native: &'static str, bits: u32, decrypts: &'static [(CipherScheme, &'static str)]) -> CloudKind {
    CloudKind { decrypts, ..row(native, KeyKind::Aes { bits }, CloudUse::Decrypt) }
}

const OAEP_SHA256: &[(CipherScheme, &str)] = &[(CipherScheme::RsaOaep { hash: Hash::Sha2_256 }, DATA)];
const OAEP_SHA512: &[(CipherScheme, &str)] = &[(CipherScheme::RsaOaep { hash: Hash::Sha2_512 }, DATA)];
const OAEP_SHA1: &[(CipherScheme, &str)] = &[(CipherScheme::RsaOaep { hash: Hash::Sha1 }, DATA)];

pub(super) const KINDS: &[CloudKind] = &[
    signs("EC_SIGN_P256_SHA256", KeyKind::Ec(Curve::P256), ECDSA_SHA256),
    signs("EC_SIGN_P384_SHA384", KeyKind::Ec(Curve::P384), P384),
    signs("EC_SIGN_SECP256K1_SHA256", KeyKind::Ec(Curve::Secp256k1), ECDSA_SHA256),
    signs("EC_SIGN_ED25519", KeyKind::Ed25519, ED25519),
    rsa("RSA_SIGN_PSS_2048_SHA256", 2048, PSS_SHA256),
    rsa("RSA_SIGN_PSS_3072_SHA256", 3072, PSS_SHA256),
    rsa("RSA_SIGN_PSS_4096_SHA256", 4096, PSS_SHA256),
    rsa("RSA_SIGN_PSS_4096_SHA512", 4096, PSS_SHA512),
    rsa("RSA_SIGN_PKCS1_2048_SHA256", 2048, PKCS1_SHA256),
    rsa("RSA_SIGN_PKCS1_3072_SHA256", 3072, PKCS1_SHA256),
    rsa("RSA_SIGN_PKCS1_4096_SHA256", 4096, PKCS1_SHA256),
    rsa("RSA_SIGN_PKCS1_4096_SHA512", 4096, PKCS1_SHA512),
    rsa("RSA_SIGN_RAW_PKCS1_2048", 2048, RAW),
    rsa("RSA_SIGN_RAW_PKCS1_3072", 3072, RAW),
    rsa("RSA_SIGN_RAW_PKCS1_4096", 4096, RAW),
    decrypts("RSA_DECRYPT_OAEP_2048_SHA256", 2048, OAEP_SHA256),
    decrypts("RSA_DECRYPT_OAEP_3072_SHA256", 3072, OAEP_SHA256),
    decrypts("RSA_DECRYPT_OAEP_4096_SHA256", 4096, OAEP_SHA256),
    decrypts("RSA_DECRYPT_OAEP_4096_SHA512", 4096, OAEP_SHA512),
    decrypts("RSA_DECRYPT_OAEP_2048_SHA1", 2048, OAEP_SHA1),
    decrypts("RSA_DECRYPT_OAEP_3072_SHA1", 3072, OAEP_SHA1),
    decrypts("RSA_DECRYPT_OAEP_4096_SHA1", 4096, OAEP_SHA1),
    aes("GOOGLE_SYMMETRIC_ENCRYPTION", 256, SEALS),
    aes("AES_128_GCM", 128, GCM),
    aes("AES_256_GCM", 256, GCM),
    aes("AES_128_CBC", 128, CBC),
    aes("AES_256_CBC", 256, CBC),
    mac("HMAC_SHA256", 256, &[(Hash::Sha2_256, DATA)]),
    mac("HMAC_SHA1", 160, &[(Hash::Sha1, DATA)]),
    mac("HMAC_SHA224", 224, &[(Hash::Sha2_224, DATA)]),
    mac("HMAC_SHA384", 384, &[(Hash::Sha2_384, DATA)]),
    mac("HMAC_SHA512", 512, &[(Hash::Sha2_512, DATA)]),
];
