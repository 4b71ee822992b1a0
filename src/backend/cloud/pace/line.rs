//! Threads in a line: first come, first served, each woken for itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

/// One who waits, and what it was told.
pub(super) struct Waiter<A> {
    pub(super) cost: f64,
    pub(super) bell: Condvar,
    answer: Mutex<Option<A>>,
}

impl<A> Waiter<A> {
    pub(super) fn new(cost: f64) -> Arc<Waiter<A>> {
        Arc::new(Waiter { cost, bell: Condvar::new(), answer: Mutex::new(None) })
    }

    pub(super) fn answer(&self) -> Option<A> {
        self.answer.lock().take()
    }
}

/// Those who wait.
pub(super) struct Line<A> {
    waiting: VecDeque<Arc<Waiter<A>>>,
    /// What they cost together.
    cost: f64,
    /// Until when the first one sleeps, unless it is woken; `None` is for ever.
    first_sleeps_until: Option<Instant>,
}

impl<A> Line<A> {
    pub(super) fn new() -> Line<A> {
        Line { waiting: VecDeque::new(), cost: 0.0, first_sleeps_until: None }
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// What those who wait cost together.
    pub(super) fn cost(&self) -> f64 {
        self.cost
    }

    pub(super) fn join(&mut self, waiter: &Arc<Waiter<A>>) {
        self.waiting.push_back(Arc::clone(waiter));
        self.cost += waiter.cost;
    }

    pub(super) fn is_first(&self, waiter: &Arc<Waiter<A>>) -> bool {
        self.first().is_some_and(|first| Arc::ptr_eq(first, waiter))
    }

    pub(super) fn first(&self) -> Option<&Arc<Waiter<A>>> {
        self.waiting.front()
    }

    /// Tells the first one, which is then no longer in the line.
    pub(super) fn tell_first(&mut self, answer: A) {
        if let Some(first) = self.waiting.pop_front() {
            self.left(&first);
            self.first_sleeps_until = None;
            *first.answer.lock() = Some(answer);
            first.bell.notify_one();
        }
    }

    /// Somebody goes away untold.
    pub(super) fn leave(&mut self, waiter: &Arc<Waiter<A>>) {
        if let Some(place) = self.waiting.iter().position(|other| Arc::ptr_eq(other, waiter)) {
            self.waiting.remove(place);
            self.left(waiter);
        }
    }

    /// The first one is about to sleep.
    pub(super) fn first_sleeps(&mut self, until: Option<Instant>) {
        self.first_sleeps_until = until;
    }

    /// Wakes the first one if it would sleep past `next`, when it can try again.
    pub(super) fn wake_first(&mut self, next: Instant) {
        if let Some(first) = self.waiting.front()
            && self.first_sleeps_until.is_none_or(|until| next < until)
        {
            first.bell.notify_one();
            self.first_sleeps_until = Some(next);
        }
    }

    fn left(&mut self, waiter: &Arc<Waiter<A>>) {
        self.cost = if self.waiting.is_empty() { 0.0 } else { self.cost - waiter.cost };
    }
}
