//! Check values of secret keys: what tells one from another, since a secret key has no public half to be known by.
//!
//! A key encrypts or MACs something that never changes, and a digest of that is recorded. What is asked of the key is never
//! asked for a client's sake: the block is none that AES-GCM encrypts in a message (its counter is 0, where those begin at 1,
//! and it is not the block of zeros whose encryption GCM must keep secret), and what the key made of it goes no further than
//! the digest. An IV of GCM is never chosen for this: it would be used twice.
//!
//! Services that choose the IVs make no two ciphertexts alike. Such a key seals its own lasting name at first, and must open that
//! again ever after, wherever a copy of it is: no other key does. So two managed keys that stand for one key have one value here,
//! too, though each has a ciphertext of its own.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;

use crate::backend::{BackendError, Fate, FoundKey, Sealing, Session};
use crate::crypto;
use crate::model::{
    CheckMethod, CheckValue, Cipher, CipherScheme, Fault, GCM_IV_BYTES, Hash, KeyKind, KeyOperation, SecretBytes,
};

/// The block that AES keys encrypt: twelve letters and a counter of 0.
const BLOCK: &[u8; 16] = b"keyway check\0\0\0\0";
/// What HMAC keys make a MAC of.
const MESSAGE: &[u8] = b"keyway managed key check value v1";
/// What is digested with a key's lasting name, for it to seal.
const SEALED: &[u8] = b"keyway managed key sealed name v1\0";
/// Most bytes of a sealed name: it is recorded.
const SEALED_MAX: usize = 1024;
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
    if let Some(sealing) = &found.sealing {
        return seal(session, found, sealing);
    }
    let methods = match found.kind {
        KeyKind::Aes { .. } => AES,
        KeyKind::Hmac { .. } => HMAC,
        KeyKind::Rsa { .. } | KeyKind::Ec(_) | KeyKind::Ed25519 | KeyKind::MlDsa(_) => &[],
    };
    let mut refused = String::new();
    for method in methods {
        match make(session, found.handle, found.kind, *method, Bytes::new()) {
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

/// The check value that the key of this handle makes now, as `recorded` was made.
pub(super) fn again(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    recorded: &CheckValue,
) -> Result<CheckValue, BackendError> {
    make(session, handle, kind, recorded.method, recorded.sealed.clone())
}

fn make(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    method: CheckMethod,
    sealed: Bytes,
) -> Result<CheckValue, BackendError> {
    let made = match method {
        CheckMethod::Block => block(session, handle, kind)?,
        CheckMethod::Hmac(hash) => {
            let operation = KeyOperation::Mac { hash, message: SecretBytes::lent(MESSAGE.into()) };
            session.perform(handle, kind, &operation)?.to_vec()
        }
        CheckMethod::Opened(scheme) => open(session, handle, kind, scheme, &sealed)?,
    };
    Ok(CheckValue { kind, method, sealed, digest: digest(DOMAIN, &made)? })
}

fn digest(domain: &[u8], bytes: &[u8]) -> Result<[u8; 32], BackendError> {
    let made = crypto::digest(Hash::Sha2_256, &[domain, bytes].concat()).map_err(BackendError::keep)?;
    made.as_bytes().try_into().map_err(|_| BackendError::keep(Fault::internal("SHA-256 makes 32 bytes")))
}

/// The check value of a key that is new here: it seals its lasting name, and opens that.
fn seal(session: &mut dyn Session, found: &FoundKey, sealing: &Sealing) -> Result<CheckValue, BackendError> {
    let name = digest(SEALED, sealing.name.as_bytes())?;
    let cipher = match sealing.scheme {
        CipherScheme::AesGcm => {
            let mut iv = [0; GCM_IV_BYTES];
            let filled = SystemRandom::new().fill(&mut iv);
            filled.map_err(|_| BackendError::keep(Fault::internal("the system's random generator fails")))?;
            Cipher::AesGcm { iv, associated_data: Bytes::new() }
        }
        CipherScheme::ServiceAead => Cipher::ServiceAead { associated_data: Bytes::new() },
        scheme => return Err(no_sealing(scheme)),
    };
    let operation = KeyOperation::Encrypt { cipher, plaintext: SecretBytes::new(name.to_vec()) };
    let sealed = session.perform(found.handle, found.kind, &operation)?;
    let made = make(session, found.handle, found.kind, CheckMethod::Opened(sealing.scheme), sealed)?;
    if made.sealed.len() > SEALED_MAX || made.digest != digest(DOMAIN, &name)? {
        let what = format!("secret key {:?}: it does not open what it sealed", found.label);
        return Err(BackendError::keep(Fault::DeviceError { what }));
    }
    Ok(made)
}

/// What the key makes of what it, or another, sealed. One that does not open it makes nothing of it.
fn open(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    scheme: CipherScheme,
    sealed: &Bytes,
) -> Result<Vec<u8>, BackendError> {
    let (cipher, ciphertext) = match (scheme, sealed.split_first_chunk::<GCM_IV_BYTES>()) {
        (CipherScheme::AesGcm, Some((iv, _))) => {
            (Cipher::AesGcm { iv: *iv, associated_data: Bytes::new() }, sealed.slice(GCM_IV_BYTES..))
        }
        (CipherScheme::ServiceAead, _) => (Cipher::ServiceAead { associated_data: Bytes::new() }, sealed.clone()),
        (scheme, _) => return Err(no_sealing(scheme)),
    };
    match session.perform(handle, kind, &KeyOperation::Decrypt { cipher, ciphertext }) {
        Err(BackendError { fate: Fate::Keep, fault: Fault::InvalidRequest { .. }, .. }) => Ok(Vec::new()),
        opened => Ok(opened?.to_vec()),
    }
}

fn no_sealing(scheme: CipherScheme) -> BackendError {
    BackendError::keep(Fault::internal(format!("nothing is sealed by {scheme:?} for a check value")))
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
    fn a_key_whose_ciphertexts_never_repeat_is_known_by_what_it_opens() {
        let token = FakeBackend::default();
        for label in ["a", "b"] {
            token.make(label, b"", KeyKind::Aes { bits: 256 }).unwrap();
        }
        let mut session = session(&token);
        let sealing = |name: &str| Some(Sealing { scheme: CipherScheme::AesGcm, name: name.into() });
        let mut keys = ["a", "b"].map(|label| found(session.as_mut(), label));
        keys[0].sealing = sealing("arn:a");
        keys[1].sealing = sealing("arn:b");
        let [a, b] = &keys;
        let recorded = first(session.as_mut(), a).unwrap();
        let other = first(session.as_mut(), a).unwrap();
        // Each time a ciphertext of its own, and the same value.
        assert!(recorded.sealed != other.sealed && recorded == other);
        assert!(recorded != first(session.as_mut(), b).unwrap());
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap(), recorded);
        assert_ne!(again(session.as_mut(), b.handle, b.kind, &recorded).unwrap(), recorded, "another key opens it");
        // Another key that says it is the one does not open what that sealed.
        let named_alike = FoundKey { sealing: a.sealing.clone(), ..b.clone() };
        let stranger = first(session.as_mut(), &named_alike).unwrap();
        assert_ne!(again(session.as_mut(), named_alike.handle, b.kind, &recorded).unwrap(), recorded);
        assert_ne!(again(session.as_mut(), a.handle, a.kind, &stranger).unwrap(), stranger);
        // What is the session's fault is not taken for another key.
        token.fail_next(BackendError::new(Fate::BackOff, Fault::Unavailable { what: "gone".into() }));
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap_err().fate, Fate::BackOff);
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
