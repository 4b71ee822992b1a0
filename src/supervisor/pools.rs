//! The table of every pool and member. Those of configured pools are made at start; those of other tokens are made at the
//! first managed key that names their token, and go with the last. What another configuration makes of it is in
//! [`regroup`](super::regroup).

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::computing::Computing;
use super::lane::{Lane, LaneLimits, Wake};
use super::pool::{Member, Pool};
use super::presence::Before;
use super::route::MemberId;
use super::supervisor::Library;
use crate::config::{KmsPool, Limits, NO_POOL, NamespaceSettings, PoolMember};
use crate::model::{Fault, Namespace, Secret, TokenSelector};
use crate::pace::Pace;
use crate::telemetry::Telemetry;

/// Pools there may be, with those of one token.
const POOLS_MAX: usize = 4096;

/// What of a library matters to its members.
pub(super) struct LibraryFacts {
    pin: Option<Secret>,
    sessions: Option<usize>,
    workers: u32,
    isolated: bool,
    computes_here: bool,
    /// Where its members log in, if that is this process: another number for other code.
    pub(super) process: u32,
}

impl LibraryFacts {
    pub(super) fn of(library: &Library, process: u32) -> LibraryFacts {
        LibraryFacts {
            pin: library.pin.clone(),
            sessions: library.sessions,
            workers: if library.isolated { u32::try_from(library.workers.max(1)).unwrap_or(1) } else { 1 },
            isolated: library.isolated,
            computes_here: library.computes_here,
            process,
        }
    }

    /// Worker processes of a token that may have so many sessions: one that has none would be of no use.
    fn workers_with(&self, sessions: Option<usize>) -> u32 {
        let most = sessions.and_then(|most| u32::try_from(most).ok()).unwrap_or(u32::MAX);
        self.workers.min(most).max(1)
    }
}

/// A pool, and those of its members that may hold a key.
pub(super) type Home = (Arc<Pool>, Vec<Arc<Member>>);

/// A library, in lower case, and how one of its tokens is named.
pub(super) type TokenName = (String, TokenSelector);

/// Every pool and member there is.
pub(super) struct Pools {
    limits: Limits,
    weights: Arc<HashMap<Namespace, u32>>,
    telemetry: Telemetry,
    /// That of the daemon's threads.
    pub(super) pace: Pace,
    /// The pool without members, for keys whose library is not configured.
    nowhere: Arc<Pool>,
    pub(super) table: RwLock<Table>,
}

/// A token that is in use, by one of its names. Others may have the same home.
pub(super) struct Token {
    pub(super) home: Home,
    /// Whether the configuration names it: then it stays.
    pub(super) configured: bool,
    /// What its members were made by.
    pub(super) of: PoolMember,
    /// Managed keys that name it.
    pub(super) keys: usize,
}

/// What is let go of.
pub(super) struct Retired {
    pub(super) home: Home,
    /// Who has its keys from now on.
    pub(super) heir: Option<Home>,
}

/// One member that was let go of, as long as a thread of it may live.
pub(super) struct Leaving {
    pub(super) token: TokenName,
    /// The worker that waits for it; `None` where all of the token's do.
    pub(super) worker: Option<u32>,
    pub(super) before: Before,
}

#[derive(Default)]
pub(super) struct Table {
    /// By name, in lower case.
    pub(super) libraries: HashMap<String, LibraryFacts>,
    /// By name, in lower case.
    pub(super) configured: HashMap<String, Home>,
    /// Those of libraries that are not configured have no members.
    pub(super) tokens: HashMap<TokenName, Token>,
    /// The token that each managed key names, by its UUID.
    named: HashMap<String, TokenName>,
    pub(super) in_order: Vec<Arc<Member>>,
    pub(super) lanes: Vec<Arc<Pool>>,
    pub(super) members_made: u32,
    /// Let go of, and not yet taken to their end.
    retired: Vec<Retired>,
    pub(super) leaving: Vec<Leaving>,
}

impl Pools {
    pub(super) fn new(
        libraries: &[Library],
        pools: &[KmsPool],
        namespaces: &[NamespaceSettings],
        limits: &Limits,
        telemetry: &Telemetry,
    ) -> Pools {
        let weights = Arc::new(namespaces.iter().map(|known| (known.path.clone(), known.weight)).collect());
        let this = Pools {
            limits: limits.clone(),
            nowhere: pool(NO_POOL, Wake::Chain, limits, &weights, telemetry),
            weights,
            telemetry: telemetry.clone(),
            pace: Pace::default(),
            table: RwLock::default(),
        };
        {
            let mut table = this.table.write();
            let facts = |library: &Library| (library.name.to_lowercase(), LibraryFacts::of(library, 0));
            table.libraries = libraries.iter().map(facts).collect();
            pools.iter().for_each(|pool| this.configure(&mut table, pool, None));
        }
        this
    }

    /// Has a pool serve as configured: with the lane that `was` its, if it had one, and those of its members that are there.
    pub(super) fn configure(&self, table: &mut Table, configured: &KmsPool, was: Option<Arc<Pool>>) {
        let chain = configured.members.iter().all(|member| table.wake(&member.library) == Wake::Chain);
        let wake = Wake::of(chain);
        let pool = was.unwrap_or_else(|| self.pool(&configured.name, wake));
        pool.lane.wake_by(wake);
        let mut members = Vec::new();
        for member in &configured.members {
            let name = (member.library.to_lowercase(), member.token.clone());
            match table.tokens.get(&name) {
                Some(token) => members.extend(token.home.1.iter().cloned()),
                None => members.extend(self.add(table, &pool, member, true)),
            }
        }
        table.configured.insert(configured.name.to_lowercase(), (pool, members));
    }

    /// A token by itself: its members are made, behind a lane of their own.
    pub(super) fn begin_alone(&self, table: &mut Table, library: &str, token: &TokenName, was: Option<Arc<Pool>>) {
        let wake = table.wake(&token.0);
        let pool = was.unwrap_or_else(|| self.pool(&alone(library, &token.1), wake));
        pool.lane.wake_by(wake);
        let of = PoolMember { library: token.0.clone(), token: token.1.clone(), pin: None, max_sessions: None };
        self.add(table, &pool, &of, false);
    }

    fn pool(&self, name: &str, wake: Wake) -> Arc<Pool> {
        pool(name, wake, &self.limits, &self.weights, &self.telemetry)
    }

    /// Makes the members of a token: one a worker process, or one.
    fn add(&self, table: &mut Table, pool: &Arc<Pool>, of: &PoolMember, configured: bool) -> Vec<Arc<Member>> {
        let token = (of.library.to_lowercase(), of.token.clone());
        let members = table.make_members(pool, of, &token, configured);
        table.in_order.extend(members.iter().cloned());
        if table.lanes.iter().all(|known| !Arc::ptr_eq(known, pool)) {
            table.lanes.push(Arc::clone(pool));
            pool.show_limits();
        }
        let home = (Arc::clone(pool), members.clone());
        table.tokens.insert(token, Token { home, configured, of: of.clone(), keys: 0 });
        members
    }

    /// The pool and the members that may hold the managed key `uuid`: all of the pool `library` names, or those of one
    /// token. From now on the key names that token, and none it named before; also where its library is not configured, and
    /// is some day.
    pub(super) fn name(&self, uuid: &str, library: &str, token: Option<&TokenSelector>) -> Result<Home, Fault> {
        let name = library.to_lowercase();
        let mut table = self.table.write();
        let Some(token) = token else {
            table.release(uuid);
            return table.pool(&name).ok_or_else(|| not_there(library, true));
        };
        let token = (name, token.clone());
        if table.named.get(uuid) != Some(&token) || !table.tokens.contains_key(&token) {
            table.release(uuid);
            if !table.tokens.contains_key(&token) {
                table.check_room()?;
                self.begin_alone(&mut table, library, &token, None);
            }
            let Some(known) = table.tokens.get_mut(&token) else { return Err(not_there(library, false)) };
            known.keys += 1;
            table.named.insert(uuid.to_owned(), token.clone());
        }
        table.home(library, &token)
    }

    /// The managed key `uuid` names no token any more. If it was the last of one that the configuration does not name, that
    /// token is let go of.
    pub(super) fn release(&self, uuid: &str) {
        self.table.write().release(uuid);
    }

    /// The same of a key that named this token, unless it names another by now.
    pub(super) fn leave(&self, uuid: &str, library: &str, token: Option<&TokenSelector>) {
        let mut table = self.table.write();
        let left = |named: &TokenName| named.0 == library.to_lowercase() && Some(&named.1) == token;
        if table.named.get(uuid).is_some_and(left) {
            table.release(uuid);
        }
    }

    /// What was let go of since this was last asked.
    pub(super) fn retired(&self) -> Vec<Retired> {
        std::mem::take(&mut self.table.write().retired)
    }

    /// Whether [`Pools::retired`] has something to tell.
    pub(super) fn has_retired(&self) -> bool {
        !self.table.read().retired.is_empty()
    }

    /// The members beside `guest` are of the same token as those beside `host`: whoever names it by the former's name finds
    /// the latter from now on. False where one of them is there no more, or the guest stays because it is configured.
    pub(super) fn join(&self, guest: MemberId, host: MemberId) -> bool {
        let mut table = self.table.write();
        let of = |kin| move |token: &&Token| token.home.1.iter().any(|member| member.kin == kin);
        let Some(heir) = table.tokens.values().find(of(host)).map(|token| token.home.clone()) else { return false };
        let Some(pool) = table.tokens.values().find(of(guest)).map(|token| Arc::clone(&token.home.0)) else {
            return false;
        };
        if table.tokens.values().any(|token| Arc::ptr_eq(&token.home.0, &pool) && token.configured) {
            return false;
        }
        table.retire(&pool, Some(heir));
        true
    }

    /// The pool and members of keys that name this.
    pub(super) fn find(&self, library: &str, token: Option<&TokenSelector>) -> Result<Home, Fault> {
        let name = library.to_lowercase();
        let table = self.table.read();
        let Some(token) = token else { return table.pool(&name).ok_or_else(|| not_there(library, true)) };
        table.home(library, &(name, token.clone()))
    }

    /// Whether the configuration names this token.
    pub(super) fn is_configured(&self, library: &str, token: &TokenSelector) -> bool {
        self.table.read().tokens.get(&(library.to_lowercase(), token.clone())).is_some_and(|token| token.configured)
    }

    /// The pool without members.
    pub(super) fn nowhere(&self) -> &Arc<Pool> {
        &self.nowhere
    }

    /// Every member, in the order they were made.
    pub(super) fn members(&self) -> Vec<Arc<Member>> {
        self.table.read().in_order.clone()
    }

    /// Every pool.
    pub(super) fn all(&self) -> Vec<Arc<Pool>> {
        self.table.read().lanes.clone()
    }
}

impl Table {
    fn pool(&self, name: &str) -> Option<Home> {
        self.configured.get(name).cloned()
    }

    fn home(&self, library: &str, token: &TokenName) -> Result<Home, Fault> {
        if !self.libraries.contains_key(&token.0) {
            return Err(not_there(library, false));
        }
        self.tokens.get(token).map(|token| token.home.clone()).ok_or_else(|| {
            let what = format!("token {} of kms_library {library:?} was let go of: no managed key names it", token.1);
            Fault::Unavailable { what }
        })
    }

    fn wake(&self, library: &str) -> Wake {
        self.libraries.get(&library.to_lowercase()).map_or(Wake::Each, |library| Wake::of(library.computes_here))
    }

    /// Refuses one token more than there may be.
    fn check_room(&mut self) -> Result<(), Fault> {
        self.leaving.retain(|left| !left.before.absence.is_over());
        if self.lanes.len() + self.leaving.len() < POOLS_MAX {
            return Ok(());
        }
        let what = format!(
            "{POOLS_MAX} tokens are in use, which is the most allowed; delete the managed keys of those that are not needed"
        );
        Err(Fault::Unavailable { what })
    }

    fn make_members(
        &mut self,
        pool: &Arc<Pool>,
        of: &PoolMember,
        token: &TokenName,
        configured: bool,
    ) -> Vec<Arc<Member>> {
        let Some(facts) = self.libraries.get(&token.0) else { return Vec::new() };
        let sessions = of.max_sessions.or(facts.sessions);
        let workers = facts.workers_with(sessions);
        let numbers = if facts.isolated { 1..=workers } else { 0..=0 };
        let (mut kin, coming_up) = (None, Arc::default());
        let copies: Vec<TokenSelector> = match &token.1 {
            TokenSelector::Cloud(key) => key.copies().map(|copy| TokenSelector::Cloud(Arc::new(copy))).collect(),
            other => vec![other.clone()],
        };
        let made = numbers.flat_map(|worker| copies.iter().map(move |copy| (worker, copy))).map(|(worker, copy)| {
            self.members_made = self.members_made.saturating_add(1);
            let mut member = Member::new(MemberId(self.members_made), pool, &token.0, copy, worker);
            member.named = token.1.clone();
            member.computing = Arc::new(Computing::new(facts.computes_here));
            member.metrics.computes_here(facts.computes_here);
            member.process = if facts.isolated { self.members_made } else { facts.process };
            member.pin = of.pin.clone().or_else(|| facts.pin.clone());
            member.sessions = sessions.map(|all| share(all, workers, worker));
            let waits = |left: &&Leaving| left.token == *token && left.worker.is_none_or(|number| number == worker);
            member.before = self.leaving.iter().filter(waits).map(|left| left.before.clone()).collect();
            (member.kin, member.configured) = (*kin.get_or_insert(member.id), configured);
            member.coming_up = Arc::clone(&coming_up);
            Arc::new(member)
        });
        made.collect()
    }

    /// No managed key names a token any more.
    pub(super) fn release_all(&mut self) {
        let named: Vec<String> = self.named.keys().cloned().collect();
        named.iter().for_each(|uuid| self.release(uuid));
    }

    fn release(&mut self, uuid: &str) {
        let Some(name) = self.named.remove(uuid) else { return };
        let Some(token) = self.tokens.get_mut(&name) else { return };
        token.keys -= 1;
        if token.keys > 0 || token.configured {
            return;
        }
        let (pool, members) = token.home.clone();
        let mut names = self.tokens.values().filter(|other| Arc::ptr_eq(&other.home.0, &pool));
        if !names.any(|other| other.configured || other.keys > 0) {
            self.retire(&pool, None);
        } else if members.iter().all(|member| member.named != name.1) {
            // Only by this key was the token known by this name.
            self.tokens.remove(&name);
        }
    }

    /// Takes a pool out, and its token's names: to its `heir`, if it has one.
    fn retire(&mut self, pool: &Arc<Pool>, heir: Option<Home>) {
        let mut home = None;
        self.tokens.retain(|_, token| {
            if !Arc::ptr_eq(&token.home.0, pool) {
                return true;
            }
            home = Some(token.home.clone());
            let Some(heir) = heir.as_ref().filter(|_| token.keys > 0) else { return false };
            token.home = heir.clone();
            true
        });
        let Some(home) = home else { return };
        self.in_order.retain(|member| home.1.iter().all(|gone| gone.id != member.id));
        self.lanes.retain(|known| !Arc::ptr_eq(known, pool));
        self.leaving.retain(|left| !left.before.absence.is_over());
        self.leaving.extend(home.1.iter().map(|member| Leaving {
            token: (member.library.clone(), member.named.clone()),
            worker: Some(member.worker),
            before: Before { absence: member.absence.clone(), must_go: true },
        }));
        pool.end();
        self.retired.push(Retired { home, heir });
    }
}

fn pool(
    name: &str,
    wake: Wake,
    limits: &Limits,
    weights: &Arc<HashMap<Namespace, u32>>,
    telemetry: &Telemetry,
) -> Arc<Pool> {
    let lane = Lane::new(LaneLimits::new(limits, wake), Arc::clone(weights));
    Arc::new(Pool::new(name, lane, telemetry.clone()))
}

/// That there is no such library or pool.
pub(super) fn not_there(name: &str, is_pool: bool) -> Fault {
    let kind = if is_pool { "kms_pool" } else { "kms_library" };
    Fault::Unavailable {
        what: format!("there is no {kind} {name:?} in the configuration; add it and reload it (SIGHUP)"),
    }
}

/// What the pool of a token by itself is called.
pub(super) fn alone(library: &str, token: &TokenSelector) -> String {
    format!("{library}/{token}")
}

/// A worker's part of the sessions of its token: of a token of one member, all.
fn share(all: usize, workers: u32, worker: u32) -> usize {
    let workers = workers.max(1) as usize;
    let extra = usize::from((worker as usize).saturating_sub(1) < all % workers);
    all / workers + extra
}
