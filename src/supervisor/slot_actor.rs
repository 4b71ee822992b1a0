//! One member: the actor that owns a token's state. It brings the token up, holds its sessions, has keys proven, watches
//! for calls that do not return, and starts over with pauses when something is missing or breaks.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::control::{ControlThread, Opened, Proven};
use super::lane::Seat;
use super::pool::{BackOff, Member};
use super::route::{Holder, KeyRoute, KeySpec, PreparedKey, Routes};
use super::session_thread::{SessionEvent, SessionThread, Watch};
use crate::backend::{BackendError, Device, Fate};
use crate::config::Limits;
use crate::model::{Fault, MemberState, Secret};
use crate::telemetry::Telemetry;

/// How often calls in flight are looked at.
const WATCH_PERIOD: Duration = Duration::from_millis(250);
/// Askers that may wait for a token to come up.
const WAITING_MAX: usize = 1024;
/// Longest pause between two tries to find a key that a serving token lacks.
const KEY_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What a slot actor needs to know of its library's configuration.
#[derive(Clone)]
pub(super) struct MemberSettings {
    pub(super) pin: Option<Secret>,
    pub(super) sessions: usize,
    pub(super) call_sign: Duration,
    pub(super) limits: Limits,
}

/// One managed key this member is asked to hold.
struct Key {
    spec: KeySpec,
    route: Arc<KeyRoute>,
    held: bool,
    proving: bool,
    next_try: Instant,
    back_off: BackOff,
}

/// One session thread, as the actor sees it.
struct Thread {
    number: u64,
    watch: Arc<Watch>,
    opened: bool,
    stuck: bool,
}

type Reply = oneshot::Sender<Result<PreparedKey, Fault>>;

/// The actor.
pub(super) struct SlotActor {
    member: Arc<Member>,
    settings: MemberSettings,
    control: ControlThread,
    routes: Arc<Routes>,
    telemetry: Telemetry,
    state: MemberState,
    /// Why it does not serve.
    down: Option<Fault>,
    pin: Option<Secret>,
    bringing_up: bool,
    epoch: u64,
    device: Option<Arc<dyn Device>>,
    threads: Vec<Thread>,
    threads_started: u64,
    keys: HashMap<String, Key>,
    waiting: Vec<(KeySpec, Reply)>,
    back_off: BackOff,
    serving_since: Option<Instant>,
}

/// Finds (or generates) and proves a key.
pub(super) struct Prepare {
    pub(super) spec: KeySpec,
    pub(super) reply: Reply,
}

/// Serves a key from now on.
pub(super) struct Adopt {
    pub(super) spec: KeySpec,
    pub(super) route: Arc<KeyRoute>,
}

/// Serves a key no longer.
pub(super) struct Forget(pub(super) String);

/// Ends the actor.
pub(super) struct Stop;

struct FromSession {
    number: u64,
    epoch: u64,
    event: SessionEvent,
}

impl Message for Prepare {
    type Result = ();
}
impl Message for Adopt {
    type Result = ();
}
impl Message for Forget {
    type Result = ();
}
impl Message for Stop {
    type Result = ();
}
impl Message for FromSession {
    type Result = ();
}

impl SlotActor {
    pub(super) fn new(
        member: Arc<Member>,
        settings: MemberSettings,
        control: ControlThread,
        routes: Arc<Routes>,
        telemetry: Telemetry,
        first_epoch: u64,
    ) -> SlotActor {
        let back_off = BackOff::new(settings.limits.probe_min, settings.limits.probe_max);
        SlotActor {
            pin: settings.pin.clone(),
            member,
            settings,
            control,
            routes,
            telemetry,
            state: MemberState::Probing,
            down: None,
            bringing_up: false,
            epoch: first_epoch,
            device: None,
            threads: Vec::new(),
            threads_started: 0,
            keys: HashMap::new(),
            waiting: Vec::new(),
            back_off,
            serving_since: None,
        }
    }

    fn is_up(&self) -> bool {
        self.device.is_some()
    }

    // === coming up ===

    /// Starts bringing the token up, unless that is going on. `spec`'s PIN is used where the library has none.
    fn bring_up(&mut self, ctx: &mut Context<Self>) {
        if self.bringing_up || self.is_up() {
            return;
        }
        let Some(pin) = self.pin.clone().or_else(|| self.keys.values().find_map(|key| key.spec.pin.clone())) else {
            let what = format!(
                "no PIN for token {}: give kms_library {:?} a pin, or the managed key",
                self.member.token, self.member.library
            );
            return self.go_down(BackendError::new(Fate::Retire, Fault::CredentialsRefused { what }), ctx);
        };
        self.pin = Some(pin.clone());
        self.bringing_up = true;
        self.enter(MemberState::Probing, None);
        let brought_up = self.control.run(self.settings.limits.call_open, move |control| control.bring_up(&pin));
        ctx.spawn(brought_up.into_actor(self).map(|result, actor, ctx| {
            actor.bringing_up = false;
            match result {
                Ok(Ok(opened)) => actor.come_up(opened, ctx),
                Ok(Err(error)) => actor.go_down(error, ctx),
                Err(fault) => actor.go_down(BackendError::new(Fate::BackOff, fault), ctx),
            }
        }));
    }

    fn come_up(&mut self, opened: Opened, ctx: &mut Context<Self>) {
        self.telemetry.login(&self.member.library, &self.member.token.to_string(), true);
        self.epoch += 1;
        self.member.lane.begin_epoch(self.member.id, self.epoch);
        self.device = Some(opened.device);
        self.down = None;
        self.member.publish(|status| status.serial = Some(opened.info.serial.clone()));
        // The control session and the one that holds the login take two of those the token allows.
        let allowed = opened.info.max_sessions.map_or(usize::MAX, |most| most.saturating_sub(2).max(1));
        let sessions = self.settings.sessions.min(allowed);
        tracing::info!(
            library = self.member.library, token = %self.member.token, serial = opened.info.serial, sessions,
            "token is up and logged in"
        );
        self.enter(MemberState::Warming, None);
        for _ in 0..sessions {
            self.start_session(ctx);
        }
        let uuids: Vec<String> = self.keys.keys().cloned().collect();
        for uuid in uuids {
            self.prove(&uuid, ctx);
        }
        for (spec, reply) in std::mem::take(&mut self.waiting) {
            self.prepare(spec, reply, ctx);
        }
    }

    fn start_session(&mut self, ctx: &mut Context<Self>) {
        let Some(device) = self.device.clone() else { return };
        self.threads_started += 1;
        let (number, epoch) = (self.threads_started, self.epoch);
        let watch = Watch::new();
        let address = ctx.address();
        let thread = SessionThread {
            seat: Seat { member: self.member.id, epoch },
            lane: Arc::clone(&self.member.lane),
            device,
            watch: Arc::clone(&watch),
            telemetry: self.telemetry.clone(),
            // A mailbox that is closed belongs to an actor that is gone: then nobody needs to know.
            report: Box::new(move |event| address.do_send(FromSession { number, epoch, event })),
        };
        match thread.start() {
            Ok(()) => self.threads.push(Thread { number, watch, opened: false, stuck: false }),
            Err(fault) => tracing::error!(%fault, token = %self.member.token, "a session is missing"),
        }
    }

    // === going down ===

    /// Lets go of everything and, unless an operator must act first, tries again after a pause.
    fn go_down(&mut self, error: BackendError, ctx: &mut Context<Self>) {
        let was_up = self.device.take().is_some();
        if !was_up && error.fate == Fate::Retire {
            self.telemetry.login(&self.member.library, &self.member.token.to_string(), false);
        }
        self.epoch += 1;
        self.member.lane.begin_epoch(self.member.id, self.epoch);
        for thread in self.threads.drain(..) {
            self.member.lane.put_back(thread.watch.give_up().into_iter());
        }
        ctx.spawn(
            self.control
                .run(self.settings.limits.call_open, |control| control.close())
                .into_actor(self)
                .map(|_, _, _| ()),
        );
        for key in self.keys.values_mut() {
            key.held = false;
            key.route.remove_holder(self.member.id, &unavailable(&key.spec, &error.fault));
        }
        self.member.lane.sweep();
        for (spec, reply) in self.waiting.drain(..) {
            let _ = reply.send(Err(unavailable(&spec, &error.fault)));
        }
        let refused = error.fate == Fate::Retire;
        tracing::warn!(
            library = self.member.library, token = %self.member.token, reason = %error.fault,
            "{}", if refused { "token refused: waiting for an operator" } else { "token is down: it will be tried again" }
        );
        self.enter(if refused { MemberState::Refused } else { MemberState::BackingOff }, Some(error.fault));
        if !refused {
            // One that served well until now gets its first try at once.
            let pause = match self.serving_since.take() {
                Some(since) if since.elapsed() > self.settings.limits.probe_min => {
                    self.back_off.reset();
                    Duration::from_millis(10)
                }
                _ => self.back_off.pause(),
            };
            ctx.run_later(pause, |actor, ctx| actor.bring_up(ctx));
        }
    }

    // === keys ===

    /// Proves one of the keys it is to hold.
    fn prove(&mut self, uuid: &str, ctx: &mut Context<Self>) {
        let Some(key) = self.keys.get_mut(uuid) else { return };
        if key.proving {
            return;
        }
        key.proving = true;
        let mut spec = key.spec.clone();
        // Only a client's first use generates; never a probe.
        spec.generate = None;
        let epoch = self.epoch;
        let proven = self.control.run(self.settings.limits.call_open, move |control| control.prepare(&spec));
        let uuid = uuid.to_owned();
        ctx.spawn(proven.into_actor(self).map(move |result, actor, ctx| {
            if let Some(key) = actor.keys.get_mut(&uuid) {
                key.proving = false;
            }
            if actor.epoch == epoch && actor.is_up() {
                actor.proven(&uuid, flatten(result), ctx);
            }
        }));
    }

    fn proven(&mut self, uuid: &str, result: Result<Proven, BackendError>, ctx: &mut Context<Self>) {
        let Some(key) = self.keys.get_mut(uuid) else { return };
        match result {
            Ok(proven) => {
                key.held = true;
                key.back_off.reset();
                key.route.add_holder(Holder { member: self.member.id, epoch: self.epoch, handle: proven.handle });
                self.member.lane.nudge();
            }
            Err(error) => {
                key.held = false;
                key.next_try = Instant::now() + key.back_off.pause();
                key.route.remove_holder(self.member.id, &unavailable(&key.spec, &error.fault));
                self.member.lane.sweep();
                tracing::warn!(
                    key = key.spec.name, namespace = %key.spec.namespace, token = %self.member.token, reason = %error.fault,
                    "managed key is not served"
                );
                if error.fate != Fate::Keep {
                    return self.go_down(error, ctx);
                }
            }
        }
        self.publish();
    }

    /// Finds or generates a key for its first use, and serves it from then on.
    fn prepare(&mut self, spec: KeySpec, reply: Reply, ctx: &mut Context<Self>) {
        let limits = &self.settings.limits;
        let limit = if spec.generate.is_some() { limits.call_generate } else { limits.call_open };
        let epoch = self.epoch;
        let asked = spec.clone();
        let prepared = self.control.run(limit, move |control| control.prepare(&asked));
        ctx.spawn(prepared.into_actor(self).map(move |result, actor, ctx| match flatten(result) {
            Ok(proven) if actor.epoch == epoch => {
                let _ = reply.send(Ok(actor.first_use(spec, proven)));
            }
            Ok(_) => {
                let fault = Fault::Unavailable { what: "the token went down in the middle of it; try again".into() };
                let _ = reply.send(Err(unavailable(&spec, &fault)));
            }
            Err(error) => {
                let _ = reply.send(Err(error.fault.clone()));
                if error.fate != Fate::Keep && actor.epoch == epoch {
                    actor.go_down(error, ctx);
                }
            }
        }));
    }

    fn first_use(&mut self, mut spec: KeySpec, proven: Proven) -> PreparedKey {
        let route = self.routes.get_or_make(&spec, &proven.key.public, &self.member.lane);
        route.add_holder(Holder { member: self.member.id, epoch: self.epoch, handle: proven.handle });
        spec.recorded = Some(proven.key.public.clone());
        let mut key = self.key(spec, route);
        key.held = true;
        self.keys.insert(key.spec.uuid.clone(), key);
        self.publish();
        proven.key
    }

    fn key(&self, spec: KeySpec, route: Arc<KeyRoute>) -> Key {
        let back_off = BackOff::new(self.settings.limits.probe_min, KEY_PAUSE_MAX);
        Key { spec, route, held: false, proving: false, next_try: Instant::now(), back_off }
    }

    // === watching ===

    fn watch(&mut self, ctx: &mut Context<Self>) {
        let mut found = 0;
        for thread in &mut self.threads {
            let limit = if thread.opened { self.settings.call_sign } else { self.settings.limits.call_open };
            if !thread.stuck && thread.watch.in_call().is_some_and(|took| took > limit) {
                thread.stuck = true;
                found += 1;
                self.member.lane.put_back(thread.watch.give_up().into_iter());
                self.telemetry.session_stuck(&self.member.library, &self.member.token.to_string());
                tracing::error!(
                    library = self.member.library, token = %self.member.token, limit_ms = limit.as_millis(),
                    "a call into the token does not return: its session is given up"
                );
            }
        }
        // As many replacements as there are sessions: a token that hangs on every call must not eat threads for ever.
        let room = (2 * self.settings.sessions).saturating_sub(self.threads.len());
        for _ in 0..found.min(room) {
            self.start_session(ctx);
        }
        if found > 0 {
            self.settle();
        }
        let now = Instant::now();
        let due = |key: &&Key| !key.held && !key.proving && key.next_try <= now;
        if self.is_up() {
            let uuids: Vec<String> = self.keys.values().filter(due).map(|key| key.spec.uuid.clone()).collect();
            for uuid in uuids {
                self.prove(&uuid, ctx);
            }
        }
        self.telemetry.lane_depth(&self.member.library, &self.member.token.to_string(), self.member.lane.depth());
    }

    fn session_said(&mut self, message: FromSession, ctx: &mut Context<Self>) {
        if message.epoch != self.epoch {
            return;
        }
        match message.event {
            SessionEvent::Opened => {
                if let Some(thread) = self.threads.iter_mut().find(|thread| thread.number == message.number) {
                    thread.opened = true;
                }
            }
            SessionEvent::Ended(error) => {
                if let Some(index) = self.threads.iter().position(|thread| thread.number == message.number) {
                    let thread = self.threads.swap_remove(index);
                    self.member.lane.put_back(thread.watch.give_up().into_iter());
                    if let Some(error) = error {
                        return self.session_lost(error, thread.opened, ctx);
                    }
                }
            }
        }
        self.settle();
    }

    fn session_lost(&mut self, error: BackendError, opened: bool, ctx: &mut Context<Self>) {
        let refused_one_more =
            !opened && !self.threads.is_empty() && matches!(error.fate, Fate::Keep | Fate::Reopen | Fate::BackOff);
        if !refused_one_more {
            return self.go_down(error, ctx);
        }
        tracing::warn!(
            library = self.member.library, token = %self.member.token, reason = %error.fault, sessions = self.threads.len(),
            "the token allows no further session: going on with those it has"
        );
        self.settle();
    }

    /// Brings the state in line with the sessions there are.
    fn settle(&mut self) {
        if !self.is_up() {
            return;
        }
        let pulling = self.threads.iter().filter(|thread| thread.opened && !thread.stuck).count();
        let stuck = self.threads.iter().filter(|thread| thread.stuck).count();
        let opening = self.threads.iter().any(|thread| !thread.opened && !thread.stuck);
        let state = match (pulling, opening) {
            (0, true) => MemberState::Warming,
            (0, false) => MemberState::Stuck,
            (_, false) if stuck > 0 || pulling < self.settings.sessions => MemberState::Degraded,
            _ => MemberState::Serving,
        };
        if pulling > 0 && self.serving_since.is_none() {
            self.serving_since = Some(Instant::now());
        }
        let reason = match state {
            MemberState::Stuck => Some(Fault::DeviceStuck {
                what: "every session is inside a call that does not return; restart needed".into(),
            }),
            _ => None,
        };
        self.enter(state, reason);
    }

    fn enter(&mut self, state: MemberState, down: Option<Fault>) {
        self.state = state;
        self.down = down;
        self.publish();
    }

    fn publish(&self) {
        let sessions = self.threads.iter().filter(|thread| thread.opened && !thread.stuck).count();
        let stuck = self.threads.iter().filter(|thread| thread.stuck).count();
        let keys = self.keys.values().filter(|key| key.held).count();
        self.member.note_proving(self.keys.values().filter(|key| key.proving).count());
        let reason = self.down.as_ref().map(Fault::to_string);
        self.member.publish(|status| {
            status.state = self.state;
            status.reason = reason;
            status.sessions = sessions;
            status.keys = keys;
        });
        self.telemetry.member(&self.member.library, &self.member.token.to_string(), self.state, sessions, stuck, keys);
    }
}

fn flatten<T>(result: Result<Result<T, BackendError>, Fault>) -> Result<T, BackendError> {
    result.unwrap_or_else(|fault| Err(BackendError::keep(fault)))
}

/// What an asker of this key is told while its member is down.
fn unavailable(spec: &KeySpec, cause: &Fault) -> Fault {
    match cause {
        Fault::KeyMismatch { .. } | Fault::KeyUnavailable { .. } | Fault::CredentialsRefused { .. } => cause.clone(),
        other => Fault::KeyUnavailable { key: spec.name.clone(), reason: other.to_string() },
    }
}

impl Actor for SlotActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.publish();
        if self.pin.is_some() {
            self.bring_up(ctx);
        }
        ctx.run_interval(WATCH_PERIOD, SlotActor::watch);
    }
}

impl Handler<Prepare> for SlotActor {
    type Result = ();

    fn handle(&mut self, Prepare { spec, reply }: Prepare, ctx: &mut Self::Context) {
        if self.is_up() {
            return self.prepare(spec, reply, ctx);
        }
        // A PIN this member has not tried yet is worth a try; one that was refused is stopped further down.
        if self.settings.pin.is_none()
            && spec.pin.is_some()
            && matches!(self.state, MemberState::Refused | MemberState::Probing)
        {
            self.pin = spec.pin.clone();
            self.state = MemberState::Probing;
        }
        if self.state != MemberState::Probing || self.waiting.len() >= WAITING_MAX {
            let why = self.down.clone().unwrap_or(Fault::Unavailable { what: "the token is not up".into() });
            let _ = reply.send(Err(unavailable(&spec, &why)));
            return;
        }
        self.waiting.push((spec, reply));
        self.bring_up(ctx);
    }
}

impl Handler<Adopt> for SlotActor {
    type Result = ();

    fn handle(&mut self, Adopt { spec, route }: Adopt, ctx: &mut Self::Context) {
        route.cap(spec.max_parallel);
        let uuid = spec.uuid.clone();
        let known = self.keys.get_mut(&uuid).filter(|key| Arc::ptr_eq(&key.route, &route));
        match known {
            Some(key) => {
                key.held = key.held && same_key(&key.spec, &spec);
                key.spec = spec;
            }
            None => {
                let key = self.key(spec, route);
                self.keys.insert(uuid.clone(), key);
            }
        }
        if self.keys.get(&uuid).is_some_and(|key| key.held) {
            return;
        }
        if self.is_up() {
            self.prove(&uuid, ctx);
        } else if self.state == MemberState::Probing {
            self.bring_up(ctx);
        } else if let (Some(key), Some(why)) = (self.keys.get(&uuid), &self.down) {
            key.route.remove_holder(self.member.id, &unavailable(&key.spec, why));
        }
    }
}

/// Whether two specs name the same key by the same credentials, so that the proof still stands.
fn same_key(a: &KeySpec, b: &KeySpec) -> bool {
    let same_pin = a.pin.as_ref().map(Secret::expose) == b.pin.as_ref().map(Secret::expose);
    a.selector == b.selector && a.recorded == b.recorded && same_pin
}

impl Handler<Forget> for SlotActor {
    type Result = ();

    fn handle(&mut self, Forget(uuid): Forget, _: &mut Self::Context) {
        if let Some(key) = self.keys.remove(&uuid) {
            let gone = Fault::NotFound { what: format!("no managed key found with uuid {uuid}") };
            key.route.remove_holder(self.member.id, &gone);
            self.member.lane.sweep();
            self.publish();
        }
    }
}

impl Handler<FromSession> for SlotActor {
    type Result = ();

    fn handle(&mut self, message: FromSession, ctx: &mut Self::Context) {
        self.session_said(message, ctx);
    }
}

impl Handler<Stop> for SlotActor {
    type Result = ();

    fn handle(&mut self, _: Stop, ctx: &mut Self::Context) {
        self.member.lane.begin_epoch(self.member.id, u64::MAX);
        ctx.stop();
    }
}
