//! The lane under `shuttle`, which runs sessions, askers and an operator in thousands of interleavings of its own choosing:
//! `cargo test --features shuttle --lib supervisor::lane_shuttle`. A wake-up that is lost shows as a deadlock.

#![cfg(feature = "shuttle")]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use shuttle::thread;

use super::job::{Job, Pending};
use super::lane::{Lane, LaneLimits, Pulled, Wake};
use super::pool::Pool;
use super::route::{Holder, KeyRoute, KeySpec, MemberId};
use super::seats::Seat;
use crate::backend::KeySelector;
use crate::model::held::Held;
use crate::model::{
    Class, Deadline, Fault, Hash, KeyKind, KeyOperation, Namespace, PublicKey, SignInput, SignatureScheme, Terms,
};
use crate::telemetry::Telemetry;

const INTERLEAVINGS: usize = 2_000;
const ONE: MemberId = MemberId(1);
const TWO: MemberId = MemberId(2);

fn pool(wake: Wake) -> Arc<Pool> {
    pool_of(wake, 64)
}

/// Its jobs carry a byte each.
fn pool_of(wake: Wake, bytes: usize) -> Arc<Pool> {
    let limits = LaneLimits {
        all: Held { jobs: 64, bytes },
        per_namespace: Held { jobs: 64, bytes },
        batch_max: 2,
        batch_time: Duration::from_millis(10),
        attempts: 4,
        resting_attempts: 4,
        retry_percent: 100,
        retry_burst: 64,
        wake,
    };
    Arc::new(Pool::new("p", Lane::new(limits, Arc::default()), Telemetry::new()))
}

fn key(pool: &Pool, namespace: &str, holders: &[MemberId], max_parallel: Option<usize>) -> Arc<KeyRoute> {
    let spec = KeySpec {
        uuid: "u".into(),
        name: "k".into(),
        namespace: Namespace::from_path(namespace),
        library: "hsm".into(),
        token: None,
        pin: None,
        selector: KeySelector { label: Some("k".into()), id: None, secret: false, cloud: None },
        generate: None,
        taken: Vec::new(),
        recorded: None,
        max_parallel,
    };
    let route = Arc::new(KeyRoute::new(&spec, &PublicKey { kind: KeyKind::Ed25519, spki: Bytes::new() }.into(), pool));
    holders.iter().for_each(|member| route.add_holder(Holder { member: *member, epoch: 1, handle: 7 }));
    route
}

fn submit(key: &Arc<KeyRoute>) -> Pending {
    try_submit(key).expect("there is room")
}

fn try_submit(key: &Arc<KeyRoute>) -> Result<Pending, Fault> {
    let input = SignInput::Message(Bytes::from_static(b"m"));
    let operation = KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input };
    let deadline = Deadline::after(Duration::from_secs(3600));
    let terms = Terms { class: Class::Interactive, deadline };
    key.submit(operation, terms)
}

/// A session: what it does with a job is `act`'s.
fn session(pool: &Arc<Pool>, member: MemberId, act: fn(&Lane, Job)) -> thread::JoinHandle<()> {
    let seat = Seat::new(member, 1);
    let pool = Arc::clone(pool);
    pool.lane.sit(&seat);
    thread::spawn(move || {
        let mut batch = VecDeque::new();
        while pool.lane.pull(&seat, &mut batch, None) == Pulled::Jobs {
            for job in batch.drain(..) {
                act(&pool.lane, job);
            }
        }
        pool.lane.leave(&seat);
    })
}

fn answer(lane: &Lane, mut job: Job) {
    let capped = job.end();
    job.answer(Ok(Bytes::new()));
    if capped {
        lane.nudge();
    }
}

/// Fails each job once: the other member then does it.
fn fail_first(lane: &Lane, job: Job) {
    if job.attempts == 0 {
        lane.retry(job, Fault::DeviceError { what: "x".into() }, ONE);
    } else {
        answer(lane, job);
    }
}

/// Takes a job and does not start it.
fn hand_back_first(lane: &Lane, mut job: Job) {
    if job.attempts == 0 {
        job.attempts = 1;
        lane.put_back(std::iter::once(job));
    } else {
        answer(lane, job);
    }
}

/// Every job is answered exactly once, and every session ends: for both ways of waking, and where one becomes the other meanwhile.
fn all_answered(act: fn(&Lane, Job), max_parallel: Option<usize>) {
    let both = [Wake::Chain, Wake::Each];
    for (wake, then) in both.into_iter().flat_map(|wake| both.map(|then| (wake, then))) {
        shuttle::check_random(
            move || {
                let pool = pool(wake);
                [ONE, TWO].iter().for_each(|member| pool.lane.begin_epoch(*member, 1));
                let mine = key(&pool, "a", &[ONE], max_parallel);
                let ours = key(&pool, "b", &[ONE, TWO], max_parallel);
                let sessions = [session(&pool, ONE, act), session(&pool, ONE, act), session(&pool, TWO, act)];
                let askers =
                    [mine, ours].map(|key| thread::spawn(move || (0..3).map(|_| submit(&key)).collect::<Vec<_>>()));
                if wake != then {
                    pool.lane.wake_by(then);
                }
                let pending: Vec<Pending> =
                    askers.into_iter().flat_map(|asker| asker.join().expect("it submits")).collect();
                // Closed, a lane is emptied before its sessions end: so whoever sleeps too long is found here.
                pool.lane.close();
                sessions.into_iter().for_each(|session| session.join().expect("it ends"));
                for pending in pending {
                    assert_eq!(pending.now_or_never(), Some(Ok(Bytes::new())), "answered, and once");
                }
            },
            INTERLEAVINGS,
        );
    }
}

#[test]
fn every_job_is_answered_and_no_wake_up_is_lost() {
    all_answered(answer, None);
}

#[test]
fn capped_keys_lose_no_wake_up() {
    all_answered(answer, Some(1));
}

#[test]
fn failed_jobs_are_tried_again_and_lose_no_wake_up() {
    all_answered(fail_first, None);
}

#[test]
fn jobs_handed_back_lose_no_wake_up() {
    all_answered(hand_back_first, Some(1));
}

/// A member's sessions leave in the middle; the other does the work, also what they were woken for.
#[test]
fn sessions_that_leave_take_no_wake_up_with_them() {
    for wake in [Wake::Chain, Wake::Each] {
        shuttle::check_random(
            move || {
                let pool = pool(wake);
                [ONE, TWO].iter().for_each(|member| pool.lane.begin_epoch(*member, 1));
                let key = key(&pool, "a", &[ONE, TWO], None);
                let sessions = [session(&pool, ONE, answer), session(&pool, TWO, answer)];
                let asker = thread::spawn({
                    let key = Arc::clone(&key);
                    move || (0..3).map(|_| submit(&key)).collect::<Vec<_>>()
                });
                key.remove_holder(ONE, &Fault::absent());
                pool.lane.begin_epoch(ONE, 2);
                let pending = asker.join().expect("it submits");
                pool.lane.close();
                sessions.into_iter().for_each(|session| session.join().expect("it ends"));
                for pending in pending {
                    assert_eq!(pending.now_or_never(), Some(Ok(Bytes::new())));
                }
            },
            INTERLEAVINGS,
        );
    }
}

/// Two namespaces ask for more bytes than there is room for, while jobs are taken, come back and leave: each job is done,
/// refused or pushed out, the lane is never beyond its bound by more than came back, and holds nothing at the end.
#[test]
fn the_bound_of_bytes_holds_and_comes_out_even() {
    const BYTES: usize = 2;
    for wake in [Wake::Chain, Wake::Each] {
        shuttle::check_random(
            move || {
                let pool = pool_of(wake, BYTES);
                [ONE, TWO].iter().for_each(|member| pool.lane.begin_epoch(*member, 1));
                let keys = ["a", "b"].map(|namespace| key(&pool, namespace, &[ONE, TWO], None));
                let sessions = [session(&pool, ONE, hand_back_first), session(&pool, TWO, answer)];
                let held = |pool: &Pool| pool.lane.depths().iter().map(|(_, _, bytes)| bytes).sum::<usize>();
                let askers = keys.map(|key| {
                    let pool = Arc::clone(&pool);
                    thread::spawn(move || {
                        let asked = (0..3).map(|_| try_submit(&key)).collect::<Vec<_>>();
                        // Each session has a batch of two at the most, to come back.
                        assert!(held(&pool) <= BYTES + 2);
                        asked
                    })
                });
                let asked: Vec<_> = askers.into_iter().flat_map(|asker| asker.join().expect("it submits")).collect();
                pool.lane.close();
                sessions.into_iter().for_each(|session| session.join().expect("it ends"));
                assert_eq!(held(&pool), 0);
                for asked in asked {
                    let answer = asked.map_or_else(|fault| Some(Err(fault)), FutureExt::now_or_never);
                    assert!(matches!(answer, Some(Ok(_) | Err(Fault::Overloaded { .. }))), "{answer:?}");
                }
            },
            INTERLEAVINGS,
        );
    }
}
