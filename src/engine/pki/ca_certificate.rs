//! The certificate of a certificate authority, and what of it counts for what the authority signs.

use std::fmt;

use der::flagset::FlagSet;
use serde::{Deserialize, Serialize};
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, NameConstraints};

use super::algorithm::require_certifiable;
use super::x509::{X509, single};
use super::{extensions, pem};
use crate::crypto;
use crate::model::{Fault, Hash, PublicKey};

/// Who signs: a name and a key. Certificates of one signer may differ (one that was renewed), yet what it signed is of all
/// of them, and so is its CRL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct SignerId(String);

impl SignerId {
    /// The signer whose records have this name.
    pub(super) fn from_record_name(name: String) -> SignerId {
        SignerId(name)
    }

    /// The name its records have.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SignerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SignerId({})", self.0)
    }
}

/// A CA's certificate.
#[derive(Clone, Debug)]
pub(super) struct CaCertificate {
    pub(super) x509: X509,
    /// PEM as Vault answers it, without a last line feed.
    pub(super) pem: String,
    pub(super) public_key: PublicKey,
    pub(super) signer: SignerId,
    /// How the key is named in what it signs: the certificate's own SubjectKeyIdentifier, or else the key's digest.
    pub(super) key_identifier: Vec<u8>,
    /// How OCSP requests name it: the digests of its name and of its key, one after the other, by each hash.
    pub(super) ocsp_names: Vec<Vec<u8>>,
    /// How many CAs may follow below it; `None` is no limit.
    pub(super) path_length: Option<u8>,
    /// The names it may certify, if it says so.
    pub(super) name_constraints: Option<NameConstraints>,
    /// `None` if it does not say: then any.
    key_usage: Option<FlagSet<KeyUsages>>,
}

impl CaCertificate {
    /// Reads the certificate of a CA. One of anything else is refused.
    pub(super) fn parse(der: &[u8]) -> Result<CaCertificate, Fault> {
        let what = "the CA certificate";
        let x509 = X509::parse(der, what)?;
        let constraints: Option<BasicConstraints> = single(&x509.parsed, what)?;
        let Some(BasicConstraints { ca: true, path_len_constraint }) = constraints else {
            return Err(Fault::invalid(format!(
                "the certificate with serial {} is not of a CA: its basic constraints do not say so",
                x509.serial
            )));
        };
        let key_usage: Option<KeyUsage> = single(&x509.parsed, what)?;
        let public_key = crypto::parse_spki(&x509.spki)?;
        require_certifiable(public_key.kind)?;
        let key_identifier = match &x509.subject_key_identifier {
            Some(stated) => stated.clone(),
            None => extensions::key_identifier(&public_key)?.to_vec(),
        };
        Ok(CaCertificate {
            pem: pem::encode_trimmed(pem::CERTIFICATE, der)?,
            signer: signer(&x509)?,
            ocsp_names: ocsp_names(&x509, &public_key)?,
            name_constraints: single(&x509.parsed, what)?,
            key_usage: key_usage.map(|usage| usage.0),
            path_length: path_len_constraint,
            key_identifier,
            public_key,
            x509,
        })
    }

    /// Whether its key may be used so.
    pub(super) fn allows(&self, usage: FlagSet<KeyUsages>) -> bool {
        self.key_usage.is_none_or(|usages| usages.contains(usage))
    }

    /// Whether it signed itself, by its names.
    pub(super) fn is_root(&self) -> bool {
        self.x509.is_self_issued()
    }

    /// Whether this CA signed `certificate`: by its names, and by the signature.
    pub(super) fn signed(&self, certificate: &X509) -> Result<bool, Fault> {
        Ok(self.is_named_in(certificate) && certificate.is_signed_with(&self.public_key)?)
    }

    /// Whether `certificate` says that this CA signed it: by name, and by key identifier where both state one.
    pub(super) fn is_named_in(&self, certificate: &X509) -> bool {
        let identifiers = (&certificate.authority_key_identifier, &self.x509.subject_key_identifier);
        let is_other_key = matches!(identifiers, (Some(wanted), Some(own)) if wanted != own);
        certificate.issuer == self.x509.subject && !is_other_key
    }
}

fn signer(x509: &X509) -> Result<SignerId, Fault> {
    let digest = crypto::digest(Hash::Sha2_256, &[&x509.subject[..], &x509.spki].concat())?;
    Ok(SignerId(hex::encode(digest.as_bytes())))
}

fn ocsp_names(x509: &X509, key: &PublicKey) -> Result<Vec<Vec<u8>>, Fault> {
    let key = crypto::subject_public_key(key)?;
    let hashes = [Hash::Sha1, Hash::Sha2_256, Hash::Sha2_384, Hash::Sha2_512];
    let named = hashes.into_iter().map(|hash| {
        let (name, key) = (crypto::digest(hash, &x509.subject)?, crypto::digest(hash, key)?);
        Ok([name.as_bytes(), key.as_bytes()].concat())
    });
    named.collect()
}
