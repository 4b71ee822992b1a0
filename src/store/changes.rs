//! Changes of a table that is published as a snapshot: one at a time, and each one whole.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::{Fault, Namespace};

/// Changes of one table that may wait or run at once.
const CHANGES_MAX: usize = 64;
/// When to come again: about what a few commits take.
const RETRY_AFTER: Duration = Duration::from_millis(100);

/// Runs the changes of one table. Cheap to clone.
///
/// A change reads the snapshot, decides, commits and publishes. It runs on a thread that may block, so no lock is held
/// across an await, and it ends even if its asker leaves in the middle: what is published never differs from what is
/// stored.
#[derive(Clone, Debug)]
pub struct Changes {
    places: Arc<Semaphore>,
    one: Arc<Mutex<()>>,
}

impl Default for Changes {
    fn default() -> Changes {
        Changes { places: Arc::new(Semaphore::new(CHANGES_MAX)), one: Arc::default() }
    }
}

impl Changes {
    /// Runs `change` after those before it. Refused at once, as [`Fault::Overloaded`], if too many wait already. Must be
    /// called on a tokio runtime.
    pub async fn run<T, F>(&self, namespace: &Namespace, change: F) -> Result<T, Fault>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T, Fault> + Send + 'static,
    {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Fault::Overloaded {
            namespace: namespace.clone(),
            limit: CHANGES_MAX,
            retry_after: RETRY_AFTER,
        })?;
        let one = Arc::clone(&self.one);
        let running = tokio::task::spawn_blocking(move || {
            let _place = place;
            let _one = one.lock();
            change()
        });
        let ended = running.await;
        ended.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down; try again".into() }))
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
    async fn too_many_changes_are_refused_at_once() {
        let changes = Changes::default();
        let (go, waiting) = mpsc::channel::<()>();
        let root = Namespace::root();
        let mut askers = vec![Box::pin(changes.run(&root, move || Ok(waiting.recv().is_err())))];
        assert!(askers[0].as_mut().now_or_never().is_none());
        let held: Vec<_> = (1..CHANGES_MAX).map(|_| Arc::clone(&changes.places).try_acquire_owned().unwrap()).collect();
        let refused = changes.run(&root, || Ok(())).await.unwrap_err();
        assert!(matches!(refused, Fault::Overloaded { limit: CHANGES_MAX, .. }));
        drop((go, held));
        assert_eq!(askers.remove(0).await, Ok(true));
        changes.run(&root, || Ok(())).await.unwrap();
    }
}
