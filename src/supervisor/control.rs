//! The blocking half of a slot actor: one thread that opens the device, logs in, finds, generates and proves keys, so
//! that no call into a vendor's library ever runs on an actor's thread.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::guarded::Guarded;
use super::login::{LoggedIn, back_off, others_come_up, others_log_in};
use super::pins::{Login, Logins, PinMemory, Place};
use super::presence::{Before, Presence};
use super::proof;
use super::route::{FoundAt, KeySpec, MemberId, PreparedKey};
use super::same_token::{Name, Sighting, Sightings};
use crate::backend::{Backend, BackendError, Device, DeviceInfo, Fate, FoundKey, KeyTemplate, Session};
use crate::config::Pin;
use crate::model::{CloudService, Fault, Secret, TokenSelector};
use crate::telemetry::MemberMetrics;

/// Commands waiting for one control thread. More means that it hangs.
const COMMANDS: usize = 1024;

/// The cause where a recorded key is not on its token.
pub(super) const KEY_GONE: &str = "key_gone";

type Command = Box<dyn FnOnce(&mut Control) + Send>;

/// How a control thread reaches its token.
pub(super) struct Reach {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) name: Name,
    /// Which process has the library loaded: 0 is this one, shared by all members; a worker process is one member's. Each has a
    /// login of its own.
    pub(super) process: u32,
    pub(super) pins: Arc<dyn PinMemory>,
    pub(super) logins: Arc<Logins>,
    pub(super) sightings: Arc<Sightings>,
    pub(super) guarded: Arc<Guarded>,
    /// Whether to log in even where the token says that it allows one last try.
    pub(super) final_pin_try: bool,
    pub(super) metrics: Arc<MemberMetrics>,
    /// The members its token had before: not until they have gone is it opened.
    pub(super) before: Vec<Before>,
    /// Held while one of the worker processes of its token comes up. They share what the token keeps on this host: one that
    /// opens SoftHSM2's files while another's login writes them finds them broken.
    pub(super) coming_up: Arc<Mutex<()>>,
    /// How long they, and a login of others to its token, are waited for.
    pub(super) wait: Duration,
}

impl Reach {
    /// Where one logs in to the token that is open.
    fn place(&self, info: &DeviceInfo) -> Place {
        Place { library: self.name.library.clone(), process: self.process, slot: info.slot, token: info.token.clone() }
    }
}

/// What the control thread holds.
pub(super) struct Control {
    pub(super) to: Reach,
    // Dropped in this order: the session before its device, the device before the note that it is logged in; and whoever
    // waits for the end of all comes last.
    session: Option<Box<dyn Session>>,
    /// When nobody waits for the command that runs now any more.
    until: Option<Instant>,
    pub(super) device: Option<Arc<dyn Device>>,
    pub(super) login: Option<Login>,
    sighting: Option<Sighting>,
    _presence: Presence,
    /// The number of the last login it lived by.
    last_login: Option<u64>,
    /// The PINs that it came up with last, or failed to.
    pub(super) fetched: Vec<Secret>,
}

/// A key that a member has proven to hold.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) found: FoundKey,
    pub(super) key: PreparedKey,
}

/// The actor's end of a control thread. The thread ends when this is dropped.
pub(super) struct ControlThread {
    commands: Sender<Command>,
    thread: JoinHandle<()>,
}

impl ControlThread {
    /// Starts the thread.
    pub(super) fn start(to: Reach, presence: Presence) -> Result<ControlThread, Fault> {
        let (commands, inbox) = bounded::<Command>(COMMANDS);
        let thread = std::thread::Builder::new()
            .name("keyway-control".into())
            .spawn(move || {
                let mut control = Control::new(to, presence);
                while let Ok(command) = inbox.recv() {
                    // There is one such thread for a member, for good. A session it panicked in is not to be trusted.
                    if catch_unwind(AssertUnwindSafe(|| command(&mut control))).is_err() {
                        control.session = None;
                    }
                }
            })
            .map_err(|error| Fault::Unavailable { what: format!("cannot start a thread: {error}") })?;
        Ok(ControlThread { commands, thread })
    }

    /// Whether it has ended before its time: by a panic, in code of ours or of a library's.
    pub(super) fn is_gone(&self) -> bool {
        self.thread.is_finished()
    }

    /// Runs `command` on the thread and waits for its turn, then for its answer, each `limit` at the longest. A command that
    /// takes longer goes on there all the same; its answer is lost. Only one that began and does not end is
    /// [`Fault::DeviceStuck`]: behind many others a turn may be long in coming, and nothing hangs. One whose asker has left
    /// before its turn is not begun: a login or a key that nobody waits for is one too many.
    pub(super) fn run<T, C>(&self, limit: Duration, command: C) -> impl Future<Output = Result<T, Fault>> + use<T, C>
    where
        T: Send + 'static,
        C: FnOnce(&mut Control) -> T + Send + 'static,
    {
        self.send(limit, false, command)
    }

    /// Lets go of the device, whoever still waits for that.
    pub(super) fn close(&self, limit: Duration) -> impl Future<Output = Result<(), Fault>> + use<> {
        self.send(limit, true, Control::close)
    }

    fn send<T, C>(
        &self,
        limit: Duration,
        always: bool,
        command: C,
    ) -> impl Future<Output = Result<T, Fault>> + use<T, C>
    where
        T: Send + 'static,
        C: FnOnce(&mut Control) -> T + Send + 'static,
    {
        let (turn, turn_comes) = oneshot::channel();
        let (answer, waiting) = oneshot::channel();
        let boxed: Command = Box::new(move |control| {
            if turn.send(()).is_ok() || always {
                control.until = Some(Instant::now() + limit);
                // Who left in the middle of it needs no answer.
                let _ = answer.send(command(control));
            }
        });
        let sent = self.commands.try_send(boxed);
        async move {
            match sent {
                Ok(()) => {}
                Err(TrySendError::Full(_)) => {
                    return Err(Fault::Unavailable { what: "too many keys of the token wait to be looked at".into() });
                }
                Err(TrySendError::Disconnected(_)) => return Err(Fault::internal("a control thread is gone")),
            }
            if tokio::time::timeout(limit, turn_comes).await.is_err() {
                let what = format!("the token is busy with what was asked before, for {} s and more", limit.as_secs());
                return Err(Fault::Unavailable { what });
            }
            match tokio::time::timeout(limit, waiting).await {
                Ok(Ok(value)) => Ok(value),
                Ok(Err(_)) => Err(Fault::internal("a control thread ended in the middle of a command")),
                Err(_) => Err(Fault::DeviceStuck { what: format!("no answer within {} s", limit.as_secs()) }),
            }
        }
    }
}

/// A device that is open and logged in to.
pub(super) struct Opened {
    pub(super) device: Arc<dyn Device>,
    pub(super) info: DeviceInfo,
    /// The PIN it took.
    pub(super) pin: Option<Pin>,
    /// Members that are logged in to the same token by another name, and are to hand their keys over.
    pub(super) guest: Option<MemberId>,
}

/// What bringing a member up comes to, where nothing failed.
pub(super) enum BroughtUp {
    /// It is up.
    Up(Opened),
    /// Others are logged in to the same token by another name, which are to have its keys.
    Known(MemberId),
}

impl Control {
    fn new(to: Reach, presence: Presence) -> Control {
        let (session, device, login, sighting) = (None, None, None, None);
        let (until, last_login, fetched) = (None, None, Vec::new());
        Control { to, session, until, device, login, sighting, _presence: presence, last_login, fetched }
    }

    /// Lets go of the device: its sessions here are closed and the login ends with the last of them.
    pub(super) fn close(&mut self) {
        self.session = None;
        self.device = None;
        self.login = None;
        self.sighting = None;
    }

    /// Opens the device and logs in with one of these PINs: one native login call for each that was never refused, at the most.
    /// With `relogin`, whoever thinks that the login it had last still stands is wrong. `cause` is what had taken it down.
    pub(super) fn bring_up(
        &mut self,
        pins: &[Pin],
        relogin: bool,
        cause: Option<&'static str>,
    ) -> Result<BroughtUp, BackendError> {
        self.close();
        if !self.to.backend.has_login() {
            return self.open_without_login();
        }
        let pins = self.fetch(pins)?;
        let patience = Instant::now() + self.to.wait;
        self.wait_for_those_before(patience)?;
        let coming_up = Arc::clone(&self.to.coming_up);
        let _alone = coming_up.try_lock_until(patience).ok_or_else(|| others_come_up(&self.to))?;
        let device: Arc<dyn Device> = self.to.backend.open(&self.to.name.token)?.into();
        let info = device.info().clone();
        let place = self.to.place(&info);
        if let Some(number) = self.last_login.filter(|_| relogin) {
            self.to.logins.forget(&place, number);
        }
        let turn = self.to.logins.turn(&info.token);
        let turn = turn.try_lock_until(patience).ok_or_else(|| others_log_in(&info.token, self.to.wait))?;
        let (login, guest) = match self.log_in(device.as_ref(), &place, &pins, cause)? {
            LoggedIn::As(login, guest) => (login, guest),
            LoggedIn::Known(host) => return Ok(BroughtUp::Known(host)),
        };
        let sighting = self.to.sightings.note(&self.to.name, &place);
        drop(turn);
        let took = |(_, pin): &(Pin, Secret)| self.to.pins.hash(&info.token, pin).is_ok_and(|hash| login.is(&hash));
        let pin = pins.into_iter().find(took).map(|(pin, _)| pin);
        self.last_login = Some(login.number());
        self.session = Some(device.open_session()?);
        self.device = Some(Arc::clone(&device));
        self.login = Some(login);
        self.sighting = Some(sighting);
        Ok(BroughtUp::Up(Opened { device, info, pin, guest }))
    }

    /// Opens a device whose calls carry their own credentials.
    fn open_without_login(&mut self) -> Result<BroughtUp, BackendError> {
        let device: Arc<dyn Device> = self.to.backend.open(&self.to.name.token)?.into();
        self.session = Some(device.open_session()?);
        self.device = Some(Arc::clone(&device));
        let info = device.info().clone();
        Ok(BroughtUp::Up(Opened { device, info, pin: None, guest: None }))
    }

    /// Waits for the last session of the members this token had before: while one of them is logged in by the same code, a
    /// login says nothing of our PIN.
    fn wait_for_those_before(&mut self, patience: Instant) -> Result<(), BackendError> {
        while let Some(before) = self.to.before.last() {
            if !before.absence.wait(patience) && before.must_go {
                let what =
                    "a call into it that began before it was let go of has not returned; it is brought up when it \
                            has: where it never does, restart Keyway"
                        .into();
                return Err(back_off(Fault::Unavailable { what }));
            }
            self.to.before.pop();
        }
        Ok(())
    }

    /// Finds `spec`'s key, or generates it where that is allowed, and has it proven. This session is rarely used, so that
    /// what it was told of long ago may be gone: then once more, unless it might generate twice.
    pub(super) fn prepare(&mut self, spec: &KeySpec) -> Result<Proven, BackendError> {
        self.check_pin(spec)?;
        match self.try_prepare(spec) {
            Err(error) if error.fate == Fate::Reopen => {
                self.to.metrics.evicted(error.cause);
                let Some(device) = &self.device else { return Err(error) };
                // First: the token may have no room for another beside it.
                self.session = None;
                self.session = Some(device.open_session()?);
                if spec.generate.is_none() {
                    self.try_prepare(spec)
                } else {
                    Err(BackendError { fate: Fate::Keep, ..error })
                }
            }
            Err(error) if error.fate == Fate::FindAgain && spec.generate.is_none() => self.try_prepare(spec),
            result => result,
        }
    }

    fn try_prepare(&mut self, spec: &KeySpec) -> Result<Proven, BackendError> {
        if let (None, Some(device)) = (&self.session, &self.device) {
            self.session = Some(device.open_session()?);
        }
        let Some(session) = self.session.as_mut() else {
            let what = "the token is not open".into();
            return Err(BackendError::new(Fate::BackOff, Fault::Unavailable { what }));
        };
        session.end_by(self.until);
        let info = self.device.as_ref().map(|device| device.info());
        let opened = info.map(|info| info.token.clone()).unwrap_or_default();
        let is_guarded =
            |template: &KeyTemplate| info.is_none_or(|info| self.to.guarded.would_be_taken_for_one(info, template));
        let own = &self.to.name.token;
        let is_taken = || info.is_none_or(|info| spec.taken.iter().any(|token| may_be(token, own, info)));
        let (found, generated) = {
            // Whoever else looks for the label meanwhile, by another name of the token, would not find the key either.
            let turn = spec.generate.as_ref().map(|_| self.to.logins.turn_to_generate(&opened));
            let turn =
                turn.as_ref().map(|turn| turn.try_lock_for(self.to.wait).ok_or_else(|| others_generate(&self.to)));
            let _turn = turn.transpose()?;
            find_or_generate(session.as_mut(), spec, &self.to.name.token, is_guarded, is_taken)?
        };
        let identity = proof::identify(session.as_mut(), spec, &found)?;
        let Name { library, token, .. } = self.to.name.clone();
        let label = spec.selector.label.clone().unwrap_or_else(|| found.label.clone());
        let (serial, token_label) = (opened.serial, opened.label);
        let at = vec![FoundAt { library, token, serial, token_label, label, id: found.id.clone() }];
        Ok(Proven { found, key: PreparedKey { identity, generated, at } })
    }
}

/// Whether the token that is open, by its own name, may be the one that others name so.
fn may_be(other: &TokenSelector, own: &TokenSelector, info: &DeviceInfo) -> bool {
    match other {
        TokenSelector::Label(label) => *label == info.token.label,
        TokenSelector::Serial(serial) => *serial == info.token.serial,
        TokenSelector::Slot(_) => !matches!(own, TokenSelector::Slot(_)) || other == own,
        TokenSelector::Cloud(key) => {
            matches!(own, TokenSelector::Cloud(own) if own.is_named_as(key) && own.credentials == key.credentials)
        }
    }
}

fn others_generate(to: &Reach) -> BackendError {
    let what = format!(
        "token {} of kms_library {:?}: another key is being generated there, for {} ms and more; try again",
        to.name.token,
        to.name.library,
        to.wait.as_millis()
    );
    BackendError::keep(Fault::Unavailable { what })
}

fn find_or_generate(
    session: &mut dyn Session,
    spec: &KeySpec,
    token: &TokenSelector,
    is_guarded: impl Fn(&KeyTemplate) -> bool,
    is_taken: impl Fn() -> bool,
) -> Result<(FoundKey, bool), BackendError> {
    if let Some(found) = session.find(&spec.selector)? {
        return Ok((found, false));
    }
    let absent = |reason: &str| {
        let place = if matches!(token, TokenSelector::Cloud(_)) { "" } else { "token " };
        let fault = Fault::KeyUnavailable { key: spec.name.clone(), reason: format!("{place}{token}: {reason}") };
        BackendError { fault, fate: Fate::Keep, cause: KEY_GONE }
    };
    if spec.recorded.is_some() {
        return Err(absent(match token {
            // Nobody knows whether a copy in this region ever was.
            TokenSelector::Cloud(key) if key.service() == CloudService::AwsKms => {
                "the key is not there; restore it, or replicate it to that region, or take it out of the managed key"
            }
            _ => "the key is gone; restore it, or delete the managed key",
        }));
    }
    // Told apart from a token that is down: whoever asked knows why none is to be generated.
    let not_here = || {
        let what = format!("token {token} holds no such key for this namespace");
        BackendError::keep(Fault::NotFound { what })
    };
    let template = spec.generate.as_ref().ok_or_else(not_here)?;
    if is_guarded(template) {
        let what = format!(
            "managed key {:?}: token {token} holds the key of the seal under label {:?}, and of that label no other is made: name \
             another label",
            spec.name, template.label
        );
        return Err(BackendError::keep(Fault::invalid(what)));
    }
    if is_taken() {
        return Err(not_here());
    }
    session.generate(template)?;
    // Whoever else may have generated one meanwhile: exactly one must match now.
    match session.find(&spec.selector)? {
        Some(found) => Ok((found, true)),
        None => Err(absent("the key just generated cannot be found by its label")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::{self, FakeBackend};
    use crate::model::{Curve, KeyKind, Namespace};
    use crate::supervisor::pins::NoMemory;
    use crate::supervisor::presence;
    use crate::telemetry::{MemberLabels, Telemetry};

    fn spec() -> KeySpec {
        KeySpec {
            uuid: "u".into(),
            name: "k".into(),
            namespace: Namespace::root(),
            library: "fake".into(),
            token: None,
            pin: None,
            selector: crate::backend::KeySelector { label: Some("k".into()), id: None, secret: false, cloud: None },
            generate: None,
            taken: Vec::new(),
            recorded: None,
            max_parallel: None,
        }
    }

    fn reach(token: &FakeBackend) -> Reach {
        let labels = MemberLabels { library: "fake", token: "t", worker: 0 };
        Reach {
            backend: Arc::new(token.clone()),
            name: Name { kin: MemberId(0), library: "fake".into(), token: TokenSelector::Slot(0), configured: true },
            process: 0,
            pins: Arc::new(NoMemory),
            logins: Arc::default(),
            sightings: Arc::default(),
            guarded: Arc::default(),
            final_pin_try: false,
            metrics: Arc::new(Telemetry::new().pool("p").member(labels)),
            before: Vec::new(),
            coming_up: Arc::default(),
            wait: Duration::ZERO,
        }
    }

    #[test]
    fn of_the_workers_of_a_token_one_comes_up_at_a_time() {
        let token = FakeBackend::default();
        let one = reach(&token);
        let (presence, _absence) = presence::pair();
        let mut other = Control::new(Reach { coming_up: Arc::clone(&one.coming_up), ..reach(&token) }, presence);
        let pins = [Pin::Itself(Secret::from(fake::PIN))];
        let turn = one.coming_up.lock();
        let error = other.bring_up(&pins, false, None).map(drop).unwrap_err();
        assert_eq!((error.fate, token.logins()), (Fate::BackOff, 0));
        assert!(
            error.fault.to_string().contains("another worker process of the token is coming up"),
            "{}",
            error.fault
        );
        drop(turn);
        other.bring_up(&pins, false, None).map(drop).unwrap();
        assert_eq!(token.logins(), 1);
        assert!(one.coming_up.try_lock().is_some());
    }

    #[tokio::test]
    async fn a_panic_costs_its_session_and_no_more() {
        let token = FakeBackend::default();
        token.make("k", b"", KeyKind::Ec(Curve::P256)).unwrap();
        let (presence, _absence) = presence::pair();
        let thread = ControlThread::start(reach(&token), presence).unwrap();
        let limit = Duration::from_secs(60);
        let pins = [Pin::Itself(Secret::from(fake::PIN))];
        thread.run(limit, move |control| control.bring_up(&pins, false, None).map(drop)).await.unwrap().unwrap();
        let panicked = thread.run(limit, |_| -> () { panic!("as a library's reader would") }).await.unwrap_err();
        assert!(panicked.to_string().contains("in the middle of a command"), "{panicked}");
        thread.run(limit, |control| control.prepare(&spec()).map(drop)).await.unwrap().unwrap();
        assert_eq!(token.logins(), 1);
    }
}
