//! Who needs no token: processes that fit a role that says so, where the listener lets them in without one.
//!
//! Performance-critical: every request of such a caller comes here. Roles are read from a snapshot without a lock, and a
//! process is judged once by each: whatever changes a namespace's roles forgets its judgements.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;

use super::super::token::TokenRecord;
use super::super::{ROOT_POLICY, Token, rules};
use super::role::{Process, UnixRole};
use crate::model::{Caller, Namespace, Origin};

/// Processes, as far as roles can tell them apart, that are kept judged for one namespace; beyond, all are forgotten.
const JUDGED_MAX: usize = 1024;
/// Policies that all roles of a process give together; with more, it is given none: every request goes through their names.
const POLICIES_MAX: usize = 1024;
/// What stands in the place of a login's path.
const PATH: &str = "auth/unix";

/// The roles that count without a login.
#[derive(Default)]
pub(super) struct Implicit(ArcSwap<HashMap<Namespace, Arc<Table>, RandomState>>);

/// Those of one namespace.
#[derive(Default)]
struct Table {
    roles: BTreeMap<String, Arc<UnixRole>>,
    /// What each process is due; `None` if it fits no role.
    judged: papaya::HashMap<Who, Option<Arc<Token>>, RandomState>,
}

/// A process by all that a role may ask of it.
#[derive(PartialEq, Eq, Hash)]
struct Who {
    uid: u32,
    gid: u32,
    origin: Arc<Origin>,
}

impl Implicit {
    /// What the caller's process is due in a namespace: by the roles that it fits there, or else in the nearest namespace
    /// above where it fits any.
    pub(super) fn due(&self, caller: &Caller, namespace: &Namespace) -> Option<Arc<Token>> {
        let tables = self.0.load();
        if tables.is_empty() {
            return None;
        }
        let mut at = namespace.as_str();
        loop {
            if let Some((namespace, table)) = tables.get_key_value(at)
                && let Some(token) = table.due(namespace, caller)
            {
                return Some(token);
            }
            at = above(at)?;
        }
    }

    /// Replaces all of them.
    pub(super) fn load(&self, roles: HashMap<Namespace, BTreeMap<String, Arc<UnixRole>>>) {
        let table = |(namespace, roles)| (namespace, Arc::new(Table { roles, ..Table::default() }));
        self.0.store(Arc::new(roles.into_iter().map(table).collect()));
    }

    /// Notes a role as it is now, or that it is none of these.
    pub(super) fn set(&self, namespace: &Namespace, name: &str, role: Option<Arc<UnixRole>>) {
        self.0.rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            let mut roles = tables.remove(namespace).map(|table| table.roles.clone()).unwrap_or_default();
            match &role {
                Some(role) => drop(roles.insert(name.to_owned(), Arc::clone(role))),
                None => drop(roles.remove(name)),
            }
            if !roles.is_empty() {
                tables.insert(namespace.clone(), Arc::new(Table { roles, ..Table::default() }));
            }
            tables
        });
    }

    /// Forgets those of a namespace.
    pub(super) fn forget(&self, namespace: &Namespace) {
        self.0.rcu(|tables| {
            let mut tables = HashMap::clone(tables);
            tables.remove(namespace);
            tables
        });
    }
}

impl Table {
    fn due(&self, namespace: &Namespace, caller: &Caller) -> Option<Arc<Token>> {
        let who = Who { uid: caller.peer.uid, gid: caller.peer.gid, origin: Arc::clone(&caller.origin) };
        let judged = self.judged.pin();
        if let Some(known) = judged.get(&who) {
            return known.clone();
        }
        if judged.len() >= JUDGED_MAX {
            judged.clear();
        }
        let token = self.judge(namespace, Process::of(caller));
        judged.insert(who, token.clone());
        token
    }

    /// All that it is due by the roles that it fits, in the form of a token that nobody bears.
    fn judge(&self, namespace: &Namespace, process: Process<'_>) -> Option<Arc<Token>> {
        let fitting: Vec<_> = self.roles.iter().filter(|(_, role)| role.fits(process).is_ok()).collect();
        if fitting.is_empty() {
            return None;
        }
        let all: Vec<String> = fitting.iter().flat_map(|(_, role)| role.policies.iter().cloned()).collect();
        let has_default = fitting.iter().any(|(_, role)| !role.no_default_policy);
        let policies = rules::sanitized(&all, has_default);
        if policies.len() > POLICIES_MAX {
            let count = policies.len();
            tracing::warn!(
                %namespace, uid = process.uid, count, POLICIES_MAX,
                "the implicit roles of a process give too many policies together: it is given none of them"
            );
            return None;
        }
        // No role is stored that has one of these.
        if rules::check_assignable(&policies).is_err() || policies.iter().any(|policy| policy == ROOT_POLICY) {
            return None;
        }
        let names: Vec<&str> = fitting.iter().map(|(name, _)| name.as_str()).collect();
        let mut meta = BTreeMap::from([
            ("roles".to_owned(), names.join(",")),
            ("uid".to_owned(), process.uid.to_string()),
            ("gid".to_owned(), process.gid.to_string()),
        ]);
        if let Some(unit) = process.unit {
            meta.insert("unit".to_owned(), unit.to_owned());
        }
        let record = TokenRecord {
            namespace: namespace.as_str().to_owned(),
            path: PATH.to_owned(),
            meta,
            ..TokenRecord::everlasting(String::new(), policies, "unix".to_owned())
        };
        record.into_token().ok().map(Arc::new)
    }
}

/// The namespace that one lies in.
fn above(namespace: &str) -> Option<&str> {
    let path = namespace.strip_suffix('/')?;
    path.get(..path.rfind('/').map_or(0, |slash| slash + 1))
}
