//! Who gets a quota that several want, in simulated time: namespaces by their weights, however many keys and sessions they
//! have; what is urgent first, up to a tenth; and nobody never.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::domain::{End, Granted, Refusal, State};
use super::line::Waiter;
use super::quota::Quota;
use crate::backend::Turn;
use crate::model::{Class, Dice, Namespace};

/// Sessions of one key, each of which asks again `rest` after it was answered.
#[derive(Clone, Copy, Debug)]
struct Asker {
    namespace: usize,
    weight: u32,
    class: Class,
    sessions: usize,
    cost: f64,
    rest: f64,
}

const FLOOD: Asker = Asker { namespace: 0, weight: 1, class: Class::Interactive, sessions: 8, cost: 1.0, rest: 0.0 };

struct Session {
    asker: usize,
    waiter: Option<Arc<Waiter<Result<Granted, Refusal>>>>,
    since: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Asks,
    Answered,
}

/// A domain whose service accepts all and answers after 20 ms.
struct World {
    state: State,
    start: Instant,
    now: f64,
    askers: Vec<Asker>,
    sessions: Vec<Session>,
    granted: Vec<Option<Granted>>,
    /// By time in nanoseconds: whose, and what.
    events: BinaryHeap<Reverse<(u64, usize, What)>>,
    /// Cost let go of each asker, and the longest wait of each.
    spent: Vec<f64>,
    longest: Vec<f64>,
}

impl World {
    fn new(quota: Quota, askers: &[Asker], dice: &mut Dice) -> World {
        let start = Instant::now();
        let mut world = World {
            state: State::new(quota, start),
            start,
            now: 0.0,
            askers: askers.to_vec(),
            sessions: Vec::new(),
            granted: Vec::new(),
            events: BinaryHeap::new(),
            spent: vec![0.0; askers.len()],
            longest: vec![0.0; askers.len()],
        };
        for (asker, of) in askers.iter().enumerate() {
            for _ in 0..of.sessions {
                world.sessions.push(Session { asker, waiter: None, since: 0.0 });
                world.granted.push(None);
                world.at(0.01 * dice.part(), world.sessions.len() - 1, What::Asks);
            }
        }
        world
    }

    fn at(&mut self, time: f64, session: usize, what: What) {
        let nanoseconds = u64::try_from(Duration::from_secs_f64(time).as_nanos()).unwrap();
        self.events.push(Reverse((nanoseconds, session, what)));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_secs_f64(self.now)
    }

    fn run_until(&mut self, end: f64) {
        while self.now < end {
            let event =
                self.events.peek().map_or(f64::INFINITY, |Reverse((at, ..))| Duration::from_nanos(*at).as_secs_f64());
            let cost = self.state.line.first().map(|first| first.cost);
            let turn = cost.and_then(|cost| self.state.next_turn(cost));
            let turn = turn.map_or(f64::INFINITY, |at| at.saturating_duration_since(self.start).as_secs_f64());
            // Threads wake a little late.
            self.now = event.min(turn + 1e-5).min(end).max(self.now);
            if event <= self.now {
                let Some(Reverse((_, session, what))) = self.events.pop() else { return };
                self.happens(session, what);
            }
            self.state.serve(self.instant());
            self.collect();
        }
    }

    fn happens(&mut self, session: usize, what: What) {
        let asker = self.sessions[session].asker;
        let of = self.askers[asker];
        match what {
            What::Asks => {
                let waiter = Waiter::new(asker as u64, of.cost, of.class);
                let namespace = Namespace::from_path(&format!("n{}", of.namespace));
                let turn = Turn {
                    namespace: &namespace,
                    weight: of.weight,
                    class: of.class,
                    until: self.instant(),
                    is_wanted: &|| true,
                };
                self.state.line.join(&turn, &waiter);
                self.sessions[session].waiter = Some(waiter);
            }
            What::Answered => {
                let granted = self.granted[session].take().unwrap();
                let end = End::Succeeded(Duration::from_millis(20));
                self.state.ended(asker as u64, granted, end, false, self.instant());
                self.sessions[session].since = self.now + of.rest;
                self.at(self.now + of.rest, session, What::Asks);
            }
        }
    }

    /// Sends what got leave.
    fn collect(&mut self) {
        for index in 0..self.sessions.len() {
            let session = &mut self.sessions[index];
            let Some(answer) = session.waiter.as_ref().and_then(|waiter| waiter.answer()) else { continue };
            session.waiter = None;
            let (asker, waited) = (session.asker, self.now - session.since);
            self.granted[index] = Some(answer.unwrap());
            self.spent[asker] += self.askers[asker].cost;
            self.longest[asker] = self.longest[asker].max(waited);
            self.at(self.now + 0.02, index, What::Answered);
        }
    }

    /// What was let go of each asker in a span.
    fn between(&mut self, from: f64, to: f64) -> Vec<f64> {
        self.run_until(from);
        let before = self.spent.clone();
        self.longest.fill(0.0);
        self.run_until(to);
        self.spent.iter().zip(before).map(|(after, before)| after - before).collect()
    }
}

fn between(dice: &mut Dice, least: f64, most: f64) -> f64 {
    least + (most - least) * dice.part()
}

fn whole(dice: &mut Dice, least: u32, most: u32) -> u32 {
    between(dice, f64::from(least), f64::from(most) + 0.999) as u32
}

#[test]
fn a_quota_is_shared_by_namespaces_and_their_weights_and_not_by_keys_and_sessions() {
    for seed in 0..20 {
        let mut dice = Dice::seeded(seed);
        let quota = between(&mut dice, 20.0, 150.0);
        let namespaces = whole(&mut dice, 2, 3) as usize;
        let mut askers = Vec::new();
        let weights: Vec<u32> = (0..namespaces).map(|_| whole(&mut dice, 1, 4)).collect();
        for (namespace, weight) in weights.iter().enumerate() {
            for _ in 0..whole(&mut dice, 1, 4) {
                // Enough to use up all of it, whatever the latency.
                let sessions = whole(&mut dice, 6, 10) as usize;
                let cost = f64::from(whole(&mut dice, 1, 3));
                askers.push(Asker { namespace, weight: *weight, sessions, cost, ..FLOOD });
            }
        }
        let mut world = World::new(Quota::per_second(quota), &askers, &mut dice);
        let spent = world.between(2.0, 32.0);
        let all: f64 = spent.iter().sum();
        assert!((all / 30.0 / quota - 1.0).abs() < 0.02, "seed {seed}: {all} of {quota} a second in half a minute");
        let weighed: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        for (namespace, weight) in weights.iter().enumerate() {
            let of_it = askers.iter().zip(&spent).filter(|(asker, _)| asker.namespace == namespace);
            let got: f64 = of_it.map(|(_, spent)| spent).sum();
            let fair = all * f64::from(*weight) / weighed;
            assert!(
                (got - fair).abs() < 0.03 * fair + 6.0,
                "seed {seed}: {namespace} got {got} for {fair}: {askers:?}"
            );
        }
    }
}

#[test]
fn keys_of_a_namespace_share_its_part_and_none_is_starved() {
    for seed in 0..15 {
        let mut dice = Dice::seeded(seed);
        let quota = between(&mut dice, 20.0, 100.0);
        let flood = Asker { sessions: 12, class: Class::Bulk, ..FLOOD };
        let keys = whole(&mut dice, 1, 5) as usize;
        let mut askers = vec![flood; keys];
        // One request after another, beside floods of its own namespace and class.
        askers.push(Asker { sessions: 1, ..flood });
        let mut world = World::new(Quota::per_second(quota), &askers, &mut dice);
        let spent = world.between(2.0, 22.0);
        assert!(spent.iter().all(|spent| *spent > 0.0), "seed {seed}: {spent:?}");
        // Its turn comes when each other key had one.
        let (lone, most) = (world.longest[keys], (keys as f64 + 2.0) / quota + 0.001);
        assert!(lone <= most, "seed {seed}: waited {lone} s of at most {most}");
    }
}

#[test]
fn what_is_urgent_does_not_wait_for_what_is_not() {
    for seed in 0..20 {
        let mut dice = Dice::seeded(seed);
        let quota = between(&mut dice, 10.0, 100.0);
        let mut askers: Vec<Asker> = (0..whole(&mut dice, 1, 6))
            .map(|key| {
                let class = if dice.part() < 0.5 { Class::Bulk } else { Class::Interactive };
                Asker { namespace: key as usize % 3, class, sessions: whole(&mut dice, 8, 12) as usize, ..FLOOD }
            })
            .collect();
        // A CRL now and then, of a key of its own: less than a tenth of all there is.
        askers.push(Asker { namespace: 1, class: Class::Control, sessions: 1, rest: 25.0 / quota, ..FLOOD });
        let mut world = World::new(Quota::per_second(quota), &askers, &mut dice);
        world.between(2.0, 32.0);
        let (waited, turns) = (world.longest[askers.len() - 1], 2.0 / quota);
        assert!(waited > 0.0 && waited <= turns + 0.001, "seed {seed}: {waited} s, and two turns are {turns}");
    }
}

#[test]
fn urgent_work_takes_a_tenth_of_others_and_bulk_an_eighth_of_its_own() {
    for seed in 0..10 {
        let mut dice = Dice::seeded(seed);
        let quota = between(&mut dice, 50.0, 150.0);
        let askers = [
            Asker { namespace: 0, class: Class::Control, sessions: 12, ..FLOOD },
            Asker { namespace: 1, class: Class::Interactive, sessions: 12, ..FLOOD },
            Asker { namespace: 1, class: Class::Bulk, sessions: 12, ..FLOOD },
        ];
        let mut world = World::new(Quota::per_second(quota), &askers, &mut dice);
        let spent = world.between(2.0, 42.0);
        let all: f64 = spent.iter().sum();
        let shares: Vec<f64> = spent.iter().map(|spent| spent / all).collect();
        // A tenth beforehand, and half of the rest by its turns.
        assert!((0.5..=0.57).contains(&shares[0]), "seed {seed}: {shares:?}");
        let bulk = shares[2] / (shares[1] + shares[2]);
        assert!((0.11..=0.14).contains(&bulk), "seed {seed}: {shares:?}");
    }
}

#[test]
fn who_goes_away_leaves_nothing_behind() {
    let (quota, start) = (Quota::per_second(1.0), Instant::now());
    let mut state = State::new(quota, start);
    let namespace = Namespace::root();
    let turn = Turn { namespace: &namespace, weight: 1, class: Class::Bulk, until: start, is_wanted: &|| true };
    for round in 0..1_000_u64 {
        let waiters: Vec<_> = (0..20).map(|key| Waiter::new(key, 2.0, Class::Bulk)).collect();
        waiters.iter().for_each(|waiter| state.line.join(&turn, waiter));
        assert_eq!((state.line.len(), state.line.ahead_of(&waiters[0])), (20, 2.0));
        // In whatever order, and who is first among them.
        let from = usize::try_from(round % 20).unwrap();
        for place in 0..20 {
            state.line.leave(&waiters[(from + place) % 20]);
        }
        assert!(state.line.is_empty() && state.line.first().is_none() && state.line.ahead_of(&waiters[0]) == 0.0);
        assert!(waiters.iter().all(|waiter| Arc::strong_count(waiter) <= 2));
    }
}
