//! What this engine reads of strangers' bytes, to be had without a mount: for those who try it with bytes of any kind.

use bytes::Bytes;

use super::{csr, import, ocsp, revoke, sign};
use crate::model::{Data, Fault, PublicKey};

/// The key that a PKCS#10 request (DER) asks a certificate for, if this engine would take the request: well-formed, its
/// key acceptable, its signature good.
pub fn requested_key(csr: &[u8]) -> Result<PublicKey, Fault> {
    csr::Csr::parse(csr).map(|csr| csr.public_key)
}

/// Whether these bytes are an OCSP request (DER) that this engine would answer, if it has the issuer.
pub fn is_ocsp_request(der: &[u8]) -> bool {
    ocsp::Request::parse(der).is_some()
}

/// DER of the request in a text of PEM, as `sign/:role` reads its field `csr`.
pub fn pem_request(text: &str) -> Result<Vec<u8>, Fault> {
    let data = Data::from_iter([("csr".to_owned(), text.into())]);
    sign::csr_of(&data)
}

/// DER of the certificates in a text of PEM, if this engine would import them: all of them of CAs, and nothing else there.
pub fn imported_certificates(text: &str) -> Result<Vec<Bytes>, Fault> {
    let certificates = import::read(text, "pem_bundle")?;
    Ok(certificates.iter().map(|certificate| certificate.x509.der.clone()).collect())
}

/// Whether `private_key` is that of `certificate`, both PEM, as `revoke-with-key` reads them.
pub fn holds_key_of(certificate: &str, private_key: &str) -> Result<bool, Fault> {
    let members = [("certificate", certificate), ("private_key", private_key)];
    revoke::shows_key(members.into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect())
}
