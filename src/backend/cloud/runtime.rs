//! The threads that carry clients' connections. Calls themselves are driven by whoever makes them.

use std::future::Future;
use std::time::Duration;

use super::ill;
use crate::backend::BackendError;
use crate::model::Fault;

/// The cause of an error that is no answer in time.
pub(crate) const TIMEOUT: &str = "timeout";
/// Threads for the connections of all clouds.
const THREADS: usize = 2;

/// A runtime that ends with its owner, wherever that is dropped.
pub(crate) struct Runtime(Option<tokio::runtime::Runtime>);

impl Runtime {
    /// Starts it.
    ///
    /// # Errors
    ///
    /// [`Fault::Unavailable`]: the system has no threads for it.
    pub(crate) fn start() -> Result<Runtime, Fault> {
        let built = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("keyway-cloud")
            .enable_all()
            .build();
        built.map(|runtime| Runtime(Some(runtime))).map_err(|error| {
            let what = format!("no threads for the connections to clouds: {error}");
            Fault::Unavailable { what }
        })
    }

    /// Waits for `future` on the calling thread, `limit` at the longest.
    pub(crate) fn wait<T>(
        &self,
        limit: Duration,
        what: &str,
        future: impl Future<Output = Result<T, BackendError>>,
    ) -> Result<T, BackendError> {
        let Some(runtime) = &self.0 else {
            return Err(BackendError::keep(Fault::internal("a runtime that has ended")));
        };
        runtime.block_on(async {
            tokio::time::timeout(limit, future).await.unwrap_or_else(|_| {
                // As whatever else waits for the service says it: it is out of reach, and nothing of this host hangs.
                Err(ill(TIMEOUT, format!("{what}: no answer within {} ms", limit.as_millis())))
            })
        })
    }

    /// Runs `future` beside everything, until it ends or the runtime does.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(future);
        }
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A thread that belongs to another runtime must not wait here.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::Fate;

    #[test]
    fn a_service_that_does_not_answer_in_time_is_out_of_reach_and_no_device_hangs() {
        let runtime = Runtime::start().unwrap();
        let late = runtime.wait(Duration::ZERO, "key a: Sign", std::future::pending::<Result<(), _>>()).unwrap_err();
        assert_eq!((late.cause, late.fate), (TIMEOUT, Fate::BackOff));
        assert!(matches!(late.fault, Fault::Unavailable { .. }), "{}", late.fault);
    }
}
