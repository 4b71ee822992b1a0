//! The actor that knows every member, and the handle the rest of the daemon holds of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::control::{ControlThread, Reach};
use super::first_use;
use super::leaving::Leave;
use super::pins::{Logins, PinMemory};
use super::pool::{Member, NOWHERE, Pool};
use super::pools::{Home, Pools, Retired};
use super::route::{KeyRoute, KeySpec, MemberId, PreparedKey, Routes};
use super::same_token::{Name, Sightings};
use super::slot_actor::{Adopt, Forget, HostGone, MemberSettings, Prepare, Reply, SameToken, SlotActor, Stop};
use crate::backend::Backend;
use crate::config::{KmsPool, Limits, NamespaceSettings, VerifyAfterSign};
use crate::model::{Deadline, Fault, PublicKey, Secret, TokenSelector};
use crate::telemetry::{KeySetFigures, Telemetry};

/// How often the supervisor looks whether its slot actors live.
const CENSUS_PERIOD: Duration = Duration::from_secs(1);

/// How often a key is looked for in all, where actors end in the middle of it.
const PREPARE_TRIES: u8 = 4;

/// Key sets shown to Prometheus: tenants may register very many keys.
const KEY_SETS_MAX: usize = 2_000;

/// One KMS library, as configured.
pub struct Library {
    /// Its name.
    pub name: String,
    /// How its tokens are reached.
    pub backend: Arc<dyn Backend>,
    /// The PIN of its tokens, if it is given here.
    pub pin: Option<Secret>,
    /// Sessions per token; `None` takes the profile's default.
    pub sessions: Option<usize>,
    /// Limit of one signature; `None` takes the profile's default.
    pub call_sign: Option<Duration>,
    /// Time without work after which a session exercises a key, zero for never; `None` takes the profile's default.
    pub keep_alive: Option<Duration>,
    /// Which signatures are verified before they leave.
    pub verify: VerifyAfterSign,
    /// Worker processes of each token.
    pub workers: usize,
    /// Whether each device the backend opens is a process of its own.
    pub isolated: bool,
    /// Whether its tokens compute on this host's own cores.
    pub computes_here: bool,
    /// Whether to log in even where a token says that it allows one last try before it locks.
    pub final_pin_try: bool,
}

/// What others may know of a library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LibraryInfo {
    /// Its name, as configured.
    pub name: String,
    /// Whether it carries a PIN, so that keys may leave theirs out.
    pub has_pin: bool,
    /// Whether it is a pool, whose members name their tokens themselves.
    pub is_pool: bool,
}

/// The supervisor, as the rest of the daemon holds it. Cheap to clone.
#[derive(Clone)]
pub struct Supervisor {
    pub(super) shared: Arc<Shared>,
    address: Addr<SupervisorActor>,
}

pub(super) struct Shared {
    pub(super) pools: Pools,
    routes: Arc<Routes>,
    libraries: Vec<LibraryInfo>,
    tokens_per_namespace: usize,
}

/// What a supervisor supervises.
pub struct Plan {
    /// The libraries.
    pub libraries: Vec<Library>,
    /// Tokens that hold copies of the same keys.
    pub pools: Vec<KmsPool>,
    /// The weights of namespaces; others have 1.
    pub namespaces: Vec<NamespaceSettings>,
    /// Every bound.
    pub limits: Limits,
}

impl Supervisor {
    /// Starts it on the running actix system.
    pub fn start(plan: Plan, pins: Arc<dyn PinMemory>, telemetry: Telemetry) -> Supervisor {
        let Plan { libraries, pools, namespaces, limits } = plan;
        let library = |library: &Library| {
            let (name, has_pin) = (library.name.clone(), library.pin.is_some());
            LibraryInfo { name, has_pin, is_pool: false }
        };
        let pool = |pool: &KmsPool| LibraryInfo { name: pool.name.clone(), has_pin: true, is_pool: true };
        let shared = Arc::new(Shared {
            pools: Pools::new(&libraries, &pools, &namespaces, &limits, &telemetry),
            routes: Arc::default(),
            libraries: libraries.iter().map(library).chain(pools.iter().map(pool)).collect(),
            tokens_per_namespace: limits.tokens_per_namespace,
        });
        let this = Arc::clone(&shared);
        let address = SupervisorActor::create(|ctx| SupervisorActor {
            shared: this,
            address: ctx.address(),
            libraries: libraries.into_iter().map(|library| (library.name.to_lowercase(), library)).collect(),
            limits,
            pins,
            logins: Arc::default(),
            sightings: Arc::default(),
            slots: HashMap::new(),
            adopted: HashMap::new(),
            generations: 0,
            telemetry,
        });
        Supervisor { shared, address }
    }

    /// The libraries and pools configured.
    pub fn libraries(&self) -> &[LibraryInfo] {
        &self.shared.libraries
    }

    /// Brings up the members of configured pools, whether a key needs them yet or not: so a dead one is seen before. Not
    /// before the store is open, since it remembers refused PINs.
    pub fn bring_up_pools(&self) {
        self.address.do_send(ToMember::BringUpPools);
    }

    /// Tokens that the managed keys of one namespace may name beside those that the configuration names.
    pub fn tokens_per_namespace(&self) -> usize {
        self.shared.tokens_per_namespace
    }

    /// Whether the configuration names this token of a library, as a member of a pool.
    pub fn is_configured(&self, library: &str, token: &TokenSelector) -> bool {
        self.shared.pools.is_configured(library, token)
    }

    /// Finds a key on the members that may hold it, or generates it on one of them where that is allowed, and has it proven.
    /// From then on it is served. [`Fault::NotFound`] means that every member serves, and none holds such a key. Its token
    /// is in use until [`Supervisor::release`].
    pub async fn prepare(&self, spec: KeySpec, deadline: Deadline) -> Result<PreparedKey, Fault> {
        self.name_token(&spec)?;
        let (reply, answer) = oneshot::channel();
        self.address.do_send(ToMember::Prepare(Prepare { spec, reply }));
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::Unavailable { what: "the supervisor dropped the request; try again".into() }),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "waiting for the token" }),
        }
    }

    /// Registers a key whose public half is known: its route, which members join once they have proven to hold it.
    /// Called again for the same key, it changes the key's settings. Its token is in use until [`Supervisor::release`].
    pub fn adopt(&self, spec: KeySpec, public: &PublicKey) -> Arc<KeyRoute> {
        let found = self.name_token(&spec);
        let pool = found.as_ref().map_or_else(|_| self.shared.pools.nowhere(), |(pool, _)| pool);
        let route = self.shared.routes.get_or_make(&spec, public, pool);
        match found {
            Ok(_) => {}
            Err(fault) => {
                tracing::error!(key = spec.name, namespace = %spec.namespace, %fault, "managed key is not served");
                route.nobody_holds(fault);
            }
        }
        // One that nobody can hold is still seen in the metrics.
        self.address.do_send(ToMember::Adopt(Adopt { spec, route: Arc::clone(&route) }));
        route
    }

    /// Serves a key no longer.
    pub fn forget(&self, uuid: &str) {
        self.shared.routes.remove(uuid);
        self.address.do_send(ToMember::Forget(uuid.to_owned()));
    }

    /// The same, and the managed key needs its token no longer: it was deleted. The last key that
    /// leaves a token which the configuration does not name takes it along: its sessions close, and it logs out.
    pub fn release(&self, uuid: &str) {
        self.forget(uuid);
        self.shared.pools.release(uuid);
        self.let_go();
    }

    /// The managed key names another token than this now.
    pub fn leave_token(&self, uuid: &str, library: &str, token: Option<&TokenSelector>) {
        self.shared.pools.leave(uuid, library, token);
        self.let_go();
    }

    /// The pool and members of a key's token, which is in use from now on.
    fn name_token(&self, spec: &KeySpec) -> Result<Home, Fault> {
        let home = self.shared.pools.name(&spec.uuid, &spec.library, spec.token.as_ref());
        self.let_go();
        home
    }

    fn let_go(&self) {
        if self.shared.pools.has_retired() {
            self.address.do_send(ToMember::LetGo);
        }
    }

    /// Waits until every member serves its keys or has failed its first try, `limit` at the longest: so that the first
    /// requests after a start find their keys ready.
    pub async fn settle(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.shared.pools.members().iter().all(|member| member.is_settled()) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets the lanes run empty, `limit` at the longest, and ends every session. Answers how many jobs were cut off.
    pub async fn shut_down(&self, limit: Duration) -> usize {
        let pools = self.shared.pools.all();
        pools.iter().for_each(|pool| pool.lane.close());
        let depth = || pools.iter().map(|pool| pool.lane.depth()).sum::<usize>();
        let end = Instant::now() + limit;
        while depth() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut = depth();
        pools.iter().for_each(|pool| pool.lane.abandon());
        // A supervisor that is gone has nothing left to stop.
        let _ = self.address.send(StopAll).await;
        cut
    }
}

enum ToMember {
    BringUpPools,
    Prepare(Prepare),
    Adopt(Adopt),
    Forget(String),
    LetGo,
}

impl Message for ToMember {
    type Result = ();
}

struct StopAll;

impl Message for StopAll {
    type Result = ();
}

struct SupervisorActor {
    shared: Arc<Shared>,
    address: Addr<SupervisorActor>,
    libraries: HashMap<String, Library>,
    limits: Limits,
    pins: Arc<dyn PinMemory>,
    logins: Arc<Logins>,
    sightings: Arc<Sightings>,
    slots: HashMap<MemberId, (Arc<Member>, Addr<SlotActor>)>,
    /// What each key's members were told, to tell a new actor of such a member again.
    adopted: HashMap<String, Adopt>,
    generations: u64,
    telemetry: Telemetry,
}

impl SupervisorActor {
    /// The actor of a member; made from the library's settings if there is none that lives.
    fn slot(&mut self, member: &Arc<Member>) -> Result<Addr<SlotActor>, Fault> {
        if let Some((_, address)) = self.slots.get(&member.id).filter(|(_, address)| address.connected()) {
            return Ok(address.clone());
        }
        let Some(library) = self.libraries.get(&member.library) else {
            let what = format!("there is no kms_library {:?} in the configuration; add it and restart", member.library);
            return Err(Fault::Unavailable { what });
        };
        let reach = Reach {
            backend: Arc::clone(&library.backend),
            name: Name::of(member),
            process: if library.isolated { member.id.0 } else { 0 },
            pins: Arc::clone(&self.pins),
            logins: Arc::clone(&self.logins),
            sightings: Arc::clone(&self.sightings),
            final_pin_try: library.final_pin_try,
            metrics: Arc::clone(&member.metrics),
            before: member.before.clone(),
            // The rest of the limit is left for the token itself.
            wait: self.limits.call_open / 2,
        };
        let control = ControlThread::start(reach, member.presence.clone())?;
        let settings = MemberSettings {
            call_sign: library.call_sign,
            keep_alive: library.keep_alive,
            verify: library.verify,
            workers: if library.isolated { library.workers } else { 1 },
            limits: self.limits.clone(),
        };
        // Each actor of a member counts its epochs from above those of the one before.
        self.generations += 1;
        let first_epoch = self.generations << 32;
        let routes = Arc::clone(&self.shared.routes);
        let actor = SlotActor::new(
            Arc::clone(member),
            settings,
            control,
            routes,
            self.address.clone().recipient(),
            first_epoch,
        );
        let address = actor.start();
        self.slots.insert(member.id, (Arc::clone(member), address.clone()));
        Ok(address)
    }

    fn bring_up_pools(&mut self) {
        for member in self.shared.pools.members() {
            if let Err(fault) = self.slot(&member) {
                tracing::error!(library = member.library, token = %member.token, %fault, "member cannot be started");
            }
        }
    }

    /// The actors of those that may hold a key.
    fn candidates(&mut self, spec: &KeySpec) -> Result<Vec<first_use::Candidate>, Fault> {
        let (_, members) = self.shared.pools.find(&spec.library, spec.token.as_ref())?;
        let candidate = |member: &Arc<Member>| {
            let address = self.slot(member)?;
            Ok(first_use::Candidate { member: Arc::clone(member), address })
        };
        members.iter().map(candidate).collect()
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

    fn adopt(&mut self, mut adopt: Adopt) {
        // Its token may have been found to have another name meanwhile.
        if let Ok((pool, members)) = self.shared.pools.find(&adopt.spec.library, adopt.spec.token.as_ref()) {
            let up = members.iter().filter(|member| member.is_up()).map(|member| member.id);
            adopt.route = self.shared.routes.lead_to(&adopt.spec, &adopt.route, &pool, up);
        }
        self.adopted.insert(adopt.spec.uuid.clone(), adopt.clone());
        // Of a key without candidates was told when it came.
        for candidate in self.candidates(&adopt.spec).unwrap_or_default() {
            candidate.address.do_send(adopt.clone());
        }
    }

    /// Ends the members of tokens that no managed key names any more, and of those whose keys another name's members have.
    fn let_go(&mut self) {
        for Retired { home: (pool, members), heir } in self.shared.pools.retired() {
            match &heir {
                None => {
                    tracing::info!(pool = pool.name, "the last managed key of a token is gone: it is let go of");
                    // Nothing is left for it to do: no key leads here.
                    pool.lane.close();
                    pool.lane.abandon();
                }
                Some(heir) => self.hand_over(&pool, &members, heir),
            }
            let heir = heir.map(|(pool, _)| pool);
            for member in members {
                if let Some((_, address)) = self.slots.remove(&member.id) {
                    address.do_send(Leave { heir: heir.clone() });
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
        heir.take_over(from);
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

    /// Makes anew the actors that ended without being told to, and tells them of their keys.
    fn census(&mut self, _: &mut Context<Self>) {
        let ended = self.slots.values().filter(|(_, address)| !address.connected());
        let gone: Vec<Arc<Member>> = ended.map(|(member, _)| Arc::clone(member)).collect();
        for member in gone {
            let (library, token) = (&member.library, &member.token);
            tracing::error!(library, %token, "a slot actor ended by itself: starting another");
            let keys: Vec<Adopt> =
                self.adopted.values().filter(|adopt| self.may_hold(adopt, &member)).cloned().collect();
            match self.slot(&member) {
                Ok(address) => keys.into_iter().for_each(|adopt| address.do_send(adopt)),
                Err(fault) => tracing::error!(%fault, "it cannot be started"),
            }
        }
        self.shared.pools.all().iter().for_each(|pool| pool.observe());
        let mut sets: Vec<_> = self.adopted.values().map(|adopt| self.key_set(adopt)).collect();
        if sets.len() > KEY_SETS_MAX {
            // Those that lack a member are what somebody looks for.
            sets.sort_by_key(|set| set.holders >= set.members);
            sets.truncate(KEY_SETS_MAX);
        }
        self.telemetry.key_sets(sets);
    }

    /// How many members a key has, and how many of them hold it.
    fn key_set(&self, Adopt { spec, route }: &Adopt) -> KeySetFigures {
        let home = self.shared.pools.find(&spec.library, spec.token.as_ref());
        let (pool, members) = home.map_or((NOWHERE.to_owned(), 0), |(pool, of)| (pool.name.clone(), of.len()));
        let (namespace, key) = (spec.namespace.to_string(), spec.name.clone());
        KeySetFigures { pool, namespace, key, members, holders: route.holders() }
    }

    fn may_hold(&self, adopt: &Adopt, member: &Arc<Member>) -> bool {
        let found = self.shared.pools.find(&adopt.spec.library, adopt.spec.token.as_ref());
        found.is_ok_and(|(_, members)| members.iter().any(|candidate| candidate.id == member.id))
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(CENSUS_PERIOD, SupervisorActor::census);
    }
}

impl Handler<ToMember> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, message: ToMember, ctx: &mut Self::Context) {
        match message {
            ToMember::BringUpPools => self.bring_up_pools(),
            ToMember::Prepare(Prepare { spec, reply }) => self.prepare(spec, reply, 1, ctx),
            ToMember::Adopt(adopt) => self.adopt(adopt),
            ToMember::Forget(uuid) => {
                self.adopted.remove(&uuid);
                // A member that only prepared the key knows it too, though it was never adopted.
                self.slots.values().for_each(|(_, address)| address.do_send(Forget(uuid.clone())));
            }
            ToMember::LetGo => self.let_go(),
        }
    }
}

impl Handler<SameToken> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, same: SameToken, _: &mut Self::Context) {
        self.join(same);
    }
}

impl Handler<StopAll> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: StopAll, ctx: &mut Self::Context) {
        self.slots.drain().for_each(|(_, (_, address))| address.do_send(Stop));
        ctx.stop();
    }
}
