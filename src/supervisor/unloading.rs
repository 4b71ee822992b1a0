//! Letting go of every token while the libraries and pools stay as configured: the daemon is sealed. Part of the overseer. It begins
//! again as a start does, with [`Supervisor::bring_up_pools`](super::Supervisor::bring_up_pools).

use std::time::{Duration, Instant};

use actix::prelude::*;

use super::overseer::Overseer;
use super::pools::Pools;
use super::supervisor::{Change, Remade, Supervisor};

/// How often it is looked whether the last session has closed.
const LOOK: Duration = Duration::from_millis(5);

/// Forgets every key, and lets go of every token.
struct Unload;

impl Message for Unload {
    type Result = ();
}

impl Supervisor {
    /// Forgets every key with its PIN, and has every token let go of: its sessions finish what they have in hand and close, and
    /// with the last of them it logs out. Waits for that, `limit` at the longest; answers how many members have not gone by
    /// then. Nothing is brought up again before [`Supervisor::bring_up_pools`].
    pub async fn unload(&self, limit: Duration) -> usize {
        // A supervisor that is gone has let go of everything.
        let _ = self.address.send(Unload).await;
        let end = Instant::now() + limit;
        loop {
            let left = self.shared.pools.leaving();
            if left == 0 || Instant::now() >= end {
                return left;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Handler<Unload> for Overseer {
    type Result = ();

    fn handle(&mut self, Unload: Unload, _: &mut Self::Context) {
        (self.pools_wanted, self.is_sealed) = (false, true);
        self.adopted.clear();
        self.shared.routes.clear();
        self.shared.pools.release_all();
        // Those in pools are made anew, each to begin when the one before has gone.
        let libraries = self.shared.library_names();
        let made = self.libraries.values().cloned().map(|library| Remade { library, elsewhere: false }).collect();
        let (pools, limits) = (self.pools.clone(), self.limits.clone());
        self.regroup(Change { made, libraries, pools, limits });
    }
}

impl Pools {
    /// Members that were let go of and have not gone.
    fn leaving(&self) -> usize {
        let mut table = self.table.write();
        table.leaving.retain(|left| !left.before.absence.is_over());
        table.leaving.len()
    }

    /// No managed key names a token any more.
    fn release_all(&self) {
        self.table.write().release_all();
    }
}
