//! A cloud key as a device, and one call at a time as a session.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::pace::{Gate, Permit, Refusal};
use super::states::KeyState;
use super::{Call, Found, Service, SharedClient, ill};
use crate::backend::{
    BackendError, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, LoginAnswer, PinFlags, Sealing, Session,
};
use crate::config::Profile;
use crate::model::{CloudKey, CloudKind, CloudService, Fault, KeyKind, KeyOperation, KeyUsage, Secret};

/// A key that nobody looks up is looked up so often, to see how it stands.
const LOOK_EVERY: Duration = Duration::from_secs(900);

/// One key.
pub(crate) struct CloudDevice {
    info: DeviceInfo,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the service's key is called in messages.
    title: String,
    client: SharedClient,
    service: Arc<Service>,
    found: RwLock<Seen>,
    state: KeyState,
    /// Dropped with the device, it ends what runs beside.
    _alive: oneshot::Sender<()>,
}

/// The key that was found last. Another one has another handle.
#[derive(Default)]
struct Seen {
    handle: u64,
    key: Option<(Arc<Found>, Arc<Gate>)>,
}

impl CloudDevice {
    /// The device of `key`. No call is made.
    pub(crate) fn new(key: &CloudKey, client: SharedClient, service: Arc<Service>) -> CloudDevice {
        let title = format!("{} key {key}", key.service().title());
        // Not cut as a token's is: its serial number is its whole name, by whoever's word.
        let info = DeviceInfo {
            serial: match key.service() {
                // Names there are the same in whatever case.
                CloudService::AzureKeyVault => key.whole_name().to_ascii_lowercase(),
                CloudService::AwsKms | CloudService::GcpCkms => key.whole_name(),
            },
            label: key.name.clone(),
            max_sessions: None,
            profile: Profile::Cloud,
        };
        let state = service.states.watch(&key.to_string());
        let (alive, gone) = oneshot::channel();
        let shared = Shared { title, client, service, found: RwLock::default(), state, _alive: alive };
        let shared = Arc::new(shared);
        shared.service.runtime.spawn(Shared::look_now_and_then(Arc::downgrade(&shared), apart(key), gone));
        CloudDevice { info, shared }
    }
}

/// How far a key's looks are from others', so that not all are at once.
fn apart(key: &CloudKey) -> Duration {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % 60_000)
}

impl Device for CloudDevice {
    fn info(&self) -> &DeviceInfo {
        &self.info
    }

    fn pin_flags(&self) -> Result<PinFlags, BackendError> {
        Ok(PinFlags::default())
    }

    fn login(&self, _: &Secret) -> Result<LoginAnswer, BackendError> {
        Err(BackendError::keep(Fault::internal("a cloud key has no login")))
    }

    fn open_session(&self) -> Result<Box<dyn Session>, BackendError> {
        let (shared, label) = (Arc::clone(&self.shared), self.info.label.clone());
        Ok(Box::new(CloudSession { shared, label, leave: None }))
    }
}

struct CloudSession {
    shared: Arc<Shared>,
    label: String,
    /// Leave to send one request, that was not used yet.
    leave: Option<Permit>,
}

impl Shared {
    /// Asks the service now and then how a key stands that it once had: nobody may use it for long.
    async fn look_now_and_then(shared: Weak<Shared>, apart: Duration, mut gone: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut gone => return,
                () = tokio::time::sleep(LOOK_EVERY + apart) => {}
            }
            let Some(shared) = shared.upgrade() else { return };
            shared.look().await;
        }
    }

    async fn look(&self) {
        if self.state.is_known() {
            let limit = self.service.settings.call * 2;
            if let Ok(found) = tokio::time::timeout(limit, self.client.find()).await {
                self.state.note(&found);
            }
        }
    }

    /// Waits for a call, `times` the limit of one at the longest.
    fn wait<T>(&self, times: u32, call: Call<'_, T>) -> Result<T, BackendError> {
        self.service.runtime.wait(self.service.settings.call * times, &self.title, call)
    }

    /// Notes what was found: the same key keeps its handle.
    fn note(&self, found: Found) -> (u64, Arc<Found>) {
        let mut seen = self.found.write();
        if let Some((known, _)) = &seen.key
            && known.is_same(&found)
        {
            return (seen.handle, Arc::clone(known));
        }
        let found = Arc::new(found);
        seen.handle += 1;
        seen.key = Some((Arc::clone(&found), self.client.gate(&found)));
        (seen.handle, found)
    }

    fn seen(&self, handle: u64) -> Result<(Arc<Found>, Arc<Gate>), BackendError> {
        let seen = self.found.read();
        seen.key.clone().filter(|_| seen.handle == handle).ok_or_else(|| {
            let what = format!("{}: it is looked up anew", self.title);
            BackendError::new(Fate::FindAgain, Fault::Unavailable { what })
        })
    }

    /// Leave to send one request.
    fn leave(&self, gate: &Arc<Gate>, until: Instant) -> Result<Permit, BackendError> {
        gate.admit(until).map_err(|refusal| {
            let now = Instant::now();
            let (until, title) = match refusal {
                Refusal::TooLate { earliest } => {
                    let rest = earliest.saturating_duration_since(now);
                    let what = format!("{}: its quota is used up for {} ms", self.title, rest.as_millis());
                    return super::throttled(what, Some(rest));
                }
                Refusal::DomainOpen { until } => (until, self.service.settings.service.title()),
                Refusal::KeyOpen { until } => (until, self.title.as_str()),
            };
            let rest = until.saturating_duration_since(now).as_millis();
            let what = format!("{}: {title} failed several times in a row; it is tried again in {rest} ms", self.title);
            ill("breaker_open", what)
        })
    }
}

impl CloudSession {
    fn found(&self, found: Found) -> FoundKey {
        let (handle, key) = self.shared.note(found);
        let sealing = key.kind.sealing();
        let sealing = sealing.map(|scheme| Sealing { scheme, name: self.shared.client.lasting_name(&key) });
        let id = key.id.clone().into_bytes();
        FoundKey { sealing, ..FoundKey::new(handle, key.kind.kind, key.public.clone(), id, &self.label) }
    }
}

/// A key that is no such key as it is registered as: of another size or curve, for another use, or out of another kind of vault.
fn another_kind(title: &str, registered: Option<&CloudKind>, found: &CloudKind) -> BackendError {
    let said = |kind: &CloudKind| {
        let does: Vec<&str> = kind.does.usages().iter().map(KeyUsage::name).collect();
        format!("{} ({})", kind.native, does.join(", "))
    };
    let what = format!(
        "{title}: it is {}, and registered as {}: correct key_type, key_bits, curve or usages, or the key's name",
        said(found),
        registered.map(said).unwrap_or_default()
    );
    BackendError::keep(Fault::invalid(what))
}

/// Tells flow control how a request ended.
fn tell<T>(leave: Permit, took: Duration, result: &Result<T, BackendError>) {
    match result {
        Err(BackendError { fate: Fate::Throttled, fault, .. }) => leave.throttled(match fault {
            Fault::QuotaExceeded { retry_after, .. } if !retry_after.is_zero() => Some(*retry_after),
            _ => None,
        }),
        Err(BackendError { fate: Fate::BackOff, .. }) => leave.failed(),
        Err(_) => leave.answered(),
        Ok(_) => leave.succeeded(took),
    }
}

impl Session for CloudSession {
    /// By the names that the device was opened by.
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        let found = self.shared.wait(2, self.shared.client.find());
        self.shared.state.note(&found);
        match found? {
            // It is there: none may be made in its place.
            Some(found) if found.kind.kind.is_secret() != selector.secret => {
                let what = format!("{}: a key of this name is there, and is {}", self.shared.title, found.kind);
                Err(BackendError::keep(Fault::invalid(what)))
            }
            Some(found) if selector.cloud.is_some_and(|registered| registered != found.kind) => {
                Err(another_kind(&self.shared.title, selector.cloud, found.kind))
            }
            found => Ok(found.map(|found| self.found(found))),
        }
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        let made = self.shared.wait(4, self.shared.client.generate(template))?;
        Ok(self.found(made))
    }

    fn perform(&mut self, handle: u64, _: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let leave = self.leave.take();
        let (found, gate) = self.shared.seen(handle)?;
        // What it does not do is not asked of it, and tells flow control nothing.
        self.shared.client.check(&found, operation)?;
        let leave = match leave {
            Some(leave) => leave,
            // A proof of the key, which nobody admitted before.
            None => self.shared.leave(&gate, Instant::now() + self.shared.service.settings.call)?,
        };
        let begun = Instant::now();
        let result = self.shared.wait(1, self.shared.client.perform(&found, operation));
        tell(leave, begun.elapsed(), &result);
        result
    }

    fn admit(&mut self, until: Instant) -> Result<(), BackendError> {
        let gate = self.shared.found.read().key.as_ref().map(|(_, gate)| Arc::clone(gate));
        if let (None, Some(gate)) = (&self.leave, gate) {
            self.leave = Some(self.shared.leave(&gate, until).inspect_err(|error| {
                // It may be known at once that no turn comes in time: the next to ask is not to know it at once again.
                if error.fate == Fate::Throttled {
                    std::thread::sleep(until.saturating_duration_since(Instant::now()));
                }
            })?);
        }
        Ok(())
    }

    fn withdraw(&mut self) {
        self.leave = None;
    }

    /// Its calls stand by themselves: there is nothing that could have ended.
    fn check_alive(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

#[cfg(test)]
#[path = "device_tests.rs"]
mod tests;
