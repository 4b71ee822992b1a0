//! Extensions that a certificate request asks for and that are taken over as they stand there.

use const_oid::ObjectIdentifier;
use const_oid::db::rfc5280;
use der::Decode;
use der::flagset::FlagSet;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

use super::asn1::encode;
use super::csr::Csr;
use crate::model::Fault;

/// What is the issuer's to say, whatever is asked for.
const ISSUERS_OWN: [ObjectIdentifier; 6] = [
    rfc5280::ID_CE_BASIC_CONSTRAINTS,
    rfc5280::ID_CE_SUBJECT_KEY_IDENTIFIER,
    rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    rfc5280::ID_PE_AUTHORITY_INFO_ACCESS,
    rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS,
    rfc5280::ID_CE_FRESHEST_CRL,
];

/// The extensions of `csr`, encoded, but for those in `except` and those that are its issuer's to say.
pub(super) fn extensions(csr: &Csr, except: &[ObjectIdentifier]) -> Result<Vec<u8>, Fault> {
    let taken = csr
        .extensions
        .iter()
        .filter(|wanted| !ISSUERS_OWN.contains(&wanted.extn_id) && !except.contains(&wanted.extn_id));
    taken.map(encode).collect::<Result<Vec<_>, _>>().map(|encoded| encoded.concat())
}

/// Whether `csr` asks for an extension of this kind.
pub(super) fn asks_for(csr: &Csr, kind: ObjectIdentifier) -> bool {
    csr.extensions.iter().any(|wanted| wanted.extn_id == kind)
}

/// The key usages that `csr` asks for, if it asks for any.
pub(super) fn key_usages(csr: &Csr) -> Result<Option<FlagSet<KeyUsages>>, Fault> {
    let wanted = csr.extensions.iter().find(|wanted| wanted.extn_id == rfc5280::ID_CE_KEY_USAGE);
    let read = wanted.map(|wanted| KeyUsage::from_der(wanted.extn_value.as_bytes()).map(|usage| usage.0));
    read.transpose().map_err(|_| Fault::invalid("the key usages that the certificate request asks for are malformed"))
}

/// Refuses a request for what a CA has, where a leaf is to be signed.
pub(super) fn refuse_ca(csr: &Csr) -> Result<(), Fault> {
    for wanted in &csr.extensions {
        let value = wanted.extn_value.as_bytes();
        let malformed = |_| Fault::invalid(format!("the requested extension {} is malformed", wanted.extn_id));
        let is_of_ca = match wanted.extn_id {
            rfc5280::ID_CE_BASIC_CONSTRAINTS => BasicConstraints::from_der(value).map_err(malformed)?.ca,
            rfc5280::ID_CE_KEY_USAGE => {
                KeyUsage::from_der(value).map_err(malformed)?.0.contains(KeyUsages::KeyCertSign)
            }
            _ => false,
        };
        if is_of_ca {
            return Err(Fault::invalid(
                "the certificate request asks for a CA certificate: those are signed by sign-intermediate alone",
            ));
        }
    }
    Ok(())
}
