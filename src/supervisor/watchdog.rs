//! The watchdog of a member: calls that do not return, devices that are lost before anyone noticed, keys whose next proof is
//! due. Part of the slot actor, which runs it by the clock.

use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;

use super::health::Event;
use super::slot_actor::SlotActor;
use super::watch::Left;
use crate::backend::{BackendError, Fate};
use crate::model::{Fault, MemberState};

/// How often calls in flight are looked at: at least, and at most.
const WATCH_PERIODS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(250));

impl SlotActor {
    /// Often enough that a call is never given up much later than its limit.
    pub(super) fn watch_period(&self) -> Duration {
        let call = self.settings.call_sign.unwrap_or(self.traits.call_sign);
        (call / 8).clamp(WATCH_PERIODS.0, WATCH_PERIODS.1)
    }

    /// Looks at everything once, and again after a while.
    pub(super) fn watch(&mut self, ctx: &mut Context<Self>) {
        let call_sign = self.settings.call_sign.unwrap_or(self.traits.call_sign);
        let mut hanging = Vec::new();
        for thread in self.threads.iter_mut().filter(|thread| !thread.stuck) {
            let limit = if thread.opened { call_sign } else { self.settings.limits.call_open };
            if thread.watch.in_call().is_some_and(|took| took > limit) {
                thread.stuck = true;
                hanging.push((thread.watch.give_up(), thread.opened, limit));
                // Afterwards: should its call return now, it finds itself given up before it finds itself unseated.
                self.member.pool.lane.leave(&thread.seat);
            }
        }
        for (left, opened, limit) in hanging {
            self.give_up_session(left, opened, limit, ctx);
        }
        // Idle sessions have not noticed; and a module is initialised anew only when all have let go of it.
        if self.device.as_ref().is_some_and(|device| device.is_lost()) {
            let what = format!("the library of token {} has lost its state", self.member.token);
            let fault = Fault::Unavailable { what };
            let error = BackendError { fault, fate: Fate::Reinitialize, cause: "library_lost" };
            self.on(Event::LibraryLost, Some(error), ctx);
        }
        // Room that the token had not may be there again.
        if matches!(self.health.state(), MemberState::Degraded | MemberState::Stuck) {
            self.on(Event::Clock, None, ctx);
        }
        self.read_pins_again(ctx);
        self.prove_due(ctx);
        self.member.pool.lane.sweep_if_idle();
        // What rested may be due, and who was left alone may be wanted again: nobody else tells.
        self.member.pool.lane.nudge_if_waiting();
        self.look_whether_short(ctx);
        ctx.run_later(self.watch_period(), SlotActor::watch);
    }

    /// Sessions that are all inside calls do not say that they are too few.
    fn look_whether_short(&mut self, ctx: &mut Context<Self>) {
        if !self.traits.flow_control {
            return;
        }
        let lane = &self.member.pool.lane;
        lane.listen(self.member.id);
        let mut open = self.threads.iter().filter(|thread| thread.opened && !thread.stuck).peekable();
        let seat = open.peek().map(|thread| Arc::clone(&thread.seat));
        if open.all(|thread| thread.watch.in_call().is_some())
            && seat.is_some_and(|seat| lane.is_short(&seat, usize::MAX))
        {
            self.on(Event::Short, None, ctx);
        }
    }

    fn give_up_session(&mut self, left: Left, opened: bool, limit: Duration, ctx: &mut Context<Self>) {
        let what = format!("a call into token {} did not return within {} ms", self.member.token, limit.as_millis());
        let stuck = Fault::DeviceStuck { what };
        tracing::error!(
            library = self.member.library, token = %self.member.token, worker = self.member.worker,
            limit_ms = limit.as_millis(), "a call into the token does not return: its session is given up"
        );
        self.member.metrics.session_stuck();
        self.take_back(left, &stuck);
        // A process can be ended, and the call with it.
        if self.device.as_ref().is_some_and(|device| device.abort()) {
            let error = BackendError { fault: stuck, fate: Fate::Reinitialize, cause: "stuck" };
            return self.on(Event::SessionLost(Fate::Reinitialize), Some(error), ctx);
        }
        self.on(Event::SessionStuck { opened }, None, ctx);
    }

    /// With every thread stuck, its keys are served by others, or by nobody; when a call returns, they are proven anew.
    pub(super) fn note_stuck(&mut self, before: MemberState) {
        let now = self.health.state();
        if now == before || !self.health.is_up() {
            return;
        }
        if now == MemberState::Stuck {
            let what = "every session is inside a call that does not return; restart needed".to_owned();
            let fault = Fault::DeviceStuck { what };
            self.keys.let_go(&self.member, &fault, false);
            self.member.pool.lane.sweep();
            self.down = Some(fault);
        } else if before == MemberState::Stuck {
            self.down = None;
            self.keys.expect(&self.member);
            self.keys.prove_soon();
        }
    }

    /// Jobs of a session that is given up: those that were with the token are tried once more, the others go on as if they
    /// had never been taken.
    pub(super) fn take_back(&self, Left { hung, unstarted }: Left, why: &Fault) {
        let lane = &self.member.pool.lane;
        if !unstarted.is_empty() {
            lane.put_back(unstarted.into_iter());
        }
        for job in hung {
            lane.retry(job, why.clone(), self.member.id);
        }
    }
}
