//! What happens to a token while it lives: its uses are counted, it is renewed, it is found by its accessor.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::token::Token;
use super::tokens::Identity;
use super::ttl::{self, Wanted};
use crate::model::{Auth, Caller, Fault, Namespace, Secret, TokenId};
use crate::store::CommitFuture;

/// How long a token whose last use is under way may be there yet, in seconds: longer than any request runs.
const LAST_USE: u64 = 60;

/// A use of a token that has a number of them.
#[must_use = "it is taken when it is stored: await it"]
pub struct Use {
    stored: CommitFuture,
    /// The token, if no use of it is left.
    spent: Option<TokenId>,
}

/// A token whose uses are counted.
pub struct Counted {
    id: TokenId,
    token: Arc<Token>,
}

impl Use {
    /// Waits until the use is stored. The token to revoke when the request is done, if this use was its last one.
    pub async fn take(self) -> Result<Option<TokenId>, Fault> {
        self.stored.await?;
        Ok(self.spent)
    }
}

impl Identity {
    /// The caller's token, if its uses are counted. Asked for before the caller is judged: after that, another request may have
    /// taken the last use, and the token with it.
    pub fn counted(&self, caller: &Caller) -> Option<Counted> {
        if self.0.counted.load(Ordering::Acquire) == 0 {
            return None;
        }
        let id = caller.token?;
        let token = self.0.find(id)?;
        token.uses().is_some().then_some(Counted { id, token })
    }

    /// Takes one of its uses. Of two that ask for the last one, one is refused.
    pub fn spend(&self, counted: &Counted) -> Result<Use, Fault> {
        let Counted { id, token } = counted;
        let id = *id;
        let mut lock = token.lock();
        let left = token.uses().and_then(|uses| uses.checked_sub(1)).filter(|_| !lock.is_over);
        let left = left.ok_or(Fault::PermissionDenied)?;
        token.set_uses(&mut lock, left);
        let stored = self.0.store.commit(vec![token.put(id, &lock)?]);
        drop(lock);
        if left == 0 {
            self.bury_soon(id, token);
        }
        Ok(Use { stored, spent: (left == 0).then_some(id) })
    }

    /// Lets the clock end a token without uses, should the request that took the last one not come to it.
    fn bury_soon(&self, id: TokenId, token: &Token) {
        let mut tree = self.0.tree.lock();
        let mut lock = token.lock();
        let soon = self.0.clock.now().saturating_add(LAST_USE);
        let before = token.ends();
        if !lock.is_over && before.is_none_or(|before| before > soon) {
            token.set_ends(&mut lock, soon);
            tree.move_end(id, before, soon);
        }
    }

    /// Lets a token live `increment` seconds more, or as long as it was made for if that is 0. What is to be known of it
    /// then, without the token itself.
    pub async fn renew(&self, id: TokenId, increment: u64) -> Result<(Auth, Vec<String>), Fault> {
        let token = self.0.find(id).ok_or_else(|| Fault::invalid("token not found"))?;
        let max_ttl = self.check_login(&token)?;
        let now = self.0.clock.now();
        let (stored, left, warnings) = {
            let mut tree = self.0.tree.lock();
            let mut lock = token.lock();
            let before = token.ends().filter(|_| token.renewable && !lock.is_over && token.uses() != Some(0));
            let before = before.ok_or_else(|| Fault::invalid("lease is not renewable"))?;
            let wanted = Wanted {
                increment,
                ttl: token.creation_ttl,
                max_ttl,
                period: token.period,
                explicit_max_ttl: token.explicit_max_ttl,
                start: token.creation_time,
            };
            let (left, warnings) = ttl::effective(&wanted, now)?;
            let ends = now.saturating_add(left);
            token.set_ends(&mut lock, ends);
            lock.renewed = Some(now);
            tree.move_end(id, Some(before), ends);
            (self.0.store.commit(vec![token.put(id, &lock)?]), left, warnings)
        };
        stored.await?;
        Ok((auth(&token, Secret::default(), left), warnings))
    }

    /// A token, if it is one that a request in `namespace` may name: it belongs there, or below.
    pub fn named(&self, token: &Secret, namespace: &Namespace) -> Option<(TokenId, Arc<Token>)> {
        let id = self.identify(token);
        let token = self.0.find(id).filter(|token| lies_in(token, namespace))?;
        Some((id, token))
    }

    /// The same by its accessor.
    pub fn by_accessor(&self, accessor: &str, namespace: &Namespace) -> Option<(TokenId, Arc<Token>)> {
        let id = self.0.tree.lock().by_accessor(accessor)?;
        let token = self.0.find(id).filter(|token| lies_in(token, namespace))?;
        Some((id, token))
    }

    /// The accessors of the tokens of a namespace, sorted: at most `limit`.
    pub fn accessors(&self, namespace: &Namespace, limit: usize) -> Vec<String> {
        let own: Vec<TokenId> = self.0.tree.lock().of(namespace).take(limit).collect();
        let tokens = self.0.tokens.pin();
        let mut found: Vec<String> =
            own.iter().filter_map(|id| tokens.get(id)).map(|token| token.accessor.clone()).collect();
        found.sort_unstable();
        found
    }

    /// Seconds a token has left; 0 if it does not end.
    pub fn left(&self, token: &Token) -> u64 {
        token.ends().map_or(0, |ends| ends.saturating_sub(self.0.clock.now()))
    }
}

/// What a client is told of a token that was made or renewed: it lasts for `lease_duration` seconds, counted from then and not
/// from when that was stored; 0 if it does not end.
pub(super) fn auth(token: &Token, client_token: Secret, lease_duration: u64) -> Auth {
    Auth {
        client_token,
        accessor: token.accessor.clone(),
        policies: token.policies.clone(),
        metadata: token.meta.clone(),
        lease_duration,
        renewable: token.renewable,
        orphan: token.is_orphan(),
        num_uses: token.num_uses,
    }
}

fn lies_in(token: &Token, namespace: &Namespace) -> bool {
    token.namespace.as_str().starts_with(namespace.as_str())
}
