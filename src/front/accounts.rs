//! How many connections are open, in all and of each uid.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::config::Limits;
use crate::telemetry::Refusal;

/// Brings the bounds of connections below what `open_files`, the process's limit of them, leaves: a quarter is kept for all
/// else, such as the store, worker processes and whoever scrapes, and of what remains a quarter for other uids. Connections
/// that nobody accepts for want of a file are not even refused, and take everyone's with them. False if the bounds are met.
pub(super) fn fit_to(open_files: Option<u64>, limits: &mut Limits) -> bool {
    let three_quarters = |all: usize| (all - all / 4).max(1);
    let all = open_files.and_then(|all| usize::try_from(all).ok()).map_or(usize::MAX, three_quarters);
    if limits.connections <= all {
        return false;
    }
    limits.connections = all;
    limits.connections_per_uid = limits.connections_per_uid.min(three_quarters(all));
    true
}

/// The books. Cheap to clone.
#[derive(Clone)]
pub(super) struct Accounts(Arc<Inner>);

struct Inner {
    connections: usize,
    per_uid: usize,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    all: usize,
    of: HashMap<u32, usize>,
}

/// One open connection; closed in the books when dropped.
pub(super) struct Account {
    accounts: Accounts,
    uid: u32,
}

impl Accounts {
    pub(super) fn new(connections: usize, per_uid: usize) -> Accounts {
        Accounts(Arc::new(Inner { connections, per_uid, open: Mutex::default() }))
    }

    /// Opens one for `uid`, or says which bound forbids it.
    pub(super) fn open(&self, uid: u32) -> Result<Account, Refusal> {
        let mut open = self.0.open.lock();
        if open.all >= self.0.connections {
            return Err(Refusal::Connections);
        }
        let own = open.of.entry(uid).or_default();
        if *own >= self.0.per_uid {
            return Err(Refusal::PerUid);
        }
        *own += 1;
        open.all += 1;
        Ok(Account { accounts: self.clone(), uid })
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        let mut open = self.accounts.0.open.lock();
        open.all -= 1;
        if let Some(own) = open.of.get_mut(&self.uid) {
            *own -= 1;
            if *own == 0 {
                open.of.remove(&self.uid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_cannot_take_every_connection() {
        let accounts = Accounts::new(3, 2);
        let first = accounts.open(1000).ok();
        let _second = accounts.open(1000).ok();
        assert!(matches!(accounts.open(1000), Err(Refusal::PerUid)));
        let _other = accounts.open(1001).ok();
        assert!(matches!(accounts.open(1002), Err(Refusal::Connections)));
        drop(first);
        assert!(accounts.open(1000).is_ok(), "a closed connection makes room");
    }

    #[test]
    fn connections_leave_open_files_for_all_else_and_one_uid_some_for_the_others() {
        let fitted = |open_files| {
            let mut limits = Limits::default();
            let reduced = fit_to(open_files, &mut limits);
            (reduced, limits.connections, limits.connections_per_uid)
        };
        assert_eq!(fitted(Some(1024)), (true, 768, 576));
        assert_eq!(fitted(Some(4096)), (true, 3072, 1024));
        for enough in [None, Some(1 << 20), Some(u64::MAX)] {
            assert_eq!(fitted(enough), (false, 4096, 1024));
        }
    }
}
