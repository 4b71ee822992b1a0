//! A physical store that is gone at exit, for `-dev` and tests.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use parking_lot::RwLock;

use super::physical::{
    Change, Counters, NotQueued, Physical, Refused, Transaction, Verdict, Visitor, WhenFull, closed,
};
use crate::model::Fault;

/// Its name, as Vault has it.
pub(super) const KIND: &str = "inmem";

/// Entries in a sorted map, as long as somebody holds them.
type Entries = Arc<RwLock<BTreeMap<Vec<u8>, Vec<u8>>>>;

/// What there is while nobody has it open.
#[derive(Clone, Default)]
pub(super) struct Kept(Entries);

/// An opening of them. A transaction is a group of its own, done before `submit` returns.
#[derive(Default)]
pub(super) struct Memory {
    state: RwLock<State>,
    counters: Counters,
}

/// `None`: closed.
struct State(Option<Entries>);

impl Default for State {
    fn default() -> State {
        State(Some(Entries::default()))
    }
}

impl Memory {
    /// What is kept, open.
    pub(super) fn open(kept: &Kept) -> Memory {
        Memory { state: RwLock::new(State(Some(Arc::clone(&kept.0)))), counters: Counters::default() }
    }
}

impl Physical for Memory {
    fn kind(&self) -> &'static str {
        KIND
    }

    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Fault> {
        Ok(self.state.read().open()?.read().get(key).cloned())
    }

    fn scan(&self, from: &[u8], until: &[u8], visit: &mut Visitor<'_>) -> Result<(), Fault> {
        let state = self.state.read();
        // An empty range given backwards would make BTreeMap panic.
        if from >= until {
            return Ok(());
        }
        let entries = state.open()?.read();
        for (key, value) in entries.range::<[u8], _>((Bound::Included(from), Bound::Excluded(until))) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn submit(&self, transaction: Transaction, _when_full: WhenFull) -> Result<(), NotQueued> {
        let state = self.state.read();
        let Some(entries) = &state.0 else { return Err(NotQueued::Closed) };
        let verdict = apply(&mut entries.write(), transaction.changes());
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
        self.state.write().0 = None;
    }
}

impl State {
    fn open(&self) -> Result<&Entries, Fault> {
        self.0.as_ref().ok_or_else(closed)
    }
}

fn apply(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, changes: &[Change]) -> Verdict {
    let mut before = Vec::with_capacity(changes.len());
    for change in changes {
        match make(entries, change) {
            Some(previous) => before.push((change.key(), previous)),
            None => {
                undo(entries, before);
                return Err(Refused::Exists(change.key().to_vec()));
            }
        }
    }
    Ok(())
}

/// Makes one change and returns what was there; `None` if it is refused.
fn make(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, change: &Change) -> Option<Option<Vec<u8>>> {
    match change {
        Change::Create { key, .. } if entries.contains_key(key) => None,
        Change::Put { key, value } | Change::Create { key, value } => Some(entries.insert(key.clone(), value.clone())),
        Change::Delete { key } => Some(entries.remove(key)),
    }
}

fn undo(entries: &mut BTreeMap<Vec<u8>, Vec<u8>>, before: Vec<(&[u8], Option<Vec<u8>>)>) {
    for (key, previous) in before.into_iter().rev() {
        match previous {
            Some(value) => entries.insert(key.to_vec(), value),
            None => entries.remove(key),
        };
    }
}
