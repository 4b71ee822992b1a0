//! `issuers` and `issuer/:ref`: listed and read by anyone, changed by operators.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Value, json};

use super::algorithm::SignatureAlgorithm;
use super::fetch::{DER_CERTIFICATE, PEM_CHAIN};
use super::fresh::Asker;
use super::issuer::{Issuer, IssuerSettings};
use super::issuer_usage::{IssuerUsages, LeafNotAfterBehavior};
use super::registry::{IssuerEntry, Registry};
use super::urls::Urls;
use super::{Pki, validity};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// The field that turns templates of an issuer's own URLs on.
const TEMPLATING: &str = "enable_aia_url_templating";
/// The most links of a manual chain.
const MANUAL_CHAIN_MAX: usize = 16;
/// What needs checks that Vault's enterprise edition lets be left out: here they are always made.
const CHECKS: [&str; 4] = [
    "disable_critical_extension_checks",
    "disable_path_length_checks",
    "disable_name_checks",
    "disable_name_constraint_checks",
];

/// Whether what a request does not name stays (PATCH) or takes its default (POST).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Update {
    Replace,
    Patch,
}

impl Pki {
    /// `LIST issuers`.
    pub(super) fn list_issuers(&self) -> Result<Response, Fault> {
        let authority = self.authority.load();
        if authority.issuers.is_empty() {
            return Err(Fault::absent());
        }
        let mut info = Data::new();
        for (id, issuer) in &authority.issuers {
            let shown = json!({
                "issuer_name": issuer.name(),
                "is_default": *id == authority.registry.issuers_config.default,
                "serial_number": issuer.certificate.x509.serial.to_string(),
                "key_id": issuer.record.key_id,
            });
            info.insert(id.clone(), shown);
        }
        let ids: Vec<&String> = authority.issuers.keys().collect();
        Ok(Response::data(object(json!({"keys": ids, "key_info": info}))))
    }

    /// `GET issuer/:ref`.
    pub(super) fn read_issuer(&self, reference: &str) -> Result<Response, Fault> {
        let authority = self.authority.load();
        authority.issuer(reference).map(|issuer| Response::data(issuer.show()))
    }

    /// `GET issuer/:ref/json`.
    pub(super) async fn issuer_json(self: Arc<Self>, asker: Asker, reference: String) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let issuer = authority.issuer(&reference)?;
        let made = async || {
            Ok(Response::data(object(json!({
                "certificate": format!("{}\n", issuer.certificate.pem),
                "ca_chain": issuer.chain_pem(),
                "issuer_id": issuer.id(),
                "issuer_name": issuer.name(),
            }))))
        };
        asker.answer(authority.changed, made).await
    }

    /// `GET issuer/:ref/der`.
    pub(super) async fn issuer_der(self: Arc<Self>, asker: Asker, reference: String) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let body = authority.issuer(&reference)?.certificate.x509.der.clone();
        asker.answer(authority.changed, async || Ok(Response::Raw { content_type: DER_CERTIFICATE, body })).await
    }

    /// `GET issuer/:ref/pem`.
    pub(super) async fn issuer_pem(self: Arc<Self>, asker: Asker, reference: String) -> Result<Response, Fault> {
        let authority = self.authority.load_full();
        let body = Bytes::from(authority.issuer(&reference)?.certificate.pem.clone());
        asker.answer(authority.changed, async || Ok(Response::Raw { content_type: PEM_CHAIN, body })).await
    }

    /// `POST` and `PATCH issuer/:ref`.
    pub(super) async fn write_issuer(
        self: Arc<Self>,
        call: Call,
        reference: String,
        data: Data,
        update: Update,
    ) -> Result<Response, Fault> {
        self.check_revocation_algorithm(&call, &reference, &data)?;
        let (id, warnings) = self
            .edit(&call, move |registry| {
                let mut fields = Fields::below(&data, &["issuer_ref"]);
                fields.refuse(&CHECKS)?;
                let id = registry.issuer_id(&reference)?.to_owned();
                let entry = registry.issuer(&id)?;
                let base = match update {
                    Update::Replace => IssuerSettings::default(),
                    Update::Patch => entry.record.settings.clone(),
                };
                let settings = updated(base, &mut fields, registry, entry)?;
                registry.update_issuer(&id, |record| record.settings = settings)?;
                Ok((id, fields.warnings()))
            })
            .await?;
        let authority = self.authority.load();
        Ok(Response::with_warnings(authority.issuer(&id)?.show(), warnings))
    }

    /// Refuses an algorithm that the mechanism of the issuer's key does not make: its CRLs and OCSP answers would end. Where the
    /// key is not here, nobody can say.
    fn check_revocation_algorithm(&self, call: &Call, reference: &str, data: &Data) -> Result<(), Fault> {
        let Some(name) = Fields::new(data).filled("revocation_signature_algorithm")? else { return Ok(()) };
        let authority = self.authority.load();
        let issuer = authority.issuer(reference)?;
        let algorithm = SignatureAlgorithm::for_key(&name, issuer.certificate.public_key.kind)?;
        let Ok(key) = issuer.key().and_then(|key| self.signing_key(&call.mount, key)) else { return Ok(()) };
        key.require_scheme(algorithm.scheme()).map_err(|fault| {
            Fault::invalid(format!("revocation_signature_algorithm cannot be {}: {fault}", algorithm.name()))
        })
    }

    /// `DELETE issuer/:ref`. Its key stays, and so does what it issued.
    pub(super) async fn delete_issuer(self: Arc<Self>, call: Call, reference: String) -> Result<Response, Fault> {
        let told = reference.clone();
        let remove = self.edit(&call, move |registry| {
            let id = registry.issuer_id(&reference)?.to_owned();
            let was_default = registry.remove_issuer(&id);
            Ok((id, was_default))
        });
        let (id, was_default) = remove.await?;
        tracing::info!(
            issuer = id, mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "issuer deleted"
        );
        if !was_default {
            return Ok(Response::Empty);
        }
        let warning = format!(
            "Deleted issuer {id} (via issuer_ref {told}); this was configured as the default issuer. Operations without an \
             explicit issuer will not work until a new default is configured."
        );
        Ok(Response::with_warnings(Data::new(), vec![warning]))
    }
}

impl Issuer {
    /// The certificates of its chain in PEM, itself first.
    pub(super) fn chain_pem(&self) -> Vec<String> {
        self.chain.iter().map(|certificate| format!("{}\n", certificate.pem)).collect()
    }

    /// As it is read.
    pub(super) fn show(&self) -> Data {
        let settings = &self.record.settings;
        let revoked = self.record.revoked.unwrap_or(0);
        let manual = (!settings.manual_chain.is_empty()).then_some(&settings.manual_chain);
        let algorithm = settings.revocation_signature_algorithm;
        let mut data = object(json!({
            "issuer_id": self.id(),
            "issuer_name": self.name(),
            "key_id": self.record.key_id,
            "certificate": format!("{}\n", self.certificate.pem),
            "ca_chain": self.chain_pem(),
            "manual_chain": manual,
            "leaf_not_after_behavior": settings.leaf_not_after_behavior.name(),
            "usage": settings.usage.names(),
            "revocation_signature_algorithm": algorithm.map(SignatureAlgorithm::name).unwrap_or_default(),
            "revoked": self.record.revoked.is_some(),
            "revocation_time": revoked,
            "revocation_time_rfc3339": if revoked == 0 { String::new() } else { validity::rfc3339(revoked) },
        }));
        data.extend(settings.urls.clone().unwrap_or_default().show(TEMPLATING));
        data.extend(CHECKS.map(|name| (name.to_owned(), Value::Bool(false))));
        data
    }
}

/// `base` with what a request names.
fn updated(
    base: IssuerSettings,
    fields: &mut Fields<'_>,
    registry: &Registry,
    entry: &IssuerEntry,
) -> Result<IssuerSettings, Fault> {
    let id = &entry.record.id;
    let mut settings = base;
    if let Some(name) = fields.text("issuer_name")? {
        settings.name = name;
    }
    registry.check_issuer_name(&settings.name, id)?;
    if let Some(behavior) = fields.filled("leaf_not_after_behavior")? {
        settings.leaf_not_after_behavior = LeafNotAfterBehavior::parse(&behavior)?;
    }
    if let Some(links) = fields.list("manual_chain")? {
        settings.manual_chain = manual_chain(&links, registry, id)?;
    }
    if let Some(names) = fields.list("usage")? {
        let asked = IssuerUsages::parse(&names)?;
        if asked.clone().within(&entry.certificate) != asked {
            return Err(Fault::invalid(format!(
                "This issuer's underlying certificate lacks a KeyUsage value (CertSign, CRLSign) that usage {} needs; unable \
                 to set it on this issuer as a result.",
                asked.names()
            )));
        }
        settings.usage = asked;
    }
    settings.usage = settings.usage.within(&entry.certificate);
    if let Some(name) = fields.text("revocation_signature_algorithm")? {
        settings.revocation_signature_algorithm = match name.as_str() {
            "" => None,
            name => Some(SignatureAlgorithm::for_key(name, entry.certificate.public_key.kind)?),
        };
    }
    let urls = settings.urls.unwrap_or_default().updated(fields, TEMPLATING)?;
    settings.urls = (urls != Urls::default()).then_some(urls);
    Ok(settings)
}

fn manual_chain(links: &[String], registry: &Registry, own: &str) -> Result<Vec<String>, Fault> {
    if links.len() > MANUAL_CHAIN_MAX {
        return Err(Fault::invalid(format!("manual_chain has more than {MANUAL_CHAIN_MAX} links")));
    }
    let ids: Vec<String> =
        links.iter().map(|link| registry.issuer_id(link).map(str::to_owned)).collect::<Result<_, _>>()?;
    // "self" is Vault's rule: a chain begins with the issuer it is of.
    if ids.first().is_some_and(|first| first != own) {
        return Err(Fault::invalid(format!(
            "unable to build manual chain: the first link must be the issuer itself ({own}), not {}",
            ids.first().map_or("", String::as_str)
        )));
    }
    Ok(ids)
}

fn object(value: Value) -> Data {
    value.as_object().cloned().unwrap_or_default()
}
