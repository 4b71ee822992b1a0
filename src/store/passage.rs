//! A passage that many go through at once; whoever waits until those inside have left holds nobody up who comes.
//!
//! Nothing here can deadlock: to enter takes no lock, and the one lock there is keeps those apart who wait. Whoever is inside
//! must not wait for them.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

/// The passage.
pub(super) struct Passage {
    /// Shared by all who came since somebody last waited.
    inside: ArcSwap<Inside>,
    /// Ends when the last of them has left.
    left: Mutex<Receiver<Infallible>>,
}

/// Is held by whoever is inside. Nothing is ever sent.
pub(super) struct Inside(#[expect(dead_code, reason = "that it is dropped is what tells")] Sender<Infallible>);

impl Default for Passage {
    fn default() -> Passage {
        let (inside, left) = channel();
        Passage { inside: ArcSwap::from_pointee(Inside(inside)), left: Mutex::new(left) }
    }
}

impl Passage {
    /// Enters, and is inside as long as the answer is held. Never waits.
    pub(super) fn enter(&self) -> Arc<Inside> {
        self.inside.load_full()
    }

    /// Waits until all have left who are inside now, however many come meanwhile. Blocks.
    pub(super) fn wait(&self) {
        let mut left = self.left.lock();
        let (inside, later) = channel();
        drop(self.inside.swap(Arc::new(Inside(inside))));
        let all = std::mem::replace(&mut *left, later);
        // An error, as nothing is sent: the last one has left.
        all.recv().ok();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn who_waits_waits_for_those_inside_and_holds_up_nobody_who_comes() {
        let passage = Arc::new(Passage::default());
        let first = passage.enter();
        let (waited, done) = channel();
        let waiting = Arc::clone(&passage);
        let waiter = std::thread::spawn(move || {
            waiting.wait();
            waited.send(()).unwrap();
        });
        // The waiter is at it once newcomers share something else.
        while Arc::ptr_eq(&first, &passage.enter()) {
            std::thread::yield_now();
        }
        let second = passage.enter();
        assert!(done.try_recv().is_err(), "one is inside yet");
        drop(first);
        done.recv_timeout(Duration::from_secs(60)).unwrap();
        waiter.join().unwrap();
        drop(second);
        passage.wait();
    }
}
