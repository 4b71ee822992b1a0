//! Room for the items of batches: so many of a namespace are with its tokens at once, and those of other batches wait their
//! turn. Without it, a few large batches would fill what the namespace may queue and fail each other's items.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;
use crate::model::{Deadline, Fault, Namespace};

/// The rooms of all namespaces. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BatchRooms {
    window: usize,
    places: usize,
    /// One for each namespace that had a mount since it was made.
    rooms: Arc<Mutex<HashMap<Namespace, BatchRoom>>>,
}

/// The room of one namespace, in all its mounts together.
#[derive(Clone, Debug)]
pub(super) struct BatchRoom {
    window: usize,
    places: Arc<Semaphore>,
}

impl BatchRooms {
    /// Half of what a namespace may queue is for batches; the rest stays free for single requests.
    pub fn new(limits: &Limits) -> BatchRooms {
        let window = limits.batch_window();
        BatchRooms { window, places: window.max(limits.lane_jobs_per_namespace / 2), rooms: Arc::default() }
    }

    /// The namespace is gone. Batches that are still under way keep their room.
    pub(super) fn forget(&self, namespace: &Namespace) {
        self.rooms.lock().remove(namespace);
    }

    /// That of a namespace.
    pub(super) fn of(&self, namespace: &Namespace) -> BatchRoom {
        let new = || BatchRoom { window: self.window, places: Arc::new(Semaphore::new(self.places)) };
        self.rooms.lock().entry(namespace.clone()).or_insert_with(new).clone()
    }
}

impl BatchRoom {
    /// Items of one batch that go in at once, at the most.
    pub(super) fn window(&self) -> usize {
        self.window
    }

    /// Waits, first come, first served, for room for `items`, no more than a window. They leave when the permit is dropped.
    pub(super) async fn enter(&self, items: usize, deadline: Deadline) -> Result<OwnedSemaphorePermit, Fault> {
        let items = u32::try_from(items.min(self.window)).unwrap_or(u32::MAX);
        if let Ok(place) = Arc::clone(&self.places).try_acquire_many_owned(items) {
            return Ok(place);
        }
        let place = Arc::clone(&self.places).acquire_many_owned(items);
        match tokio::time::timeout_at(Deadline::instant(deadline).into(), place).await {
            Ok(place) => place.map_err(|_| Fault::internal("the room for batches was closed")),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "waiting for other batches" }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn batches_of_one_namespace_wait_for_each_other_and_for_nobody_else() {
        let rooms = BatchRooms::new(&Limits { lane_jobs_per_namespace: 8, ..Limits::default() });
        let [own, other] = ["a", "b"].map(|name| rooms.of(&Namespace::from_path(name)));
        let (late, soon) = (Deadline::after(Duration::from_secs(60)), Deadline::after(Duration::ZERO));
        assert_eq!(own.window(), 2);
        let mut held = vec![own.enter(2, late).await.unwrap(), own.enter(2, late).await.unwrap()];
        let again = rooms.of(&Namespace::from_path("a"));
        let refused = again.enter(1, soon).await.unwrap_err();
        assert!(matches!(refused, Fault::DeadlineExceeded { .. }), "{refused}");
        assert!(other.enter(2, soon).await.is_ok());
        let mut waiting = again.enter(1, late).boxed();
        assert!((&mut waiting).now_or_never().is_none());
        held.pop();
        drop(waiting.await.unwrap());
    }
}
