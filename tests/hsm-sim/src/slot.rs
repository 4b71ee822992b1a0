//! A slot as callers see it: its number, whether its token is there, its limits, its device.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use cryptoki_sys::{CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_SLOT_ID, CKR_SESSION_COUNT, CKR_TOKEN_NOT_PRESENT};
use parking_lot::RwLock;

use crate::call::Answer;
use crate::clock;
use crate::command::{Selector, Setting, Swap};
use crate::counts::Calls;
use crate::device::Device;
use crate::null::token::NullToken;
use crate::shared::Shared;

const PRESENT: u8 = 0;
const REMOVED: u8 = 1;
/// Back, but seen only by the next initialisation.
const AT_INITIALIZE: u8 = 2;

/// The bits of a handle that tell when it was handed out.
const GENERATION_SHIFT: u32 = 44;

/// The names of a slot's token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Names {
    pub(crate) label: String,
    pub(crate) serial: String,
}

/// One slot.
pub(crate) struct Slot {
    /// The number the module behind gives it; in null mode its place.
    pub(crate) base: CK_SLOT_ID,
    /// The number callers know.
    id: AtomicU64,
    names: RwLock<Names>,
    presence: AtomicU8,
    pub(crate) device: Device,
    pub(crate) calls: Calls,
    round_trip: AtomicU64,
    /// 0: without limit.
    most_sessions: AtomicU64,
    limit_is_told: AtomicBool,
    /// Nanoseconds; 0: never.
    idle: AtomicU64,
    /// When that was set. Before, no session noted its uses.
    idle_since: AtomicU64,
    clock_is_bad: AtomicBool,
    open: AtomicU64,
    /// Whether the device has forgotten that somebody is logged in.
    pub(crate) forgotten: AtomicBool,
    generation: AtomicU64,
    /// With the number of the first session each is for.
    swaps: RwLock<Vec<(Swap, u64)>>,
    is_swapped: AtomicBool,
    pub(crate) null: Option<NullToken>,
}

impl Slot {
    pub(crate) fn new(base: CK_SLOT_ID, names: Names, shared: &'static Shared, null: Option<NullToken>) -> Arc<Slot> {
        let token = if names.serial.is_empty() { format!("slot {base}") } else { names.serial.clone() };
        Arc::new(Slot {
            base,
            id: AtomicU64::new(base),
            names: RwLock::new(names),
            presence: AtomicU8::new(PRESENT),
            device: Device::new(shared.device(&token)),
            calls: Calls::new(),
            round_trip: AtomicU64::new(0),
            most_sessions: AtomicU64::new(0),
            limit_is_told: AtomicBool::new(true),
            idle: AtomicU64::new(0),
            idle_since: AtomicU64::new(0),
            clock_is_bad: AtomicBool::new(false),
            open: AtomicU64::new(0),
            forgotten: AtomicBool::new(false),
            generation: AtomicU64::new(0),
            swaps: RwLock::default(),
            is_swapped: AtomicBool::new(false),
            null,
        })
    }

    pub(crate) fn id(&self) -> CK_SLOT_ID {
        self.id.load(Ordering::Acquire)
    }

    pub(crate) fn set_id(&self, id: CK_SLOT_ID) {
        self.id.store(id, Ordering::Release);
    }

    pub(crate) fn names(&self) -> Names {
        self.names.read().clone()
    }

    /// Takes new names; answers whether they are.
    pub(crate) fn set_names(&self, names: Names) -> bool {
        let mut known = self.names.write();
        let changed = *known != names;
        *known = names;
        changed
    }

    pub(crate) fn is(&self, selector: &Selector) -> bool {
        let names = self.names.read();
        selector.selects(self.id(), &names.label, &names.serial)
    }

    pub(crate) fn is_present(&self) -> bool {
        self.presence.load(Ordering::Acquire) == PRESENT
    }

    pub(crate) fn require_token(&self) -> Answer {
        if self.is_present() { Ok(()) } else { Err(CKR_TOKEN_NOT_PRESENT) }
    }

    pub(crate) fn remove(&self) {
        self.presence.store(REMOVED, Ordering::Release);
    }

    /// The token is back: at once, or for the next initialisation. Its objects have other handles from now on.
    pub(crate) fn give_back(&self, anew: bool) {
        if self.is_present() {
            return;
        }
        self.forget_handles();
        self.presence.store(if anew { AT_INITIALIZE } else { PRESENT }, Ordering::Release);
    }

    /// The module is initialised.
    pub(crate) fn initialized(&self) {
        let _ = self.presence.compare_exchange(AT_INITIALIZE, PRESENT, Ordering::AcqRel, Ordering::Relaxed);
        self.forgotten.store(false, Ordering::Release);
    }

    pub(crate) fn set(&self, setting: &Setting) {
        match setting {
            Setting::Service(service) => self.device.set_service(*service),
            Setting::Parallel(servers) => self.device.set_parallel(*servers),
            Setting::RoundTrip(time) => self.round_trip.store(clock::nanoseconds(*time), Ordering::Relaxed),
            Setting::Sessions { most, told } => {
                self.most_sessions.store(most.unwrap_or(0), Ordering::Relaxed);
                self.limit_is_told.store(*told, Ordering::Relaxed);
            }
            Setting::Idle(time) => {
                self.idle_since.store(clock::now(), Ordering::Release);
                self.idle.store(time.map_or(0, clock::nanoseconds), Ordering::Release);
            }
            Setting::BadClock(bad) => self.clock_is_bad.store(*bad, Ordering::Relaxed),
        }
    }

    /// As it was made.
    pub(crate) fn reset(&self) {
        use std::time::Duration;
        let settings = [
            Setting::Service(None),
            Setting::Parallel(1),
            Setting::RoundTrip(Duration::ZERO),
            Setting::Sessions { most: None, told: true },
            Setting::Idle(None),
            Setting::BadClock(false),
        ];
        settings.iter().for_each(|setting| self.set(setting));
        self.device.forget();
        self.swaps.write().clear();
        self.is_swapped.store(false, Ordering::Release);
        self.give_back(false);
    }

    /// The way to the device and back, which every call takes.
    pub(crate) fn travel(&self) {
        let time = self.round_trip.load(Ordering::Relaxed);
        if time > 0 {
            clock::sleep_until(clock::now().saturating_add(time));
        }
    }

    /// How long a session may be unused, in nanoseconds, and since when that is so.
    pub(crate) fn idle(&self) -> Option<(u64, u64)> {
        let idle = self.idle.load(Ordering::Acquire);
        (idle > 0).then(|| (idle, self.idle_since.load(Ordering::Acquire)))
    }

    /// The limit of sessions, if there is one and it is told.
    pub(crate) fn told_limit(&self) -> Option<u64> {
        let most = self.most_sessions.load(Ordering::Relaxed);
        (most > 0 && self.limit_is_told.load(Ordering::Relaxed)).then_some(most)
    }

    pub(crate) fn clock_is_bad(&self) -> bool {
        self.clock_is_bad.load(Ordering::Relaxed)
    }

    /// Counts one more session, if there may be one.
    pub(crate) fn take_session(&self) -> Answer {
        let most = self.most_sessions.load(Ordering::Relaxed);
        let more = |open| (most == 0 || open < most).then_some(open + 1);
        let taken = self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.map(|_| ()).map_err(|_| CKR_SESSION_COUNT)
    }

    /// Counts one session less; with the last one, everybody is logged out.
    pub(crate) fn leave_session(&self) {
        if self.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.forgotten.store(false, Ordering::Release);
            if let Some(token) = &self.null {
                token.log_out();
            }
        }
    }

    pub(crate) fn open_sessions(&self) -> u64 {
        self.open.load(Ordering::Acquire)
    }

    /// From the session of this number on, a handle names another key.
    pub(crate) fn swap(&self, swap: Swap, first: CK_SESSION_HANDLE) {
        self.swaps.write().push((swap, first));
        self.is_swapped.store(true, Ordering::Release);
    }

    /// What is swapped in this session, the last command first.
    pub(crate) fn swaps(&self, session: CK_SESSION_HANDLE) -> Vec<Swap> {
        if !self.is_swapped.load(Ordering::Acquire) {
            return Vec::new();
        }
        let swaps = self.swaps.read();
        swaps.iter().rev().filter(|(_, first)| session >= *first).map(|(swap, _)| swap.clone()).collect()
    }

    /// Makes all handles invalid that were handed out so far.
    pub(crate) fn forget_handles(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The handle callers get for one of the module behind.
    pub(crate) fn hand_out(&self, object: CK_OBJECT_HANDLE) -> CK_OBJECT_HANDLE {
        if object == 0 { 0 } else { object + (self.generation.load(Ordering::Acquire) << GENERATION_SHIFT) }
    }

    /// The handle of the module behind for one that was handed out, if it is still good.
    pub(crate) fn take_back(&self, object: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
        let generation = self.generation.load(Ordering::Acquire);
        let current = object >> GENERATION_SHIFT == generation;
        current.then_some(object & ((1 << GENERATION_SHIFT) - 1))
    }
}
