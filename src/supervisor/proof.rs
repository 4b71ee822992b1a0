//! Proof that a member holds a key: its private handle signs a fresh challenge that verifies under the public key.
//!
//! The challenge is domain-separated, so that a proof can never be taken for anything a client asked to have signed.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use super::route::KeySpec;
use crate::backend::{BackendError, Fate, FoundKey, Session};
use crate::crypto;
use crate::model::{Fault, Hash, KeyKind, KeyOperation, SaltLength, SignInput, SignatureScheme};

const DOMAIN: &[u8] = b"keyway managed key identity proof v1\0";

/// Has `found` prove that it is the private half of its public key.
pub(super) fn prove(session: &mut dyn Session, spec: &KeySpec, found: &FoundKey) -> Result<(), BackendError> {
    let challenge = challenge()?;
    let mut last = None;
    for scheme in schemes(found.public.kind) {
        match sign_and_check(session, found, scheme, &challenge) {
            Ok(true) => return Ok(()),
            Ok(false) => return Err(keep(mismatch(spec))),
            // A key may be bound to one padding; then the other one proves it.
            Err(error) if error.fate == Fate::Keep => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    Err(last.unwrap_or_else(|| keep(mismatch(spec))))
}

/// Has a key that was proven before sign a challenge once more. A wrong signature refuses the whole member.
pub(super) fn exercise(session: &mut dyn Session, found: &FoundKey) -> Result<(), BackendError> {
    let Some(scheme) = schemes(found.public.kind).into_iter().next() else { return Ok(()) };
    if sign_and_check(session, found, scheme, &challenge()?)? {
        return Ok(());
    }
    let reason =
        "the signature of a keep-alive does not verify: its member serves no more; check the token, then restart";
    let fault = Fault::KeyMismatch { key: found.label.clone(), reason: reason.into() };
    Err(BackendError::new(Fate::Retire, fault))
}

/// A fresh challenge.
fn challenge() -> Result<Vec<u8>, BackendError> {
    let mut challenge = DOMAIN.to_vec();
    challenge.resize(DOMAIN.len() + 32, 0);
    let filled = SystemRandom::new().fill(&mut challenge[DOMAIN.len()..]);
    filled.map_err(|_| keep(Fault::internal("the system's random generator fails")))?;
    Ok(challenge)
}

fn schemes(kind: KeyKind) -> Vec<SignatureScheme> {
    match kind {
        KeyKind::Rsa { .. } => vec![SignatureScheme::RsaPkcs1, SignatureScheme::RsaPss { salt: 32 }],
        KeyKind::Ec(_) => vec![SignatureScheme::Ecdsa],
        KeyKind::Ed25519 => vec![SignatureScheme::Ed25519],
    }
}

fn sign_and_check(
    session: &mut dyn Session,
    found: &FoundKey,
    scheme: SignatureScheme,
    challenge: &[u8],
) -> Result<bool, BackendError> {
    let (hash, input) = if scheme == SignatureScheme::Ed25519 {
        (Hash::None, SignInput::Message(Bytes::copy_from_slice(challenge)))
    } else {
        (Hash::Sha2_256, SignInput::Digest(crypto::digest(Hash::Sha2_256, challenge).map_err(keep)?))
    };
    let operation = KeyOperation::Sign { scheme, hash, input: input.clone() };
    let signature = session.perform(found.handle, found.public.kind, &operation)?;
    crypto::verify(&found.public, scheme, SaltLength::Hash, hash, &input, &signature).map_err(keep)
}

fn mismatch(spec: &KeySpec) -> Fault {
    Fault::KeyMismatch {
        key: spec.name.clone(),
        reason: "its private key does not belong to its public key on the token; check the token's objects".into(),
    }
}

fn keep(fault: Fault) -> BackendError {
    BackendError::keep(fault)
}
