//! What a session learns of how long operations take, told of several at once: all sessions of a key tell it in one place.

use std::sync::Arc;
use std::time::Duration;

use super::job::Work;

/// Operations of one kind by one key that a session has done one after the other, and not told of yet.
#[derive(Default)]
pub(super) struct Learning {
    of: Option<Arc<Work>>,
    took: Duration,
    operations: u32,
}

impl Learning {
    /// One took so long.
    pub(super) fn note(&mut self, work: &Arc<Work>, took: Duration) {
        let is_one_more = |of: &Arc<Work>| of.flow() == work.flow() && of.operation.index() == work.operation.index();
        if !self.of.as_ref().is_some_and(is_one_more) {
            self.tell();
            self.of = Some(Arc::clone(work));
        }
        self.took += took;
        self.operations += 1;
    }

    /// Tells the key.
    pub(super) fn tell(&mut self) {
        let Learning { of, took, operations } = std::mem::take(self);
        if let Some(work) = of {
            work.key.learn(&work.operation, took / operations.max(1), operations);
        }
    }
}
