//! `root/sign-intermediate`: the certificate of a CA below an issuer of this mount.

use const_oid::db::rfc5280;
use der::flagset::FlagSet;
use x509_cert::ext::pkix::KeyUsages;

use super::ca_fields::{self, Lifetime};
use super::csr::Csr;
use super::format::Format;
use super::issuer::Issuer;
use super::issuer_usage::IssuerUsage;
use super::leaf::{Plan, SignAnswer};
use super::lint::{Advice, Rules};
use super::registry::DEFAULT;
use super::san::AlternativeNames;
use super::sign::csr_of;
use super::validity::{self, Validity};
use super::{Pki, extensions, requested, subject};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// The longest SubjectKeyIdentifier a request may state, in bytes.
const KEY_IDENTIFIER_MAX: usize = 64;

/// What a request says, read as far as that goes without its issuer.
struct IntermediateFields {
    subject: Vec<u8>,
    names: AlternativeNames,
    path_length: Option<u8>,
    /// Whether what it says is ours to say.
    advice: Advice,
    /// Encoded: KeyUsage, alternative names, name constraints and what was taken over from the CSR.
    extensions: Vec<u8>,
    key_identifier: Option<Vec<u8>>,
    is_end_enforced: bool,
    signature_bits: u32,
    use_pss: bool,
    lifetime: Lifetime,
    format: Format,
    warnings: Vec<String>,
}

impl IntermediateFields {
    fn parse(fields: &mut Fields<'_>, csr: &Csr) -> Result<IntermediateFields, Fault> {
        let mut warnings = Vec::new();
        let name_constraints = extensions::name_constraints(fields)?;
        let usages = ca_fields::key_usages(fields)?;
        let is_as_requested = fields.boolean("use_csr_values")?.unwrap_or(false);
        let mut encoded = extensions::key_usage(match is_as_requested {
            true => as_requested(csr, usages)?,
            false => usages,
        })?;
        let (subject, names) = if is_as_requested {
            let mut own = vec![rfc5280::ID_CE_KEY_USAGE];
            own.extend((!name_constraints.is_empty()).then_some(rfc5280::ID_CE_NAME_CONSTRAINTS));
            encoded.extend(requested::extensions(csr, &own)?);
            from_csr(csr, fields)?
        } else {
            let (subject, names) = ca_fields::subject_and_names(fields, &mut warnings)?;
            encoded.extend(names.extension(subject::is_empty(&subject))?.unwrap_or_default());
            (subject, names)
        };
        encoded.extend(name_constraints);
        Ok(IntermediateFields {
            subject,
            names,
            path_length: ca_fields::path_length(fields)?,
            advice: if is_as_requested { Advice::Told } else { Advice::Binding },
            extensions: encoded,
            key_identifier: key_identifier(fields)?,
            is_end_enforced: fields.boolean("enforce_leaf_not_after_behavior")?.unwrap_or(false),
            signature_bits: ca_fields::signature_bits(fields)?,
            use_pss: fields.boolean("use_pss")?.unwrap_or(false),
            lifetime: Lifetime::parse(fields)?,
            format: Format::parse(fields)?,
            warnings,
        })
    }

    fn plan(mut self, call: &Call, issuer: &Issuer) -> Result<(Plan, Format), Fault> {
        let path_length = issuer.path_length_below(self.path_length)?;
        self.extensions.extend(ca_fields::basic_constraints(path_length, &mut self.warnings)?);
        let (validity, warning) = Validity::plan(&self.lifetime.wish(), &call.mount.config, validity::now())?;
        self.warnings.extend(warning);
        let plan = Plan {
            subject: self.subject,
            names: self.names,
            validity,
            // It is among the extensions.
            key_usages: FlagSet::default(),
            extensions: self.extensions,
            rules: Rules::Rfc5280,
            advice: self.advice,
            signature_bits: self.signature_bits,
            use_pss: self.use_pss,
            is_stored: true,
            is_ca: true,
            key_identifier: self.key_identifier,
            lease: None,
            warnings: self.warnings,
        };
        let beyond = issuer.record.settings.leaf_not_after_behavior.for_ca(self.is_end_enforced);
        Ok((plan.within(issuer, beyond)?, self.format))
    }
}

impl Pki {
    /// `POST root/sign-intermediate`, whose body may name the issuer, and `issuer/:ref/sign-intermediate`.
    pub(super) async fn sign_intermediate(
        &self,
        call: &Call,
        issuer: Option<&str>,
        data: &Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, if issuer.is_some() { &["issuer_ref"] } else { &[] });
        let named = if issuer.is_some() { None } else { fields.filled("issuer_ref")? };
        let authority = self.authority.load_full();
        let issuer = authority.issuer(issuer.or(named.as_deref()).unwrap_or(DEFAULT))?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        fields.value("csr");
        let csr = Csr::parse(&csr_of(data)?)?;
        let mut wanted = IntermediateFields::parse(&mut fields, &csr)?;
        wanted.warnings.extend(fields.warnings());
        if csr.has_unknown_names && issuer.constrains_names() {
            return Err(unjudged_names());
        }
        if csr.public_key.spki == issuer.certificate.public_key.spki
            && wanted.subject == issuer.certificate.x509.subject
        {
            wanted.warnings.push("the certificate request is the issuer's own: same name, same key".into());
        }
        let (plan, format) = wanted.plan(call, issuer)?;
        let certified = self.certify(call, &signatory, plan, &csr.public_key, "sign-intermediate").await?;
        SignAnswer::new(certified, issuer, format, false).response()
    }
}

/// Alternative names of kinds that name constraints are not judged for.
pub(super) fn unjudged_names() -> Fault {
    Fault::invalid(
        "the certificate request has alternative names of a kind that cannot be judged by the name constraints of the issuer's \
         own certificate",
    )
}

/// The key usages that the CSR asks for, with what the request's own field adds; `usages` where it asks for none. A CA that may
/// sign no certificates is none.
fn as_requested(csr: &Csr, usages: FlagSet<KeyUsages>) -> Result<FlagSet<KeyUsages>, Fault> {
    let Some(wanted) = requested::key_usages(csr)? else { return Ok(usages) };
    if !wanted.contains(KeyUsages::KeyCertSign) {
        return Err(Fault::invalid(
            "the certificate request asks for key usages without keyCertSign, which a CA needs (RFC 5280, 4.2.1.3): make one \
             that asks for it, or for no key usages, or leave use_csr_values out",
        ));
    }
    Ok(wanted | (usages & KeyUsages::DigitalSignature))
}

/// The subject and names of the CSR itself. The fields that would say them are known, and of no account.
fn from_csr(csr: &Csr, fields: &mut Fields<'_>) -> Result<(Vec<u8>, AlternativeNames), Fault> {
    let ignored = [
        "common_name",
        "alt_names",
        "ip_sans",
        "uri_sans",
        "other_sans",
        "exclude_cn_from_sans",
        "serial_number",
        "ou",
        "organization",
        "country",
        "locality",
        "province",
        "street_address",
        "postal_code",
    ];
    for name in ignored {
        fields.value(name);
    }
    if subject::is_empty(&csr.subject) {
        // RFC 5280, 4.1.2.4: an issuer has a name.
        return Err(Fault::invalid("the certificate request has no subject, and a CA needs one"));
    }
    Ok((csr.subject.clone(), csr.names.clone()))
}

/// `skid`: hexadecimal, with colons or without.
fn key_identifier(fields: &mut Fields<'_>) -> Result<Option<Vec<u8>>, Fault> {
    let Some(text) = fields.filled("skid")? else { return Ok(None) };
    let digits: String = text.chars().filter(|digit| !matches!(digit, ':' | '-' | ' ')).collect();
    let bytes = hex::decode(digits).ok().filter(|bytes| !bytes.is_empty() && bytes.len() <= KEY_IDENTIFIER_MAX);
    bytes.map(Some).ok_or_else(|| {
        Fault::invalid(format!("cannot parse given SKID value as hex: {text:?} (1 to {KEY_IDENTIFIER_MAX} bytes)"))
    })
}
