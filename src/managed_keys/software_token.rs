//! A token of software keys behind the real supervisor, for the stories of this room and of those above it.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use super::ManagedKeys;
use crate::backend::{
    Backend, BackendError, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, PinFlags, Session,
    TokenSelector,
};
use crate::config::{Limits, Storage};
use crate::crypto::SoftwareKey;
use crate::model::{Fault, KeyKind, KeyOperation, Secret};
use crate::store::{Ephemeral, Store};
use crate::supervisor::{Library, PinHash, PinMemory, Supervisor};
use crate::telemetry::Telemetry;

/// The PIN of every token here.
pub(crate) const PIN: &str = "1234";

#[derive(Default)]
struct Objects {
    keys: Vec<(String, Vec<u8>, SoftwareKey)>,
    generated: usize,
}

/// A token: whatever its name, there is one.
#[derive(Clone, Default)]
pub(crate) struct SoftwareToken(Arc<Mutex<Objects>>);

impl SoftwareToken {
    /// Puts a key on the token, as an operator would.
    pub(crate) fn make(&self, label: &str, id: &[u8], kind: KeyKind) {
        self.0.lock().keys.push((label.into(), id.to_vec(), SoftwareKey::generate(kind).expect("a key")));
    }

    /// How many keys were generated on it by us.
    pub(crate) fn generated(&self) -> usize {
        self.0.lock().generated
    }

    /// Starts a supervisor with the libraries `hsm`, which has a PIN, and `bare`, which has none; both hold this token.
    /// Must run on an actix system.
    pub(crate) fn supervisor(&self) -> Supervisor {
        let library = |name: &str, pin| Library {
            name: name.into(),
            backend: Arc::new(self.clone()),
            pin,
            sessions: Some(2),
            call_sign: Limits::default().call_open,
        };
        let libraries = vec![library("hsm", Some(Secret::from(PIN))), library("bare", None)];
        Supervisor::start(libraries, &Limits::default(), Arc::new(NoMemory), Telemetry::new())
    }
}

/// An open store in memory.
pub(crate) fn open_store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().expect("a seal"))).expect("a store");
    store.initialize().expect("an initialised store");
    store
}

/// Runs a story on an actix system, with managed keys on a token.
pub(crate) fn story<F: Future<Output = ()>>(run: impl FnOnce(ManagedKeys, SoftwareToken) -> F) {
    actix::System::new().block_on(async {
        let token = SoftwareToken::default();
        let keys = ManagedKeys::new(open_store(), token.supervisor());
        keys.load().expect("no keys yet");
        run(keys, token).await;
    });
}

struct NoMemory;

impl PinMemory for NoMemory {
    fn hash(&self, _serial: &str, pin: &Secret) -> Result<PinHash, Fault> {
        let mut hash = [0; 32];
        hash.iter_mut().zip(pin.expose()).for_each(|(to, from)| *to = *from);
        Ok(hash)
    }

    fn refused(&self, _serial: &str, _hash: &PinHash) -> Result<bool, Fault> {
        Ok(false)
    }

    fn remember(&self, _serial: &str, _hash: &PinHash) -> Result<(), Fault> {
        Ok(())
    }
}

impl Backend for SoftwareToken {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let info = DeviceInfo { serial: token.to_string(), label: token.to_string(), max_sessions: None };
        Ok(Box::new(SoftwareDevice { token: self.clone(), info }))
    }

    fn default_sessions(&self) -> usize {
        2
    }
}

struct SoftwareDevice {
    token: SoftwareToken,
    info: DeviceInfo,
}

impl Device for SoftwareDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        Ok(PinFlags::default())
    }

    fn login(&self, pin: &Secret) -> Result<(), BackendError> {
        if pin.expose() == PIN.as_bytes() {
            return Ok(());
        }
        let fault = Fault::CredentialsRefused { what: "C_Login: CKR_PIN_INCORRECT (0xa0)".into() };
        Err(BackendError { fault, fate: Fate::Retire })
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        Ok(Box::new(SoftwareSession(self.token.clone())))
    }
}

struct SoftwareSession(SoftwareToken);

fn keep(fault: Fault) -> BackendError {
    BackendError { fault, fate: Fate::Keep }
}

impl Session for SoftwareSession {
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        let objects = self.0.0.lock();
        let fits = |(label, id, _): &(String, Vec<u8>, SoftwareKey)| {
            selector.label.as_ref().is_none_or(|wanted| wanted == label)
                && selector.id.as_ref().is_none_or(|wanted| wanted == id)
        };
        let Some(handle) = objects.keys.iter().position(fits) else { return Ok(None) };
        let (label, id, key) = &objects.keys[handle];
        let (label, id, public) = (label.clone(), id.clone(), key.public().clone());
        Ok(Some(FoundKey { handle: handle as u64, public, id, label }))
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        let key = SoftwareKey::generate(template.kind).map_err(keep)?;
        let mut objects = self.0.0.lock();
        objects.generated += 1;
        let (label, public) = (template.label.clone(), key.public().clone());
        objects.keys.push((label.clone(), Vec::new(), key));
        Ok(FoundKey { handle: objects.keys.len() as u64 - 1, public, id: Vec::new(), label })
    }

    fn perform(&mut self, handle: u64, _kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let objects = self.0.0.lock();
        let key = usize::try_from(handle).ok().and_then(|handle| objects.keys.get(handle));
        let (_, _, key) = key.ok_or_else(|| keep(Fault::internal("no such handle")))?;
        key.perform(operation).map_err(keep)
    }
}
