//! A physical store that is gone at exit, for `-dev` and tests.

use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::RwLock;

use super::physical::{
    Change, Counters, NotQueued, Physical, Refused, Transaction, Verdict, Visitor, WhenFull, closed,
};
use crate::model::Fault;

/// Entries in a sorted map. A transaction is a group of its own, done before `submit` returns.
#[derive(Default)]
pub(super) struct Memory {
    state: RwLock<State>,
    counters: Counters,
}

#[derive(Default)]
struct State {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    closed: bool,
}

impl Physical for Memory {
    fn kind(&self) -> &'static str {
        "inmem"
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.state.read().open()?.get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), Fault> {
        let state = self.state.read();
        // An empty range given backwards would make BTreeMap panic.
        if from >= until {
            return Ok(());
        }
        for (key, value) in state.open()?.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn submit(&self, transaction: Transaction, _when_full: WhenFull) -> Result<(), NotQueued> {
        let mut state = self.state.write();
        if state.closed {
            return Err(NotQueued::Closed);
        }
        let verdict = state.apply(transaction.changes());
        drop(state);
        if verdict.is_ok() {
            self.counters.count_group(1, transaction.changes().len() as u64);
        }
        transaction.answer(verdict);
        Ok(())
    }

    fn counters(&self) -> &Counters {
        &self.counters
    }

    fn close(&self) {
        let mut state = self.state.write();
        state.closed = true;
        state.entries.clear();
    }
}

impl State {
    fn open(&self) -> Result<&BTreeMap<Vec<u8>, Vec<u8>>, Fault> {
        if self.closed {
            return Err(closed());
        }
        Ok(&self.entries)
    }

    fn apply(&mut self, changes: &[Change]) -> Verdict {
        let mut before = Vec::with_capacity(changes.len());
        for change in changes {
            match self.change(change) {
                Some(previous) => before.push((change.key(), previous)),
                None => {
                    self.undo(before);
                    return Err(Refused::Exists(change.key().to_vec()));
                }
            }
        }
        Ok(())
    }

    /// Makes one change and returns what was there; `None` if it is refused.
    fn change(&mut self, change: &Change) -> Option<Option<Vec<u8>>> {
        match change {
            Change::Create { key, .. } if self.entries.contains_key(key) => None,
            Change::Put { key, value } | Change::Create { key, value } => {
                Some(self.entries.insert(key.clone(), value.clone()))
            }
            Change::Delete { key } => Some(self.entries.remove(key)),
        }
    }

    fn undo(&mut self, before: Vec<(&[u8], Option<Vec<u8>>)>) {
        for (key, previous) in before.into_iter().rev() {
            match previous {
                Some(value) => self.entries.insert(key.to_vec(), value),
                None => self.entries.remove(key),
            };
        }
    }
}
