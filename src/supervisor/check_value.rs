//! Check values of secret keys: what tells one from another, since a secret key has no public half to be known by.
//!
//! A key encrypts or MACs something that never changes, and a digest of that is recorded. What is asked of the key is never
//! asked for a client's sake: the block is none that AES-GCM encrypts in a message (its counter is 0, where those begin at 1,
//! and it is not the block of zeros whose encryption GCM must keep secret), and what the key made of it goes no further than
//! the digest. An IV of GCM is never chosen for this: it would be used twice.
//!
//! Services that choose the IVs make no two ciphertexts alike. Such a key seals a secret at first, and must open that again ever
//! after, wherever a copy of it is: the secret is kept nowhere, so that whoever has not the key cannot tell it. Two managed keys of
//! one key have two such values, and its lasting name in common, which is its service's word and no proof.

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use bytes::Bytes;
use zeroize::Zeroizing;

use crate::backend::{BackendError, Fate, FoundKey, Sealing, Session};
use crate::crypto;
use crate::model::{
    CHECK_ASSOCIATED_DATA, CheckMethod, CheckValue, Cipher, CipherScheme, Fault, GCM_IV_BYTES, Hash, KeyKind,
    KeyOperation, SecretBytes,
};

/// The block that AES keys encrypt: twelve letters and a counter of 0.
const BLOCK: &[u8; 16] = b"keyway check\0\0\0\0";
/// What HMAC keys make a MAC of.
const MESSAGE: &[u8] = b"keyway managed key check value v1";
/// What is digested with a key's lasting name.
const NAME: &[u8] = b"keyway managed key lasting name v1\0";
/// The bytes of the secret that a key seals behind the digest of its name.
const SECRET_BYTES: usize = 32;
/// Most bytes of what was sealed: it is recorded.
const SEALED_MAX: usize = 1024;
/// By this what was sealed is told from what clients have encrypted.
const OWN: Bytes = Bytes::from_static(CHECK_ASSOCIATED_DATA);
/// What is digested with what the key made.
const DOMAIN: &[u8] = b"keyway managed key check value digest v1\0";

/// In this order they are tried, whatever the key is used with: so two managed keys that stand for one key have one value by them.
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
        match make(session, found.handle, found.kind, *method, &Bytes::new()) {
            Err(error) if error.fate == Fate::Keep => refused = format!(": {}", error.fault),
            made => {
                let (kind, method, sealed) = (found.kind, *method, Bytes::new());
                return Ok(CheckValue { kind, method, sealed, name: None, digest: made? });
            }
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
    let digest = make(session, handle, kind, recorded.method, &recorded.sealed)?;
    Ok(CheckValue { kind, digest, ..recorded.clone() })
}

/// The digest of what the key makes.
fn make(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    method: CheckMethod,
    sealed: &Bytes,
) -> Result<[u8; 32], BackendError> {
    let made = match method {
        CheckMethod::Block => block(session, handle, kind)?,
        CheckMethod::Hmac(hash) => {
            let operation = KeyOperation::Mac { hash, message: SecretBytes::lent(MESSAGE.into()) };
            session.perform(handle, kind, &operation)?
        }
        CheckMethod::Opened(scheme) => open(session, handle, kind, scheme, sealed)?,
    };
    digest(DOMAIN, &made)
}

fn digest(domain: &[u8], bytes: &[u8]) -> Result<[u8; 32], BackendError> {
    let digested = Zeroizing::new([domain, bytes].concat());
    let made = crypto::digest(Hash::Sha2_256, &digested).map_err(BackendError::keep)?;
    made.as_bytes().try_into().map_err(|_| BackendError::keep(Fault::internal("SHA-256 makes 32 bytes")))
}

/// The check value of a key that is new here: it seals a secret that nobody keeps, and opens that.
fn seal(session: &mut dyn Session, found: &FoundKey, sealing: &Sealing) -> Result<CheckValue, BackendError> {
    let name = digest(NAME, sealing.name.as_bytes())?;
    let mut secret = [name, [0; SECRET_BYTES]].concat();
    fill(&mut secret[name.len()..])?;
    let secret = SecretBytes::new(secret);
    let cipher = match sealing.scheme {
        CipherScheme::AesGcm => {
            let mut iv = [0; GCM_IV_BYTES];
            fill(&mut iv)?;
            Cipher::AesGcm { iv, associated_data: OWN }
        }
        CipherScheme::ServiceAead => Cipher::ServiceAead { associated_data: OWN },
        scheme => return Err(no_sealing(scheme)),
    };
    let operation = KeyOperation::Encrypt { cipher, plaintext: secret.clone() };
    let sealed = session.perform(found.handle, found.kind, &operation)?;
    let (method, digest) = (CheckMethod::Opened(sealing.scheme), digest(DOMAIN, secret.expose())?);
    let value = CheckValue { kind: found.kind, method, sealed, name: Some(name), digest };
    if value.sealed.len() > SEALED_MAX || again(session, found.handle, found.kind, &value)? != value {
        let what = format!("secret key {:?}: it does not open what it sealed", found.label);
        return Err(BackendError::keep(Fault::DeviceError { what }));
    }
    Ok(value)
}

fn fill(bytes: &mut [u8]) -> Result<(), BackendError> {
    let fails = |_| BackendError::keep(Fault::internal("the system's random generator fails"));
    SystemRandom::new().fill(bytes).map_err(fails)
}

/// What the key makes of what it, or another, sealed: nothing, by the service's word that it does not open it. Any other refusal says
/// nothing of which key it is.
fn open(
    session: &mut dyn Session,
    handle: u64,
    kind: KeyKind,
    scheme: CipherScheme,
    sealed: &Bytes,
) -> Result<Bytes, BackendError> {
    let (cipher, ciphertext) = match (scheme, sealed.split_first_chunk::<GCM_IV_BYTES>()) {
        (CipherScheme::AesGcm, Some((iv, _))) => {
            (Cipher::AesGcm { iv: *iv, associated_data: OWN }, sealed.slice(GCM_IV_BYTES..))
        }
        (CipherScheme::ServiceAead, _) => (Cipher::ServiceAead { associated_data: OWN }, sealed.clone()),
        (scheme, _) => return Err(no_sealing(scheme)),
    };
    let operation = KeyOperation::Decrypt { cipher, ciphertext };
    // Asked twice: not every service tells another key from bytes that were damaged on the way.
    for _ in 0..2 {
        match session.perform(handle, kind, &operation) {
            Err(BackendError { fault: Fault::NotDecrypted { .. }, .. }) => {}
            opened => return opened,
        }
    }
    Ok(Bytes::new())
}

fn no_sealing(scheme: CipherScheme) -> BackendError {
    BackendError::keep(Fault::internal(format!("nothing is sealed by {scheme:?} for a check value")))
}

/// The block encrypted: by itself, or where the token does not do that, as the first of CBC with an IV of zeros, which is the
/// same.
fn block(session: &mut dyn Session, handle: u64, kind: KeyKind) -> Result<Bytes, BackendError> {
    let encrypt = |cipher| KeyOperation::Encrypt { cipher, plaintext: SecretBytes::lent(BLOCK[..].into()) };
    match session.perform(handle, kind, &encrypt(Cipher::AesBlock)) {
        Err(error) if error.fate == Fate::Keep => {
            let iv = [0; BLOCK.len()];
            let made = session.perform(handle, kind, &encrypt(Cipher::AesCbc { iv, padded: false }))?;
            Ok(made.slice(iv.len().min(made.len())..))
        }
        made => made,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::FakeBackend;
    use crate::backend::{Backend, KeySelector, KeyTemplate};
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
        // Each time a secret of its own, and the same name.
        assert!(recorded.sealed != other.sealed && recorded != other && recorded.lasting() == other.lasting());
        assert!(recorded.lasting() != first(session.as_mut(), b).unwrap().lasting());
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &other).unwrap(), other);
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap(), recorded);
        assert_ne!(again(session.as_mut(), b.handle, b.kind, &recorded).unwrap(), recorded, "another key opens it");
        // Another key that says it is the one does not open what that sealed.
        let named_alike = FoundKey { sealing: a.sealing.clone(), ..b.clone() };
        let stranger = first(session.as_mut(), &named_alike).unwrap();
        assert_ne!(again(session.as_mut(), named_alike.handle, b.kind, &recorded).unwrap(), recorded);
        assert_ne!(again(session.as_mut(), a.handle, a.kind, &stranger).unwrap(), stranger);
        // No client has it opened: what clients may give is other associated data.
        let (iv, ciphertext) =
            (recorded.sealed[..GCM_IV_BYTES].try_into().unwrap(), recorded.sealed.slice(GCM_IV_BYTES..));
        let cipher = Cipher::AesGcm { iv, associated_data: Bytes::new() };
        assert!(session.perform(a.handle, a.kind, &KeyOperation::Decrypt { cipher, ciphertext }).is_err());
        // What is the session's fault is not taken for another key, nor what is a proxy's, nor one damaged answer.
        token.fail_next(BackendError::new(Fate::BackOff, Fault::Unavailable { what: "gone".into() }));
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap_err().fate, Fate::BackOff);
        token.fail_next(BackendError { cause: "other", ..BackendError::keep(Fault::invalid("HTTP status 400")) });
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap_err().cause, "other");
        token.fail_next(BackendError::keep(Fault::not_decrypted("damaged")));
        assert_eq!(again(session.as_mut(), a.handle, a.kind, &recorded).unwrap(), recorded);
    }

    /// One that has no key, knows all that is public of one, and what it was told before: it answers whatever it is asked.
    struct Liar(Bytes);

    impl Session for Liar {
        fn find(&mut self, _: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
            Ok(None)
        }

        fn generate(&mut self, _: &KeyTemplate) -> Result<FoundKey, BackendError> {
            Err(BackendError::keep(Fault::absent()))
        }

        fn check_alive(&mut self) -> Result<(), BackendError> {
            Ok(())
        }

        fn perform(&mut self, _: u64, _: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
            if let KeyOperation::Encrypt { plaintext, .. } = operation {
                self.0 = plaintext.clone().into_bytes();
            }
            Ok(self.0.clone())
        }
    }

    #[test]
    fn nobody_opens_a_proof_by_knowing_what_is_public_of_a_key() {
        let token = FakeBackend::default();
        token.make("a", b"", KeyKind::Aes { bits: 256 }).unwrap();
        let mut session = session(&token);
        let mut key = found(session.as_mut(), "a");
        let scheme = CipherScheme::AesGcm;
        key.sealing = Some(Sealing { scheme, name: "arn:a".into() });
        let recorded = first(session.as_mut(), &key).unwrap();
        let name = digest(NAME, b"arn:a").unwrap();
        assert_eq!(recorded.lasting(), name, "its name is public");
        let guesses =
            [&name[..], &recorded.sealed, &recorded.digest, &[&name[..], &[0; 32]].concat()].map(<[u8]>::to_vec);
        for guess in guesses {
            let opened = again(&mut Liar(guess.into()), 1, key.kind, &recorded).unwrap();
            assert_ne!(opened, recorded);
        }
        // It may pass for a key at a first use; and for that alone, and not for the one.
        let mut liar = Liar(Bytes::new());
        let own = first(&mut liar, &key).unwrap();
        assert!(own.lasting() == recorded.lasting() && own != recorded);
        assert_ne!(again(&mut liar, 1, key.kind, &recorded).unwrap(), recorded);
        assert_ne!(again(session.as_mut(), key.handle, key.kind, &own).unwrap(), own);
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
