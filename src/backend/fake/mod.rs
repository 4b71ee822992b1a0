//! A token of software keys, in this process: for stories that need no real one, and to measure Keyway itself.
//!
//! Signing the same input with the same key again gives the signature made before, at the price of a comparison: so a
//! client that repeats itself sees what Keyway costs, and every signature is good all the same. Errors can be ordered for
//! the next calls. No configuration file can name it: keys here are as safe as the process.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::{
    Backend, BackendError, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, LoginAnswer, PinFlags,
    Session, TokenIdentity,
};
use crate::config::Profile;
use crate::crypto::{SecretKey, SoftwareKey};
use crate::model::{Fault, Hash, KeyKind, KeyOperation, PublicKey, Secret, SignatureScheme, TokenSelector};

/// The one PIN there is.
pub const PIN: &str = "1234";

/// The error of an operation, if it has one.
pub type Refuses = fn(&KeyOperation) -> Option<Fault>;

struct Object {
    label: String,
    id: Vec<u8>,
    key: AnyKey,
}

enum AnyKey {
    Pair(SoftwareKey),
    Secret(SecretKey),
}

impl AnyKey {
    fn generate(kind: KeyKind) -> Result<AnyKey, Fault> {
        match kind.is_secret() {
            true => SecretKey::generate(kind).map(AnyKey::Secret),
            false => SoftwareKey::generate(kind).map(AnyKey::Pair),
        }
    }

    fn public(&self) -> Option<&PublicKey> {
        match self {
            AnyKey::Pair(pair) => Some(pair.public()),
            AnyKey::Secret(_) => None,
        }
    }

    fn kind(&self) -> KeyKind {
        match self {
            AnyKey::Pair(pair) => pair.public().kind,
            AnyKey::Secret(key) => key.kind(),
        }
    }

    fn perform(&self, operation: &KeyOperation) -> Result<Bytes, Fault> {
        match self {
            AnyKey::Pair(pair) => pair.perform(operation),
            AnyKey::Secret(key) => key.perform(operation),
        }
    }
}

impl Object {
    fn found(&self, place: usize) -> FoundKey {
        FoundKey::new(place as u64, self.key.kind(), self.key.public().cloned(), self.id.clone(), &self.label)
    }
}

#[derive(Default)]
struct State {
    objects: Vec<Arc<Object>>,
    generated: usize,
    logins: usize,
    performed: usize,
    final_try: bool,
    /// What the next operations are answered with, last first.
    ordered: Vec<BackendError>,
    /// What it answers with an error, and which.
    refuses: Option<Refuses>,
}

/// A token: whatever its name, there is one. Cheap to clone; clones are the same token.
#[derive(Clone, Default)]
pub struct FakeBackend(Arc<Mutex<State>>);

impl FakeBackend {
    /// Puts a key on the token, as an operator would.
    pub fn make(&self, label: &str, id: &[u8], kind: KeyKind) -> Result<(), Fault> {
        let key = AnyKey::generate(kind)?;
        self.0.lock().objects.push(Arc::new(Object { label: label.into(), id: id.to_vec(), key }));
        Ok(())
    }

    /// Has the handle of the first key of this label name another key of its kind, as a token restored from a back-up may.
    pub fn replace(&self, label: &str) -> Result<(), Fault> {
        let mut state = self.0.lock();
        let object = state.objects.iter_mut().find(|object| object.label == label);
        let object = object.ok_or_else(|| Fault::internal("there is no such key"))?;
        let key = AnyKey::generate(object.key.kind())?;
        *object = Arc::new(Object { label: label.to_owned(), id: object.id.clone(), key });
        Ok(())
    }

    /// How many keys were generated on it by the daemon.
    pub fn generated(&self) -> usize {
        self.0.lock().generated
    }

    /// How often it was logged in to, or that was tried.
    pub fn logins(&self) -> usize {
        self.0.lock().logins
    }

    /// Says from now on that one try of its PIN is left.
    pub fn leave_one_pin_try(&self) {
        self.0.lock().final_try = true;
    }

    /// How many operations it was asked for.
    pub fn performed(&self) -> usize {
        self.0.lock().performed
    }

    /// Answers the operations that `refuses` has an error for with that, from now on.
    pub fn refuse(&self, refuses: Refuses) {
        self.0.lock().refuses = Some(refuses);
    }

    /// Answers the next operation with `error`.
    pub fn fail_next(&self, error: BackendError) {
        self.0.lock().ordered.insert(0, error);
    }
}

/// What a token says that has no mechanism for it.
pub fn no_mechanism() -> Fault {
    Fault::NotSupported { what: "CKR_MECHANISM_INVALID".into() }
}

fn keep(fault: Fault) -> BackendError {
    BackendError::keep(fault)
}

impl Backend for FakeBackend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let name = token.to_string();
        let slot = if let TokenSelector::Slot(number) = token { *number } else { 0 };
        let token = TokenIdentity::new("Keyway", "fake", &name, &name);
        let info = DeviceInfo { token, slot, max_sessions: None, profile: Profile::Fake };
        Ok(Box::new(FakeDevice { token: self.clone(), info }))
    }
}

struct FakeDevice {
    token: FakeBackend,
    info: DeviceInfo,
}

impl Device for FakeDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        Ok(PinFlags { final_try: self.token.0.lock().final_try, locked: false })
    }

    fn login(&self, pin: &Secret) -> Result<LoginAnswer, BackendError> {
        self.token.0.lock().logins += 1;
        if pin.expose() == PIN.as_bytes() {
            return Ok(LoginAnswer::Taken);
        }
        let fault = Fault::CredentialsRefused { what: "the PIN is wrong".into() };
        Err(BackendError::new(Fate::Retire, fault))
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(FakeSession { token: self.token.clone(), made: None }))
    }
}

struct FakeSession {
    token: FakeBackend,
    /// The last signature, and what it was made of.
    made: Option<Made>,
}

struct Made {
    handle: u64,
    scheme: SignatureScheme,
    hash: Hash,
    input: Bytes,
    signature: Bytes,
}

impl Session for FakeSession {
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        let state = self.token.0.lock();
        let fits = |object: &Arc<Object>| {
            object.key.kind().is_secret() == selector.secret
                && selector.label.as_ref().is_none_or(|wanted| *wanted == object.label)
                && selector.id.as_ref().is_none_or(|wanted| *wanted == object.id)
        };
        let Some(handle) = state.objects.iter().position(fits) else { return Ok(None) };
        Ok(Some(state.objects[handle].found(handle)))
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        let key = AnyKey::generate(template.kind).map_err(keep)?;
        let object = Arc::new(Object { label: template.label.clone(), id: Vec::new(), key });
        let mut state = self.token.0.lock();
        state.generated += 1;
        state.objects.push(Arc::clone(&object));
        Ok(object.found(state.objects.len() - 1))
    }

    fn check_alive(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn perform(&mut self, handle: u64, _kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let object = {
            let mut state = self.token.0.lock();
            state.performed += 1;
            if let Some(error) = state.ordered.pop() {
                return Err(error);
            }
            if let Some(fault) = state.refuses.and_then(|refuses| refuses(operation)) {
                return Err(keep(fault));
            }
            let object = usize::try_from(handle).ok().and_then(|handle| state.objects.get(handle));
            Arc::clone(object.ok_or_else(|| keep(Fault::internal("no such handle")))?)
        };
        let KeyOperation::Sign { scheme, hash, input } = operation else {
            return object.key.perform(operation).map_err(keep);
        };
        if let Some(made) = &self.made
            && (made.handle, made.scheme, made.hash) == (handle, *scheme, *hash)
            && made.input == input.as_bytes()
        {
            return Ok(made.signature.clone());
        }
        let signature = object.key.perform(operation).map_err(keep)?;
        let input = Bytes::copy_from_slice(input.as_bytes());
        self.made = Some(Made { handle, scheme: *scheme, hash: *hash, input, signature: signature.clone() });
        Ok(signature)
    }
}
