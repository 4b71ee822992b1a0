//! Whether the store's writer lives.

use std::time::Duration;

use super::physical::{NotQueued, Transaction, WhenFull};
use super::records::Store;

/// When a full queue is tried again.
const PAUSE: Duration = Duration::from_millis(20);

impl Store {
    /// Waits until the writer has taken a turn since, whatever came of it: it takes its place behind what waits, and writes
    /// nothing. False if the store is closed. A writer that hangs is waited for as long as it does.
    pub async fn writes(&self) -> bool {
        loop {
            let (transaction, turn) = Transaction::for_task(Vec::new());
            match self.physical().submit(transaction, WhenFull::Refuse) {
                Ok(()) => return turn.await.is_ok(),
                Err(NotQueued::Closed) => return false,
                Err(NotQueued::Full(_)) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}
