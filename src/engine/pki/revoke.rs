//! `revoke` and `crl/rotate`: revocations are stored first, then put on a CRL.

use std::sync::Arc;

use bytes::Bytes;
use der::Decode;
use der::asn1::BitStringRef;
use serde::{Deserialize, Serialize};
use serde_json::json;
use spki::AlgorithmIdentifierRef;
use x509_cert::Certificate;

use super::algorithm::SignatureAlgorithm;
use super::asn1::encode;
use super::csr::split;
use super::issuer::Issuer;
use super::revoked::REVOKED_MAX;
use super::serial::Serial;
use super::{Pki, pem, validity};
use crate::engine::Call;
use crate::model::{Data, Deadline, Fault, Fields, Response};
use crate::store::{Versioned, Write};

/// What is stored of a revocation.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Revocation {
    /// Unix seconds.
    pub(super) time: u64,
}

impl Versioned for Revocation {
    const VERSION: u16 = 1;
}

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

impl Pki {
    /// `POST revoke`.
    pub(super) async fn revoke(self: &Arc<Self>, call: &Call, data: &Data) -> Result<Response, Fault> {
        let (target, warnings) = Target::parse(data)?;
        let authority = self.authority.load_full();
        let issuer = authority.issuer()?;
        let (serial, certificate, is_stored) = self.find(issuer, target)?;
        if serial == issuer.serial {
            return Err(Fault::invalid(format!(
                "adding issuer ({}) to its own CRL is not allowed: issuers cannot be revoked here",
                issuer.record.id
            )));
        }
        let revoked_before = self.revoked.lock().time(&serial);
        if let Some(time) = revoked_before {
            return self.revoked_answer(call, time, warnings).await;
        }
        let now = validity::now();
        let ends = certificate.tbs_certificate().validity().not_after.to_unix_duration().as_secs();
        if ends < now {
            let warning = format!("certificate with serial {serial} already expired; refusing to add to CRL");
            return Ok(Response::with_warnings(Data::new(), vec![warning]));
        }
        if self.revoked.lock().len() >= REVOKED_MAX {
            return Err(Fault::invalid(format!(
                "this mount has revoked {REVOKED_MAX} certificates, as many as a CRL holds: issue from a new mount"
            )));
        }
        let mut writes = vec![Write::create_record(self.records.revocation(&serial), &Revocation { time: now })?];
        if !is_stored {
            writes.push(Write::Put {
                key: self.records.certificate(&serial),
                version: 1,
                value: encode(&certificate)?,
            });
        }
        let time = match self.store.commit(writes).await {
            Ok(()) => now,
            Err(Fault::InvalidRequest { .. }) => self.stored_time(&serial)?,
            Err(fault) => return Err(fault),
        };
        self.revoked.lock().add(serial, time)?;
        self.telemetry.certificate_revoked();
        tracing::info!(
            serial = %serial, issuer = %issuer.record.id, mount = %call.mount.path, namespace = %call.mount.namespace,
            uid = call.caller.peer.uid, pid = call.caller.peer.pid, "certificate revoked"
        );
        self.revoked_answer(call, time, warnings).await
    }

    /// `crl/rotate`.
    pub(super) async fn rotate_crl(self: &Arc<Self>, call: &Call) -> Result<Response, Fault> {
        self.authority.load().issuer()?;
        self.rebuild_crl(call).await?;
        let mut data = Data::new();
        data.insert("success".into(), true.into());
        Ok(Response::data(data))
    }

    /// Has a CRL made that is begun from now on, together with all who ask at this time. It is made to its end even if
    /// nobody waits any more.
    pub(super) async fn rebuild_crl(self: &Arc<Self>, call: &Call) -> Result<(), Fault> {
        let joined = self.rebuild.join();
        if joined.must_start {
            let (pki, call) = (Arc::clone(self), call.clone());
            tokio::spawn(async move {
                while let Some(round) = pki.rebuild.round() {
                    let outcome = pki.make_crl(&call).await;
                    if let Err(fault) = &outcome {
                        tracing::error!(
                            mount = %call.mount.path, namespace = %call.mount.namespace, %fault,
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

    async fn revoked_answer(
        self: &Arc<Self>,
        call: &Call,
        time: u64,
        mut warnings: Vec<String>,
    ) -> Result<Response, Fault> {
        // Also for one revoked before: it may have missed its CRL.
        if self.crl_is_due()
            && let Err(fault) = self.rebuild_crl(call).await
        {
            warnings.push(format!(
                "the certificate is revoked, but the CRL could not be made yet ({fault}); it is tried again by itself"
            ));
        }
        let value = json!({
            "revocation_time": time,
            "revocation_time_rfc3339": validity::rfc3339(time),
            "state": "revoked",
        });
        Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), warnings))
    }

    /// The certificate meant, and whether it is stored.
    fn find(&self, issuer: &Issuer, target: Target) -> Result<(Serial, Certificate, bool), Fault> {
        let (serial, given) = match target {
            Target::Serial(serial) => (serial, None),
            Target::Certificate(der) => {
                let certificate = issued_by(issuer, &der)?;
                let serial = Serial::from_bytes(certificate.tbs_certificate().serial_number().as_bytes());
                let odd = || Fault::invalid("the certificate's serial number is zero or too long");
                (serial.ok_or_else(odd)?, Some(certificate))
            }
        };
        match (self.store.get(&self.records.certificate(&serial))?, given) {
            (Some(record), _) => {
                let damaged = |_| Fault::internal(format!("the stored certificate {serial} is damaged"));
                Ok((serial, Certificate::from_der(&record.value).map_err(damaged)?, true))
            }
            (None, Some(certificate)) => Ok((serial, certificate, false)),
            (None, None) => Err(Fault::invalid(format!("certificate with serial {serial} not found."))),
        }
    }

    /// The time of a revocation that another request was first to store.
    fn stored_time(&self, serial: &Serial) -> Result<u64, Fault> {
        let stored = self.store.read::<Revocation>(&self.records.revocation(serial))?;
        let lost = || Fault::internal(format!("the revocation of {serial} is neither stored nor can it be"));
        stored.map(|revocation| revocation.time).ok_or_else(lost)
    }
}

/// A certificate that this issuer signed.
fn issued_by(issuer: &Issuer, der: &[u8]) -> Result<Certificate, Fault> {
    let malformed = |error: der::Error| Fault::invalid(format!("the certificate is malformed: {error}"));
    let certificate = Certificate::from_der(der).map_err(malformed)?;
    let (tbs, algorithm, signature) = split(der).map_err(malformed)?;
    let algorithm = SignatureAlgorithm::read(&AlgorithmIdentifierRef::from_der(algorithm).map_err(malformed)?)?;
    let signature = BitStringRef::from_der(signature).map_err(malformed)?.as_bytes().unwrap_or_default();
    let is_ours = encode(certificate.tbs_certificate().issuer())? == issuer.name
        && algorithm.verify(&issuer.public_key, &Bytes::copy_from_slice(tbs), signature)?;
    if is_ours { Ok(certificate) } else { Err(Fault::invalid("the certificate was not issued by this mount's issuer")) }
}
