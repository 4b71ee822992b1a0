//! What a request for a certificate says beside its CSR: the fields of `sign/:role`.

use std::time::Duration;

use super::format::Format;
use super::names;
use super::san::{AlternativeNames, OtherSan};
use crate::model::{Data, Fault, Fields};

/// The fields of one request.
#[derive(Clone, Debug)]
pub(super) struct SignFields {
    pub(super) common_name: Option<String>,
    /// `alt_names`, `ip_sans`, `uri_sans` and `other_sans`.
    pub(super) names: AlternativeNames,
    pub(super) ttl: Option<Duration>,
    pub(super) not_after: Option<String>,
    pub(super) format: Format,
    pub(super) exclude_cn_from_sans: bool,
    pub(super) remove_roots_from_chain: bool,
    pub(super) user_ids: Vec<String>,
    pub(super) serial_number: Option<String>,
    /// On what nobody reads.
    pub(super) warnings: Vec<String>,
}

impl SignFields {
    /// Reads them, of a request to a path that names a role and perhaps an issuer. The fields `elsewhere` are read elsewhere,
    /// or of no account where no private key is made.
    pub(super) fn parse(data: &Data, issuer: Option<&str>, elsewhere: &[&'static str]) -> Result<SignFields, Fault> {
        let in_path: &[&str] = if issuer.is_some() { &["role", "issuer_ref"] } else { &["role"] };
        let mut fields = Fields::below(data, in_path);
        for name in elsewhere {
            fields.value(name);
        }
        fields.refuse(&["cert_metadata"])?;
        if issuer.is_none() {
            // Who signs is the role's to say, or the path's.
            fields.refuse(&["issuer_ref"])?;
        }
        Ok(SignFields {
            common_name: fields.filled("common_name")?,
            names: alternative_names(&mut fields)?,
            ttl: fields.duration("ttl")?,
            not_after: fields.filled("not_after")?,
            format: Format::parse(&mut fields)?,
            exclude_cn_from_sans: fields.boolean("exclude_cn_from_sans")?.unwrap_or(false),
            remove_roots_from_chain: fields.boolean("remove_roots_from_chain")?.unwrap_or(false),
            user_ids: fields.list("user_ids")?.unwrap_or_default(),
            serial_number: fields.filled("serial_number")?,
            warnings: fields.warnings(),
        })
    }
}

/// Reads `alt_names`, `ip_sans`, `uri_sans` and `other_sans`.
pub(super) fn alternative_names(fields: &mut Fields<'_>) -> Result<AlternativeNames, Fault> {
    let mut found = AlternativeNames::default();
    for name in fields.list("alt_names")?.unwrap_or_default() {
        if name.contains('@') {
            found.add_email(&name)?;
        } else {
            found.add_dns(&name)?;
        }
    }
    for text in fields.list("ip_sans")?.unwrap_or_default() {
        let address = names::parse_ip(&text);
        found
            .add_ip(address.ok_or_else(|| Fault::invalid(format!("the value {text:?} is not a valid IP address")))?)?;
    }
    for uri in fields.list("uri_sans")?.unwrap_or_default() {
        found.add_uri(&uri)?;
    }
    for text in fields.list("other_sans")?.unwrap_or_default() {
        found.add_other(OtherSan::parse(&text)?)?;
    }
    Ok(found)
}

/// Adds a common name to the alternative names, if it is an email address or a host name; other names (`Example Root`)
/// have no place there.
pub(super) fn add_common_name(found: &mut AlternativeNames, name: &str) -> Result<(), Fault> {
    if name.contains('@') {
        if names::is_email(name) {
            found.add_email(name)?;
        }
    } else if names::is_hostname(name) {
        found.add_dns(name)?;
    }
    Ok(())
}
