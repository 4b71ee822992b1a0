//! The service's tables: what keys there are, what each is for, and the numbers of the names.

use crate::keys::{Curve, Hash, Kind, Mode, RsaCipher, Scheme};

/// What a crypto key is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    EncryptDecrypt,
    AsymmetricSign,
    AsymmetricDecrypt,
    RawEncryptDecrypt,
    Mac,
}

/// Where its bytes are said to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protection {
    Software,
    Hsm,
}

/// The state of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    PendingGeneration,
    Enabled,
    Disabled,
    Destroyed,
    DestroyScheduled,
}

/// How a version is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// Ciphertexts in a form of the service's own.
    Symmetric,
    Gcm,
    Block(Mode),
    /// Signs digests of this hash, and messages by hashing them.
    SignDigest(Scheme, Hash),
    /// Signs messages as they are.
    SignData(Scheme),
    Decrypt(RsaCipher),
    Mac,
}

/// An algorithm of versions.
#[derive(Debug)]
pub(super) struct Algorithm {
    pub(super) name: &'static str,
    pub(super) number: i64,
    pub(super) purpose: Purpose,
    pub(super) kind: Kind,
    pub(super) with: Use,
    /// Whether only HSMs have it.
    pub(super) hsm_only: bool,
}

/// A word that has a number.
pub(super) trait Word: Copy + PartialEq + Sized + 'static {
    const WORDS: &'static [(Self, i64, &'static str)];

    /// The number and the name.
    fn words(self) -> (i64, &'static str) {
        let word = Self::WORDS.iter().find(|(word, ..)| *word == self);
        word.map_or((0, "UNSPECIFIED"), |(_, number, name)| (*number, *name))
    }
}

impl Word for Purpose {
    const WORDS: &'static [(Purpose, i64, &'static str)] = &[
        (Purpose::EncryptDecrypt, 1, "ENCRYPT_DECRYPT"),
        (Purpose::AsymmetricSign, 5, "ASYMMETRIC_SIGN"),
        (Purpose::AsymmetricDecrypt, 6, "ASYMMETRIC_DECRYPT"),
        (Purpose::RawEncryptDecrypt, 7, "RAW_ENCRYPT_DECRYPT"),
        (Purpose::Mac, 9, "MAC"),
    ];
}

impl Word for Protection {
    const WORDS: &'static [(Protection, i64, &'static str)] =
        &[(Protection::Software, 1, "SOFTWARE"), (Protection::Hsm, 2, "HSM")];
}

impl Word for State {
    const WORDS: &'static [(State, i64, &'static str)] = &[
        (State::PendingGeneration, 5, "PENDING_GENERATION"),
        (State::Enabled, 1, "ENABLED"),
        (State::Disabled, 2, "DISABLED"),
        (State::Destroyed, 3, "DESTROYED"),
        (State::DestroyScheduled, 4, "DESTROY_SCHEDULED"),
    ];
}

const fn algorithm(name: &'static str, number: i64, purpose: Purpose, kind: Kind, with: Use) -> Algorithm {
    Algorithm { name, number, purpose, kind, with, hsm_only: false }
}

const fn sign(name: &'static str, number: i64, kind: Kind, scheme: Scheme, hash: Hash) -> Algorithm {
    algorithm(name, number, Purpose::AsymmetricSign, kind, Use::SignDigest(scheme, hash))
}

const fn sign_data(name: &'static str, number: i64, kind: Kind, scheme: Scheme) -> Algorithm {
    algorithm(name, number, Purpose::AsymmetricSign, kind, Use::SignData(scheme))
}

const fn pss(name: &'static str, number: i64, bits: u32, hash: Hash) -> Algorithm {
    sign(name, number, Kind::Rsa { bits }, Scheme::RsaPss(hash), hash)
}

const fn pkcs1(name: &'static str, number: i64, bits: u32, hash: Hash) -> Algorithm {
    sign(name, number, Kind::Rsa { bits }, Scheme::RsaPkcs1(hash), hash)
}

const fn raw_pkcs1(name: &'static str, number: i64, bits: u32) -> Algorithm {
    sign_data(name, number, Kind::Rsa { bits }, Scheme::RsaPkcs1Raw)
}

const fn decrypt(name: &'static str, number: i64, bits: u32, hash: Hash) -> Algorithm {
    algorithm(name, number, Purpose::AsymmetricDecrypt, Kind::Rsa { bits }, Use::Decrypt(RsaCipher::Oaep(hash)))
}

const fn raw(name: &'static str, number: i64, bits: u32, with: Use) -> Algorithm {
    algorithm(name, number, Purpose::RawEncryptDecrypt, Kind::Aes { bits }, with)
}

const fn mac(name: &'static str, number: i64, hash: Hash) -> Algorithm {
    algorithm(name, number, Purpose::Mac, Kind::Hmac(hash), Use::Mac)
}

/// All of them.
pub(super) static ALGORITHMS: &[Algorithm] = &[
    algorithm("GOOGLE_SYMMETRIC_ENCRYPTION", 1, Purpose::EncryptDecrypt, Kind::Aes { bits: 256 }, Use::Symmetric),
    raw("AES_128_GCM", 41, 128, Use::Gcm),
    raw("AES_256_GCM", 19, 256, Use::Gcm),
    raw("AES_128_CBC", 42, 128, Use::Block(Mode::Cbc)),
    raw("AES_256_CBC", 43, 256, Use::Block(Mode::Cbc)),
    raw("AES_128_CTR", 44, 128, Use::Block(Mode::Ctr)),
    raw("AES_256_CTR", 45, 256, Use::Block(Mode::Ctr)),
    pss("RSA_SIGN_PSS_2048_SHA256", 2, 2048, Hash::Sha256),
    pss("RSA_SIGN_PSS_3072_SHA256", 3, 3072, Hash::Sha256),
    pss("RSA_SIGN_PSS_4096_SHA256", 4, 4096, Hash::Sha256),
    pss("RSA_SIGN_PSS_4096_SHA512", 15, 4096, Hash::Sha512),
    pkcs1("RSA_SIGN_PKCS1_2048_SHA256", 5, 2048, Hash::Sha256),
    pkcs1("RSA_SIGN_PKCS1_3072_SHA256", 6, 3072, Hash::Sha256),
    pkcs1("RSA_SIGN_PKCS1_4096_SHA256", 7, 4096, Hash::Sha256),
    pkcs1("RSA_SIGN_PKCS1_4096_SHA512", 16, 4096, Hash::Sha512),
    raw_pkcs1("RSA_SIGN_RAW_PKCS1_2048", 28, 2048),
    raw_pkcs1("RSA_SIGN_RAW_PKCS1_3072", 29, 3072),
    raw_pkcs1("RSA_SIGN_RAW_PKCS1_4096", 30, 4096),
    decrypt("RSA_DECRYPT_OAEP_2048_SHA256", 8, 2048, Hash::Sha256),
    decrypt("RSA_DECRYPT_OAEP_3072_SHA256", 9, 3072, Hash::Sha256),
    decrypt("RSA_DECRYPT_OAEP_4096_SHA256", 10, 4096, Hash::Sha256),
    decrypt("RSA_DECRYPT_OAEP_4096_SHA512", 17, 4096, Hash::Sha512),
    decrypt("RSA_DECRYPT_OAEP_2048_SHA1", 37, 2048, Hash::Sha1),
    decrypt("RSA_DECRYPT_OAEP_3072_SHA1", 38, 3072, Hash::Sha1),
    decrypt("RSA_DECRYPT_OAEP_4096_SHA1", 39, 4096, Hash::Sha1),
    sign("EC_SIGN_P256_SHA256", 12, Kind::Ec(Curve::P256), Scheme::EcdsaDer, Hash::Sha256),
    sign("EC_SIGN_P384_SHA384", 13, Kind::Ec(Curve::P384), Scheme::EcdsaDer, Hash::Sha384),
    Algorithm {
        hsm_only: true,
        ..sign("EC_SIGN_SECP256K1_SHA256", 31, Kind::Ec(Curve::Secp256k1), Scheme::EcdsaDer, Hash::Sha256)
    },
    sign_data("EC_SIGN_ED25519", 40, Kind::Ed25519, Scheme::Ed25519),
    mac("HMAC_SHA256", 32, Hash::Sha256),
    mac("HMAC_SHA1", 33, Hash::Sha1),
    mac("HMAC_SHA384", 34, Hash::Sha384),
    mac("HMAC_SHA512", 35, Hash::Sha512),
    mac("HMAC_SHA224", 36, Hash::Sha224),
];
