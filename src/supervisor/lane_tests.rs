//! Stories about the lane: bounds, batches, deadlines, and every job answered exactly once.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::prelude::*;

use super::job::{Job, Pending};
use super::lane::{Lane, LaneLimits, Seat};
use super::route::{Holder, KeyRoute, KeySpec, MemberId};
use crate::backend::KeySelector;
use crate::model::{
    Class, Deadline, Fault, Hash, KeyKind, KeyOperation, Namespace, PublicKey, SignInput, SignatureScheme, Terms,
    TokenSelector,
};

const MEMBER: MemberId = MemberId(0);
const SEAT: Seat = Seat { member: MEMBER, epoch: 1 };

fn lane(jobs: usize, per_namespace: usize, batch_max: usize) -> Arc<Lane> {
    let batch_time = Duration::from_micros(250);
    let lane = Lane::new(LaneLimits { jobs, jobs_per_namespace: per_namespace, batch_max, batch_time });
    lane.begin_epoch(MEMBER, 1);
    lane.sit(SEAT);
    lane
}

fn key(lane: &Arc<Lane>, max_parallel: Option<usize>) -> Arc<KeyRoute> {
    let spec = KeySpec {
        uuid: "u".into(),
        name: "k".into(),
        namespace: Namespace::root(),
        library: "hsm".into(),
        token: TokenSelector::Slot(0),
        pin: None,
        selector: KeySelector { label: Some("k".into()), id: None },
        generate: None,
        recorded: None,
        max_parallel,
    };
    let public = PublicKey { kind: KeyKind::Ed25519, spki: Bytes::new() };
    let route = Arc::new(KeyRoute::new(&spec, &public, Arc::clone(lane)));
    route.add_holder(Holder { member: MEMBER, epoch: 1, handle: 7 });
    route
}

fn terms(namespace: &str, deadline: Duration) -> Terms {
    let deadline = Deadline::after(deadline);
    Terms { namespace: Namespace::from_path(namespace), class: Class::Interactive, deadline }
}

fn operation() -> KeyOperation {
    let input = SignInput::Message(Bytes::from_static(b"m"));
    KeyOperation::Sign { scheme: SignatureScheme::Ed25519, hash: Hash::None, input }
}

const LONG: Duration = Duration::from_secs(60);

fn submit(key: &Arc<KeyRoute>) -> Result<Pending, Fault> {
    key.submit(operation(), &terms("", LONG))
}

fn pull(lane: &Lane) -> VecDeque<Job> {
    let mut batch = VecDeque::new();
    assert!(lane.pull(SEAT, &mut batch));
    batch
}

fn answered(pending: Pending) -> Result<Bytes, Fault> {
    futures_util::FutureExt::now_or_never(pending).expect("the job is answered")
}

#[test]
fn a_full_lane_refuses_at_once_and_tells_of_the_callers_namespace_only() {
    let lane = lane(3, 2, 32);
    let key = key(&lane, None);
    let _kept: Vec<_> = (0..2).map(|_| key.submit(operation(), &terms("a", LONG)).unwrap()).collect();
    let own = key.submit(operation(), &terms("a", LONG)).unwrap_err();
    assert!(matches!(own, Fault::Overloaded { ref namespace, limit: 2, .. } if namespace.as_str() == "a/"));
    let _other = key.submit(operation(), &terms("b", LONG)).unwrap();
    let whole = key.submit(operation(), &terms("c", LONG)).unwrap_err();
    assert!(matches!(whole, Fault::Overloaded { ref namespace, limit: 3, .. } if namespace.as_str() == "c/"));
}

#[test]
fn room_is_given_back_when_jobs_are_pulled() {
    let lane = lane(1, 1, 32);
    let key = key(&lane, None);
    for _ in 0..3 {
        let pending = submit(&key).unwrap();
        for job in pull(&lane) {
            job.key.end();
            job.answer(Ok(Bytes::from_static(b"s")));
        }
        assert_eq!(answered(pending).unwrap(), Bytes::from_static(b"s"));
    }
}

#[test]
fn an_unknown_or_slow_device_gets_one_job_at_a_time_and_a_fast_one_a_batch() {
    let lane = lane(100, 100, 32);
    let key = key(&lane, None);
    let _pending: Vec<_> = (0..40).map(|_| submit(&key).unwrap()).collect();
    assert_eq!(pull(&lane).len(), 1, "nothing is known of the key yet");
    key.learn(Duration::from_millis(1));
    assert_eq!(pull(&lane).len(), 1, "slower than the batch time");
    (0..60).for_each(|_| key.learn(Duration::from_micros(1)));
    assert!(pull(&lane).len() > 20, "fast");
}

#[test]
fn a_batch_is_the_sessions_share_of_the_queue() {
    let lane = lane(100, 100, 32);
    lane.sit(SEAT);
    lane.sit(SEAT);
    lane.sit(SEAT);
    let key = key(&lane, None);
    key.learn(Duration::from_nanos(10));
    let _pending: Vec<_> = (0..8).map(|_| submit(&key).unwrap()).collect();
    assert_eq!(pull(&lane).len(), 2, "eight jobs over four sessions");
}

#[test]
fn a_job_past_its_deadline_is_not_started() {
    let lane = lane(10, 10, 32);
    let key = key(&lane, None);
    let late = key.submit(operation(), &terms("", Duration::from_millis(1))).unwrap();
    let waited = Instant::now();
    while waited.elapsed() < Duration::from_millis(3) {
        std::thread::yield_now();
    }
    let good = submit(&key).unwrap();
    let batch = pull(&lane);
    assert_eq!(batch.len(), 1);
    assert_eq!(answered(late), Err(Fault::DeadlineExceeded { stage: "queued" }));
    drop(batch);
    assert!(matches!(answered(good), Err(Fault::Unavailable { .. })), "a dropped job is answered too");
}

#[test]
fn a_job_whose_asker_left_is_not_started() {
    let lane = lane(10, 10, 32);
    let key = key(&lane, None);
    drop(submit(&key).unwrap());
    let kept = submit(&key).unwrap();
    assert_eq!(pull(&lane).len(), 1);
    drop(kept);
}

#[test]
fn jobs_of_a_key_nobody_holds_are_answered_at_once() {
    let lane = lane(10, 10, 32);
    let key = key(&lane, None);
    let queued = submit(&key).unwrap();
    let gone = Fault::KeyUnavailable { key: "k".into(), reason: "token removed".into() };
    key.remove_holder(MEMBER, &gone);
    lane.sweep();
    assert_eq!(answered(queued), Err(gone.clone()));
    assert_eq!(submit(&key).unwrap_err(), gone);
}

#[test]
fn max_parallel_caps_one_keys_jobs_in_flight_and_holds_nobody_else_up() {
    let lane = lane(10, 10, 32);
    let capped = key(&lane, Some(1));
    let free = key(&lane, None);
    [&capped, &free].iter().for_each(|key| key.learn(Duration::from_nanos(10)));
    let _pending = [submit(&capped).unwrap(), submit(&capped).unwrap(), submit(&free).unwrap()];
    let batch = pull(&lane);
    assert_eq!(batch.len(), 2);
    assert!(Arc::ptr_eq(&batch[1].key, &free));
    assert!(capped.end());
    assert_eq!(pull(&lane).len(), 1, "the place is free again");
}

#[test]
fn a_void_seat_and_a_drained_lane_end_the_session() {
    let lane = lane(10, 10, 32);
    let key = key(&lane, None);
    let pending = submit(&key).unwrap();
    lane.close();
    assert!(matches!(submit(&key), Err(Fault::Unavailable { .. })), "a closed lane accepts nothing");
    assert_eq!(pull(&lane).len(), 1, "but finishes what it has");
    assert!(!lane.pull(SEAT, &mut VecDeque::new()));
    lane.begin_epoch(MEMBER, 2);
    assert!(!lane.pull(SEAT, &mut VecDeque::new()));
    drop(pending);
}

#[test]
fn a_burst_wakes_as_many_sessions_as_it_has_work_for() {
    const SESSIONS: usize = 4;
    let lane = lane(64, 64, 8);
    (1..SESSIONS).for_each(|_| lane.sit(SEAT));
    let key = key(&lane, None);
    // Each session stays in its first job until all have one: it would stay for ever if one was not woken.
    let all_busy = std::sync::Barrier::new(SESSIONS + 1);
    let burst: Vec<Pending> = std::thread::scope(|scope| {
        for _ in 0..SESSIONS {
            scope.spawn(|| {
                let mut first = true;
                let mut batch = VecDeque::new();
                while lane.pull(SEAT, &mut batch) {
                    if std::mem::take(&mut first) {
                        all_busy.wait();
                    }
                    batch.drain(..).for_each(|job| job.answer(Ok(Bytes::new())));
                }
            });
        }
        // All asleep: the wake-ups are what is tried.
        while lane.asleep() < SESSIONS {
            std::thread::yield_now();
        }
        let burst = (0..SESSIONS).map(|_| submit(&key).unwrap()).collect();
        all_busy.wait();
        lane.close();
        burst
    });
    burst.into_iter().for_each(|pending| assert!(answered(pending).is_ok()));
}

#[test]
fn a_job_put_back_keeps_its_place_at_the_head() {
    let lane = lane(10, 10, 1);
    let key = key(&lane, None);
    let first = submit(&key).unwrap();
    let _second = submit(&key).unwrap();
    let taken = pull(&lane);
    for job in &taken {
        job.key.end();
    }
    lane.put_back(taken.into_iter());
    for job in pull(&lane) {
        job.answer(Ok(Bytes::from_static(b"first")));
    }
    assert_eq!(answered(first).unwrap(), Bytes::from_static(b"first"));
}

proptest! {
    #[test]
    fn whatever_happens_each_accepted_job_is_answered_once_and_the_counts_come_out_even(
        steps in proptest::collection::vec(0u8..6, 1..200)
    ) {
        let lane = lane(16, 8, 4);
        let key = key(&lane, None);
        let mut asked = Vec::new();
        let mut refused = 0usize;
        for step in &steps {
            match step {
                0..=2 => match submit(&key) { Ok(pending) => asked.push(pending), Err(_) => refused += 1 },
                3 if lane.depth() > 0 => {
                    for job in pull(&lane) { job.key.end(); job.answer(Ok(Bytes::new())); }
                }
                4 if lane.depth() > 0 => {
                    let batch = pull(&lane);
                    for job in &batch { job.key.end(); }
                    lane.put_back(batch.into_iter());
                }
                _ => {}
            }
            prop_assert!(lane.depth() <= 16);
        }
        prop_assert!(refused == 0 || asked.len() >= 8);
        lane.abandon();
        prop_assert_eq!(lane.depth(), 0);
        for pending in asked {
            let answer = futures_util::FutureExt::now_or_never(pending);
            prop_assert!(answer.is_some());
        }
        prop_assert!(submit(&key).is_ok(), "all room is free again");
    }
}
