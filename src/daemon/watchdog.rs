//! The daemon's signs of life for systemd's watchdog (`WatchdogSec=` of its unit): one is given only after all that no request
//! goes without has taken a turn. What tokens do, or leave undone, is none of its business: each has a watchdog of its own.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::notify;
use super::pins::StoredPins;
use crate::front::Pulse;
use crate::supervisor::Supervisor;

/// What must take its turns.
pub(super) struct Watchdog {
    pub(super) front: Pulse,
    /// Know the store there is.
    pub(super) pins: Arc<StoredPins>,
    pub(super) supervisor: Supervisor,
}

impl Watchdog {
    /// Gives signs of life until the daemon stops, if systemd waits for them: one every half of the time it waits.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let Some(limit) = notify::watchdog() else { return };
        tracing::info!(limit_ms = limit.as_millis(), "systemd watches over the daemon");
        tokio::select! {
            // An error means that the daemon is gone: the same.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.watch(limit) => {}
        }
    }

    async fn watch(&self, limit: Duration) {
        loop {
            // Looked at again at once: it may be well before the time is up.
            match self.hanging(limit / 4).await {
                None => notify::alive(),
                Some(part) => {
                    tracing::error!(
                        part,
                        limit_ms = limit.as_millis(),
                        "A PART OF THE DAEMON HANGS: systemd restarts it, if that goes on"
                    );
                    sleep(limit / 16).await;
                    continue;
                }
            }
            sleep(limit / 2).await;
        }
    }

    /// What has not taken a turn within `limit`.
    async fn hanging(&self, limit: Duration) -> Option<&'static str> {
        let (front, store, supervisor) = tokio::join!(
            timeout(limit, self.front.beats()),
            timeout(limit, self.store_writes()),
            timeout(limit, self.supervisor.answers()),
        );
        let parts = [
            (front, "the threads of the sockets"),
            (store, "the writer of the store"),
            (supervisor, "the supervisor of the tokens"),
        ];
        parts.into_iter().find(|(turn, _)| *turn != Ok(true)).map(|(_, part)| part)
    }

    /// A sealed daemon has no store, and lives.
    async fn store_writes(&self) -> bool {
        match self.pins.store() {
            // One that is sealed meanwhile need not write.
            Ok(store) => store.writes().await || self.pins.store().is_err(),
            Err(_sealed) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Limits, Storage};
    use crate::store::{Ephemeral, Store};
    use crate::supervisor::Plan;
    use crate::telemetry::Telemetry;

    #[test]
    fn whatever_takes_no_turns_is_found() {
        let idle = tokio::runtime::Builder::new_current_thread().build().unwrap();
        actix::System::new().block_on(async {
            let plan =
                Plan { libraries: Vec::new(), pools: Vec::new(), namespaces: Vec::new(), limits: Limits::default() };
            let supervisor = Supervisor::start(plan, Arc::new(StoredPins::default()), Telemetry::new());
            let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap())).unwrap();
            let busy = tokio::runtime::Handle::current();
            let front = Pulse::of(vec![busy.clone()]);
            let pins = Arc::new(StoredPins::default());
            pins.keep_in(Some(store.clone()));
            let mut watchdog = Watchdog { front, pins, supervisor };
            let (soon, patience) = (Duration::from_millis(50), Duration::from_secs(60));
            assert_eq!(watchdog.hanging(patience).await, None);
            // A runtime that nothing drives is as a thread that hangs.
            watchdog.front = Pulse::of(vec![busy.clone(), idle.handle().clone()]);
            assert_eq!(watchdog.hanging(soon).await, Some("the threads of the sockets"));
            watchdog.front = Pulse::of(vec![busy.clone()]);
            watchdog.supervisor.shut_down(patience).await;
            assert_eq!(watchdog.hanging(patience).await, Some("the supervisor of the tokens"));
            store.close();
            assert_eq!(watchdog.hanging(patience).await, Some("the writer of the store"));
            watchdog.pins.keep_in(None);
            assert_eq!(watchdog.hanging(patience).await, Some("the supervisor of the tokens"), "sealed is not dead");
        });
    }
}
