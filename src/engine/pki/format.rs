//! How certificates are written in JSON: the field `format`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::ca_certificate::CaCertificate;
use super::pem;
use crate::model::{Fault, Fields};

/// Vault's formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// PEM.
    Pem,
    /// DER in base64.
    Der,
    /// PEM, the certificate followed by its chain.
    PemBundle,
}

impl Format {
    /// Reads the field.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Format, Fault> {
        match fields.filled("format")?.as_deref() {
            None | Some("pem") => Ok(Format::Pem),
            Some("der") => Ok(Format::Der),
            Some("pem_bundle") => Ok(Format::PemBundle),
            Some(other) => Err(Fault::invalid(format!(
                "the \"format\" path parameter must be \"pem\", \"der\", or \"pem_bundle\", not {other:?}"
            ))),
        }
    }

    /// One certificate in this format.
    pub(super) fn certificate(self, der: &[u8]) -> Result<String, Fault> {
        match self {
            Format::Der => Ok(STANDARD.encode(der)),
            Format::Pem | Format::PemBundle => pem::encode_trimmed(pem::CERTIFICATE, der),
        }
    }

    /// A certificate request in this format.
    pub(super) fn request(self, der: &[u8]) -> Result<String, Fault> {
        match self {
            Format::Der => Ok(STANDARD.encode(der)),
            Format::Pem | Format::PemBundle => {
                let [label, _] = pem::REQUESTS;
                pem::encode_trimmed(label, der)
            }
        }
    }

    /// The certificate of a CA in this format.
    pub(super) fn ca(self, certificate: &CaCertificate) -> Result<String, Fault> {
        match self {
            Format::Der => self.certificate(&certificate.x509.der),
            Format::Pem | Format::PemBundle => Ok(certificate.pem.clone()),
        }
    }
}
