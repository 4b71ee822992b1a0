//! Proof that a handle is the key it is said to be. A private handle signs, or decrypts, a fresh challenge that only the private
//! half of the public key answers rightly; a secret key makes the check value that is recorded.
//!
//! Challenges are domain-separated, so that a proof can never be taken for anything a client asked for.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::check_value;
use super::control::Proven;
use super::route::KeySpec;
use crate::backend::{BackendError, Fate, FoundKey, Session};
use crate::crypto;
use crate::model::{
    Cipher, CipherScheme, Fault, Hash, KeyIdentity, KeyKind, KeyOperation, PublicKey, SaltLength, SignInput,
    SignatureScheme,
};

const DOMAIN: &[u8] = b"keyway managed key identity proof v1\0";

/// What `found` is known by, once it has proven to be that; refused where another key was recorded.
pub(super) fn identify(
    session: &mut dyn Session,
    spec: &KeySpec,
    found: &FoundKey,
) -> Result<KeyIdentity, BackendError> {
    let identity = match (&found.public, &spec.recorded) {
        (Some(public), _) => KeyIdentity::Public(public.clone()),
        // Tokens differ in what they let a key do: its value is made as it was made when it was recorded.
        (None, Some(KeyIdentity::Secret(recorded))) => {
            KeyIdentity::Secret(check_value::again(session, found.handle, found.kind, recorded)?)
        }
        (None, _) => KeyIdentity::Secret(check_value::first(session, found)?),
    };
    if spec.recorded.as_ref().is_some_and(|recorded| *recorded != identity) {
        let reason = "another key is under its label, id or name; put the right key back, or delete the managed \
                      key and register it anew";
        return Err(mismatch(spec, reason));
    }
    // A check value is a proof already.
    if let KeyIdentity::Public(public) = &identity
        && !is_private_half(session, found.handle, public)?
    {
        let reason = "its private key does not belong to its public key where it is; check the objects of the token, or the service";
        return Err(mismatch(spec, reason));
    }
    Ok(identity)
}

/// Whether a handle is the key of this identity.
pub(super) fn is_key(session: &mut dyn Session, handle: u64, identity: &KeyIdentity) -> Result<bool, BackendError> {
    match identity {
        KeyIdentity::Public(public) => is_private_half(session, handle, public),
        KeyIdentity::Secret(value) => Ok(check_value::again(session, handle, value.kind, value)? == *value),
    }
}

/// Has a key that was proven before prove it once more. Another key refuses the whole member.
pub(super) fn exercise(session: &mut dyn Session, proven: &Proven) -> Result<(), BackendError> {
    if is_key(session, proven.found.handle, &proven.key.identity)? {
        return Ok(());
    }
    let reason =
        "a keep-alive finds another key behind its handle: its member serves no more; check the token, then restart";
    let fault = Fault::KeyMismatch { key: proven.found.label.clone(), reason: reason.into() };
    Err(BackendError::new(Fate::Retire, fault))
}

/// A way in which a private key proves itself.
#[derive(Clone, Copy)]
enum Way {
    Sign(SignatureScheme, Hash),
    Decrypt(CipherScheme),
}

/// In this order they are tried: a key may be bound to one use, to one padding, and in a cloud to one hash.
fn ways(kind: KeyKind) -> &'static [Way] {
    const RSA: &[Way] = &[
        Way::Sign(SignatureScheme::RsaPkcs1, Hash::Sha2_256),
        Way::Sign(SignatureScheme::RsaPss { salt: 32 }, Hash::Sha2_256),
        Way::Decrypt(CipherScheme::RsaOaep { hash: Hash::Sha2_256 }),
        Way::Decrypt(CipherScheme::RsaOaep { hash: Hash::Sha1 }),
        Way::Decrypt(CipherScheme::RsaPkcs1),
        Way::Sign(SignatureScheme::RsaPkcs1, Hash::Sha2_512),
        Way::Sign(SignatureScheme::RsaPss { salt: 64 }, Hash::Sha2_512),
        Way::Decrypt(CipherScheme::RsaOaep { hash: Hash::Sha2_512 }),
    ];
    match kind {
        KeyKind::Rsa { .. } => RSA,
        KeyKind::Ec(_) => &[Way::Sign(SignatureScheme::Ecdsa, Hash::Sha2_256)],
        KeyKind::Ed25519 => &[Way::Sign(SignatureScheme::Ed25519, Hash::None)],
        KeyKind::MlDsa(_) => &[Way::Sign(SignatureScheme::MlDsa, Hash::None)],
        KeyKind::Aes { .. } | KeyKind::Hmac { .. } => &[],
    }
}

fn is_private_half(session: &mut dyn Session, handle: u64, public: &PublicKey) -> Result<bool, BackendError> {
    let mut random = [0; 32];
    let filled = SystemRandom::new().fill(&mut random);
    filled.map_err(|_| keep(Fault::internal("the system's random generator fails")))?;
    let mut last = None;
    for way in ways(public.kind) {
        let answered = match way {
            Way::Sign(scheme, hash) => sign_and_check(session, handle, public, *scheme, *hash, &random),
            Way::Decrypt(scheme) => decrypt_and_check(session, handle, public, *scheme, &random),
        };
        match answered {
            Err(error) if error.fate == Fate::Keep => last = Some(error),
            answered => return answered,
        }
    }
    last.map_or(Ok(false), Err)
}

fn sign_and_check(
    session: &mut dyn Session,
    handle: u64,
    public: &PublicKey,
    scheme: SignatureScheme,
    hash: Hash,
    random: &[u8],
) -> Result<bool, BackendError> {
    let challenge = [DOMAIN, random].concat();
    let input = if scheme.takes_message() {
        SignInput::Message(Bytes::from(challenge))
    } else {
        SignInput::Digest(crypto::digest(hash, &challenge).map_err(keep)?)
    };
    let operation = KeyOperation::Sign { scheme, hash, input: input.clone() };
    let signature = session.perform(handle, public.kind, &operation)?;
    crypto::verify(public, scheme, SaltLength::Hash, hash, &input, &signature).map_err(keep)
}

fn decrypt_and_check(
    session: &mut dyn Session,
    handle: u64,
    public: &PublicKey,
    scheme: CipherScheme,
    random: &[u8],
) -> Result<bool, BackendError> {
    let cipher = match scheme {
        CipherScheme::RsaPkcs1 => Cipher::RsaPkcs1,
        CipherScheme::RsaOaep { hash } => Cipher::RsaOaep { hash },
        CipherScheme::AesGcm | CipherScheme::AesCbc { .. } | CipherScheme::ServiceAead => {
            return Err(keep(Fault::internal("no cipher of RSA's")));
        }
    };
    let ciphertext = crypto::rsa_encrypt(public, scheme, random).map_err(keep)?;
    let plaintext = session.perform(handle, public.kind, &KeyOperation::Decrypt { cipher, ciphertext })?;
    Ok(plaintext == random)
}

fn mismatch(spec: &KeySpec, reason: &str) -> BackendError {
    keep(Fault::KeyMismatch { key: spec.name.clone(), reason: reason.into() })
}

fn keep(fault: Fault) -> BackendError {
    BackendError::keep(fault)
}
