//! The table of pools under another configuration: which members go, which are made in their places, and which stay as if
//! nothing had happened. A lane outlives its members, with what waits in it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::pool::{Member, Pool};
use super::pools::{Leaving, LibraryFacts, Pools, Table, Token, TokenName, alone};
use super::presence::Before;
use super::route::MemberId;
use super::supervisor::{Change, Remade};
use crate::config::{KmsPool, PoolMember};

/// What a change comes to.
pub(super) struct Regrouped {
    /// Members that are to go.
    pub(super) gone: Vec<Arc<Member>>,
    /// Pools that nobody serves any more.
    pub(super) left: Vec<Arc<Pool>>,
    /// Members made just now.
    pub(super) fresh: HashSet<MemberId>,
}

impl Pools {
    /// Takes another configuration over.
    pub(super) fn regroup(&self, change: &Change) -> Regrouped {
        let mut table = self.table.write();
        table.leaving.retain(|left| !left.before.absence.is_over());
        let made_before = table.members_made;
        let leaving = table.names_to_leave(change);
        let elsewhere = table.take_libraries(change);
        let (gone, taken) = table.take_out(leaving, &elsewhere);
        let mut pools = std::mem::take(&mut table.configured);
        for pool in &change.pools {
            let was = pools.remove(&pool.name.to_lowercase()).map(|(pool, _)| pool);
            self.configure(&mut table, pool, was);
        }
        for (name, was) in taken {
            if !table.tokens.contains_key(&name) {
                if was.keys == 0 {
                    continue;
                }
                let pool = &was.home.0;
                let own = !was.configured && pool.name.eq_ignore_ascii_case(&alone(&name.0, &name.1));
                self.begin_alone(&mut table, &was.of.library, &name, own.then(|| Arc::clone(pool)));
            }
            if let Some(token) = table.tokens.get_mut(&name) {
                token.keys = was.keys;
            }
        }
        let fresh = table.in_order.iter().map(|member| member.id).filter(|id| id.0 > made_before).collect();
        Regrouped { gone, left: table.leave_pools(), fresh }
    }
}

impl Table {
    /// The tokens whose members cannot stay as they are.
    fn names_to_leave(&self, change: &Change) -> HashSet<TokenName> {
        let wanted: HashMap<TokenName, (&KmsPool, &PoolMember)> = change
            .pools
            .iter()
            .flat_map(|pool| {
                pool.members.iter().map(move |of| ((of.library.to_lowercase(), of.token.clone()), (pool, of)))
            })
            .collect();
        let stays = |name: &TokenName, token: &Token| match wanted.get(name) {
            _ if change.touches(&name.0) => false,
            Some((pool, of)) => {
                token.configured && token.home.0.name.eq_ignore_ascii_case(&pool.name) && of.is_same(&token.of)
            }
            None => !token.configured,
        };
        let mut leaving: HashSet<TokenName> =
            self.tokens.iter().filter(|(name, token)| !stays(name, token)).map(|(name, _)| name.clone()).collect();
        // Tokens that are served by another name's members go with these: what that name leads to may be another now.
        let hosts_go = |token: &Token| {
            token.home.1.iter().any(|member| leaving.contains(&(member.library.clone(), member.named.clone())))
        };
        let guests: Vec<TokenName> =
            self.tokens.iter().filter(|(_, token)| hosts_go(token)).map(|(name, _)| name.clone()).collect();
        leaving.extend(guests);
        leaving
    }

    /// Takes note of the libraries as they are now. Answers those whose code runs elsewhere than before.
    fn take_libraries(&mut self, change: &Change) -> HashSet<String> {
        let mut elsewhere = HashSet::new();
        self.libraries.retain(|name, _| change.has(name));
        for Remade { library, elsewhere: is_elsewhere } in &change.made {
            let name = library.name.to_lowercase();
            let before = self.libraries.get(&name).map(|known| known.process);
            let process = match before {
                Some(process) if !is_elsewhere => process,
                Some(_) => {
                    elsewhere.insert(name.clone());
                    self.members_made = self.members_made.saturating_add(1);
                    self.members_made
                }
                None => 0,
            };
            self.libraries.insert(name, LibraryFacts::of(library, process));
        }
        elsewhere
    }

    /// Takes these tokens and their members out. Whoever is made in their places waits for them; not for ever, where they
    /// have nothing in common but the token.
    fn take_out(
        &mut self,
        leaving: HashSet<TokenName>,
        elsewhere: &HashSet<String>,
    ) -> (Vec<Arc<Member>>, Vec<(TokenName, Token)>) {
        let mut taken = Vec::new();
        let mut gone: HashMap<MemberId, Arc<Member>> = HashMap::new();
        for name in leaving {
            let Some(token) = self.tokens.remove(&name) else { continue };
            for member in &token.home.1 {
                let must_go = member.worker == 0 && !elsewhere.contains(&member.library);
                let before = Before { absence: member.absence.clone(), must_go };
                self.leaving.push(Leaving { token: name.clone(), worker: None, before });
                gone.insert(member.id, Arc::clone(member));
            }
            taken.push((name, token));
        }
        self.in_order.retain(|member| !gone.contains_key(&member.id));
        let mut gone: Vec<Arc<Member>> = gone.into_values().collect();
        gone.sort_by_key(|member| member.id);
        // Others of the same labels may come.
        gone.iter().for_each(|member| member.metrics.end());
        taken.sort_by_key(|(_, token)| token.home.1.first().map(|member| member.id));
        (gone, taken)
    }

    /// Takes out the pools that no token and no stanza has any more.
    fn leave_pools(&mut self) -> Vec<Arc<Pool>> {
        let homes = self.configured.values().chain(self.tokens.values().map(|token| &token.home));
        let used: HashSet<*const Pool> = homes.map(|(pool, _)| Arc::as_ptr(pool)).collect();
        let (kept, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.lanes).into_iter().partition(|pool| used.contains(&Arc::as_ptr(pool)));
        self.lanes = kept;
        left.iter().for_each(|pool| pool.end());
        left
    }
}
