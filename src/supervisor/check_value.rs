//! Check values of secret keys: what tells one from another, since a secret key has no public half to be known by.
//!
//! A key encrypts or MACs something that never changes, and a digest of that is recorded. What is asked of the key is never
//! asked for a client's sake: the block is none that AES-GCM encrypts in a message (its counter is 0, where those begin at 1,
//! and it is not the block of zeros whose encryption GCM must keep secret), and what the key made of it goes no further than
//! the digest. An IV of GCM is never used for this: it would be used twice.

use crate::backend::{BackendError, Fate, FoundKey, Session};
use crate::crypto;
use crate::model::{CheckMethod, CheckValue, Cipher, Fault, Hash, KeyKind, KeyOperation, SecretBytes};

/// The block that AES keys encrypt: twelve letters and a counter of 0.
const BLOCK: &[u8; 16] = b"keyway check\0\0\0\0";
/// What HMAC keys make a MAC of.
const MESSAGE: &[u8] = b"keyway managed key check value v1";
/// What is digested with what the key made.
const DOMAIN: &[u8] = b"keyway managed key check value digest v1\0";

/// In this order they are tried, whatever the key is used with: so two managed keys that stand for one key have one value.
const AES: &[CheckMethod] = &[CheckMethod::Block];
const HMAC: &[CheckMethod] = &[
    CheckMethod::Hmac(Hash::Sha2_256),
    CheckMethod::Hmac(Hash::Sha2_512),
    CheckMethod::Hmac(Hash::Sha2_384),
    CheckMethod::Hmac(Hash::Sha2_224),
    CheckMethod::Hmac(Hash::Sha1),
];

/// The check value of a key just found, by the first method that its token takes.
pub(super) fn first(session: &mut dyn Session, found: &FoundKey) -> Result<CheckValue, BackendError> {
    let methods = match found.kind {
        KeyKind::Aes { .. } => AES,
        KeyKind::Hmac { .. } => HMAC,
        KeyKind::Rsa { .. } | KeyKind::Ec(_) | KeyKind::Ed25519 | KeyKind::MlDsa(_) => &[],
    };
    let mut refused = String::new();
    for method in methods {
        match make(session, found.handle, found.kind, *method) {
            Err(error) if error.fate == Fate::Keep => refused = format!(": {}", error.fault),
            made => return made,
        }
    }
    let what = format!(
        "secret key {:?}: nothing tells it from another key, since its token lets it neither encrypt a block (AES by \
         CKM_AES_ECB or CKM_AES_CBC) nor make a MAC (CKM_SHA256_HMAC and its like); allow one of them{refused}",
        found.label
    );
    Err(BackendError::keep(Fault::NotSupported { what }))
}

/// The check value that the key of this handle makes by `method`.
pub(super) fn make(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    method: CheckMethod,
) -> Result<CheckValue, BackendError> {
    let made = match method {
        CheckMethod::Block => block(session, handle, kind)?,
        CheckMethod::Hmac(hash) => {
            let operation = KeyOperation::Mac { hash, message: SecretBytes::lent(MESSAGE.into()) };
            session.perform(handle, kind, &operation)?.to_vec()
        }
    };
    let digest = crypto::digest(Hash::Sha2_256, &[DOMAIN, &made].concat()).map_err(BackendError::keep)?;
    let digest = digest.as_bytes().try_into();
    let digest = digest.map_err(|_| BackendError::keep(Fault::internal("SHA-256 makes 32 bytes")))?;
    Ok(CheckValue { kind, method, digest })
}

/// The block encrypted: by itself, or where the token does not do that, as the first of CBC with an IV of zeros, which is the
/// same.
fn block(session: &mut dyn Session, handle: u64, kind: KeyKind) -> Result<Vec<u8>, BackendError> {
    let encrypt = |cipher| KeyOperation::Encrypt { cipher, plaintext: SecretBytes::lent(BLOCK[..].into()) };
    match session.perform(handle, kind, &encrypt(Cipher::AesBlock)) {
        Err(error) if error.fate == Fate::Keep => {
            let iv = [0; BLOCK.len()];
            let made = session.perform(handle, kind, &encrypt(Cipher::AesCbc { iv, padded: false }))?;
            Ok(made[iv.len().min(made.len())..].to_vec())
        }
        made => Ok(made?.to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::FakeBackend;
    use crate::backend::{Backend, KeySelector};
    use crate::model::TokenSelector;

    fn session(token: &FakeBackend) -> Box<dyn Session> {
        token.open(&TokenSelector::Slot(0)).unwrap().open_session().unwrap()
    }

    fn found(session: &mut dyn Session, label: &str) -> FoundKey {
        session.find(&KeySelector { label: Some(label.into()), id: None, secret: true, cloud: None }).unwrap().unwrap()
    }

    #[test]
    fn a_key_has_one_check_value_and_another_key_another() {
        let token = FakeBackend::default();
        for (label, kind) in [
            ("a", KeyKind::Aes { bits: 256 }),
            ("b", KeyKind::Aes { bits: 256 }),
            ("m", KeyKind::Hmac { bits: 256 }),
            ("n", KeyKind::Hmac { bits: 256 }),
        ] {
            token.make(label, b"", kind).unwrap();
        }
        let mut session = session(&token);
        let mut value = |label: &str| {
            let found = found(session.as_mut(), label);
            first(session.as_mut(), &found).unwrap()
        };
        assert_eq!(value("a"), value("a"));
        assert_eq!(value("m"), value("m"));
        assert!(value("a") != value("b") && value("m") != value("n"));
    }

    #[test]
    fn a_token_without_single_blocks_makes_the_same_value_by_another_way() {
        let token = FakeBackend::default();
        token.make("a", b"", KeyKind::Aes { bits: 128 }).unwrap();
        let mut session = session(&token);
        let found = found(session.as_mut(), "a");
        let by_block = first(session.as_mut(), &found).unwrap();
        token.fail_next(BackendError::keep(Fault::NotSupported { what: "CKM_AES_ECB".into() }));
        assert_eq!(first(session.as_mut(), &found).unwrap(), by_block);
        // Where it does neither, the key is refused; what is the session's fault is not taken for that.
        for _ in 0..2 {
            token.fail_next(BackendError::keep(Fault::NotSupported { what: "no".into() }));
        }
        assert!(matches!(first(session.as_mut(), &found).unwrap_err().fault, Fault::NotSupported { .. }));
        token.fail_next(BackendError::new(Fate::Reopen, Fault::DeviceError { what: "gone".into() }));
        assert_eq!(first(session.as_mut(), &found).unwrap_err().fate, Fate::Reopen);
    }
}
