//! One member: the actor that owns a token's state. It brings the token up, holds its sessions, and starts over with
//! pauses when something is missing or breaks. What to do when is [`Health`]'s to say; the keys of the member are in
//! [`SlotKeys`](super::slot_keys), and what is looked at by the clock in [`watchdog`](super::watchdog).

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::prelude::*;
use arc_swap::ArcSwapOption;
use tokio::sync::oneshot;

use super::control::ControlThread;
use super::control::Proven;
use super::health::{Again, Event, Health, Step};
use super::pool::Member;
use super::route::{KeyRoute, KeySpec, MemberId, PreparedKey, Routes};
use super::seats::Seat;
use super::session_thread::{SessionEvent, SessionThread};
use super::slot_keys::SlotKeys;
use super::watch::Watch;
use crate::backend::{BackendError, Device, Fate};
use crate::config::{Limits, Pin, Traits, VerifyAfterSign};
use crate::model::{Fault, MemberState};
use crate::telemetry::{RefusedLabel, SessionCounts};

/// What a slot actor needs to know of its library's configuration.
#[derive(Clone)]
pub(super) struct MemberSettings {
    /// Limit of one sign call; `None` takes the profile's.
    pub(super) call_sign: Option<Duration>,
    /// Time without work after which a session exercises a key; `None` takes the profile's.
    pub(super) keep_alive: Option<Duration>,
    pub(super) verify: VerifyAfterSign,
    /// Worker processes of the token.
    pub(super) workers: usize,
    /// Whether it is logged in to by a PIN.
    pub(super) has_login: bool,
    pub(super) limits: Limits,
}

/// One session thread, as the actor sees it.
pub(super) struct Thread {
    number: u64,
    pub(super) seat: Arc<Seat>,
    pub(super) watch: Arc<Watch>,
    pub(super) opened: bool,
    pub(super) stuck: bool,
}

pub(super) type Reply = oneshot::Sender<Result<PreparedKey, Fault>>;

/// The actor.
pub(super) struct SlotActor {
    pub(super) member: Arc<Member>,
    pub(super) settings: MemberSettings,
    pub(super) control: ControlThread,
    pub(super) routes: Arc<Routes>,
    pub(super) supervisor: Recipient<SameToken>,
    pub(super) health: Health,
    /// Why it does not serve.
    pub(super) down: Option<Fault>,
    /// What took it down last, for the metrics of its next bring-up.
    pub(super) down_cause: Option<&'static str>,
    /// The PIN that the token took last, or that its stanza gives.
    pub(super) pin: Option<Pin>,
    /// When what its PINs refer to was looked at last.
    pub(super) pins_read: Instant,
    pub(super) bringing_up: bool,
    /// The token forgot its login: whoever thinks that he is logged in is wrong.
    pub(super) login_lost: bool,
    pub(super) epoch: u64,
    pub(super) device: Option<Arc<dyn Device>>,
    /// The device before, should the control thread still be inside a call into it.
    pub(super) last_device: Option<Weak<dyn Device>>,
    pub(super) traits: Traits,
    pub(super) threads: Vec<Thread>,
    threads_started: u64,
    pub(super) keys: SlotKeys,
    pub(super) waiting: Vec<(KeySpec, Reply)>,
    /// It went down a moment ago, and whoever needs it waits.
    pub(super) returns: bool,
    /// Its token is let go of: it does not come up any more.
    pub(super) leaving: bool,
    /// The key that idle sessions exercise.
    pub(super) exercised: Arc<ArcSwapOption<Proven>>,
}

/// Finds (or generates) and proves a key.
pub(super) struct Prepare {
    pub(super) spec: KeySpec,
    pub(super) reply: Reply,
}

/// Serves a key from now on.
#[derive(Clone)]
pub(super) struct Adopt {
    pub(super) spec: KeySpec,
    pub(super) route: Arc<KeyRoute>,
}

/// Serves the key `uuid` no longer; askers are told why.
pub(super) struct Forget {
    pub(super) uuid: String,
    pub(super) why: Fault,
}

/// To the supervisor: two names lead to one token. The guest's keys are the host's to serve from now on. Each is told by the
/// first of its members.
pub(super) struct SameToken {
    pub(super) guest: MemberId,
    pub(super) host: MemberId,
}

/// To a guest: the host is gone. It is brought up itself after all.
pub(super) struct HostGone;

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
impl Message for SameToken {
    type Result = ();
}
impl Message for HostGone {
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
        supervisor: Recipient<SameToken>,
        first_epoch: u64,
    ) -> SlotActor {
        SlotActor {
            health: Health::new(settings.limits.probe_min, settings.limits.probe_max),
            pin: member.pin.clone().map(Pin::from),
            pins_read: Instant::now(),
            keys: SlotKeys::new(settings.limits.probe_min),
            member,
            settings,
            control,
            routes,
            supervisor,
            down: None,
            down_cause: None,
            bringing_up: false,
            login_lost: false,
            epoch: first_epoch,
            device: None,
            last_device: None,
            traits: crate::config::Profile::default().traits(),
            threads: Vec::new(),
            threads_started: 0,
            waiting: Vec::new(),
            returns: false,
            leaving: false,
            exercised: Arc::default(),
        }
    }

    /// Tells the machine what happened, and does what it says.
    pub(super) fn on(&mut self, event: Event, error: Option<BackendError>, ctx: &mut Context<Self>) {
        let before = self.health.state();
        self.note_served();
        let step = self.health.on(event, Instant::now());
        self.follow(step, error, ctx);
        self.note_stuck(before);
        self.open_sessions(ctx);
        self.publish();
    }

    pub(super) fn follow(&mut self, step: Step, error: Option<BackendError>, ctx: &mut Context<Self>) {
        match step {
            Step::Stay => {}
            Step::BringUp => self.bring_up(ctx),
            Step::TakeDown(again) => {
                let unknown = || BackendError::new(Fate::BackOff, Fault::internal("a member went down for no reason"));
                self.take_down(error.unwrap_or_else(unknown), again, ctx);
            }
        }
    }

    /// Opens as many sessions as are due. Where the system has no thread for the first of them, the member goes on with those
    /// it has.
    fn open_sessions(&mut self, ctx: &mut Context<Self>) {
        // Sessions of a lane that is done end as soon as they are open.
        let due = if self.member.pool.lane.is_done() { 0 } else { self.health.to_open() };
        if due == 0 {
            return;
        }
        let mut started = (0..due).map(|_| self.start_session(ctx));
        let failed = started.next().and_then(Result::err);
        let opening = if failed.is_some() { 0 } else { 1 + started.filter(Result::is_ok).count() };
        self.health.note_opening(opening);
        if let Some(fault) = failed {
            tracing::error!(reason = %fault, token = %self.member.token, "a session is missing");
            let error = BackendError::new(Fate::BackOff, fault);
            self.on(Event::SessionRefused(Fate::BackOff), Some(error), ctx);
        }
    }

    fn start_session(&mut self, ctx: &mut Context<Self>) -> Result<(), Fault> {
        let Some(device) = self.device.clone() else { return Err(Fault::internal("a session without a device")) };
        self.threads_started += 1;
        let (number, epoch) = (self.threads_started, self.epoch);
        let (seat, watch) = (Arc::new(Seat::new(self.member.id, epoch)), Watch::new());
        let address = ctx.address();
        let keep_alive = self.settings.keep_alive.unwrap_or(self.traits.keep_alive);
        let thread = SessionThread {
            seat: Arc::clone(&seat),
            lane: Arc::clone(&self.member.pool.lane),
            device,
            watch: Arc::clone(&watch),
            metrics: Arc::clone(&self.member.metrics),
            computing: Arc::clone(&self.member.computing),
            verify: self.settings.verify,
            flow_control: self.traits.flow_control,
            keep_alive: (!keep_alive.is_zero()).then_some(keep_alive),
            exercised: Arc::clone(&self.exercised),
            // A mailbox that is closed belongs to an actor that is gone: then nobody needs to know.
            report: Box::new(move |event| address.do_send(FromSession { number, epoch, event })),
            _presence: self.member.presence.clone(),
        };
        thread.start()?;
        self.threads.push(Thread { number, seat, watch, opened: false, stuck: false });
        Ok(())
    }

    // === going down ===

    /// Lets go of everything and, unless an operator must act first, tries again.
    fn take_down(&mut self, error: BackendError, again: Again, ctx: &mut Context<Self>) {
        self.last_device = self.device.take().map(|device| Arc::downgrade(&device)).or(self.last_device.take());
        self.login_lost |= error.fate == Fate::LoginAgain;
        self.epoch += 1;
        self.exercised.store(None);
        let returns = matches!(again, Again::Soon(_));
        self.returns = returns;
        self.keys.let_go(&self.member, &error.fault, returns);
        self.member.pool.lane.begin_epoch(self.member.id, self.epoch);
        for thread in std::mem::take(&mut self.threads) {
            self.take_back(thread.watch.give_up(), &error.fault);
        }
        let closed = self.control.close(self.settings.limits.call_open);
        ctx.spawn(closed.into_actor(self).map(|_, _, _| ()));
        self.member.pool.lane.sweep();
        if !returns {
            for (spec, reply) in self.waiting.drain(..) {
                let _ = reply.send(Err(unavailable(&spec, &error.fault)));
            }
        }
        self.say_down(&error, again);
        self.down_cause = Some(error.cause);
        self.down = Some(error.fault);
        let pause = match again {
            Again::Soon(pause) | Again::After(pause) => pause,
            Again::Never => return,
        };
        ctx.run_later(pause, |actor, ctx| actor.probe(ctx));
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        let step = self.health.probe();
        self.follow(step, None, ctx);
        self.publish();
    }

    fn say_down(&self, error: &BackendError, again: Again) {
        let what = match again {
            Again::Soon(_) => "member is brought up anew",
            Again::After(_) => "member is down: it will be tried again",
            Again::Never => "member refused: waiting for an operator",
        };
        tracing::warn!(
            library = self.member.library, token = %self.member.token, worker = self.member.worker, cause = error.cause,
            reason = %error.fault, "{what}"
        );
    }

    // === sessions ===

    fn session_said(&mut self, message: FromSession, ctx: &mut Context<Self>) {
        if message.epoch != self.epoch {
            return;
        }
        let index = self.threads.iter().position(|thread| thread.number == message.number);
        match message.event {
            SessionEvent::Opened => {
                if let Some(thread) = index.and_then(|index| self.threads.get_mut(index))
                    && !thread.stuck
                {
                    thread.opened = true;
                    self.on(Event::SessionOpened, None, ctx);
                }
            }
            SessionEvent::Evicted { error, served } => {
                tracing::debug!(token = %self.member.token, cause = error.cause, "a session was opened anew");
                let breaks = BackendError {
                    fault: Fault::Unavailable {
                        what: format!("too many of its sessions failed; last: {}", error.fault),
                    },
                    fate: Fate::Reinitialize,
                    cause: error.cause,
                };
                self.on(Event::SessionEvicted { served }, Some(breaks), ctx);
                if !self.health.is_up() {
                    self.member.metrics.breaker_opened();
                }
            }
            SessionEvent::KeyLost(uuid) => self.prove(&uuid, ctx),
            SessionEvent::Short => self.on(Event::Short, None, ctx),
            // Should this be forgotten, since its member goes down: the watchdog of any member looks, too.
            SessionEvent::Rests(due) => {
                let pause = due.saturating_duration_since(Instant::now());
                ctx.run_later(pause, |actor, _| actor.member.pool.lane.nudge());
            }
            SessionEvent::Ended(error) => {
                if let Some(index) = index {
                    self.note_served();
                    let thread = self.threads.swap_remove(index);
                    self.session_ended(&thread, error, ctx);
                }
            }
        }
    }

    fn note_served(&mut self) {
        let served = self.threads.iter().map(|thread| thread.watch.served()).sum();
        self.health.note_served(served);
    }

    fn session_ended(&mut self, thread: &Thread, error: Option<BackendError>, ctx: &mut Context<Self>) {
        if thread.stuck {
            return self.on(Event::StuckEnded, None, ctx);
        }
        // A thread that panicked left its jobs.
        let why = error.as_ref().map_or(Fault::internal("a session ended"), |error| error.fault.clone());
        self.take_back(thread.watch.give_up(), &why);
        let event = match (&error, thread.opened) {
            (None, _) => Event::SessionEnded,
            (Some(error), false) => Event::SessionRefused(error.fate),
            (Some(error), true) if is_wrong_key(error) => Event::WrongSignature,
            (Some(error), true) => Event::SessionLost(error.fate),
        };
        // Of one that is lost is told where that takes the member down: else there may be very many.
        if let (Some(error), Event::SessionRefused(_), false) = (&error, event, self.health.is_full()) {
            tracing::warn!(
                library = self.member.library, token = %self.member.token, worker = self.member.worker, cause = error.cause,
                reason = %error.fault, sessions = self.health.open(), "a session could not be opened"
            );
        }
        self.on(event, error, ctx);
    }

    pub(super) fn publish(&self) {
        let (state, sessions, keys) = (self.health.state(), self.health.open(), self.keys.held());
        self.member.note_untried(self.keys.untried());
        let reason = self.down.clone();
        self.member.publish(|status| {
            status.state = state;
            status.reason = reason;
            status.sessions = sessions;
            status.keys = keys;
        });
        let (opening, stuck) = (self.health.opening(), self.health.stuck());
        let counts = SessionCounts { serving: sessions, opening, stuck };
        self.member.metrics.stands(state, self.refused(), counts, keys);
    }

    fn refused(&self) -> Option<RefusedLabel> {
        match (self.health.state(), &self.down) {
            (MemberState::Refused, Some(Fault::CredentialsRefused { .. })) => Some(RefusedLabel::Pin),
            (MemberState::Refused, Some(Fault::KeyMismatch { .. })) => Some(RefusedLabel::WrongSignature),
            (MemberState::Refused, _) => Some(RefusedLabel::Other),
            _ => None,
        }
    }
}

fn is_wrong_key(error: &BackendError) -> bool {
    matches!(error.fault, Fault::KeyMismatch { .. })
}

/// What an asker of this key is told while its member is down. What befell another key is no business of its own: it may be
/// another namespace's.
pub(super) fn unavailable(spec: &KeySpec, cause: &Fault) -> Fault {
    let reason = match cause {
        Fault::CredentialsRefused { .. } => return cause.clone(),
        Fault::KeyMismatch { key, .. } | Fault::KeyUnavailable { key, .. } if *key == spec.name => {
            return cause.clone();
        }
        Fault::KeyMismatch { .. } => {
            "its token signed with another key than it was to, and serves no more; the daemon's log says which"
                .to_owned()
        }
        Fault::KeyUnavailable { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    Fault::KeyUnavailable { key: spec.name.clone(), reason }
}

impl Actor for SlotActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.publish();
        if self.pin.is_some() {
            self.bring_up(ctx);
        }
        ctx.run_later(self.watch_period(), SlotActor::watch);
    }
}

impl Handler<Adopt> for SlotActor {
    type Result = ();

    fn handle(&mut self, adopt: Adopt, ctx: &mut Self::Context) {
        self.adopt(adopt, ctx);
    }
}

impl Handler<Forget> for SlotActor {
    type Result = ();

    fn handle(&mut self, Forget { uuid, why }: Forget, _: &mut Self::Context) {
        if self.keys.forget(&uuid, &self.member, &why) {
            self.member.pool.lane.sweep();
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
        self.member.pool.lane.begin_epoch(self.member.id, u64::MAX);
        ctx.stop();
    }
}
