//! Snapshots of the whole store, and putting one in its place: for sudo in the root namespace, over HTTP alone. What is in one is
//! the store's matter.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::paths::{Deed, Found, find};
use super::{Call, Sealing, System};
use crate::model::{Download, Ending, Fault, FileBody, Intake, Namespace, Outcome, Response, Upload, Verb, Wire};
use crate::store::{KnownFormat, Replaced, Store};

/// Something done to the file of the store while nobody has it open, and how to undo it. Its fault changes nothing.
pub type Replacement = Box<dyn FnOnce() -> Result<Replaced, Fault> + Send>;

/// Asks whoever keeps the rooms to seal them, to have the file of the store replaced, and to unseal them.
pub type Replace = Arc<dyn Fn(Replacement) -> Sealing + Send + Sync>;

/// Snapshots, as the daemon has them.
pub struct Snapshots {
    /// How the store is replaced.
    pub replace: Replace,
    /// The longest, in bytes.
    pub most: u64,
    /// Collections that stay as they are when an older state of the same store comes back: what was learnt of the world outside.
    pub kept: Vec<(Namespace, &'static str)>,
    /// What is known here of the records in one.
    pub known: KnownFormat,
    /// One at a time is written or read: each takes the disk of another store.
    pub turn: Arc<Semaphore>,
}

impl System {
    /// Whether the body of such a request is not read before its asker is found good.
    pub fn takes_stream(verb: Verb, path: &str) -> bool {
        matches!(find(verb, path), Found::Row(row, _) if matches!(row.deed, Deed::Restore { .. }))
    }

    /// Begins what is asked: neither is done within the deadline of a request.
    pub(super) fn stream(&self, deed: Deed, call: &Call) -> Result<Outcome, Fault> {
        if !call.namespace.is_root() {
            return Err(Fault::invalid("operation unavailable in namespaces: a snapshot is of the whole daemon"));
        }
        if call.caller.wire == Wire::Framed || call.is_wrapped {
            return Err(Fault::invalid("snapshots go over HTTP, and are not wrapped"));
        }
        let turn = Arc::clone(&self.snapshots.turn).try_acquire_owned().map_err(|_| Fault::Unavailable {
            what: "another snapshot is being saved or restored; try again when it is done".into(),
        })?;
        let (store, most) = (self.store.clone(), self.snapshots.most);
        let peer = call.caller.peer;
        match deed {
            Deed::TakeSnapshot => Ok(Outcome::Download(Download::new(move || {
                let mut file = store.spool()?;
                let bytes = store.save(&mut file, most)?;
                tracing::info!(bytes, uid = peer.uid, pid = peer.pid, "a snapshot of the store was made");
                Ok(FileBody { file, bytes, held: Box::new(turn) })
            }))),
            Deed::Restore { is_foreign } => {
                tracing::warn!(
                    is_foreign,
                    uid = peer.uid,
                    pid = peer.pid,
                    "a snapshot is to take the place of the store"
                );
                let (kept, known) = (self.snapshots.kept.clone(), self.snapshots.known);
                let replace = Arc::clone(&self.snapshots.replace);
                let file = store.spool()?;
                Ok(Outcome::Upload(Upload(Box::new(Restoring {
                    store,
                    file,
                    bytes: 0,
                    most,
                    is_foreign,
                    kept,
                    known,
                    replace,
                    turn,
                }))))
            }
            _ => Err(Fault::internal("a path of the system's has no deed")),
        }
    }
}

/// A snapshot that comes in.
struct Restoring {
    store: Store,
    file: File,
    bytes: u64,
    most: u64,
    is_foreign: bool,
    kept: Vec<(Namespace, &'static str)>,
    known: KnownFormat,
    replace: Replace,
    turn: OwnedSemaphorePermit,
}

impl Intake for Restoring {
    fn take(&mut self, piece: &[u8]) -> Result<(), Fault> {
        self.bytes += piece.len() as u64;
        if self.bytes > self.most {
            let what = format!("the snapshot has more than {} bytes: raise limits {{ snapshot_max }}", self.most);
            return Err(Fault::TooLarge { what });
        }
        self.file.write_all(piece).map_err(|error| Fault::Unavailable {
            what: format!("the snapshot cannot be kept beside the store: {error}"),
        })
    }

    fn end(self: Box<Self>) -> Ending {
        // A task of its own: once begun, it does not end with the connection.
        let running = tokio::spawn(self.run());
        Box::pin(async move { running.await.unwrap_or_else(|_| Err(Fault::internal("restoring a snapshot panicked"))) })
    }
}

impl Restoring {
    async fn run(self: Box<Self>) -> Result<Response, Fault> {
        let Restoring { store, mut file, is_foreign, kept, known, replace, turn, .. } = *self;
        let made = tokio::task::spawn_blocking(move || store.restore(&mut file, is_foreign, &kept, known)).await;
        let made = made.unwrap_or_else(|_| Err(Fault::internal("reading a snapshot panicked")));
        let not_restored = |fault: &Fault| tracing::warn!(%fault, "a snapshot was not restored");
        let restored = made.inspect_err(not_restored)?;
        let records = restored.records;
        replace(Box::new(move || restored.put_in_place())).await.inspect_err(not_restored)?;
        drop(turn);
        tracing::warn!(
            records,
            "a snapshot has taken the place of the store: what was done since it was saved is undone"
        );
        Ok(Response::Empty)
    }
}
