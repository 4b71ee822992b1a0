//! Stories about the lane: bounds, batches, deadlines, members, retries, and every job answered exactly once.

#![cfg(not(feature = "shuttle"))]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::job::{Job, Pending};
use super::lane::{Lane, LaneLimits, Pulled, Wake};
use super::pool::Pool;
use super::route::{Holder, KeyRoute, KeySpec, MemberId};
use super::seats::{Place, Seat};
use super::together;
use crate::backend::KeySelector;
use crate::model::held::Held;
use crate::model::{
    Class, Deadline, Fault, FaultLabel, Hash, KeyKind, KeyOperation, Namespace, PublicKey, SignInput, SignatureScheme,
    Terms, TokenSelector,
};
use crate::telemetry::Telemetry;

pub(super) const MEMBER: MemberId = MemberId(0);
pub(super) const OTHER: MemberId = MemberId(1);

pub(super) fn limits(jobs: usize, per_namespace: usize, batch_max: usize) -> LaneLimits {
    LaneLimits {
        all: Held { jobs, bytes: 1 << 20 },
        per_namespace: Held { jobs: per_namespace, bytes: 1 << 18 },
        batch_max,
        batch_time: Duration::from_micros(250),
        attempts: 3,
        resting_attempts: 5,
        retry_percent: 10,
        retry_burst: 2,
        wake: Wake::Chain,
    }
}

/// A lane that one session of [`MEMBER`] serves.
pub(super) fn lane(jobs: usize, per_namespace: usize, batch_max: usize) -> (Pool, Seat) {
    lane_of(limits(jobs, per_namespace, batch_max))
}

pub(super) fn lane_of(limits: LaneLimits) -> (Pool, Seat) {
    let pool = pool(limits);
    let seat = seat(&pool, MEMBER);
    (pool, seat)
}

pub(super) fn pool(limits: LaneLimits) -> Pool {
    Pool::new("p", Lane::new(limits, Arc::default()), Telemetry::new())
}

pub(super) fn seat(pool: &Pool, member: MemberId) -> Seat {
    pool.lane.begin_epoch(member, 1);
    let seat = Seat::new(member, 1);
    pool.lane.sit(&seat);
    seat
}

pub(super) fn key(pool: &Pool, max_parallel: Option<usize>) -> Arc<KeyRoute> {
    key_of(pool, "", max_parallel)
}

pub(super) fn key_of(pool: &Pool, namespace: &str, max_parallel: Option<usize>) -> Arc<KeyRoute> {
    let spec = KeySpec {
        uuid: "u".into(),
        name: "k".into(),
        namespace: Namespace::from_path(namespace),
        library: "hsm".into(),
        token: Some(TokenSelector::Slot(0)),
        pin: None,
        selector: KeySelector { label: Some("k".into()), id: None, secret: false, cloud: None },
        generate: None,
        taken: Vec::new(),
        recorded: None,
        max_parallel,
    };
    let public = PublicKey { kind: KeyKind::Ed25519, spki: Bytes::new() };
    let route = Arc::new(KeyRoute::new(&spec, &public.into(), pool));
    route.add_holder(holder(MEMBER));
    route
}

pub(super) fn holder(member: MemberId) -> Holder {
    Holder { member, epoch: 1, handle: 7 }
}

pub(super) fn terms(deadline: Duration) -> Terms {
    let deadline = Deadline::after(deadline);
    Terms { class: Class::Interactive, deadline }
}

pub(super) fn operation() -> KeyOperation {
    let input = SignInput::Message(Bytes::from_static(b"m"));
    KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input }
}

pub(super) const LONG: Duration = Duration::from_secs(60);

pub(super) fn submit(key: &Arc<KeyRoute>) -> Result<Pending, Fault> {
    key.submit(operation(), terms(LONG))
}

pub(super) fn pull((pool, seat): &(Pool, Seat)) -> VecDeque<Job> {
    pull_for(pool, seat)
}

pub(super) fn pull_for(pool: &Pool, seat: &Seat) -> VecDeque<Job> {
    let mut batch = VecDeque::new();
    assert_eq!(pool.lane.pull(seat, &mut batch, Some(Duration::ZERO)), Pulled::Jobs);
    batch
}

/// Nothing, where all that is queued is over.
pub(super) fn pull_if_any((pool, seat): &(Pool, Seat)) -> VecDeque<Job> {
    let mut batch = VecDeque::new();
    pool.lane.pull(seat, &mut batch, Some(Duration::ZERO));
    batch
}

pub(super) fn done(jobs: impl IntoIterator<Item = Job>) {
    for mut job in jobs {
        job.end();
        job.answer(Ok(Bytes::new()));
    }
}

pub(super) fn answered(pending: Pending) -> Result<Bytes, Fault> {
    futures_util::FutureExt::now_or_never(pending).expect("the job is answered")
}

#[test]
fn a_full_lane_refuses_at_once_and_tells_of_the_callers_namespace_only() {
    let (pool, _seat) = lane(3, 2, 32);
    let [a, b, c] = ["a", "b", "c"].map(|namespace| key_of(&pool, namespace, None));
    let _kept: Vec<_> = (0..2).map(|_| a.submit(operation(), terms(LONG)).unwrap()).collect();
    let own = a.submit(operation(), terms(LONG)).unwrap_err();
    assert!(matches!(own, Fault::Overloaded { ref namespace, limit: 2, .. } if namespace.as_str() == "a/"));
    let _one = b.submit(operation(), terms(LONG)).unwrap();
    // The lane is full, and nobody has more than one more than the newcomer would have.
    let _other = c.submit(operation(), terms(LONG)).expect("a has two, c none");
    let whole = c.submit(operation(), terms(LONG)).unwrap_err();
    assert!(matches!(whole, Fault::Overloaded { ref namespace, limit: 3, .. } if namespace.as_str() == "c/"));
}

#[test]
fn who_fills_a_lane_makes_room_for_who_has_nothing_in_it() {
    let (pool, _seat) = lane(4, 4, 32);
    let (a, b) = (key_of(&pool, "a", None), key_of(&pool, "b", None));
    let mut flood: Vec<_> = (0..4).map(|_| a.submit(operation(), terms(LONG)).unwrap()).collect();
    let _admitted = b.submit(operation(), terms(LONG)).expect("b has less than its share");
    // The newest of the flood went, and was told so.
    let out = answered(flood.pop().unwrap()).unwrap_err();
    assert!(matches!(out, Fault::Overloaded { ref namespace, limit: 4, .. } if namespace.as_str() == "a/"), "{out}");
    assert_eq!(pool.lane.depth(), 4);
}

#[test]
fn room_is_given_back_when_jobs_are_pulled() {
    let at = lane(1, 1, 32);
    let key = key(&at.0, None);
    for _ in 0..3 {
        let pending = submit(&key).unwrap();
        done(pull(&at));
        assert!(answered(pending).is_ok());
    }
}

#[test]
fn an_unknown_or_slow_device_gets_one_job_at_a_time_and_a_fast_one_a_batch() {
    let at = lane(100, 100, 32);
    let key = key(&at.0, None);
    let _pending: Vec<_> = (0..40).map(|_| submit(&key).unwrap()).collect();
    assert_eq!(pull(&at).len(), 1, "nothing is known of the key yet");
    key.learn(&operation(), Duration::from_millis(1), 1);
    assert_eq!(pull(&at).len(), 1, "slower than the batch time");
    (0..60).for_each(|_| key.learn(&operation(), Duration::from_micros(1), 1));
    assert!(pull(&at).len() > 20, "fast");
}

#[test]
fn a_batch_is_the_sessions_share_of_the_queue() {
    let at = lane(100, 100, 32);
    (0..3).for_each(|_| at.0.lane.sit(&at.1));
    let key = key(&at.0, None);
    key.learn(&operation(), Duration::from_micros(30), 1);
    let _pending: Vec<_> = (0..8).map(|_| submit(&key).unwrap()).collect();
    assert_eq!(pull(&at).len(), 2, "eight jobs over four sessions");
}

#[test]
fn work_too_little_to_wake_others_for_is_not_divided() {
    let at = lane(100, 100, 32);
    (0..3).for_each(|_| at.0.lane.sit(&at.1));
    let key = key(&at.0, None);
    key.learn(&operation(), Duration::from_micros(4), 1);
    let _pending: Vec<_> = (0..8).map(|_| submit(&key).unwrap()).collect();
    assert_eq!(pull(&at).len(), 5, "20 us");
}

#[test]
fn jobs_submitted_together_are_pushed_at_the_end_and_refused_by_their_answers() {
    let at = lane(3, 2, 32);
    let [mine, theirs] = ["a", "b"].map(|namespace| key_of(&at.0, namespace, None));
    let (first, second, third, other) = together(|| {
        let [first, second, third] = [(); 3].map(|()| submit(&mine).unwrap());
        let other = together(|| submit(&theirs).unwrap());
        assert_eq!(at.0.lane.depth(), 0, "nothing yet, nor at the end of what is within");
        (first, second, third, other)
    });
    assert_eq!(at.0.lane.depth(), 3);
    let refused = answered(third).unwrap_err();
    assert!(matches!(refused, Fault::Overloaded { limit: 2, .. }), "{refused}");
    done(pull(&at));
    done(pull(&at));
    done(pull(&at));
    assert!([first, second, other].into_iter().all(|pending| answered(pending).is_ok()));
}

#[test]
fn what_was_submitted_together_is_pushed_even_if_a_panic_ends_it() {
    let at = lane(3, 2, 32);
    let key = key(&at.0, None);
    let mut kept = None;
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        together(|| {
            kept = Some(submit(&key).unwrap());
            std::panic::resume_unwind(Box::new(()));
        });
    }));
    assert!(panicked.is_err());
    done(pull(&at));
    assert!(answered(kept.unwrap()).is_ok());
    // And the next is pushed at once again.
    let _pending = submit(&key).unwrap();
    assert_eq!(at.0.lane.depth(), 1);
}

#[test]
fn a_session_that_was_given_up_counts_no_more_and_leaves_once() {
    let at = lane(100, 100, 32);
    let (pool, one) = &at;
    let hangs = Seat::new(MEMBER, 1);
    pool.lane.sit(&hangs);
    let key = key(pool, None);
    key.learn(&operation(), Duration::from_micros(30), 1);
    let mut pending: Vec<_> = (0..8).map(|_| submit(&key).unwrap()).collect();
    // By the watchdog, and by itself when its call returns.
    (0..2).for_each(|_| pool.lane.leave(&hangs));
    done(pull(&at));
    assert!(pending.drain(..).all(|pending| answered(pending).is_ok()), "the one that is left takes all eight");
    assert_eq!(pool.lane.pull(&hangs, &mut VecDeque::new(), None), Pulled::End);
    // With the other gone as well, nobody finds what is over, and the lane must be looked after.
    let over = key.submit(operation(), terms(Duration::from_millis(1))).unwrap();
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
    pool.lane.sweep_if_idle();
    assert_eq!(pool.lane.depth(), 1, "a session that serves finds it");
    pool.lane.leave(one);
    pool.lane.sweep_if_idle();
    assert!(matches!(answered(over), Err(Fault::DeadlineExceeded { .. })));
}

#[test]
fn a_session_that_sleeps_when_it_is_given_up_is_woken_and_ends() {
    let (pool, one) = lane(10, 10, 1);
    std::thread::scope(|scope| {
        let sleeps = scope.spawn(|| pool.lane.pull(&one, &mut VecDeque::new(), None));
        while pool.lane.asleep() == 0 {
            std::thread::yield_now();
        }
        pool.lane.leave(&one);
        assert_eq!(sleeps.join().unwrap(), Pulled::End);
    });
}

#[test]
fn a_job_past_its_deadline_is_not_started() {
    let at = lane(10, 10, 32);
    let key = key(&at.0, None);
    let late = key.submit(operation(), terms(Duration::from_millis(1))).unwrap();
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
    let good = submit(&key).unwrap();
    let batch = pull(&at);
    assert_eq!(batch.len(), 1);
    assert_eq!(answered(late), Err(Fault::DeadlineExceeded { stage: "queued" }));
    drop(batch);
    assert!(matches!(answered(good), Err(Fault::Unavailable { .. })), "a dropped job is answered too");
}

#[test]
fn a_job_whose_asker_left_is_not_started() {
    let at = lane(10, 10, 32);
    let key = key(&at.0, None);
    drop(submit(&key).unwrap());
    let kept = submit(&key).unwrap();
    assert_eq!(pull(&at).len(), 1);
    drop(kept);
}

#[test]
fn jobs_of_a_key_nobody_holds_are_answered_at_once() {
    let at = lane(10, 10, 32);
    let key = key(&at.0, None);
    let queued = submit(&key).unwrap();
    let gone = Fault::KeyUnavailable { key: "k".into(), reason: "token removed".into() };
    key.remove_holder(MEMBER, &gone);
    at.0.lane.sweep();
    assert_eq!(answered(queued), Err(gone.clone()));
    assert_eq!(submit(&key).unwrap_err(), gone);
}

#[test]
fn max_parallel_caps_one_keys_jobs_in_flight_and_holds_nobody_else_up() {
    let at = lane(10, 10, 32);
    let capped = key(&at.0, Some(1));
    let free = key(&at.0, None);
    [&capped, &free].iter().for_each(|key| key.learn(&operation(), Duration::from_nanos(10), 1));
    let _pending = [submit(&capped).unwrap(), submit(&capped).unwrap(), submit(&free).unwrap()];
    let batch = pull(&at);
    assert_eq!(batch.len(), 2);
    assert!(Arc::ptr_eq(&batch[1].key, &free));
    drop(batch);
    assert_eq!(pull(&at).len(), 1, "the place is free again");
}

#[test]
fn a_void_seat_and_a_drained_lane_end_the_session() {
    let at = lane(10, 10, 32);
    let key = key(&at.0, None);
    let pending = submit(&key).unwrap();
    let (pool, seat) = &at;
    pool.lane.close();
    assert!(matches!(submit(&key), Err(Fault::Unavailable { .. })), "a closed lane accepts nothing");
    assert_eq!(pull(&at).len(), 1, "but finishes what it has");
    assert_eq!(pool.lane.pull(seat, &mut VecDeque::new(), None), Pulled::End);
    pool.lane.begin_epoch(MEMBER, 2);
    assert_eq!(pool.lane.pull(seat, &mut VecDeque::new(), None), Pulled::End);
    drop(pending);
}

/// Sessions that sleep, and a burst for all of them: each stays in its first job until all have one, so that it would
/// stay for ever if one was not woken.
fn burst_wakes_all(wake: Wake) {
    const SESSIONS: usize = 4;
    let pool = pool(LaneLimits { wake, ..limits(64, 64, 8) });
    let seats: Vec<Seat> = (0..SESSIONS).map(|_| seat(&pool, MEMBER)).collect();
    // Each began the epoch anew, and only the last still sits.
    seats.iter().take(SESSIONS - 1).for_each(|seat| pool.lane.sit(seat));
    let key = key(&pool, None);
    let all_busy = std::sync::Barrier::new(SESSIONS + 1);
    let burst: Vec<Pending> = std::thread::scope(|scope| {
        for seat in &seats {
            let (lane, all_busy) = (&pool.lane, &all_busy);
            scope.spawn(move || {
                let mut first = true;
                let mut batch = VecDeque::new();
                while lane.pull(seat, &mut batch, None) == Pulled::Jobs {
                    if std::mem::take(&mut first) {
                        all_busy.wait();
                    }
                    done(batch.drain(..));
                }
            });
        }
        // All asleep: the wake-ups are what is tried.
        while pool.lane.asleep() < SESSIONS {
            std::thread::yield_now();
        }
        let burst = (0..SESSIONS).map(|_| submit(&key).unwrap()).collect();
        all_busy.wait();
        pool.lane.close();
        burst
    });
    burst.into_iter().for_each(|pending| assert!(answered(pending).is_ok()));
}

#[test]
fn a_burst_wakes_as_many_sessions_as_it_has_work_for() {
    burst_wakes_all(Wake::Chain);
    burst_wakes_all(Wake::Each);
}

#[test]
fn a_job_put_back_keeps_its_place_at_the_head() {
    let at = lane(10, 10, 1);
    let key = key(&at.0, None);
    let first = submit(&key).unwrap();
    let _second = submit(&key).unwrap();
    at.0.lane.put_back(pull(&at).into_iter());
    for job in pull(&at) {
        job.answer(Ok(Bytes::from_static(b"first")));
    }
    assert_eq!(answered(first).unwrap(), Bytes::from_static(b"first"));
}

#[test]
fn a_job_goes_only_to_members_that_hold_its_key() {
    let (pool, one) = lane(10, 10, 1);
    let other = seat(&pool, OTHER);
    let (mine, ours) = (key(&pool, None), key(&pool, None));
    ours.add_holder(holder(OTHER));
    let _pending = [submit(&mine).unwrap(), submit(&ours).unwrap()];
    let taken = pull_for(&pool, &other);
    assert!(Arc::ptr_eq(&taken[0].key, &ours), "the other passes over what it does not hold");
    let idle = pool.lane.pull(&other, &mut VecDeque::new(), Some(Duration::ZERO));
    assert_eq!(idle, Pulled::Idle);
    assert!(Arc::ptr_eq(&pull_for(&pool, &one)[0].key, &mine));
}

#[test]
fn a_failed_job_is_tried_by_another_member_where_one_holds_its_key() {
    let (pool, one) = lane(10, 10, 1);
    let other = seat(&pool, OTHER);
    let shared = key(&pool, None);
    shared.add_holder(holder(OTHER));
    let pending = submit(&shared).unwrap();
    let fault = || Fault::DeviceError { what: "C_Sign".into() };
    let failed = pull_for(&pool, &one).pop_front().unwrap();
    assert!(pool.lane.retry(failed, fault(), MEMBER));
    assert_eq!(pool.lane.pull(&one, &mut VecDeque::new(), Some(Duration::ZERO)), Pulled::Idle);
    let failed = pull_for(&pool, &other).pop_front().unwrap();
    assert!(pool.lane.retry(failed, fault(), OTHER));
    // The third try is the last one: it is answered with what went wrong.
    let failed = pull_for(&pool, &one).pop_front().unwrap();
    assert!(!pool.lane.retry(failed, fault(), MEMBER));
    assert_eq!(answered(pending), Err(fault()));
}

#[test]
fn a_failed_job_comes_back_to_the_only_member_that_holds_its_key() {
    let (pool, one) = lane(10, 10, 1);
    let _other = seat(&pool, OTHER);
    let key = key(&pool, None);
    let _pending = submit(&key).unwrap();
    let failed = pull_for(&pool, &one).pop_front().unwrap();
    assert!(pool.lane.retry(failed, Fault::DeviceError { what: "C_Sign".into() }, MEMBER));
    assert_eq!(pull_for(&pool, &one).len(), 1);
}

#[test]
fn a_further_try_by_the_session_that_has_the_job_counts_like_any_other() {
    let fault = || Fault::DeviceError { what: "C_Sign".into() };
    let (pool, one) = lane(10, 10, 1);
    let (key, theirs) = (key_of(&pool, "a", None), key_of(&pool, "b", None));
    let pending = key.submit(operation(), terms(LONG)).unwrap();
    let mut job = pull_for(&pool, &one).pop_front().unwrap();
    assert_eq!(job.late(), Fault::DeadlineExceeded { stage: "queued" });
    key.note_throttled();
    let told = job.late();
    assert_eq!(
        told.to_string(),
        "deadline exceeded while the request was queued, since the service of its key throttles"
    );
    assert!(told.left_the_device_alone() && told.label() == FaultLabel::DeadlineExceeded);
    assert_eq!(pool.lane.retry_here(&mut job, fault(), MEMBER), Ok(()));
    assert_eq!(job.late(), Fault::DeadlineExceeded { stage: "started" }, "a device has heard of it");
    assert!(pool.lane.retry(job, fault(), MEMBER));
    // The third is the last.
    let mut job = pull_for(&pool, &one).pop_front().unwrap();
    assert_eq!(pool.lane.retry_here(&mut job, fault(), MEMBER), Err(fault()));
    drop((job, pending));
    // And the namespace has used up its two.
    let _pending = key.submit(operation(), terms(LONG)).unwrap();
    let mut job = pull_for(&pool, &one).pop_front().unwrap();
    assert_eq!(pool.lane.retry_here(&mut job, fault(), MEMBER), Err(fault()));
    let _pending = theirs.submit(operation(), terms(LONG)).unwrap();
    let mut job = pull_for(&pool, &one).pop_front().unwrap();
    assert_eq!(pool.lane.retry_here(&mut job, fault(), MEMBER), Ok(()));
}

#[test]
fn a_further_try_that_cannot_end_in_time_is_not_made() {
    let (pool, one) = lane(10, 10, 1);
    let key = key(&pool, None);
    let fault = || Fault::DeviceError { what: "C_Sign".into() };
    let fail = |deadline| {
        let pending = key.submit(operation(), terms(deadline)).unwrap();
        // The first try is made, whatever is known of the device.
        let job = pull_for(&pool, &one).pop_front().unwrap();
        let granted = pool.lane.retry(job, fault(), MEMBER);
        if granted {
            done(pull_for(&pool, &one));
        }
        (granted, answered(pending))
    };
    assert_eq!(fail(LONG), (true, Ok(Bytes::new())), "nothing is known of the device");
    key.learn(&operation(), 2 * LONG, 1);
    assert_eq!(fail(LONG), (false, Err(fault())));
    assert_eq!(fail(3 * LONG), (true, Ok(Bytes::new())));
}

#[test]
fn further_tries_are_a_budget_of_the_namespace() {
    let (pool, one) = lane(100, 100, 1);
    let (mine, theirs) = (key_of(&pool, "a", None), key_of(&pool, "b", None));
    let fail = |key: &Arc<KeyRoute>| {
        let pending = key.submit(operation(), terms(LONG)).unwrap();
        let job = pull_for(&pool, &one).pop_front().unwrap();
        let retried = pool.lane.retry(job, Fault::DeviceError { what: "C_Sign".into() }, MEMBER);
        if retried {
            done(pull_for(&pool, &one));
        }
        drop(pending);
        retried
    };
    let tries: Vec<bool> = (0..4).map(|_| fail(&mine)).collect();
    assert_eq!(tries, [true, true, false, false], "two in a burst");
    assert!(fail(&theirs), "another namespace has its own");
    for _ in 0..10 {
        let pending = mine.submit(operation(), terms(LONG)).unwrap();
        done(pull_for(&pool, &one));
        drop(pending);
    }
    assert!(fail(&mine), "ten good ones earn one more");
}

#[test]
fn jobs_wait_for_a_member_that_returns_in_a_moment() {
    let at = lane(10, 10, 1);
    let key = key(&at.0, None);
    let waits = submit(&key).unwrap();
    key.suspend_holder(MEMBER);
    at.0.lane.sweep();
    let comes_meanwhile = submit(&key).expect("it is on its way back");
    assert_eq!(at.0.lane.pull(&at.1, &mut VecDeque::new(), Some(Duration::ZERO)), Pulled::Idle);
    key.add_holder(holder(MEMBER));
    (0..2).for_each(|_| done(pull(&at)));
    assert!(answered(waits).is_ok() && answered(comes_meanwhile).is_ok());
    // Where the try fails, they are told.
    key.suspend_holder(MEMBER);
    let told = submit(&key).unwrap();
    let gone = Fault::KeyUnavailable { key: "k".into(), reason: "token removed".into() };
    key.remove_holder(MEMBER, &gone);
    at.0.lane.sweep();
    assert_eq!(answered(told), Err(gone));
}

#[test]
fn a_session_that_ends_late_does_not_undo_a_proof_made_since() {
    let at = lane(10, 10, 1);
    let key = key(&at.0, None);
    let place = at.1.place;
    key.suspend_holder_at(place);
    assert_eq!(key.holders(), 0);
    let proven = Holder { epoch: place.epoch + 1, ..holder(MEMBER) };
    key.add_holder(proven);
    key.suspend_holder_at(place);
    assert_eq!(key.holders(), 1);
    key.suspend_holder_at(Place { epoch: proven.epoch, ..place });
    assert_eq!(key.holders(), 0);
}

proptest! {
    #[test]
    fn whatever_happens_each_accepted_job_is_answered_once_and_the_counts_come_out_even(
        steps in proptest::collection::vec(0u8..8, 1..200)
    ) {
        let at = lane(16, 8, 4);
        let (pool, _) = &at;
        let keys = ["a", "b"].map(|namespace| key_of(pool, namespace, None));
        let mut asked = Vec::new();
        for (number, step) in steps.iter().enumerate() {
            match step {
                0..=3 => {
                    asked.extend(keys[number % 2].submit(operation(), terms(LONG)).ok());
                }
                4 => done(pull_if_any(&at)),
                5 => pool.lane.put_back(pull_if_any(&at).into_iter()),
                6 => for job in pull_if_any(&at) {
                    pool.lane.retry(job, Fault::DeviceError { what: "x".into() }, MEMBER);
                },
                7 if !asked.is_empty() => drop(asked.swap_remove(number % asked.len())),
                _ => {}
            }
            prop_assert!(pool.lane.depth() <= 16 + 4, "what is put back was admitted before");
        }
        pool.lane.abandon();
        prop_assert_eq!(pool.lane.depth(), 0);
        for pending in asked {
            let answer = futures_util::FutureExt::now_or_never(pending);
            prop_assert!(answer.is_some());
        }
        for key in &keys {
            prop_assert!(key.has_room() && key.submit(operation(), terms(LONG)).is_ok());
        }
    }
}
