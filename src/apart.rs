//! What takes a request long to compute, such as reading a large body: on few threads, apart from those that serve
//! connections, and in turn by the namespace it is for. However many requests one namespace has, of its work one piece at a
//! time stands before another's; and all of it together leaves the other threads their share of the cores.
//!
//! Not for what waits, such as for a disk or a lock: that would keep a thread from those who compute. Must not know what is
//! computed.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::model::{Fault, Namespace};

/// Namespaces whose lines are kept while nobody stands in them.
const LINES_KEPT: usize = 256;

/// One for the process, as its cores are.
static DESK: LazyLock<Desk> = LazyLock::new(|| {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Desk::new((cores / 2).max(2))
});

/// The threads, and who waits for them.
struct Desk {
    threads: Arc<Semaphore>,
    /// The first in each line waits for a thread: so namespaces take turns.
    lines: Mutex<HashMap<Namespace, Arc<Semaphore>>>,
}

/// Runs `work` apart, when it is the turn of the tenant of `namespace`, in which the request must be known to be allowed. Half as many at
/// once as there are cores, at least two. Work whose asker leaves before it has begun is never done. As many may wait as there
/// are requests in flight. Must be called on a tokio runtime.
pub async fn run<T: Send + 'static>(
    namespace: &Namespace,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Fault> {
    DESK.run(namespace, work).await
}

impl Desk {
    fn new(threads: usize) -> Desk {
        Desk { threads: Arc::new(Semaphore::new(threads)), lines: Mutex::default() }
    }

    async fn run<T: Send + 'static>(
        &self,
        namespace: &Namespace,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Fault> {
        // Neither is ever closed: what comes is a place.
        let first = self.line(namespace.tenant()).acquire_owned().await;
        let thread = Arc::clone(&self.threads).acquire_owned().await;
        drop(first);
        let done = tokio::task::spawn_blocking(move || {
            let _held = thread;
            work()
        });
        done.await.map_err(|_| Fault::Unavailable { what: "the daemon is going down; try again".into() })
    }

    fn line(&self, tenant: Namespace) -> Arc<Semaphore> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(&tenant) {
            return Arc::clone(line);
        }
        if lines.len() >= LINES_KEPT {
            lines.retain(|_, line| Arc::strong_count(line) > 1);
        }
        let line = Arc::new(Semaphore::new(1));
        lines.insert(tenant, Arc::clone(&line));
        line
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use futures_util::FutureExt;
    use futures_util::future::join_all;

    use super::*;

    #[tokio::test]
    async fn of_a_flood_one_piece_stands_before_anothers() {
        let desk = Desk::new(1);
        let [loud, lone] = ["loud", "lone"].map(Namespace::from_path);
        let (go, waiting) = mpsc::channel::<()>();
        let told = Arc::new(Mutex::new(Vec::new()));
        let note = |who: &'static str| {
            let told = Arc::clone(&told);
            move || told.lock().push(who)
        };
        let mut first = desk.run(&loud, move || waiting.recv()).boxed();
        assert!((&mut first).now_or_never().is_none());
        let mut flood = join_all((0..100).map(|_| desk.run(&loud, note("loud")))).boxed();
        assert!((&mut flood).now_or_never().is_none());
        let mut other = desk.run(&lone, note("lone")).boxed();
        assert!((&mut other).now_or_never().is_none());
        go.send(()).unwrap();
        let (first, flooded, other) = tokio::join!(first, flood, other);
        assert!(first.unwrap().is_ok() && flooded.iter().all(Result::is_ok) && other.is_ok());
        let before = told.lock().iter().position(|who| *who == "lone").unwrap();
        assert!(before <= 1, "{before} of the flood before it");
    }

    #[tokio::test]
    async fn a_piece_that_panics_gives_its_thread_back_and_lines_are_not_kept_for_ever() {
        let desk = Desk::new(1);
        for number in 0..3 * LINES_KEPT {
            desk.run(&Namespace::from_path(&number.to_string()), || ()).await.unwrap();
        }
        assert!(desk.lines.lock().len() <= LINES_KEPT);
        let root = Namespace::root();
        assert!(matches!(desk.run(&root, || panic!("on purpose")).await, Err(Fault::Unavailable { .. })));
        assert_eq!(desk.run(&root, || 7).await.unwrap(), 7);
    }
}
