//! A kind of place where private keys live, behind two traits: a [`Backend`] opens [`Device`]s (one PKCS#11 slot, one
//! cloud key), a device opens [`Session`]s, and a session runs one operation at a time on the thread that owns it.
//!
//! Every native error is classed here, once, into a [`Fault`] for the asker and a [`Fate`] for the session or device.
//! This room must not know: requests, engines, queues, namespaces, or which thread calls it. Every call may block; the
//! caller watches the clock.

#[cfg(feature = "awskms")]
pub mod aws;
#[cfg(feature = "azurekeyvault")]
pub mod azure;
#[cfg(feature = "cloud")]
pub(crate) mod cloud;
pub mod fake;
#[cfg(feature = "gcpckms")]
pub(crate) mod gcp;
pub mod pkcs11;
pub mod process;
pub mod registry;
mod sampler;

use std::time::Instant;

use bytes::Bytes;

use crate::config::Profile;
use crate::model::{
    CipherScheme, Class, CloudKind, Fault, KeyKind, KeyOperation, KeyUsages, Namespace, PublicKey, Secret,
    TokenSelector,
};

/// What becomes of the session, the login or the device after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fate {
    /// The caller's or the key's fault: the session is as good as before.
    Keep,
    /// The key's handle is gone: find and prove the keys of this member again before it is used once more; its sessions
    /// stay. A token that lost its login hides its private keys: where none is found, open the device anew before a key
    /// is called gone.
    FindAgain,
    /// This session is gone: close it, open another, find the keys again.
    Reopen,
    /// The token forgot its login: log in again, then reopen.
    LoginAgain,
    /// The module lost its state, or holds on to what is no longer so: let go of the device and all its sessions, and
    /// open it anew. The module is then initialised anew as soon as nothing of it is in use.
    Reinitialize,
    /// The device is throttling, full or not there: try again after a pause, with fewer at once. That is no failure of
    /// the session, which may be used again after the pause; one that is told this twice running is better replaced.
    BackOff,
    /// The service did nothing, for want of quota: the job goes back to its place, and is no try. Flow control has it sent
    /// again when the service takes it ([`Session::admit`]).
    Throttled,
    /// Refused for good (wrong PIN, locked token): nobody tries again before an operator acts.
    Retire,
}

/// An error of a backend, classed.
#[derive(Clone, Debug)]
pub struct BackendError {
    /// What the asker is told.
    pub fault: Fault,
    /// What becomes of the session or device.
    pub fate: Fate,
    /// The cause as metrics count it: the native return value by its name (`CKR_DEVICE_ERROR`), or a word of ours for
    /// what has none (`worker_died`, `key_mismatch`, `internal`). From a closed set: what vendors define for themselves
    /// is `CKR_VENDOR_DEFINED`, what nobody defines `CKR_UNKNOWN`. A throttled call is [`Fate::BackOff`] with its cause.
    pub cause: &'static str,
}

impl BackendError {
    /// An error with no native return value behind it, counted under its fault's label.
    pub fn new(fate: Fate, fault: Fault) -> BackendError {
        let cause = fault.label().as_str();
        BackendError { fault, fate, cause }
    }

    /// An error that is nobody's session's fault.
    pub fn keep(fault: Fault) -> BackendError {
        BackendError::new(Fate::Keep, fault)
    }
}

/// Most letters of what a token says it is: the bytes that `CK_TOKEN_INFO` has for them.
const MANUFACTURER_MAX: usize = 32;
const MODEL_MAX: usize = 16;
const SERIAL_MAX: usize = 16;
const LABEL_MAX: usize = 32;
/// Most letters of a key's label that are shown; a token may have longer ones.
const KEY_LABEL_MAX: usize = 256;

/// Which token it is, by what PKCS#11 URIs name tokens by (RFC 7512, section 2.3). Two are one token where all four are the same.
///
/// The serial number alone is not enough: whole families of modules give each token the same one ("0000000000000000"). No
/// slot's number is part of it, nor a library: one token has the same four through whatever library and in whatever slot, now and
/// after restarts, which is what PINs are remembered by. A label changes when a token is initialised, and its PIN with it.
///
/// Tokens that agree in all four cannot be told apart over restarts: a PIN that one of them refused counts as refused by
/// all. Logins of one process can, by slot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TokenIdentity {
    /// `manufacturerID`.
    pub manufacturer: String,
    /// `model`.
    pub model: String,
    /// `serialNumber`.
    pub serial: String,
    /// `label`.
    pub label: String,
}

impl TokenIdentity {
    /// By the word of vendors' code: fit to be shown, logged and remembered. Control characters are left out, and what is
    /// longer than `CK_TOKEN_INFO` has room for is cut.
    pub fn new(manufacturer: &str, model: &str, serial: &str, label: &str) -> TokenIdentity {
        TokenIdentity {
            manufacturer: shown(manufacturer, MANUFACTURER_MAX),
            model: shown(model, MODEL_MAX),
            serial: shown(serial, SERIAL_MAX),
            label: shown(label, LABEL_MAX),
        }
    }

    /// All four, each behind its length, so that no two identities are the same bytes: to be hashed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for name in [&self.manufacturer, &self.model, &self.serial, &self.label] {
            bytes.extend_from_slice(&(name.len() as u64).to_be_bytes());
            bytes.extend_from_slice(name.as_bytes());
        }
        bytes
    }
}

/// What a device says of itself when opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceInfo {
    /// Its token. A key in a cloud has a serial number only: its whole name.
    pub token: TokenIdentity,
    /// The number of its slot, in the process that has the library loaded and until it initialises the library anew; 0 where
    /// there are no slots.
    pub slot: u64,
    /// Most sessions it allows, if it says so.
    pub max_sessions: Option<usize>,
    /// What its module is: as configured, or by what the module says of itself.
    pub profile: Profile,
}

/// A name by the word of vendors' code, fit to be shown: without control characters, and cut to the `most` letters.
fn shown(name: &str, most: usize) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

/// What a token says about its user PIN (`CK_TOKEN_INFO.flags`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PinFlags {
    /// `CKF_USER_PIN_FINAL_TRY`: one more wrong PIN locks it.
    pub final_try: bool,
    /// `CKF_USER_PIN_LOCKED`.
    pub locked: bool,
}

/// What a login came to that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginAnswer {
    /// The token took the PIN.
    Taken,
    /// The process is logged in already, says the token: by a session that is still open. That says nothing of the PIN.
    Already,
}

/// How to find a key on a device; at least one of label and id is given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeySelector {
    /// `CKA_LABEL`.
    pub label: Option<String>,
    /// `CKA_ID`.
    pub id: Option<Vec<u8>>,
    /// Whether it is a secret key, and no private one.
    pub secret: bool,
    /// Of a key in a cloud, the service's kind of key that it must be.
    pub cloud: Option<&'static CloudKind>,
}

/// A private or secret key found on a device.
#[derive(Clone, Debug)]
pub struct FoundKey {
    /// Valid for sessions of the device's present generation only.
    pub handle: u64,
    /// What key it is.
    pub kind: KeyKind,
    /// Its public half, as the token gives it; a secret key has none.
    pub public: Option<PublicKey>,
    /// Its `CKA_ID`, which may be empty.
    pub id: Vec<u8>,
    /// Its `CKA_LABEL`, which may be empty, as far as it is fit to be shown: it names the key and finds none.
    pub label: String,
    /// Of a secret key of a service that makes no two ciphertexts of one plaintext alike, how it encrypts.
    pub sealing: Option<Sealing>,
}

/// How a secret key encrypts that is known again by what it opens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealing {
    /// The one way in which it encrypts.
    pub scheme: CipherScheme,
    /// What its service calls it, wherever a copy of it is; never another key.
    pub name: String,
}

impl FoundKey {
    /// A key by the word of vendors' code. Control characters of its label are left out, and a very long one is cut.
    pub fn new(handle: u64, kind: KeyKind, public: Option<PublicKey>, id: Vec<u8>, label: &str) -> FoundKey {
        FoundKey { handle, kind, public, id, label: shown(label, KEY_LABEL_MAX), sealing: None }
    }
}

/// A key to be generated: sensitive, not extractable, on the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyTemplate {
    /// What key.
    pub kind: KeyKind,
    /// Its label.
    pub label: String,
    /// What the token is told that it is used for.
    pub uses: KeyUsages,
    /// Of a key in a cloud, the service's kind of key: several may be of one `kind`.
    pub cloud: Option<&'static CloudKind>,
}

/// One operation of a batch: what [`Session::perform`] takes.
#[derive(Clone, Copy, Debug)]
pub struct BatchJob<'a> {
    /// The key.
    pub handle: u64,
    /// Its kind.
    pub kind: KeyKind,
    /// What to do with it.
    pub operation: &'a KeyOperation,
}

/// Whose turn it is to have an operation begin, where flow control gives leave for each.
#[derive(Clone, Copy)]
pub struct Turn<'a> {
    /// The namespace whose key it is for: what there is, is shared among those.
    pub namespace: &'a Namespace,
    /// What its share weighs; at least 1.
    pub weight: u32,
    /// The operation's class.
    pub class: Class,
    /// It is waited so long at the longest.
    pub until: Instant,
    /// Asked now and then while it waits: whether it is to wait on.
    pub is_wanted: &'a dyn Fn() -> bool,
}

/// The cause of a refusal since the device did not answer several times in a row: nothing was asked of it.
pub const LEFT_ALONE: &str = "breaker_open";

/// The cause of every answer of a worker process that is gone.
pub const WORKER_DIED: &str = "worker_died";

/// Why flow control lets no operation begin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Its turn did not come in time, or it is wanted no longer; it may come later.
    Later {
        /// Whether the device accepts less than its quota now.
        is_throttled: bool,
    },
    /// Its turn does not come in time, as is known already.
    Late {
        /// What an asker is told for whom there is no other device.
        fault: Fault,
    },
    /// The device asked to be left alone until then: nobody's turn comes before.
    Paused {
        /// What an asker is told whose deadline is sooner, and for whom there is no other device.
        fault: Fault,
        /// When it may be asked again.
        until: Instant,
    },
    /// The device did not answer several times in a row, and is left alone until then.
    Shut {
        /// What an asker is told for whom there is no other device.
        fault: Fault,
        /// When it is asked again.
        until: Instant,
    },
}

/// A place where keys live: one KMS library.
pub trait Backend: Send + Sync {
    /// Opens the device `token` names. No login happens. A library or token that is not there is [`Fate::BackOff`].
    ///
    /// A PKCS#11 library is initialised at the first call; where the token is missing and no device of the library is
    /// open, it is initialised anew, since modules list their tokens only then.
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError>;

    /// Whether its devices are logged in to by a PIN. Where they are not, [`Device::login`] and [`Device::pin_flags`] are never
    /// called: each call carries its own credentials, and two names of one key stay two.
    fn has_login(&self) -> bool {
        true
    }
}

/// One slot with a token in it, or one cloud key. Shared by the threads that own its sessions.
pub trait Device: Send + Sync {
    /// What it said of itself when it was opened.
    fn info(&self) -> &DeviceInfo;

    /// What the token says about its PIN now.
    fn pin_flags(&self) -> Result<PinFlags, BackendError>;

    /// Logs the application in: exactly one native login call. "Already logged in" is success, of a kind. The login lasts
    /// as long as the device: it keeps a session of its own open.
    fn login(&self, pin: &Secret) -> Result<LoginAnswer, BackendError>;

    /// Opens one more session. It is logged in if the device is.
    fn open_session(&self) -> Result<Box<dyn Session>, BackendError>;

    /// Whether all of its sessions are gone, also those that have not noticed: its module was finalised, by other hands or
    /// by itself, or the process its code runs in has died. Whoever holds the device must let go of it and open it anew,
    /// since a module is initialised anew only when nothing of it is in use: members of one library wait for each other
    /// here. Cheap.
    fn is_lost(&self) -> bool {
        false
    }

    /// Ends every call that is inside the device, by ending the process it runs in: each answers
    /// [`Fate::Reinitialize`]. False where the device's code runs in this process, so that nothing can be ended.
    fn abort(&self) -> bool {
        false
    }

    /// Notes that what the device's module says of its keys may be no longer so: once nothing of the module is in use, it is
    /// initialised anew.
    fn outdate(&self) {}
}

/// What stands in the place of a session that was closed until there is another. It does nothing.
pub struct Closed;

impl Closed {
    fn used<T>() -> Result<T, BackendError> {
        Err(BackendError::new(Fate::Reopen, Fault::internal("a session that is closed was used")))
    }
}

impl Session for Closed {
    fn find(&mut self, _: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        Closed::used()
    }

    fn generate(&mut self, _: &KeyTemplate) -> Result<FoundKey, BackendError> {
        Closed::used()
    }

    fn perform(&mut self, _: u64, _: KeyKind, _: &KeyOperation) -> Result<Bytes, BackendError> {
        Closed::used()
    }

    fn check_alive(&mut self) -> Result<(), BackendError> {
        Closed::used()
    }
}

/// One session: one operation in flight, on the thread that owns it.
pub trait Session: Send {
    /// Finds the one private or secret key `selector` names; `None` if there is none. More than one match is refused, naming the
    /// ids. The public key is taken from whatever the token gives.
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError>;

    /// Generates a key. The caller has made sure that there is none of that label.
    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError>;

    /// Runs `operation` with the key `handle`. Exactly two native calls.
    ///
    /// `kind` is the key's kind: it tells how long the answer is.
    fn perform(&mut self, handle: u64, kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError>;

    /// Asks whether the session is still there and logged in: one native call, which needs no key.
    fn check_alive(&mut self) -> Result<(), BackendError>;

    /// Waits until flow control has one more operation begin, or says why it does not.
    fn admit(&mut self, turn: &Turn<'_>) -> Result<(), Refused> {
        let _ = turn;
        Ok(())
    }

    /// What [`Session::admit`] let begin was not begun after all: others may.
    fn withdraw(&mut self) {}

    /// Calls that begin from now on are given up then at the latest: whoever they are for has no use of a later answer. `None` is
    /// by their own limits alone. Calls that cannot be given up are not; the watchdog sees to those.
    fn end_by(&mut self, until: Option<Instant>) {
        let _ = until;
    }

    /// Whether its calls are computed on this host's own cores, by those that were looked at since this was last asked: `None`
    /// where none was.
    fn computes_here(&mut self) -> Option<bool> {
        None
    }

    /// Whether a batch is one message to another process, so that it pays to hand over all jobs at once. Where it is not,
    /// jobs are better run one by one: those not begun can go elsewhere when one hangs.
    fn batches(&self) -> bool {
        false
    }

    /// Runs `jobs` back to back and tells `each` the index of a job and how it ended, in their order. Where a call is a
    /// message to another process, the whole batch is one.
    ///
    /// Answers how many jobs were told of. An error that is not [`Fate::Keep`] ends the batch, since the session, or what
    /// it knows, is gone: the jobs behind it were not begun and nothing is said of them. When a worker process dies, every
    /// job it has not answered is told so, for any of them may have killed it.
    fn perform_batch(
        &mut self,
        jobs: &[BatchJob<'_>],
        each: &mut dyn FnMut(usize, Result<Bytes, BackendError>),
    ) -> usize {
        for (index, job) in jobs.iter().enumerate() {
            let result = self.perform(job.handle, job.kind, job.operation);
            let ends = result.as_ref().is_err_and(|error| error.fate != Fate::Keep);
            each(index, result);
            if ends {
                return index + 1;
            }
        }
        jobs.len()
    }
}
