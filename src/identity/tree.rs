//! What leads to tokens beside what their bearers show: who made whom, accessors, and who ends next.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, HashSet};

use foldhash::fast::RandomState;

use super::token::Token;
use super::unix::login_of;
use crate::model::{Namespace, Tally, TokenId};

/// The index of all tokens. Changed under one lock, together with the table of tokens.
#[derive(Debug, Default)]
pub(super) struct Tree {
    children: HashMap<TokenId, HashSet<TokenId, RandomState>, RandomState>,
    accessors: HashMap<String, TokenId, RandomState>,
    /// Those of each namespace.
    namespaces: HashMap<Namespace, HashSet<TokenId, RandomState>, RandomState>,
    /// How many count for their namespaces: those that hold answers have bounds of their own.
    counted: Tally,
    /// Those that end, the next one first.
    ends: BTreeSet<(u64, TokenId)>,
    /// How many a uid got by logging in, in all namespaces of each tenant.
    logins: HashMap<(Namespace, u32), usize, RandomState>,
}

impl Tree {
    /// Notes a token.
    pub(super) fn add(&mut self, id: TokenId, token: &Token) {
        if let Some(parent) = token.lock().parent {
            self.bind(parent, id);
        }
        self.accessors.insert(token.accessor.clone(), id);
        self.namespaces.entry(token.namespace.clone()).or_default().insert(id);
        if !token.is_wrapping() {
            self.counted.add(&token.namespace, 1);
        }
        if let Some(ends) = token.ends() {
            self.ends.insert((ends, id));
        }
        if let Some(uid) = login_of(token) {
            *self.logins.entry((token.namespace.tenant(), uid)).or_default() += 1;
        }
    }

    /// Forgets a token, and answers its children, which are nobody's then.
    pub(super) fn remove(&mut self, id: TokenId, token: &Token) -> Vec<TokenId> {
        let parent = token.lock().parent;
        if let Some(parent) = parent
            && let Some(siblings) = self.children.get_mut(&parent)
        {
            siblings.remove(&id);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
        self.accessors.remove(&token.accessor);
        if let Some(own) = self.namespaces.get_mut(&token.namespace) {
            own.remove(&id);
            if own.is_empty() {
                self.namespaces.remove(&token.namespace);
            }
        }
        if !token.is_wrapping() {
            self.counted.take(&token.namespace, 1);
        }
        if let Some(ends) = token.ends() {
            self.ends.remove(&(ends, id));
        }
        if let Some(uid) = login_of(token)
            && let Entry::Occupied(mut count) = self.logins.entry((token.namespace.tenant(), uid))
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        self.release(id)
    }

    /// Makes a child of a token's.
    pub(super) fn bind(&mut self, parent: TokenId, child: TokenId) {
        self.children.entry(parent).or_default().insert(child);
    }

    /// Makes nobody's children of a token's, and answers them.
    pub(super) fn release(&mut self, id: TokenId) -> Vec<TokenId> {
        self.children.remove(&id).unwrap_or_default().into_iter().collect()
    }

    /// Notes that a token ends at another time than it did.
    pub(super) fn move_end(&mut self, id: TokenId, before: Option<u64>, now: u64) {
        if let Some(before) = before {
            self.ends.remove(&(before, id));
        }
        self.ends.insert((now, id));
    }

    /// The token with this accessor.
    pub(super) fn by_accessor(&self, accessor: &str) -> Option<TokenId> {
        self.accessors.get(accessor).copied()
    }

    /// A token that has ended by `now`.
    pub(super) fn due(&self, now: u64) -> Option<TokenId> {
        self.ends.first().filter(|(ends, _)| *ends <= now).map(|(_, id)| *id)
    }

    /// How many tokens a uid got by logging in in the namespaces of this one's tenant.
    pub(super) fn logins(&self, namespace: &Namespace, uid: u32) -> usize {
        self.logins.get(&(namespace.tenant(), uid)).copied().unwrap_or_default()
    }

    /// How many tokens count for a namespace's tenant.
    pub(super) fn of_tenant(&self, namespace: &Namespace) -> usize {
        self.counted.of_tenant(namespace)
    }

    /// The tokens of a namespace, in no order.
    pub(super) fn of(&self, namespace: &Namespace) -> impl Iterator<Item = TokenId> {
        self.namespaces.get(namespace).into_iter().flatten().copied()
    }

    /// Those of a namespace and of all below it. Looks at every namespace that has any.
    pub(super) fn within(&self, namespace: &Namespace) -> Vec<TokenId> {
        let within = self.namespaces.iter().filter(|(known, _)| *known == namespace || known.is_below(namespace));
        within.flat_map(|(_, own)| own.iter().copied()).collect()
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.accessors.len()
    }
}
