//! Stories about how a member fares, and random faults against what must always hold.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::health::{Again, Event, Health, Step};
use crate::backend::Fate;
use crate::model::MemberState;

const MIN: Duration = Duration::from_millis(100);
const MAX: Duration = Duration::from_secs(1);

/// Brings it up with all its sessions.
fn serve(health: &mut Health, sessions: usize, now: Instant) {
    health.on(Event::CameUp { sessions, most: sessions }, now);
    open_all(health, now);
}

fn open_all(health: &mut Health, now: Instant) {
    loop {
        let due = health.to_open();
        if due == 0 {
            return;
        }
        health.note_opening(due);
        (0..due).for_each(|_| assert_eq!(health.on(Event::SessionOpened, now), Step::Stay));
    }
}

fn soon(milliseconds: u64) -> Step {
    Step::TakeDown(Again::Soon(Duration::from_millis(milliseconds)))
}

#[test]
fn sessions_come_back_gently() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    health.on(Event::CameUp { sessions: 16, most: 16 }, now);
    assert_eq!(health.state(), MemberState::Warming);
    let mut waves = Vec::new();
    while health.to_open() > 0 {
        let due = health.to_open();
        waves.push(due);
        health.note_opening(due);
        assert_eq!(health.to_open(), 0, "a wave waits for the one before");
        (0..due).for_each(|_| assert_eq!(health.on(Event::SessionOpened, now), Step::Stay));
    }
    assert_eq!(waves, [1, 1, 2, 4, 8]);
    assert_eq!(health.state(), MemberState::Serving);
}

#[test]
fn who_served_well_gets_quick_tries_and_then_pauses_that_grow() {
    let mut health = Health::new(MIN, MAX);
    let begun = Instant::now();
    serve(&mut health, 2, begun);
    let later = begun + Duration::from_secs(60);
    let mut step = health.on(Event::SessionLost(Fate::LoginAgain), later);
    let mut quick = Vec::new();
    while let Step::TakeDown(Again::Soon(pause)) = step {
        quick.push(pause.as_millis());
        assert_eq!(health.probe(), Step::BringUp);
        step = health.on(Event::StayedDown(Fate::Reinitialize), later);
    }
    assert_eq!(quick, [10, 30, 100, 300, 1000]);
    assert_eq!(step, Step::TakeDown(Again::After(MIN)));
    assert_eq!(health.probe(), Step::BringUp);
    serve(&mut health, 2, later);
    // It did not last: no quick tries for it.
    let soon = later + Duration::from_millis(1);
    assert_eq!(health.on(Event::SessionLost(Fate::LoginAgain), soon), Step::TakeDown(Again::After(2 * MIN)));
}

#[test]
fn who_is_lost_in_its_first_moments_gets_quick_tries_and_who_is_lost_again_and_again_does_not() {
    let mut health = Health::new(MIN, MAX);
    let begun = Instant::now();
    let at = |milliseconds: u64| begun + Duration::from_millis(milliseconds);
    let mut dies = |now| {
        serve(&mut health, 2, now);
        let step = health.on(Event::SessionLost(Fate::Reinitialize), now);
        assert_eq!(health.probe(), Step::BringUp);
        step
    };
    // Jobs came as soon as it served, and wait for it.
    let steps: Vec<Step> = (0..6).map(|number| dies(at(number))).collect();
    assert_eq!(steps[..5], [10, 30, 100, 300, 1000].map(soon));
    assert_eq!(steps[5], Step::TakeDown(Again::After(MIN)));
    assert_eq!(dies(at(1000)), Step::TakeDown(Again::After(2 * MIN)), "the pauses go on growing");
    assert_eq!(dies(at(1001)), soon(10), "once in the longest pause");
}

#[test]
fn who_dies_again_and_again_comes_back_at_once_as_long_as_it_does_much_in_between() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    let mut dies = |served| {
        serve(&mut health, 2, now);
        health.note_served(served);
        // Whoever notices first.
        let event = if served % 2 == 0 { Event::SessionLost(Fate::Reinitialize) } else { Event::LibraryLost };
        let step = health.on(event, now);
        assert_eq!(health.probe(), Step::BringUp);
        step
    };
    for served in 40..90 {
        assert_eq!(dies(served), soon(10));
    }
    // Now it does nothing any more.
    let steps: Vec<Step> = (0..5).map(|_| dies(0)).collect();
    assert_eq!(steps, [soon(30), soon(100), soon(300), soon(1000), Step::TakeDown(Again::After(MIN))]);
}

#[test]
fn a_session_that_cannot_be_opened_anew_costs_itself_alone_and_the_last_one_takes_the_member_down() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 3, now);
    assert_eq!(health.on(Event::SessionLost(Fate::BackOff), now), Step::Stay);
    assert_eq!((health.open(), health.to_open(), health.state()), (2, 1, MemberState::Warming));
    open_all(&mut health, now);
    assert_eq!(health.state(), MemberState::Serving);
    // A lost login is lost to all of them.
    assert_eq!(health.on(Event::SessionLost(Fate::LoginAgain), now), soon(10));
    assert_eq!(health.probe(), Step::BringUp);
    serve(&mut health, 1, now);
    assert_eq!(health.on(Event::SessionLost(Fate::BackOff), now), soon(30));
}

#[test]
fn a_token_that_had_no_room_for_a_moment_is_asked_again_soon() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 16, now);
    for _ in 0..13 {
        assert_eq!(health.on(Event::SessionLost(Fate::BackOff), now), Step::Stay);
    }
    let refused = |health: &mut Health| {
        health.note_opening(1);
        health.on(Event::SessionRefused(Fate::BackOff), now);
        (health.state(), health.open(), health.to_open())
    };
    assert_eq!(refused(&mut health), (MemberState::Degraded, 3, 0));
    // It asks for one, and then for all.
    health.on(Event::Clock, now + MIN);
    assert_eq!((health.state(), health.to_open()), (MemberState::Degraded, 1));
    open_all(&mut health, now + MIN);
    assert_eq!((health.state(), health.open()), (MemberState::Serving, 16));
}

#[test]
fn calls_that_hang_count_as_threads_and_not_as_room() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 2, now);
    health.on(Event::SessionLost(Fate::BackOff), now);
    health.note_opening(1);
    health.on(Event::SessionRefused(Fate::BackOff), now);
    health.on(Event::SessionStuck { opened: true }, now);
    assert_eq!((health.stuck(), health.to_open()), (1, 1));
    health.note_opening(1);
    health.on(Event::SessionOpened, now);
    health.on(Event::SessionStuck { opened: true }, now);
    assert_eq!((health.stuck(), health.to_open()), (2, 1), "four threads are the most of two sessions");
}

#[test]
fn a_refused_pin_ends_all_tries_until_another_is_given() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    assert_eq!(health.on(Event::StayedDown(Fate::Retire), now), Step::TakeDown(Again::Never));
    assert_eq!((health.state(), health.probe()), (MemberState::Refused, Step::Stay));
    assert_eq!(health.on(Event::LibraryLost, now), Step::Stay);
    assert_eq!(health.on(Event::NewPin, now), Step::BringUp);
    assert_eq!(health.state(), MemberState::Probing);
}

#[test]
fn a_token_that_allows_fewer_sessions_serves_with_those() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    health.on(Event::CameUp { sessions: 8, most: 8 }, now);
    for _ in 0..3 {
        health.note_opening(1);
        health.on(Event::SessionOpened, now);
    }
    health.note_opening(1);
    assert_eq!(health.on(Event::SessionRefused(Fate::BackOff), now), Step::Stay);
    assert_eq!((health.state(), health.open(), health.to_open()), (MemberState::Degraded, 3, 0));
    // It may have room later.
    health.on(Event::Clock, now + MIN / 2);
    assert_eq!((health.state(), health.to_open()), (MemberState::Degraded, 0));
    let later = now + MAX;
    health.on(Event::Clock, later);
    health.note_opening(health.to_open());
    assert_eq!(health.on(Event::SessionRefused(Fate::BackOff), later), Step::Stay);
    assert_eq!((health.state(), health.open(), health.to_open()), (MemberState::Degraded, 3, 0));
    health.on(Event::Clock, later + MAX);
    open_all(&mut health, later);
    assert_eq!((health.state(), health.open()), (MemberState::Serving, 8));
}

#[test]
fn calls_that_hang_are_replaced_up_to_a_bound() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 2, now);
    for _ in 0..2 {
        health.on(Event::SessionStuck { opened: true }, now);
        assert_eq!(health.state(), MemberState::Degraded);
        open_all(&mut health, now);
    }
    health.on(Event::SessionStuck { opened: true }, now);
    assert_eq!(health.to_open(), 0, "four threads are the most of two sessions");
    health.on(Event::SessionStuck { opened: true }, now);
    assert_eq!((health.state(), health.stuck()), (MemberState::Stuck, 4));
    health.on(Event::StuckEnded, now);
    open_all(&mut health, now);
    assert_eq!((health.state(), health.open()), (MemberState::Degraded, 1));
}

#[test]
fn sessions_that_fail_again_and_again_open_the_breaker_and_old_failures_do_not() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 2, now);
    let at = |second: u64| now + Duration::from_secs(second);
    for second in 0..60 {
        assert_eq!(health.on(Event::SessionEvicted { served: 0 }, at(2 * second)), Step::Stay);
    }
    let steps: Vec<Step> = (0..7).map(|_| health.on(Event::SessionEvicted { served: 0 }, at(200))).collect();
    assert_eq!(steps[..6], [Step::Stay; 6]);
    assert!(matches!(steps[6], Step::TakeDown(Again::Soon(_))));
}

#[test]
fn a_member_whose_sessions_do_more_than_they_fail_stays_and_what_it_did_before_it_died_keeps_it_not() {
    let mut health = Health::new(MIN, MAX);
    let now = Instant::now();
    serve(&mut health, 2, now);
    for served in [1, 0, 3, 2].repeat(50) {
        assert_eq!(health.on(Event::SessionEvicted { served }, now), Step::Stay);
    }
    let later = now + Duration::from_secs(60);
    let mut steps = [1_000_000; 2].into_iter().chain(std::iter::repeat_n(0, 7));
    let down = steps.position(|served| health.on(Event::SessionEvicted { served }, later) != Step::Stay);
    assert_eq!(down, Some(8), "it does nothing any more");
}

fn fate() -> impl Strategy<Value = Fate> {
    prop::sample::select(vec![
        Fate::Keep,
        Fate::Reopen,
        Fate::FindAgain,
        Fate::LoginAgain,
        Fate::Reinitialize,
        Fate::BackOff,
        Fate::Retire,
    ])
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (1usize..20, 0usize..20).prop_map(|(sessions, more)| Event::CameUp { sessions, most: sessions + more }),
        Just(Event::Short),
        fate().prop_map(Event::StayedDown),
        Just(Event::SessionOpened),
        fate().prop_map(Event::SessionRefused),
        Just(Event::SessionEnded),
        fate().prop_map(Event::SessionLost),
        Just(Event::Clock),
        (0usize..9).prop_map(|served| Event::SessionEvicted { served }),
        any::<bool>().prop_map(|opened| Event::SessionStuck { opened }),
        Just(Event::StuckEnded),
        fate().prop_map(Event::ProofFailed),
        Just(Event::WrongSignature),
        Just(Event::LibraryLost),
        Just(Event::NewPin),
    ]
}

proptest! {
    /// Faults as they can happen, in any order: what the actor does is done here, and the faults are thrown in between.
    #[test]
    fn no_fault_leaves_a_member_dead_for_good_but_a_refusal(
        faults in proptest::collection::vec((event(), 0u64..5000), 1..120)
    ) {
        let mut health = Health::new(MIN, MAX);
        let mut now = Instant::now();
        let mut refused = false;
        for (event, pause) in faults {
            now += Duration::from_millis(pause);
            // Only a bring-up brings up, and only what is down stays down.
            let possible = match event {
                Event::CameUp { .. } | Event::StayedDown(_) => !health.is_up() && health.state() == MemberState::Probing,
                Event::SessionEnded | Event::SessionEvicted { .. } | Event::SessionLost(_) => health.open() > 0,
                Event::SessionStuck { opened } => opened && health.open() > 0,
                Event::StuckEnded => health.stuck() > 0,
                Event::SessionOpened | Event::SessionRefused(_) => false,
                _ => true,
            };
            if !possible {
                continue;
            }
            let step = health.on(event, now);
            refused = (refused || step == Step::TakeDown(Again::Never)) && step != Step::BringUp;
            prop_assert_eq!(health.state() == MemberState::Refused, refused);
            if let Step::TakeDown(again) = step {
                prop_assert!(!health.is_up());
                prop_assert!(matches!(health.state(), MemberState::BackingOff | MemberState::Refused));
                if let Again::After(pause) = again {
                    prop_assert!((MIN..=MAX).contains(&pause));
                }
                let probed = health.probe();
                prop_assert_eq!(probed, if refused { Step::Stay } else { Step::BringUp });
            }
            let all_hang = health.is_up() && health.stuck() > 0 && health.open() == 0 && health.to_open() == 0;
            prop_assert_eq!(health.state() == MemberState::Stuck, all_hang);
            prop_assert!(health.state() != MemberState::Serving || (health.is_up() && health.open() > 0));
            open_all(&mut health, now);
        }
        // Whatever happened: a token that works again serves again, unless it was refused.
        if refused {
            prop_assert_eq!(health.on(Event::NewPin, now), Step::BringUp);
        }
        if !health.is_up() {
            health.on(Event::CameUp { sessions: 4, most: 4 }, now);
        }
        while health.stuck() > 0 {
            health.on(Event::StuckEnded, now);
        }
        open_all(&mut health, now);
        prop_assert!(matches!(health.state(), MemberState::Serving | MemberState::Degraded), "{health:?}");
    }

    /// Even what cannot happen breaks nothing: no event in any order panics, or counts below zero.
    #[test]
    fn no_sequence_of_events_breaks_the_machine(events in proptest::collection::vec(event(), 1..200)) {
        let mut health = Health::new(MIN, MAX);
        for event in events {
            health.on(event, Instant::now());
            prop_assert!(health.to_open() <= 40);
        }
    }
}

#[test]
fn sessions_are_opened_by_need_and_not_missed_when_they_end() {
    let (mut health, now) = (Health::new(MIN, MAX), Instant::now());
    health.on(Event::CameUp { sessions: 1, most: 6 }, now);
    let open_all = |health: &mut Health| {
        open_all(health, now);
        health.open()
    };
    assert_eq!((open_all(&mut health), health.state()), (1, MemberState::Serving));
    for expected in [2, 4, 6, 6] {
        health.on(Event::Short, now);
        assert_eq!((open_all(&mut health), health.state()), (expected, MemberState::Serving));
    }
    // One that is not needed ends, and no other comes for it.
    (0..5).for_each(|_| assert_eq!(health.on(Event::SessionEnded, now), Step::Stay));
    assert_eq!((health.to_open(), health.open(), health.state()), (0, 1, MemberState::Serving));
    // One that is refused is not missed, unless it is one of those that are wanted whatever there is to do.
    health.on(Event::Short, now);
    health.note_opening(health.to_open());
    assert_eq!(health.on(Event::SessionRefused(Fate::BackOff), now), Step::Stay);
    assert_eq!((health.to_open(), health.state()), (0, MemberState::Serving));
    // Nor is another asked for at once: it would be refused, too.
    health.on(Event::Short, now + MIN / 2);
    assert_eq!(open_all(&mut health), 1);
    health.on(Event::Short, now + MAX);
    assert_eq!(open_all(&mut health), 2);
}
