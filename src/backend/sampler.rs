//! Looks at calls now and then to tell whether they are computed on this host's own cores: then they take as much of their
//! thread's processor time as of the clock's. One that waits for a device elsewhere takes next to none;
//! nor does one that waits for a core or for a lock, or for another process of this host, so that those are taken for it.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

/// One call in so many is looked at: it costs four readings of clocks, two of them system calls. A prime, so that clients whose
/// operations come in turns do not have one kind of them looked at only.
const EVERY: u32 = 251;

/// What one session has seen.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    calls: u32,
    computed: Option<bool>,
}

/// A call that is looked at.
pub(super) struct Sample {
    /// By the processor time of its thread, and by the clock.
    began: (Timespec, Timespec),
}

impl Sampler {
    /// A call begins on this thread. `None` where it is none of those that are looked at.
    #[inline]
    pub(super) fn begin(&mut self) -> Option<Sample> {
        self.calls = self.calls.wrapping_add(1);
        // The processor's time is read outside the clock's: however quick the call is, one that computes took as much of it.
        let now = || (clock_gettime(ClockId::ThreadCPUTime), clock_gettime(ClockId::Monotonic));
        self.calls.is_multiple_of(EVERY).then(|| Sample { began: now() })
    }

    /// It has ended, on the same thread.
    pub(super) fn end(&mut self, Sample { began: (computing, began) }: Sample) {
        let took = since(began, ClockId::Monotonic);
        self.computed = Some(since(computing, ClockId::ThreadCPUTime) >= took / 2);
    }

    /// Whether the last call that was looked at, since this was asked, computed here.
    pub(super) fn computed(&mut self) -> Option<bool> {
        self.computed.take()
    }
}

fn since(began: Timespec, clock: ClockId) -> Duration {
    (clock_gettime(clock) - began).try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use super::*;

    fn sample(mut call: impl FnMut()) -> Option<bool> {
        let mut sampler = Sampler::default();
        for _ in 0..EVERY {
            let sample = sampler.begin();
            call();
            if let Some(sample) = sample {
                sampler.end(sample);
            }
        }
        let computed = sampler.computed();
        assert_eq!(sampler.computed(), None);
        computed
    }

    #[test]
    fn a_call_that_waits_is_told_from_one_that_computes() {
        assert_eq!(sample(|| std::thread::sleep(Duration::from_millis(2))), Some(false));
        // Where the core is another's meanwhile, a call that computes looks as if it waited: but not each time.
        let until = Instant::now() + Duration::from_secs(30);
        while sample(|| assert!(black_box((0..1_000u64).map(black_box).sum::<u64>()) > 0)) != Some(true) {
            assert!(Instant::now() < until, "no call was seen to compute");
        }
        assert_eq!(Sampler::default().computed(), None);
    }
}
