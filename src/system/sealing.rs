//! Sealing: what ends everything that is built upon the store's keys, asked from inside it.

use std::pin::Pin;
use std::sync::Arc;

use super::{Call, System};
use crate::model::{Fault, Response};

/// Asks whoever keeps the rooms to seal them. It resolves once the keys are wiped, and its asker is not waited for. Whoever
/// leaves before that changes nothing.
pub type Seal = Arc<dyn Fn() -> Sealing + Send + Sync>;

/// The future of [`Seal`].
pub type Sealing = Pin<Box<dyn Future<Output = Result<(), Fault>> + Send>>;

impl System {
    /// Seals the daemon: it answers nothing but its own state until it is unsealed.
    pub(super) async fn seal(&self, call: &Call) -> Result<Response, Fault> {
        if !call.namespace.is_root() {
            return Err(Fault::invalid("operation unavailable in namespaces"));
        }
        let peer = call.caller.peer;
        tracing::warn!(uid = peer.uid, pid = peer.pid, "sealing, as a client asks");
        (self.seal)().await?;
        Ok(Response::Empty)
    }
}
