//! Certificates for the server: a CA of its own, made at the start, and one that nobody trusts.

use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// What the server shows.
pub(crate) struct Tls {
    /// The certificate whose CA is in the file.
    pub(crate) own: TlsAcceptor,
    /// One for the same names whose CA nobody has.
    pub(crate) strange: TlsAcceptor,
}

impl Tls {
    /// Makes certificates for these names besides `localhost` and the loopback addresses, and writes the CA's to `file`.
    pub(crate) fn new<'a>(file: &Path, names: impl Iterator<Item = &'a str>) -> Result<Tls, String> {
        let mut all: Vec<String> = ["localhost", "127.0.0.1", "::1"].map(str::to_owned).to_vec();
        all.extend(names.map(str::to_owned));
        let (own, ca) = acceptor("cloud-sim CA", &all)?;
        let (strange, _) = acceptor("nobody's CA", &all)?;
        std::fs::write(file, ca).map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        Ok(Tls { own, strange })
    }
}

/// A server's side of TLS, and the PEM of its CA.
fn acceptor(name: &str, names: &[String]) -> Result<(TlsAcceptor, String), String> {
    let text = |error: rcgen::Error| format!("no certificate can be made: {error}");
    let ca_key = KeyPair::generate().map_err(text)?;
    let mut ca = CertificateParams::new(Vec::new()).map_err(text)?;
    ca.distinguished_name.push(DnType::CommonName, name);
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let ca_certificate = ca.self_signed(&ca_key).map_err(text)?;
    let issuer = Issuer::new(ca, ca_key);

    let key = KeyPair::generate().map_err(text)?;
    let mut leaf = CertificateParams::new(names.to_vec()).map_err(text)?;
    leaf.distinguished_name.push(DnType::CommonName, "cloud-sim");
    leaf.use_authority_key_identifier_extension = true;
    let certificate = leaf.signed_by(&key, &issuer).map_err(text)?;

    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(str::to_owned)?;
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok((TlsAcceptor::from(Arc::new(config)), ca_certificate.pem()))
}
