//! The calls of one connection that are being answered: only those are polled that may be ready.
//!
//! Performance-critical: a call takes a place that others had before it, and their waker with it, so that nothing is
//! allocated for one. Whoever wakes a call from another thread touches nothing that calls are started with; with
//! `FuturesUnordered`, each call begun and each answer met on one counter.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;

/// Places that an idle connection keeps.
const IDLE_PLACES: usize = 2;

/// Calls in flight.
pub(super) struct Calls<F> {
    places: Vec<Place<F>>,
    vacant: Vec<usize>,
    /// Places to look at: calls that were just begun, and calls that were woken.
    due: VecDeque<usize>,
    woken: Arc<Woken>,
}

struct Place<F> {
    call: Option<F>,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Wakes the call in one place, whichever it is: one that is woken for another before it is polled in vain.
struct Bell {
    place: usize,
    /// Whether it is among those woken.
    is_in: AtomicBool,
    woken: Arc<Woken>,
}

/// The places woken since they were last looked at.
struct Woken {
    places: Mutex<Vec<usize>>,
    connection: Waker,
}

impl<F: Future + Unpin> Calls<F> {
    /// None yet. `connection` is woken when one of them may be ready.
    pub(super) fn new(connection: Waker) -> Calls<F> {
        let woken = Arc::new(Woken { places: Mutex::default(), connection });
        Calls { places: Vec::new(), vacant: Vec::new(), due: VecDeque::new(), woken }
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.vacant.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Begins one: it is polled first by [`Calls::next`].
    pub(super) fn begin(&mut self, call: F) {
        let place = self.vacant.pop().unwrap_or_else(|| self.add_place());
        if let Some(vacant) = self.places.get_mut(place) {
            vacant.call = Some(call);
            self.due.push_back(place);
        }
    }

    fn add_place(&mut self) -> usize {
        let place = self.places.len();
        let bell = Arc::new(Bell { place, is_in: AtomicBool::new(false), woken: Arc::clone(&self.woken) });
        self.places.push(Place { call: None, waker: Waker::from(Arc::clone(&bell)), bell });
        place
    }

    /// Notes which calls were woken until now. Those that are from here on wake the connection.
    pub(super) fn look(&mut self) {
        self.due.extend(self.woken.places.lock().drain(..));
    }

    /// Has those looked at before all others of which `is_urgent` says so.
    pub(super) fn hurry(&mut self, mut is_urgent: impl FnMut(&mut F) -> bool) {
        for (index, place) in self.places.iter_mut().enumerate() {
            if place.call.as_mut().is_some_and(&mut is_urgent) {
                self.due.push_front(index);
            }
        }
    }

    /// The next answer that is ready, of the calls that were begun or noted.
    pub(super) fn next(&mut self) -> Option<F::Output> {
        while let Some(index) = self.due.pop_front() {
            let Some(place) = self.places.get_mut(index) else { continue };
            // First: whoever finds it woken until here has the call polled by what follows.
            place.bell.is_in.swap(false, Ordering::AcqRel);
            let Some(call) = &mut place.call else { continue };
            if let Poll::Ready(answer) = Pin::new(call).poll(&mut Context::from_waker(&place.waker)) {
                place.call = None;
                self.vacant.push(index);
                return Some(answer);
            }
        }
        None
    }

    /// Lets go of most places, where no call is in flight.
    pub(super) fn rest(&mut self) {
        if self.is_empty() && self.places.len() > IDLE_PLACES {
            self.places.truncate(IDLE_PLACES);
            self.places.shrink_to_fit();
            self.vacant = (0..self.places.len()).collect();
            self.due = VecDeque::new();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_in.swap(true, Ordering::AcqRel) {
            return;
        }
        let is_first = {
            let mut places = self.woken.places.lock();
            places.push(self.place);
            places.len() == 1
        };
        if is_first {
            self.woken.connection.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use tokio::sync::oneshot;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    type Asked = oneshot::Receiver<usize>;

    fn answers(calls: &mut Calls<Asked>) -> Vec<usize> {
        calls.look();
        std::iter::from_fn(|| calls.next()).map(Result::unwrap).collect()
    }

    #[test]
    fn answers_come_in_the_order_they_are_made_and_wake_the_connection_once() {
        let count = Arc::new(Count::default());
        let mut calls: Calls<Asked> = Calls::new(Waker::from(Arc::clone(&count)));
        let mut askers: Vec<_> = (0..3).map(|_| oneshot::channel()).collect();
        let mut ends: Vec<_> = Vec::new();
        for (end, asked) in askers.drain(..) {
            calls.begin(asked);
            ends.push(end);
        }
        assert!(answers(&mut calls).is_empty() && calls.len() == 3);
        for (answer, end) in ends.into_iter().enumerate().rev() {
            end.send(answer).unwrap();
        }
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(answers(&mut calls), [2, 1, 0]);
        assert!(calls.is_empty());
    }

    #[test]
    fn a_place_serves_one_call_after_the_other_and_a_late_wake_up_answers_nobody() {
        let mut calls: Calls<Asked> = Calls::new(Waker::noop().clone());
        let (first, asked) = oneshot::channel();
        calls.begin(asked);
        assert!(answers(&mut calls).is_empty());
        let late = calls.places[0].waker.clone();
        first.send(1).unwrap();
        assert_eq!(answers(&mut calls), [1]);
        let (second, asked) = oneshot::channel();
        calls.begin(asked);
        late.wake_by_ref();
        assert!(answers(&mut calls).is_empty() && calls.places.len() == 1);
        second.send(2).unwrap();
        assert_eq!(answers(&mut calls), [2]);
        late.wake();
        assert!(answers(&mut calls).is_empty());
    }

    #[test]
    fn idle_calls_keep_few_places_and_forget_no_wake_up() {
        let mut calls: Calls<Asked> = Calls::new(Waker::noop().clone());
        let ends: Vec<_> =
            std::iter::repeat_with(oneshot::channel).take(64).map(|(end, asked)| (end, calls.begin(asked))).collect();
        assert!(answers(&mut calls).is_empty());
        calls.rest();
        assert_eq!(calls.places.len(), 64, "they are in flight");
        let late = calls.places[63].waker.clone();
        ends.into_iter().enumerate().for_each(|(answer, (end, ()))| end.send(answer).unwrap());
        assert_eq!(answers(&mut calls).len(), 64);
        calls.rest();
        assert_eq!((calls.places.len(), calls.len()), (IDLE_PLACES, 0));
        late.wake();
        let (end, asked) = oneshot::channel();
        calls.begin(asked);
        assert!(answers(&mut calls).is_empty());
        end.send(7).unwrap();
        assert_eq!(answers(&mut calls), [7]);
    }

    #[test]
    fn those_that_are_urgent_are_looked_at_first() {
        let mut calls: Calls<Asked> = Calls::new(Waker::noop().clone());
        let ends: Vec<_> =
            std::iter::repeat_with(oneshot::channel).take(4).map(|(end, asked)| (end, calls.begin(asked))).collect();
        for (answer, (end, ())) in ends.into_iter().enumerate() {
            end.send(answer).unwrap();
        }
        let mut number = 0;
        calls.hurry(|_| {
            number += 1;
            number == 3
        });
        assert_eq!(answers(&mut calls), [2, 0, 1, 3]);
        calls.hurry(|_| true);
        assert!(answers(&mut calls).is_empty());
    }

    /// Each is answered once, whoever answers, whenever.
    #[test]
    fn many_threads_answer_and_none_is_lost() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        const THREADS: usize = 4;
        const EACH: usize = 2_000;
        let mut calls: Calls<Asked> = Calls::new(Waker::from(Arc::new(Unpark(std::thread::current()))));
        let (hands, answerers): (Vec<_>, Vec<_>) = (0..THREADS)
            .map(|_| {
                let (hand, taken) = std::sync::mpsc::channel::<(oneshot::Sender<usize>, usize)>();
                let work = move || taken.iter().for_each(|(end, answer)| end.send(answer).unwrap());
                (hand, std::thread::spawn(work))
            })
            .unzip();
        let (mut begun, mut seen) = (0, vec![false; THREADS * EACH]);
        while seen.iter().any(|seen| !seen) {
            while begun < seen.len() && calls.len() < 32 {
                let (end, asked) = oneshot::channel();
                calls.begin(asked);
                hands[begun % THREADS].send((end, begun)).unwrap();
                begun += 1;
            }
            let answered = answers(&mut calls);
            if answered.is_empty() {
                std::thread::park();
            }
            for answer in answered {
                assert!(!std::mem::replace(&mut seen[answer], true), "{answer} came twice");
            }
        }
        drop(hands);
        answerers.into_iter().for_each(|answerer| answerer.join().unwrap());
    }
}
