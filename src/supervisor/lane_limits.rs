//! How much a lane holds and hands out at a time, how often it has a job tried, and how it wakes sessions.

use std::time::Duration;

use crate::config::Limits;
use crate::model::held::{Held, Measure};
use crate::model::{Fault, Namespace};

/// The bounds of one lane.
#[derive(Clone, Copy, Debug)]
pub(super) struct LaneLimits {
    /// Queued in all.
    pub(super) all: Held,
    /// Queued of one namespace.
    pub(super) per_namespace: Held,
    /// Jobs of one pull.
    pub(super) batch_max: usize,
    /// Expected device time of one pull.
    pub(super) batch_time: Duration,
    /// How often one job is tried at once after it failed.
    pub(super) attempts: u8,
    /// How often one is tried in all that waits between tries: it rests, or its member is brought up anew.
    pub(super) resting_attempts: u8,
    /// Second tries of a namespace, in hundredths of what it asks for…
    pub(super) retry_percent: u32,
    /// …and so many in a burst.
    pub(super) retry_burst: u32,
    /// How sleeping sessions are woken.
    pub(super) wake: Wake,
}

impl LaneLimits {
    /// Those of the configuration.
    pub(super) fn new(limits: &Limits, wake: Wake) -> LaneLimits {
        LaneLimits {
            all: Held { jobs: limits.lane_jobs, bytes: limits.lane_bytes },
            per_namespace: Held { jobs: limits.lane_jobs_per_namespace, bytes: limits.lane_bytes_per_namespace },
            batch_max: limits.batch_max,
            batch_time: limits.batch_time,
            attempts: limits.attempts,
            resting_attempts: limits.cloud_attempts,
            retry_percent: limits.retry_percent,
            retry_burst: limits.retry_burst,
            wake,
        }
    }
}

/// How sleeping sessions are woken for a burst of jobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// One at a time: who was woken wakes the next if it leaves work behind. For tokens that compute on our own cores, where
    /// every wake-up interrupts a signature: a burst costs as many wake-ups as sessions are needed for it.
    Chain,
    /// One for each job: a device elsewhere should have all the work it can do at once.
    Each,
}

impl Wake {
    /// For sessions whose tokens all compute on this host's own cores, or not.
    pub(super) fn of(computes_here: bool) -> Wake {
        if computes_here { Wake::Chain } else { Wake::Each }
    }
}

/// That a bound is reached.
pub(super) fn overloaded(namespace: Namespace, limits: &Held, by: Measure) -> Fault {
    let (limit, unit) = (limits.of(by), by.unit());
    Fault::Overloaded { namespace, limit, unit, retry_after: Duration::from_secs(1) }
}

/// That a message would find no room in an empty lane.
pub(super) fn too_large(bytes: usize, limit: usize) -> Fault {
    let what = format!(
        "a message of {bytes} bytes, which this key signs whole; limits {{ lane_bytes_per_namespace }} allows {limit}"
    );
    Fault::TooLarge { what }
}
