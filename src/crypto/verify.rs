//! Verification of signatures. Digests are taken as they are, never hashed again.

use aws_lc_rs::digest as lc;
use aws_lc_rs::signature::{self as sig, EcdsaVerificationAlgorithm, RsaParameters, UnparsedPublicKey};
use rsa::traits::SignatureScheme as _;
use spki::DecodePublicKey;

use super::signature::digest_info;
use super::spki::subject_public_key;
use crate::model::{Curve, Fault, Hash, KeyKind, MlDsa, PublicKey, SaltLength, SignInput, SignatureScheme};

/// Whether `signature` is good: DER for ECDSA, the raw octets for RSA and Ed25519. The PSS salt length is `salt`'s; the one
/// in `scheme` is of no account. A scheme that is not one of the key's kind is refused.
pub fn verify(
    key: &PublicKey,
    scheme: SignatureScheme,
    salt: SaltLength,
    hash: Hash,
    input: &SignInput,
    signature: &[u8],
) -> Result<bool, Fault> {
    let bytes = input.as_bytes();
    match (key.kind, scheme) {
        (KeyKind::Ec(curve), SignatureScheme::Ecdsa) => verify_ecdsa(key, curve, bytes, signature),
        (KeyKind::Ed25519, SignatureScheme::Ed25519) => {
            Ok(UnparsedPublicKey::new(&sig::ED25519, subject_public_key(key)?).verify(bytes, signature).is_ok())
        }
        (KeyKind::MlDsa(set), SignatureScheme::MlDsa) => {
            let algorithm = ml_dsa_verification(set);
            Ok(UnparsedPublicKey::new(algorithm, subject_public_key(key)?).verify(bytes, signature).is_ok())
        }
        (KeyKind::Rsa { .. }, SignatureScheme::RsaPkcs1) => verify_pkcs1(key, hash, bytes, signature),
        (KeyKind::Rsa { .. }, SignatureScheme::RsaPss { .. }) => verify_pss(key, salt, hash, bytes, signature),
        (kind, _) => Err(Fault::invalid(format!("a key of kind {kind} makes no such signature"))),
    }
}

/// How signatures of a parameter set of ML-DSA are verified.
pub(super) fn ml_dsa_verification(set: MlDsa) -> &'static sig::PqdsaVerificationAlgorithm {
    match set {
        MlDsa::MlDsa44 => &sig::ML_DSA_44,
        MlDsa::MlDsa65 => &sig::ML_DSA_65,
        MlDsa::MlDsa87 => &sig::ML_DSA_87,
    }
}

/// Only a digest's value counts in ECDSA, not what made it: its leftmost bits, as many as the order has (FIPS 186-5, 6.4).
/// So a digest of any length is brought to the length of the curve's usual hash: cut, or padded with zeros in front.
fn verify_ecdsa(key: &PublicKey, curve: Curve, digest: &[u8], signature: &[u8]) -> Result<bool, Fault> {
    let (algorithm, hash): (&'static EcdsaVerificationAlgorithm, &'static lc::Algorithm) = match curve {
        Curve::P256 => (&sig::ECDSA_P256_SHA256_ASN1, &lc::SHA256),
        Curve::P384 => (&sig::ECDSA_P384_SHA384_ASN1, &lc::SHA384),
        Curve::P521 => (&sig::ECDSA_P521_SHA512_ASN1, &lc::SHA512),
        // Both of the s that are right, r and n - s: what wants the lower one has to bring it there itself.
        Curve::Secp256k1 => (&sig::ECDSA_P256K1_SHA256_ASN1, &lc::SHA256),
    };
    let width = curve.field_bytes().min(64);
    let mut value = [0; 64];
    let kept = &digest[..digest.len().min(width)];
    value[width - kept.len()..width].copy_from_slice(kept);
    let digest = imported(hash, &value[..width])?;
    Ok(UnparsedPublicKey::new(algorithm, subject_public_key(key)?).verify_digest(&digest, signature).is_ok())
}

fn imported(algorithm: &'static lc::Algorithm, value: &[u8]) -> Result<lc::Digest, Fault> {
    lc::Digest::import_less_safe(value, algorithm)
        .map_err(|_| Fault::invalid(format!("the digest has {} bytes, not as many as its hash makes", value.len())))
}

fn verify_pkcs1(key: &PublicKey, hash: Hash, digest: &[u8], signature: &[u8]) -> Result<bool, Fault> {
    let fast: Option<(&'static RsaParameters, &'static lc::Algorithm)> = match hash {
        Hash::Sha1 => Some((&sig::RSA_PKCS1_2048_8192_SHA1_FOR_LEGACY_USE_ONLY, &lc::SHA1_FOR_LEGACY_USE_ONLY)),
        Hash::Sha2_256 => Some((&sig::RSA_PKCS1_2048_8192_SHA256, &lc::SHA256)),
        Hash::Sha2_384 => Some((&sig::RSA_PKCS1_2048_8192_SHA384, &lc::SHA384)),
        Hash::Sha2_512 => Some((&sig::RSA_PKCS1_2048_8192_SHA512, &lc::SHA512)),
        _ => None,
    };
    if let Some((algorithm, hash)) = fast {
        let digest = imported(hash, digest)?;
        return Ok(UnparsedPublicKey::new(algorithm, subject_public_key(key)?)
            .verify_digest(&digest, signature)
            .is_ok());
    }
    let hash_len = (hash != Hash::None).then(|| hash.digest_bytes());
    let padding = rsa::Pkcs1v15Sign { hash_len, prefix: digest_info(hash).into() };
    Ok(rsa_key(key)?.verify(padding, digest, signature).is_ok())
}

fn verify_pss(key: &PublicKey, salt: SaltLength, hash: Hash, digest: &[u8], signature: &[u8]) -> Result<bool, Fault> {
    let hash_salt = match salt {
        SaltLength::Hash => true,
        SaltLength::Bytes(bytes) => usize::from(bytes) == hash.digest_bytes(),
        SaltLength::Auto => false,
    };
    let fast: Option<(&'static RsaParameters, &'static lc::Algorithm)> = match hash {
        Hash::Sha2_256 if hash_salt => Some((&sig::RSA_PSS_2048_8192_SHA256, &lc::SHA256)),
        Hash::Sha2_384 if hash_salt => Some((&sig::RSA_PSS_2048_8192_SHA384, &lc::SHA384)),
        Hash::Sha2_512 if hash_salt => Some((&sig::RSA_PSS_2048_8192_SHA512, &lc::SHA512)),
        _ => None,
    };
    if let Some((algorithm, hash)) = fast {
        let digest = imported(hash, digest)?;
        return Ok(UnparsedPublicKey::new(algorithm, subject_public_key(key)?)
            .verify_digest(&digest, signature)
            .is_ok());
    }
    let salt_len = match salt {
        SaltLength::Auto => None,
        SaltLength::Hash => Some(hash.digest_bytes()),
        SaltLength::Bytes(bytes) => Some(usize::from(bytes)),
    };
    let key = rsa_key(key)?;
    if digest.len() != hash.digest_bytes() {
        return Err(Fault::invalid(format!("the digest has {} bytes, not as many as its hash makes", digest.len())));
    }
    let good = match hash {
        Hash::None => return Err(Fault::invalid("PSS needs a hash algorithm")),
        Hash::Sha1 => pss::<sha1::Sha1>(&key, salt_len, digest, signature),
        Hash::Sha2_224 => pss::<sha2::Sha224>(&key, salt_len, digest, signature),
        Hash::Sha2_256 => pss::<sha2::Sha256>(&key, salt_len, digest, signature),
        Hash::Sha2_384 => pss::<sha2::Sha384>(&key, salt_len, digest, signature),
        Hash::Sha2_512 => pss::<sha2::Sha512>(&key, salt_len, digest, signature),
        Hash::Sha3_224 => pss::<sha3::Sha3_224>(&key, salt_len, digest, signature),
        Hash::Sha3_256 => pss::<sha3::Sha3_256>(&key, salt_len, digest, signature),
        Hash::Sha3_384 => pss::<sha3::Sha3_384>(&key, salt_len, digest, signature),
        Hash::Sha3_512 => pss::<sha3::Sha3_512>(&key, salt_len, digest, signature),
    };
    Ok(good)
}

fn pss<D>(key: &rsa::PublicKey, salt_len: Option<usize>, digest: &[u8], signature: &[u8]) -> bool
where
    D: sha3::Digest,
    rsa::Pss<D>: rsa::traits::SignatureScheme,
{
    rsa::Pss::<D> { blinded: false, digest: D::new(), salt_len }.verify(key, digest, signature).is_ok()
}

fn rsa_key(key: &PublicKey) -> Result<rsa::PublicKey, Fault> {
    rsa::PublicKey::from_public_key_der(&key.spki).map_err(|error| Fault::invalid(format!("the RSA key: {error}")))
}
