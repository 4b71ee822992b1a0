//! Threads in a line, each woken for itself. Who is next is by namespaces and classes, as in a lane: a namespace with many keys
//! gets no more of a quota than one with few, and what is urgent does not stand behind what is not.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use crate::backend::Turn;
use crate::model::Class;
use crate::model::schedule::{Charge, Fit, Item, Schedule, TenantId};

/// What a unit of cost is in the schedule's own measure: more than a turn, so that a turn is one request.
const UNIT: f64 = 1_000_000.0;
/// So many who went away may stand in the line, and as many as wait, until they are cleared out.
const GONE: usize = 64;

/// One who waits, and what it was told.
pub(super) struct Waiter<A> {
    pub(super) cost: f64,
    /// Which key it is for.
    key: u64,
    class: Class,
    pub(super) bell: Condvar,
    answer: Mutex<Option<A>>,
    /// It waits no longer, and was told nothing.
    gone: AtomicBool,
}

impl<A> Waiter<A> {
    pub(super) fn new(key: u64, cost: f64, class: Class) -> Arc<Waiter<A>> {
        let (bell, answer, gone) = (Condvar::new(), Mutex::new(None), AtomicBool::new(false));
        Arc::new(Waiter { cost, key, class, bell, answer, gone })
    }

    pub(super) fn answer(&self) -> Option<A> {
        self.answer.lock().take()
    }

    /// With whom it waits in the order of arrival. All of a key cost the same.
    fn flow(&self) -> (u64, Class) {
        (self.key, self.class)
    }
}

/// A waiter's place in the schedule.
struct Place<A> {
    waiter: Arc<Waiter<A>>,
    tenant: TenantId,
    charge: Charge,
}

impl<A> Item for Place<A> {
    fn flow(&self) -> usize {
        usize::try_from(self.waiter.key).unwrap_or(usize::MAX)
    }

    fn class(&self) -> Class {
        self.waiter.class
    }

    fn cost(&self) -> u64 {
        (self.waiter.cost * UNIT) as u64
    }

    fn bytes(&self) -> usize {
        0
    }

    fn charge(&mut self) -> &mut Charge {
        &mut self.charge
    }
}

/// Those who wait.
pub(super) struct Line<A> {
    schedule: Schedule<Place<A>>,
    /// Who is next.
    first: Option<Place<A>>,
    waiting: usize,
    /// Who went away, and stands in the schedule still.
    gone: usize,
    /// How many of each key and class wait.
    waiting_of: HashMap<(u64, Class), usize>,
    /// Until when the first one sleeps, unless it is woken; `None` is for ever.
    first_sleeps_until: Option<Instant>,
}

impl<A> Line<A> {
    pub(super) fn new() -> Line<A> {
        let (schedule, first, first_sleeps_until) = (Schedule::new(), None, None);
        Line { schedule, first, waiting: 0, gone: 0, waiting_of: HashMap::new(), first_sleeps_until }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// What those cost together whose turns come before this one's, whatever comes: of its own key and class.
    pub(super) fn ahead_of(&self, waiter: &Waiter<A>) -> f64 {
        let before = self.waiting_of.get(&waiter.flow()).copied().unwrap_or(0);
        waiter.cost * f64::from(u32::try_from(before).unwrap_or(u32::MAX))
    }

    /// Somebody comes, whose turn is by this. Control work may be next at once, before one who was told nothing yet.
    pub(super) fn join(&mut self, turn: &Turn<'_>, waiter: &Arc<Waiter<A>>) {
        let tenant = self.schedule.tenant(turn.namespace, turn.weight);
        self.schedule.push(tenant, Place { waiter: Arc::clone(waiter), tenant, charge: Charge::default() });
        self.waiting += 1;
        *self.waiting_of.entry(waiter.flow()).or_default() += 1;
        let overtakes = self.schedule.favours_control()
            && self.first.as_ref().is_some_and(|first| first.waiter.class != Class::Control);
        if overtakes || self.first.is_none() {
            self.choose();
        }
    }

    /// Has the schedule say anew who is next.
    fn choose(&mut self) {
        if let Some(first) = self.first.take() {
            self.schedule.put_back(first.tenant, first);
        }
        let mut gone = Vec::new();
        let mut fit = |place: &Place<A>| {
            if place.waiter.gone.load(Ordering::Relaxed) { Fit::Finish(()) } else { Fit::Take }
        };
        self.first = self.schedule.take(&mut fit, &mut gone);
        self.gone -= gone.len();
        self.first_sleeps_until = None;
    }

    pub(super) fn is_first(&self, waiter: &Arc<Waiter<A>>) -> bool {
        self.first().is_some_and(|first| Arc::ptr_eq(first, waiter))
    }

    pub(super) fn first(&self) -> Option<&Arc<Waiter<A>>> {
        self.first.as_ref().map(|first| &first.waiter)
    }

    /// Tells the first one, which is then no longer in the line.
    pub(super) fn tell_first(&mut self, answer: A) {
        if let Some(Place { waiter, .. }) = self.first.take() {
            self.left(&waiter);
            *waiter.answer.lock() = Some(answer);
            waiter.bell.notify_one();
            self.choose();
        }
    }

    /// Somebody in the line goes away untold.
    pub(super) fn leave(&mut self, waiter: &Arc<Waiter<A>>) {
        let was_first = self.is_first(waiter);
        waiter.gone.store(true, Ordering::Relaxed);
        self.gone += 1;
        self.left(waiter);
        if was_first {
            self.choose();
        }
        if self.gone > self.waiting + GONE {
            self.schedule.sweep(|place| place.waiter.gone.load(Ordering::Relaxed).then_some(()));
            self.gone = 0;
        }
    }

    /// The first one is about to sleep.
    pub(super) fn first_sleeps(&mut self, until: Option<Instant>) {
        self.first_sleeps_until = until;
    }

    /// Wakes the first one if it would sleep past `next`, when it can try again.
    pub(super) fn wake_first(&mut self, next: Instant) {
        if let Some(first) = &self.first
            && self.first_sleeps_until.is_none_or(|until| next < until)
        {
            first.waiter.bell.notify_one();
            self.first_sleeps_until = Some(next);
        }
    }

    fn left(&mut self, waiter: &Arc<Waiter<A>>) {
        self.waiting -= 1;
        if let Entry::Occupied(mut of) = self.waiting_of.entry(waiter.flow()) {
            *of.get_mut() -= 1;
            if *of.get() == 0 {
                of.remove();
            }
        }
    }
}
