//! Keys that follow from their label: the same label is the same key in every slot, module and process, as if a vendor's
//! tool had copied it.

use std::sync::OnceLock;

use aws_lc_rs::agreement::{ECDH_P256, PrivateKey};
use aws_lc_rs::digest::{Digest, SHA256, SHA512, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RsaEncoding};

use crate::settings::KeyKind;
use crate::shared::fnv;

/// RSA keys take too long to make from a label: there are only these.
const RSA: [&[u8]; 4] = [
    include_bytes!("keys/rsa0.der"),
    include_bytes!("keys/rsa1.der"),
    include_bytes!("keys/rsa2.der"),
    include_bytes!("keys/rsa3.der"),
];
/// What comes before the point in a P-256 key's SubjectPublicKeyInfo.
const P256_INFO: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// Before the modulus in the RSAPublicKey of an RSA-2048 key.
const MODULUS_AT: usize = 9;
const MODULUS_BYTES: usize = 256;
/// Bytes of a `CKA_ID` that follows from the label.
const ID_BYTES: usize = 16;

/// A key pair.
pub(super) struct Key {
    pub(super) kind: KeyKind,
    pub(super) label: String,
    pub(super) id: Vec<u8>,
    material: OnceLock<Option<Material>>,
}

/// The numbers of a key.
pub(super) struct Material {
    signer: Signer,
    /// DER of the SubjectPublicKeyInfo.
    pub(super) info: Vec<u8>,
    /// The uncompressed point, or the modulus.
    pub(super) public: Vec<u8>,
}

enum Signer {
    P256(EcdsaKeyPair),
    Rsa(Box<RsaKeyPair>),
}

impl Key {
    /// One that is never taken away, as the module is not: who uses it counts no references, which all sessions would change.
    pub(super) fn new(kind: KeyKind, label: &str, id: Option<Vec<u8>>) -> &'static Key {
        let id = id.unwrap_or_else(|| digest(&SHA256, label.as_bytes()).as_ref()[..ID_BYTES].to_vec());
        Box::leak(Box::new(Key { kind, label: label.to_owned(), id, material: OnceLock::new() }))
    }

    /// The numbers, made when first asked for: there may be many keys.
    pub(super) fn material(&self) -> Option<&Material> {
        let made = || match self.kind {
            KeyKind::P256 => p256(&self.label),
            KeyKind::Rsa2048 => rsa(&self.label),
            // They have no public half.
            KeyKind::Aes256 | KeyKind::Hmac512 => None,
        };
        self.material.get_or_init(made).as_ref()
    }

    /// The value of a secret key.
    pub(super) fn secret(&self) -> Option<Vec<u8>> {
        let value = || digest(&SHA512, format!("hsm-sim secret {}", self.label).as_bytes()).as_ref().to_vec();
        match self.kind {
            KeyKind::P256 | KeyKind::Rsa2048 => None,
            KeyKind::Aes256 => Some(value()[..32].to_vec()),
            KeyKind::Hmac512 => Some(value()),
        }
    }

    /// Bytes of a key pair's signatures.
    pub(super) fn signature_bytes(&self) -> usize {
        match self.kind {
            KeyKind::Rsa2048 => MODULUS_BYTES,
            _ => 64,
        }
    }
}

impl Material {
    /// ECDSA, r and s in 32 bytes each.
    pub(super) fn ecdsa(&self, digest: &Digest) -> Option<Vec<u8>> {
        let Signer::P256(pair) = &self.signer else { return None };
        pair.sign_digest(digest).ok().map(|signature| signature.as_ref().to_vec())
    }

    pub(super) fn rsa(&self, padding: &'static dyn RsaEncoding, digest: &Digest) -> Option<Vec<u8>> {
        let Signer::Rsa(pair) = &self.signer else { return None };
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign_digest(padding, digest, &mut signature).ok().map(|()| signature)
    }
}

fn p256(label: &str) -> Option<Material> {
    // A hash is a private key unless it is 0 or above the group's order: once in four billion times.
    (0..8_u8).find_map(|attempt| {
        let secret = digest(&SHA256, format!("hsm-sim p256 {attempt} {label}").as_bytes());
        let public = PrivateKey::from_private_key(&ECDH_P256, secret.as_ref()).ok()?.compute_public_key().ok()?;
        let public = public.as_ref().to_vec();
        let pair =
            EcdsaKeyPair::from_private_key_and_public_key(&ECDSA_P256_SHA256_FIXED_SIGNING, secret.as_ref(), &public);
        let info = [&P256_INFO[..], &public].concat();
        Some(Material { signer: Signer::P256(pair.ok()?), info, public })
    })
}

fn rsa(label: &str) -> Option<Material> {
    let pair = RsaKeyPair::from_der(RSA[fnv(label.as_bytes()) as usize % RSA.len()]).ok()?;
    let info: PublicKeyX509Der<'_> = pair.public_key().as_der().ok()?;
    let info = info.as_ref().to_vec();
    let modulus = pair.public_key().as_ref().get(MODULUS_AT..MODULUS_AT + MODULUS_BYTES)?.to_vec();
    Some(Material { signer: Signer::Rsa(Box::new(pair)), info, public: modulus })
}
