//! What `issue` and `sign` mean. An engine owns the table of its paths below a mount, its records, and nothing else: it
//! is given the mount, a store and managed keys as handles.
//!
//! This room must not know: any wire, who may call (that was judged before), or another engine.

mod batch_room;
mod cpu;
mod hold;
mod name;
pub mod pki;
pub mod registry;
mod table;
pub mod transit;

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::Limits;
use crate::managed_keys::ManagedKeys;
pub use crate::managed_keys::together;
use crate::model::{
    Caller, CertificateRequest, CertificatesRequest, Class, Deadline, DecryptRequest, EncryptRequest, Fault,
    LeaseRequest, MacRequest, Mount, Namespace, Outcome, Request, SignRequest, Terms, TokenId, Verb, VerifyRequest,
};
use crate::store::Store;
use crate::telemetry::Telemetry;
pub use batch_room::BatchRooms;
pub use cpu::CpuPool;
pub use hold::holding;

/// The future of an engine's answer.
pub type Answer = Pin<Box<dyn Future<Output = Result<Outcome, Fault>> + Send>>;

/// One call on an engine: through which mount, by whom, and under which terms.
#[derive(Clone, Debug)]
pub struct Call {
    /// The mount, with its settings as they are now.
    pub mount: Arc<Mount>,
    /// Who asks.
    pub caller: Caller,
    /// When the answer stops being of use.
    pub deadline: Deadline,
    /// How urgent it is.
    pub class: Class,
}

impl Call {
    /// The terms of a job on behalf of this call.
    pub fn terms(&self) -> Terms {
        Terms { class: self.class, deadline: self.deadline }
    }
}

/// Tokens that are gone.
#[derive(Clone)]
pub enum GoneTokens {
    /// These.
    These(Arc<[TokenId]>),
    /// All but those of which this says that they are there.
    AllBut(Arc<dyn Fn(TokenId) -> bool + Send + Sync>),
}

/// What an engine is built from.
#[derive(Clone)]
pub struct Services {
    /// Where its records go, under collections that begin with the mount's UUID.
    pub store: Store,
    /// The keys it may plug into.
    pub keys: ManagedKeys,
    /// Where it counts.
    pub telemetry: Telemetry,
    /// The bounds in force.
    pub limits: Limits,
    /// For work that keeps a CPU busy for long.
    pub cpu: CpuPool,
    /// For the items of batches.
    pub batches: BatchRooms,
    /// The folder CA certificates and CRLs are published below, if configured.
    pub publish_dir: Option<PathBuf>,
}

impl Services {
    /// The namespace is gone, and no engine of it works any more: nothing of it is kept outside of the store, nor published.
    /// Blocks for the disk.
    pub fn forget(&self, namespace: &Namespace) -> std::io::Result<()> {
        self.batches.forget(namespace);
        self.publish_dir.as_deref().map_or(Ok(()), |root| pki::unpublish(root, namespace))
    }
}

/// One mounted engine.
pub trait Engine: Send + Sync {
    /// Answers a generic request. `request.path` is relative to the mount.
    fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer;

    /// Whether this path is answered without a token (`ca`, `crl`).
    fn is_public(&self, _verb: Verb, _path: &str) -> bool {
        false
    }

    /// Whether policies must grant `sudo` for this path, too.
    fn needs_sudo(&self, _verb: Verb, _path: &str) -> bool {
        false
    }

    /// Whether what a write to this path is about is there, where that decides between the capabilities `create` and
    /// `update`. Else a write is an update.
    fn exists(&self, _path: &str) -> Option<bool> {
        None
    }

    /// Whether this path is answered whatever quotas say (`crl`, `revoke`).
    fn is_unlimited(&self, _verb: Verb, _path: &str) -> bool {
        false
    }

    /// The hot operation sign.
    fn sign(self: Arc<Self>, _call: Call, _request: SignRequest) -> Answer {
        unsupported("sign")
    }

    /// The same where all that comes before its key is asked is done at once, so that nothing that threads share is held, and
    /// counted, for it, not even the engine: that says by [`Engine::is_under_way`] whether any goes on. Hands back what takes
    /// longer.
    fn sign_at_once(&self, _mount: &Mount, _terms: Terms, request: SignRequest) -> Result<Answer, SignRequest> {
        Err(request)
    }

    /// Whether something that was begun at once has not ended.
    fn is_under_way(&self) -> bool {
        false
    }

    /// The hot operation verify.
    fn verify(self: Arc<Self>, _call: Call, _request: VerifyRequest) -> Answer {
        unsupported("verify")
    }

    /// The hot operation encrypt.
    fn encrypt(self: Arc<Self>, _call: Call, _request: EncryptRequest) -> Answer {
        unsupported("encrypt")
    }

    /// The hot operation decrypt.
    fn decrypt(self: Arc<Self>, _call: Call, _request: DecryptRequest) -> Answer {
        unsupported("decrypt")
    }

    /// The hot operation MAC.
    fn mac(self: Arc<Self>, _call: Call, _request: MacRequest) -> Answer {
        unsupported("mac")
    }

    /// The hot operation sign certificate.
    fn sign_certificate(self: Arc<Self>, _call: Call, _request: CertificateRequest) -> Answer {
        unsupported("sign certificate")
    }

    /// The hot operation sign certificate, for many requests at once.
    fn sign_certificates(self: Arc<Self>, _call: Call, _request: CertificatesRequest) -> Answer {
        unsupported("sign certificates")
    }

    /// What is asked about leases of this mount; answered with [`Fault::absent`] where there is none.
    fn lease(self: Arc<Self>, _call: Call, _asked: LeaseRequest) -> Answer {
        Box::pin(async { Err(Fault::absent()) })
    }

    /// Ends the leases that were made with tokens which are gone.
    fn end_leases_of(self: Arc<Self>, _call: Call, _gone: GoneTokens) -> Answer {
        Box::pin(async { Ok(crate::model::Response::Empty.into()) })
    }

    /// Does what is due by the clock (a CRL that runs out). Called about once a minute, and once at start.
    fn maintain(self: Arc<Self>, _call: Call) -> Answer {
        Box::pin(async { Ok(crate::model::Response::Empty.into()) })
    }

    /// Stops what it does behind requests, and begins no more of it: the daemon drains.
    fn stop(&self) {}

    /// Stops for good: its mount is gone. May be called again.
    fn close(&self, _mount: &Mount) {
        self.stop();
    }

    /// The changes that remove this mount's records, made once nothing leads to the mount any more.
    fn removal(&self, mount: &Mount) -> Result<Vec<crate::store::Write>, Fault>;
}

fn unsupported(what: &'static str) -> Answer {
    Box::pin(async move { Err(Fault::NotSupported { what: format!("{what} on a mount of this type") }) })
}

/// Makes an engine for a mount.
pub type Factory = fn(mount: &Mount, services: &Services) -> Result<Arc<dyn Engine>, Fault>;
