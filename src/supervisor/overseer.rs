//! The actor that knows every member: it starts slot actors, tells them of their keys, and ends them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;

use super::control::{ControlThread, Reach};
use super::first_use;
use super::leaving::Leave;
use super::pins::{Logins, PinMemory};
use super::pool::{BackOff, Member, Pool};
use super::pools::{Home, Retired};
use super::presence::Presence;
use super::route::{KeySpec, MemberId};
use super::same_token::{Name, Sightings};
use super::slot_actor::{
    Adopt, Forget, HostGone, MemberSettings, Prepare, Reply, SameToken, SlotActor, Stop, unavailable,
};
use super::supervisor::{Library, Shared};
use crate::config::{KmsPool, Limits, NO_POOL};
use crate::model::{Fault, MemberState};
use crate::telemetry::{KeySetFigures, SessionCounts, Telemetry};

/// How often the supervisor looks whether its slot actors live.
const CENSUS_PERIOD: Duration = Duration::from_secs(1);

/// How often a key is looked for in all, where actors end in the middle of it.
const PREPARE_TRIES: u8 = 4;

/// Key sets shown to Prometheus: tenants may register very many keys.
const KEY_SETS_MAX: usize = 2_000;

/// Starts the control thread of a member.
pub(super) type Begin = fn(Reach, Presence) -> Result<ControlThread, Fault>;

/// What it is started with.
pub(super) struct Start {
    pub(super) shared: Arc<Shared>,
    pub(super) libraries: Vec<Library>,
    pub(super) pools: Vec<KmsPool>,
    pub(super) limits: Limits,
    pub(super) pins: Arc<dyn PinMemory>,
    pub(super) telemetry: Telemetry,
}

/// A member whose actor could not be started.
pub(super) struct Unstarted {
    back_off: BackOff,
    next_try: Instant,
    why: Fault,
}

/// What the handle asks.
pub(super) enum ToMember {
    /// The members of configured pools.
    BringUpPools,
    /// A key's first use.
    Prepare(Prepare),
    /// A key is to be served.
    Adopt(Adopt),
    /// A key, by its UUID, is to be served no longer.
    Forget(String),
    /// There are members that were let go of.
    LetGo,
}

impl Message for ToMember {
    type Result = ();
}

/// Ends every member, and the actor.
pub(super) struct StopAll;

/// Asks whether it takes its turns.
pub(super) struct Ping;

impl Message for Ping {
    type Result = ();
}
impl Message for StopAll {
    type Result = ();
}

/// The actor.
pub(super) struct Overseer {
    pub(super) shared: Arc<Shared>,
    address: Addr<Overseer>,
    /// By name, in lower case.
    pub(super) libraries: HashMap<String, Library>,
    pub(super) pools: Vec<KmsPool>,
    pub(super) limits: Limits,
    /// Whether the members of pools are brought up: the store is open.
    pub(super) pools_wanted: bool,
    /// Whether nothing is brought up: the store was closed again.
    pub(super) is_sealed: bool,
    pins: Arc<dyn PinMemory>,
    logins: Arc<Logins>,
    sightings: Arc<Sightings>,
    begin: Begin,
    pub(super) slots: HashMap<MemberId, (Arc<Member>, Addr<SlotActor>)>,
    /// Members whose actors could not be started.
    pub(super) unstarted: HashMap<MemberId, Unstarted>,
    /// What each key's members were told, to tell a new actor of such a member again.
    pub(super) adopted: HashMap<String, Adopt>,
    generations: u64,
    telemetry: Telemetry,
}

impl Overseer {
    /// Starts it on the running actix system.
    pub(super) fn start(start: Start) -> Addr<Overseer> {
        Overseer::start_with(start, ControlThread::start)
    }

    /// The same, with control threads that `begin` starts.
    pub(super) fn start_with(start: Start, begin: Begin) -> Addr<Overseer> {
        let Start { shared, libraries, pools, limits, pins, telemetry } = start;
        Overseer::create(|ctx| Overseer {
            shared,
            address: ctx.address(),
            libraries: libraries.into_iter().map(|library| (library.name.to_lowercase(), library)).collect(),
            pools,
            limits,
            pools_wanted: false,
            is_sealed: false,
            pins,
            logins: Arc::default(),
            sightings: Arc::default(),
            begin,
            slots: HashMap::new(),
            unstarted: HashMap::new(),
            adopted: HashMap::new(),
            generations: 0,
            telemetry,
        })
    }

    /// The actor of a member; made from the library's settings if there is none that lives. Where that failed a short time
    /// ago, it says so.
    fn slot(&mut self, member: &Arc<Member>) -> Result<Addr<SlotActor>, Fault> {
        if self.is_sealed {
            return Err(Fault::Sealed);
        }
        let known = self.slots.get(&member.id);
        if let Some((_, address)) = known.filter(|(_, address)| address.connected()) {
            return Ok(address.clone());
        }
        let failed = self.unstarted.get(&member.id);
        if let Some(unstarted) = failed.filter(|unstarted| Instant::now() < unstarted.next_try) {
            return Err(unstarted.why.clone());
        }
        // One that comes late was not told of its keys when they came.
        let late = known.is_some() || failed.is_some();
        let address = match self.start_slot(member) {
            Ok(address) => address,
            Err(fault) => return Err(self.note_unstarted(member, fault)),
        };
        self.unstarted.remove(&member.id);
        if late {
            let keys = self.adopted.values().filter(|adopt| self.may_hold(adopt, member));
            keys.for_each(|adopt| {
                adopt.route.expect_holder(member.id);
                address.do_send(adopt.clone());
            });
        }
        self.slots.insert(member.id, (Arc::clone(member), address.clone()));
        Ok(address)
    }

    fn start_slot(&mut self, member: &Arc<Member>) -> Result<Addr<SlotActor>, Fault> {
        let Some(library) = self.libraries.get(&member.library) else {
            let what = format!(
                "there is no kms_library {:?} in the configuration; add it and reload it (SIGHUP)",
                member.library
            );
            return Err(Fault::Unavailable { what });
        };
        let reach = Reach {
            backend: Arc::clone(&library.backend),
            name: Name::of(member),
            process: member.process,
            pins: Arc::clone(&self.pins),
            logins: Arc::clone(&self.logins),
            sightings: Arc::clone(&self.sightings),
            guarded: Arc::clone(&self.shared.guarded),
            final_pin_try: library.final_pin_try,
            metrics: Arc::clone(&member.metrics),
            before: member.before.clone(),
            coming_up: Arc::clone(&member.coming_up),
            // The rest of the limit is left for the token itself.
            wait: self.limits.call_open / 2,
        };
        let control = (self.begin)(reach, member.presence.clone())?;
        let settings = MemberSettings {
            call_sign: library.call_sign,
            keep_alive: library.keep_alive,
            verify: library.verify,
            workers: if library.isolated { library.workers } else { 1 },
            has_login: library.backend.has_login(),
            limits: self.limits.clone(),
        };
        if member.computing.is_here() {
            // The next census may be too late for its first signatures.
            self.shared.pools.pace.set_yields(true);
        }
        // Each actor of a member counts its epochs from above those of the one before.
        self.generations += 1;
        let first_epoch = self.generations << 32;
        let (routes, overseer) = (Arc::clone(&self.shared.routes), self.address.clone().recipient());
        Ok(SlotActor::new(Arc::clone(member), settings, control, routes, overseer, first_epoch).start())
    }

    /// Has a member that could not be started tried again, after a pause that grows.
    fn note_unstarted(&mut self, member: &Member, fault: Fault) -> Fault {
        let why = Fault::Unavailable { what: format!("the member cannot be started: {fault}; it is tried again") };
        let (min, max) = (self.limits.probe_min, self.limits.probe_max);
        let unstarted = self.unstarted.entry(member.id).or_insert_with(|| Unstarted {
            back_off: BackOff::new(min, max),
            next_try: Instant::now(),
            why: why.clone(),
        });
        unstarted.next_try = Instant::now() + unstarted.back_off.pause();
        unstarted.why = why.clone();
        tracing::error!(library = member.library, token = %member.token, worker = member.worker, reason = %why, "member is down");
        member.publish(|status| {
            status.state = MemberState::BackingOff;
            status.reason = Some(why.clone());
        });
        member.metrics.stands(MemberState::BackingOff, None, SessionCounts::default(), 0);
        for Adopt { spec, route } in self.adopted.values().filter(|adopt| adopt.route.awaits(member.id)) {
            route.remove_holder(member.id, &unavailable(spec, &why));
        }
        member.pool.lane.sweep();
        why
    }

    pub(super) fn bring_up_pools(&mut self) {
        (self.pools_wanted, self.is_sealed) = (true, false);
        for member in self.shared.pools.members() {
            // One that cannot be started is noted, and the others go on.
            let _ = self.slot(&member);
        }
    }

    /// Those that may hold a key.
    fn candidates(&mut self, spec: &KeySpec) -> Result<Vec<first_use::Candidate>, Fault> {
        let (_, members) = self.shared.home(spec)?;
        let candidate = |member: Arc<Member>| first_use::Candidate { address: self.slot(&member), member };
        Ok(members.into_iter().map(candidate).collect())
    }

    fn prepare(&mut self, spec: KeySpec, reply: Reply, tries: u8, ctx: &mut Context<Self>) {
        match self.candidates(&spec) {
            Err(fault) => {
                let _ = reply.send(Err(fault));
            }
            Ok(candidates) => {
                let prepared = first_use::prepare(candidates, spec, reply);
                ctx.spawn(prepared.into_actor(self).map(move |handed_back, actor, ctx| {
                    let Some(Prepare { spec, reply }) = handed_back else { return };
                    if tries < PREPARE_TRIES {
                        actor.prepare(spec, reply, tries + 1, ctx);
                    } else {
                        let what = "the actors of its token end again and again; look at the log".into();
                        let _ = reply.send(Err(Fault::Unavailable { what }));
                    }
                }));
            }
        }
    }

    pub(super) fn adopt(&mut self, mut adopt: Adopt) {
        if self.is_sealed {
            return adopt.route.nobody_holds_any_more(Fault::Sealed);
        }
        // Its token may have been found to have another name meanwhile, or its library may be gone.
        match self.shared.home(&adopt.spec) {
            Ok((pool, members)) => {
                let proving = || members.iter().filter(|member| member.may_prove()).map(|member| member.id);
                adopt.route = self.shared.routes.lead_to(&adopt.spec, &adopt.route, &pool, proving());
                let is_awaited = adopt.route.absence().is_none();
                // A member may have gone for good since the key's first jobs began to wait for it: they wait for the others.
                adopt.route.expect_only(|member| members.iter().any(|known| known.id == member));
                if is_awaited && adopt.route.absence().is_some() {
                    proving().for_each(|member| adopt.route.expect_holder(member));
                }
            }
            Err(fault) => adopt.route.nobody_holds_any_more(fault),
        }
        self.adopted.insert(adopt.spec.uuid.clone(), adopt.clone());
        // Of a key without candidates was told when it came.
        for candidate in self.candidates(&adopt.spec).unwrap_or_default() {
            match candidate.address {
                Ok(address) => address.do_send(adopt.clone()),
                Err(fault) => adopt.route.remove_holder(candidate.member.id, &unavailable(&adopt.spec, &fault)),
            }
        }
        // Jobs that came meanwhile may wait for nobody.
        if adopt.route.absence().is_some() {
            adopt.route.lane().sweep();
        }
    }

    /// No member serves this key any more. One that only prepared it knows it too, though it was never adopted.
    pub(super) fn have_forgotten(&self, uuid: &str, why: &Fault) {
        let forget = || Forget { uuid: uuid.to_owned(), why: why.clone() };
        self.slots.values().for_each(|(_, address)| address.do_send(forget()));
    }

    /// Ends the members of tokens that no managed key names any more, and of those whose keys another name's members have.
    pub(super) fn let_go(&mut self) {
        for Retired { home: (pool, members), heir } in self.shared.pools.retired() {
            match &heir {
                None => {
                    if !self.is_sealed {
                        tracing::info!(pool = pool.name, "the last managed key of a token is gone: it is let go of");
                    }
                    // Nothing is left for it to do: no key leads here.
                    pool.close();
                }
                Some(heir) => self.hand_over(&pool, &members, heir),
            }
            let what = "no managed key is served by this name of its token any more".to_owned();
            let why = Fault::Unavailable { what };
            for member in members {
                self.unstarted.remove(&member.id);
                if let Some((_, address)) = self.slots.remove(&member.id) {
                    address.do_send(Leave { why: why.clone(), last: true });
                }
            }
        }
    }

    /// Leads the keys of a token to the members that serve it by another name, with what waits for them.
    fn hand_over(&mut self, from: &Arc<Pool>, members: &[Arc<Member>], (heir, hosts): &Home) {
        let keys: Vec<Adopt> = self.adopted.values().filter(|key| key.route.leads_to(&from.lane)).cloned().collect();
        if let (Some(guest), Some(host)) = (members.first(), hosts.first()) {
            tracing::warn!(
                library = guest.library, token = %guest.token, same = %host.token, serial = host.status().serial,
                pool = heir.name, keys = keys.len(),
                "one token has two names: the managed keys that name it by the first are served by the second from now on; \
                 write the second in them"
            );
        }
        keys.into_iter().for_each(|key| self.adopt(key));
        from.hand_on();
    }

    /// Two names lead to one token.
    fn join(&mut self, SameToken { guest, host }: SameToken) {
        if self.shared.pools.join(guest, host) {
            self.let_go();
        } else {
            let waiting = self.slots.values().filter(|(member, _)| member.kin == guest);
            waiting.for_each(|(_, address)| address.do_send(HostGone));
        }
    }

    /// Makes the actors anew that ended without being told to, and those that could not be started.
    fn census(&mut self, _: &mut Context<Self>) {
        for member in self.shared.pools.members() {
            let ended = self.slots.get(&member.id).is_some_and(|(_, address)| !address.connected());
            if ended && !self.unstarted.contains_key(&member.id) {
                let (library, token) = (&member.library, &member.token);
                tracing::error!(library, %token, "a slot actor ended by itself: starting another");
            }
            if ended || self.unstarted.contains_key(&member.id) {
                // One that cannot be started is noted.
                let _ = self.slot(&member);
            }
        }
        self.shared.pools.keep_pace_by_the_clock();
        for pool in self.shared.pools.all() {
            pool.observe();
            // Where there is no member, nobody else looks: of a library that is gone, a job may come just behind the news.
            pool.lane.sweep_if_idle();
        }
        let mut sets: Vec<&Adopt> = self.adopted.values().collect();
        if sets.len() > KEY_SETS_MAX {
            // Those that nobody holds are what somebody looks for.
            let (mut lacking, held): (Vec<_>, Vec<_>) = sets.into_iter().partition(|adopt| adopt.route.holders() == 0);
            lacking.truncate(KEY_SETS_MAX);
            let left = KEY_SETS_MAX - lacking.len();
            lacking.extend(held.into_iter().take(left));
            sets = lacking;
        }
        self.telemetry.key_sets(sets.into_iter().map(|adopt| self.key_set(adopt)).collect());
    }

    /// How many members a key has, and how many of them hold it.
    fn key_set(&self, Adopt { spec, route }: &Adopt) -> KeySetFigures {
        let home = self.shared.home(spec);
        let (pool, members) = home.map_or((NO_POOL.to_owned(), 0), |(pool, of)| (pool.name.clone(), of.len()));
        let (namespace, key) = (spec.namespace.to_string(), spec.name.clone());
        KeySetFigures { pool, namespace, key, members, holders: route.holders() }
    }

    fn may_hold(&self, adopt: &Adopt, member: &Arc<Member>) -> bool {
        let found = self.shared.home(&adopt.spec);
        found.is_ok_and(|(_, members)| members.iter().any(|candidate| candidate.id == member.id))
    }
}

impl Actor for Overseer {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(CENSUS_PERIOD, Overseer::census);
    }
}

impl Handler<ToMember> for Overseer {
    type Result = ();

    fn handle(&mut self, message: ToMember, ctx: &mut Self::Context) {
        match message {
            ToMember::BringUpPools => self.bring_up_pools(),
            ToMember::Prepare(Prepare { spec, reply }) => self.prepare(spec, reply, 1, ctx),
            ToMember::Adopt(adopt) => self.adopt(adopt),
            ToMember::Forget(uuid) => {
                self.adopted.remove(&uuid);
                let why = Fault::NotFound { what: format!("no managed key found with uuid {uuid}") };
                self.have_forgotten(&uuid, &why);
            }
            ToMember::LetGo => self.let_go(),
        }
    }
}

impl Handler<Ping> for Overseer {
    type Result = ();

    fn handle(&mut self, _: Ping, _: &mut Self::Context) {}
}

impl Handler<SameToken> for Overseer {
    type Result = ();

    fn handle(&mut self, same: SameToken, _: &mut Self::Context) {
        self.join(same);
    }
}

impl Handler<StopAll> for Overseer {
    type Result = ();

    fn handle(&mut self, _: StopAll, ctx: &mut Self::Context) {
        self.slots.drain().for_each(|(_, (_, address))| address.do_send(Stop));
        ctx.stop();
    }
}
