//! The daemon's signs of life for systemd's watchdog (`WatchdogSec=` of its unit): one is given only after all that no request
//! goes without has taken a turn. What tokens do, or leave undone, is none of its business: each has a watchdog of its own.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::notify;
use crate::front::Pulse;
use crate::store::Store;
use crate::supervisor::Supervisor;

/// What must take its turns.
pub(super) struct Watchdog {
    pub(super) front: Pulse,
    /// The open one, while there is one.
    pub(super) stores: watch::Receiver<Option<Store>>,
    pub(super) supervisor: Supervisor,
}

impl Watchdog {
    /// Gives signs of life until the daemon stops, if systemd waits for them: one every half of the time it waits.
    pub(super) async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let Some(limit) = notify::watchdog() else { return };
        tracing::info!(limit_ms = limit.as_millis(), "systemd watches over the daemon");
        tokio::select! {
            // An error means that the daemon is gone: the same.
            _ = stop.wait_for(|stop| *stop) => {}
            () = self.watch(limit) => {}
        }
    }

    async fn watch(&mut self, limit: Duration) {
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
    async fn hanging(&mut self, limit: Duration) -> Option<&'static str> {
        let (front, store, supervisor) = tokio::join!(
            timeout(limit, self.front.beats()),
            timeout(limit, writes(&mut self.stores)),
            timeout(limit, self.supervisor.answers()),
        );
        let parts = [
            (front, "the threads of the sockets"),
            (store, "the writer of the store"),
            (supervisor, "the supervisor of the tokens"),
        ];
        parts.into_iter().find(|(turn, _)| *turn != Ok(true)).map(|(_, part)| part)
    }
}

/// Waits until the writer of the open store has taken a turn since. A sealed daemon has none, and one that is sealed meanwhile
/// needs none.
async fn writes(stores: &mut watch::Receiver<Option<Store>>) -> bool {
    let store = stores.borrow_and_update().clone();
    match store {
        Some(store) => store.writes().await || stores.has_changed().unwrap_or(true),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::{Limits, Pace, Storage};
    use crate::model::{Fault, Secret};
    use crate::store::Ephemeral;
    use crate::supervisor::{PinHash, PinMemory, Plan};
    use crate::telemetry::Telemetry;

    struct NoPins;

    impl PinMemory for NoPins {
        fn hash(&self, _: &str, _: &Secret) -> Result<PinHash, Fault> {
            Ok([0; 32])
        }

        fn refused(&self, _: &str, _: &PinHash) -> Result<bool, Fault> {
            Ok(false)
        }

        fn remember(&self, _: &str, _: &PinHash) -> Result<(), Fault> {
            Ok(())
        }

        fn taken(&self, _: &str) -> Result<Option<PinHash>, Fault> {
            Ok(None)
        }

        fn remember_taken(&self, _: &str, _: &PinHash) -> Result<(), Fault> {
            Ok(())
        }
    }

    fn plan() -> Plan {
        Plan { libraries: Vec::new(), pools: Vec::new(), namespaces: Vec::new(), limits: Limits::default() }
    }

    #[test]
    fn whatever_takes_no_turns_is_found() {
        let idle = tokio::runtime::Builder::new_current_thread().build().unwrap();
        actix::System::new().block_on(async {
            let supervisor = Supervisor::start(plan(), Arc::new(NoPins), Telemetry::new());
            let store = Store::open(&Storage::Memory, Box::new(Ephemeral::new().unwrap()), Pace::Prompt).unwrap();
            let busy = tokio::runtime::Handle::current();
            let front = Pulse::of(vec![busy.clone()]);
            let (open, stores) = watch::channel(Some(store.clone()));
            let mut watchdog = Watchdog { front, stores, supervisor };
            let (soon, patience) = (Duration::from_millis(50), Duration::from_secs(60));
            assert_eq!(watchdog.hanging(patience).await, None);
            // A runtime that nothing drives is as a thread that hangs.
            watchdog.front = Pulse::of(vec![busy.clone(), idle.handle().clone()]);
            assert_eq!(watchdog.hanging(soon).await, Some("the threads of the sockets"));
            watchdog.front = Pulse::of(vec![busy.clone()]);
            watchdog.supervisor.shut_down(patience).await;
            assert_eq!(watchdog.hanging(patience).await, Some("the supervisor of the tokens"));
            watchdog.supervisor = Supervisor::start(plan(), Arc::new(NoPins), Telemetry::new());
            store.close();
            assert_eq!(watchdog.hanging(patience).await, Some("the writer of the store"));
            // A sealed daemon is well without one.
            open.send_replace(None);
            assert_eq!(watchdog.hanging(patience).await, None);
        });
    }
}
