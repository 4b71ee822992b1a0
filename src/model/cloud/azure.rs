//! What Azure Key Vault and Azure Managed HSM do with each kind of key (Key Vault, "Key types, algorithms and operations"). One
//! RSA key there signs and decrypts. The service does not tell how long a symmetric key is, and takes only algorithms that name
//! its length. Of key wrapping nothing here makes use.

use super::{CloudKind, CloudService, CloudSigning, CloudUse};
use crate::model::{CipherScheme, Curve, Hash, KeyKind, SignatureScheme};

/// Most bytes of a message that is made a MAC of, or encrypted with a symmetric key. The service documents none.
const MESSAGE_MAX: usize = 4096;

const fn signing(scheme: SignatureScheme, hash: Hash, native: &'static str) -> CloudSigning {
    CloudSigning { scheme, hash, native }
}

const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 0 };
const RSA: &[CloudSigning] = &[
    signing(PSS, Hash::Sha2_256, "PS256"),
    signing(PSS, Hash::Sha2_384, "PS384"),
    signing(PSS, Hash::Sha2_512, "PS512"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_256, "RS256"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_384, "RS384"),
    signing(SignatureScheme::RsaPkcs1, Hash::Sha2_512, "RS512"),
];
const P256: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_256, "ES256")];
const P384: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_384, "ES384")];
const P521: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_512, "ES512")];
const P256K: &[CloudSigning] = &[signing(SignatureScheme::Ecdsa, Hash::Sha2_256, "ES256K")];

const RSA_CIPHERS: &[(CipherScheme, &str)] = &[
    (CipherScheme::RsaOaep { hash: Hash::Sha2_256 }, "RSA-OAEP-256"),
    (CipherScheme::RsaOaep { hash: Hash::Sha1 }, "RSA-OAEP"),
    (CipherScheme::RsaPkcs1, "RSA1_5"),
];
const MACS: &[(Hash, &str)] = &[(Hash::Sha2_256, "HS256"), (Hash::Sha2_384, "HS384"), (Hash::Sha2_512, "HS512")];

const fn row(key_type: &'static str, kind: KeyKind, does: CloudUse, native: &'static str) -> CloudKind {
    let service = CloudService::AzureKeyVault;
    let message_max = MESSAGE_MAX;
    CloudKind { service, key_type, kind, does, native, signs: &[], decrypts: &[], macs: &[], message_max }
}

const fn rsa(key_type: &'static str, bits: u32, native: &'static str) -> CloudKind {
    let row = row(key_type, KeyKind::Rsa { bits }, CloudUse::SignOrDecrypt, native);
    CloudKind { signs: RSA, decrypts: RSA_CIPHERS, ..row }
}

const fn ec(key_type: &'static str, curve: Curve, native: &'static str, signs: &'static [CloudSigning]) -> CloudKind {
    CloudKind { signs, ..row(key_type, KeyKind::Ec(curve), CloudUse::Sign, native) }
}

const fn aes(bits: u32, native: &'static str, decrypts: &'static [(CipherScheme, &'static str)]) -> CloudKind {
    CloudKind { decrypts, ..row("OCT-HSM", KeyKind::Aes { bits }, CloudUse::Decrypt, native) }
}

pub(super) const KINDS: &[CloudKind] = &[
    rsa("RSA-HSM", 2048, "RSA-HSM-2048"),
    rsa("RSA-HSM", 3072, "RSA-HSM-3072"),
    rsa("RSA-HSM", 4096, "RSA-HSM-4096"),
    rsa("RSA", 2048, "RSA-2048"),
    rsa("RSA", 3072, "RSA-3072"),
    rsa("RSA", 4096, "RSA-4096"),
    ec("EC-HSM", Curve::P256, "EC-HSM-P-256", P256),
    ec("EC-HSM", Curve::P384, "EC-HSM-P-384", P384),
    ec("EC-HSM", Curve::P521, "EC-HSM-P-521", P521),
    ec("EC-HSM", Curve::Secp256k1, "EC-HSM-P-256K", P256K),
    ec("EC", Curve::P256, "EC-P-256", P256),
    ec("EC", Curve::P384, "EC-P-384", P384),
    ec("EC", Curve::P521, "EC-P-521", P521),
    ec("EC", Curve::Secp256k1, "EC-P-256K", P256K),
    aes(
        256,
        "oct-HSM-256",
        &[
            (CipherScheme::AesGcm, "A256GCM"),
            (CipherScheme::AesCbc { padded: true }, "A256CBCPAD"),
            (CipherScheme::AesCbc { padded: false }, "A256CBC"),
        ],
    ),
    aes(
        192,
        "oct-HSM-192",
        &[
            (CipherScheme::AesGcm, "A192GCM"),
            (CipherScheme::AesCbc { padded: true }, "A192CBCPAD"),
            (CipherScheme::AesCbc { padded: false }, "A192CBC"),
        ],
    ),
    aes(
        128,
        "oct-HSM-128",
        &[
            (CipherScheme::AesGcm, "A128GCM"),
            (CipherScheme::AesCbc { padded: true }, "A128CBCPAD"),
            (CipherScheme::AesCbc { padded: false }, "A128CBC"),
        ],
    ),
    CloudKind { macs: MACS, ..row("OCT-HSM", KeyKind::Hmac { bits: 0 }, CloudUse::Mac, "oct-HSM") },
];
