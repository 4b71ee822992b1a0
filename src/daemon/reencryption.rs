//! Encrypts the records of older terms anew, behind requests: a few at a time, with pauses, from the first to the last. A restart
//! begins again, and passes what is done already.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::model::Fault;
use crate::store::{Cursor, Store};

/// Between two steps, each of which is one commit: no more than some thousand records a second.
const PAUSE: Duration = Duration::from_millis(20);
/// After a step that failed.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks whether there is something to do at the start, and whenever it is rung.
pub(super) async fn keep_up(store: Store, rotated: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = reencrypt(&store) => {}
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = rotated.notified() => {}
        }
    }
}

async fn reencrypt(store: &Store) {
    while let Ok(status) = store.key_status()
        && !status.old_terms.is_empty()
    {
        let begun = Instant::now();
        tracing::info!(term = status.term, "encrypting the records of older keys anew");
        match walk(store, status.term).await {
            Ok(true) => {
                let records = store.key_status().map_or(0, |now| now.reencrypted.saturating_sub(status.reencrypted));
                let took_s = begun.elapsed().as_secs();
                tracing::info!(
                    term = status.term,
                    records,
                    took_s,
                    "no record is under an older key: those are forgotten"
                );
            }
            // Another term has begun.
            Ok(false) => {}
            Err(Fault::Sealed | Fault::NotInitialized) => return,
            Err(fault) => {
                tracing::warn!(%fault, "encrypting records anew stopped: it begins again");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

/// Walks all records; answers whether the older keys are forgotten.
async fn walk(store: &Store, term: u32) -> Result<bool, Fault> {
    on_store(store, |store| store.settle_terms()).await?;
    let mut next = Some(Cursor::default());
    while let Some(from) = next {
        next = on_store(store, move |store| store.reencrypt(&from)).await?;
        tokio::time::sleep(PAUSE).await;
    }
    on_store(store, move |store| store.drop_terms_before(term)).await
}

async fn on_store<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down".into() }))
}
