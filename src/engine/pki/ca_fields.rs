//! The fields that requests for CA certificates have alike: roots, intermediates, and what is signed for others.

use der::flagset::FlagSet;
use x509_cert::ext::pkix::KeyUsages;

use super::algorithm::unsupported_bits;
use super::request::{self, alternative_names};
use super::san::AlternativeNames;
use super::subject::{self, Subject, SubjectFields};
use super::validity::{self, Wish};
use super::{extensions, usage};
use crate::model::{Fault, Fields};

/// DER of the subject, and the alternative names: of `common_name`, the subject's fields and the names' fields.
pub(super) fn subject_and_names(
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

/// `max_path_length`: `None` if there is to be no limit of its own.
pub(super) fn path_length(fields: &mut Fields<'_>) -> Result<Option<u8>, Fault> {
    match fields.integer("max_path_length")?.unwrap_or(-1) {
        -1 => Ok(None),
        other => u8::try_from(other)
            .map(Some)
            .map_err(|_| Fault::invalid(format!("max_path_length {other} is not from -1 (no limit) to 255"))),
    }
}

/// BasicConstraints of a CA, encoded.
pub(super) fn basic_constraints(path_length: Option<u8>, warnings: &mut Vec<String>) -> Result<Vec<u8>, Fault> {
    if path_length == Some(0) {
        warnings.push(
            "Max path length of the certificate is zero. This certificate cannot be used to issue intermediate CA \
             certificates."
                .into(),
        );
    }
    extensions::basic_constraints(true, path_length)
}

/// KeyUsage of a CA, encoded.
pub(super) fn key_usage(fields: &mut Fields<'_>) -> Result<Vec<u8>, Fault> {
    extensions::key_usage(key_usages(fields)?)
}

/// The key usages of a CA.
pub(super) fn key_usages(fields: &mut Fields<'_>) -> Result<FlagSet<KeyUsages>, Fault> {
    let base = KeyUsages::KeyCertSign | KeyUsages::CRLSign;
    let asked = usage::key_usages(&fields.list("key_usage")?.unwrap_or_default())?;
    if !(base | KeyUsages::DigitalSignature).contains(asked) {
        return Err(Fault::invalid(
            "key_usage: a CA certificate has CertSign and CRLSign; only DigitalSignature may be added",
        ));
    }
    Ok(base | asked)
}

/// `signature_bits`: 0 is what suits the key.
pub(super) fn signature_bits(fields: &mut Fields<'_>) -> Result<u32, Fault> {
    match fields.integer("signature_bits")?.unwrap_or(0) {
        0 => Ok(0),
        256 => Ok(256),
        384 => Ok(384),
        512 => Ok(512),
        other => Err(unsupported_bits(other)),
    }
}

/// How long it is to be valid: `ttl` or `not_after`, and `not_before_duration`.
pub(super) struct Lifetime {
    ttl: Option<std::time::Duration>,
    not_after: String,
    not_before: u64,
}

impl Lifetime {
    /// Reads the fields.
    pub(super) fn parse(fields: &mut Fields<'_>) -> Result<Lifetime, Fault> {
        let not_before = fields.duration("not_before_duration")?.map_or(30, |span| span.as_secs());
        validity::check_not_before(not_before)?;
        Ok(Lifetime {
            ttl: fields.duration("ttl")?,
            not_after: fields.filled("not_after")?.unwrap_or_default(),
            not_before,
        })
    }

    /// As a wish. A CA's own `not_after` is an operator's word, as a role's is.
    pub(super) fn wish(&self) -> Wish<'_> {
        Wish { ttl: self.ttl, role_not_after: &self.not_after, not_before: self.not_before, ..Wish::default() }
    }
}
