//! Serves a worker's connections, each when it is its party's turn: in the runtime, all of them are one task. A runtime's own
//! queue knows connections only, so that a lone caller waited for a turn of each of another's, several times a request.
//!
//! A connection that is ready is polled once, and goes to the end of its party's line if it is ready again. It is no more than
//! polled: whatever takes long yields, or goes to other threads; what a poll took is charged to its party. After half a
//! millisecond the runtime looks at the sockets again, so that whoever has asked meanwhile stands in line. So between asking
//! and being served there are, beside the pieces of other parties that [`Order`] tells of, half a millisecond and a piece.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use async_task::{Runnable, Task};
use futures_util::FutureExt;
use futures_util::task::AtomicWaker;
use parking_lot::Mutex;
use tokio::task::coop;

use super::order::{Order, Party};
use crate::model::Namespace;

/// How long connections are served before the runtime looks at all sockets again.
const LOOK: Duration = Duration::from_micros(500);
/// The most that one poll is counted for.
const COST_MAX: Duration = Duration::from_millis(4);

/// A connection's place in its worker's order. Cheap to clone.
#[derive(Clone)]
pub(super) struct Seat(Arc<Place>);

struct Place {
    uid: u32,
    party: Mutex<Party>,
}

/// What serves the connections of one worker.
pub(super) struct Usher {
    order: Mutex<Order<Runnable<Seat>>>,
    worker: AtomicWaker,
}

impl Seat {
    /// Of a connection of this uid, that has shown nothing yet.
    pub(super) fn of(uid: u32) -> Seat {
        Seat(Arc::new(Place { uid, party: Mutex::new(Party::Stranger(uid)) }))
    }

    /// From now on it is served on the account of this namespace's tenant, where a token is good; with none, on that of its uid.
    pub(super) fn serve_for(&self, namespace: Option<&Namespace>) {
        let mut party = self.0.party.lock();
        match (namespace.map(Namespace::tenant), &*party) {
            (Some(now), Party::Namespace(before)) if now == *before => {}
            (Some(now), _) => *party = Party::Namespace(now),
            (None, _) => *party = Party::Stranger(self.0.uid),
        }
    }

    fn party(&self) -> Party {
        self.0.party.lock().clone()
    }
}

impl Usher {
    pub(super) fn new() -> Arc<Usher> {
        Arc::new(Usher { order: Mutex::new(Order::new()), worker: AtomicWaker::new() })
    }

    /// Takes a connection. It is served until it ends, or what is answered is dropped; a panic of it ends it alone.
    pub(super) fn admit(
        self: &Arc<Self>,
        seat: Seat,
        connection: impl Future<Output = ()> + Send + 'static,
    ) -> Task<(), Seat> {
        let own = Arc::clone(self);
        let schedule = move |ready: Runnable<Seat>| own.line_up(ready);
        // The panic has been told by its hook.
        let connection = AssertUnwindSafe(connection).catch_unwind().map(drop);
        let (ready, task) = async_task::Builder::new().metadata(seat).spawn(|_| connection, schedule);
        ready.schedule();
        task
    }

    fn line_up(&self, ready: Runnable<Seat>) {
        let party = ready.metadata().party();
        let is_first = self.order.lock().push(party, ready);
        if is_first {
            self.worker.wake();
        }
    }

    /// Serves whoever is ready, again and again.
    pub(super) async fn serve(self: Arc<Self>) -> Infallible {
        poll_fn(|context| self.poll(context)).await
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<Infallible> {
        // Before the order is looked at: whoever comes later wakes this.
        self.worker.register(context.waker());
        let mut begun = Instant::now();
        let (until, mut cost) = (begun + LOOK, 0);
        loop {
            let next = self.order.lock().next(cost);
            let Some(ready) = next else { return Poll::Pending };
            ready.run();
            let ended = Instant::now();
            // A worker that was stopped meanwhile is nobody's debt.
            let took = (ended - begun).min(COST_MAX);
            cost = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
            begun = ended;
            // What it may do before the sockets are looked at is counted for all that one task polls.
            if ended >= until || !coop::has_budget_remaining() {
                self.order.lock().end(cost);
                let _ = std::pin::pin!(tokio::task::yield_now()).poll(context);
                return Poll::Pending;
            }
        }
    }

    /// Drops what is ready. Each holds this, as this holds it.
    pub(super) fn clear(&self) {
        let ready = self.order.lock().clear();
        drop(ready);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn tenant(name: &str) -> Seat {
        let seat = Seat::of(1000);
        seat.serve_for(Some(&Namespace::from_path(name)));
        seat
    }

    /// Runs `test` on a runtime as a worker's.
    fn on_a_worker(test: impl AsyncFnOnce(Arc<Usher>)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let usher = Usher::new();
            let serving = tokio::spawn(Arc::clone(&usher).serve());
            test(Arc::clone(&usher)).await;
            usher.clear();
            serving.abort();
            assert!(serving.await.unwrap_err().is_cancelled());
            assert_eq!(Arc::strong_count(&usher), 1, "nothing is kept");
        });
    }

    /// A connection that always has something to do, which takes a while.
    async fn flood(done: Arc<AtomicUsize>) {
        loop {
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_micros(50) {}
            done.fetch_add(1, Ordering::Relaxed);
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_lone_caller_takes_turns_with_a_flood_of_connections() {
        on_a_worker(async |usher| {
            let done = Arc::new(AtomicUsize::new(0));
            let floods: Vec<_> = (0..256).map(|_| usher.admit(tenant("loud"), flood(Arc::clone(&done)))).collect();
            while done.load(Ordering::Relaxed) < 1000 {
                tokio::task::yield_now().await;
            }
            let counted = Arc::clone(&done);
            let lone = usher.admit(tenant("lone"), async move {
                let begun = counted.load(Ordering::Relaxed);
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                counted.store(counted.load(Ordering::Relaxed) - begun, Ordering::Relaxed);
            });
            lone.await;
            // In its order, the runtime would have served each connection of the flood as often as the lone one.
            let served = done.load(Ordering::Relaxed);
            assert!(served < 100 * 64, "{served} of the flood beside 100");
            drop(floods);
        });
    }

    #[test]
    fn a_panic_ends_its_own_connection_alone() {
        on_a_worker(async |usher| {
            usher.admit(tenant("a"), async { panic!("on purpose") }).await;
            usher.admit(tenant("b"), async {}).await;
        });
    }

    #[test]
    fn a_connection_that_is_let_go_is_dropped_where_it_waits() {
        on_a_worker(async |usher| {
            let held = Arc::new(());
            let (kept, idle) = (Arc::clone(&held), tokio::sync::Notify::new());
            let connection = usher.admit(tenant("a"), async move {
                idle.notified().await;
                drop(kept);
            });
            tokio::task::yield_now().await;
            drop(connection);
            usher.clear();
            assert_eq!(Arc::strong_count(&held), 1);
        });
    }

    #[test]
    fn what_another_thread_wakes_is_served() {
        on_a_worker(async |usher| {
            let (tell, told) = tokio::sync::oneshot::channel::<u8>();
            let connection = usher.admit(tenant("a"), async move { assert_eq!(told.await, Ok(7)) });
            tokio::task::yield_now().await;
            std::thread::spawn(move || tell.send(7).unwrap()).join().unwrap();
            connection.await;
        });
    }

    #[test]
    fn a_seat_is_its_uids_until_a_token_is_good_and_again_when_it_is_not() {
        let (seat, namespace) = (Seat::of(7), Namespace::from_path("a"));
        assert_eq!(seat.party(), Party::Stranger(7));
        seat.serve_for(Some(&namespace));
        assert_eq!(seat.party(), Party::Namespace(namespace));
        seat.serve_for(None);
        assert_eq!(seat.party(), Party::Stranger(7));
    }
}
