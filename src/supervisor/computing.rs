//! Whether a member's calls are computed on this host's own cores: by its profile's word, or as its sessions see. Its lane wakes
//! sessions accordingly, and the daemon's threads share the cores with it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use super::lane::Wake;
use super::pool::Pool;
use super::pools::Pools;

/// So many calls more of the other kind change what is thought of a member.
const SURE: u8 = 16;
/// Censuses, one a second, after which nothing is thought any more of a member no call of which was looked at.
const FORGOTTEN: u8 = 60;

/// What is known of one member. Until its calls were seen, it is thought to compute elsewhere.
pub(super) struct Computing {
    /// By its profile: then no call changes it.
    known: bool,
    here: AtomicBool,
    /// From 0, all elsewhere, to [`SURE`], all here.
    seen: AtomicU8,
    /// Censuses since a call was looked at.
    idle: AtomicU8,
}

impl Computing {
    pub(super) fn new(known: bool) -> Computing {
        Computing { known, here: AtomicBool::new(known), seen: AtomicU8::new(0), idle: AtomicU8::new(0) }
    }

    /// One call was seen to be computed here, or not. One that is lost because another session notes at the same time is no harm.
    pub(super) fn note(&self, here: bool) {
        self.idle.store(0, Ordering::Relaxed);
        let before = self.seen.load(Ordering::Relaxed);
        let now = if here { before.saturating_add(1).min(SURE) } else { before.saturating_sub(1) };
        if now != before {
            self.seen.store(now, Ordering::Relaxed);
        }
        let is_sure = now == if here { SURE } else { 0 };
        if is_sure && !self.known && self.is_here() != here {
            self.here.store(here, Ordering::Relaxed);
        }
    }

    pub(super) fn is_here(&self) -> bool {
        self.here.load(Ordering::Relaxed)
    }

    /// A second has passed.
    fn age(&self) {
        let idle = self.idle.load(Ordering::Relaxed).saturating_add(1);
        self.idle.store(idle, Ordering::Relaxed);
        if idle >= FORGOTTEN && !self.known {
            self.seen.store(0, Ordering::Relaxed);
            self.here.store(false, Ordering::Relaxed);
        }
    }
}

impl Pools {
    /// The same, and a second has passed.
    pub(super) fn keep_pace_by_the_clock(&self) {
        self.members().iter().for_each(|member| member.computing.age());
        self.keep_pace();
    }

    /// Goes by where the members compute now: lanes whose members all do it here wake one session at a time, and the daemon's threads
    /// yield where any does.
    pub(super) fn keep_pace(&self) {
        let (mut any_here, mut all_here) = (false, HashMap::<*const Pool, bool>::new());
        for member in self.members() {
            let here = member.computing.is_here();
            member.metrics.computes_here(here);
            any_here |= here;
            *all_here.entry(Arc::as_ptr(&member.pool)).or_insert(true) &= here;
        }
        for pool in self.all() {
            if let Some(here) = all_here.get(&Arc::as_ptr(&pool)) {
                pool.lane.wake_by(Wake::of(*here));
            }
        }
        self.pace.set_yields(any_here);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_thought_of_as_most_of_its_calls_were_seen() {
        let computing = Computing::new(false);
        let note = |here, times| {
            (0..times).for_each(|_| computing.note(here));
            computing.is_here()
        };
        assert!(!note(true, SURE - 1));
        assert!(!note(false, 1));
        assert!(note(true, 2));
        // Some calls that waited, for a lock or a core, are no news.
        assert!(note(false, SURE - 1));
        assert!(note(true, SURE));
        assert!(!note(false, SURE));
        assert!(!note(false, 100) && !note(true, SURE - 1) && note(true, 1));
    }

    #[test]
    fn of_a_member_that_is_not_used_nothing_is_thought() {
        let computing = Computing::new(false);
        (0..SURE).for_each(|_| computing.note(true));
        (1..FORGOTTEN).for_each(|_| computing.age());
        assert!(computing.is_here());
        computing.note(true);
        (1..FORGOTTEN).for_each(|_| computing.age());
        assert!(computing.is_here());
        computing.age();
        assert!(!computing.is_here());
    }

    #[test]
    fn what_a_profile_says_no_call_changes() {
        let computing = Computing::new(true);
        (0..100).for_each(|_| computing.note(false));
        (0..100).for_each(|_| computing.age());
        assert!(computing.is_here());
    }
}
