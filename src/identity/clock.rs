//! The time of day, as tokens are judged by it.

#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Tells whole Unix seconds. Cheap enough for every request; in tests, it says what it is told.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    #[cfg(test)]
    told: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// A clock that stands at what `told` holds.
    #[cfg(test)]
    pub(super) fn told(told: Arc<AtomicU64>) -> Clock {
        Clock { told: Some(told) }
    }

    /// Unix seconds.
    pub(super) fn now(&self) -> u64 {
        #[cfg(test)]
        if let Some(told) = &self.told {
            return told.load(Ordering::SeqCst);
        }
        // Some milliseconds late, and a tenth of the cost of the exact one.
        let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
        u64::try_from(now.tv_sec).unwrap_or_default()
    }
}
