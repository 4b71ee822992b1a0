//! The PKI engine: a certificate authority on a managed key. It reads requests, judges them by roles, has certificates and
//! CRLs signed, stores them durably, and only then answers them.
//!
//! One issuer a mount, so far; issuers and keys have UUIDs so that more will fit. What requests need is in snapshots: the
//! hot path reads no store. This room must not know: any wire, who may call, the transit engine, or any key but as a
//! handle.

mod algorithm;
mod allowed;
mod asn1;
mod certificate;
mod crl;
mod csr;
mod extensions;
mod fetch;
mod format;
mod issue;
mod issuer;
mod keys;
mod lint;
mod names;
mod ocsp;
mod paths;
mod pem;
mod publish;
mod rebuild;
mod records;
mod request;
mod revoke;
mod revoked;
mod role;
mod roles;
mod root;
mod san;
mod serial;
mod subject;
mod urls;
mod usage;
mod validity;

#[cfg(test)]
mod software;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::{ArcSwap, ArcSwapOption};
use parking_lot::Mutex;

use super::{Answer, Call, Engine, Services, table};
use crate::model::{CertificateRequest, Data, Fault, Mount, Outcome, PublicKey, Request, Response, Verb};
use crate::store::{Changes, Store, Write};
use crate::telemetry::Telemetry;
use issue::CompiledRole;
use issuer::{Authority, DefaultIssuer, Issuer, IssuerRecord};
use keys::KeySource;
use records::Records;
use revoke::Revocation;
use revoked::Revoked;
use role::Role;
use serial::Serial;
use urls::Urls;

/// Records read from the store at a time when a mount starts.
const LOAD_STEP: usize = 4096;

/// One mount of the PKI engine.
pub struct Pki {
    store: Store,
    telemetry: Telemetry,
    publish_dir: Option<PathBuf>,
    keys: KeySource,
    records: Records,
    /// The issuer and what its leaves have alike.
    authority: ArcSwap<Authority>,
    roles: ArcSwap<HashMap<String, Arc<CompiledRole>>>,
    revoked: Mutex<Revoked>,
    crl: ArcSwapOption<crl::Crl>,
    /// The highest CRL number ever taken.
    crl_number: AtomicU64,
    rebuild: rebuild::Rebuild,
    /// Changes of roles, URLs and the issuer.
    changes: Changes,
    /// Whether what is published may differ from what is stored: at the start, and after a failure.
    publish_due: AtomicBool,
}

/// Makes the engine of a mount, as its records in the store have it.
pub fn new(mount: &Mount, services: &Services) -> Result<Arc<dyn Engine>, Fault> {
    let keys = KeySource::Managed(services.keys.clone());
    let (store, telemetry) = (services.store.clone(), services.telemetry.clone());
    Ok(Pki::load(mount, keys, store, telemetry, services.publish_dir.clone())?)
}

/// The key that a PKCS#10 request (DER) asks a certificate for, if this engine would take the request: well-formed, its
/// key acceptable, its signature good.
pub fn requested_key(csr: &[u8]) -> Result<PublicKey, Fault> {
    csr::Csr::parse(csr).map(|csr| csr.public_key)
}

impl Pki {
    fn load(
        mount: &Mount,
        keys: KeySource,
        store: Store,
        telemetry: Telemetry,
        publish_dir: Option<PathBuf>,
    ) -> Result<Arc<Pki>, Fault> {
        let pki = Pki {
            records: Records::new(mount),
            store,
            telemetry,
            publish_dir,
            keys,
            authority: ArcSwap::default(),
            roles: ArcSwap::default(),
            revoked: Mutex::default(),
            crl: ArcSwapOption::empty(),
            crl_number: AtomicU64::new(0),
            rebuild: rebuild::Rebuild::default(),
            changes: Changes::default(),
            publish_due: AtomicBool::new(true),
        };
        pki.reload_authority()?;
        pki.load_roles()?;
        pki.load_revoked()?;
        pki.load_crl()?;
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

    /// Makes the authority's snapshot anew from the store. Part of a change, or of the start.
    fn reload_authority(&self) -> Result<(), Fault> {
        let store = &self.store;
        let urls = store.read::<Urls>(&self.records.urls())?.unwrap_or_default();
        let issuer = match store.read::<DefaultIssuer>(&self.records.default_issuer())? {
            None => None,
            Some(default) => {
                let record = store.read::<IssuerRecord>(&self.records.issuer(&default.id))?;
                let lost = || Fault::internal(format!("the record of issuer {} is gone", default.id));
                Some(Issuer::from_record(record.ok_or_else(lost)?)?)
            }
        };
        self.authority.store(Arc::new(Authority::new(issuer, urls)?));
        Ok(())
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

    fn load_revoked(&self) -> Result<(), Fault> {
        let mut revoked = self.revoked.lock();
        let mut last: Option<String> = None;
        loop {
            let collection = self.records.collection("revoked");
            let namespace = self.records.namespace();
            let step = self.store.read_all::<Revocation>(namespace, &collection, last.as_deref(), LOAD_STEP)?;
            last = step.last().map(|(name, _)| name.clone());
            for (name, revocation) in step {
                let odd = || Fault::internal(format!("the revocation of {name:?} is of no serial number"));
                revoked.add(Serial::parse(&name).ok_or_else(odd)?, revocation.time)?;
            }
            if last.is_none() {
                return Ok(());
            }
        }
    }

    fn load_crl(&self) -> Result<(), Fault> {
        let authority = self.authority.load();
        let Some(issuer) = &authority.issuer else { return Ok(()) };
        if let Some(record) = self.store.get(&self.records.crl(&issuer.record.id))? {
            let crl = crl::Crl::from_stored(&record)?;
            self.crl_number.store(crl.number, Ordering::Relaxed);
            self.crl.store(Some(Arc::new(crl)));
        }
        Ok(())
    }

    fn read_urls(&self) -> Response {
        Response::data(self.authority.load().urls.show())
    }

    /// `POST config/urls`.
    async fn write_urls(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        self.change(move |pki| {
            let (urls, warnings) = pki.authority.load().urls.updated(&data)?;
            pki.store.commit_now(vec![Write::put_record(pki.records.urls(), &urls)?])?;
            pki.reload_authority()?;
            Ok(Response::with_warnings(urls.show(), warnings))
        })
        .await
    }
}

impl Engine for Pki {
    fn handle(self: Arc<Self>, call: Call, request: Request) -> Answer {
        table::handle(paths::TABLE, self, call, request)
    }

    fn is_public(&self, verb: Verb, path: &str) -> bool {
        table::is_public(paths::TABLE, verb, path)
    }

    fn sign_certificate(self: Arc<Self>, call: Call, request: CertificateRequest) -> Answer {
        Box::pin(async move {
            let answer = self.issue(&call, &request.role, &request.csr, &request.data).await?;
            Ok(Outcome::Certificate(answer.certificate()))
        })
    }

    fn maintain(self: Arc<Self>, call: Call) -> Answer {
        Box::pin(async move {
            let was_due = self.publish_due.swap(false, Ordering::Relaxed);
            if was_due {
                self.publish_certificate(&call).await;
            }
            if self.crl_is_due() {
                self.rebuild_crl(&call).await?;
            } else if was_due {
                self.publish_crl(&call).await;
            }
            Ok(Response::Empty.into())
        })
    }

    fn removal(&self, mount: &Mount) -> Result<Vec<Write>, Fault> {
        let mut writes = self.records.removal(&self.store)?;
        if let Some(issuer) = &self.authority.load().issuer {
            writes.extend(self.keys.drop_use(mount, &issuer.record.managed_key, &root::user(&issuer.record.id)));
        }
        Ok(writes)
    }
}
