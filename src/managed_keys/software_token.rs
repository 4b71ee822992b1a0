//! A fake token behind the real supervisor, for the stories of this room and of those above it.

use std::sync::Arc;

use super::{ManagedKeys, Mounts};
use crate::backend::BackendError;
use crate::backend::fake::{FakeBackend, PIN as FAKE_PIN};
use crate::config::{KmsService, Limits, Storage, VerifyAfterSign};
use crate::model::{CloudService, Fault, KeyKind, Namespace, Secret};
use crate::store::{Ephemeral, Store};
use crate::supervisor::{Library, NoMemory, Plan, Supervisor};
use crate::telemetry::Telemetry;

pub(crate) use crate::backend::fake::no_mechanism;

/// The PIN of every token here.
pub(crate) const PIN: &str = FAKE_PIN;

/// A token: whatever its name, there is one.
#[derive(Clone, Default)]
pub(crate) struct SoftwareToken(FakeBackend);

impl SoftwareToken {
    /// Puts a key on the token, as an operator would.
    pub(crate) fn make(&self, label: &str, id: &[u8], kind: KeyKind) {
        self.0.make(label, id, kind).expect("a key");
    }

    /// How many keys were generated on it by us.
    pub(crate) fn generated(&self) -> usize {
        self.0.generated()
    }

    /// Fails the next operation with `fault`, which says nothing of the session.
    pub(crate) fn fail_next_for_good(&self, fault: Fault) {
        self.0.fail_next(BackendError::keep(fault));
    }

    /// The token as its backend sees it.
    pub(crate) fn backend(&self) -> &FakeBackend {
        &self.0
    }

    /// Starts a supervisor with the libraries `hsm`, which has a PIN, and `bare`, which has none; both hold this token.
    /// Must run on an actix system.
    pub(crate) fn supervisor(&self) -> Supervisor {
        self.supervisor_forced(false)
    }

    /// The same, with or without a word from the operator that the last try of a PIN may be used.
    pub(crate) fn supervisor_forced(&self, final_pin_try: bool) -> Supervisor {
        let library = |name: &str, pin| Library {
            name: name.into(),
            file: "token".into(),
            backend: Arc::new(self.0.clone()),
            pin,
            sessions: Some(2),
            call_sign: Some(Limits::default().call_open),
            keep_alive: None,
            verify: VerifyAfterSign::default(),
            workers: 1,
            isolated: false,
            computes_here: true,
            namespaces: Default::default(),
            service: None,
            final_pin_try,
        };
        let service = |service: CloudService| {
            let settings = Some(Arc::new(KmsService::new(service)));
            Library { service: settings, ..library(service.name(), None) }
        };
        let tokens = [library("hsm", Some(Secret::from(PIN))), library("bare", None)];
        let libraries = tokens.into_iter().chain(CloudService::ALL.map(service)).collect();
        let plan = Plan { libraries, pools: Vec::new(), namespaces: Vec::new(), limits: Limits::default() };
        Supervisor::start(plan, Arc::new(NoMemory), Telemetry::new())
    }
}

/// An open store in memory.
pub(crate) fn open_store() -> Store {
    let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().expect("a seal"))).expect("a store");
    store.initialize().expect("an initialised store");
    store
}

/// For stories without mounts that are there or gone.
pub(crate) fn no_mounts() -> Mounts {
    Arc::new(|_| Vec::new())
}

/// Runs a story on an actix system, with managed keys on a token.
pub(crate) fn story<F: Future<Output = ()>>(run: impl FnOnce(ManagedKeys, SoftwareToken) -> F) {
    actix::System::new().block_on(async {
        let token = SoftwareToken::default();
        let keys = ManagedKeys::new(open_store(), token.supervisor(), &Limits::default());
        keys.load(&[Namespace::root()], no_mounts()).expect("no keys yet");
        run(keys, token).await;
    });
}
