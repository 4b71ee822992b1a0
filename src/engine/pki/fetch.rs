//! What anyone may fetch: the CA certificate, CRLs and certificates by serial number; and the list of certificates.

use bytes::Bytes;
use serde_json::json;

use super::serial::Serial;
use super::{Pki, pem, validity};
use crate::model::{Data, Fault, Fields, Response};

const DER_CERTIFICATE: &str = "application/pkix-cert";
const DER_CRL: &str = "application/pkix-crl";
const PEM_CHAIN: &str = "application/pem-certificate-chain";
const PEM_CRL: &str = "application/x-pem-file";

/// Serial numbers listed at once, where a client names no limit.
const LIST_DEFAULT: usize = 100_000;
/// Serial numbers read from the store before others get their turn.
const LIST_STEP: usize = 500;

impl Pki {
    /// `GET ca`.
    pub(super) fn ca(&self) -> Response {
        let authority = self.authority.load();
        let body = authority.issuer.as_ref().map(|issuer| issuer.certificate.clone()).unwrap_or_default();
        Response::Raw { content_type: DER_CERTIFICATE, body }
    }

    /// `GET ca/pem`.
    pub(super) fn ca_pem(&self) -> Response {
        let authority = self.authority.load();
        let body = authority.issuer.as_ref().map(|issuer| Bytes::from(issuer.pem.clone())).unwrap_or_default();
        Response::Raw { content_type: PEM_CHAIN, body }
    }

    /// `GET crl`.
    pub(super) fn crl_der(&self) -> Response {
        let body = self.crl.load().as_ref().map(|crl| crl.der.clone()).unwrap_or_default();
        Response::Raw { content_type: DER_CRL, body }
    }

    /// `GET crl/pem`.
    pub(super) fn crl_pem(&self) -> Response {
        let body = self.crl.load().as_ref().map(|crl| crl.pem.clone()).unwrap_or_default();
        Response::Raw { content_type: PEM_CRL, body }
    }

    /// `GET cert/:serial`, where `ca` and `crl` stand for serial numbers, too.
    pub(super) fn read_certificate(&self, name: &str) -> Result<Response, Fault> {
        match name {
            "ca" => {
                let authority = self.authority.load();
                let issuer = authority.issuer.as_ref().ok_or_else(Fault::absent)?;
                Ok(shown(&issuer.pem, 0, &issuer.record.id))
            }
            "crl" => {
                let authority = self.authority.load();
                let crl = self.crl.load();
                let crl = crl.as_ref().ok_or_else(Fault::absent)?;
                let issuer = authority.issuer.as_ref().ok_or_else(Fault::absent)?;
                Ok(shown(&String::from_utf8_lossy(&crl.pem), 0, &issuer.record.id))
            }
            text => {
                let serial = Serial::parse(text).ok_or_else(Fault::absent)?;
                let record = self.store.get(&self.records.certificate(&serial))?.ok_or_else(Fault::absent)?;
                let time = self.revoked.lock().time(&serial).unwrap_or(0);
                let authority = self.authority.load();
                let issuer = authority.issuer.as_ref().map_or("", |issuer| &issuer.record.id);
                Ok(shown(&pem::encode_trimmed(pem::CERTIFICATE, &record.value)?, time, issuer))
            }
        }
    }

    /// `LIST certs`. `after` and `limit` take it in parts.
    pub(super) async fn list_certificates(&self, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        // The query that made this a list.
        fields.value("list");
        let after = fields.filled("after")?;
        let mut last = after
            .map(|text| {
                let serial = Serial::parse(&text);
                serial.map(|serial| serial.record_name()).ok_or_else(|| Fault::invalid("after is not a serial number"))
            })
            .transpose()?;
        let limit = match fields.integer("limit")? {
            None | Some(..=0) => LIST_DEFAULT,
            Some(limit) => usize::try_from(limit).unwrap_or(LIST_DEFAULT).min(LIST_DEFAULT),
        };
        let collection = self.records.collection("certs");
        let mut keys = Vec::new();
        while keys.len() < limit {
            let step = LIST_STEP.min(limit - keys.len());
            let names = self.store.list(self.records.namespace(), &collection, last.as_deref(), step)?;
            keys.extend(names.iter().filter_map(|name| Serial::parse(name)).map(|serial| serial.to_string()));
            if names.len() < step {
                last = None;
                break;
            }
            last = names.into_iter().next_back();
            tokio::task::yield_now().await;
        }
        if keys.is_empty() {
            return Err(Fault::absent());
        }
        let warnings = last.map(|_| {
            format!("only {} serial numbers are listed; ask again with \"after\" set to the last of them", keys.len())
        });
        let mut data = Data::new();
        data.insert("keys".into(), keys.into());
        Ok(Response::with_warnings(data, warnings.into_iter().collect()))
    }
}

fn shown(pem: &str, revoked: u64, issuer: &str) -> Response {
    let revoked_text = if revoked == 0 { String::new() } else { validity::rfc3339(revoked) };
    let value = json!({
        "certificate": pem,
        "revocation_time": revoked,
        "revocation_time_rfc3339": revoked_text,
        "issuer_id": issuer,
    });
    Response::data(value.as_object().cloned().unwrap_or_default())
}
