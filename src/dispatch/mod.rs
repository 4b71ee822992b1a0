//! Admit, authorize, run, observe, audit: what happens to every operation, whichever wire it came by.
//!
//! This room must not know: any wire, or what an engine does.

use std::sync::Arc;
use std::time::Duration;

use crate::engine::Answer;
use crate::model::{Caller, Fault, Namespace, Operation, Secret, TokenId};

/// What the front sees of the rest of the daemon.
pub trait Door: Send + Sync + 'static {
    /// The keyed hash a token is looked up by. Says nothing of whether the token is good.
    fn identify(&self, token: &Secret) -> TokenId;

    /// Whether this caller may come in at all: its token is good, the namespace exists. For the framed Hello only; every
    /// operation is judged anew.
    fn welcome(&self, caller: &Caller, namespace: &Namespace) -> Result<(), Fault>;

    /// Splits a request path into the namespace it addresses (below the header's) and the rest.
    fn locate<'p>(&self, header: Option<&str>, path: &'p str) -> (Namespace, &'p str);

    /// The deadline span of a request that asks for `wanted`: the default without one, never above the maximum.
    fn deadline(&self, wanted: Option<Duration>) -> Duration;

    /// Runs one operation. The future is answered exactly once.
    fn run(self: Arc<Self>, operation: Operation) -> Answer;
}
