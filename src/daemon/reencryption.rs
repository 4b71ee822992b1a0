//! Encrypts the records of older terms anew, behind requests: a few at a time, with pauses, from the first to the last. A restart
//! begins again, and passes what is done already.
//!
//! A record that does not open stops nothing: it is told, and the key that it needs is kept. When it was mended, written anew or
//! deleted, all records are walked over once more, and that key goes.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, watch};

use crate::model::Fault;
use crate::store::{Cursor, Passed, Store};

/// Between two steps, each of which is one commit: no more than some thousand records a second.
const PAUSE: Duration = Duration::from_millis(20);
/// After a step that failed.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is seen whether a damaged record is one no more.
const LOOK: Duration = Duration::from_secs(10);
/// Damaged records that the log names.
const TOLD_MAX: usize = 100;

/// Looks whether there is something to do at the start, and whenever it is rung.
pub(super) async fn keep_up(store: Store, rotated: Arc<Notify>, mut stop: watch::Receiver<bool>) {
    let mut told = HashSet::new();
    loop {
        let passed = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            passed = reencrypt(&store, &mut told) => passed,
        };
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return,
            () = rotated.notified() => {}
            () = any_mended(&store, passed) => {}
        }
    }
}

/// Answers what it had to pass.
async fn reencrypt(store: &Store, told: &mut HashSet<String>) -> Passed {
    while let Ok(status) = store.key_status()
        && !status.old_terms.is_empty()
    {
        let begun = Instant::now();
        tracing::info!(term = status.term, "encrypting the records of older keys anew");
        match walk(store, status.term, told).await {
            Ok(Some(passed)) => {
                let now = store.key_status();
                let records = now.as_ref().map_or(0, |now| now.reencrypted.saturating_sub(status.reencrypted));
                let (term, took_s, damaged) = (status.term, begun.elapsed().as_secs(), passed.count());
                if damaged == 0 {
                    tracing::info!(term, records, took_s, "no record is under an older key: those are forgotten");
                    continue;
                }
                let kept = now.map(|now| now.old_terms).unwrap_or_default();
                tracing::error!(
                    term,
                    records,
                    took_s,
                    damaged,
                    ?kept,
                    "all records are encrypted under the new key but those that do not open: older keys are kept for them"
                );
                return passed;
            }
            // Another term has begun.
            Ok(None) => {}
            Err(Fault::Sealed | Fault::NotInitialized) => break,
            Err(fault) => {
                tracing::warn!(%fault, "encrypting records anew stopped: it begins again");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
    Passed::default()
}

/// Walks all records, and forgets the older keys that none needs. Answers what it had to pass; `None` where another term has begun.
async fn walk(store: &Store, term: u32, told: &mut HashSet<String>) -> Result<Option<Passed>, Fault> {
    on_store(store, |store| store.settle_terms()).await?;
    let (mut next, mut passed) = (Some(Cursor::default()), Passed::default());
    while let Some(from) = next {
        let step = on_store(store, move |store| store.reencrypt(&from)).await?;
        tell(&step.passed, told);
        passed.join(step.passed);
        next = step.next;
        tokio::time::sleep(PAUSE).await;
    }
    let is_over = on_store(store, {
        let passed = passed.clone();
        move |store| store.drop_terms_before(term, &passed)
    });
    Ok(is_over.await?.then_some(passed))
}

/// Logs each damaged record once; of very many, the first.
fn tell(passed: &Passed, told: &mut HashSet<String>) {
    for record in passed.names() {
        if told.len() < TOLD_MAX && told.insert(record.clone()) {
            tracing::error!(
                record,
                "A RECORD IS DAMAGED: it does not open, so it was altered outside Keyway, and it is not encrypted anew; the older \
                 keys are kept for it until it is written anew or deleted by its path, or the store is restored from a snapshot"
            );
        }
    }
}

/// Waits until something of what was passed may be encrypted anew, or need not be.
async fn any_mended(store: &Store, passed: Passed) {
    if passed.count() == 0 {
        return std::future::pending().await;
    }
    let passed = Arc::new(passed);
    loop {
        tokio::time::sleep(LOOK).await;
        let passed = Arc::clone(&passed);
        // What fails is tried again.
        if on_store(store, move |store| store.is_any_mended(&passed)).await.unwrap_or(false) {
            return;
        }
    }
}

async fn on_store<T: Send + 'static>(
    store: &Store,
    work: impl FnOnce(&Store) -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let store = store.clone();
    let done = tokio::task::spawn_blocking(move || work(&store)).await;
    done.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down".into() }))
}
