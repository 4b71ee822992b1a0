//! Wake-ups of a worker's connections, gathered: answers that come together wake the worker once, not once each.
//!
//! A session answers a whole batch of jobs at once, and the askers are spread over many connections. To wake a task from
//! another thread costs a system call and a look at every queue of its runtime. Here the first wake-up does; those that
//! come until the worker has woken up are a push to a list, and the worker wakes their tasks itself.

use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;
use parking_lot::Mutex;

/// The wake-ups of one worker.
#[derive(Default)]
pub(super) struct Wakeups {
    gathered: Mutex<Vec<Arc<Gatherer>>>,
    worker: AtomicWaker,
}

/// Gathers those of one connection.
struct Gatherer {
    of: Arc<Wakeups>,
    connection: AtomicWaker,
    /// Whether it is among those gathered.
    is_in: AtomicBool,
}

/// What a connection hands to its calls, in place of its own waker.
pub(super) struct Gathering {
    gatherer: Arc<Gatherer>,
    waker: Waker,
}

impl Wakeups {
    pub(super) fn new() -> Arc<Wakeups> {
        Arc::default()
    }

    /// Wakes whoever was gathered, again and again. Polled on the connections' own thread.
    pub(super) async fn deliver(self: Arc<Wakeups>) -> Infallible {
        let mut batch = Vec::new();
        poll_fn(|context| {
            // Before the list is looked at: whoever comes later wakes this.
            self.worker.register(context.waker());
            std::mem::swap(&mut *self.gathered.lock(), &mut batch);
            batch.drain(..).for_each(|gatherer| gatherer.deliver());
            Poll::Pending
        })
        .await
    }
}

impl Gathering {
    pub(super) fn new(of: &Arc<Wakeups>) -> Gathering {
        let (of, connection, is_in) = (Arc::clone(of), AtomicWaker::new(), AtomicBool::new(false));
        let gatherer = Arc::new(Gatherer { of, connection, is_in });
        Gathering { waker: Waker::from(Arc::clone(&gatherer)), gatherer }
    }

    /// What wakes the connection, in place of its own waker.
    pub(super) fn waker(&self) -> &Waker {
        &self.waker
    }

    /// From now on it wakes the connection that is polled in this context.
    pub(super) fn wakes(&self, connection: &Context<'_>) {
        self.gatherer.connection.register(connection.waker());
    }
}

impl Gatherer {
    fn deliver(&self) {
        // First: whoever finds it gathered until here is woken by what follows.
        self.is_in.swap(false, Ordering::AcqRel);
        self.connection.wake();
    }
}

impl Wake for Gatherer {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_in.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_first = {
            let mut gathered = self.of.gathered.lock();
            gathered.push(Arc::clone(self));
            gathered.len() == 1
        };
        if is_first {
            self.of.worker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn so_far(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn answers_that_come_together_wake_the_worker_once_and_each_connection_once() {
        let wakeups = Wakeups::new();
        let worker = Arc::new(Count::default());
        let on_worker = Waker::from(Arc::clone(&worker));
        let mut delivery = pin!(Arc::clone(&wakeups).deliver());
        let mut deliver = || assert!(delivery.as_mut().poll(&mut Context::from_waker(&on_worker)).is_pending());
        deliver();
        let connections = [(); 2].map(|()| (Gathering::new(&wakeups), Arc::new(Count::default())));
        // As the calls of each keep it.
        let calls = connections.each_ref().map(|(gathering, count)| {
            let waker = Waker::from(Arc::clone(count));
            gathering.wakes(&Context::from_waker(&waker));
            gathering.waker().clone()
        });
        calls.iter().chain(&calls).for_each(Waker::wake_by_ref);
        assert_eq!((worker.so_far(), connections.each_ref().map(|(_, count)| count.so_far())), (1, [0, 0]));
        deliver();
        assert_eq!((worker.so_far(), connections.each_ref().map(|(_, count)| count.so_far())), (1, [1, 1]));
        calls[1].wake_by_ref();
        assert_eq!(worker.so_far(), 2, "the list was empty again");
        drop(connections);
        // A call that outlives its connection wakes nobody, and harms nobody.
        calls[0].wake_by_ref();
        deliver();
    }
}
