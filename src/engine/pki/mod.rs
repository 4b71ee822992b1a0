//! The PKI engine: a certificate authority on a managed key. It reads requests, judges them by roles, has certificates and
//! CRLs signed, stores them durably, and only then answers them.
//!
//! A mount has issuers and keys, found by id, name or `default`: `registry` is what is stored of them, `authority` the
//! snapshot that requests read; the hot path reads no store. A `signatory` is an issuer found fit to sign; certificates go
//! through the types of `certificate`, in whose order alone one comes about. Each signer has its CRL, in `crls`. This room
//! must not know: any wire, who may call, the transit engine, or any key but as a handle.

mod algorithm;
mod allowed;
mod asn1;
mod authority;
mod batch;
mod ca_certificate;
mod ca_fields;
mod ca_key;
mod certificate;
mod chain;
mod cluster;
mod compiled_role;
mod crl;
mod crl_config;
mod crls;
mod csr;
mod defaults;
mod edit;
mod extensions;
mod fetch;
mod fields;
mod foreign_crl;
mod format;
mod fresh;
mod import;
mod intents;
mod intermediate;
mod issue;
mod issuer;
mod issuer_usage;
mod issuers;
mod key;
mod keys;
mod leaf;
mod lease;
mod lint;
pub mod measure;
mod name_constraints;
mod names;
mod ocsp;
mod paths;
mod pem;
mod policy_identifiers;
mod private_key;
mod publish;
mod rebuild;
mod records;
mod registry;
mod request;
mod requested;
mod revocation;
mod revoke;
mod revoked;
mod role;
mod roles;
mod root;
mod san;
mod self_issued;
mod serial;
mod sign;
mod sign_crl;
mod sign_intermediate;
mod signatory;
mod signing_key;
mod strangers;
mod subject;
mod tidy;
mod upgrade;
mod urls;
mod usage;
mod validity;
mod verbatim;
mod x509;

#[cfg(test)]
mod software;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arc_swap::ArcSwap;

use super::batch_room::BatchRoom;
use super::{Answer, Call, CpuPool, Engine, GoneTokens, Services, table};
use crate::config::Limits;
use crate::model::{
    CertificateRequest, CertificatesRequest, EngineType, Fault, LeaseRequest, Mount, Outcome, Request, Response, Verb,
};
use crate::store::{Changes, Store, Write};
use crate::telemetry::Telemetry;
use authority::Authority;
use compiled_role::CompiledRole;
use crl_config::CrlConfig;
use crls::Crls;
use intents::Intents;
use ocsp::Responder;
pub use publish::unpublish;
use records::Records;
use request::SignFields;
use role::Role;
use signing_key::KeySource;
pub use strangers::{holds_key_of, imported_certificates, is_ocsp_request, pem_request, requested_key};
use tidy::{AutoTidy, Counts, LastTidy, Tidy};

/// Records read from the store at a time when a mount starts.
const LOAD_STEP: usize = 4096;

/// One mount of the PKI engine.
pub struct Pki {
    store: Store,
    telemetry: Telemetry,
    publish_dir: Option<PathBuf>,
    keys: KeySource,
    /// Where keys for clients are made.
    cpu: CpuPool,
    records: Records,
    intents: Intents,
    /// The issuers, ready to issue.
    authority: ArcSwap<Authority>,
    roles: ArcSwap<HashMap<String, Arc<CompiledRole>>>,
    crls: Crls,
    crl_config: ArcSwap<CrlConfig>,
    responder: Responder,
    tidy: Tidy,
    auto_tidy: ArcSwap<AutoTidy>,
    counts: Counts,
    /// Changes of roles, URLs, issuers and keys.
    changes: Changes,
    /// Whether there may be leases that were made with tokens. Most mounts have none, and are not looked through when one ends.
    has_leases_of_tokens: AtomicBool,
    /// Whether what is published may differ from what is stored: at the start, and after a failure.
    publish_due: AtomicBool,
    /// The most requests of one batch.
    batch_items: usize,
    /// Those of one batch that are signed at once.
    batch_room: BatchRoom,
}

/// What can be asked of an engine of this type.
pub fn describe(name: &'static str) -> EngineType {
    EngineType { name, endpoints: table::endpoints(paths::TABLE), parts: fields::PARTS }
}

/// Makes the engine of a mount, as its records in the store have it.
pub fn new(mount: &Mount, services: &Services) -> Result<Arc<dyn Engine>, Fault> {
    let keys = KeySource::Managed(services.keys.clone());
    let (store, telemetry) = (services.store.clone(), services.telemetry.clone());
    let shared = (services.cpu.clone(), services.batches.of(&mount.namespace));
    let pki = Pki::load(mount, keys, store, telemetry, shared, services.publish_dir.clone(), &services.limits)?;
    pki.crls.begin();
    Ok(pki)
}

impl Pki {
    /// All but the revocations, which are then to be read.
    fn load(
        mount: &Mount,
        keys: KeySource,
        store: Store,
        telemetry: Telemetry,
        (cpu, batch_room): (CpuPool, BatchRoom),
        publish_dir: Option<PathBuf>,
        limits: &Limits,
    ) -> Result<Arc<Pki>, Fault> {
        let records = Records::new(mount);
        upgrade::run(mount, &keys, &store, &records)?;
        intents::settle(&store, &records, &mount.path)?;
        let authority = Authority::load(&store, &records)?;
        let crls = Crls::open(mount, &store, &records)?;
        let crl_config = store.read::<CrlConfig>(&records.crl_config())?.unwrap_or_default();
        let last_tidy = store.read::<LastTidy>(&records.last_tidy())?.unwrap_or_default();
        let auto_tidy = store.read::<AutoTidy>(&records.auto_tidy())?.unwrap_or_default();
        let pki = Pki {
            intents: Intents::new(&store, &records, &mount.path),
            records,
            store,
            telemetry,
            publish_dir,
            keys,
            cpu,
            authority: ArcSwap::from_pointee(authority),
            roles: ArcSwap::default(),
            crls,
            crl_config: ArcSwap::from_pointee(crl_config),
            responder: Responder::new(limits),
            tidy: Tidy::new(last_tidy.time),
            counts: Counts::new(&auto_tidy),
            auto_tidy: ArcSwap::from_pointee(auto_tidy),
            changes: Changes::default(),
            has_leases_of_tokens: AtomicBool::new(true),
            publish_due: AtomicBool::new(true),
            batch_items: limits.batch_items,
            batch_room,
        };
        pki.load_roles()?;
        Ok(Arc::new(pki))
    }

    /// Runs a change of records and of the snapshot of them: after those before it, to its end even if its asker leaves.
    async fn change<T: Send + 'static>(
        self: Arc<Self>,
        change: impl FnOnce(&Pki) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (changes, namespace) = (self.changes.clone(), self.records.namespace().clone());
        changes.run(&namespace, move || change(&self)).await
    }

    fn load_roles(&self) -> Result<(), Fault> {
        let mut roles = HashMap::new();
        let mut last: Option<String> = None;
        loop {
            let collection = self.records.collection("roles");
            let namespace = self.records.namespace();
            let step = self.store.read_all::<Role>(namespace, &collection, last.as_deref(), LOAD_STEP)?;
            last = step.last().map(|(name, _)| name.clone());
            for (name, role) in step {
                roles.insert(name, Arc::new(CompiledRole::new(role)?));
            }
            if last.is_none() {
                break;
            }
        }
        self.roles.store(Arc::new(roles));
        Ok(())
    }
}

impl Engine for Pki {
    fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer {
        table::handle(paths::TABLE, self, call, request)
    }

    fn is_public(&self, verb: Verb, path: &str) -> bool {
        table::is_public(paths::TABLE, verb, path)
    }

    fn needs_sudo(&self, verb: Verb, path: &str) -> bool {
        table::needs_sudo(paths::TABLE, verb, path)
    }

    fn is_unlimited(&self, verb: Verb, path: &str) -> bool {
        table::is_unlimited(paths::TABLE, verb, path)
    }

    fn sign_certificate(self: Arc<Self>, call: Call, request: CertificateRequest) -> Answer {
        Box::pin(async move {
            let fields = SignFields::parse(&request.data, None, &sign::ELSEWHERE)?;
            let answer = self.sign_request(&call, None, &request.role, &request.csr, fields).await?;
            Ok(Outcome::Certificate(answer.certificate()))
        })
    }

    fn sign_certificates(self: Arc<Self>, call: Call, request: CertificatesRequest) -> Answer {
        Box::pin(self.sign_requests(call, request))
    }

    fn lease(self: Arc<Self>, call: Call, asked: LeaseRequest) -> Answer {
        table::to_the_end(self.answer_lease(call, asked))
    }

    fn end_leases_of(self: Arc<Self>, call: Call, gone: GoneTokens) -> Answer {
        if matches!(gone, GoneTokens::These(_)) && !self.has_leases_of_tokens.load(Ordering::Relaxed) {
            return Box::pin(async { Ok(Response::Empty.into()) });
        }
        table::to_the_end(self.end_leases_of_gone(call, gone))
    }

    fn maintain(self: Arc<Self>, call: Call) -> Answer {
        Box::pin(async move {
            if self.publish_due.swap(false, Ordering::Relaxed) {
                self.publish_all(&call).await;
            }
            self.keep_counts(&call);
            let begun = self.tidy_if_due(&call).await;
            let dropped = self.drop_ended_leases().await;
            let noted = self.note_doubts().await;
            self.keep_crls(&call).await.and(begun).and(dropped).and(noted)?;
            Ok(Response::Empty.into())
        })
    }

    fn stop(&self) {
        self.tidy.stop();
        self.crls.stop();
    }

    fn close(&self, mount: &Mount) {
        self.stop();
        self.telemetry.stored(&mount.namespace.to_string(), &mount.path, None);
    }

    fn removal(&self, mount: &Mount) -> Result<Vec<Write>, Fault> {
        self.close(mount);
        let mut writes = self.records.removal(&self.store)?;
        for (id, key) in &self.authority.load().registry.keys {
            writes.extend(self.keys.drop_use(mount, &key.record.managed_key, &key::user(id)));
        }
        Ok(writes)
    }
}
