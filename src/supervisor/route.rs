//! What a request follows: from a managed key to the lane and the members that have proven to hold it.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::backend::{KeySelector, KeyTemplate, TokenSelector};
use crate::model::{Fault, KeyOperation, Namespace, PublicKey, Secret, Terms};

/// Everything needed to find, prove and serve one managed key.
#[derive(Clone, Debug)]
pub struct KeySpec {
    /// The managed key's UUID.
    pub uuid: String,
    /// Its name, for messages.
    pub name: String,
    /// The namespace it is bound to.
    pub namespace: Namespace,
    /// The KMS library's name.
    pub library: String,
    /// The token.
    pub token: TokenSelector,
    /// The key's own PIN, if it has one.
    pub pin: Option<Secret>,
    /// How to find it.
    pub selector: KeySelector,
    /// What to generate where it is absent; `None` forbids it.
    pub generate: Option<KeyTemplate>,
    /// The public key recorded at first use; a key found must be this one.
    pub recorded: Option<PublicKey>,
    /// Most jobs of this key in flight at once; `None` is no cap.
    pub max_parallel: Option<usize>,
}

/// A key found and proven.
#[derive(Clone, Debug)]
pub struct PreparedKey {
    /// Its public half, to be recorded.
    pub public: PublicKey,
    /// Whether it was generated just now.
    pub generated: bool,
}

/// The way of one managed key's jobs. Shared; follows the members' comings and goings by itself.
#[derive(Debug)]
pub struct KeyRoute {}

impl KeyRoute {
    /// Queues one operation. Refuses at once where the lane is full, the deadline has passed, or no member holds the
    /// key; never waits.
    pub fn submit(&self, _operation: KeyOperation, _terms: &Terms) -> Result<Pending, Fault> {
        Err(Fault::internal("the supervisor is not built yet"))
    }
}

/// A job on its way; answered exactly once. Dropping it takes the job back if no session has started it.
#[derive(Debug)]
pub struct Pending {}

impl Future for Pending {
    type Output = Result<Bytes, Fault>;

    fn poll(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Err(Fault::internal("the supervisor is not built yet")))
    }
}
