//! Roots: self-signed CA certificates. `root/generate/:type`, `root/rotate/:type`, `root/replace` and `DELETE root`.

use std::sync::Arc;

use serde_json::json;

use super::algorithm::SignatureAlgorithm;
use super::ca_certificate::CaCertificate;
use super::ca_fields::{self, Lifetime};
use super::ca_key::{CaKey, CaKeyChoice};
use super::certificate::{Issued, Parts, Prepared};
use super::format::Format;
use super::issuer::{Issuer, IssuerSettings};
use super::lint::{Advice, Rules};
use super::registry::Registry;
use super::san::AlternativeNames;
use super::validity::{self, Validity};
use super::{Pki, extensions, subject};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// The name of an issuer that is to take over.
const NEXT: &str = "next";

/// A request for a root, read and checked as far as that goes without its key.
struct RootRequest {
    key: CaKeyChoice,
    key_name: String,
    issuer_name: String,
    subject: Vec<u8>,
    names: AlternativeNames,
    key_usage: Vec<u8>,
    basic_constraints: Vec<u8>,
    name_constraints: Vec<u8>,
    signature_bits: u32,
    use_pss: bool,
    validity: Validity,
    format: Format,
    warnings: Vec<String>,
}

impl RootRequest {
    fn parse(call: &Call, kind: &str, name: &str, data: &Data) -> Result<RootRequest, Fault> {
        let mut fields = Fields::below(data, &["exported"]);
        let key = CaKeyChoice::parse(kind, &mut fields)?;
        // No private key is ever answered, so its format is of no account.
        fields.value("private_key_format");
        let mut warnings = Vec::new();
        let (subject, names) = ca_fields::subject_and_names(&mut fields, &mut warnings)?;
        let path_length = ca_fields::path_length(&mut fields)?;
        let basic_constraints = ca_fields::basic_constraints(path_length, &mut warnings)?;
        let lifetime = Lifetime::parse(&mut fields)?;
        let (validity, warning) = Validity::plan(&lifetime.wish(), &call.mount.config, validity::now())?;
        warnings.extend(warning);
        let request = RootRequest {
            key,
            key_name: fields.filled("key_name")?.unwrap_or_default(),
            issuer_name: fields.filled("issuer_name")?.unwrap_or_else(|| name.to_owned()),
            subject,
            names,
            key_usage: ca_fields::key_usage(&mut fields)?,
            basic_constraints,
            name_constraints: extensions::name_constraints(&mut fields)?,
            signature_bits: ca_fields::signature_bits(&mut fields)?,
            use_pss: fields.boolean("use_pss")?.unwrap_or(false),
            validity,
            format: Format::parse(&mut fields)?,
            warnings,
        };
        let ignored = fields.warnings();
        Ok(RootRequest { warnings: request.warnings.into_iter().chain(ignored).collect(), ..request })
    }

    fn prepare(&self, key: &CaKey) -> Result<(SignatureAlgorithm, Prepared), Fault> {
        let algorithm = key.key.algorithm(key.public_key.kind, self.signature_bits, self.use_pss)?;
        let identifier = extensions::key_identifier(&key.public_key)?;
        let names = self.names.extension(subject::is_empty(&self.subject))?.unwrap_or_default();
        let prepared = Prepared::new(&Parts {
            algorithm,
            // Self-signed: it is its own issuer.
            issuer: &self.subject,
            validity: self.validity,
            subject: &self.subject,
            public_key: &key.public_key,
            rules: Rules::Rfc5280,
            advice: Advice::Binding,
            extensions: &[
                &self.key_usage,
                &self.basic_constraints,
                &extensions::subject_key_identifier(&identifier)?,
                &extensions::authority_key_identifier(&identifier)?,
                &names,
                &self.name_constraints,
            ],
        })?;
        Ok((algorithm, prepared))
    }
}

impl Pki {
    /// `POST root/generate/:type`, `issuers/generate/root/:type`.
    pub(super) async fn generate_root(self: Arc<Self>, call: Call, kind: &str, data: &Data) -> Result<Response, Fault> {
        let request = RootRequest::parse(&call, kind, "", data)?;
        self.make_root(&call, request).await
    }

    /// `POST root/rotate/:type`: the same, for an issuer that is to take over.
    pub(super) async fn rotate_root(self: Arc<Self>, call: Call, kind: &str, data: &Data) -> Result<Response, Fault> {
        let request = RootRequest::parse(&call, kind, NEXT, data)?;
        self.make_root(&call, request).await
    }

    async fn make_root(self: &Arc<Self>, call: &Call, request: RootRequest) -> Result<Response, Fault> {
        // Before the token is asked; and again when it is stored.
        self.authority.load().registry.check_issuer_name(&request.issuer_name, "")?;
        request.key.check_algorithm(request.signature_bits, request.use_pss)?;
        let key = self.ca_key(call, &request.key, request.key_name.clone()).await?;
        let (algorithm, prepared) = request.prepare(&key)?;
        let signed =
            prepared.record(&self.intents, "").await?.sign_and_verify(&key.key, &key.public_key, call.terms()).await?;
        let certificate = Arc::new(CaCertificate::parse(signed.der())?);
        let settings = IssuerSettings {
            name: request.issuer_name.clone(),
            revocation_signature_algorithm: Some(algorithm),
            ..IssuerSettings::default()
        };
        let managed_key = key.key.name().to_owned();
        let add = move |registry: &mut Registry| {
            key.add_to(registry)?;
            let id = registry.add_issuer(&certificate, settings)?.id().to_owned();
            registry.choose_default(std::slice::from_ref(&id));
            // The key comes back, so that one just made is held until it is stored.
            Ok((id, key))
        };
        let ((id, _), issued) = self.edit_with(call, signed, add).await?;
        self.counts.stored(&issued.serial());
        let authority = self.authority.load_full();
        let issuer = authority.issuer(&id)?;
        self.telemetry.certificate_issued();
        tracing::info!(
            serial = %issued.serial(), issuer = id, key = managed_key, mount = %call.mount.path,
            namespace = %call.mount.namespace, uid = call.caller.peer.uid, pid = call.caller.peer.pid,
            "root certificate issued"
        );
        let mut warnings = request.warnings;
        if authority.urls.is_empty() {
            warnings.push(
                "This mount hasn't configured any authority information access (AIA) fields; this may make it harder for \
                 systems to find missing certificates in the chain or to validate revocation status of certificates. \
                 Set them with config/urls."
                    .into(),
            );
        }
        warnings.extend(self.introduce(call, issuer).await);
        answer(&issued, issuer, request.format, warnings)
    }

    /// Publishes a new issuer and has its first CRL made. Answers a warning if that failed.
    pub(super) async fn introduce(self: &Arc<Self>, call: &Call, issuer: &Arc<Issuer>) -> Option<String> {
        self.publish_certificate(call, issuer).await;
        if !issuer.signs_crls() || self.crl_config.load().disable {
            return None;
        }
        let made = self.rebuild_crl(call, issuer.signer()).await;
        made.err().map(|fault| format!("the first CRL could not be made yet ({fault}); it is tried again by itself"))
    }

    /// `POST root/replace`: another issuer becomes the default, by default the one called `next`.
    pub(super) async fn replace_root(self: Arc<Self>, call: Call, data: &Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(data);
        let reference = fields.filled("default")?.unwrap_or_else(|| NEXT.into());
        let warnings = fields.warnings();
        self.set_default_issuer(&call, reference, None, warnings).await
    }

    /// `DELETE root`: every issuer and every key goes. The managed keys stay where they are.
    pub(super) async fn delete_root(self: Arc<Self>, call: Call) -> Result<Response, Fault> {
        let remove = |registry: &mut Registry| {
            let removed = (registry.issuers.len(), registry.keys.len());
            registry.issuers.clear();
            registry.keys.clear();
            registry.issuers_config.default.clear();
            registry.keys_config.default.clear();
            Ok(removed)
        };
        let (issuers, keys) = self.edit(&call, remove).await?;
        tracing::info!(
            issuers, keys, mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "every issuer and key of the mount was deleted"
        );
        let warning = format!(
            "Deleted {issuers} issuers and {keys} keys of this mount; managed keys and what they stand for in their tokens \
             were left alone."
        );
        Ok(Response::with_warnings(Data::new(), vec![warning]))
    }
}

fn answer(issued: &Issued, issuer: &Issuer, format: Format, warnings: Vec<String>) -> Result<Response, Fault> {
    let certificate = format.certificate(issued.der())?;
    let value = json!({
        "certificate": certificate,
        "issuing_ca": certificate,
        "serial_number": issued.serial().to_string(),
        "expiration": issued.expiration(),
        "issuer_id": issuer.id(),
        "issuer_name": issuer.name(),
        "key_id": issuer.record.key_id,
        "key_name": issuer.key.as_ref().map_or("", |key| &key.record.name),
    });
    Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), warnings))
}
