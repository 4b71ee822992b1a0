//! The end of a member whose token no managed key names any more, whose keys are served by another's name, or whose library
//! is configured anew: its sessions finish what they have in hand and close, and with the last of them its token logs out. Part
//! of the slot actor.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::health::Event;
use super::slot_actor::SlotActor;
use crate::backend::Fate;
use crate::model::Fault;

/// How often it is looked whether the last session has closed.
const PERIOD: Duration = Duration::from_millis(10);

/// Ends the actor once its token is let go of.
pub(super) struct Leave {
    /// What an asker of its keys is told while nobody else holds them.
    pub(super) why: Fault,
    /// Whether its lane ends with it: what waits there goes where its keys are served now. Else others serve there.
    pub(super) last: bool,
}

impl Message for Leave {
    type Result = ();
}

impl Handler<Leave> for SlotActor {
    type Result = ();

    fn handle(&mut self, Leave { why, last }: Leave, ctx: &mut Self::Context) {
        // Nothing brings it up again.
        self.health.on(Event::StayedDown(Fate::Retire), Instant::now());
        (self.leaving, self.returns) = (true, false);
        self.keys.leave(&self.member, &why);
        self.down = Some(why);
        // Whoever waits for a key here asks anew who may hold it.
        self.waiting.clear();
        self.member.publish(|status| status.state = self.health.state());
        self.epoch = u64::MAX;
        self.member.pool.lane.begin_epoch(self.member.id, self.epoch);
        self.last_device = self.device.take().map(|device| Arc::downgrade(&device)).or(self.last_device.take());
        let (limits, call_sign) = (&self.settings.limits, self.settings.call_sign.unwrap_or(self.traits.call_sign));
        let limit = limits.call_open.max(call_sign);
        let closed = self.control.close(limit);
        ctx.spawn(closed.into_actor(self).map(move |_, actor, ctx| {
            actor.wait_for_sessions(Instant::now() + limit, last, ctx);
        }));
    }
}

impl SlotActor {
    /// Ends when its sessions have; those whose call does not return are given up, and ended with their process if they have
    /// one.
    fn wait_for_sessions(&mut self, until: Instant, last: bool, ctx: &mut Context<Self>) {
        // What its sessions have given back, too.
        if last {
            self.member.pool.hand_on();
        }
        let device = self.last_device.as_ref().and_then(Weak::upgrade);
        if device.is_some() && Instant::now() < until {
            drop(device);
            ctx.run_later(PERIOD, move |actor, ctx| actor.wait_for_sessions(until, last, ctx));
            return;
        }
        if let Some(device) = device {
            tracing::error!(
                library = self.member.library, token = %self.member.token, worker = self.member.worker,
                "a call into a token that is let go of does not return: it is given up"
            );
            device.abort();
        }
        for thread in std::mem::take(&mut self.threads) {
            self.take_back(thread.watch.give_up(), &Fault::Unavailable { what: "its token was let go of".into() });
        }
        let pool = &self.member.pool;
        pool.lane.forget(self.member.id);
        if last {
            pool.close();
        } else {
            // What its sessions gave back may be nobody's now.
            pool.lane.sweep();
        }
        ctx.stop();
    }
}
