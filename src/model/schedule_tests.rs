//! Stories about the order of service: shares, classes, keys, and nothing lost.

use proptest::prelude::*;

use super::held::{Held, Measure};
use super::schedule::{Charge, Fit, Item, Schedule, TenantId};
use super::{Class, Namespace};

#[derive(Clone, Debug, PartialEq)]
struct Piece {
    tenant: usize,
    number: usize,
    flow: usize,
    class: Class,
    cost: u64,
    bytes: usize,
    charge: Charge,
}

impl Item for Piece {
    fn flow(&self) -> usize {
        self.flow
    }

    fn class(&self) -> Class {
        self.class
    }

    fn cost(&self) -> u64 {
        self.cost
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn charge(&mut self) -> &mut Charge {
        &mut self.charge
    }
}

const MS: u64 = 1_000_000;

fn piece(tenant: usize, number: usize) -> Piece {
    Piece { tenant, number, flow: tenant, class: Class::Interactive, cost: MS, bytes: 0, charge: Charge::default() }
}

fn schedule(weights: &[u32]) -> (Schedule<Piece>, Vec<TenantId>) {
    let mut schedule = Schedule::new();
    let ids = weights
        .iter()
        .enumerate()
        .map(|(number, weight)| schedule.tenant(&Namespace::from_path(&format!("n{number}")), *weight));
    let ids = ids.collect();
    (schedule, ids)
}

fn take(schedule: &mut Schedule<Piece>) -> Option<Piece> {
    schedule.take(&mut |_| Fit::<()>::Take, &mut Vec::new())
}

#[test]
fn two_floods_share_by_their_weights() {
    let (mut schedule, ids) = schedule(&[1, 3]);
    for number in 0..1000 {
        schedule.push(ids[0], piece(0, number));
        schedule.push(ids[1], piece(1, number));
    }
    let served = (0..800).filter_map(|_| take(&mut schedule)).filter(|piece| piece.tenant == 1).count();
    assert!((595..=605).contains(&served), "{served} of 800");
}

#[test]
fn a_trickle_is_served_within_one_turn_of_the_flood() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    (0..1000).for_each(|number| schedule.push(ids[0], piece(0, number)));
    for round in 0..50 {
        assert!((0..7).all(|_| take(&mut schedule).is_some()));
        schedule.push(ids[1], piece(1, round));
        let waited = (0..10).position(|_| take(&mut schedule).is_some_and(|piece| piece.tenant == 1));
        assert!(waited.is_some_and(|waited| waited <= 1), "round {round}: {waited:?}");
    }
}

#[test]
fn shares_are_of_device_time_and_not_of_jobs() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    for number in 0..2000 {
        schedule.push(ids[0], Piece { cost: 10 * MS, ..piece(0, number) });
        schedule.push(ids[1], piece(1, number));
    }
    let mut time = [0, 0];
    for piece in (0..1100).filter_map(|_| take(&mut schedule)) {
        time[piece.tenant] += piece.cost;
    }
    assert!(time[0].abs_diff(time[1]) <= 20 * MS, "{time:?}");
}

#[test]
fn interactive_goes_before_bulk_and_bulk_is_not_starved() {
    let (mut schedule, ids) = schedule(&[1]);
    for number in 0..1000 {
        schedule.push(ids[0], Piece { class: Class::Bulk, flow: 1, ..piece(0, number) });
        schedule.push(ids[0], piece(0, number));
    }
    let served: Vec<Class> = (0..800).filter_map(|_| take(&mut schedule)).map(|piece| piece.class).collect();
    let bulk = served.iter().filter(|class| **class == Class::Bulk).count();
    assert_eq!(served[0], Class::Interactive);
    assert!((95..=105).contains(&bulk), "an eighth of 800 is bulk's, not {bulk}");
}

#[test]
fn control_goes_first_and_takes_a_tenth_at_the_most_from_others() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    for number in 0..1000 {
        schedule.push(ids[0], Piece { class: Class::Control, flow: 9, ..piece(0, number) });
        schedule.push(ids[1], piece(1, number));
    }
    let served: Vec<Piece> = (0..1000).filter_map(|_| take(&mut schedule)).collect();
    assert_eq!(served[0].class, Class::Control);
    // A tenth of all, and the rest by turns: the tenant's own share is control's first.
    let others = served.iter().filter(|piece| piece.tenant == 1).count();
    assert!((440..=460).contains(&others), "{others}");
}

#[test]
fn control_work_that_comes_back_is_no_gain_for_its_namespace() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    for number in 0..1000 {
        schedule.push(ids[0], piece(0, number));
        schedule.push(ids[1], piece(1, number));
    }
    schedule.push(ids[0], Piece { class: Class::Control, flow: 9, ..piece(0, 1000) });
    let mut no_control = |piece: &Piece| if piece.class == Class::Control { Fit::<()>::Skip } else { Fit::Take };
    let mut served = [0_u32, 0];
    for _ in 0..50 {
        let control = take(&mut schedule).unwrap();
        assert_eq!(control.class, Class::Control);
        schedule.put_back(ids[0], control);
        // So many earn control work the time that it takes.
        for _ in 0..10 {
            served[schedule.take(&mut no_control, &mut Vec::new()).unwrap().tenant] += 1;
        }
    }
    assert!((249..=251).contains(&served[0]), "{served:?}");
}

#[test]
fn work_that_comes_back_is_given_its_turn_again() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    for number in 0..500 {
        schedule.push(ids[0], piece(0, number));
        schedule.push(ids[1], piece(1, number));
    }
    let mut served = [0_u32, 0];
    for _ in 0..400 {
        let taken = take(&mut schedule).unwrap();
        // Whoever is slow gives back each job of the first once.
        if taken.tenant == 0 && taken.flow == 0 {
            schedule.put_back(ids[0], Piece { flow: 2, ..taken });
        } else {
            served[taken.tenant] += 1;
        }
    }
    assert!(served[0].abs_diff(served[1]) <= 2, "{served:?}");
}

#[test]
fn work_that_comes_back_earns_bulk_nothing() {
    let (mut schedule, ids) = schedule(&[1]);
    (0..2).for_each(|number| schedule.push(ids[0], piece(0, number)));
    schedule.push(ids[0], Piece { flow: 1, class: Class::Bulk, ..piece(0, 2) });
    for _ in 0..50 {
        let taken = take(&mut schedule).unwrap();
        assert_eq!((taken.class, taken.number), (Class::Interactive, 0));
        schedule.put_back(ids[0], taken);
    }
}

#[test]
fn keys_of_a_namespace_take_turns_and_each_is_served_in_order() {
    let (mut schedule, ids) = schedule(&[1]);
    (0..6).for_each(|number| schedule.push(ids[0], Piece { flow: number % 2, ..piece(0, number) }));
    let order: Vec<usize> = (0..6).filter_map(|_| take(&mut schedule)).map(|piece| piece.number).collect();
    assert_eq!(order, [0, 1, 2, 3, 4, 5]);
    (0..4).for_each(|number| schedule.push(ids[0], Piece { flow: 0, ..piece(0, number) }));
    schedule.push(ids[0], Piece { flow: 1, ..piece(0, 10) });
    let order: Vec<usize> = (0..5).filter_map(|_| take(&mut schedule)).map(|piece| piece.number).collect();
    assert_eq!(order, [0, 10, 1, 2, 3], "one key's burst does not hold the other up");
}

#[test]
fn who_has_a_fraction_more_than_its_share_makes_room() {
    let (mut schedule, ids) = schedule(&[2, 5]);
    (0..3).for_each(|number| schedule.push(ids[1], piece(1, number)));
    // One of the first weighs as much as two and a half of the second.
    assert_eq!(schedule.excess(ids[0], 1, Measure::Jobs), 1);
    let out = schedule.push_out(ids[0], 1, Measure::Jobs).map(|(from, piece)| (from, piece.number));
    assert_eq!(out, Some((ids[1], 2)));
    assert_eq!(schedule.excess(ids[0], 1, Measure::Jobs), 0);
    assert!(schedule.push_out(ids[0], 1, Measure::Jobs).is_none());
}

#[test]
fn what_does_not_fit_holds_nobody_up() {
    let (mut schedule, ids) = schedule(&[1, 1]);
    (0..500).for_each(|number| schedule.push(ids[0], Piece { flow: number, ..piece(0, number) }));
    schedule.push(ids[1], piece(1, 0));
    let mut fit = |piece: &Piece| if piece.tenant == 1 { Fit::<()>::Take } else { Fit::Skip };
    assert!(schedule.any(&mut fit));
    assert_eq!(schedule.take(&mut fit, &mut Vec::new()).map(|piece| piece.tenant), Some(1));
    assert!(!schedule.any(&mut fit));
    assert!(schedule.take(&mut fit, &mut Vec::new()).is_none());
    assert_eq!(schedule.len(), 500);
}

fn class() -> impl Strategy<Value = Class> {
    prop::sample::select(Class::ALL.to_vec())
}

proptest! {
    /// Over any span in which two tenants always have work, each gets its share, within a turn and a job.
    #[test]
    fn fairness_is_within_its_bound(
        weights in proptest::collection::vec(1u32..8, 2..5),
        costs in proptest::collection::vec(1u64..40, 2..5),
        takes in 100usize..1500,
    ) {
        let (mut schedule, ids) = schedule(&weights);
        let cost = |tenant: usize| costs[tenant % costs.len()] * MS / 10;
        for (tenant, id) in ids.iter().enumerate() {
            (0..2000).for_each(|number| schedule.push(*id, Piece { cost: cost(tenant), ..piece(tenant, number) }));
        }
        let mut time = vec![0_u64; weights.len()];
        for _ in 0..takes {
            let piece = take(&mut schedule).expect("there is enough");
            time[piece.tenant] += piece.cost;
        }
        prop_assume!(ids.iter().all(|id| schedule.held_of(*id).jobs > 0));
        let dearest = (0..weights.len()).map(cost).max().unwrap_or(0);
        let share = |tenant: usize| time[tenant] / u64::from(weights[tenant]);
        for (one, other) in (0..weights.len()).flat_map(|one| (0..one).map(move |other| (one, other))) {
            prop_assert!(share(one).abs_diff(share(other)) <= 3 * dearest, "{time:?} {weights:?}");
        }
    }

    /// Whatever is pushed, taken, put back, pushed out and swept: each job comes out once, each key in its order.
    #[test]
    fn nothing_is_lost_and_nothing_comes_twice(
        steps in proptest::collection::vec((0u8..8, 0usize..3, 0usize..4, class(), 1u64..5, 0usize..4), 1..300)
    ) {
        let (mut schedule, ids) = schedule(&[1, 2, 5]);
        let (mut inside, mut number) = (Vec::new(), 0);
        for (step, tenant, flow, class, cost, bytes) in steps {
            match step {
                0..=2 => {
                    let piece = Piece { tenant, number, flow: tenant * 10 + flow, class, cost, bytes, charge: Charge::default() };
                    number += 1;
                    inside.push(piece.clone());
                    schedule.push(ids[tenant], piece);
                }
                3 => {
                    let taken = take(&mut schedule);
                    prop_assert_eq!(taken.is_some(), !inside.is_empty());
                    if let Some(taken) = taken {
                        let ahead = |other: &&Piece| {
                            (other.flow, other.class) == (taken.flow, taken.class) && other.number < taken.number
                        };
                        prop_assert!(!inside.iter().any(|other| ahead(&other)), "a key's jobs keep their order");
                        inside.retain(|other| other.number != taken.number);
                    }
                }
                4 => {
                    if let Some(taken) = take(&mut schedule) {
                        schedule.put_back(ids[taken.tenant], taken);
                    }
                }
                5 | 6 => {
                    let (by, more) = if step == 5 { (Measure::Jobs, 1) } else { (Measure::Bytes, bytes) };
                    let (excess, before) = (schedule.excess(ids[tenant], more, by), schedule.held());
                    // What is told can be pushed out can be, and all that is pushed out comes out.
                    while before.of(by) - schedule.held().of(by) < excess {
                        let (from, out) = schedule.push_out(ids[tenant], more, by).expect("there is an excess");
                        prop_assert_eq!(from, ids[out.tenant]);
                        prop_assert!(out.tenant != tenant);
                        inside.retain(|other| *other != out);
                    }
                }
                _ => {
                    let swept = schedule.sweep(|piece| (piece.flow == tenant * 10 + flow).then_some(()));
                    swept.iter().for_each(|(gone, ())| inside.retain(|other| other != gone));
                }
            }
            prop_assert_eq!(schedule.len(), inside.len());
            let turns = schedule.turns();
            prop_assert!(turns.iter().all(|id| turns.iter().filter(|other| *other == id).count() == 1), "{turns:?}");
            let held = |of: &dyn Fn(&&Piece) -> bool| {
                let mut held = Held::default();
                inside.iter().filter(of).for_each(|piece| held.enter(piece.bytes));
                held
            };
            prop_assert_eq!(schedule.held(), held(&|_| true));
            for (tenant, id) in ids.iter().enumerate() {
                prop_assert_eq!(schedule.held_of(*id), held(&|piece| piece.tenant == tenant));
            }
        }
    }

    /// Jobs that are over are handed out, and counted out.
    #[test]
    fn what_is_over_is_finished_on_the_way(over in proptest::collection::vec(any::<bool>(), 1..100)) {
        let (mut schedule, ids) = schedule(&[1]);
        for (number, _) in over.iter().enumerate() {
            schedule.push(ids[0], Piece { flow: number % 3, ..piece(0, number) });
        }
        let (mut finished, mut taken) = (Vec::new(), 0);
        let mut fit = |piece: &Piece| if over[piece.number] { Fit::Finish(()) } else { Fit::Take };
        while schedule.take(&mut fit, &mut finished).is_some() {
            taken += 1;
        }
        prop_assert_eq!(finished.len(), over.iter().filter(|over| **over).count());
        prop_assert_eq!(taken + finished.len(), over.len());
        prop_assert!(schedule.is_empty());
    }
}
