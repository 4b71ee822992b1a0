//! Stories about members that cannot be started.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use actix::prelude::*;
use tokio::sync::oneshot;

use super::control::{ControlThread, Reach};
use super::overseer::{Overseer, Start, ToMember};
use super::pins::NoMemory;
use super::pools::Pools;
use super::presence::Presence;
use super::route::{KeySpec, PreparedKey};
use super::slot_actor::{Adopt, Prepare, unavailable};
use super::supervisor::{Library, Shared};
use crate::backend::fake::{FakeBackend, PIN};
use crate::backend::{Backend, BackendError, Device, KeySelector, KeyTemplate};
use crate::config::{Grants, KmsPool, Limits, PoolMember, VerifyAfterSign};
use crate::model::{Curve, Fault, KeyKind, KeyUsages, MemberState, MemberStatus, Namespace, Secret, TokenSelector};
use crate::telemetry::Telemetry;

const P256: KeyKind = KeyKind::Ec(Curve::P256);

thread_local! {
    /// Starts of the token `one` that are to fail.
    static FAILING: Cell<usize> = const { Cell::new(0) };
}

/// Starts control threads, unless the system is said to have none left.
fn begin(reach: Reach, presence: Presence) -> Result<ControlThread, Fault> {
    let left = FAILING.get();
    if left > 0 && reach.name.token == TokenSelector::Label("one".into()) {
        FAILING.set(left - 1);
        return Err(Fault::Unavailable { what: "cannot start a thread: none is left".into() });
    }
    ControlThread::start(reach, presence)
}

struct Story {
    shared: Arc<Shared>,
    overseer: Addr<Overseer>,
}

impl Story {
    /// A pool of the tokens `one` and `two`, whose starts fail so often for the first.
    fn new(backend: Arc<dyn Backend>, failing: usize) -> Story {
        FAILING.set(failing);
        let library = Library {
            name: "hsm".into(),
            file: "token".into(),
            backend,
            pin: Some(Secret::from(PIN)),
            sessions: Some(2),
            call_sign: None,
            keep_alive: None,
            verify: VerifyAfterSign::default(),
            workers: 1,
            isolated: false,
            computes_here: true,
            final_pin_try: false,
            namespaces: Grants::default(),
            service: None,
        };
        let member = |name: &str| {
            let token = TokenSelector::Label(name.into());
            PoolMember { library: "hsm".into(), token, pin: None, max_sessions: None }
        };
        let pools = [KmsPool {
            name: "both".into(),
            members: ["one", "two"].map(member).to_vec(),
            namespaces: Grants::default(),
        }];
        let limits = Limits { probe_min: Duration::from_millis(10), ..Limits::default() };
        let (libraries, telemetry) = (vec![library], Telemetry::new());
        let shared = Arc::new(Shared {
            pools: Pools::new(&libraries, &pools, &[], &limits, &telemetry),
            routes: Arc::default(),
            known: arc_swap::ArcSwap::default(),
            guarded: Arc::default(),
        });
        let pins = Arc::new(NoMemory);
        let start = Start { shared: Arc::clone(&shared), libraries, pools: Vec::new(), limits, pins, telemetry };
        Story { shared, overseer: Overseer::start_with(start, begin) }
    }

    fn members(&self) -> Vec<MemberStatus> {
        self.shared.pools.members().iter().map(|member| member.status()).collect()
    }

    async fn until(&self, good: impl Fn(&[MemberStatus]) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !good(&self.members()) {
            assert!(Instant::now() < end, "{:?}", self.members());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn prepare(&self, spec: &KeySpec) -> Result<PreparedKey, Fault> {
        let (reply, answer) = oneshot::channel();
        self.overseer.do_send(ToMember::Prepare(Prepare { spec: spec.clone(), reply }));
        answer.await.unwrap()
    }
}

pub(super) fn key(name: &str) -> KeySpec {
    KeySpec {
        uuid: name.into(),
        name: name.into(),
        namespace: Namespace::root(),
        library: "both".into(),
        token: None,
        pin: None,
        selector: KeySelector { label: Some(name.into()), id: None, secret: false, cloud: None },
        generate: Some(KeyTemplate { kind: P256, label: name.into(), uses: KeyUsages::default(), cloud: None }),
        taken: Vec::new(),
        recorded: None,
        max_parallel: None,
    }
}

#[test]
fn a_member_that_cannot_be_started_is_tried_again_and_the_others_go_on() {
    actix::System::new().block_on(async {
        let backend = FakeBackend::default();
        backend.make("doc", b"", P256).unwrap();
        let story = Story::new(Arc::new(backend.clone()), 3);
        story.overseer.do_send(ToMember::BringUpPools);
        story.until(|members| members[1].state == MemberState::Serving).await;
        let one = story.members().remove(0);
        assert_eq!(one.state, MemberState::BackingOff);
        let reason = one.reason.map(|reason| reason.to_string()).unwrap_or_default();
        assert!(reason.contains("none is left") && reason.contains("tried again"), "{reason}");
        // What the other holds is served; what it lacks is generated by nobody, since this one might have it.
        let doc = key("doc");
        let identity = story.prepare(&doc).await.unwrap().identity;
        let refused = story.prepare(&key("new")).await.unwrap_err();
        assert!(refused.to_string().contains("token one") && backend.generated() == 0, "{refused}");
        let (pool, _) = story.shared.pools.find("both", None).unwrap();
        let route = story.shared.routes.get_or_make(&doc, &identity, &pool);
        let adopt = Adopt { spec: KeySpec { recorded: Some(identity), ..doc }, route: Arc::clone(&route) };
        story.overseer.do_send(ToMember::Adopt(adopt));
        // It comes up by itself, and is told of the key that came while it was not there.
        story
            .until(|members| members.iter().all(|member| member.state == MemberState::Serving && member.keys == 1))
            .await;
        assert_eq!((route.holders(), FAILING.get()), (2, 0));
        assert!(story.prepare(&key("new")).await.unwrap().generated);
    });
}

/// A library whose code panics when it is first used.
struct Panics(FakeBackend, std::sync::atomic::AtomicBool);

impl Backend for Panics {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        assert!(self.1.swap(true, std::sync::atomic::Ordering::SeqCst), "ordered");
        self.0.open(token)
    }
}

#[test]
fn a_member_whose_control_thread_panicked_gets_another() {
    actix::System::new().block_on(async {
        let story = Story::new(Arc::new(Panics(FakeBackend::default(), Default::default())), 0);
        story.overseer.do_send(ToMember::BringUpPools);
        story.until(|members| members.iter().all(|member| member.state == MemberState::Serving)).await;
    });
}

#[test]
fn what_befell_another_key_names_it_to_nobody() {
    let mine = key("mine");
    for (cause, told) in [
        (Fault::KeyMismatch { key: "theirs".into(), reason: "a signature by theirs".into() }, "the daemon's log"),
        (Fault::KeyUnavailable { key: "theirs".into(), reason: "the token is gone".into() }, "the token is gone"),
    ] {
        let told_to_mine = unavailable(&mine, &cause).to_string();
        assert!(told_to_mine.contains("mine") && told_to_mine.contains(told), "{told_to_mine}");
        assert!(!told_to_mine.contains("theirs"), "{told_to_mine}");
        // Its own asker is told all of it.
        assert_eq!(unavailable(&key("theirs"), &cause), cause);
    }
}
