//! `root/generate/kms`: a self-signed CA certificate on a managed key.

use std::sync::Arc;

use serde_json::json;
use x509_cert::ext::pkix::KeyUsages;

use super::algorithm::{SignatureAlgorithm, unsupported_bits};
use super::certificate::{Issued, Parts, Prepared};
use super::format::Format;
use super::issuer::{DefaultIssuer, IssuerRecord};
use super::keys::SigningKey;
use super::lint::Rules;
use super::request::{self, alternative_names};
use super::san::AlternativeNames;
use super::subject::{Subject, SubjectFields};
use super::validity::{self, Validity, Wish};
use super::{Pki, extensions, pem, subject, usage};
use crate::engine::{Call, name};
use crate::managed_keys::KeyRef;
use crate::model::{Data, Fault, Fields, PublicKey, Response};
use crate::store::Write;

/// A request for a root, read and checked as far as that goes without its key.
struct RootRequest {
    managed_key: ManagedKey,
    issuer_name: String,
    key_name: String,
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

enum ManagedKey {
    Name(String),
    Uuid(String),
}

impl ManagedKey {
    fn parse(fields: &mut Fields<'_>) -> Result<ManagedKey, Fault> {
        match (fields.filled("managed_key_name")?, fields.filled("managed_key_id")?) {
            (Some(name), None) => Ok(ManagedKey::Name(name)),
            (None, Some(uuid)) => Ok(ManagedKey::Uuid(uuid)),
            (None, None) => Err(Fault::invalid(
                "unable to determine managed key id: missing argument managed_key_name or managed_key_id",
            )),
            (Some(_), Some(_)) => {
                Err(Fault::invalid("only one argument of managed_key_name or managed_key_id should be specified"))
            }
        }
    }

    fn reference(&self) -> KeyRef<'_> {
        match self {
            ManagedKey::Name(name) => KeyRef::Name(name),
            ManagedKey::Uuid(uuid) => KeyRef::Uuid(uuid),
        }
    }
}

impl RootRequest {
    fn parse(call: &Call, data: &Data) -> Result<RootRequest, Fault> {
        let mut fields = Fields::new(data);
        if fields.value("key_type").is_some() || fields.value("key_bits").is_some() {
            return Err(Fault::invalid(
                "invalid parameter for the kms/existing path parameter, key_type nor key_bits arguments can be set in \
                 this mode",
            ));
        }
        // No private key is ever answered, so its format is of no account.
        fields.value("private_key_format");
        let managed_key = ManagedKey::parse(&mut fields)?;
        let mut warnings = Vec::new();
        let (subject, names) = subject_and_names(&mut fields, &mut warnings)?;
        let basic_constraints = basic_constraints(&mut fields, &mut warnings)?;
        let (validity, warning) = validity(call, &mut fields)?;
        warnings.extend(warning);
        let request = RootRequest {
            managed_key,
            issuer_name: entry_name(&mut fields, "issuer_name")?,
            key_name: entry_name(&mut fields, "key_name")?,
            subject,
            names,
            key_usage: key_usage(&mut fields)?,
            basic_constraints,
            name_constraints: extensions::name_constraints(&mut fields)?,
            signature_bits: signature_bits(&mut fields)?,
            use_pss: fields.boolean("use_pss")?.unwrap_or(false),
            validity,
            format: Format::parse(&mut fields)?,
            warnings,
        };
        let ignored = fields.warnings();
        Ok(RootRequest { warnings: request.warnings.into_iter().chain(ignored).collect(), ..request })
    }

    fn prepare(&self, key: &SigningKey, public_key: &PublicKey) -> Result<(SignatureAlgorithm, Prepared), Fault> {
        let algorithm =
            SignatureAlgorithm::choose(public_key.kind, self.signature_bits, self.use_pss || key.prefers_pss()?)?;
        key.require_scheme(algorithm.scheme())?;
        let identifier = extensions::key_identifier(public_key)?;
        let names = self.names.extension(subject::is_empty(&self.subject))?.unwrap_or_default();
        let prepared = Prepared::new(&Parts {
            algorithm,
            // Self-signed: it is its own issuer.
            issuer: &self.subject,
            validity: self.validity,
            subject: &self.subject,
            public_key,
            rules: Rules::Rfc5280,
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
    /// `POST root/generate/kms`.
    pub(super) async fn generate_root(self: &Arc<Self>, call: &Call, data: &Data) -> Result<Response, Fault> {
        let request = RootRequest::parse(call, data)?;
        self.refuse_second_issuer()?;
        let terms = call.terms();
        let (key, public_key) = self.keys.resolve(&call.mount, request.managed_key.reference())?.ready(terms).await?;
        let (algorithm, prepared) = request.prepare(&key, &public_key)?;
        let signed = prepared.sign_and_verify(&key, &public_key, terms).await?;
        let record = IssuerRecord {
            id: uuid::Uuid::new_v4().to_string(),
            name: request.issuer_name.clone(),
            key_id: uuid::Uuid::new_v4().to_string(),
            key_name: request.key_name.clone(),
            managed_key: key.uuid().to_owned(),
            algorithm,
            certificate: pem::encode(pem::CERTIFICATE, signed.der())?,
        };
        let mut writes = vec![
            Write::create_record(self.records.default_issuer(), &DefaultIssuer { id: record.id.clone() })?,
            Write::create_record(self.records.issuer(&record.id), &record)?,
        ];
        writes.extend(self.keys.note_use(&call.mount, key.uuid(), &user(&record.id)));
        let stored = signed.store(&self.store, &self.records, writes).await;
        let issued = stored.map_err(|fault| match fault {
            // Another request was first; the record that there is one per mount is made, never replaced.
            Fault::InvalidRequest { .. } => self.refuse_second_issuer().err().unwrap_or(fault),
            other => other,
        })?;
        Arc::clone(self).change(Pki::reload_authority).await?;
        self.telemetry.certificate_issued();
        tracing::info!(
            serial = %issued.serial(), issuer = %record.id, key = key.name(), mount = %call.mount.path,
            namespace = %call.mount.namespace, uid = call.caller.peer.uid, pid = call.caller.peer.pid,
            "root certificate issued"
        );
        self.publish_certificate(call).await;
        let mut warnings = request.warnings;
        if self.authority.load().urls.is_empty() {
            warnings.push(
                "This mount hasn't configured any authority information access (AIA) fields; this may make it harder for \
                 systems to find missing certificates in the chain or to validate revocation status of certificates. \
                 Set them with config/urls."
                    .into(),
            );
        }
        if let Err(fault) = self.rebuild_crl(call).await {
            warnings.push(format!("the first CRL could not be made yet ({fault}); it is tried again by itself"));
        }
        answer(&issued, &record, request.format, warnings)
    }

    fn refuse_second_issuer(&self) -> Result<(), Fault> {
        let present = self.store.read::<DefaultIssuer>(&self.records.default_issuer())?;
        match present {
            None => Ok(()),
            Some(issuer) => Err(Fault::invalid(format!(
                "this mount already has an issuer ({}): enable another pki mount for another CA",
                issuer.id
            ))),
        }
    }
}

/// How an issuer is named as the user of a managed key.
pub(super) fn user(issuer: &str) -> String {
    format!("issuer {issuer}")
}

fn answer(issued: &Issued, record: &IssuerRecord, format: Format, warnings: Vec<String>) -> Result<Response, Fault> {
    let certificate = format.certificate(issued.der())?;
    let value = json!({
        "certificate": certificate,
        "issuing_ca": certificate,
        "serial_number": issued.serial().to_string(),
        "expiration": issued.expiration(),
        "issuer_id": record.id,
        "issuer_name": record.name,
        "key_id": record.key_id,
        "key_name": record.key_name,
    });
    Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), warnings))
}

fn subject_and_names(
    fields: &mut Fields<'_>,
    warnings: &mut Vec<String>,
) -> Result<(Vec<u8>, AlternativeNames), Fault> {
    let common_name = fields.filled("common_name")?;
    let exclude = fields.boolean("exclude_cn_from_sans")?.unwrap_or(false);
    let mut names = alternative_names(fields)?;
    if let Some(name) = common_name.as_deref().filter(|_| !exclude) {
        request::add_common_name(&mut names, name)?;
    }
    let serial_number = fields.filled("serial_number")?;
    let stated = SubjectFields::parse(fields)?;
    let subject = Subject {
        fields: Some(&stated),
        common_name: common_name.as_deref(),
        serial_number: serial_number.as_deref(),
        user_ids: &[],
    };
    let subject = subject.encode()?;
    if subject::is_empty(&subject) {
        // RFC 5280, 4.1.2.4: an issuer has a name.
        return Err(Fault::invalid("the common_name field is required for a CA certificate, or another subject field"));
    }
    if common_name.is_none() {
        warnings.push("common_name field was not provided; CA certificates are easier to tell apart with one".into());
    }
    Ok((subject, names))
}

fn basic_constraints(fields: &mut Fields<'_>, warnings: &mut Vec<String>) -> Result<Vec<u8>, Fault> {
    let path_length = match fields.integer("max_path_length")?.unwrap_or(-1) {
        -1 => None,
        0 => {
            warnings.push(
                "Max path length of the certificate is zero. This certificate cannot be used to issue intermediate CA \
                 certificates."
                    .into(),
            );
            Some(0)
        }
        other => Some(
            u8::try_from(other)
                .map_err(|_| Fault::invalid(format!("max_path_length {other} is not from -1 (no limit) to 255")))?,
        ),
    };
    extensions::basic_constraints(true, path_length)
}

fn key_usage(fields: &mut Fields<'_>) -> Result<Vec<u8>, Fault> {
    let base = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let asked = usage::key_usages(&fields.list("key_usage")?.unwrap_or_default())?;
    if !(base | KeyUsages::DigitalSignature).contains(asked) {
        return Err(Fault::invalid(
            "key_usage: a CA certificate has CertSign and CRLSign; only DigitalSignature may be added",
        ));
    }
    extensions::key_usage(base | asked)
}

fn signature_bits(fields: &mut Fields<'_>) -> Result<u32, Fault> {
    match fields.integer("signature_bits")?.unwrap_or(0) {
        0 => Ok(0),
        256 => Ok(256),
        384 => Ok(384),
        512 => Ok(512),
        other => Err(unsupported_bits(other)),
    }
}

fn entry_name(fields: &mut Fields<'_>, field: &'static str) -> Result<String, Fault> {
    let name = fields.filled(field)?.unwrap_or_default();
    if name == "default" {
        return Err(Fault::invalid(format!("{field} can not be the reserved word \"default\"")));
    }
    if !name.is_empty() && !name::is_name(&name) {
        return Err(Fault::invalid(format!("{field} {name:?} has characters other than letters, digits, _, - and .")));
    }
    Ok(name)
}

fn validity(call: &Call, fields: &mut Fields<'_>) -> Result<(Validity, Option<String>), Fault> {
    let not_before = fields.duration("not_before_duration")?.map_or(30, |span| span.as_secs());
    validity::check_not_before(not_before)?;
    let not_after = fields.filled("not_after")?.unwrap_or_default();
    let ttl = fields.duration("ttl")?;
    // A root's own `not_after` is an operator's word, as a role's is.
    let wish = Wish { ttl, role_not_after: &not_after, not_before, ..Wish::default() };
    Validity::plan(&wish, &call.mount.config, None, validity::now())
}
