//! What a rate does before services that count in every way: token buckets of any depth, and windows.

use std::time::{Duration, Instant};

use super::quota::Quota;
use super::rate::{Leave, Rate, Sent};
use super::simulated::{Counting, Service, World};
use crate::model::Dice;

/// When the service's quota is cut to a tenth, and when it is whole again.
const CUT: f64 = 10.0;
const WHOLE: f64 = 70.0;

/// One run's conditions.
#[derive(Clone, Copy, Debug)]
struct Conditions {
    quota: f64,
    counting: Counting,
    latency: f64,
    /// Offered load, in parts of the quota.
    load: f64,
    says_when: bool,
    /// What it asks for at least then, and the window that it is said to count by, in seconds.
    least_wait: f64,
    said_window: f64,
    seed: u64,
}

fn between(dice: &mut Dice, least: f64, most: f64) -> f64 {
    (least.ln() + (most / least).ln() * dice.part()).exp()
}

impl Conditions {
    /// Quotas from 1 to 20,000 a second, with fewer of the high ones, which take long to simulate.
    fn of(seed: u64) -> (Conditions, Dice) {
        let mut dice = Dice::seeded(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        let most = match seed {
            seed if seed % 128 == 127 => 20_000.0,
            seed if seed % 8 == 7 => 1_000.0,
            seed if seed % 2 == 1 => 200.0,
            _ => 50.0,
        };
        let quota = between(&mut dice, 1.0, most);
        let latency = between(&mut dice, 0.002, 0.2);
        let load = if dice.part() < 0.5 { 1.0 } else { 3.0 };
        let counting = Counting::Bucket { depth: between(&mut dice, 0.1, 10.0) };
        let (says_when, least_wait, said_window) = (false, 1.0, 1.0);
        (Conditions { quota, counting, latency, load, says_when, least_wait, said_window, seed }, dice)
    }

    fn world(&self) -> World {
        let quota = Quota { max_in_flight: 16_384, ..Quota::per_second(self.quota) };
        let window = match self.counting {
            Counting::Bucket { .. } => Duration::from_secs_f64(self.said_window),
            Counting::Windows { seconds, .. } => Duration::from_secs_f64(seconds),
        };
        let mut service = Service::new(self.counting, self.quota, self.latency);
        (service.says_when, service.least_wait) = (self.says_when, self.least_wait);
        let mut world = World::new(Quota { window, ..quota }, service, self.seed);
        world.offered = self.quota * self.load;
        world
    }

    /// A minute with a tenth of the quota, and some time with this part of it.
    fn cut_for_a_minute(&self, then: f64, after: f64) -> World {
        let mut world = self.world();
        world.run_until(CUT);
        world.set_service_rate(self.quota / 10.0);
        world.run_until(WHOLE);
        world.set_service_rate(self.quota * then);
        world.run_until(WHOLE + after);
        world
    }
}

/// Whole requests count more where there are few.
const SLACK: f64 = 5.0;

#[test]
fn a_quota_cut_for_a_minute_brings_no_storm_and_then_the_full_rate_again() {
    for seed in 0..2_000 {
        let (conditions, _) = Conditions::of(seed);
        let cut = conditions.quota / 10.0;
        // Of what comes seldom, a few must have come.
        let recovery = 6.0 + 10.0 / cut;
        let world = conditions.cut_for_a_minute(1.0, recovery + 2.0);
        let (most, at) = world.most_in(5.0, CUT + 2.0, WHOLE);
        assert!(most <= 1.2 * 5.0 * cut + SLACK, "{conditions:?}: {most} sent in 5 s, at {at}");
        let (_, accepted) = world.between(CUT + 2.0, WHOLE);
        let least = if cut < 1.0 { 0.6 } else { 0.85 };
        assert!(accepted >= least * cut * (WHOLE - CUT - 2.0), "{conditions:?}: {accepted} accepted in all");
        let (_, accepted) = world.between(WHOLE + recovery, WHOLE + recovery + 2.0);
        assert!(accepted >= 0.95 * conditions.quota * 2.0 - 1.0, "{conditions:?}: {accepted} accepted in the end");
    }
}

#[test]
fn three_times_the_quota_is_sent_at_the_quota() {
    for seed in 0..1_000 {
        let (conditions, _) = Conditions::of(seed);
        let conditions = Conditions { load: 3.0, ..conditions };
        let mut world = conditions.world();
        let span = 10.0 + 100.0 / conditions.quota;
        world.run_until(2.0 + span);
        let (sent, accepted) = world.between(2.0, 2.0 + span);
        let part = sent / span / conditions.quota;
        assert!((0.98..=1.02).contains(&part), "{conditions:?}: {part} of the quota");
        assert_eq!(sent, accepted, "{conditions:?}");
    }
}

/// What a service that refuses for the rest of ten seconds is asked, it is asked evenly, once it is known.
#[test]
fn a_service_that_counts_windows_is_not_stormed_either() {
    for seed in 0..500 {
        let (mut conditions, mut dice) = Conditions::of(seed);
        let seconds = [1.0, 5.0, 10.0][usize::try_from(seed % 3).unwrap()];
        conditions.quota = between(&mut dice, 100.0, 2_000.0);
        conditions.counting = Counting::Windows { seconds, phase: dice.part() };
        conditions.says_when = dice.part() < 0.5;
        let recovery = seconds * 2.0 + 8.0;
        let world = conditions.cut_for_a_minute(1.1, recovery + 2.0);
        let cut = conditions.quota / 10.0;
        let (most, at) = world.most_in(5.0, CUT + 2.0 + 3.5 * seconds, WHOLE);
        // What a window holds may go at once, and a part of it does.
        let most_parts = if seconds > 1.0 { 1.35 } else { 1.2 };
        assert!(most <= most_parts * 5.0 * cut + SLACK, "{conditions:?}: {most} sent in 5 s, at {at}");
        let (sent, accepted) = world.between(CUT + 2.0 + seconds, WHOLE);
        assert!(sent - accepted <= 0.2 * cut * (WHOLE - CUT), "{conditions:?}: {sent} sent, {accepted} accepted");
        assert!(accepted >= 0.65 * cut * (WHOLE - CUT - 2.0 - seconds), "{conditions:?}: {accepted} accepted");
        let (_, accepted) = world.between(WHOLE + recovery, WHOLE + recovery + 2.0);
        assert!(accepted >= 0.95 * conditions.quota * 2.0 - 1.0, "{conditions:?}: {accepted} accepted in the end");
    }
}

/// A refusal costs the pause that is asked for, so they are few; and how the service counts is found out, whatever is said of it.
#[test]
fn who_says_when_to_come_again_is_asked_for_most_of_what_it_accepts() {
    for seed in 0..400 {
        let (mut conditions, mut dice) = Conditions::of(seed);
        conditions.quota = between(&mut dice, 100.0, 2_000.0);
        let depth = if dice.part() < 0.5 { 0.1 } else { between(&mut dice, 1.0, 10.0) };
        conditions.counting = Counting::Bucket { depth };
        conditions.says_when = true;
        conditions.said_window = if dice.part() < 0.5 { 1.0 } else { 10.0 };
        let world = conditions.cut_for_a_minute(1.1, 10.0);
        let cut = conditions.quota / 10.0;
        let (most, at) = world.most_in(5.0, CUT + 2.0, WHOLE);
        // What was saved up in the pauses goes, too, where there is any: all of it is accepted.
        let (parts, least) = if depth < 1.0 { (1.2, 0.6) } else { (1.35, 0.93) };
        assert!(most <= parts * 5.0 * cut + SLACK, "{conditions:?}: {most} sent in 5 s, at {at}");
        let (sent, accepted) = world.between(CUT + 2.0, WHOLE);
        let share = accepted / cut / (WHOLE - CUT - 2.0);
        assert!(share >= least, "{conditions:?}: {share} of what is left");
        assert!(sent - accepted <= 0.06 * sent, "{conditions:?}: {sent} sent, {accepted} accepted");
        let (_, accepted) = world.between(WHOLE + 8.0, WHOLE + 10.0);
        assert!(accepted >= 0.95 * conditions.quota * 2.0 - 1.0, "{conditions:?}: {accepted} accepted in the end");
    }
}

/// It is left alone for so long each time, and then asked for some seconds at what it was seen to accept.
#[test]
fn who_asks_for_long_pauses_gets_them_and_is_used_between() {
    for seed in 0..100 {
        let (mut conditions, mut dice) = Conditions::of(seed);
        conditions.quota = between(&mut dice, 100.0, 1_000.0);
        conditions.counting = Counting::Bucket { depth: between(&mut dice, 0.1, 0.5) };
        conditions.says_when = true;
        conditions.least_wait = if dice.part() < 0.5 { 5.0 } else { 10.0 };
        let world = conditions.cut_for_a_minute(1.1, 40.0);
        let cut = conditions.quota / 10.0;
        let (most, at) = world.most_in(5.0, CUT + 2.0, WHOLE);
        assert!(most <= 1.2 * 5.0 * cut + SLACK, "{conditions:?}: {most} sent in 5 s, at {at}");
        let (_, accepted) = world.between(CUT + 2.0, WHOLE);
        let share = accepted / cut / (WHOLE - CUT - 2.0);
        assert!(share >= 0.33, "{conditions:?}: {share} of what is left");
        for refused in world.events.iter().filter(|event| !event.accepted) {
            let told = refused.at + conditions.latency;
            let (early, _) = world.between(told, refused.at + conditions.least_wait);
            assert_eq!(early, 0.0, "{conditions:?}: refused at {}", refused.at);
        }
        let (_, accepted) = world.between(WHOLE + 38.0, WHOLE + 40.0);
        assert!(accepted >= 0.95 * conditions.quota * 2.0 - 1.0, "{conditions:?}: {accepted} accepted in the end");
    }
}

/// At the very quota a window is used up a little before its end, now and then.
#[test]
fn a_service_that_counts_windows_is_used_to_its_quota() {
    for seed in 0..100 {
        let (mut conditions, mut dice) = Conditions::of(seed);
        conditions.quota = between(&mut dice, 100.0, 1_000.0);
        conditions.load = 3.0;
        let seconds = if dice.part() < 0.5 { 1.0 } else { 10.0 };
        conditions.counting = Counting::Windows { seconds, phase: dice.part() };
        let mut world = conditions.world();
        world.run_until(90.0);
        let (sent, accepted) = world.between(30.0, 90.0);
        let share = accepted / 60.0 / conditions.quota;
        assert!(share >= 0.85, "{conditions:?}: {share} of the quota");
        assert!(sent - accepted <= 0.1 * sent, "{conditions:?}: {sent} sent, {accepted} accepted");
    }
}

/// One throttle of a service that then takes everything costs seconds, not minutes.
#[test]
fn a_quota_shared_with_others_is_found_out() {
    for seed in 0..200 {
        let (mut conditions, mut dice) = Conditions::of(seed);
        conditions.quota = between(&mut dice, 50.0, 1_000.0);
        let mut world = conditions.world();
        world.run_until(5.0);
        let part = 0.3 + 0.65 * dice.part();
        world.set_service_rate(conditions.quota * part);
        world.run_until(45.0);
        let (sent, accepted) = world.between(15.0, 45.0);
        let share = accepted / 30.0 / conditions.quota / part;
        assert!(share >= 0.85, "{conditions:?} {part}: {share} of what is left");
        assert!(sent - accepted <= 0.15 * sent, "{conditions:?} {part}: {sent} sent, {accepted} accepted");
    }
}

#[test]
fn nothing_is_sent_before_the_service_says() {
    let (quota, start) = (Quota::per_second(100.0), Instant::now());
    let mut rate = Rate::new(quota, Dice::seeded(1), start);
    let sent = let_go(&mut rate, start);
    let late = let_go(&mut rate, start);
    rate.throttled(sent, Some(Duration::from_secs(3)), start);
    assert!(rate.is_throttled());
    let Leave::At(at) = rate.ask(1.0, start) else { panic!("goes at once") };
    assert!(at >= start + Duration::from_secs(3) && at <= start + Duration::from_millis(3_300));
    assert_eq!(rate.next(1.0).map(|next| next >= at), Some(true));
    assert_eq!(rate.earliest(1.0, 0.0, 0, start), rate.next(1.0).unwrap());
    // What was on its way may be told to wait longer; it is not told how long for ever.
    rate.throttled(late, Some(Duration::from_secs(86_400)), start);
    let Leave::At(at) = rate.ask(1.0, start) else { panic!("goes at once") };
    assert!(at >= start + Duration::from_secs(60) && at <= start + Duration::from_secs(66));
    // A volley is one refusal: half, not a quarter.
    assert_eq!(rate.allowed(), 50.0);
}

#[test]
fn after_refusals_alone_one_goes_ahead() {
    let (quota, mut now) = (Quota::per_second(100.0), Instant::now());
    let mut rate = Rate::new(quota, Dice::seeded(1), now);
    for _ in 0..2 {
        let sent = let_go(&mut rate, now);
        rate.throttled(sent, None, now);
        now += Duration::from_secs(1);
    }
    let ahead = let_go(&mut rate, now);
    assert_eq!(rate.ask(1.0, now + Duration::from_secs(1)), Leave::AfterAnswer);
    assert_eq!(rate.next(1.0), None);
    // One that ends without a word makes room for another.
    rate.over(ahead);
    let ahead = let_go(&mut rate, now + Duration::from_secs(1));
    rate.accepted(ahead, now + Duration::from_secs(1));
    let_go(&mut rate, now + Duration::from_secs(2));
}

#[test]
fn a_throttle_is_forgotten_by_who_hardly_asks() {
    let (quota, start) = (Quota::per_second(100.0), Instant::now());
    let mut rate = Rate::new(quota, Dice::seeded(1), start);
    let sent = let_go(&mut rate, start);
    rate.throttled(sent, None, start);
    let later = start + Duration::from_secs(20);
    let sent = let_go(&mut rate, later);
    rate.accepted(sent, later);
    assert!(rate.is_throttled());
    let_go(&mut rate, start + Duration::from_secs(40));
    assert!(!rate.is_throttled());
    assert_eq!(rate.allowed(), 100.0);
}

#[test]
fn what_costs_more_takes_more() {
    let (quota, start) = (Quota::per_second(100.0), Instant::now());
    let mut rate = Rate::new(quota, Dice::seeded(1), start);
    let mut sent = 0;
    for step in 0..10_000 {
        let now = start + Duration::from_millis(step);
        while let Leave::Go(_) = rate.ask(16.0, now) {
            sent += 1;
        }
    }
    assert!((62..=64).contains(&sent), "{sent} of 16 units in 10 s at 100 units a second");
}

fn let_go(rate: &mut Rate, now: Instant) -> Sent {
    match rate.ask(1.0, now) {
        Leave::Go(sent) => sent,
        other => panic!("{other:?}"),
    }
}
