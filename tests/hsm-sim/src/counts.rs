//! Counts that sessions raise at once: in parts, so that their threads do not wait for each other's.

use std::sync::atomic::{AtomicU64, Ordering};

use cryptoki_sys::CK_SESSION_HANDLE;

use crate::function::{COUNT, Function};

/// Sessions that come one after the other raise one each.
const PARTS: usize = 16;

/// As long as two cache lines, which processors fetch together, or a multiple of that.
#[repr(C, align(128))]
struct Part<T>(T);

fn of<T>(parts: &[Part<T>; PARTS], session: CK_SESSION_HANDLE) -> &T {
    &parts[session as usize % PARTS].0
}

/// Calls of each function. In a session's part; what is in no session is in the first.
#[repr(C)]
pub(crate) struct Calls([Part<[AtomicU64; COUNT]>; PARTS]);

impl Calls {
    pub(crate) fn new() -> Calls {
        Calls([const { Part([const { AtomicU64::new(0) }; COUNT]) }; PARTS])
    }

    /// Counts a call.
    pub(crate) fn add(&self, function: Function, session: CK_SESSION_HANDLE) {
        of(&self.0, session)[function.index()].fetch_add(1, Ordering::Relaxed);
    }

    /// All calls of a function.
    pub(crate) fn of(&self, function: Function) -> u64 {
        self.0.iter().map(|Part(calls)| calls[function.index()].load(Ordering::Relaxed)).sum()
    }
}

/// One number.
pub(crate) struct Count([Part<AtomicU64>; PARTS]);

impl Count {
    pub(crate) fn new() -> Count {
        Count([const { Part(AtomicU64::new(0)) }; PARTS])
    }

    pub(crate) fn add(&self, session: CK_SESSION_HANDLE) {
        of(&self.0, session).fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.iter().map(|Part(count)| count.load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn clear(&self) {
        self.0.iter().for_each(|Part(count)| count.store(0, Ordering::Relaxed));
    }
}
