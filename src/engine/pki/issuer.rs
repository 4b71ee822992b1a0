//! The issuer of a mount: its record, and everything about it that every certificate needs, made once.

use bytes::Bytes;
use der::Decode;
use serde::{Deserialize, Serialize};
use serde_json::json;
use x509_cert::Certificate;

use super::algorithm::SignatureAlgorithm;
use super::asn1::encode;
use super::extensions::{self, KeyIdentifier};
use super::serial::Serial;
use super::urls::Urls;
use super::{Pki, pem};
use crate::crypto;
use crate::managed_keys::KeyRef;
use crate::model::{Data, Fault, Mount, PublicKey, Response};
use crate::store::Versioned;

/// What is stored of an issuer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuerRecord {
    pub(super) id: String,
    /// Empty if it has none.
    pub(super) name: String,
    pub(super) key_id: String,
    /// Empty if it has none.
    pub(super) key_name: String,
    /// UUID of the managed key that signs for it.
    pub(super) managed_key: String,
    /// How it signed its own certificate, and signs CRLs.
    pub(super) algorithm: SignatureAlgorithm,
    /// PEM.
    pub(super) certificate: String,
}

impl Versioned for IssuerRecord {
    const VERSION: u16 = 1;
}

/// Which issuer is the default one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DefaultIssuer {
    pub(super) id: String,
}

impl Versioned for DefaultIssuer {
    const VERSION: u16 = 1;
}

/// An issuer, ready to issue.
#[derive(Clone, Debug)]
pub(super) struct Issuer {
    pub(super) record: IssuerRecord,
    /// DER of its certificate.
    pub(super) certificate: Bytes,
    /// PEM of it, as Vault answers it.
    pub(super) pem: String,
    /// DER of its subject: the issuer in what it signs.
    pub(super) name: Vec<u8>,
    pub(super) public_key: PublicKey,
    pub(super) key_identifier: KeyIdentifier,
    pub(super) serial: Serial,
    /// `notAfter` in Unix seconds.
    pub(super) ends: u64,
}

/// What certificates are issued with: the issuer, and the extensions its leaves have alike. A snapshot.
#[derive(Clone, Debug, Default)]
pub(super) struct Authority {
    pub(super) issuer: Option<Issuer>,
    pub(super) urls: Urls,
    /// AuthorityKeyIdentifier, AuthorityInfoAccess and CRLDistributionPoints, encoded.
    pub(super) leaf_extensions: Vec<u8>,
}

impl Issuer {
    /// Reads a record.
    pub(super) fn from_record(record: IssuerRecord) -> Result<Issuer, Fault> {
        let damaged =
            |what: &str| Fault::internal(format!("the stored certificate of issuer {} is damaged: {what}", record.id));
        let der = pem::decode(&record.certificate, &[pem::CERTIFICATE]).ok_or_else(|| damaged("no PEM"))?;
        let certificate = Certificate::from_der(&der).map_err(|error| damaged(&error.to_string()))?;
        let tbs = certificate.tbs_certificate();
        let public_key = crypto::parse_spki(&encode(tbs.subject_public_key_info())?)?;
        let serial = Serial::from_bytes(tbs.serial_number().as_bytes()).ok_or_else(|| damaged("its serial number"))?;
        Ok(Issuer {
            pem: record.certificate.trim_end().to_owned(),
            name: encode(tbs.subject())?,
            key_identifier: extensions::key_identifier(&public_key)?,
            ends: tbs.validity().not_after.to_unix_duration().as_secs(),
            certificate: der.into(),
            public_key,
            serial,
            record,
        })
    }

    /// Whether a client that writes `reference` means this issuer.
    fn is_called(&self, reference: &str) -> bool {
        reference == "default"
            || reference == self.record.id
            || (!self.record.name.is_empty() && reference == self.record.name)
    }

    fn show(&self, urls: &Urls) -> Data {
        let pem = format!("{}\n", self.pem);
        let value = json!({
            "issuer_id": self.record.id,
            "issuer_name": self.record.name,
            "key_id": self.record.key_id,
            "certificate": pem,
            "ca_chain": [pem],
            "manual_chain": null,
            "leaf_not_after_behavior": "err",
            "usage": "read-only,issuing-certificates,crl-signing",
            "revocation_signature_algorithm": self.record.algorithm.name(),
            "issuing_certificates": urls.issuing_certificates,
            "crl_distribution_points": urls.crl_distribution_points,
            "delta_crl_distribution_points": [],
            "ocsp_servers": urls.ocsp_servers,
            "enable_aia_url_templating": false,
            "revoked": false,
            "revocation_time": 0,
            "revocation_time_rfc3339": "",
            "disable_critical_extension_checks": false,
            "disable_path_length_checks": false,
            "disable_name_checks": false,
            "disable_name_constraint_checks": false,
        });
        value.as_object().cloned().unwrap_or_default()
    }
}

impl Authority {
    /// Puts a snapshot together.
    pub(super) fn new(issuer: Option<Issuer>, urls: Urls) -> Result<Authority, Fault> {
        let mut leaf_extensions = Vec::new();
        if let Some(issuer) = &issuer {
            leaf_extensions.extend(extensions::authority_key_identifier(&issuer.key_identifier)?);
            leaf_extensions.extend(extensions::of_urls(&urls)?);
        }
        Ok(Authority { issuer, urls, leaf_extensions })
    }

    /// The issuer; without one nothing can be issued.
    pub(super) fn issuer(&self) -> Result<&Issuer, Fault> {
        self.issuer.as_ref().ok_or_else(|| {
            Fault::invalid("no default issuer currently configured: make one with root/generate/kms on this mount")
        })
    }
}

impl Pki {
    /// The key that signs for `issuer`, as this mount may use it now.
    pub(super) fn signing_key(&self, mount: &Mount, issuer: &Issuer) -> Result<super::keys::SigningKey, Fault> {
        self.keys.resolve(mount, KeyRef::Uuid(&issuer.record.managed_key))
    }

    /// `GET issuer/:ref`.
    pub(super) fn read_issuer(&self, reference: &str) -> Result<Response, Fault> {
        let authority = self.authority.load();
        let issuer = authority.issuer.as_ref().filter(|issuer| issuer.is_called(reference));
        let unknown = || Fault::invalid(format!("unable to find PKI issuer for reference: {reference}"));
        issuer.map(|issuer| Response::data(issuer.show(&authority.urls))).ok_or_else(unknown)
    }
}
