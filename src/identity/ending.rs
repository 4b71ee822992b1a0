//! How tokens end: revoked with all below them, or by the clock. Gone from memory at once, then from the store.
//!
//! Those above go first. What a crash leaves behind has lost its parent, and goes at the next start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::token::key;
use super::tokens::{Identity, Inner};
use super::tree::Tree;
use super::wrapping;
use crate::model::{Fault, Namespace, TokenId};
use crate::store::{CommitFuture, Write};

/// Tokens deleted by one commit: each takes up to two writes.
const DELETED_AT_ONCE: usize = 4_000;
/// Tokens taken out by the clock before others have their turn.
const DUE_AT_ONCE: usize = 1_000;
/// Tokens that ended and that nobody has asked for yet. Of more, it is found out otherwise.
const ENDED_MAX: usize = 100_000;

impl Identity {
    /// Ends a token and all below it: the next request with any of them is refused. Answered when they are gone from the
    /// store, too. Whether there was such a token.
    pub async fn revoke(&self, id: TokenId) -> Result<bool, Fault> {
        let gone = self.take_out(id);
        let existed = !gone.is_empty();
        self.delete(gone).await.map(|()| existed)
    }

    /// Ends a token; those it made go on as orphans. Whether there was such a token. Ends even if its asker leaves.
    pub async fn revoke_orphan(&self, id: TokenId) -> Result<bool, Fault> {
        let this = self.clone();
        let revoking = tokio::spawn(async move { this.revoke_orphan_here(id).await });
        revoking.await.unwrap_or_else(|_| Err(Fault::Unavailable { what: "the daemon is going down".into() }))
    }

    async fn revoke_orphan_here(&self, id: TokenId) -> Result<bool, Fault> {
        // The children's records first: a crash between the two must not take them along.
        for (children, stored) in self.cut_off(id)? {
            if let Err(fault) = stored.await {
                self.bind_again(id, &children);
                return Err(fault);
            }
        }
        self.revoke(id).await
    }

    /// Ends the tokens whose time is up, each with all below it, and deletes what could not be deleted before.
    pub async fn end_due(&self) {
        loop {
            let mut gone = Vec::new();
            let mut ended = 0;
            {
                let mut tree = self.0.tree.lock();
                while ended < DUE_AT_ONCE
                    && let Some(id) = tree.due(self.0.clock.now())
                {
                    gone.extend(self.0.take_out(&mut tree, id));
                    ended += 1;
                }
            }
            gone.append(&mut self.0.undeleted.lock());
            if let Err(fault) = self.delete(gone).await {
                tracing::warn!(%fault, "tokens that ended could not be deleted: tried again in a second");
                return;
            }
            if ended < DUE_AT_ONCE {
                return;
            }
        }
    }

    /// Those that ended since this was last asked, for who keeps what goes with them. It may be too long a list to be whole:
    /// what counts is [`Identity::is_there`].
    pub fn take_ended(&self) -> Vec<TokenId> {
        std::mem::take(&mut *self.0.ended.lock())
    }

    /// Whether there is such a token, and it has not ended.
    pub fn is_there(&self, id: TokenId) -> bool {
        self.0.find(id).is_some()
    }

    /// Ends every token of a namespace and of those below it, with all that they made: the namespace is going.
    pub async fn revoke_namespace(&self, namespace: &Namespace) -> Result<(), Fault> {
        self.forget_roles(namespace).await?;
        let gone = self.take_out_namespace(namespace);
        self.delete(gone).await
    }

    /// The same at a start, where the namespace is made anew before its removal was over. Blocks for the disk.
    pub fn revoke_namespace_now(&self, namespace: &Namespace) -> Result<(), Fault> {
        let gone = self.take_out_namespace(namespace);
        tracing::info!(%namespace, tokens = gone.len(), "the tokens of a deleted namespace are gone");
        self.0.delete_now(&gone)
    }

    fn take_out_namespace(&self, namespace: &Namespace) -> Vec<TokenId> {
        let found = self.0.tree.lock().within(namespace);
        found.into_iter().flat_map(|id| self.take_out(id)).collect()
    }

    /// At a start: ends the tokens that are over by now, that have no uses left, or whose parent is gone.
    pub(super) fn sweep(&self, ids: &[TokenId]) -> Result<(), Fault> {
        let now = self.0.clock.now();
        let is_over = |id: &TokenId| {
            let tokens = self.0.tokens.pin();
            let Some(token) = tokens.get(id) else { return false };
            let parent = token.lock().parent;
            let alone = parent.is_some_and(|parent| tokens.get(&parent).is_none());
            token.ends().is_some_and(|ends| ends <= now) || token.uses() == Some(0) || alone
        };
        let mut gone = Vec::new();
        for id in ids.iter().filter(|id| is_over(id)) {
            gone.extend(self.take_out(*id));
        }
        // Below those that were taken out nobody is left, as each went with all below it.
        self.0.delete_now(&gone)?;
        self.sweep_wrapped()
    }

    pub(super) fn take_out(&self, id: TokenId) -> Vec<TokenId> {
        self.0.take_out(&mut self.0.tree.lock(), id)
    }

    /// Deletes tokens that were taken out. Ends even if its asker leaves.
    pub(super) async fn delete(&self, gone: Vec<TokenId>) -> Result<(), Fault> {
        if gone.is_empty() {
            return Ok(());
        }
        let inner = Arc::clone(&self.0);
        let deleted = tokio::task::spawn_blocking(move || inner.delete_now(&gone));
        deleted.await.unwrap_or_else(|_| Err(Fault::internal("deleting tokens panicked")))
    }

    /// Makes orphans of a token's children, and queues that at the store.
    fn cut_off(&self, id: TokenId) -> Result<Vec<(Vec<TokenId>, CommitFuture)>, Fault> {
        let mut tree = self.0.tree.lock();
        let tokens = self.0.tokens.pin();
        let mut queued = Vec::new();
        for children in tree.release(id).chunks(DELETED_AT_ONCE) {
            let mut writes = Vec::with_capacity(children.len());
            for (child, token) in children.iter().filter_map(|child| Some((*child, tokens.get(child)?))) {
                let mut lock = token.lock();
                lock.parent = None;
                writes.push(token.put(child, &lock)?);
            }
            queued.push((children.to_vec(), self.0.store.commit(writes)));
        }
        Ok(queued)
    }

    /// Gives a token its children back: that they are orphans could not be stored.
    fn bind_again(&self, id: TokenId, children: &[TokenId]) {
        let mut tree = self.0.tree.lock();
        let tokens = self.0.tokens.pin();
        for (child, token) in children.iter().filter_map(|child| Some((*child, tokens.get(child)?))) {
            token.lock().parent = Some(id);
            tree.bind(id, child);
        }
    }
}

impl Inner {
    /// Takes a token and all below it out of memory. Answers them, those above first.
    pub(super) fn take_out(&self, tree: &mut Tree, top: TokenId) -> Vec<TokenId> {
        let tokens = self.tokens.pin();
        let mut gone = Vec::new();
        let mut next = VecDeque::from([top]);
        while let Some(id) = next.pop_front() {
            let Some(token) = tokens.remove(&id) else { continue };
            if token.uses().is_some() {
                self.counted.fetch_sub(1, Ordering::AcqRel);
            }
            if let Some((share, bytes)) = token.wrapped() {
                self.shares.lock().give(share, bytes);
            }
            next.extend(tree.remove(id, token));
            token.lock().is_over = true;
            // One that only holds an answer is asked for nothing else.
            if !token.is_wrapping() {
                let mut ended = self.ended.lock();
                if ended.len() < ENDED_MAX {
                    ended.push(id);
                }
            }
            gone.push(id);
        }
        gone
    }

    /// Deletes tokens that were taken out from the store. Those that could not be are kept for another try.
    fn delete_now(&self, gone: &[TokenId]) -> Result<(), Fault> {
        for (done, chunk) in gone.chunks(DELETED_AT_ONCE).enumerate() {
            let writes = chunk.iter().flat_map(|id| [key(*id), wrapping::key(*id)]);
            let writes = writes.map(|key| Write::Delete { key }).collect();
            if let Err(fault) = self.store.commit_now(writes) {
                let left = gone.get(done * DELETED_AT_ONCE..).unwrap_or_default();
                self.undeleted.lock().extend_from_slice(left);
                return Err(fault);
            }
        }
        Ok(())
    }
}
