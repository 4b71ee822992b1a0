//! Work that keeps a CPU busy for long, such as making an RSA key: on few threads of its own, so that no worker is held up
//! and the tokens' sessions keep their share of the machine.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::{Fault, Namespace};

/// Pieces of work of one namespace that may wait or run at once.
const PER_NAMESPACE_MAX: usize = 64;
/// When to come again: about what one piece takes.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// The threads for such work. Cheap to clone.
#[derive(Clone, Debug)]
pub struct CpuPool {
    threads: Arc<Semaphore>,
    /// One for each namespace that ever had such work: as many as the configuration makes.
    queues: Arc<Mutex<HashMap<Namespace, Queue>>>,
}

/// The work of one namespace. Only the first piece of it waits for a thread, so that namespaces take turns.
#[derive(Clone, Debug)]
struct Queue {
    places: Arc<Semaphore>,
    turn: Arc<Semaphore>,
}

impl CpuPool {
    /// A pool of so many threads, at least one.
    pub fn new(threads: usize) -> CpuPool {
        CpuPool { threads: Arc::new(Semaphore::new(threads.max(1))), queues: Arc::default() }
    }

    /// Runs `work`, in turn. Refused at once, as [`Fault::Overloaded`], if too much of the namespace's waits already. Work
    /// whose asker leaves while it waits is never begun; what was begun runs to its end. Must be called on a tokio runtime.
    pub async fn run<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let Queue { places, turn: own } = self.queue(namespace);
        let place = places.try_acquire_owned().map_err(|_| Fault::Overloaded {
            namespace: namespace.clone(),
            limit: PER_NAMESPACE_MAX,
            unit: "keys being made",
            retry_after: RETRY_AFTER,
        })?;
        let first = own.acquire_owned().await;
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        drop(first);
        let done = tokio::task::spawn_blocking(move || {
            let _held = (place, thread);
            work()
        });
        done.await.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() }))
    }

    fn queue(&self, namespace: &Namespace) -> Queue {
        let new = || Queue { places: Arc::new(Semaphore::new(PER_NAMESPACE_MAX)), turn: Arc::new(Semaphore::new(1)) };
        self.queues.lock().entry(namespace.clone()).or_insert_with(new).clone()
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
    async fn no_more_runs_at_once_than_there_are_threads() {
        let pool = CpuPool::new(2);
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let work = || {
            let (running, most) = (Arc::clone(&running), Arc::clone(&most));
            move || {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                (0..1000).for_each(|_| std::thread::yield_now());
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            }
        };
        let namespace = Namespace::root();
        let done = join_all((0..20).map(|_| pool.run(&namespace, work()))).await;
        assert!(done.iter().all(Result::is_ok));
        assert!(most.load(Ordering::SeqCst) <= 2);
    }

    #[tokio::test]
    async fn a_full_queue_is_told_at_once_and_is_no_other_namespaces() {
        let pool = CpuPool::new(1);
        let (go, waiting) = mpsc::channel::<()>();
        let namespaces = ["a", "b"].map(Namespace::from_path);
        let blocked = move || waiting.recv().map_err(|_| Fault::internal("nobody lets it go on"));
        let mut askers = vec![pool.run(&namespaces[0], blocked).boxed()];
        askers.extend((1..PER_NAMESPACE_MAX).map(|_| pool.run(&namespaces[0], || Ok(())).boxed()));
        askers.iter_mut().for_each(|asker| assert!(asker.now_or_never().is_none()));
        let refused = pool.run(&namespaces[0], || Ok(())).await.unwrap_err();
        assert!(matches!(refused, Fault::Overloaded { limit: PER_NAMESPACE_MAX, .. }), "{refused}");
        let mut other = pool.run(&namespaces[1], || Ok(())).boxed();
        assert!((&mut other).now_or_never().is_none());
        go.send(()).unwrap();
        // All but the first one of them leave: their places are free at once.
        askers.truncate(1);
        askers.remove(0).await.unwrap();
        other.await.unwrap();
        assert!(
            join_all((0..PER_NAMESPACE_MAX).map(|_| pool.run(&namespaces[0], || Ok(()))))
                .await
                .iter()
                .all(Result::is_ok)
        );
    }
}
