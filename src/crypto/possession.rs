//! Whether a private key that somebody shows is that of a public key: it signs, and the public key must agree.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256K1_SHA256_ASN1, ECDSA_P256K1_SHA256_ASN1_SIGNING,
    ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P521_SHA512_ASN1, ECDSA_P521_SHA512_ASN1_SIGNING,
    ED25519, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, PqdsaKeyPair, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_SHA256, RsaKeyPair, UnparsedPublicKey, VerificationAlgorithm,
};

use super::software::ml_dsa_signing;
use super::subject_public_key;
use super::verify::ml_dsa_verification;
use crate::model::{Curve, Fault, KeyKind, MlDsa, PublicKey};

/// What is signed. The signature goes nowhere.
const MESSAGE: &[u8] = b"keyway: proof that a private key was shown";

/// Whether `private` (DER: PKCS#8, or PKCS#1 for RSA, or SEC 1 for EC) is the private half of `key`.
pub fn is_private_half(key: &PublicKey, private: &[u8]) -> Result<bool, Fault> {
    let (signature, algorithm): (_, &'static dyn VerificationAlgorithm) = match key.kind {
        KeyKind::Rsa { .. } => (sign_rsa(private), &RSA_PKCS1_2048_8192_SHA256),
        KeyKind::Ec(Curve::P256) => (sign_ec(&ECDSA_P256_SHA256_ASN1_SIGNING, private), &ECDSA_P256_SHA256_ASN1),
        KeyKind::Ec(Curve::P384) => (sign_ec(&ECDSA_P384_SHA384_ASN1_SIGNING, private), &ECDSA_P384_SHA384_ASN1),
        KeyKind::Ec(Curve::P521) => (sign_ec(&ECDSA_P521_SHA512_ASN1_SIGNING, private), &ECDSA_P521_SHA512_ASN1),
        KeyKind::Ec(Curve::Secp256k1) => {
            (sign_ec(&ECDSA_P256K1_SHA256_ASN1_SIGNING, private), &ECDSA_P256K1_SHA256_ASN1)
        }
        KeyKind::Ed25519 => (sign_ed25519(private), &ED25519),
        KeyKind::MlDsa(set) => (sign_ml_dsa(set, private), ml_dsa_verification(set)),
        KeyKind::Aes { .. } | KeyKind::Hmac { .. } => return Ok(false),
    };
    let public = subject_public_key(key)?;
    let is_good = |signature: Vec<u8>| UnparsedPublicKey::new(algorithm, public).verify(MESSAGE, &signature).is_ok();
    Ok(signature.is_some_and(is_good))
}

fn sign_rsa(private: &[u8]) -> Option<Vec<u8>> {
    let pair = RsaKeyPair::from_pkcs8(private).or_else(|_| RsaKeyPair::from_der(private)).ok()?;
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), MESSAGE, &mut signature).ok()?;
    Some(signature)
}

fn sign_ec(algorithm: &'static EcdsaSigningAlgorithm, private: &[u8]) -> Option<Vec<u8>> {
    let pair = EcdsaKeyPair::from_pkcs8(algorithm, private);
    let pair = pair.or_else(|_| EcdsaKeyPair::from_private_key_der(algorithm, private)).ok()?;
    pair.sign(&SystemRandom::new(), MESSAGE).ok().map(|signature| signature.as_ref().to_vec())
}

fn sign_ml_dsa(set: MlDsa, private: &[u8]) -> Option<Vec<u8>> {
    let pair = PqdsaKeyPair::from_pkcs8(ml_dsa_signing(set), private).ok()?;
    let mut signature = vec![0; set.signature_bytes()];
    pair.sign(MESSAGE, &mut signature).ok()?;
    Some(signature)
}

fn sign_ed25519(private: &[u8]) -> Option<Vec<u8>> {
    let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(private).ok()?;
    Some(pair.sign(MESSAGE).as_ref().to_vec())
}
