//! All slots of a module, and the numbers they go by.

use std::collections::VecDeque;
use std::sync::Arc;

use cryptoki_sys::CK_SLOT_ID;
use parking_lot::{Mutex, RwLock};

use crate::call::Answer;
use crate::command::Selector;
use crate::module::Module;
use crate::slot::{Names, Slot};

/// What a slot's number goes up by when it is a new one.
const STEP: u64 = 1000;

/// How numbers differ from those of the module behind.
#[derive(Clone, Copy, Debug, Default)]
struct Numbering {
    /// How often all slots have got new numbers.
    fresh: u64,
    /// How often they have exchanged them.
    rotated: usize,
}

#[derive(Default)]
pub(crate) struct Slots {
    known: RwLock<Vec<Arc<Slot>>>,
    numbering: Mutex<Numbers>,
    /// Slots whose token came or went, for `C_WaitForSlotEvent`.
    pub(crate) events: Mutex<VecDeque<Arc<Slot>>>,
}

#[derive(Default)]
struct Numbers {
    current: Numbering,
    /// From the next initialisation on.
    next: Numbering,
}

impl Slots {
    pub(crate) fn all(&self) -> Vec<Arc<Slot>> {
        self.known.read().clone()
    }

    pub(crate) fn find(&self, id: CK_SLOT_ID) -> Option<Arc<Slot>> {
        self.known.read().iter().find(|slot| slot.id() == id).map(Arc::clone)
    }

    pub(crate) fn select(&self, selector: &Selector) -> Vec<Arc<Slot>> {
        let known = self.known.read();
        known.iter().filter(|slot| slot.is(selector)).map(Arc::clone).collect()
    }

    /// Slots that are made up, once.
    pub(crate) fn make(&self, slots: Vec<Arc<Slot>>) {
        *self.known.write() = slots;
    }

    /// Asks the module behind for its slots and their tokens.
    pub(crate) fn refresh(&self, module: &Module) -> Answer {
        let Some(real) = module.real() else { return Ok(()) };
        let found: Vec<(CK_SLOT_ID, Names)> =
            real.slots(false)?.into_iter().map(|base| (base, real.names(base))).collect();
        let mut fresh = Vec::new();
        let mut known = self.known.write();
        let old = std::mem::take(&mut *known);
        for (base, names) in found {
            let same = old.iter().find(|slot| slot.base == base);
            let slot = same.map_or_else(|| Slot::new(base, names.clone(), module.shared, None), Arc::clone);
            if slot.set_names(names) || same.is_none() {
                fresh.push(Arc::clone(&slot));
            }
            known.push(slot);
        }
        drop(known);
        self.renumber();
        fresh.iter().for_each(|slot| module.steering.apply_to(slot, module));
        Ok(())
    }

    /// Gives all slots the numbers they have now.
    fn renumber(&self) {
        let numbering = self.numbering.lock().current;
        let known = self.known.read();
        for (place, slot) in known.iter().enumerate() {
            let base = known[(place + numbering.rotated) % known.len()].base;
            slot.set_id(base + STEP * numbering.fresh);
        }
    }

    /// Other numbers for all slots: at once, or from the next initialisation on.
    pub(crate) fn number_anew(&self, rotate: bool, now: bool) {
        let mut numbers = self.numbering.lock();
        if rotate {
            numbers.next.rotated += 1;
        } else {
            numbers.next.fresh += 1;
        }
        if now {
            numbers.current = numbers.next;
        }
        drop(numbers);
        self.renumber();
    }

    /// The numbers of the module behind again.
    pub(crate) fn number_as_behind(&self) {
        *self.numbering.lock() = Numbers::default();
        self.renumber();
    }

    /// The module is initialised: what was put off till then happens.
    pub(crate) fn initialized(&self) {
        let mut numbers = self.numbering.lock();
        numbers.current = numbers.next;
        drop(numbers);
        self.renumber();
        self.events.lock().clear();
        self.known.read().iter().for_each(|slot| slot.initialized());
    }
}
