//! Changes of a table that is published as a snapshot: one at a time, and each one whole. Namespaces take turns.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::{Fault, Namespace};

/// Changes of one namespace in one table that may wait or run at once.
const CHANGES_MAX: usize = 64;
/// Queues of namespaces that are kept though nobody stands in them.
const QUEUES_KEPT: usize = 1024;
/// When to come again: about what a few commits take.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Runs the changes of one table. Cheap to clone.
///
/// A change reads the snapshot, decides, commits and publishes. It runs on a thread that may block, so no lock is held
/// across an await, and it ends even if its asker leaves in the middle: what is published never differs from what is
/// stored.
#[derive(Clone, Debug)]
pub struct Changes {
    /// One change of the table at a time, first come, first served.
    turn: Arc<Semaphore>,
    /// One for each namespace that changes something, and of those that did, not very many.
    queues: Arc<Mutex<HashMap<Namespace, Queue>>>,
}

/// The changes of one namespace. Only the first of them waits for the table's turn, so that whoever has many waits after
/// each of them for the others.
#[derive(Clone, Debug)]
struct Queue {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { turn: Arc::new(Semaphore::new(1)), queues: Arc::default() }
    }
}

impl Changes {
    /// Runs `change` after those of its namespace before it. Refused at once, as [`Fault::Overloaded`], if too many of them
    /// wait already. Must be called on a tokio runtime.
    pub async fn run<T, F>(&self, namespace: &Namespace, change: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Fault> + Send + 'static,
    {
        let Queue { places, turn: own } = self.queue(namespace);
        let place = places.try_acquire_owned().map_err(|_| Fault::Overloaded {
            namespace: namespace.clone(),
            limit: CHANGES_MAX,
            unit: "queued jobs",
            retry_after: RETRY_AFTER,
        })?;
        let everyone = Arc::clone(&self.turn);
        let running = tokio::spawn(async move {
            // Neither is ever closed: what comes is a place.
            let own = own.acquire_owned().await;
            let turn = everyone.acquire_owned().await;
            let change = tokio::task::spawn_blocking(move || {
                let _held = (place, own, turn);
                change()
            });
            change.await
        });
        let ended = running.await.and_then(std::convert::identity);
        ended.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() }))
    }

    fn queue(&self, namespace: &Namespace) -> Queue {
        let mut queues = self.queues.lock();
        if let Some(queue) = queues.get(namespace) {
            return queue.clone();
        }
        if queues.len() >= QUEUES_KEPT {
            queues.retain(|_, queue| Arc::strong_count(&queue.places) > 1);
        }
        let queue = Queue { places: Arc::new(Semaphore::new(CHANGES_MAX)), turn: Arc::new(Semaphore::new(1)) };
        queues.insert(namespace.clone(), queue.clone());
        queue
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn a_change_ends_even_if_its_asker_leaves_and_the_next_one_waits_for_it() {
        let changes = Changes::default();
        let (go, waiting) = mpsc::channel::<()>();
        let done = Arc::new(Mutex::new(Vec::new()));
        let first = Arc::clone(&done);
        let root = Namespace::root();
        let asker = changes.run(&root, move || {
            waiting.recv().map_err(|_| Fault::internal("nobody lets it go on"))?;
            first.lock().push(1);
            Ok(())
        });
        // Begun, then its asker leaves.
        assert!(asker.now_or_never().is_none());
        let second = Arc::clone(&done);
        let next = changes.run(&root, move || {
            second.lock().push(2);
            Ok(())
        });
        go.send(()).unwrap();
        next.await.unwrap();
        assert_eq!(*done.lock(), [1, 2]);
    }

    #[tokio::test]
    async fn changes_never_overlap() {
        let changes = Changes::default();
        let inside = Arc::new(AtomicUsize::new(0));
        let root = Namespace::root();
        let enter = |inside: Arc<AtomicUsize>| {
            move || {
                let others = inside.fetch_add(1, Ordering::SeqCst);
                (0..1000).for_each(|_| std::thread::yield_now());
                inside.fetch_sub(1, Ordering::SeqCst);
                Ok(others)
            }
        };
        let all = join_all((0..32).map(|_| changes.run(&root, enter(Arc::clone(&inside))))).await;
        assert!(all.iter().all(|others| *others == Ok(0)), "{all:?}");
    }

    #[tokio::test]
    async fn of_namespaces_that_came_and_went_no_queue_is_kept() {
        let changes = Changes::default();
        let (go, waiting) = mpsc::channel::<()>();
        let busy = Namespace::from_path("busy");
        let mut first = changes.run(&busy, move || waiting.recv().map_err(|_| Fault::internal("gone"))).boxed();
        assert!((&mut first).now_or_never().is_none());
        for index in 0..3 * QUEUES_KEPT {
            changes.queue(&Namespace::from_path(&index.to_string()));
        }
        assert!(changes.queues.lock().len() <= QUEUES_KEPT && changes.queues.lock().contains_key(&busy));
        go.send(()).unwrap();
        first.await.unwrap();
    }

    #[tokio::test]
    async fn too_many_changes_of_a_namespace_are_refused_at_once_and_no_others() {
        let changes = Changes::default();
        let (go, waiting) = mpsc::channel::<()>();
        let namespaces = ["a", "b"].map(Namespace::from_path);
        let order = Arc::new(Mutex::new(Vec::new()));
        let note = |namespace: usize| {
            let order = Arc::clone(&order);
            move || {
                order.lock().push(namespace);
                Ok(())
            }
        };
        let mut askers =
            vec![changes.run(&namespaces[0], move || waiting.recv().map_err(|_| Fault::internal("gone"))).boxed()];
        askers.extend((1..CHANGES_MAX).map(|_| changes.run(&namespaces[0], note(0)).boxed()));
        askers.iter_mut().for_each(|asker| assert!(asker.now_or_never().is_none()));
        let refused = changes.run(&namespaces[0], || Ok(())).await.unwrap_err();
        assert!(
            matches!(refused, Fault::Overloaded { limit: CHANGES_MAX, namespace, .. } if namespace.as_str() == "a/")
        );
        // The other comes last, and its turn is the next.
        let mut other = changes.run(&namespaces[1], note(1)).boxed();
        assert!((&mut other).now_or_never().is_none());
        // So that all of them stand in their queues.
        tokio::task::yield_now().await;
        go.send(()).unwrap();
        other.await.unwrap();
        assert!(join_all(askers).await.iter().all(Result::is_ok));
        let order = order.lock().clone();
        assert!(order[..2].contains(&1), "{order:?}");
        changes.run(&namespaces[0], || Ok(())).await.unwrap();
    }
}
