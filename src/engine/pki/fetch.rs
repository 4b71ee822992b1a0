//! What anyone may fetch: the CA certificate, CRLs and certificates by serial number; and the list of certificates.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::crl::Crl;
use super::fresh::Asker;
use super::issuer::Issuer;
use super::serial::Serial;
use super::x509::X509;
use super::{Pki, pem, validity};
use crate::model::{Data, Fault, Fields, Response};

pub(super) const DER_CERTIFICATE: &str = "application/pkix-cert";
pub(super) const DER_CRL: &str = "application/pkix-crl";
pub(super) const PEM_CHAIN: &str = "application/pem-certificate-chain";
pub(super) const PEM_CRL: &str = "application/x-pem-file";

/// Serial numbers listed at once, where a client names no limit.
const LIST_DEFAULT: usize = 100_000;
/// Serial numbers read from the store before others get their turn.
const LIST_STEP: usize = 500;

/// Which part of a list of serial numbers is asked for.
pub(super) struct Page {
    /// The record it begins behind.
    pub(super) after: Option<String>,
    /// How many there are at most.
    pub(super) limit: usize,
}

impl Page {
    /// Reads `after` and `limit`, which is `most` where it is not named, and never more.
    pub(super) fn parse(data: &Data, most: usize) -> Result<Page, Fault> {
        let mut fields = Fields::new(data);
        let after = fields.filled("after")?;
        let no_serial = || Fault::invalid("after is not a serial number");
        let after = after.map(|text| Serial::parse(&text).ok_or_else(no_serial)).transpose()?;
        let limit = match fields.integer("limit")? {
            None | Some(..=0) => most,
            Some(limit) => usize::try_from(limit).unwrap_or(most).min(most),
        };
        Ok(Page { after: after.map(|serial| serial.record_name()), limit })
    }

    /// What to say where there may be more than the `listed` ones.
    pub(super) fn warning(listed: usize) -> String {
        format!("only {listed} serial numbers are listed; ask again with \"after\" set to the last of them")
    }
}

/// How a CRL is written outside JSON.
#[derive(Clone, Copy)]
pub(super) enum Encoding {
    Der,
    Pem,
}

/// Which CRL.
#[derive(Clone, Copy)]
pub(super) enum Which {
    Complete,
    Delta,
}

impl Pki {
    /// `GET ca`.
    pub(super) async fn ca(self: Arc<Self>, asker: Asker) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let body = || authority.default_issuer().map(|issuer| issuer.certificate.x509.der.clone()).unwrap_or_default();
        asker
            .answer(authority.changed, async || Ok(Response::Raw { content_type: DER_CERTIFICATE, body: body() }))
            .await
    }

    /// `GET ca/pem`.
    pub(super) async fn ca_pem(self: Arc<Self>, asker: Asker) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let pem = || authority.default_issuer().map(|issuer| Bytes::from(issuer.certificate.pem.clone()));
        let made = async || Ok(Response::Raw { content_type: PEM_CHAIN, body: pem().unwrap_or_default() });
        asker.answer(authority.changed, made).await
    }

    /// `GET ca_chain`.
    pub(super) async fn ca_chain(self: Arc<Self>, asker: Asker) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let pem = || authority.default_issuer().map(|issuer| Bytes::from(chain(issuer)));
        let made = async || Ok(Response::Raw { content_type: PEM_CHAIN, body: pem().unwrap_or_default() });
        asker.answer(authority.changed, made).await
    }

    /// `GET crl` and `crl/delta`, `/pem`: that of the default issuer.
    pub(super) async fn default_crl(
        self: Arc<Self>,
        asker: Asker,
        which: Which,
        encoding: Encoding,
    ) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let crl = authority.default_issuer().and_then(|issuer| self.crl_of(issuer, which));
        asker.answer(authority.crl_changed(crl.as_deref()), async || raw_crl(crl, encoding).await).await
    }

    /// `GET issuer/:ref/crl/der` and `/pem`, `crl/delta/der` and `/pem`.
    pub(super) async fn issuer_crl(
        self: Arc<Self>,
        asker: Asker,
        reference: String,
        which: Which,
        encoding: Encoding,
    ) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let crl = self.crl_of(authority.issuer(&reference)?, which);
        asker.answer(authority.crl_changed(crl.as_deref()), async || raw_crl(crl, encoding).await).await
    }

    /// `GET issuer/:ref/crl` and `crl/delta`.
    pub(super) async fn issuer_crl_json(
        self: Arc<Self>,
        asker: Asker,
        reference: String,
        which: Which,
    ) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let crl = self.crl_of(authority.issuer(&reference)?, which);
        let changed = authority.crl_changed(crl.as_deref());
        let made = async || {
            let pem = match crl {
                Some(crl) => crl.pem().await?,
                None => Bytes::new(),
            };
            let pem = String::from_utf8_lossy(&pem);
            Ok(Response::data(json!({ "crl": pem }).as_object().cloned().unwrap_or_default()))
        };
        asker.answer(changed, made).await
    }

    fn crl_of(&self, issuer: &Issuer, which: Which) -> Option<Arc<Crl>> {
        let own = self.crls.of(issuer.signer());
        match which {
            Which::Complete => own.crl.load_full(),
            Which::Delta => own.delta.load_full(),
        }
    }

    /// `GET cert/:serial`, where `ca`, `ca_chain` and `crl` stand for serial numbers, too.
    pub(super) async fn read_certificate(self: Arc<Self>, asker: Asker, name: String) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let default = || authority.default_issuer().ok_or_else(Fault::absent);
        match name.as_str() {
            "ca" => {
                let issuer = default()?;
                asker.answer(authority.changed, async || Ok(shown(&issuer.certificate.pem, 0, issuer.id()))).await
            }
            "ca_chain" => {
                let issuer = default()?;
                let made = async || {
                    let chain = chain(issuer);
                    let Response::Data { mut data, .. } = shown(&chain, 0, issuer.id()) else {
                        return Err(Fault::internal("a chain is not shown as data"));
                    };
                    data.insert("ca_chain".into(), chain.into());
                    Ok(Response::data(data))
                };
                asker.answer(authority.changed, made).await
            }
            "crl" | "delta-crl" => {
                let which = if name == "crl" { Which::Complete } else { Which::Delta };
                let crl = self.crl_of(default()?, which).ok_or_else(Fault::absent)?;
                let made = async || Ok(shown(&String::from_utf8_lossy(&crl.pem().await?), 0, default()?.id()));
                asker.answer(authority.crl_changed(Some(&crl)), made).await
            }
            text => {
                let (serial, der) = self.stored(text)?;
                let time = self.crls.time(&serial)?.unwrap_or(0);
                let x509 = X509::parse(&der, "the stored certificate");
                let issuer = x509.ok().and_then(|x509| authority.issuer_by_names(&x509));
                let issuer = issuer.map_or("", |issuer| issuer.id());
                Ok(shown(&pem::encode_trimmed(pem::CERTIFICATE, &der)?, time, issuer))
            }
        }
    }

    /// `GET cert/:serial/raw`.
    pub(super) fn raw_certificate(&self, serial: &str) -> Result<Response, Fault> {
        let (_, der) = self.stored(serial)?;
        Ok(Response::Raw { content_type: DER_CERTIFICATE, body: der.into() })
    }

    /// `GET cert/:serial/raw/pem`.
    pub(super) fn raw_certificate_pem(&self, serial: &str) -> Result<Response, Fault> {
        let (_, der) = self.stored(serial)?;
        Ok(Response::Raw { content_type: PEM_CHAIN, body: pem::encode_trimmed(pem::CERTIFICATE, &der)?.into() })
    }

    fn stored(&self, serial: &str) -> Result<(Serial, Vec<u8>), Fault> {
        let serial = Serial::parse(serial).ok_or_else(Fault::absent)?;
        let record = self.store.get(&self.records.certificate(&serial))?.ok_or_else(Fault::absent)?;
        Ok((serial, record.value))
    }

    /// `LIST certs`. `after` and `limit` take it in parts.
    pub(super) async fn list_certificates(&self, data: &Data) -> Result<Response, Fault> {
        self.list_serials("certs", data).await
    }

    /// `LIST certs/revoked`, in parts like `certs`.
    pub(super) async fn list_revoked(&self, data: &Data) -> Result<Response, Fault> {
        self.list_serials("revoked", data).await
    }

    async fn list_serials(&self, kind: &str, data: &Data) -> Result<Response, Fault> {
        let Page { after: mut last, limit } = Page::parse(data, LIST_DEFAULT)?;
        let collection = self.records.collection(kind);
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
        let warnings = last.map(|_| Page::warning(keys.len()));
        let mut data = Data::new();
        data.insert("keys".into(), keys.into());
        Ok(Response::with_warnings(data, warnings.into_iter().collect()))
    }
}

/// The certificates of an issuer's chain, one after the other.
fn chain(issuer: &Issuer) -> String {
    issuer.chain.iter().map(|certificate| certificate.pem.as_str()).collect::<Vec<_>>().join("\n")
}

async fn raw_crl(crl: Option<Arc<Crl>>, encoding: Encoding) -> Result<Response, Fault> {
    let (content_type, body) = match (encoding, crl) {
        (Encoding::Der, crl) => (DER_CRL, crl.map(|crl| crl.der.clone()).unwrap_or_default()),
        (Encoding::Pem, None) => (PEM_CRL, Bytes::new()),
        (Encoding::Pem, Some(crl)) => (PEM_CRL, crl.pem().await?),
    };
    Ok(Response::Raw { content_type, body })
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
