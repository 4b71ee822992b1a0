//! Certificates of CAs brought in from elsewhere: `issuers/import/bundle`, `issuers/import/cert`, `config/ca` and
//! `intermediate/set-signed`. Private keys are refused: Keyway holds none.

use std::sync::Arc;

use serde_json::json;

use super::ca_certificate::CaCertificate;
use super::issuer::IssuerSettings;
use super::registry::{Added, Registry};
use super::x509::CERTIFICATE_BYTES_MAX;
use super::{Pki, pem};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// The most certificates of one bundle.
const BUNDLE_MAX: usize = 100;

/// What came of a bundle.
#[derive(Default)]
struct Imported {
    new: Vec<String>,
    known: Vec<String>,
    /// For each issuer, its key's id, or nothing.
    mapping: Data,
    warning: Option<String>,
}

impl Pki {
    /// Imports the certificates of `field`.
    pub(super) async fn import(
        self: Arc<Self>,
        call: Call,
        field: &'static str,
        data: Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let text = fields.filled(field)?.ok_or_else(|| Fault::invalid(format!("{field} is empty: expected PEM")))?;
        let mut warnings = fields.warnings();
        let certificates = read(&text, field)?;
        let imported = self.edit(&call, move |registry| add_all(registry, &certificates)).await?;
        warnings.extend(imported.warning);
        let authority = self.authority.load_full();
        for id in &imported.new {
            let issuer = authority.issuer(id)?;
            tracing::info!(
                issuer = id, key = issuer.record.key_id, serial = %issuer.certificate.x509.serial, mount = %call.mount.path,
                namespace = %call.mount.namespace, uid = call.caller.peer.uid, pid = call.caller.peer.pid,
                "issuer imported"
            );
            warnings.extend(self.introduce(&call, issuer).await);
        }
        self.publish_default(&call).await;
        let mut answered = json!({
            "imported_issuers": imported.new,
            "imported_keys": [],
            "existing_issuers": imported.known,
            "existing_keys": [],
        });
        answered["mapping"] = imported.mapping.into();
        Ok(Response::with_warnings(answered.as_object().cloned().unwrap_or_default(), warnings))
    }

    /// `POST intermediate/set-signed`: what came back for a request of `intermediate/generate`.
    pub(super) async fn set_signed(self: Arc<Self>, call: Call, data: Data) -> Result<Response, Fault> {
        let answer = self.import(call, "certificate", data).await?;
        let Response::Data { data, mut warnings, mirrored } = answer else { return Ok(answer) };
        let has_key = |mapping: &Data| mapping.values().any(|key| key.as_str().is_some_and(|key| !key.is_empty()));
        if !data.get("mapping").and_then(serde_json::Value::as_object).is_some_and(has_key) {
            warnings.push(
                "none of these certificates is for a key of this mount, so none of them can issue: is the one that was \
                 made for its certificate request among them?"
                    .into(),
            );
        }
        Ok(Response::Data { data, warnings, mirrored })
    }
}

/// Reads a bundle: CA certificates and nothing else.
pub(super) fn read(text: &str, field: &str) -> Result<Vec<Arc<CaCertificate>>, Fault> {
    // PEM is a third larger than DER, plus line ends and text around it.
    if text.len() > BUNDLE_MAX * 2 * CERTIFICATE_BYTES_MAX {
        return Err(Fault::TooLarge { what: format!("{field} has {} bytes of PEM", text.len()) });
    }
    let blocks = pem::decode_all(text).filter(|blocks| !blocks.is_empty());
    let blocks = blocks.ok_or_else(|| Fault::invalid(format!("{field}: expected PEM blocks \"CERTIFICATE\"")))?;
    if blocks.iter().any(|(label, _)| label.ends_with("PRIVATE KEY")) {
        return Err(Fault::invalid(format!(
            "{field} has a private key, and Keyway holds no long-lived private keys: import the key into a token, register it \
             as a managed key and add it with keys/generate/kms; then import the certificates alone"
        )));
    }
    if blocks.len() > BUNDLE_MAX {
        return Err(Fault::invalid(format!("{field} has more than {BUNDLE_MAX} certificates")));
    }
    let certificate = |(label, der): &(String, Vec<u8>)| match label.as_str() {
        pem::CERTIFICATE => CaCertificate::parse(der).map(Arc::new),
        other => Err(Fault::invalid(format!("{field} has a PEM block {other:?}: expected \"CERTIFICATE\" only"))),
    };
    blocks.iter().map(certificate).collect()
}

fn add_all(registry: &mut Registry, certificates: &[Arc<CaCertificate>]) -> Result<Imported, Fault> {
    let mut imported = Imported::default();
    for certificate in certificates {
        let added = registry.add_issuer(certificate, IssuerSettings::default())?;
        let key = registry.issuer(added.id())?.record.key_id.clone();
        imported.mapping.insert(added.id().to_owned(), key.into());
        match added {
            Added::New(id) => imported.new.push(id),
            // One that stands twice in the bundle is new all the same.
            Added::Known(id) if imported.new.contains(&id) || imported.known.contains(&id) => {}
            Added::Known(id) => imported.known.push(id),
        }
    }
    imported.warning = registry.choose_default(&imported.new);
    Ok(imported)
}
