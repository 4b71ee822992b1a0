//! How a private key made for a client is written: the field `private_key_format`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use der::pem::LineEnding;
use zeroize::Zeroizing;

use super::format::Format;
use crate::crypto::{GeneratedKey, PKCS8_LABEL};
use crate::model::{Data, Fault, Fields};

/// Vault's forms of private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PrivateKeyFormat {
    /// `der` and `pem`: the form of its kind, PKCS#1 or SEC 1.
    Traditional,
    /// `pkcs8`.
    Pkcs8,
}

impl PrivateKeyFormat {
    /// Reads the field.
    pub(super) fn parse(data: &Data) -> Result<PrivateKeyFormat, Fault> {
        match Fields::new(data).filled("private_key_format")?.as_deref() {
            None | Some("der" | "pem") => Ok(PrivateKeyFormat::Traditional),
            Some("pkcs8") => Ok(PrivateKeyFormat::Pkcs8),
            Some(other) => Err(Fault::invalid(format!(
                "the \"private_key_format\" path parameter must be \"der\", \"pem\" or \"pkcs8\", not {other:?}"
            ))),
        }
    }

    /// A key in this form: base64 of DER where certificates are DER, else PEM without a last line feed.
    pub(super) fn write(self, key: &GeneratedKey, format: Format) -> Result<Zeroizing<String>, Fault> {
        let (label, der) = match self {
            PrivateKeyFormat::Traditional => (key.traditional_label, &key.traditional),
            PrivateKeyFormat::Pkcs8 => (PKCS8_LABEL, &key.pkcs8),
        };
        if format == Format::Der {
            return Ok(Zeroizing::new(STANDARD.encode(der.expose())));
        }
        let pem = der::pem::encode_string(label, LineEnding::LF, der.expose());
        let mut text = Zeroizing::new(pem.map_err(|_| Fault::internal("a private key cannot be written as PEM"))?);
        let trimmed = text.trim_end().len();
        text.truncate(trimmed);
        Ok(text)
    }
}
