//! A cloud key as a device, and one call at a time as a session.

use std::hash::{Hash, Hasher};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::RwLock;
use tokio::sync::oneshot;

use super::pace::{Gate, News, Permit, Refusal, Why};
use super::runtime::TIMEOUT;
use super::states::KeyState;
use super::{BEING_MADE, Call, Found, NO_CREDENTIALS, Service, SharedClient, outages};
use crate::backend::{
    BackendError, Device, DeviceInfo, Fate, FoundKey, KeySelector, KeyTemplate, LEFT_ALONE, LoginAnswer, PinFlags,
    Refused, Sealing, Session, TokenIdentity, Turn,
};
use crate::config::Profile;
use crate::model::{
    Class, CloudKey, CloudKind, CloudService, Fault, KeyKind, KeyOperation, KeyUsage, Namespace, Secret,
};

/// A key that nobody looks up is looked up so often, to see how it stands.
const LOOK_EVERY: Duration = Duration::from_secs(900);
/// It is waited so long for leave to look a key up, or to make one, where whoever asks has as much time.
const PATIENCE: Duration = Duration::from_secs(20);
/// When a key that was made is looked for first; then after twice as long.
const MAKING: Duration = Duration::from_millis(200);

/// One key.
pub(crate) struct CloudDevice {
    info: DeviceInfo,
    /// The key as its registration has it.
    label: String,
    shared: Arc<Shared>,
}

struct Shared {
    /// What the service's key is called in messages.
    title: String,
    client: SharedClient,
    service: Arc<Service>,
    found: RwLock<Seen>,
    /// The ways into the domains of look-ups, and of what makes keys.
    looks: Arc<Gate>,
    makes: Arc<Gate>,
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
        let serial = match key.service() {
            // Names there are the same in whatever case.
            CloudService::AzureKeyVault => key.whole_name().to_ascii_lowercase(),
            CloudService::AwsKms | CloudService::GcpCkms => key.whole_name(),
        };
        let token = TokenIdentity { serial, ..TokenIdentity::default() };
        let info = DeviceInfo { token, slot: 0, max_sessions: None, profile: Profile::Cloud };
        let (looks, makes) = (client.looks(), client.makes());
        let state = service.states.watch(&key.to_string());
        let (alive, gone) = oneshot::channel();
        let shared = Shared { title, client, service, found: RwLock::default(), looks, makes, state, _alive: alive };
        let shared = Arc::new(shared);
        shared.service.runtime.spawn(Shared::look_now_and_then(Arc::downgrade(&shared), apart(key), gone));
        CloudDevice { label: key.name.clone(), info, shared }
    }
}

/// When a key is looked at first, so that not all are at once.
fn apart(key: &CloudKey) -> Duration {
    let mut hasher = std::hash::DefaultHasher::new();
    key.hash(&mut hasher);
    Duration::from_secs(hasher.finish() % LOOK_EVERY.as_secs())
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
        let (shared, label) = (Arc::clone(&self.shared), self.label.clone());
        Ok(Box::new(CloudSession { shared, label, leave: None, end: None }))
    }
}

struct CloudSession {
    shared: Arc<Shared>,
    label: String,
    /// Leave to send one request, that was not used yet.
    leave: Option<Permit>,
    /// When whoever the next calls are for has no use of their answers any more.
    end: Option<Instant>,
}

impl Shared {
    /// Asks the service now and then how a key stands that it once had: nobody may use it for long.
    async fn look_now_and_then(shared: Weak<Shared>, apart: Duration, mut gone: oneshot::Receiver<()>) {
        let mut pause = apart;
        loop {
            tokio::select! {
                _ = &mut gone => return,
                () = tokio::time::sleep(pause) => {}
            }
            let Some(shared) = shared.upgrade() else { return };
            shared.look().await;
            pause = LOOK_EVERY;
        }
    }

    async fn look(&self) {
        if !self.state.is_known() {
            return;
        }
        // Not where those who need the key wait for theirs.
        let Ok(leave) = self.leave(&self.looks, Instant::now()) else { return };
        match tokio::time::timeout(self.limit() * 2, self.client.find()).await {
            Ok(found) => {
                self.state.note(&found);
                self.tell_of_look(leave, &found);
            }
            Err(_) => leave.lost(),
        }
    }

    /// Waits for a call, so long at the longest.
    fn wait<T>(&self, limit: Duration, call: Call<'_, T>) -> Result<T, BackendError> {
        self.service.runtime.wait(limit, &self.title, call)
    }

    /// The limit of one call.
    fn limit(&self) -> Duration {
        self.service.settings.call
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

    /// Asks about the key, `times` the limit of a call at the longest, when its turn comes; for one who has no use of an answer
    /// after `end`.
    fn paced<'a, T>(
        &'a self,
        gate: &Arc<Gate>,
        times: u32,
        end: Option<Instant>,
        call: impl FnOnce() -> Call<'a, T>,
    ) -> Result<T, BackendError> {
        let (now, limit) = (Instant::now(), self.limit() * times);
        // What follows takes its time, too: the call, and the proof of a key that was found. They rarely take as long as they may.
        let patience = end.map_or(PATIENCE, |end| {
            let left = end.saturating_duration_since(now);
            left.saturating_sub(limit + self.limit() * 2).max(left / 2).min(PATIENCE)
        });
        let leave = self.leave(gate, now + patience)?;
        let left = end.map_or(limit, |end| end.saturating_duration_since(Instant::now()).min(limit));
        let result = self.wait(left, call());
        self.tell_of_look(leave, &result);
        result
    }

    fn look_up(&self, end: Option<Instant>) -> Result<Option<Found>, BackendError> {
        let found = self.paced(&self.looks, 2, end, || self.client.find());
        self.state.note(&found);
        found
    }

    /// Makes the key, and looks for it until it can be used.
    fn make<'a>(&'a self, template: &'a KeyTemplate, end: Option<Instant>) -> Result<Found, BackendError> {
        let mut made = self.paced(&self.makes, 4, end, || self.client.generate(template));
        // From now on: how long its turn was in coming says nothing of how long the key takes.
        let patience = Instant::now() + self.limit() * 4;
        let mut pause = MAKING;
        while made.as_ref().is_err_and(|error| error.cause == BEING_MADE) && Instant::now() + pause < patience {
            std::thread::sleep(pause);
            pause *= 2;
            // Until the caller's patience ends: the key is then found, not made, when it is asked for again.
            made = self.look_up(end).and_then(|found| {
                found.ok_or_else(|| super::ill("not_found", format!("{}: the key just made is not there", self.title)))
            });
        }
        made
    }

    /// What is said of a refusal: nobody asks before `until`, since `who` failed several times in a row, last for this reason.
    fn failed_often(&self, who: &str, reason: &str, until: Instant) -> Fault {
        let rest = until.saturating_duration_since(Instant::now()).as_millis();
        let title = &self.title;
        let what =
            format!("{title}: {who} failed several times in a row, last: {reason}; it is tried again in {rest} ms");
        Fault::Unavailable { what }
    }

    /// What is said of a turn that does not come before `until`.
    fn quota_used_up(&self, until: Instant) -> BackendError {
        let rest = until.saturating_duration_since(Instant::now());
        super::throttled(format!("{}: its quota is used up for {} ms", self.title, rest.as_millis()), Some(rest))
    }

    /// Why a session gets no leave.
    fn refused(&self, gate: &Gate, refusal: Refusal) -> Refused {
        match refusal {
            Refusal::GaveUp { is_throttled, .. } => Refused::Later { is_throttled },
            Refusal::TooLate { earliest } => Refused::Late { fault: self.quota_used_up(earliest).fault },
            Refusal::Paused { until } => Refused::Paused { fault: self.quota_used_up(until).fault, until },
            Refusal::DomainOpen { until } => {
                let (who, cause) = (self.service.settings.service.title(), gate.domain_cause());
                Refused::Shut { fault: self.failed_often(who, cause, until), until }
            }
            Refusal::KeyOpen { until } => {
                Refused::Shut { fault: self.failed_often("it", &gate.key_failure(), until), until }
            }
        }
    }

    /// Leave to send one request of the daemon's own, which nobody admitted before.
    fn leave(&self, gate: &Arc<Gate>, until: Instant) -> Result<Permit, BackendError> {
        let namespace = Namespace::root();
        let turn = Turn { namespace: &namespace, weight: 1, class: Class::Control, until, is_wanted: &|| true };
        loop {
            let refusal = match gate.admit(&turn) {
                Ok(leave) => return Ok(leave),
                Err(refusal) => refusal,
            };
            let earliest = refusal.earliest();
            if matches!(refusal, Refusal::Paused { .. }) && earliest < until {
                std::thread::sleep(earliest.saturating_duration_since(Instant::now()));
                continue;
            }
            return Err(match self.refused(gate, refusal) {
                Refused::Shut { fault, .. } => BackendError { fault, fate: Fate::BackOff, cause: LEFT_ALONE },
                Refused::Later { .. } | Refused::Late { .. } | Refused::Paused { .. } => self.quota_used_up(earliest),
            });
        }
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

impl Shared {
    /// Tells flow control how a request ended, whether it would have been given up before the service's own limit; and the log what
    /// has changed by that.
    fn tell<T>(&self, leave: Permit, took: Duration, is_cut: bool, result: &Result<T, BackendError>) {
        let gate = Arc::clone(leave.gate());
        let news = match result {
            Err(error) if error.fate == Fate::BackOff => {
                let why = Why { cause: error.cause, reason: &self.reason(error) };
                match error.cause {
                    // An asker without patience says nothing of the service.
                    TIMEOUT if is_cut => leave.given_up(took, why),
                    // Nor does whoever gives out this key's credentials.
                    NO_CREDENTIALS => leave.failed_alone(why),
                    _ => leave.failed(why),
                }
            }
            Ok(_) => leave.succeeded(took),
            Err(_) => told_of_quota(leave, result),
        };
        outages::tell(&self.service, &self.title, &gate, news);
    }

    /// The same of what is asked about a key, and not of it.
    fn tell_of_look<T>(&self, leave: Permit, result: &Result<T, BackendError>) {
        let gate = Arc::clone(leave.gate());
        match result {
            // It is asked again with pauses, whatever a breaker would say.
            Err(BackendError { fate: Fate::BackOff, cause, .. }) if *cause != BEING_MADE => leave.lost(),
            // How long it takes says nothing of what keys take to work.
            _ => outages::tell(&self.service, &self.title, &gate, told_of_quota(leave, result)),
        }
    }

    /// Why a call failed, without which key it was of, which is said beside.
    fn reason(&self, error: &BackendError) -> String {
        let Fault::Unavailable { what } = &error.fault else {
            return error.fault.to_string();
        };
        what.strip_prefix(&*self.title).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(what).to_owned()
    }
}

/// The same of a request that was answered: whether by that the quota is used up, and until when.
fn told_of_quota<T>(leave: Permit, result: &Result<T, BackendError>) -> News {
    match result {
        Err(BackendError { fate: Fate::Throttled, fault, .. }) => leave.throttled(match fault {
            Fault::QuotaExceeded { retry_after, .. } if !retry_after.is_zero() => Some(*retry_after),
            _ => None,
        }),
        _ => leave.answered(),
    }
}

impl Session for CloudSession {
    /// By the names that the device was opened by.
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        match self.shared.look_up(self.end)? {
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
        self.shared.make(template, self.end).map(|made| self.found(made))
    }

    fn perform(&mut self, handle: u64, _: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let leave = self.leave.take();
        let (found, gate) = self.shared.seen(handle)?;
        // What it does not do is not asked of it, and tells flow control nothing.
        self.shared.client.check(&found, operation)?;
        let (now, limit) = (Instant::now(), self.shared.limit());
        let leave = match leave {
            Some(leave) => leave,
            // A proof of the key, which nobody admitted before.
            None => self.shared.leave(&gate, self.end.map_or(now + limit, |end| end.min(now + limit)))?,
        };
        let begun = Instant::now();
        let left = self.end.map(|end| end.saturating_duration_since(begun)).filter(|left| *left < limit);
        if left.is_some_and(|left| left.is_zero()) {
            return Err(BackendError::keep(Fault::DeadlineExceeded { stage: "started" }));
        }
        let result = self.shared.wait(left.unwrap_or(limit), self.shared.client.perform(&found, operation));
        self.shared.tell(leave, begun.elapsed(), left.is_some(), &result);
        result
    }

    fn admit(&mut self, turn: &Turn<'_>) -> Result<(), Refused> {
        let gate = self.shared.found.read().key.as_ref().map(|(_, gate)| Arc::clone(gate));
        let (None, Some(gate)) = (&self.leave, gate) else { return Ok(()) };
        match gate.admit(turn) {
            Ok(leave) => {
                self.leave = Some(leave);
                Ok(())
            }
            Err(refusal) => Err(self.shared.refused(&gate, refusal)),
        }
    }

    fn end_by(&mut self, until: Option<Instant>) {
        self.end = until;
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
