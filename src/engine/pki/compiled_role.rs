//! A role ready to judge requests: from what is asked to what a certificate will say.

use der::flagset::FlagSet;
use x509_cert::ext::pkix::KeyUsages;

use super::allowed::{self, OtherSanRule};
use super::csr::Csr;
use super::issuer::Issuer;
use super::leaf::Plan;
use super::lease::Wanted;
use super::lint::Advice;
use super::request::{self, SignFields};
use super::role::{Role, SerialNumberSource};
use super::san::AlternativeNames;
use super::subject::{self, Subject};
use super::validity::{self, Validity, Wish};
use super::{extensions, lease, usage};
use crate::engine::Call;
use crate::model::{Fault, MountConfig};

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

    /// The lease of what is issued at `verb/:role`, if it has one. `issuer` is what the path names.
    pub(super) fn lease(&self, call: &Call, issuer: Option<&str>, verb: &str, role: &str) -> Option<Wanted> {
        let wanted = || Wanted { path: lease::path(issuer, verb, role), token: call.caller.token };
        self.role.generate_lease.then(wanted)
    }

    /// Judges a request by the role. Without a CSR its fields alone count.
    pub(super) fn plan(
        &self,
        csr: Option<&Csr>,
        fields: &SignFields,
        mount: &MountConfig,
        issuer: &Issuer,
    ) -> Result<Plan, Fault> {
        let role = &self.role;
        let mut warnings = fields.warnings.clone();
        let common_name = common_name(role, csr, fields, &mut warnings)?;
        let names = alternative_names(self, csr, fields, common_name, &mut warnings)?;
        let serial_number = serial_number(role, csr, fields)?;
        let from_csr = csr.map_or(&[][..], |csr| &csr.user_ids);
        let user_ids = if fields.user_ids.is_empty() { from_csr } else { &fields.user_ids };
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
        let (validity, warning) = Validity::plan(&wish, mount, validity::now())?;
        warnings.extend(warning);
        let mut extensions = self.extensions.clone();
        extensions.extend(names.extension(subject::is_empty(&subject))?.unwrap_or_default());
        let plan = Plan {
            subject,
            names,
            validity,
            key_usages: self.key_usages,
            extensions,
            rules: role.lint,
            advice: Advice::Binding,
            signature_bits: role.signature_bits,
            use_pss: role.use_pss,
            is_stored: !role.no_store,
            is_ca: false,
            lease: None,
            key_identifier: None,
            warnings,
        };
        plan.within(issuer, issuer.record.settings.leaf_not_after_behavior.for_leaf())
    }
}

fn common_name<'a>(
    role: &Role,
    csr: Option<&'a Csr>,
    fields: &'a SignFields,
    warnings: &mut Vec<String>,
) -> Result<Option<&'a str>, Fault> {
    let csr = csr.filter(|_| role.use_csr_common_name);
    let from_csr = csr.and_then(|csr| csr.common_name.as_deref());
    if csr.is_some() && fields.common_name.is_some() {
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

fn serial_number<'a>(role: &Role, csr: Option<&'a Csr>, fields: &'a SignFields) -> Result<Option<&'a str>, Fault> {
    let csr = csr.filter(|_| role.serial_number_source == SerialNumberSource::JsonCsr);
    let from_csr = csr.and_then(|csr| csr.serial_number.as_deref());
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
    csr: Option<&Csr>,
    fields: &SignFields,
    common_name: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<AlternativeNames, Fault> {
    let role = &compiled.role;
    let csr = csr.filter(|_| role.use_csr_sans);
    let mut names = if let Some(csr) = csr {
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
    check_names(compiled, &names, csr.is_some())?;
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
