//! `sign/:role`: from a CSR and a role to a certificate. HTTP's path and the hot operation meet here.

use bytes::Bytes;
use der::flagset::FlagSet;
use serde_json::json;
use x509_cert::ext::pkix::KeyUsages;

use super::algorithm::SignatureAlgorithm;
use super::allowed::{self, OtherSanRule};
use super::certificate::{Issued, Parts, Prepared};
use super::csr::{CSR_BYTES_MAX, Csr};
use super::format::Format;
use super::issuer::Issuer;
use super::keys::SigningKey;
use super::request::{self, SignFields};
use super::role::{Role, SerialNumberSource};
use super::san::AlternativeNames;
use super::subject::{self, Subject};
use super::validity::{self, Validity, Wish};
use super::{Pki, extensions, pem, usage};
use crate::engine::Call;
use crate::model::{Data, Fault, IssuedCertificate, MountConfig, Response};

/// A role with what every certificate of it has alike, made once.
#[derive(Clone, Debug)]
pub(super) struct CompiledRole {
    pub(super) role: Role,
    key_usages: FlagSet<KeyUsages>,
    /// Encoded.
    extensions: Vec<u8>,
    other_sans: Vec<OtherSanRule>,
}

impl CompiledRole {
    /// Prepares a role.
    pub(super) fn new(role: Role) -> Result<CompiledRole, Fault> {
        let key_usages = usage::key_usages(&role.key_usage)?;
        let extensions = extensions::of_role(&role)?;
        let other_sans = OtherSanRule::parse_all(&role.allowed_other_sans)?;
        Ok(CompiledRole { role, key_usages, extensions, other_sans })
    }
}

/// What a certificate will say, allowed by its role.
struct Plan {
    subject: Vec<u8>,
    names: AlternativeNames,
    validity: Validity,
    warnings: Vec<String>,
}

impl Plan {
    /// Judges a request by its role.
    fn new(
        compiled: &CompiledRole,
        csr: &Csr,
        fields: &SignFields,
        mount: &MountConfig,
        issuer: &Issuer,
    ) -> Result<Plan, Fault> {
        let role = &compiled.role;
        role.check_key(csr.public_key.kind)?;
        let mut warnings = fields.warnings.clone();
        let common_name = common_name(role, csr, fields, &mut warnings)?;
        let names = alternative_names(compiled, csr, fields, common_name, &mut warnings)?;
        let serial_number = serial_number(role, csr, fields)?;
        let user_ids = if fields.user_ids.is_empty() { &csr.user_ids } else { &fields.user_ids };
        if let Some(id) = user_ids.iter().find(|id| !allowed::any_glob(&role.allowed_user_ids, id)) {
            return Err(Fault::invalid(format!("user_id {id} is not allowed by this role")));
        }
        let subject = Subject { fields: Some(&role.subject), common_name, serial_number, user_ids }.encode()?;
        if subject::is_empty(&subject) && names.len() == 0 {
            return Err(Fault::invalid("the certificate would name nobody: neither a subject nor an alternative name"));
        }
        let wish = Wish {
            ttl: fields.ttl,
            not_after: fields.not_after.as_deref(),
            role_ttl: role.ttl,
            role_max_ttl: role.max_ttl,
            role_not_after: &role.not_after,
            not_before: role.not_before_duration,
        };
        let (validity, warning) = Validity::plan(&wish, mount, Some(issuer.ends), validity::now())?;
        warnings.extend(warning);
        Ok(Plan { subject, names, validity, warnings })
    }
}

/// A certificate issued, and what was noticed on the way.
pub(super) struct SignAnswer {
    issued: Issued,
    warnings: Vec<String>,
    fields: SignFields,
    issuer_pem: String,
    chain: Vec<Bytes>,
}

impl Pki {
    /// Issues a certificate: checks the CSR, judges it by the role, has it signed, stores it.
    pub(super) async fn issue(
        &self,
        call: &Call,
        role_name: &str,
        csr: &[u8],
        data: &Data,
    ) -> Result<SignAnswer, Fault> {
        let compiled = self.roles.load().get(role_name).cloned();
        let compiled = compiled.ok_or_else(|| Fault::invalid(format!("unknown role: {role_name}")))?;
        let authority = self.authority.load_full();
        let issuer = authority.issuer()?;
        let fields = SignFields::parse(data)?;
        let csr = Csr::parse(csr)?;
        let plan = Plan::new(&compiled, &csr, &fields, &call.mount.config, issuer)?;
        let key = self.signing_key(&call.mount, issuer)?;
        let algorithm = algorithm(&compiled.role, issuer, &key)?;
        let names = plan.names.extension(subject::is_empty(&plan.subject))?.unwrap_or_default();
        let prepared = Prepared::new(&Parts {
            algorithm,
            issuer: &issuer.name,
            validity: plan.validity,
            subject: &plan.subject,
            public_key: &csr.public_key,
            rules: compiled.role.lint,
            extensions: &[
                &extensions::leaf_key_usage(compiled.key_usages, csr.public_key.kind)?,
                &compiled.extensions,
                &extensions::subject_key_identifier(&extensions::key_identifier(&csr.public_key)?)?,
                &authority.leaf_extensions,
                &names,
            ],
        })?;
        let signed = prepared.sign(&key, call.terms()).await?;
        let issued = if compiled.role.no_store {
            signed.unstored()
        } else {
            signed.store(&self.store, &self.records, Vec::new()).await?
        };
        self.telemetry.certificate_issued();
        tracing::info!(
            serial = %issued.serial(), issuer = %issuer.record.id, role = role_name, key = key.name(),
            mount = %call.mount.path, namespace = %call.mount.namespace, uid = call.caller.peer.uid,
            pid = call.caller.peer.pid, "certificate issued"
        );
        Ok(SignAnswer {
            issued,
            warnings: plan.warnings,
            fields,
            issuer_pem: issuer.pem.clone(),
            chain: vec![issuer.certificate.clone()],
        })
    }

    /// `POST sign/:role`.
    pub(super) async fn sign_by_role(&self, call: &Call, role: &str, data: &Data) -> Result<Response, Fault> {
        let text = data.get("csr").and_then(serde_json::Value::as_str).unwrap_or_default();
        if text.is_empty() {
            return Err(Fault::invalid("\"csr\" is empty"));
        }
        // PEM is a third larger than DER, plus line ends and text around it.
        if text.len() > 2 * CSR_BYTES_MAX {
            return Err(Fault::TooLarge { what: format!("the csr has {} bytes of PEM", text.len()) });
        }
        let csr = pem::decode(text, &pem::REQUESTS)
            .ok_or_else(|| Fault::invalid("csr contains no data: expected one PEM block \"CERTIFICATE REQUEST\""))?;
        self.issue(call, role, &csr, data).await?.response()
    }
}

impl SignAnswer {
    /// As the hot operation answers it.
    pub(super) fn certificate(self) -> IssuedCertificate {
        IssuedCertificate {
            certificate: self.issued.der().clone(),
            chain: self.chain,
            serial: self.issued.serial().to_string(),
            expiration: self.issued.expiration(),
        }
    }

    fn response(self) -> Result<Response, Fault> {
        let format = self.fields.format;
        let issuing_ca = match (format, self.chain.first()) {
            (Format::Der, Some(der)) => format.certificate(der)?,
            _ => self.issuer_pem,
        };
        // The one issuer there is, is a root.
        let chain: Vec<&String> = if self.fields.remove_roots_from_chain { Vec::new() } else { vec![&issuing_ca] };
        let mut certificate = match format {
            Format::Der => format.certificate(self.issued.der())?,
            Format::Pem | Format::PemBundle => self.issued.pem()?,
        };
        if format == Format::PemBundle {
            for above in &chain {
                certificate = format!("{certificate}\n{above}");
            }
        }
        let value = json!({
            "certificate": certificate,
            "issuing_ca": issuing_ca,
            "ca_chain": chain,
            "serial_number": self.issued.serial().to_string(),
            "expiration": self.issued.expiration(),
        });
        Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), self.warnings))
    }
}

/// PSS where the role or the key's mechanism says so.
fn algorithm(role: &Role, issuer: &Issuer, key: &SigningKey) -> Result<SignatureAlgorithm, Fault> {
    let pss = role.use_pss || key.prefers_pss()?;
    let algorithm = SignatureAlgorithm::choose(issuer.public_key.kind, role.signature_bits, pss)?;
    key.require_scheme(algorithm.scheme())?;
    Ok(algorithm)
}

fn common_name<'a>(
    role: &Role,
    csr: &'a Csr,
    fields: &'a SignFields,
    warnings: &mut Vec<String>,
) -> Result<Option<&'a str>, Fault> {
    let from_csr = csr.common_name.as_deref().filter(|_| role.use_csr_common_name);
    if role.use_csr_common_name && fields.common_name.is_some() {
        warnings.push(
            "the common_name field was provided but the role is set with \"use_csr_common_name\" set to true".into(),
        );
    }
    let chosen = from_csr.or(fields.common_name.as_deref());
    match chosen {
        None if role.require_cn => Err(Fault::invalid(
            "the common_name field is required, or must be provided in a CSR with \"use_csr_common_name\" set to true, \
             unless \"require_cn\" is set to false",
        )),
        Some(name) if !allowed::common_name(role, name) => {
            Err(Fault::invalid(format!("common name {name} not allowed by this role")))
        }
        chosen => Ok(chosen),
    }
}

fn serial_number<'a>(role: &Role, csr: &'a Csr, fields: &'a SignFields) -> Result<Option<&'a str>, Fault> {
    let from_csr = csr.serial_number.as_deref().filter(|_| role.serial_number_source == SerialNumberSource::JsonCsr);
    let chosen = fields.serial_number.as_deref().or(from_csr);
    match chosen {
        Some(number) if !allowed::any_glob(&role.allowed_serial_numbers, number) => {
            Err(Fault::invalid(format!("serial_number {number} not allowed by this role")))
        }
        chosen => Ok(chosen),
    }
}

fn alternative_names(
    compiled: &CompiledRole,
    csr: &Csr,
    fields: &SignFields,
    common_name: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<AlternativeNames, Fault> {
    let role = &compiled.role;
    let mut names = if role.use_csr_sans {
        if csr.has_unknown_names {
            return Err(Fault::invalid(
                "the certificate request asks for a kind of subject alternative name that is not issued: only DNS names, \
                 email addresses, IP addresses, URIs and other names of type UTF8 are",
            ));
        }
        if fields.names.len() > fields.names.others.len() {
            warnings
                .push("the alt_names field was provided but the role is set with \"use_csr_sans\" set to true".into());
        }
        let mut names = csr.names.clone();
        for other in &fields.names.others {
            names.add_other(other.clone())?;
        }
        names
    } else {
        fields.names.clone()
    };
    if let Some(name) = common_name.filter(|_| !fields.exclude_cn_from_sans) {
        request::add_common_name(&mut names, name)?;
    }
    check_names(compiled, &names, role.use_csr_sans)?;
    Ok(names)
}

fn check_names(compiled: &CompiledRole, names: &AlternativeNames, from_csr: bool) -> Result<(), Fault> {
    let role = &compiled.role;
    let via = if from_csr { "CSR" } else { "the API" };
    if let Some(name) = names.dns.iter().find(|name| !allowed::name(role, name)) {
        return Err(Fault::invalid(format!("subject alternate name {name} not allowed by this role")));
    }
    if let Some(address) = names.emails.iter().find(|address| !allowed::name(role, address)) {
        return Err(Fault::invalid(format!("email address {address} not allowed by this role")));
    }
    if !names.ips.is_empty() && !role.allow_ip_sans {
        return Err(Fault::invalid(format!(
            "IP Subject Alternative Names are not allowed in this role, but was provided some via {via}"
        )));
    }
    if !names.uris.is_empty() && role.allowed_uri_sans.is_empty() {
        return Err(Fault::invalid(format!(
            "URI Subject Alternative Names are not allowed in this role, but were provided via {via}"
        )));
    }
    if names.uris.iter().any(|uri| !allowed::uri(role, uri)) {
        return Err(Fault::invalid(format!(
            "URI Subject Alternative Names were provided via {via} which are not valid for this role"
        )));
    }
    for other in &names.others {
        if !compiled.other_sans.iter().any(|rule| rule.allows(other)) {
            return Err(Fault::invalid(format!(
                "other SAN {} not allowed for OID {} by this role",
                other.value, other.oid
            )));
        }
    }
    Ok(())
}
