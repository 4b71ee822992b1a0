//! The seal that is a key in an HSM: `seal "pkcs11"`. It wraps the root key of the store by AES-GCM, on the token.
//!
//! It is asked while there is no store: at a start, at an unsealing, at initialisation. So what a managed key's login remembers in
//! the store, that a PIN was refused, this keeps beside the wrapping: one login call with a wrong PIN, ever. The token may
//! serve managed keys as well: a login is the process's, nobody is logged out by its end, and only a session of its own closes.

use std::num::NonZeroU32;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::Duration;

use aws_lc_rs::pbkdf2;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::backend::{
    Backend, BackendError, Device, Fate, FoundKey, KeySelector, KeyTemplate, LoginAnswer, Session, TokenIdentity,
};
use crate::config::{Limits, Pkcs11Seal};
use crate::model::{Cipher, Fault, KeyKind, KeyOperation, KeyUsage, KeyUsages, Secret, SecretBytes, TokenSelector};
use crate::store::{RootKeyWrap, SealNotes};
use crate::supervisor::{GuardName, Guarded};

const KIND: &str = "pkcs11";
/// Version of the wrapping's form: this byte, the IV, the ciphertext and the tag.
const FORMAT: u8 = 1;
const KEY: KeyKind = KeyKind::Aes { bits: 256 };
/// What else the tag attests, so that nothing else that the key has encrypted is taken for a root key.
const PURPOSE: &[u8] = b"keyway root key v1";
const IV_BYTES: usize = 12;
const SALT_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// Rounds of PBKDF2 over a PIN that was refused. It is kept in clear, and PINs are short: a guess is to cost something.
const ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);
/// Logins without an answer after which a PIN is not tried again: most tokens lock at the third wrong one.
const DOUBTS_MAX: u8 = 2;

/// A key in an HSM by its label.
pub(super) struct HsmSeal {
    token: Arc<SealToken>,
    generate: bool,
    /// How long finding the key and using it may take.
    limit: Duration,
    /// How much longer, where it is generated.
    limit_generate: Duration,
}

/// The token, for a thread that calls it.
struct SealToken {
    backend: Arc<dyn Backend>,
    selector: TokenSelector,
    library: String,
    pin: Secret,
    label: String,
    /// Whom the key is told, so that it is nobody else's.
    guarded: Arc<Guarded>,
    final_pin_try: bool,
    /// A thread is inside.
    is_busy: AtomicBool,
    /// The device that it is in.
    device: Mutex<Option<Weak<dyn Device>>>,
    memory: Mutex<Memory>,
}

/// What this process knows of the PIN.
#[derive(Default)]
struct Memory {
    /// It was refused, and that is not kept beside the wrapping yet.
    unsaved: Option<Vec<u8>>,
    /// What was kept there, or was to be.
    refused: Option<Vec<u8>>,
    /// Logins in a row that came to no answer.
    doubts: u8,
}

/// An open session, and the key in it.
struct Key<'s> {
    session: &'s mut dyn Session,
    found: FoundKey,
}

impl HsmSeal {
    /// The key that the configuration names. Nothing is loaded yet.
    pub(super) fn new(
        seal: &Pkcs11Seal,
        backend: Arc<dyn Backend>,
        guarded: Arc<Guarded>,
        limits: &Limits,
        final_pin_try: bool,
    ) -> HsmSeal {
        let token = SealToken {
            backend,
            selector: seal.token.clone(),
            library: seal.library.name.clone(),
            pin: seal.pin.clone(),
            label: seal.key_label.clone(),
            guarded,
            final_pin_try,
            is_busy: AtomicBool::new(false),
            device: Mutex::default(),
            memory: Mutex::default(),
        };
        token.guarded.name(token.guard());
        HsmSeal {
            token: Arc::new(token),
            generate: seal.generate_key,
            limit: limits.call_open * 2,
            limit_generate: limits.call_generate,
        }
    }

    fn wrap_with(&self, root_key: &Secret, notes: &dyn SealNotes, generate: bool) -> Result<Vec<u8>, Fault> {
        let root_key = root_key.clone();
        let limit = if generate { self.limit + self.limit_generate } else { self.limit };
        let wrapped = self.ask(notes, limit, move |token| {
            token.with_key(generate, |mut key| {
                let wrapped = key.encrypt(root_key.expose()).map_err(|error| token.at_key(&error))?;
                let opened = key.decrypt(&wrapped).map_err(|error| token.at_key(&error))?;
                if opened.expose() == root_key.expose() {
                    return Ok(Secret::new([&[FORMAT], wrapped.as_ref()].concat()));
                }
                Err(token.unavailable("what its key encrypted does not decrypt to the same: see that it is healthy"))
            })
        })?;
        Ok(wrapped.expose().to_vec())
    }

    /// Has `work` done by a thread that may hang in the library, and waits for it no longer than that may take.
    fn ask(
        &self,
        notes: &dyn SealNotes,
        limit: Duration,
        work: impl FnOnce(&SealToken) -> Result<Secret, Fault> + Send + 'static,
    ) -> Result<Secret, Fault> {
        let token = Arc::clone(&self.token);
        token.recall(notes)?;
        if token.is_busy.swap(true, Ordering::AcqRel) {
            let why =
                "a call into it has not returned; it is asked again when that has: where it never does, restart Keyway";
            return Err(token.unavailable(why));
        }
        let (answer, answered) = sync_channel(1);
        let inside = Arc::clone(&token);
        let started = std::thread::Builder::new().name("keyway-seal".into()).spawn(move || {
            let done = catch_unwind(AssertUnwindSafe(|| work(&inside)));
            inside.is_busy.store(false, Ordering::Release);
            // Who no longer waits needs no answer.
            let _ = answer.send(done.unwrap_or_else(|_| Err(Fault::internal("asking the seal ended by a panic"))));
        });
        if let Err(error) = started {
            token.is_busy.store(false, Ordering::Release);
            return Err(token.unavailable(&format!("no thread can be started ({error})")));
        }
        let done = match answered.recv_timeout(limit) {
            Ok(done) => done,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                let ended = token.end_call();
                let then = if ended { ", so its worker process was ended" } else { "" };
                Err(token.unavailable(&format!("no answer within {} s{then}", limit.as_secs())))
            }
        };
        token.save(notes)?;
        done
    }
}

impl RootKeyWrap for HsmSeal {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn wrap(&self, root_key: &Secret, notes: &dyn SealNotes) -> Result<Vec<u8>, Fault> {
        self.wrap_with(root_key, notes, self.generate)
    }

    fn wrap_again(&self, root_key: &Secret, notes: &dyn SealNotes) -> Result<Vec<u8>, Fault> {
        self.wrap_with(root_key, notes, false)
    }

    fn open(&self, wrapped: &[u8], notes: &dyn SealNotes) -> Result<Secret, Fault> {
        let wrapped = match wrapped.split_first() {
            Some((&FORMAT, rest)) => Bytes::copy_from_slice(rest),
            _ => {
                let what = "the wrapped root key in the storage file is of a newer Keyway, or damaged: run the version that \
                            wrote it, or restore the file from a backup";
                return Err(Fault::Unavailable { what: what.to_owned() });
            }
        };
        self.ask(notes, self.limit, move |token| {
            token.with_key(false, |mut key| {
                let error = match key.decrypt(&wrapped) {
                    Ok(root_key) => return Ok(root_key),
                    Err(error) => error,
                };
                // What modules say of a tag that does not fit differs. If the key works, it is another one.
                let works = key.encrypt(PURPOSE).and_then(|probe| key.decrypt(&probe)).is_ok();
                if !works {
                    return Err(token.at_key(&error));
                }
                Err(token.unavailable(&format!(
                    "key {:?} is not the key that wrapped the root key ({}); restore that one from the HSM's backup under \
                     its label, or restore the storage file: nothing was changed",
                    token.label, error.fault
                )))
            })
        })
    }

    fn may_return(&self) -> bool {
        true
    }
}

impl SealToken {
    /// Opens the token, logs in, and finds the key.
    fn with_key<T>(&self, generate: bool, work: impl FnOnce(Key<'_>) -> Result<T, Fault>) -> Result<T, Fault> {
        let device: Arc<dyn Device> = self.backend.open(&self.selector).map_err(|error| self.at_key(&error))?.into();
        *self.device.lock() = Some(Arc::downgrade(&device));
        self.log_in(device.as_ref())?;
        let mut session = device.open_session().map_err(|error| self.at_key(&error))?;
        let found = self.find(session.as_mut(), generate)?;
        if found.kind != KEY {
            return Err(self.unavailable(&format!("key {:?} is no AES key of 256 bits: name another", self.label)));
        }
        let guarded = self.guarded.found(&self.guard(), device.info(), session.as_mut(), &found);
        guarded.map_err(|error| self.at_key(&error))?;
        work(Key { session: session.as_mut(), found })
    }

    /// Ends the call that the thread is in, where it is in a process of its own. Answers whether it was.
    fn end_call(&self) -> bool {
        let device = self.device.lock().as_ref().and_then(Weak::upgrade);
        device.is_some_and(|device| device.abort())
    }

    fn guard(&self) -> GuardName {
        GuardName { library: self.library.clone(), token: self.selector.clone(), key_label: self.label.clone() }
    }

    fn find(&self, session: &mut dyn Session, generate: bool) -> Result<FoundKey, Fault> {
        let selector = KeySelector { label: Some(self.label.clone()), id: None, secret: true, cloud: None };
        let find = |session: &mut dyn Session| session.find(&selector).map_err(|error| self.at_key(&error));
        if let Some(found) = find(session)? {
            return Ok(found);
        }
        let absent = || {
            self.unavailable(&format!(
                "it holds no secret key {:?}: restore it from the HSM's backup, or correct key_label; a new store has it \
                 made where generate_key is true",
                self.label
            ))
        };
        if !generate {
            return Err(absent());
        }
        let uses = KeyUsages::NONE.with(KeyUsage::Encrypt).with(KeyUsage::Decrypt);
        let template = KeyTemplate { kind: KEY, label: self.label.clone(), uses, cloud: None };
        session.generate(&template).map_err(|error| self.at_key(&error))?;
        tracing::info!(library = self.library, token = %self.selector, key = self.label, "the key of the seal was generated");
        // Whoever else may have made one: exactly one must match.
        find(session)?.ok_or_else(absent)
    }

    /// One native call at the most, and none with a PIN that was refused.
    fn log_in(&self, device: &dyn Device) -> Result<(), Fault> {
        let token = &device.info().token;
        {
            let memory = self.memory.lock();
            if memory.refused.as_deref().is_some_and(|note| is_noted(note, token, &self.pin)) {
                return Err(self.refused("it refused this PIN before and is not asked again; configure another PIN"));
            }
            if memory.doubts >= DOUBTS_MAX {
                let why = "logins with this PIN came to no answer twice, and the token may count them; log in once with the \
                           vendor's tool, then restart";
                return Err(self.refused(why));
            }
        }
        let flags = device.pin_flags().map_err(|error| self.at_key(&error))?;
        if flags.locked {
            return Err(self.refused("its user PIN is locked; have the security officer reset it"));
        }
        if flags.final_try && !self.final_pin_try {
            let why = "it allows one last try before it locks; log in once with the vendor's tool and the right PIN, or \
                       restart with -force-final-pin-try if the PIN configured is right";
            return Err(self.refused(why));
        }
        let error = match device.login(&self.pin) {
            Ok(LoginAnswer::Taken | LoginAnswer::Already) => {
                self.memory.lock().doubts = 0;
                return Ok(());
            }
            Err(error) => error,
        };
        if matches!(error.cause, "worker_died" | "CKR_VENDOR_DEFINED" | "unreadable_answer") {
            self.memory.lock().doubts += 1;
        }
        if is_wrong(&error) {
            let note = note(token, &self.pin)?;
            let mut memory = self.memory.lock();
            (memory.refused, memory.unsaved) = (Some(note.clone()), Some(note));
        }
        Err(self.at_key(&error))
    }

    /// Learns what an earlier process noted.
    fn recall(&self, notes: &dyn SealNotes) -> Result<(), Fault> {
        self.save(notes)?;
        let noted = notes.read()?;
        let mut memory = self.memory.lock();
        memory.refused = noted.or(memory.refused.take());
        Ok(())
    }

    /// Keeps what a later process is to know.
    fn save(&self, notes: &dyn SealNotes) -> Result<(), Fault> {
        let unsaved = self.memory.lock().unsaved.clone();
        let Some(note) = unsaved else { return Ok(()) };
        notes.write(&note)?;
        self.memory.lock().unsaved = None;
        Ok(())
    }

    fn unavailable(&self, why: &str) -> Fault {
        Fault::Unavailable { what: format!("seal \"pkcs11\": token {} of {:?}: {why}", self.selector, self.library) }
    }

    fn refused(&self, why: &str) -> Fault {
        let what = format!("seal \"pkcs11\": token {} of {:?}: {why}", self.selector, self.library);
        Fault::CredentialsRefused { what }
    }

    /// An error of the token's, said of the seal.
    fn at_key(&self, error: &BackendError) -> Fault {
        match &error.fault {
            Fault::CredentialsRefused { what } => self.refused(what),
            other => self.unavailable(&format!("key {:?}: {other}", self.label)),
        }
    }
}

impl Key<'_> {
    /// The IV, the ciphertext and the tag.
    fn encrypt(&mut self, clear: &[u8]) -> Result<Bytes, BackendError> {
        let mut iv = [0; IV_BYTES];
        let no_bytes = |_| BackendError::keep(Fault::internal("no random bytes can be had"));
        aws_lc_rs::rand::fill(&mut iv).map_err(no_bytes)?;
        let plaintext = SecretBytes::new(clear.to_vec());
        let operation = KeyOperation::Encrypt { cipher: cipher(iv), plaintext };
        self.session.perform(self.found.handle, self.found.kind, &operation)
    }

    fn decrypt(&mut self, wrapped: &Bytes) -> Result<Secret, BackendError> {
        let too_short = || BackendError::keep(Fault::Unavailable { what: "the wrapped root key is too short".into() });
        let (iv, _) = wrapped.split_first_chunk::<IV_BYTES>().ok_or_else(too_short)?;
        let operation = KeyOperation::Decrypt { cipher: cipher(*iv), ciphertext: wrapped.slice(IV_BYTES..) };
        let clear = self.session.perform(self.found.handle, self.found.kind, &operation)?;
        // The answer is wiped when it is dropped.
        Ok(Secret::new(clear.as_ref()))
    }
}

fn cipher(iv: [u8; IV_BYTES]) -> Cipher {
    Cipher::AesGcm { iv, associated_data: Bytes::from_static(PURPOSE) }
}

/// Whether a login was refused because the PIN is wrong. A locked or expired one may be the right one again, when the security
/// officer has seen to it.
fn is_wrong(error: &BackendError) -> bool {
    error.fate == Fate::Retire && !["CKR_PIN_LOCKED", "CKR_PIN_EXPIRED", "CKR_NEW_PIN_MODE"].contains(&error.cause)
}

/// What is kept of a PIN that this token refused: a salt and a slow hash.
fn note(token: &TokenIdentity, pin: &Secret) -> Result<Vec<u8>, Fault> {
    let mut salt = [0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Fault::internal("no random bytes can be had"))?;
    let mut hash = [0; HASH_BYTES];
    pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salted(&salt, &token.bytes()), pin.expose(), &mut hash);
    Ok([&salt[..], &hash].concat())
}

fn is_noted(note: &[u8], token: &TokenIdentity, pin: &Secret) -> bool {
    let Some((salt, hash)) = note.split_first_chunk::<SALT_BYTES>() else { return false };
    let is_of = |token: &[u8]| {
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salted(salt, token), pin.expose(), hash).is_ok()
    };
    // Former notes have the serial number alone.
    is_of(&token.bytes()) || is_of(token.serial.as_bytes())
}

/// The token is part of the salt: a PIN that one refused may be another's.
fn salted(salt: &[u8; SALT_BYTES], token: &[u8]) -> Vec<u8> {
    [&salt[..], token].concat()
}

#[cfg(test)]
#[path = "hsm_seal_tests.rs"]
mod tests;
