//! One CRL at a time: those who ask while one is being made share the next one.

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::model::Fault;

type Answer = Result<(), Fault>;

/// Who waits for the next CRL, and whether somebody is making one.
#[derive(Debug, Default)]
pub(super) struct Rebuild {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_running: bool,
    waiting: Vec<oneshot::Sender<Answer>>,
}

/// What a newcomer is to do.
pub(super) struct Joined {
    /// Resolves when a CRL begun after the newcomer came is made.
    pub(super) answer: oneshot::Receiver<Answer>,
    /// Whether the newcomer has to start the maker.
    pub(super) must_start: bool,
}

impl Rebuild {
    /// Waits for the next CRL that is begun.
    pub(super) fn join(&self) -> Joined {
        let (sender, answer) = oneshot::channel();
        let mut state = self.state.lock();
        state.waiting.push(sender);
        let must_start = !std::mem::replace(&mut state.is_running, true);
        Joined { answer, must_start }
    }

    /// The maker's round: those it makes the next CRL for. `None` ends it, as nobody waits.
    pub(super) fn round(&self) -> Option<Round<'_>> {
        let mut state = self.state.lock();
        let waiting = std::mem::take(&mut state.waiting);
        // Nobody wants it any more: those who left dropped their end.
        if waiting.iter().all(oneshot::Sender::is_closed) {
            state.is_running = false;
            return None;
        }
        Some(Round { rebuild: self, waiting, is_answered: false })
    }
}

/// Those who wait for the CRL being made. Dropped without an answer (its maker was stopped), it lets another start.
pub(super) struct Round<'r> {
    rebuild: &'r Rebuild,
    waiting: Vec<oneshot::Sender<Answer>>,
    is_answered: bool,
}

impl Round<'_> {
    /// Tells all of them how it went.
    pub(super) fn answer(mut self, answer: &Answer) {
        for waiting in self.waiting.drain(..) {
            // Whoever left does not listen.
            let _ = waiting.send(answer.clone());
        }
        self.is_answered = true;
    }
}

impl Drop for Round<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let mut state = self.rebuild.state.lock();
        state.is_running = false;
        // Their receivers learn it by the closed channel.
        state.waiting.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_together_share_one_round() {
        let rebuild = Rebuild::default();
        let mut first = rebuild.join();
        let round = rebuild.round().unwrap();
        let (mut second, mut third) = (rebuild.join(), rebuild.join());
        assert!(first.must_start && !second.must_start && !third.must_start);
        round.answer(&Ok(()));
        assert!(first.answer.try_recv().unwrap().is_ok());
        assert!(second.answer.try_recv().is_err());
        rebuild.round().unwrap().answer(&Err(Fault::Sealed));
        assert_eq!(second.answer.try_recv().unwrap(), Err(Fault::Sealed));
        assert_eq!(third.answer.try_recv().unwrap(), Err(Fault::Sealed));
        assert!(rebuild.round().is_none());
        assert!(rebuild.join().must_start);
    }

    #[test]
    fn a_maker_that_was_stopped_blocks_nobody() {
        let rebuild = Rebuild::default();
        let mut first = rebuild.join();
        drop(rebuild.round());
        assert!(matches!(first.answer.try_recv(), Err(oneshot::error::TryRecvError::Closed)));
        assert!(rebuild.join().must_start);
    }
}
