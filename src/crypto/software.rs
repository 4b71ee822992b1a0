//! Private keys in memory: for the fake backend and for tests, never for a client's key.

use aws_lc_rs::digest as lc;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{
    KeyPair as RsaKeyPair, KeySize, OAEP_SHA1_MGF1SHA1, OAEP_SHA256_MGF1SHA256, OAEP_SHA384_MGF1SHA384,
    OAEP_SHA512_MGF1SHA512, OaepPrivateDecryptingKey, Pkcs1PrivateDecryptingKey, PrivateDecryptingKey,
};
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair};
use bytes::Bytes;

use super::signature::ecdsa_der_from_raw;
use super::{ec_spki, ed25519_spki, ml_dsa_spki, parse_spki};
use crate::model::{
    Cipher, Curve, Fault, Hash, KeyKind, KeyOperation, MlDsa, PublicKey, SignInput, SignatureScheme, wiped,
};

/// A key pair in memory.
pub struct SoftwareKey {
    pair: Pair,
    public: PublicKey,
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(Box<EcdsaKeyPair>, Curve),
    Ed25519(Box<Ed25519KeyPair>),
    MlDsa(Box<PqdsaKeyPair>, MlDsa),
}

/// How a parameter set of ML-DSA is signed with.
pub(super) fn ml_dsa_signing(set: MlDsa) -> &'static sig::PqdsaSigningAlgorithm {
    match set {
        MlDsa::MlDsa44 => &sig::ML_DSA_44_SIGNING,
        MlDsa::MlDsa65 => &sig::ML_DSA_65_SIGNING,
        MlDsa::MlDsa87 => &sig::ML_DSA_87_SIGNING,
    }
}

fn failed<E: std::fmt::Debug>(what: &'static str) -> impl FnOnce(E) -> Fault {
    move |error| Fault::internal(format!("software key: {what}: {error:?}"))
}

impl SoftwareKey {
    /// Generates one.
    pub fn generate(kind: KeyKind) -> Result<SoftwareKey, Fault> {
        match kind {
            KeyKind::Rsa { bits } => {
                let size = match bits {
                    2048 => KeySize::Rsa2048,
                    3072 => KeySize::Rsa3072,
                    4096 => KeySize::Rsa4096,
                    other => return Err(Fault::invalid(format!("RSA keys of {other} bits are not made here"))),
                };
                let pair = RsaKeyPair::generate(size).map_err(failed("generate"))?;
                let spki = pair.public_key().as_der().map_err(failed("export"))?;
                Ok(SoftwareKey { public: parse_spki(spki.as_ref())?, pair: Pair::Rsa(Box::new(pair)) })
            }
            KeyKind::Ec(curve) => {
                let algorithm = match curve {
                    Curve::P256 => &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
                    Curve::P384 => &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
                    Curve::P521 => &sig::ECDSA_P521_SHA512_FIXED_SIGNING,
                    Curve::Secp256k1 => &sig::ECDSA_P256K1_SHA256_FIXED_SIGNING,
                };
                let pair = EcdsaKeyPair::generate(algorithm).map_err(failed("generate"))?;
                let public = ec_spki(curve, pair.public_key().as_ref())?;
                Ok(SoftwareKey { public, pair: Pair::Ec(Box::new(pair), curve) })
            }
            KeyKind::Ed25519 => {
                let pair = Ed25519KeyPair::generate().map_err(failed("generate"))?;
                Ok(SoftwareKey {
                    public: ed25519_spki(pair.public_key().as_ref())?,
                    pair: Pair::Ed25519(Box::new(pair)),
                })
            }
            KeyKind::MlDsa(set) => {
                let pair = PqdsaKeyPair::generate(ml_dsa_signing(set)).map_err(failed("generate"))?;
                let public = ml_dsa_spki(pair.public_key().as_ref())?;
                Ok(SoftwareKey { public, pair: Pair::MlDsa(Box::new(pair), set) })
            }
            KeyKind::Aes { .. } | KeyKind::Hmac { .. } => {
                Err(Fault::internal(format!("a key of kind {kind} is no key pair")))
            }
        }
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Runs an operation. RSA knows SHA-256, SHA-384 and SHA-512, and PSS salts as long as the hash.
    pub fn perform(&self, operation: &KeyOperation) -> Result<Bytes, Fault> {
        match operation {
            KeyOperation::Sign { scheme, hash, input } => self.sign(*scheme, *hash, input),
            KeyOperation::Decrypt { cipher, ciphertext } => self.decrypt(cipher, ciphertext),
            KeyOperation::Encrypt { .. } | KeyOperation::Mac { .. } => {
                Err(Fault::NotSupported { what: "this by the private half of a key pair".into() })
            }
        }
    }

    fn decrypt(&self, cipher: &Cipher, ciphertext: &[u8]) -> Result<Bytes, Fault> {
        let unsupported = || Fault::NotSupported { what: format!("decryption by a {} key so", self.public.kind) };
        let wrong = |_| Fault::not_decrypted("the ciphertext does not decrypt");
        let Pair::Rsa(pair) = &self.pair else { return Err(unsupported()) };
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(failed("export"))?;
        let private = PrivateDecryptingKey::from_pkcs8(der.as_ref()).map_err(failed("import"))?;
        let mut room = vec![0; pair.public_modulus_len()];
        let algorithm = match cipher {
            Cipher::RsaPkcs1 => {
                let key = Pkcs1PrivateDecryptingKey::new(private).map_err(failed("import"))?;
                let len = key.decrypt(ciphertext, &mut room).map_err(wrong)?.len();
                room.truncate(len);
                return Ok(wiped(room));
            }
            Cipher::RsaOaep { hash: Hash::Sha1 } => &OAEP_SHA1_MGF1SHA1,
            Cipher::RsaOaep { hash: Hash::Sha2_256 } => &OAEP_SHA256_MGF1SHA256,
            Cipher::RsaOaep { hash: Hash::Sha2_384 } => &OAEP_SHA384_MGF1SHA384,
            Cipher::RsaOaep { hash: Hash::Sha2_512 } => &OAEP_SHA512_MGF1SHA512,
            _ => return Err(unsupported()),
        };
        let key = OaepPrivateDecryptingKey::new(private).map_err(failed("import"))?;
        let len = key.decrypt(algorithm, ciphertext, &mut room, None).map_err(wrong)?.len();
        room.truncate(len);
        Ok(wiped(room))
    }

    fn sign(&self, scheme: SignatureScheme, hash: Hash, input: &SignInput) -> Result<Bytes, Fault> {
        let unsupported = || Fault::NotSupported { what: format!("{scheme:?} with {} by a software key", hash.name()) };
        match (&self.pair, scheme) {
            (Pair::Ed25519(pair), SignatureScheme::Ed25519) => {
                Ok(Bytes::copy_from_slice(pair.sign(input.as_bytes()).as_ref()))
            }
            (Pair::MlDsa(pair, set), SignatureScheme::MlDsa) => {
                let mut signature = vec![0; set.signature_bytes()];
                pair.sign(input.as_bytes(), &mut signature).map_err(failed("sign"))?;
                Ok(Bytes::from(signature))
            }
            (Pair::Ec(pair, curve), SignatureScheme::Ecdsa) => {
                let (algorithm, width) = match curve {
                    Curve::P256 | Curve::Secp256k1 => (&lc::SHA256, 32),
                    Curve::P384 => (&lc::SHA384, 48),
                    Curve::P521 => (&lc::SHA512, 64),
                };
                let digest = input.as_bytes();
                let kept = &digest[..digest.len().min(width)];
                let mut value = [0; 64];
                value[width - kept.len()..width].copy_from_slice(kept);
                let digest = lc::Digest::import_less_safe(&value[..width], algorithm).map_err(failed("digest"))?;
                ecdsa_der_from_raw(pair.sign_digest(&digest).map_err(failed("sign"))?.as_ref())
            }
            (Pair::Rsa(pair), SignatureScheme::RsaPkcs1 | SignatureScheme::RsaPss { .. }) => {
                let pss = matches!(scheme, SignatureScheme::RsaPss { .. });
                let (encoding, algorithm): (&'static dyn sig::RsaEncoding, _) = match (hash, pss) {
                    (Hash::Sha2_256, false) => (&sig::RSA_PKCS1_SHA256, &lc::SHA256),
                    (Hash::Sha2_384, false) => (&sig::RSA_PKCS1_SHA384, &lc::SHA384),
                    (Hash::Sha2_512, false) => (&sig::RSA_PKCS1_SHA512, &lc::SHA512),
                    (Hash::Sha2_256, true) => (&sig::RSA_PSS_SHA256, &lc::SHA256),
                    (Hash::Sha2_384, true) => (&sig::RSA_PSS_SHA384, &lc::SHA384),
                    (Hash::Sha2_512, true) => (&sig::RSA_PSS_SHA512, &lc::SHA512),
                    _ => return Err(unsupported()),
                };
                let digest = lc::Digest::import_less_safe(input.as_bytes(), algorithm).map_err(failed("digest"))?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign_digest(encoding, &digest, &mut signature).map_err(failed("sign"))?;
                Ok(Bytes::from(signature))
            }
            _ => Err(unsupported()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{digest, verify};
    use crate::model::{SaltLength, SignInput};

    #[test]
    fn signatures_of_each_kind_verify_and_a_changed_digest_does_not() {
        let kinds = [
            (KeyKind::Rsa { bits: 2048 }, SignatureScheme::RsaPkcs1),
            (KeyKind::Rsa { bits: 2048 }, SignatureScheme::RsaPss { salt: 32 }),
            (KeyKind::Ec(Curve::P256), SignatureScheme::Ecdsa),
            (KeyKind::Ec(Curve::P384), SignatureScheme::Ecdsa),
            (KeyKind::Ec(Curve::P521), SignatureScheme::Ecdsa),
            (KeyKind::Ec(Curve::Secp256k1), SignatureScheme::Ecdsa),
            (KeyKind::Ed25519, SignatureScheme::Ed25519),
            (KeyKind::MlDsa(MlDsa::MlDsa44), SignatureScheme::MlDsa),
            (KeyKind::MlDsa(MlDsa::MlDsa65), SignatureScheme::MlDsa),
            (KeyKind::MlDsa(MlDsa::MlDsa87), SignatureScheme::MlDsa),
        ];
        for (kind, scheme) in kinds {
            let key = SoftwareKey::generate(kind).unwrap();
            let sign = |message: &[u8]| match scheme {
                _ if scheme.takes_message() => (Hash::None, SignInput::Message(Bytes::copy_from_slice(message))),
                _ => (Hash::Sha2_256, SignInput::Digest(digest(Hash::Sha2_256, message).unwrap())),
            };
            let (hash, input) = sign(b"message");
            let signature = key.perform(&KeyOperation::Sign { scheme, hash, input: input.clone() }).unwrap();
            let check = |input: &SignInput, signature: &[u8]| {
                verify(key.public(), scheme, SaltLength::Auto, hash, input, signature).unwrap()
            };
            assert!(check(&input, &signature), "{kind}");
            assert!(!check(&sign(b"massage").1, &signature), "{kind}");
            let mut broken = signature.to_vec();
            let last = broken.len() - 1;
            broken[last] ^= 1;
            assert!(!check(&input, &broken), "{kind}");
        }
    }

    #[test]
    fn a_digest_longer_or_shorter_than_the_curve_signs_and_verifies() {
        let key = SoftwareKey::generate(KeyKind::Ec(Curve::P256)).unwrap();
        for hash in [Hash::Sha1, Hash::Sha2_512, Hash::Sha3_224] {
            let input = SignInput::Digest(digest(hash, b"m").unwrap());
            let scheme = SignatureScheme::Ecdsa;
            let signature = key.perform(&KeyOperation::Sign { scheme, hash, input: input.clone() }).unwrap();
            assert!(verify(key.public(), scheme, SaltLength::Auto, hash, &input, &signature).unwrap(), "{hash:?}");
        }
    }
}
