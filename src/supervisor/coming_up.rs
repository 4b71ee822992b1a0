//! How a member comes up: with which PIN, and who waits for it. Part of the slot actor.

use std::collections::HashSet;
use std::sync::Weak;
use std::time::Instant;

use actix::prelude::*;

use super::control::{BroughtUp, Opened};
use super::health::Event;
use super::pool::{SESSIONS_AT_REST, sessions_of_profile};
use super::route::{KeySpec, MemberId};
use super::slot_actor::{HostGone, Prepare, Reply, SameToken, SlotActor, unavailable};
use crate::backend::{BackendError, Fate};
use crate::config::Pin;
use crate::model::{Fault, MemberState};

/// Askers that may wait for a token to come up.
const WAITING_MAX: usize = 1024;

impl SlotActor {
    /// Starts bringing the token up, unless that is going on. The PINs of its keys are used where no stanza gives one.
    pub(super) fn bring_up(&mut self, ctx: &mut Context<Self>) {
        if self.bringing_up || self.leaving || self.health.is_up() {
            return;
        }
        let pins = self.pins();
        if pins.is_empty() && self.settings.has_login {
            let what = format!(
                "no PIN for token {}: give kms_library {:?} a pin, or the managed key",
                self.member.token, self.member.library
            );
            let error = BackendError::new(Fate::Retire, Fault::CredentialsRefused { what });
            return self.on(Event::StayedDown(Fate::Retire), Some(error), ctx);
        }
        self.bringing_up = true;
        let relogin = std::mem::take(&mut self.login_lost);
        let limit = self.settings.limits.call_open;
        let cause = self.down_cause;
        let offered = pins.clone();
        let brought_up = self.control.run(limit, move |control| control.bring_up(&pins, relogin, cause));
        ctx.spawn(brought_up.into_actor(self).map(move |result, actor, ctx| {
            actor.bringing_up = false;
            if actor.leaving {
                return;
            }
            let result = result.unwrap_or_else(|fault| {
                // The control thread hangs in a call into the device before; a process can be ended, and the call with it.
                if let Some(device) = actor.last_device.as_ref().and_then(Weak::upgrade) {
                    device.abort();
                }
                Err(BackendError::new(Fate::BackOff, fault))
            });
            actor.member.metrics.brought_up(cause, result.is_ok());
            match result {
                Ok(BroughtUp::Up(opened)) => actor.come_up(opened, ctx),
                Ok(BroughtUp::Known(host)) => actor.join(host),
                // A key has brought another meanwhile.
                Err(error) if actor.control.is_gone() => {
                    actor.on(Event::StayedDown(error.fate), Some(error), ctx);
                    // The supervisor makes another, with a thread of its own.
                    ctx.stop();
                }
                Err(error) if is_refused(&error.fault) && actor.has_other_pins(&offered) => actor.bring_up(ctx),
                Err(error) => actor.on(Event::StayedDown(error.fate), Some(error), ctx),
            }
        }));
    }

    /// The PINs that may be its token's, each once: the stanza's; else the one that it took last, and those of its keys.
    fn pins(&self) -> Vec<Pin> {
        if let Some(pin) = &self.member.pin {
            return vec![pin.clone().into()];
        }
        let waiting = self.waiting.iter().filter_map(|(spec, _)| spec.pin.as_ref());
        let mut seen = HashSet::new();
        let all = self.pin.iter().chain(waiting).chain(self.keys.pins());
        all.filter(|pin| seen.insert(pin.key())).cloned().collect()
    }

    fn has_other_pins(&self, offered: &[Pin]) -> bool {
        let offered: HashSet<_> = offered.iter().map(Pin::key).collect();
        self.pins().iter().any(|pin| !offered.contains(&pin.key()))
    }

    /// Whether a token that refused what it was given is to be given something else: what a key's PIN refers to may have
    /// changed. Looked at by the clock, where that is so.
    pub(super) fn read_pins_again(&mut self, ctx: &mut Context<Self>) {
        let paused = self.pins_read.elapsed() < self.settings.limits.probe_max;
        if paused || self.bringing_up || !self.wants_pin() || self.health.state() != MemberState::Refused {
            return;
        }
        self.pins_read = Instant::now();
        let pins = self.pins();
        if pins.iter().all(|pin| pin.reference().is_none()) {
            return;
        }
        let limit = self.settings.limits.call_open;
        let changed = self.control.run(limit, move |control| control.has_other_pins(&pins));
        ctx.spawn(changed.into_actor(self).map(|changed, actor, ctx| {
            if changed == Ok(true) && actor.wants_pin() {
                let step = actor.health.on(Event::NewPin, Instant::now());
                actor.follow(step, None, ctx);
                actor.publish();
            }
        }));
    }

    /// A key has brought a PIN. If the token lacks one, or refused what it was given, it is brought up with it.
    pub(super) fn note_pin(&mut self, pin: Option<&Pin>, ctx: &mut Context<Self>) {
        if pin.is_some() && self.member.pin.is_none() && self.wants_pin() {
            let step = self.health.on(Event::NewPin, Instant::now());
            self.follow(step, None, ctx);
            self.publish();
        }
    }

    /// Others serve its token by another name. Until its keys are theirs, it does nothing more.
    fn join(&mut self, host: MemberId) {
        self.bringing_up = true;
        // A supervisor that is gone has stopped everyone.
        self.supervisor.do_send(SameToken { guest: self.member.kin, host });
    }

    fn come_up(&mut self, Opened { device, info, pin, guest }: Opened, ctx: &mut Context<Self>) {
        self.epoch += 1;
        self.member.pool.lane.begin_epoch(self.member.id, self.epoch);
        self.device = Some(device);
        self.pin = pin;
        self.down = None;
        self.returns = false;
        self.traits = info.profile.traits();
        self.member.publish(|status| status.serial = Some(info.token.serial.clone()));
        let wanted =
            self.member.sessions.unwrap_or_else(|| sessions_of_profile(self.traits.sessions, self.settings.workers));
        // The control session takes one of those the token allows.
        let allowed = info.max_sessions.map_or(usize::MAX, |most| most.saturating_sub(1).max(1));
        let sessions = wanted.min(allowed);
        let (library, token, serial) = (&self.member.library, &self.member.token, &info.token.serial);
        if self.settings.has_login {
            tracing::info!(
                library, %token, worker = self.member.worker, serial, profile = self.traits.name, sessions,
                "token is up and logged in"
            );
        } else {
            tracing::info!(library, key = %token, calls = sessions, "key in a cloud is served");
        }
        // A session that waits for nothing but leave costs a thread all the same: those are opened when there is work.
        let at_rest = if self.traits.flow_control { sessions.min(SESSIONS_AT_REST) } else { sessions };
        self.on(Event::CameUp { sessions: at_rest, most: sessions }, None, ctx);
        if !self.is_ready() {
            return;
        }
        self.prove_all(ctx);
        if let Some(guest) = guest {
            self.supervisor.do_send(SameToken { guest, host: self.member.kin });
        }
        for (spec, reply) in std::mem::take(&mut self.waiting) {
            self.prepare(spec, reply, ctx);
        }
    }

    /// Whether keys can be found and proven on it now.
    pub(super) fn is_ready(&self) -> bool {
        self.health.is_up() && self.health.state() != MemberState::Stuck
    }

    /// Whether the PIN of a key is of use to it: it has none, or the one it has was refused. One that is down for another
    /// reason keeps the PIN it served with, and one whose signatures were wrong is not brought back by any.
    fn wants_pin(&self) -> bool {
        let refused = self.health.state() == MemberState::Refused;
        let by_its_pin = refused && self.down.as_ref().is_some_and(is_refused);
        !self.leaving && (self.pin.is_none() || by_its_pin)
    }

    /// Whether it is brought up just now, and there is room for one more to wait for that.
    fn is_coming(&self) -> bool {
        (self.health.state() == MemberState::Probing || self.returns) && self.waiting.len() <= WAITING_MAX
    }

    /// Has a key looked for once more that was being looked for when the member went down: now, or when it is up.
    pub(super) fn prepare_again(&mut self, spec: KeySpec, reply: Reply, fault: Fault, ctx: &mut Context<Self>) {
        if self.leaving {
            // Whoever asked asks who is there now.
            drop(reply);
        } else if self.is_ready() {
            self.prepare(spec, reply, ctx);
        } else if self.is_coming() {
            self.waiting.push((spec, reply));
        } else {
            let _ = reply.send(Err(fault));
        }
    }
}

impl Handler<Prepare> for SlotActor {
    type Result = ();

    fn handle(&mut self, Prepare { spec, reply }: Prepare, ctx: &mut Self::Context) {
        if self.is_ready() {
            return self.prepare(spec, reply, ctx);
        }
        // So that its PIN is among those tried.
        let pin = spec.pin.clone();
        self.waiting.push((spec, reply));
        self.note_pin(pin.as_ref(), ctx);
        if self.is_coming() {
            if self.health.state() == MemberState::Probing {
                self.bring_up(ctx);
            }
        } else if let Some((spec, reply)) = self.waiting.pop() {
            let why = self.down.clone().unwrap_or(Fault::Unavailable { what: "the token is not up".into() });
            let _ = reply.send(Err(unavailable(&spec, &why)));
        }
    }
}

/// Whether it is down for the PINs it was given.
fn is_refused(why: &Fault) -> bool {
    matches!(why, Fault::CredentialsRefused { .. })
}

impl Handler<HostGone> for SlotActor {
    type Result = ();

    fn handle(&mut self, _: HostGone, ctx: &mut Self::Context) {
        self.bringing_up = false;
        self.bring_up(ctx);
    }
}
