//! `revoke`, `issuer/:ref/revoke` and `crl/rotate`: revocations are stored first, then put on their issuer's CRL.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::ca_certificate::SignerId;
use super::crls::Whole;
use super::issuer::Issuer;
use super::registry::{DEFAULT, Registry};
use super::revocation::Revocation;
use super::serial::Serial;
use super::x509::X509;
use super::{Pki, pem, validity};
use crate::crypto;
use crate::engine::Call;
use crate::model::{Data, Deadline, Fault, Fields, Response, Secret};
use crate::store::Write;

/// What a client wants revoked.
enum Target {
    Serial(Serial),
    /// A certificate in full, for those of roles with `no_store`.
    Certificate(Vec<u8>),
}

impl Target {
    fn parse(data: &Data) -> Result<(Target, Vec<String>), Fault> {
        let mut fields = Fields::new(data);
        let target = match (fields.filled("serial_number")?, fields.filled("certificate")?) {
            (Some(text), None) => Serial::parse(&text)
                .map(Target::Serial)
                .ok_or_else(|| Fault::invalid(format!("serial_number {text:?} is not a serial number")))?,
            (None, Some(text)) => pem::decode(&text, &[pem::CERTIFICATE])
                .map(Target::Certificate)
                .ok_or_else(|| Fault::invalid("certificate: expected one PEM block \"CERTIFICATE\""))?,
            (None, None) => {
                return Err(Fault::invalid("The serial number or certificate to revoke must be provided."));
            }
            (Some(_), Some(_)) => {
                return Err(Fault::invalid("Must provide either the certificate or the serial to revoke; not both."));
            }
        };
        Ok((target, fields.warnings()))
    }
}

/// Longest PEM of a private key, in bytes: that of an RSA key of 16,384 bits takes 13,000.
const PRIVATE_KEY_MAX: usize = 16 << 10;

/// How long CRLs that were due at a start are waited for once revocations are read.
const REBUILD_TIME: Duration = Duration::from_secs(60);

/// Takes `private_key` out of a request: DER.
fn private_key(data: &mut Data) -> Result<Secret, Fault> {
    let text = match data.remove("private_key") {
        // Wiped when dropped, like what is read of it.
        Some(Value::String(text)) => Secret::new(text),
        _ => Secret::new(Vec::new()),
    };
    if text.is_empty() {
        return Err(Fault::invalid("private_key is empty: expected the certificate's private key in PEM"));
    }
    let text = text.expose_str().filter(|text| text.len() <= PRIVATE_KEY_MAX);
    let der = text.and_then(|text| pem::decode(text.trim(), &pem::PRIVATE_KEYS));
    der.map(Secret::new).ok_or_else(|| {
        Fault::invalid("private_key: expected one PEM block \"PRIVATE KEY\", \"RSA PRIVATE KEY\" or \"EC PRIVATE KEY\"")
    })
}

/// Whether `private` (DER) is a certificate's private key.
fn is_holder(certificate: &X509, private: &Secret) -> Result<bool, Fault> {
    crypto::is_private_half(&crypto::parse_spki(&certificate.spki)?, private.expose())
}

/// Whether a request shows the private key of the certificate that it gives in full.
pub(super) fn shows_key(mut data: Data) -> Result<bool, Fault> {
    let private = private_key(&mut data)?;
    match Target::parse(&data)?.0 {
        Target::Certificate(der) => is_holder(&X509::parse(&der, "the certificate")?, &private),
        Target::Serial(_) => Ok(false),
    }
}

/// A certificate to revoke, and who issued it.
struct Found {
    certificate: X509,
    is_stored: bool,
    issuer: Arc<Issuer>,
}

impl Pki {
    /// `POST revoke`.
    pub(super) async fn revoke(self: &Arc<Self>, call: &Call, data: &Data) -> Result<Response, Fault> {
        let (target, warnings) = Target::parse(data)?;
        let found = self.find(target)?;
        self.revoke_found(call, found, warnings).await
    }

    /// `POST revoke-with-key`: whoever shows a certificate's private key may have it revoked. The key is wiped.
    pub(super) async fn revoke_with_key(self: &Arc<Self>, call: &Call, mut data: Data) -> Result<Response, Fault> {
        let private = private_key(&mut data)?;
        let (target, warnings) = Target::parse(&data)?;
        let found = self.find(target)?;
        if !is_holder(&found.certificate, &private)? {
            return Err(Fault::invalid(format!(
                "private_key is not that of the certificate with serial {}",
                found.certificate.serial
            )));
        }
        self.revoke_found(call, found, warnings).await
    }

    async fn revoke_found(
        self: &Arc<Self>,
        call: &Call,
        found: Found,
        warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        let serial = found.certificate.serial;
        let authority = self.authority.load_full();
        let is_it = |issuer: &&Arc<Issuer>| issuer.certificate.x509.der == found.certificate.der;
        if let Some(issuer) = authority.issuers.values().find(is_it) {
            return Err(Fault::invalid(format!(
                "adding issuer ({}) to its own CRL is not allowed: revoke an issuer with issuer/:issuer_ref/revoke",
                issuer.id()
            )));
        }
        if let Some(time) = self.crls.time(&serial)? {
            return self.revoked_answer(call, &found.issuer, time, warnings).await;
        }
        if found.certificate.not_after < validity::now() {
            let warning = format!("certificate with serial {serial} already expired; refusing to add to CRL");
            return Ok(Response::with_warnings(Data::new(), vec![warning]));
        }
        let time = self.store_revocation(call, &found).await?;
        self.revoked_answer(call, &found.issuer, time, warnings).await
    }

    /// Revokes those of these that are stored, in force and not revoked, and notes their issuers, whose CRLs do not say so yet.
    /// Tells of each: one whose issuer is gone keeps no other from being revoked.
    pub(super) async fn revoke_all(
        &self,
        call: &Call,
        serials: &[Serial],
        issuers: &mut Vec<Arc<Issuer>>,
    ) -> Vec<Result<(), Fault>> {
        let mut found = Vec::with_capacity(serials.len());
        for serial in serials {
            tokio::task::yield_now().await;
            found.push(self.find_in_force(serial));
        }
        let revoke = async |found: &Result<Option<Found>, Fault>| match found {
            Ok(Some(found)) => self.store_revocation(call, found).await.map(drop),
            Ok(None) => Ok(()),
            Err(fault) => Err(fault.clone()),
        };
        let done = join_all(found.iter().map(revoke)).await;
        for (found, stored) in found.into_iter().zip(&done) {
            if let (Ok(Some(found)), Ok(())) = (found, stored)
                && issuers.iter().all(|known| known.signer() != found.issuer.signer())
            {
                issuers.push(found.issuer);
            }
        }
        done
    }

    /// A certificate that is stored, in force and not revoked.
    fn find_in_force(&self, serial: &Serial) -> Result<Option<Found>, Fault> {
        if self.crls.time(serial)?.is_some() || self.store.get(&self.records.certificate(serial))?.is_none() {
            return Ok(None);
        }
        let found = self.find(Target::Serial(*serial))?;
        Ok(Some(found).filter(|found| found.certificate.not_after >= validity::now()))
    }

    /// Stores a revocation; answers its time, which is an earlier one if another request was first.
    async fn store_revocation(&self, call: &Call, found: &Found) -> Result<u64, Fault> {
        let Found { certificate, is_stored, issuer } = found;
        let whole = self.crls.whole_by(call.deadline).await?;
        let entries_max = self.crl_config.load().entries_max();
        if self.crls.of(issuer.signer()).revoked(whole).len() >= entries_max {
            return Err(Fault::invalid(format!(
                "issuer {} has revoked {entries_max} certificates, as many as max_crl_entries allows: raise that with \
                 config/crl",
                issuer.id()
            )));
        }
        let (serial, now) = (certificate.serial, validity::now());
        let revocation = Revocation {
            time: now,
            issuer: issuer.id().to_owned(),
            signer: issuer.signer().clone(),
            not_after: Some(certificate.not_after),
        };
        let mut writes = vec![Write::create_record(self.records.revocation(&serial), &revocation)?];
        if !is_stored {
            let value = certificate.der.to_vec();
            writes.push(Write::Put { key: self.records.certificate(&serial), version: 1, value });
        }
        let time = match self.store.commit(writes).await {
            Ok(()) => {
                if !is_stored {
                    self.counts.stored(&serial);
                }
                now
            }
            Err(Fault::InvalidRequest { .. }) => self.stored_time(&serial)?,
            Err(fault) => return Err(fault),
        };
        self.crls.of(issuer.signer()).revoked(whole).add(serial, time)?;
        self.telemetry.certificate_revoked();
        tracing::info!(
            serial = %serial, issuer = %issuer.id(), mount = %call.mount.path, namespace = %call.mount.namespace,
            uid = call.caller.peer.uid, pid = call.caller.peer.pid, "certificate revoked"
        );
        Ok(time)
    }

    /// `POST issuer/:ref/revoke`: the issuer issues no more, and if another issuer of the mount signed it, that one's CRL
    /// says so.
    pub(super) async fn revoke_issuer(self: Arc<Self>, call: Call, reference: String) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let issuer = Arc::clone(authority.issuer(&reference)?);
        let mut warnings = Vec::new();
        let signer = authority.issuer_of(&issuer.certificate.x509)?.filter(|signer| signer.signer() != issuer.signer());
        if let Some(signer) = signer {
            let serial = issuer.certificate.x509.serial;
            if self.crls.time(&serial)?.is_none() {
                let is_stored = self.store.get(&self.records.certificate(&serial))?.is_some();
                let certificate = issuer.certificate.x509.clone();
                let found = Found { certificate, is_stored, issuer: Arc::clone(signer) };
                self.store_revocation(&call, &found).await?;
            }
            warnings.extend(self.crl_if_due(&call, signer).await);
        }
        let (id, now) = (issuer.id().to_owned(), validity::now());
        let mark = move |registry: &mut Registry| {
            // Once and for all: its time stays what it was.
            registry.update_issuer(&id, |record| record.revoked = record.revoked.or(Some(now)))
        };
        self.edit(&call, mark).await?;
        tracing::info!(
            issuer = %issuer.id(), mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "issuer revoked"
        );
        let authority = self.authority.load();
        Ok(Response::with_warnings(authority.issuer(issuer.id())?.show(), warnings))
    }

    /// `crl/rotate`: a new CRL of every issuer that signs them.
    pub(super) async fn rotate_crls(self: &Arc<Self>, call: &Call) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        if authority.issuers.is_empty() {
            authority.issuer(DEFAULT)?;
        }
        for signer in authority.crl_signers() {
            self.rebuild_crl(call, signer).await?;
        }
        Ok(success())
    }

    /// `crl/rotate-delta`: a new delta CRL of every issuer that signs CRLs.
    pub(super) async fn rotate_delta_crls(self: &Arc<Self>, call: &Call) -> Result<Response, Fault> {
        if !self.crl_config.load().enable_delta {
            return Err(Fault::invalid("this mount makes no delta CRLs: enable_delta is not set in config/crl"));
        }
        let authority = self.authority.load_full();
        for signer in authority.crl_signers() {
            self.make_delta_crl(call, signer).await?;
        }
        Ok(success())
    }

    /// Has every CRL made that is due by the clock; while revocations are being read, behind this request.
    pub(super) async fn keep_crls(self: &Arc<Self>, call: &Call) -> Result<(), Fault> {
        // Again, if it failed.
        self.crls.begin();
        if let Some(whole) = self.crls.whole() {
            return self.rebuild_due_crls(call, whole).await;
        }
        let (pki, call) = (Arc::clone(self), call.clone());
        tokio::spawn(async move {
            if let Ok(whole) = pki.crls.whole_by(call.deadline).await {
                let call = Call { deadline: Deadline::after(REBUILD_TIME), ..call };
                // One that fails is logged, and is still due the next time.
                let _ = pki.rebuild_due_crls(&call, whole).await;
            }
        });
        Ok(())
    }

    /// One that cannot be made stops no other.
    async fn rebuild_due_crls(self: &Arc<Self>, call: &Call, whole: Whole) -> Result<(), Fault> {
        let authority = self.authority.load_full();
        let mut outcome = Ok(());
        for signer in authority.crl_signers() {
            let (own, config) = (self.crls.of(signer), self.crl_config.load_full());
            if own.is_due(&config, whole) {
                outcome = outcome.and(self.rebuild_crl(call, signer).await);
            } else if own.is_delta_due(&config, whole) {
                outcome = outcome.and(self.make_delta_crl(call, signer).await);
            }
        }
        outcome
    }

    /// Has a CRL of a signer made that is begun from now on, together with all who ask at this time. It is made to its end
    /// even if nobody waits any more.
    pub(super) async fn rebuild_crl(self: &Arc<Self>, call: &Call, signer: &SignerId) -> Result<(), Fault> {
        // Before it joins: the round it waits for sees it.
        self.crls.of(signer).wants_complete.store(true, Ordering::Relaxed);
        self.make_delta_crl(call, signer).await
    }

    /// The same with a delta CRL alone, unless somebody wants more.
    async fn make_delta_crl(self: &Arc<Self>, call: &Call, signer: &SignerId) -> Result<(), Fault> {
        let own = self.crls.of(signer);
        let joined = own.rebuild.join();
        if joined.must_start {
            let (pki, call, signer) = (Arc::clone(self), call.clone(), signer.clone());
            tokio::spawn(async move {
                while let Some(round) = own.rebuild.round() {
                    let outcome = pki.make_crls(&call, &signer, &own).await;
                    if let Err(fault) = &outcome {
                        tracing::error!(
                            ?signer, mount = %call.mount.path, namespace = %call.mount.namespace, %fault,
                            "the CRL could not be made; the last one is still served, and it is tried again within a minute"
                        );
                    }
                    round.answer(&outcome);
                }
            });
        }
        let deadline = Deadline::instant(call.deadline).into();
        match tokio::time::timeout_at(deadline, joined.answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(Fault::Unavailable { what: "the CRL was not finished: the daemon is stopping".into() }),
            Err(_) => Err(Fault::DeadlineExceeded { stage: "waiting for the CRL" }),
        }
    }

    /// Has the CRL of `issuer`'s signer made if it is due. Answers a warning if it could not be.
    pub(super) async fn crl_if_due(self: &Arc<Self>, call: &Call, issuer: &Arc<Issuer>) -> Option<String> {
        let not_yet = |fault: Fault| {
            format!(
                "the certificate is revoked, but the CRL could not be made yet ({fault}); it is tried again by itself"
            )
        };
        let whole = match self.crls.whole_by(call.deadline).await {
            Ok(whole) => whole,
            Err(fault) => return Some(not_yet(fault)),
        };
        if !self.crls.of(issuer.signer()).is_due(&self.crl_config.load(), whole) {
            return None;
        }
        if self.authority.load().crl_issuer(issuer.signer()).is_none() {
            return Some(format!(
                "the certificate is revoked, but no CRL says so: issuer {} has no key here or not the usage crl-signing",
                issuer.id()
            ));
        }
        self.rebuild_crl(call, issuer.signer()).await.err().map(not_yet)
    }

    async fn revoked_answer(
        self: &Arc<Self>,
        call: &Call,
        issuer: &Arc<Issuer>,
        time: u64,
        mut warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        // Also for one revoked before: it may have missed its CRL.
        warnings.extend(self.crl_if_due(call, issuer).await);
        let value = json!({
            "revocation_time": time,
            "revocation_time_rfc3339": validity::rfc3339(time),
            "state": "revoked",
        });
        Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), warnings))
    }

    /// The certificate meant, whether it is stored, and which issuer of this mount signed it.
    fn find(&self, target: Target) -> Result<Found, Fault> {
        let (serial, given) = match target {
            Target::Serial(serial) => (serial, None),
            Target::Certificate(der) => {
                let certificate = X509::parse(&der, "the certificate")?;
                (certificate.serial, Some(certificate))
            }
        };
        let stored = self.store.get(&self.records.certificate(&serial))?;
        let is_stored = stored.is_some();
        let certificate = match (given, stored) {
            // What is given counts: it must be the very one that is stored.
            (Some(given), Some(stored)) if given.der == stored.value => given,
            (Some(given), None) => given,
            (Some(_), Some(_)) => {
                return Err(Fault::invalid(format!("the certificate is not the one issued here with serial {serial}")));
            }
            (None, Some(stored)) => X509::parse(&stored.value, "the stored certificate")?,
            (None, None) => return Err(Fault::invalid(format!("certificate with serial {serial} not found."))),
        };
        let authority = self.authority.load_full();
        if authority.issuers.is_empty() {
            authority.issuer(DEFAULT)?;
        }
        let issuer = authority.issuer_of(&certificate)?.ok_or_else(|| match is_stored {
            true => Fault::invalid(format!(
                "the issuer of the certificate with serial {serial} is no longer on this mount: import its certificate again"
            )),
            false => Fault::invalid("the certificate was not issued by this mount's issuers"),
        })?;
        Ok(Found { certificate, is_stored, issuer: Arc::clone(issuer) })
    }

    /// The time of a revocation that another request was first to store.
    fn stored_time(&self, serial: &Serial) -> Result<u64, Fault> {
        let stored = self.store.read::<Revocation>(&self.records.revocation(serial))?;
        let lost = || Fault::internal(format!("the revocation of {serial} is neither stored nor can it be"));
        stored.map(|revocation| revocation.time).ok_or_else(lost)
    }
}

fn success() -> Response {
    let mut data = Data::new();
    data.insert("success".into(), true.into());
    Response::data(data)
}
