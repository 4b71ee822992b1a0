//! Buckets, breakers, tallies and limits of what is in flight, in simulated time.

use std::time::{Duration, Instant};

use super::breaker::{Breaker, BreakerState, Pass};
use super::bucket::Bucket;
use super::in_flight::InFlight;
use super::tally::Tally;
use crate::model::Dice;

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_bucket_gives_its_depth_and_then_its_rate() {
    let start = Instant::now();
    let mut bucket = Bucket::new(10.0, 3.0, start);
    let taken =
        |bucket: &mut Bucket, now| std::iter::repeat_with(|| bucket.take(1.0, now)).take_while(|took| *took).count();
    assert_eq!(taken(&mut bucket, start), 3);
    assert_eq!(bucket.next(1.0), start + SECOND / 10);
    assert_eq!(taken(&mut bucket, start + SECOND / 10), 1);
    // However long it rests, no deeper.
    assert_eq!(taken(&mut bucket, start + 100 * SECOND), 3);
    // What costs more than it holds goes when it is full, and is paid for afterwards.
    let now = start + 200 * SECOND;
    assert!(bucket.take(5.0, now));
    assert_eq!(bucket.next(1.0), now + 3 * SECOND / 10);
    assert!(!bucket.take(5.0, now + SECOND / 5));
    bucket.empty(now + SECOND);
    assert!(!bucket.take(1.0, now + SECOND));
    bucket.set(1.0, 2.0, now + SECOND);
    assert_eq!(bucket.next(1.0), now + 2 * SECOND);
}

#[test]
fn a_bucket_so_slow_that_time_has_no_end_says_an_hour() {
    let start = Instant::now();
    let mut bucket = Bucket::new(1e-12, 1.0, start);
    assert!(bucket.take(1.0, start));
    assert_eq!(bucket.next(1.0), start + Duration::from_secs(3600));
}

#[test]
fn a_tally_is_of_the_last_window() {
    let start = Instant::now();
    let mut tally = Tally::new(10 * SECOND, start);
    tally.add(1.0, start);
    tally.add(2.0, start + 5 * SECOND);
    assert_eq!(tally.sum(start + 10 * SECOND), 3.0);
    assert_eq!(tally.sum(start + 12 * SECOND), 2.0);
    assert_eq!(tally.sum(start + 1_000 * SECOND), 0.0);
    tally.add(4.0, start + 1_000 * SECOND);
    assert_eq!(tally.sum(start + 1_009 * SECOND), 4.0);
}

#[test]
fn a_breaker_opens_after_failures_in_a_row_and_closes_after_one_probe() {
    let (mut dice, start) = (Dice::seeded(1), Instant::now());
    let mut breaker = Breaker::new(3);
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    breaker.failed(at(0), false, true, &mut dice, at(10));
    breaker.failed(at(11), false, true, &mut dice, at(20));
    breaker.answered();
    // Four in a row, and yet too soon: it may be over in a moment.
    for (sent, known) in [(21, 30), (31, 40), (41, 50), (51, 60)] {
        assert!(!breaker.failed(at(sent), false, true, &mut dice, at(known)));
        assert_eq!(breaker.check(at(known)), Pass::Yes);
    }
    assert!(breaker.failed(at(261), false, true, &mut dice, at(271)));
    let Pass::No(until) = breaker.check(at(272)) else { panic!("closed") };
    assert!((at(271 + 375)..=at(271 + 500)).contains(&until));
    assert_eq!(breaker.state(at(272)), BreakerState::Open);
    // What was on its way is no news.
    assert!(!breaker.failed(at(270), false, true, &mut dice, at(280)));
    assert_eq!(breaker.check(at(281)), Pass::No(until));
    assert_eq!(breaker.state(until), BreakerState::HalfOpen);
    assert_eq!(breaker.pass(until), Pass::Probe);
    assert!(matches!(breaker.pass(until), Pass::No(_)));
    // A probe without a word lets another one go.
    breaker.gave_up();
    assert_eq!(breaker.pass(until), Pass::Probe);
    assert!(breaker.failed(until, true, true, &mut dice, until));
    let Pass::No(longer) = breaker.check(until) else { panic!("closed") };
    assert!(longer >= until + Duration::from_millis(750));
    assert_eq!(breaker.pass(longer), Pass::Probe);
    breaker.answered();
    assert_eq!(breaker.pass(longer), Pass::Yes);
}

#[test]
fn a_volley_lost_with_one_connection_opens_no_breaker() {
    let (mut dice, start) = (Dice::seeded(1), Instant::now());
    let mut breaker = Breaker::new(3);
    for _ in 0..100 {
        assert!(!breaker.failed(start, false, true, &mut dice, start + SECOND));
    }
    assert_eq!(breaker.check(start + SECOND), Pass::Yes);
    assert!(breaker.failed(start + SECOND, false, true, &mut dice, start + 2 * SECOND));
}

#[test]
fn what_may_not_open_a_breaker_does_not() {
    let (mut dice, start) = (Dice::seeded(1), Instant::now());
    let mut breaker = Breaker::new(3);
    for second in 0..100 {
        let at = start + second * SECOND;
        assert!(!breaker.failed(at, false, false, &mut dice, at));
    }
    assert!(breaker.failed(start + 100 * SECOND, false, true, &mut dice, start + 100 * SECOND));
}

#[test]
fn a_breaker_never_stays_open_for_more_than_half_a_minute() {
    let (mut dice, mut now) = (Dice::seeded(1), Instant::now());
    let mut breaker = Breaker::new(1);
    assert!(!breaker.failed(now, false, true, &mut dice, now));
    now += SECOND;
    assert!(breaker.failed(now, false, true, &mut dice, now));
    for _ in 0..100 {
        let Pass::No(until) = breaker.check(now) else { panic!("closed") };
        assert!(until - now <= Duration::from_secs(30));
        now = until;
        assert_eq!(breaker.pass(now), Pass::Probe);
        breaker.failed(now, true, true, &mut dice, now);
    }
}

/// Answers to as many as may be in flight at once, so many times.
fn rounds(in_flight: &mut InFlight, number: &mut u64, latency: Duration, rounds: usize) {
    for _ in 0..rounds {
        let first = *number;
        while !in_flight.is_full() {
            in_flight.sent(*number);
            *number += 1;
        }
        for answered in first..*number {
            in_flight.answered(answered, latency);
            in_flight.over();
        }
    }
}

#[test]
fn what_may_be_in_flight_grows_while_it_is_used_and_falls_when_something_is_amiss() {
    let (mut in_flight, mut number) = (InFlight::new(200), 1);
    let first = in_flight.limit();
    for _ in 0..100 {
        in_flight.sent(number);
        in_flight.answered(number, SECOND / 50);
        in_flight.over();
        number += 1;
    }
    assert_eq!(in_flight.limit(), first, "nobody met the limit");
    rounds(&mut in_flight, &mut number, SECOND / 50, 1_000);
    assert_eq!(in_flight.limit(), 200);
    // A volley that fails is one sign.
    let volley: Vec<u64> = (number..number + 100).collect();
    volley.iter().for_each(|number| in_flight.sent(*number));
    for number in volley {
        in_flight.failed(number);
        in_flight.over();
    }
    assert_eq!(in_flight.limit(), 140);
    for number in 1_000_000..1_000_100 {
        in_flight.sent(number);
        in_flight.failed(number);
        in_flight.over();
    }
    assert_eq!(in_flight.limit(), 4);
    assert_eq!(in_flight.count(), 0);
}

#[test]
fn answers_that_take_many_times_as_long_are_a_sign_of_a_queue() {
    let (mut in_flight, mut number) = (InFlight::new(500), 1);
    rounds(&mut in_flight, &mut number, SECOND / 50, 1_000);
    let grown = in_flight.limit();
    assert_eq!(grown, 500);
    rounds(&mut in_flight, &mut number, SECOND / 2, 10);
    assert!(in_flight.limit() < grown / 2, "{}", in_flight.limit());
    // Ten times of very little is little.
    let (mut in_flight, mut number) = (InFlight::new(500), 1);
    rounds(&mut in_flight, &mut number, SECOND / 1_000, 1_000);
    rounds(&mut in_flight, &mut number, SECOND / 100, 10);
    assert_eq!(in_flight.limit(), 500);
}

#[test]
fn one_may_always_be_in_flight_and_no_more_than_configured() {
    let mut in_flight = InFlight::new(0);
    assert_eq!(in_flight.limit(), 1);
    in_flight.set_most(2);
    in_flight.failed(1);
    assert_eq!(in_flight.limit(), 1);
    assert!(!in_flight.is_full());
    in_flight.sent(2);
    assert!(in_flight.is_full());
}
