//! Answers kept for whoever shows a token that is good once.

use super::token::parse_id;
use super::tokens::{Identity, TOKENS_MAX};
use crate::model::{Fault, Namespace, TokenId};
use crate::store::{RecordKey, Write};

/// The collection of the answers, by the ids of their tokens.
const COLLECTION: &str = "wrapped";
/// Answers deleted by one commit.
const DELETED_AT_ONCE: usize = 4_000;

impl Identity {
    /// At a start: deletes answers whose tokens are gone.
    pub(super) fn sweep_wrapped(&self) -> Result<(), Fault> {
        let names = self.0.store.list(&Namespace::root(), COLLECTION, None, TOKENS_MAX)?;
        let mut lost = Vec::new();
        for name in names {
            let id = parse_id(&name)?;
            if self.0.tokens.pin().get(&id).is_none() {
                lost.push(Write::Delete { key: key(id) });
            }
        }
        lost.chunks(DELETED_AT_ONCE).try_for_each(|chunk| self.0.store.commit_now(chunk.to_vec()))
    }
}

/// The record of the answer that a token holds.
pub(super) fn key(id: TokenId) -> RecordKey {
    RecordKey::new(&Namespace::root(), COLLECTION, hex::encode(id.0))
}
