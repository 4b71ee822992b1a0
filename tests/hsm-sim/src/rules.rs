//! The rules in force, and the calls that hang.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cryptoki_sys::CK_RV;
use parking_lot::{Condvar, Mutex, RwLock};

use crate::clock;
use crate::command::{Action, Frequency, Rule};
use crate::function::Function;
use crate::slot::Slot;

/// What the rules say of one call.
#[derive(Clone, Copy, Default)]
pub(crate) struct Verdict {
    pub(crate) fail: Option<CK_RV>,
    pub(crate) late: Option<CK_RV>,
    pub(crate) wrong_signature: bool,
    pub(crate) wrong_length: bool,
}

struct Known {
    rule: Rule,
    /// Calls that matched, in all processes.
    matched: &'static AtomicU64,
}

#[derive(Default)]
pub(crate) struct Rules {
    any: AtomicBool,
    known: RwLock<Vec<Arc<Known>>>,
    /// Raised by each release.
    released: Mutex<u64>,
    release: Condvar,
}

impl Rules {
    pub(crate) fn add(&self, rule: Rule, matched: &'static AtomicU64) {
        let mut known = self.known.write();
        known.push(Arc::new(Known { rule, matched }));
        self.any.store(true, Ordering::Release);
    }

    /// Drops the rules that make calls hang, and lets the calls go on.
    pub(crate) fn release(&self) {
        self.forget(|rule| rule.action == Action::Hang);
    }

    /// Drops all rules; calls that hang go on.
    pub(crate) fn clear(&self) {
        self.forget(|_| true);
    }

    /// Drops the rules that hold until the module is finalised.
    pub(crate) fn finalized(&self) {
        self.known.write().retain(|known| known.rule.frequency != Frequency::UntilFinalized);
    }

    fn forget(&self, which: impl Fn(&Rule) -> bool) {
        let mut known = self.known.write();
        known.retain(|known| !which(&known.rule));
        self.any.store(!known.is_empty(), Ordering::Release);
        drop(known);
        *self.released.lock() += 1;
        self.release.notify_all();
    }

    /// What happens to this call; delays, hangs and ends happen here.
    pub(crate) fn judge(&self, function: Function, slot: Option<&Slot>) -> Verdict {
        if !self.any.load(Ordering::Acquire) {
            return Verdict::default();
        }
        self.judge_slowly(function, slot)
    }

    #[cold]
    fn judge_slowly(&self, function: Function, slot: Option<&Slot>) -> Verdict {
        // Read before the rules: a release between the two must not be missed.
        let released = *self.released.lock();
        let known: Vec<Arc<Known>> = self.known.read().iter().map(Arc::clone).collect();
        let mut verdict = Verdict::default();
        for known in known.iter().filter(|known| matches(&known.rule, function, slot)) {
            if !known.rule.frequency.takes(known.matched.fetch_add(1, Ordering::Relaxed) + 1) {
                continue;
            }
            match known.rule.action {
                Action::Fail(rv) => verdict.fail = verdict.fail.or(Some(rv)),
                Action::Late(rv) => verdict.late = verdict.late.or(Some(rv)),
                Action::Delay(span) => clock::sleep_until(clock::now().saturating_add(span.nanoseconds())),
                Action::Hang => self.hang(released),
                Action::Abort => std::process::abort(),
                Action::WrongSignature => verdict.wrong_signature = true,
                Action::WrongLength => verdict.wrong_length = true,
            }
        }
        verdict
    }

    fn hang(&self, released: u64) {
        let mut now = self.released.lock();
        while *now == released {
            self.release.wait(&mut now);
        }
    }
}

fn matches(rule: &Rule, function: Function, slot: Option<&Slot>) -> bool {
    let signs = matches!(function, Function::C_Sign | Function::C_SignFinal);
    (rule.action != Action::WrongSignature || signs)
        && rule.function.is_none_or(|named| named == function)
        && match (&rule.slot, slot) {
            (None, _) => true,
            (Some(selector), Some(slot)) => slot.is(selector),
            (Some(_), None) => false,
        }
}
