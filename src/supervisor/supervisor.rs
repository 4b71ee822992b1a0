//! The actor that knows every member, and the handle the rest of the daemon holds of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::control::ControlThread;
use super::pins::{Logins, PinMemory};
use super::pool::{MemberKey, Members};
use super::route::{KeyRoute, KeySpec, PreparedKey, Routes};
use super::slot_actor::{Adopt, Forget, MemberSettings, Prepare, SlotActor, Stop};
use crate::backend::Backend;
use crate::config::{Limits, or_cores};
use crate::model::{Deadline, Fault, PublicKey, Secret, Status};
use crate::telemetry::Telemetry;

/// How often the supervisor looks whether its slot actors live.
const CENSUS_PERIOD: Duration = Duration::from_secs(1);

/// One KMS library, as configured.
pub struct Library {
    /// Its name.
    pub name: String,
    /// How its tokens are reached.
    pub backend: Arc<dyn Backend>,
    /// The PIN of its tokens, if it is given here.
    pub pin: Option<Secret>,
    /// Sessions per token; `None` takes the backend's default.
    pub sessions: Option<usize>,
    /// Limit of one signature.
    pub call_sign: Duration,
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
    shared: Arc<Shared>,
    address: Addr<SupervisorActor>,
}

struct Shared {
    members: Members,
    routes: Arc<Routes>,
    libraries: Vec<LibraryInfo>,
}

impl Supervisor {
    /// Starts it on the running actix system.
    pub fn start(
        libraries: Vec<Library>,
        limits: &Limits,
        pins: Arc<dyn PinMemory>,
        telemetry: Telemetry,
    ) -> Supervisor {
        let info = |library: &Library| LibraryInfo {
            name: library.name.clone(),
            has_pin: library.pin.is_some(),
            is_pool: false,
        };
        let shared = Arc::new(Shared {
            members: Members::new(limits),
            routes: Arc::default(),
            libraries: libraries.iter().map(info).collect(),
        });
        let actor = SupervisorActor {
            shared: Arc::clone(&shared),
            libraries: libraries.into_iter().map(|library| (library.name.to_lowercase(), library)).collect(),
            limits: limits.clone(),
            pins,
            logins: Arc::default(),
            telemetry,
            slots: HashMap::new(),
            adopted: HashMap::new(),
            generations: 0,
        };
        Supervisor { shared, address: actor.start() }
    }

    /// The libraries configured.
    pub fn libraries(&self) -> &[LibraryInfo] {
        &self.shared.libraries
    }

    /// Finds a key on its token, or generates it where that is allowed, and has it proven. From then on it is served.
    /// [`Fault::NotFound`] means that the token serves, and holds no such key.
    pub async fn prepare(&self, spec: KeySpec, deadline: Deadline) -> Result<PreparedKey, Fault> {
        let (reply, answer) = oneshot::channel();
        self.address.do_send(ToMember::Prepare(Prepare { spec, reply }));
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(Fault::Unavailable { what: "the supervisor dropped the request; try again".into() }),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "waiting for the token" }),
        }
    }

    /// Registers a key whose public half is known: its route, which members join once they have proven to hold it.
    /// Called again for the same key, it changes the key's settings.
    pub fn adopt(&self, spec: KeySpec, public: &PublicKey) -> Arc<KeyRoute> {
        let member = self.shared.members.get_or_make(&member_key(&spec));
        let route = self.shared.routes.get_or_make(&spec, public, &member.lane);
        self.address.do_send(ToMember::Adopt(Adopt { spec, route: Arc::clone(&route) }));
        route
    }

    /// Serves a key no longer.
    pub fn forget(&self, uuid: &str) {
        self.shared.routes.remove(uuid);
        self.address.do_send(ToMember::Forget(uuid.to_owned()));
    }

    /// Every member, as it stands.
    pub fn status(&self) -> Status {
        Status { members: self.shared.members.all().iter().map(|member| member.status()).collect() }
    }

    /// Waits until every member serves its keys or has failed its first try, `limit` at the longest: so that the first
    /// requests after a start find their keys ready.
    pub async fn settle(&self, limit: Duration) {
        let end = Instant::now() + limit;
        while !self.shared.members.all().iter().all(|member| member.is_settled()) && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Lets the lanes run empty, `limit` at the longest, and ends every session. Answers how many jobs were cut off.
    pub async fn shut_down(&self, limit: Duration) -> usize {
        let members = self.shared.members.all();
        members.iter().for_each(|member| member.lane.close());
        let depth = || members.iter().map(|member| member.lane.depth()).sum::<usize>();
        let end = Instant::now() + limit;
        while depth() > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let cut = depth();
        members.iter().for_each(|member| member.lane.abandon());
        // A supervisor that is gone has nothing left to stop.
        let _ = self.address.send(StopAll).await;
        cut
    }
}

fn member_key(spec: &KeySpec) -> MemberKey {
    (spec.library.to_lowercase(), spec.token.clone())
}

enum ToMember {
    Prepare(Prepare),
    Adopt(Adopt),
    Forget(String),
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
    libraries: HashMap<String, Library>,
    limits: Limits,
    pins: Arc<dyn PinMemory>,
    logins: Arc<Logins>,
    telemetry: Telemetry,
    slots: HashMap<MemberKey, Addr<SlotActor>>,
    /// What each key's member was told, to tell a new actor of that member again.
    adopted: HashMap<String, (KeySpec, Arc<KeyRoute>)>,
    generations: u64,
}

impl SupervisorActor {
    /// The actor of the member `key`; made from the library's settings if there is none that lives.
    fn slot(&mut self, key: &MemberKey) -> Result<Addr<SlotActor>, Fault> {
        if let Some(address) = self.slots.get(key).filter(|address| address.connected()) {
            return Ok(address.clone());
        }
        let Some(library) = self.libraries.get(&key.0) else {
            let what = format!("there is no kms_library {:?} in the configuration; add it and restart", key.0);
            return Err(Fault::Unavailable { what });
        };
        let member = self.shared.members.get_or_make(key);
        let control = ControlThread::start(
            Arc::clone(&library.backend),
            &key.0,
            &key.1,
            Arc::clone(&self.pins),
            Arc::clone(&self.logins),
            library.final_pin_try,
        )?;
        let settings = MemberSettings {
            pin: library.pin.clone(),
            sessions: library.sessions.unwrap_or_else(|| or_cores(0)).max(1),
            call_sign: library.call_sign,
            limits: self.limits.clone(),
        };
        // Each actor of a member counts its epochs from above those of the one before.
        self.generations += 1;
        let first_epoch = self.generations << 32;
        let routes = Arc::clone(&self.shared.routes);
        let actor = SlotActor::new(member, settings, control, routes, self.telemetry.clone(), first_epoch);
        let address = actor.start();
        self.slots.insert(key.clone(), address.clone());
        Ok(address)
    }

    /// Makes anew the actors that ended without being told to, and tells them of their keys.
    fn census(&mut self, _: &mut Context<Self>) {
        let ended = |(key, address): (&MemberKey, &Addr<SlotActor>)| (!address.connected()).then(|| key.clone());
        let gone: Vec<MemberKey> = self.slots.iter().filter_map(ended).collect();
        for key in gone {
            tracing::error!(library = key.0, token = %key.1, "a slot actor ended by itself: starting another");
            let keys: Vec<_> = self.adopted.values().filter(|(spec, _)| member_key(spec) == key).cloned().collect();
            match self.slot(&key) {
                Ok(address) => {
                    keys.into_iter().for_each(|(spec, route)| address.do_send(Adopt { spec, route }));
                }
                Err(fault) => tracing::error!(%fault, "it cannot be started"),
            }
        }
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

    fn handle(&mut self, message: ToMember, _: &mut Self::Context) {
        match message {
            ToMember::Prepare(prepare) => match self.slot(&member_key(&prepare.spec)) {
                Ok(address) => address.do_send(prepare),
                Err(fault) => {
                    let _ = prepare.reply.send(Err(fault));
                }
            },
            ToMember::Adopt(adopt) => {
                self.adopted.insert(adopt.spec.uuid.clone(), (adopt.spec.clone(), Arc::clone(&adopt.route)));
                match self.slot(&member_key(&adopt.spec)) {
                    Ok(address) => address.do_send(adopt),
                    Err(fault) => tracing::error!(key = adopt.spec.name, %fault, "managed key is not served"),
                }
            }
            ToMember::Forget(uuid) => {
                self.adopted.remove(&uuid);
                // A member that only prepared the key knows it too, though it was never adopted.
                self.slots.values().for_each(|address| address.do_send(Forget(uuid.clone())));
            }
        }
    }
}

impl Handler<StopAll> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: StopAll, ctx: &mut Self::Context) {
        self.slots.drain().for_each(|(_, address)| address.do_send(Stop));
        ctx.stop();
    }
}
