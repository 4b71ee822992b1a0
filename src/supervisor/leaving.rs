//! The end of a member whose token no managed key names any more, or whose keys are served by another's name: its sessions
//! finish what they have in hand and close, and with the last of them its token logs out. Part of the slot actor.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::health::Event;
use super::pool::Pool;
use super::slot_actor::SlotActor;
use crate::backend::Fate;
use crate::model::Fault;

/// How often it is looked whether the last session has closed.
const PERIOD: Duration = Duration::from_millis(10);

/// Ends the actor once its token is let go of.
pub(super) struct Leave {
    /// Who has its keys from now on, and so what still waits in its lane.
    pub(super) heir: Option<Arc<Pool>>,
}

impl Message for Leave {
    type Result = ();
}

impl Handler<Leave> for SlotActor {
    type Result = ();

    fn handle(&mut self, Leave { heir }: Leave, ctx: &mut Self::Context) {
        let gone = Fault::Unavailable { what: "no managed key is served by this name of its token any more".into() };
        // Nothing brings it up again.
        self.health.on(Event::StayedDown(Fate::Retire), Instant::now());
        (self.leaving, self.returns) = (true, false);
        self.down = Some(gone.clone());
        self.keys.let_go(&self.member, &gone, false);
        // Whoever waits for a key here asks anew who may hold it.
        self.waiting.clear();
        self.epoch = u64::MAX;
        self.member.pool.lane.begin_epoch(self.member.id, self.epoch);
        self.last_device = self.device.take().map(|device| Arc::downgrade(&device)).or(self.last_device.take());
        let (limits, call_sign) = (&self.settings.limits, self.settings.call_sign.unwrap_or(self.traits.call_sign));
        let limit = limits.call_open.max(call_sign);
        let closed = self.control.close(limit);
        ctx.spawn(closed.into_actor(self).map(move |_, actor, ctx| {
            actor.wait_for_sessions(Instant::now() + limit, heir, ctx);
        }));
    }
}

impl SlotActor {
    /// Ends when its sessions have; those whose call does not return are given up, and ended with their process if they have
    /// one.
    fn wait_for_sessions(&mut self, until: Instant, heir: Option<Arc<Pool>>, ctx: &mut Context<Self>) {
        // What its sessions have given back, too.
        if let Some(heir) = &heir {
            heir.take_over(&self.member.pool);
        }
        let device = self.last_device.as_ref().and_then(Weak::upgrade);
        if device.is_some() && Instant::now() < until {
            drop(device);
            ctx.run_later(PERIOD, move |actor, ctx| actor.wait_for_sessions(until, heir, ctx));
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
        pool.lane.close();
        heir.iter().for_each(|heir| heir.take_over(pool));
        pool.lane.abandon();
        ctx.stop();
    }
}
