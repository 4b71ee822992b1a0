//! The responder: which issuer a question is for, what is known of the certificate, and what strangers may cost.
//!
//! Anyone may ask, so what an answer costs is bounded: one without nonce is kept and given again, and no more than so many
//! signatures are made at once, behind everybody else's.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::super::authority::Authority;
use super::super::issuer::Issuer;
use super::super::issuer_usage::IssuerUsage;
use super::super::serial::Serial;
use super::super::x509::X509;
use super::super::{Pki, certificate, crl, extensions, validity};
use super::cache::{Cache, Kept};
use super::{CertId, Refusal, Request, Status, Unsigned};
use crate::config::Limits;
use crate::engine::Call;
use crate::model::{Class, Fault, KeyOperation, Response, Terms};
use crate::telemetry::OcspLabel;

/// The media type of every answer.
pub(in crate::engine::pki) const CONTENT_TYPE: &str = "application/ocsp-response";
/// The least time between two log lines on failures, in seconds: strangers cause them.
const TOLD_EVERY: u64 = 60;

/// What a mount keeps for OCSP.
pub(in crate::engine::pki) struct Responder {
    cache: Cache,
    /// Signatures that may be made at once.
    room: Semaphore,
    /// When a failure was last logged, in Unix seconds.
    told: AtomicU64,
}

/// The issuers that answer, by the digests that name them: name, then key. The hash follows from their length.
#[derive(Clone, Debug, Default)]
pub(in crate::engine::pki) struct Responders(HashMap<Vec<u8>, Arc<Issuer>>);

impl Responder {
    /// One within these limits.
    pub(in crate::engine::pki) fn new(limits: &Limits) -> Responder {
        let (cache, room) = (Cache::new(limits.ocsp_cache_bytes), Semaphore::new(limits.ocsp_signatures));
        Responder { cache, room, told: AtomicU64::new(0) }
    }

    /// Drops what was answered: issuers or settings have changed.
    pub(in crate::engine::pki) fn forget(&self) {
        self.cache.forget();
    }
}

impl Responders {
    /// Those among `issuers` that may answer; of several with the same name and key the first.
    pub(in crate::engine::pki) fn new<'i>(issuers: impl Iterator<Item = &'i Arc<Issuer>>) -> Responders {
        let mut found = HashMap::new();
        let fit = |issuer: &&Arc<Issuer>| {
            issuer.key.is_some() && issuer.record.settings.usage.allow(IssuerUsage::OcspSigning)
        };
        for issuer in issuers.filter(fit) {
            for name in &issuer.certificate.ocsp_names {
                found.entry(name.clone()).or_insert_with(|| Arc::clone(issuer));
            }
        }
        Responders(found)
    }

    /// The one issuer that all of these name.
    fn of(&self, certificates: &[CertId]) -> Option<&Arc<Issuer>> {
        let mut issuers = certificates.iter().map(|id| self.0.get(&[&id.name[..], &id.key].concat()));
        let first = issuers.next()??;
        issuers.all(|issuer| issuer.is_some_and(|issuer| Arc::ptr_eq(issuer, first))).then_some(first)
    }
}

impl Pki {
    /// `GET ocsp/:request`, in base64.
    pub(in crate::engine::pki) async fn ocsp_in_path(
        self: Arc<Self>,
        call: Call,
        text: String,
    ) -> Result<Response, Fault> {
        // What is not base64 is no request either.
        self.ocsp(call, STANDARD.decode(text).unwrap_or_default().into()).await
    }

    /// `POST ocsp`. Whatever the answer, it is OCSP's own: its clients read no other.
    pub(in crate::engine::pki) async fn ocsp(self: Arc<Self>, call: Call, request: Bytes) -> Result<Response, Fault> {
        let (label, body) = match self.ocsp_answer(&call, &request).await {
            Ok(answer) => answer,
            Err(refusal) => (refusal.label(), refusal.encode()?.into()),
        };
        self.telemetry.ocsp_answered(label);
        Ok(Response::Raw { content_type: CONTENT_TYPE, body })
    }

    async fn ocsp_answer(&self, call: &Call, request: &[u8]) -> Result<(OcspLabel, Bytes), Refusal> {
        // Before anything is read that it depends on.
        let generation = self.responder.cache.generation();
        if self.crl_config.load().ocsp_disable {
            return Err(Refusal::Unauthorized);
        }
        let request = Request::parse(request).ok_or(Refusal::Malformed)?;
        let authority = self.authority.load_full();
        let issuer = authority.responders.of(&request.certificates).ok_or(Refusal::Unauthorized)?;
        let now = validity::now();
        if let Some((id, serial)) = request.lasting() {
            let revoked = self.crls.time_by(issuer.signer(), &serial);
            let revoked = revoked.map_err(|fault| self.ocsp_failed(call, issuer, &fault, now))?;
            if let Some(answer) = self.responder.cache.get(&id.der, now, revoked) {
                return Ok((OcspLabel::Kept, answer));
            }
        }
        let _permit = self.responder.room.try_acquire().map_err(|_| Refusal::TryLater)?;
        let signed = self.ocsp_sign(call, &authority, issuer, &request, now).await;
        let (answer, kept) = signed.map_err(|fault| self.ocsp_failed(call, issuer, &fault, now))?;
        if let Some((id, kept)) = request.lasting().map(|(id, _)| id).zip(kept) {
            self.responder.cache.keep(generation, &id.der, kept);
        }
        Ok((OcspLabel::Signed, answer))
    }

    /// A signed answer, and what of it may be kept.
    async fn ocsp_sign(
        &self,
        call: &Call,
        authority: &Authority,
        issuer: &Arc<Issuer>,
        request: &Request,
        now: u64,
    ) -> Result<(Bytes, Option<Kept>), Fault> {
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::OcspSigning)?;
        let states = request.certificates.iter().map(|id| Ok((id, self.status(authority, issuer, id)?)));
        let states = states.collect::<Result<Vec<_>, Fault>>()?;
        let lifetime = self.crl_config.load().ocsp_expiry.seconds;
        let until = (lifetime > 0).then_some(now + lifetime);
        let public_key = &issuer.certificate.public_key;
        let algorithm = crl::crl_algorithm(issuer, &signatory.key)?;
        let identifier = extensions::key_identifier(public_key)?;
        let unsigned = Unsigned::new(algorithm, &identifier, &states, request.nonce.as_deref(), now, until)?;
        let operation = algorithm.operation(&unsigned.data)?;
        // Behind those who have a token.
        let terms = Terms { class: Class::Bulk, deadline: call.deadline };
        let signature = signatory.key.sign(operation.clone(), terms).await?;
        let KeyOperation::Sign { input, .. } = &operation else {
            return Err(Fault::internal("an OCSP answer is signed"));
        };
        if !algorithm.verify_input(public_key, input, &signature)? {
            return Err(certificate::wrong_signature(signatory.key.name(), "an OCSP answer"));
        }
        let answer = unsigned.signed(&signature)?;
        // What is not known is not kept: there is no end of serial numbers that never were.
        let revoked = match states.first() {
            Some((_, Status::Good)) => Some(None),
            Some((_, Status::Revoked(time))) => Some(Some(*time)),
            _ => None,
        };
        let kept = revoked.filter(|_| lifetime > 1);
        let kept = kept.map(|revoked| Kept { answer: answer.clone(), until: now + lifetime / 2, revoked });
        Ok((answer, kept))
    }

    /// What is known of a certificate of `issuer`. One that was never stored is not known, though it may have been issued
    /// (RFC 6960, 2.2): saying "good" would vouch for serial numbers that somebody made up.
    fn status(&self, authority: &Authority, issuer: &Issuer, id: &CertId) -> Result<Status, Fault> {
        let Some(serial) = &id.serial else { return Ok(Status::Unknown) };
        if let Some(time) = self.crls.time_by(issuer.signer(), serial)? {
            return Ok(Status::Revoked(time));
        }
        let is_issued = match self.store.get(&self.records.certificate(serial))? {
            Some(record) => issuer.certificate.is_named_in(&X509::parse(&record.value, "the stored certificate")?),
            // An issuer that was imported is not among the certificates.
            None => authority
                .issuers
                .values()
                .map(|other| &other.certificate.x509)
                .any(|certificate| certificate.serial == *serial && issuer.certificate.is_named_in(certificate)),
        };
        Ok(if is_issued { Status::Good } else { Status::Unknown })
    }

    fn ocsp_failed(&self, call: &Call, issuer: &Issuer, fault: &Fault, now: u64) -> Refusal {
        let told = self.responder.told.load(Ordering::Relaxed);
        let is_due = now.saturating_sub(told) >= TOLD_EVERY;
        if is_due && self.responder.told.compare_exchange(told, now, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            tracing::warn!(
                issuer = %issuer.id(), mount = %call.mount.path, namespace = %call.mount.namespace, %fault,
                "an OCSP request could not be answered; further failures within a minute are not logged"
            );
        }
        if fault.retryable() { Refusal::TryLater } else { Refusal::Internal }
    }
}

impl Request {
    /// The certificate asked for, if the answer may be given to others who ask the same.
    fn lasting(&self) -> Option<(&CertId, Serial)> {
        match &self.certificates[..] {
            [id] if self.nonce.is_none() => id.serial.map(|serial| (id, serial)),
            _ => None,
        }
    }
}

impl Refusal {
    fn label(self) -> OcspLabel {
        match self {
            Refusal::Malformed => OcspLabel::Malformed,
            Refusal::Internal => OcspLabel::Failed,
            Refusal::TryLater => OcspLabel::TryLater,
            Refusal::Unauthorized => OcspLabel::Unauthorized,
        }
    }
}
