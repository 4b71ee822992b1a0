//! Stories about jobs that failed at a service which is better left alone for a while: they rest, and go to who is well.

#![cfg(not(feature = "shuttle"))]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::job::Job;
use super::lane::{LaneLimits, Pulled};
use super::lane_tests::{
    LONG, MEMBER, OTHER, answered, done, holder, key, lane, lane_of, limits, operation, pull, pull_for, pull_if_any,
    seat, submit, terms,
};
use super::pool::Pool;
use super::seats::Seat;
use crate::model::Fault;

fn fault() -> Fault {
    Fault::Unavailable { what: "HTTP 500".into() }
}

fn only(jobs: impl IntoIterator<Item = Job>) -> Job {
    let mut jobs = jobs.into_iter();
    let job = jobs.next().expect("a job");
    assert!(jobs.next().is_none(), "one job");
    job
}

/// The job that rests, when it comes back.
fn once_due(lane: &(Pool, Seat)) -> Job {
    let end = Instant::now() + LONG;
    loop {
        assert!(Instant::now() < end, "it never comes back");
        let jobs = pull_if_any(lane);
        if !jobs.is_empty() {
            return only(jobs);
        }
        std::thread::yield_now();
    }
}

#[test]
fn a_job_that_rests_holds_up_nobody_and_comes_back() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let (first, second) = (submit(&key).unwrap(), submit(&key).unwrap());
    let due = lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
    assert_eq!(lane.0.lane.depth(), 2);
    assert_eq!(lane.0.lane.depths()[0].1, [0, 2, 0]);
    done(pull(&lane));
    answered(second).unwrap();
    let again = once_due(&lane);
    assert!(Instant::now() >= due);
    assert_eq!(again.attempts, 1);
    done([again]);
    answered(first).unwrap();
}

#[test]
fn a_job_does_not_rest_where_another_member_can_do_it() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    key.add_holder(holder(OTHER));
    let other = seat(&lane.0, OTHER);
    let pending = submit(&key).unwrap();
    lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
    assert!(pull_if_any(&lane).is_empty());
    // Both have failed it: neither gets it at once.
    let again = only(pull_for(&lane.0, &other));
    let due = lane.0.lane.retry_later(again, fault(), OTHER).expect("it is tried again");
    assert_eq!((lane.0.lane.resting(), lane.0.lane.depth()), (1, 1));
    let again = once_due(&lane);
    assert!(Instant::now() >= due);
    assert_eq!(again.attempts, 2);
    done([again]);
    answered(pending).unwrap();
}

#[test]
fn a_job_that_was_not_begun_goes_to_who_is_well_and_is_no_try() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    key.add_holder(holder(OTHER));
    let other = seat(&lane.0, OTHER);
    let pending: Vec<_> = (0..2).map(|_| submit(&key).unwrap()).collect();
    let soon = Instant::now() + LONG;
    lane.0.lane.refused(only(pull(&lane)), fault(), MEMBER, soon);
    // Nor does who is left alone take another.
    assert!(pull_if_any(&lane).is_empty());
    for _ in 0..2 {
        let job = only(pull_for(&lane.0, &other));
        assert_eq!(job.attempts, 0);
        done([job]);
    }
    pending.into_iter().for_each(|pending| drop(answered(pending).unwrap()));
    // Where all are left alone, the asker learns of it at once.
    let pending = submit(&key).unwrap();
    lane.0.lane.refused(only(pull_for(&lane.0, &other)), fault(), OTHER, soon);
    assert_eq!(answered(pending), Err(fault()));
    // It is asked again when its member has come up anew.
    lane.0.lane.begin_epoch(OTHER, 1);
    let pending = submit(&key).unwrap();
    assert!(pull_if_any(&lane).is_empty());
    let other = seat(&lane.0, OTHER);
    done(pull_for(&lane.0, &other));
    answered(pending).unwrap();
}

#[test]
fn a_job_that_failed_waits_for_what_is_left_alone_as_long_as_it_may() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let pending = submit(&key).unwrap();
    lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
    let until = Instant::now() + Duration::from_millis(300);
    let due = lane.0.lane.refused(once_due(&lane), fault(), MEMBER, until).expect("it is tried again then");
    assert!(due >= until && lane.0.lane.resting() == 1);
    let again = once_due(&lane);
    assert!(Instant::now() >= due);
    // That was no try.
    assert_eq!(again.attempts, 1);
    // Past its deadline it is of no use.
    assert_eq!(lane.0.lane.refused(again, fault(), MEMBER, Instant::now() + LONG * 2), None);
    assert_eq!(answered(pending), Err(fault()));
}

#[test]
fn who_asks_to_be_left_alone_is_and_who_cannot_wait_so_long_learns_of_it_at_once() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let ask = |left: Duration| key.submit(operation(), terms(left));
    let (patient, impatient) = (ask(LONG).unwrap(), ask(Duration::from_secs(10)).unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    let told = Fault::QuotaExceeded { what: "used up".into(), retry_after: Duration::ZERO };
    lane.0.lane.pause(pull(&lane).into_iter(), told.clone(), MEMBER, until);
    let is_told = |fault: &Fault| matches!(fault, Fault::QuotaExceeded { retry_after, .. } if *retry_after > LONG / 10);
    let fault = answered(impatient).unwrap_err();
    assert!(is_told(&fault), "{fault:?}");
    assert!(is_told(&ask(Duration::from_secs(10)).unwrap_err()));
    // The others wait, and take no session's time.
    let late = ask(LONG).unwrap();
    assert!(pull_if_any(&lane).is_empty());
    assert_eq!(lane.0.lane.depth(), 2);
    // Another member that is not left alone takes them all.
    key.add_holder(holder(OTHER));
    let other = seat(&lane.0, OTHER);
    let hurried = ask(Duration::from_secs(10)).unwrap();
    for _ in 0..3 {
        done(pull_for(&lane.0, &other));
    }
    for pending in [patient, late, hurried] {
        answered(pending).unwrap();
    }
    // It is over when its time is.
    key.remove_holder(OTHER, &fault);
    let pending = ask(LONG).unwrap();
    lane.0.lane.pause(std::iter::empty(), told, MEMBER, Instant::now());
    done([once_due(&lane)]);
    answered(pending).unwrap();
}

#[test]
fn what_comes_back_while_its_service_asks_to_be_left_alone_is_told_so_where_it_cannot_wait() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let until = Instant::now() + Duration::from_secs(20);
    let told = Fault::QuotaExceeded { what: "used up".into(), retry_after: Duration::ZERO };
    for left in [Duration::from_secs(10), LONG] {
        lane.0.lane.begin_epoch(MEMBER, 1);
        let pending = key.submit(operation(), terms(left)).unwrap();
        let jobs = pull(&lane);
        lane.0.lane.pause(std::iter::empty(), told.clone(), MEMBER, until);
        lane.0.lane.put_back(jobs.into_iter());
        assert!(pull_if_any(&lane).is_empty());
        match left < LONG {
            true => assert!(matches!(answered(pending), Err(Fault::QuotaExceeded { .. }))),
            false => assert_eq!(lane.0.lane.depth(), 1, "it waits"),
        }
    }
}

#[test]
fn a_turn_that_comes_too_late_is_anothers_once_and_else_told() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let pending = submit(&key).unwrap();
    lane.0.lane.too_late(only(pull(&lane)), fault(), MEMBER);
    assert_eq!(answered(pending), Err(fault()));
    key.add_holder(holder(OTHER));
    let other = seat(&lane.0, OTHER);
    let pending = submit(&key).unwrap();
    lane.0.lane.too_late(only(pull(&lane)), fault(), MEMBER);
    assert!(pull_if_any(&lane).is_empty());
    lane.0.lane.too_late(only(pull_for(&lane.0, &other)), fault(), OTHER);
    assert_eq!(answered(pending), Err(fault()));
}

#[test]
fn a_failed_call_is_tried_as_long_as_deadline_and_budget_let_it_where_it_rests_between() {
    let rich = LaneLimits { retry_burst: 100, ..limits(8, 8, 1) };
    // This budget has room for two further tries at first.
    let poor = limits(8, 8, 1);
    for (limits, rests, tries) in [(rich, true, rich.resting_attempts), (rich, false, rich.attempts), (poor, true, 3)] {
        let lane = lane_of(limits);
        let key = self::key(&lane.0, None);
        let pending = submit(&key).unwrap();
        let mut job = only(pull(&lane));
        let mut made = 1;
        loop {
            let again = match rests {
                true => lane.0.lane.retry_later(job, fault(), MEMBER).is_some(),
                false => lane.0.lane.retry(job, fault(), MEMBER),
            };
            if !again {
                break;
            }
            (job, made) = (once_due(&lane), made + 1);
        }
        assert_eq!((made, answered(pending)), (tries, Err(fault())), "{rests}");
    }
}

#[test]
fn tries_that_rested_leave_a_job_those_that_do_not() {
    let limits = LaneLimits { retry_burst: 100, resting_attempts: 9, ..limits(8, 8, 1) };
    let lane = lane_of(limits);
    let key = self::key(&lane.0, None);
    let pending = submit(&key).unwrap();
    let mut job = only(pull(&lane));
    // An outage, at whose end the key has to be found again.
    for _ in 1..limits.resting_attempts {
        assert!(lane.0.lane.retry_later(job, fault(), MEMBER).is_some());
        job = once_due(&lane);
    }
    for _ in 1..limits.attempts {
        assert!(lane.0.lane.retry(job, fault(), MEMBER));
        job = once_due(&lane);
    }
    assert!(job.attempts > limits.resting_attempts);
    assert!(!lane.0.lane.retry(job, fault(), MEMBER));
    assert_eq!(answered(pending), Err(fault()));
}

#[test]
fn members_that_are_brought_up_anew_end_no_job_but_one_that_always_is() {
    let limits = LaneLimits { retry_burst: 100, ..limits(8, 8, 1) };
    let lane = lane_of(limits);
    let key = self::key(&lane.0, None);
    let pending = submit(&key).unwrap();
    let mut job = only(pull(&lane));
    for _ in 1..limits.resting_attempts {
        assert!(lane.0.lane.retry_brought_up(job, fault(), MEMBER));
        job = once_due(&lane);
    }
    // So often it is not tried at once.
    assert!(job.attempts > limits.attempts);
    assert!(!lane.0.lane.retry_brought_up(job, fault(), MEMBER));
    assert_eq!(answered(pending), Err(fault()));
}

#[test]
fn a_call_that_was_made_is_no_job_that_was_only_queued() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let _pending = submit(&key).unwrap();
    let mut job = only(pull(&lane));
    key.note_throttled();
    assert!(job.late().left_the_device_alone());
    // By a session whose proof of the key a breaker refused afterwards: that was no try.
    job.tried = true;
    assert_eq!((job.attempts, job.late()), (0, Fault::DeadlineExceeded { stage: "started" }));
}

#[tokio::test]
async fn what_throttling_kept_to_its_deadline_is_told_so_by_whoever_looks_first() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    for is_throttled in [true, false] {
        let _other = submit(&key).unwrap();
        let (other, terms) = (only(pull(&lane)), terms(Duration::from_millis(250)));
        let pending = key.submit(operation(), terms).unwrap();
        key.note_throttled();
        match is_throttled {
            true => done([other]),
            // That is what keeps the key's jobs since.
            false => assert!(lane.0.lane.retry_later(other, fault(), MEMBER).is_some()),
        }
        // No session looks at it, and who asked waits no longer than to the deadline.
        match tokio::time::timeout_at(terms.deadline.instant().into(), pending).await {
            Ok(told) => {
                let told = told.unwrap_err();
                assert!(is_throttled && told.to_string().contains("while the service of its key throttles"), "{told}");
                assert!(!told.left_the_device_alone(), "a session may have begun it in this moment");
            }
            Err(_) => assert!(!is_throttled, "it is told nothing"),
        }
    }
}

#[test]
fn what_rests_counts_against_the_bounds_like_what_is_queued() {
    for (jobs, per_namespace) in [(2, 8), (8, 2)] {
        let lane = lane(jobs, per_namespace, 1);
        let key = key(&lane.0, None);
        let _asked = [submit(&key).unwrap(), submit(&key).unwrap()];
        lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
        assert!(matches!(submit(&key), Err(Fault::Overloaded { limit: 2, .. })));
        done([only(pull(&lane))]);
        let _fits = submit(&key).unwrap();
        assert!(submit(&key).is_err());
    }
}

#[test]
fn who_was_left_alone_is_woken_when_that_is_over() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    key.add_holder(holder(OTHER));
    let idle = seat(&lane.0, OTHER);
    let over = Instant::now() + Duration::from_millis(300);
    let pending = submit(&key).unwrap();
    lane.0.lane.refused(only(pull(&lane)), fault(), OTHER, over);
    std::thread::scope(|scope| {
        let pool = &lane.0;
        let sleeper = scope.spawn(move || {
            let mut jobs = VecDeque::new();
            (pool.lane.pull(&idle, &mut jobs, Some(LONG)), jobs)
        });
        // As the watchdog does: the others are all inside calls.
        while !sleeper.is_finished() {
            pool.lane.nudge_if_waiting();
            std::thread::yield_now();
        }
        let (pulled, jobs) = sleeper.join().unwrap();
        assert!(pulled == Pulled::Jobs && Instant::now() >= over);
        done(jobs);
    });
    answered(pending).unwrap();
}

#[test]
fn a_session_waits_no_longer_with_a_job_whose_key_its_member_holds_no_more() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let _pending = submit(&key).unwrap();
    let job = only(pull(&lane));
    assert!(!lane.0.lane.prefers_another(&lane.1, job.work(), None));
    key.remove_holder(MEMBER, &fault());
    assert!(lane.0.lane.prefers_another(&lane.1, job.work(), None));
}

#[test]
fn a_job_is_handed_to_who_is_idle_once_and_never_to_who_failed_it() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    key.add_holder(holder(OTHER));
    let pending = submit(&key).unwrap();
    let mut job = only(pull(&lane));
    job.avoid = Some(OTHER);
    let idle = seat(&lane.0, OTHER);
    std::thread::scope(|scope| {
        let pool = &lane.0;
        let sleeper = scope.spawn(move || pool.lane.pull(&idle, &mut VecDeque::new(), Some(LONG)));
        let end = Instant::now() + LONG;
        while pool.lane.asleep() == 0 {
            assert!(Instant::now() < end, "it does not fall asleep");
            std::thread::yield_now();
        }
        let prefers = [None, Some(OTHER)].map(|avoid| pool.lane.prefers_another(&lane.1, job.work(), avoid));
        assert_eq!(prefers, [true, false]);
        pool.lane.hand_back(std::iter::once(job), MEMBER);
        let again = only(pull(&lane));
        assert_eq!((again.avoid, pool.lane.asleep()), (Some(OTHER), 1));
        done([again]);
        pool.lane.close();
        assert_eq!(sleeper.join().unwrap(), Pulled::End);
    });
    answered(pending).unwrap();
}

#[test]
fn a_closed_lane_waits_for_what_rests_and_no_longer_than_somebody_wants_it() {
    let lane = lane(8, 8, 1);
    let key = key(&lane.0, None);
    let pending = submit(&key).unwrap();
    lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
    lane.0.lane.close();
    assert!(!lane.0.lane.is_done());
    drop(pending);
    lane.0.lane.sweep();
    assert!(lane.0.lane.is_done());
    let lane = self::lane(8, 8, 1);
    let key = self::key(&lane.0, None);
    let pending = submit(&key).unwrap();
    lane.0.lane.retry_later(only(pull(&lane)), fault(), MEMBER).expect("it is tried again");
    lane.0.lane.abandon();
    assert!(matches!(answered(pending), Err(Fault::Unavailable { .. })));
}
