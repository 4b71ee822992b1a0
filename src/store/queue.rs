//! The bounded queue between those who commit and the one thread that writes.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::physical::{NotQueued, Transaction, WhenFull};

/// The bounds of a [`Queue`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Transactions that may wait.
    pub(super) queued_max: usize,
    /// Bytes they may hold together; a single larger one is let in alone.
    pub(super) queued_bytes_max: usize,
    /// Transactions taken as one group.
    pub(super) group_max: usize,
    /// Bytes of a group after which no more are added.
    pub(super) group_bytes: usize,
}

/// Transactions in order of arrival.
pub(super) struct Queue {
    bounds: Bounds,
    state: Mutex<State>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Transaction>,
    bytes: usize,
    closed: bool,
}

impl Queue {
    pub(super) fn new(bounds: Bounds) -> Queue {
        Queue { bounds, state: Mutex::default(), filled: Condvar::new(), emptied: Condvar::new() }
    }

    /// Adds one at the end.
    pub(super) fn push(&self, transaction: Transaction, when_full: WhenFull) -> Result<(), NotQueued> {
        let mut state = self.state.lock();
        while !state.closed && !self.has_room(&state, transaction.bytes()) {
            match when_full {
                WhenFull::Refuse => return Err(NotQueued::Full(self.bounds.queued_max)),
                WhenFull::Wait => self.emptied.wait(&mut state),
            }
        }
        if state.closed {
            return Err(NotQueued::Closed);
        }
        state.bytes += transaction.bytes();
        state.waiting.push_back(transaction);
        drop(state);
        self.filled.notify_one();
        Ok(())
    }

    /// Waits for the next group; `None` once the queue is closed and empty.
    pub(super) fn take_group(&self) -> Option<Vec<Transaction>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return None;
            }
            self.filled.wait(&mut state);
        }
        let group = self.split_group(&mut state);
        drop(state);
        self.emptied.notify_all();
        Some(group)
    }

    /// Lets nobody in any more. What waits can still be taken.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.filled.notify_all();
        self.emptied.notify_all();
    }

    fn has_room(&self, state: &State, bytes: usize) -> bool {
        state.waiting.is_empty()
            || (state.waiting.len() < self.bounds.queued_max && state.bytes + bytes <= self.bounds.queued_bytes_max)
    }

    fn split_group(&self, state: &mut MutexGuard<'_, State>) -> Vec<Transaction> {
        let mut group = Vec::with_capacity(state.waiting.len().min(self.bounds.group_max));
        let mut bytes = 0;
        while group.len() < self.bounds.group_max && bytes < self.bounds.group_bytes {
            let Some(transaction) = state.waiting.pop_front() else { break };
            bytes += transaction.bytes();
            group.push(transaction);
        }
        state.bytes -= bytes;
        group
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::store::physical::Change;

    fn transaction(bytes: usize) -> Transaction {
        Transaction::for_task(vec![Change::Delete { key: vec![0; bytes] }]).0
    }

    fn queue() -> Queue {
        Queue::new(Bounds { queued_max: 3, queued_bytes_max: 100, group_max: 2, group_bytes: 50 })
    }

    #[test]
    fn a_full_queue_refuses_by_number_and_by_bytes() {
        let queue = queue();
        for _ in 0..3 {
            queue.push(transaction(1), WhenFull::Refuse).unwrap();
        }
        assert_eq!(queue.push(transaction(1), WhenFull::Refuse), Err(NotQueued::Full(3)));
        while queue.state.lock().waiting.len() > 1 {
            queue.take_group().unwrap();
        }
        assert_eq!(queue.push(transaction(100), WhenFull::Refuse), Err(NotQueued::Full(3)));
    }

    #[test]
    fn one_larger_than_the_queue_goes_alone() {
        let queue = queue();
        queue.push(transaction(1000), WhenFull::Refuse).unwrap();
        assert!(queue.push(transaction(1), WhenFull::Refuse).is_err());
        assert_eq!(queue.take_group().unwrap().len(), 1);
        queue.push(transaction(1), WhenFull::Refuse).unwrap();
    }

    #[test]
    fn groups_end_at_their_bounds() {
        let queue = queue();
        for bytes in [50, 10, 10] {
            queue.push(transaction(bytes), WhenFull::Refuse).unwrap();
        }
        assert_eq!(queue.take_group().unwrap().len(), 1);
        assert_eq!(queue.take_group().unwrap().len(), 2);
    }

    #[test]
    fn a_patient_thread_gets_in_when_there_is_room() {
        let queue = Arc::new(queue());
        for _ in 0..3 {
            queue.push(transaction(1), WhenFull::Refuse).unwrap();
        }
        let patient = std::thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.push(transaction(1), WhenFull::Wait)
        });
        let mut taken = 0;
        while taken < 4 {
            taken += queue.take_group().unwrap().len();
        }
        assert_eq!(patient.join().unwrap(), Ok(()));
    }

    #[test]
    fn a_closed_queue_is_emptied_and_then_ends() {
        let queue = queue();
        queue.push(transaction(1), WhenFull::Refuse).unwrap();
        queue.close();
        assert_eq!(queue.push(transaction(1), WhenFull::Wait), Err(NotQueued::Closed));
        assert_eq!(queue.take_group().unwrap().len(), 1);
        assert!(queue.take_group().is_none());
    }
}
