//! Whether anybody still works for a member: so that the next one of its token begins when the last session of the one
//! before is closed, and not beside it.

use std::convert::Infallible;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded};

/// Held by a member and by every thread that works for it.
#[derive(Clone)]
pub(super) struct Presence(#[expect(dead_code, reason = "it says something by being dropped")] Sender<Infallible>);

/// The other end: over once every [`Presence`] of the member is gone.
#[derive(Clone)]
pub(super) struct Absence(Receiver<Infallible>);

/// One that was there before a member.
#[derive(Clone)]
pub(super) struct Before {
    pub(super) absence: Absence,
    /// Whether it must have gone first, since it is logged in by the same state of the same code. One that runs elsewhere is
    /// only waited for, so that the token need not bear both at once.
    pub(super) must_go: bool,
}

/// Both ends, for a new member.
pub(super) fn pair() -> (Presence, Absence) {
    let (present, absent) = bounded(0);
    (Presence(present), Absence(absent))
}

impl Absence {
    /// Waits until nobody is left; false if somebody is at the `end`.
    pub(super) fn wait(&self, end: Instant) -> bool {
        matches!(self.0.recv_deadline(end), Err(RecvTimeoutError::Disconnected))
    }

    /// Whether nobody is left.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.0.try_recv(), Err(TryRecvError::Disconnected))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nobody_is_left_when_the_last_thread_has_ended() {
        let (present, absent) = pair();
        let (end, ended) = bounded::<()>(0);
        let thread = std::thread::spawn({
            let present = present.clone();
            move || {
                let _ = ended.recv();
                drop(present);
            }
        });
        drop(present);
        assert!(!absent.is_over() && !absent.wait(Instant::now()));
        drop(end);
        assert!(absent.wait(Instant::now() + Duration::from_secs(60)) && absent.is_over());
        thread.join().unwrap();
    }
}
