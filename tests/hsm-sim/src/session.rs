//! The sessions callers hold, by handles of our own that never come twice.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use cryptoki_sys::{CK_FLAGS, CK_SESSION_HANDLE, CKR_DEVICE_REMOVED, CKR_SESSION_HANDLE_INVALID};
use parking_lot::{Mutex, RwLock};

use crate::call::Answer;
use crate::clock;
use crate::null::operation::Operations;
use crate::real::RealSession;
use crate::slot::Slot;

const SHARDS: usize = 64;

/// One session. In cache lines of its own, as its thread changes it all the time.
#[repr(align(128))]
pub(crate) struct Session {
    pub(crate) handle: CK_SESSION_HANDLE,
    pub(crate) slot: Arc<Slot>,
    pub(crate) flags: CK_FLAGS,
    /// The session of the module behind. Closed when the last call in it has ended.
    pub(crate) real: Option<RealSession>,
    /// What goes on in it, in null mode.
    pub(crate) operations: Mutex<Operations>,
    last_use: AtomicU64,
    gone: AtomicBool,
}

impl Session {
    /// Whether it may be used, now.
    pub(crate) fn check(&self) -> Answer {
        match (self.gone.load(Ordering::Acquire), self.slot.is_present()) {
            (false, _) => Ok(()),
            (true, true) => Err(CKR_SESSION_HANDLE_INVALID),
            (true, false) => Err(CKR_DEVICE_REMOVED),
        }
    }

    /// Notes that it is in use, where somebody wants to know: reading the clock may cost more than all the rest.
    pub(crate) fn touch(&self) {
        if self.slot.idle().is_some() {
            self.last_use.store(clock::now(), Ordering::Relaxed);
        }
    }

    fn is_idle(&self) -> bool {
        let Some((idle, since)) = self.slot.idle() else { return false };
        clock::now().saturating_sub(self.last_use.load(Ordering::Relaxed).max(since)) > idle
    }
}

/// What is known of a handle.
enum Entry {
    Live(Arc<Session>),
    /// Its token was removed.
    Removed(Arc<Slot>),
}

/// Handles count up, so they are spread already.
#[derive(Default)]
struct Plain(u64);

impl Hasher for Plain {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = (self.0 << 8) | u64::from(*byte));
    }

    fn write_u64(&mut self, number: u64) {
        // Odd, so that nothing is lost; the upper bits are where the map looks for differences.
        self.0 = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// Some of them. In cache lines of their own as well: to look one up changes the lock.
#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<HashMap<CK_SESSION_HANDLE, Entry, BuildHasherDefault<Plain>>>);

/// All sessions of a module.
pub(crate) struct Sessions {
    shards: [Shard; SHARDS],
    next: AtomicU64,
}

impl Default for Sessions {
    fn default() -> Sessions {
        Sessions { shards: std::array::from_fn(|_| Shard::default()), next: AtomicU64::new(1) }
    }
}

impl Sessions {
    fn shard(&self, handle: CK_SESSION_HANDLE) -> &Shard {
        &self.shards[handle as usize % SHARDS]
    }

    /// The number the next session will have.
    pub(crate) fn next(&self) -> CK_SESSION_HANDLE {
        self.next.load(Ordering::Acquire)
    }

    /// A new session, for which the slot has counted one already.
    pub(crate) fn add(&self, slot: &Arc<Slot>, flags: CK_FLAGS, real: Option<RealSession>) -> CK_SESSION_HANDLE {
        let handle = self.next.fetch_add(1, Ordering::AcqRel);
        let session = Session {
            handle,
            slot: Arc::clone(slot),
            flags,
            real,
            operations: Mutex::default(),
            last_use: AtomicU64::new(clock::now()),
            gone: AtomicBool::new(false),
        };
        self.shard(handle).0.write().insert(handle, Entry::Live(Arc::new(session)));
        handle
    }

    /// The session of this handle, if it may be used.
    pub(crate) fn get(&self, handle: CK_SESSION_HANDLE) -> Answer<Arc<Session>> {
        let session = match self.shard(handle).0.read().get(&handle) {
            Some(Entry::Live(session)) => Arc::clone(session),
            Some(Entry::Removed(slot)) if !slot.is_present() => return Err(CKR_DEVICE_REMOVED),
            Some(Entry::Removed(_)) | None => return Err(CKR_SESSION_HANDLE_INVALID),
        };
        if session.is_idle() {
            self.close(handle);
            return Err(CKR_SESSION_HANDLE_INVALID);
        }
        Ok(session)
    }

    /// Takes it out. The session behind is closed as soon as no call is in it.
    pub(crate) fn close(&self, handle: CK_SESSION_HANDLE) {
        let entry = self.shard(handle).0.write().remove(&handle);
        if let Some(Entry::Live(session)) = entry {
            end(&session);
        }
    }

    /// All that are live, on one slot or on all.
    pub(crate) fn of(&self, slot: Option<&Arc<Slot>>) -> Vec<Arc<Session>> {
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(shard.0.read().values().filter_map(|entry| match entry {
                Entry::Live(session) if slot.is_none_or(|slot| Arc::ptr_eq(slot, &session.slot)) => {
                    Some(Arc::clone(session))
                }
                _ => None,
            }));
        }
        found
    }

    /// Ends all sessions of a slot. After a removal they are remembered, to tell their users so.
    pub(crate) fn drop_all(&self, slot: &Arc<Slot>, removed: bool) {
        for session in self.of(Some(slot)) {
            let mut shard = self.shard(session.handle).0.write();
            let entry = match removed {
                true => shard.insert(session.handle, Entry::Removed(Arc::clone(slot))),
                false => shard.remove(&session.handle),
            };
            drop(shard);
            if let Some(Entry::Live(session)) = entry {
                end(&session);
            }
        }
    }

    /// Ends those that have been unused for too long.
    pub(crate) fn drop_idle(&self, slot: &Arc<Slot>) {
        let idle = self.of(Some(slot)).into_iter().filter(|session| session.is_idle());
        idle.for_each(|session| self.close(session.handle));
    }

    /// Ends all, and forgets what was removed.
    pub(crate) fn clear(&self) {
        for shard in &self.shards {
            let entries: Vec<Entry> = shard.0.write().drain().map(|(_, entry)| entry).collect();
            for entry in entries {
                if let Entry::Live(session) = entry {
                    end(&session);
                }
            }
        }
    }
}

fn end(session: &Session) {
    session.gone.store(true, Ordering::Release);
    session.slot.leave_session();
}
