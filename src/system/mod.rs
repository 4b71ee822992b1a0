//! The `sys/*` operations, and what belongs to tokens themselves: health, initialisation, mounts, managed keys, status.
//!
//! This room must not know: any wire, or what an engine does; the types of engine there are reach it as data.

mod health;
mod keys;
mod leases;
mod mounts;
mod namespaces;
mod paths;
#[cfg(test)]
mod tests;
mod token;

use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;

use crate::identity::Identity;
use crate::managed_keys::ManagedKeys;
use crate::model::{
    Caller, ConfigurationStatus, Deadline, Fault, LeaseRequest, Mount, Namespace, Outcome, Request, Response, Secret,
    Verb,
};
use crate::namespace::Namespaces;
use crate::store::{Store, Write};

use paths::{Endpoint, find};

/// The Vault API level, for clients that look at it; `ent` in it says that managed keys are to be had.
pub const VAULT_VERSION: &str = "1.21.0+ent.keyway";

/// The future of an answer.
pub type Answer = Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>>;

/// Loads what the store holds into the rooms above it; run once it is initialised.
pub type Load = Arc<dyn Fn() -> Result<(), Fault> + Send + Sync>;

/// The changes that remove an engine's records when its mount is disabled.
pub type Removal = Arc<dyn Fn(&Mount) -> Result<Vec<Write>, Fault> + Send + Sync>;

/// Asks a mount's engine about leases; answered with [`Fault::absent`] where there is none.
pub type Leases = Arc<dyn Fn(LeaseCall) -> Answer + Send + Sync>;

/// What is asked of a mount about leases, and by whom.
#[derive(Clone, Debug)]
pub struct LeaseCall {
    /// The mount.
    pub mount: Arc<Mount>,
    /// Who asks.
    pub caller: Caller,
    /// When the answer stops being of use.
    pub deadline: Deadline,
    /// What.
    pub asked: LeaseRequest,
}

/// What the system operations work on.
pub struct System {
    /// The store, for health and initialisation.
    pub store: Store,
    /// The mount tables.
    pub namespaces: Namespaces,
    /// The tokens.
    pub identity: Identity,
    /// The managed keys.
    pub keys: ManagedKeys,
    /// The engine types a mount may have.
    pub engines: Vec<&'static str>,
    /// Run after initialisation.
    pub load: Load,
    /// Asked when a mount is disabled.
    pub removal: Removal,
    /// Asked about leases.
    pub leases: Leases,
    /// The root token to make at initialisation; a random one if there is none.
    pub root_token: Option<Secret>,
    /// When the daemon started.
    pub started: SystemTime,
    /// What became of the configuration since.
    pub configuration: Arc<ArcSwap<ConfigurationStatus>>,
}

/// One call on the system.
#[derive(Clone, Debug)]
pub struct Call {
    /// The namespace addressed.
    pub namespace: Namespace,
    /// Who asks.
    pub caller: Caller,
    /// When the answer stops being of use.
    pub deadline: Deadline,
}

impl System {
    /// Whether `path` is one of the system's.
    pub fn owns(path: &str) -> bool {
        path.starts_with("sys/") || path.starts_with("auth/token/")
    }

    /// Whether the request is answered without a token, even before initialisation.
    pub fn is_public(request: &Request) -> bool {
        find(&request.path).is_some_and(|(endpoint, _)| endpoint.is_public(request.verb))
    }

    /// Answers a request on one of the system's paths.
    pub fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer {
        Box::pin(async move { self.answer(call, request).await.map(Outcome::Response) })
    }

    async fn answer(&self, call: Call, request: Request) -> Result<Response, Fault> {
        let Some((endpoint, names)) = find(&request.path) else {
            return Err(Fault::NotFound { what: "unsupported path".into() });
        };
        if endpoint.is_in_a_namespace() {
            self.namespaces.require(&call.namespace)?;
        }
        let name = |index: usize| names.get(index).map(String::as_str).unwrap_or_default();
        match (endpoint, request.verb) {
            (Endpoint::Health, Verb::Read) => Ok(self.health(&request.data)),
            (Endpoint::SealStatus, Verb::Read) => Ok(self.seal_status()),
            (Endpoint::Leader, Verb::Read) => Ok(self.leader()),
            (Endpoint::Init, Verb::Read) => Ok(self.init_status()),
            (Endpoint::Init, Verb::Write) => self.init(&call, &request.data).await,
            (Endpoint::Status, Verb::Read) => self.status(&call).await,
            (Endpoint::Namespaces, Verb::List) => self.list_namespaces(&call),
            (Endpoint::Mounts, Verb::Read) => Ok(self.list_mounts(&call)),
            (Endpoint::Mount, Verb::Read) => self.read_mount(&call, name(0)),
            (Endpoint::Mount, Verb::Write) => self.enable(&call, name(0), &request.data).await,
            (Endpoint::Mount, Verb::Delete) => self.disable(&call, name(0)).await,
            (Endpoint::Tune, Verb::Read) => self.read_tuning(&call, name(0)),
            (Endpoint::Tune, Verb::Write) => self.tune(&call, name(0), &request.data).await,
            (Endpoint::UiMounts, Verb::Read) => Ok(self.ui_mounts(&call)),
            (Endpoint::UiMount, Verb::Read) => self.ui_mount(&call, name(0)),
            (Endpoint::ManagedKeys, Verb::List) => self.list_keys(&call, name(0)),
            (Endpoint::ManagedKey, Verb::Read) => self.read_key(&call, name(0), name(1)),
            (Endpoint::ManagedKey, Verb::Write) => self.write_key(&call, name(0), name(1), &request.data).await,
            (Endpoint::ManagedKey, Verb::Delete) => self.delete_key(&call, name(0), name(1)).await,
            (Endpoint::TestSign, Verb::Write) => self.test_sign(&call, name(0), name(1), &request.data).await,
            (Endpoint::LeaseLookup, Verb::Write) => self.lookup_lease(&call, &request.data).await,
            (Endpoint::LeasesBelow, Verb::List) => self.list_leases(&call, name(0)).await,
            (Endpoint::LeaseRenewal, Verb::Write) => self.renew_lease(&call, name(0), &request.data).await,
            (Endpoint::LeaseRevocation, Verb::Write) => self.revoke_lease(&call, name(0), &request.data).await,
            (Endpoint::LeaseRevocations, Verb::Write) => self.revoke_leases(&call, name(0)).await,
            (Endpoint::LookupSelf, Verb::Read) => self.lookup_self(&call),
            _ => Err(Fault::UnsupportedOperation),
        }
    }
}
