//! One queued operation and the two ends of its answer.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::route::KeyRoute;
use crate::model::{Fault, KeyOperation, Terms};

/// What a job comes to.
pub(super) type JobResult = Result<Bytes, Fault>;

/// A private-key operation in a lane. Answered exactly once: by [`Job::answer`], or when it is dropped.
pub(super) struct Job {
    pub(super) operation: KeyOperation,
    pub(super) key: Arc<KeyRoute>,
    pub(super) terms: Terms,
    pub(super) queued_at: Instant,
    /// Whether it has been taken back once from a session that failed.
    pub(super) retried: bool,
    asker: Option<oneshot::Sender<JobResult>>,
}

impl Job {
    /// A job and the asker's end of it.
    pub(super) fn new(operation: KeyOperation, key: Arc<KeyRoute>, terms: Terms) -> (Job, Pending) {
        let (asker, answer) = oneshot::channel();
        let job = Job { operation, key, terms, queued_at: Instant::now(), retried: false, asker: Some(asker) };
        (job, Pending { answer })
    }

    /// Whether nobody waits for the answer any more.
    pub(super) fn abandoned(&self) -> bool {
        self.asker.as_ref().is_none_or(oneshot::Sender::is_closed)
    }

    /// Answers it.
    pub(super) fn answer(mut self, result: JobResult) {
        if let Some(asker) = self.asker.take() {
            // The asker may have left meanwhile; then nobody wants the answer.
            let _ = asker.send(result);
        }
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        if let Some(asker) = self.asker.take() {
            let _ = asker
                .send(Err(Fault::Unavailable { what: "the request was dropped before it ran; send it again".into() }));
        }
    }
}

/// A job on its way; answered exactly once. Dropping it takes the job back if no session has started it.
#[derive(Debug)]
pub struct Pending {
    answer: oneshot::Receiver<JobResult>,
}

impl Future for Pending {
    type Output = Result<Bytes, Fault>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.answer)
            .poll(context)
            .map(|answer| answer.unwrap_or_else(|_| Err(Fault::internal("a job ended without an answer"))))
    }
}
