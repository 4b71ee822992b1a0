//! `sign-verbatim`: a certificate that says what its request says, for those who judge requests before they come here. It
//! is never a CA's.

use const_oid::db::rfc5280;
use der::flagset::FlagSet;
use x509_cert::ext::pkix::{ExtendedKeyUsage, KeyUsages};

use super::asn1::{encode, extension};
use super::csr::Csr;
use super::format::Format;
use super::issuer::Issuer;
use super::issuer_usage::IssuerUsage;
use super::leaf::{Plan, SignAnswer};
use super::lint::{Advice, Rules};
use super::registry::DEFAULT;
use super::role::Role;
use super::sign::csr_of;
use super::sign_intermediate::unjudged_names;
use super::validity::{self, Validity, Wish};
use super::{Pki, ca_fields, requested, subject, usage};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// How far back it begins, without a role.
const NOT_BEFORE: u64 = 30;

/// What a request says beside its CSR.
struct VerbatimFields {
    ttl: Option<std::time::Duration>,
    not_after: Option<String>,
    /// The CSR's own go before them.
    key_usages: FlagSet<KeyUsages>,
    /// Encoded; the CSR's own go before them.
    extended_key_usage: Vec<u8>,
    signature_bits: u32,
    use_pss: bool,
    format: Format,
    without_roots: bool,
    warnings: Vec<String>,
}

impl VerbatimFields {
    fn parse(data: &Data, in_path: &'static [&'static str]) -> Result<VerbatimFields, Fault> {
        let mut fields = Fields::below(data, in_path);
        for name in ["csr", "private_key_format"] {
            fields.value(name);
        }
        fields.refuse(&["cert_metadata"])?;
        let usages = match fields.list("key_usage")? {
            Some(names) => usage::key_usages(&names)?,
            None => KeyUsages::DigitalSignature | KeyUsages::KeyAgreement | KeyUsages::KeyEncipherment,
        };
        if usages.contains(KeyUsages::KeyCertSign) {
            return Err(Fault::invalid("key_usage CertSign is for certificate authorities only"));
        }
        let mut extended = usage::extended_key_usages(&fields.list("ext_key_usage")?.unwrap_or_default())?;
        let numbered = fields.list("ext_key_usage_oids")?.unwrap_or_default();
        extended.extend(usage::object_identifiers("ext_key_usage_oids", &numbered)?);
        let extended_key_usage = match extended.is_empty() {
            true => Vec::new(),
            false => extension(rfc5280::ID_CE_EXT_KEY_USAGE, false, &encode(&ExtendedKeyUsage(extended))?)?,
        };
        Ok(VerbatimFields {
            ttl: fields.duration("ttl")?,
            not_after: fields.filled("not_after")?,
            key_usages: usages,
            extended_key_usage,
            signature_bits: ca_fields::signature_bits(&mut fields)?,
            use_pss: fields.boolean("use_pss")?.unwrap_or(false),
            format: Format::parse(&mut fields)?,
            without_roots: fields.boolean("remove_roots_from_chain")?.unwrap_or(false),
            warnings: fields.warnings(),
        })
    }

    fn plan(&self, call: &Call, csr: &Csr, role: Option<&Role>, issuer: &Issuer) -> Result<Plan, Fault> {
        requested::refuse_ca(csr)?;
        if csr.has_unknown_names && issuer.constrains_names() {
            return Err(unjudged_names());
        }
        if subject::is_empty(&csr.subject) && !requested::asks_for(csr, rfc5280::ID_CE_SUBJECT_ALT_NAME) {
            return Err(Fault::invalid("the certificate would name nobody: neither a subject nor an alternative name"));
        }
        let mut encoded = requested::extensions(csr, &[])?;
        if !requested::asks_for(csr, rfc5280::ID_CE_EXT_KEY_USAGE) {
            encoded.extend_from_slice(&self.extended_key_usage);
        }
        let has_usage = requested::asks_for(csr, rfc5280::ID_CE_KEY_USAGE);
        let wish = Wish {
            ttl: self.ttl,
            not_after: self.not_after.as_deref(),
            role_ttl: role.map_or(0, |role| role.ttl),
            role_max_ttl: role.map_or(0, |role| role.max_ttl),
            role_not_after: "",
            not_before: role.map_or(NOT_BEFORE, |role| role.not_before_duration),
        };
        let (validity, warning) = Validity::plan(&wish, &call.mount.config, validity::now())?;
        let plan = Plan {
            subject: csr.subject.clone(),
            names: csr.names.clone(),
            validity,
            key_usages: if has_usage { FlagSet::default() } else { self.key_usages },
            extensions: encoded,
            rules: role.map_or(Rules::default(), |role| role.lint),
            advice: Advice::Told,
            signature_bits: self.signature_bits,
            use_pss: self.use_pss,
            is_stored: !role.is_some_and(|role| role.no_store),
            is_ca: false,
            lease: None,
            key_identifier: None,
            warnings: self.warnings.iter().cloned().chain(warning).collect(),
        };
        plan.within(issuer, issuer.record.settings.leaf_not_after_behavior.for_leaf())
    }
}

impl Pki {
    /// `POST sign-verbatim`, `sign-verbatim/:role` and the same below `issuer/:ref`. Of a role only its times, its issuer and
    /// whether it stores count.
    pub(super) async fn sign_verbatim(
        &self,
        call: &Call,
        issuer: Option<&str>,
        role: Option<&str>,
        data: &Data,
    ) -> Result<Response, Fault> {
        let in_path: &[&str] = match (issuer, role) {
            (None, None) => &[],
            (None, Some(_)) => &["role"],
            (Some(_), None) => &["issuer_ref"],
            (Some(_), Some(_)) => &["issuer_ref", "role"],
        };
        let fields = VerbatimFields::parse(data, in_path)?;
        let compiled = role.map(|role| self.role(role)).transpose()?;
        let of_role = compiled.as_ref().map(|compiled| &compiled.role);
        let authority = self.authority.load_full();
        let named = issuer;
        let reference = issuer.or(of_role.map(|role| role.issuer_ref.as_str())).unwrap_or(DEFAULT);
        let issuer = authority.issuer(reference)?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        let csr = Csr::parse(&csr_of(data)?)?;
        let mut plan = fields.plan(call, &csr, of_role, issuer)?;
        plan.lease =
            compiled.as_ref().zip(role).and_then(|(compiled, role)| compiled.lease(call, named, "sign-verbatim", role));
        let name = role.unwrap_or("sign-verbatim");
        let certified = self.certify(call, &signatory, plan, &csr.public_key, name).await?;
        SignAnswer::new(certified, issuer, fields.format, fields.without_roots).response()
    }
}
