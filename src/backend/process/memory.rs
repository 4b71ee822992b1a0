//! Keeping what is in memory from the disk: no core dumps, and no swapping where the system lets us. The daemon is told by its
//! configuration, and its workers do as it does.

use std::sync::atomic::{AtomicBool, Ordering};

use rustix::mm::MlockAllFlags;
use rustix::process::{DumpableBehavior, Resource, Rlimit};

use crate::config::Memory;

/// `CAP_IPC_LOCK`, as a bit of the sets in `/proc/self/status`.
const CAP_IPC_LOCK: u64 = 1 << 14;

/// This process's memory is locked, once for all of it.
static IS_LOCKED: AtomicBool = AtomicBool::new(false);

/// Whether this process's memory is kept from swap space.
pub fn is_locked() -> bool {
    IS_LOCKED.load(Ordering::Relaxed)
}

/// Guards this process's memory as configured. What the system refuses is logged: it costs nobody his service.
pub fn guard(memory: Memory) {
    if !memory.core_dumps
        && let Err(error) = no_core_dumps()
    {
        tracing::warn!(%error, "core dumps cannot be switched off: a crash may leave keys in a file");
    }
    if memory.lock {
        lock();
    }
}

/// Leaves this process's memory to no file when it crashes, and to no debugger of the same user.
pub(super) fn no_core_dumps() -> std::io::Result<()> {
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Locks what is used from now on. Under a limit nothing is locked: memory beyond it could not be had at all.
pub(super) fn lock() {
    let unlimited = rustix::process::getrlimit(Resource::Memlock).current.is_none();
    if !unlimited && !may_lock_any() {
        tracing::warn!(
            "memory is not locked, so that keys may get into swap space: set LimitMEMLOCK=infinity in the systemd unit, or \
             lock_memory = false where there is no swap space or it is encrypted"
        );
        return;
    }
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    match rustix::mm::mlockall(flags) {
        Ok(()) => IS_LOCKED.store(true, Ordering::Relaxed),
        Err(error) => tracing::warn!(%error, "memory cannot be locked: keys may get into swap space"),
    }
}

fn may_lock_any() -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| has_capability(&status))
}

fn has_capability(status: &str) -> bool {
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|set| u64::from_str_radix(set.trim(), 16).ok()).is_some_and(|set| set & CAP_IPC_LOCK != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_capability_is_read_from_the_effective_set() {
        assert!(has_capability("Name:\tkeyway\nCapPrm:\t0\nCapEff:\t0000000000004000\n"));
        assert!(!has_capability("CapPrm:\tffffffffffffffff\nCapEff:\t0000000000000000\n"));
        assert!(!has_capability("CapEff:\tnonsense\n") && !has_capability(""));
    }
}
