//! `root/sign-self-issued`: another CA's own certificate, signed by an issuer of this mount, so that who trusts this one
//! comes to trust that one.

use const_oid::db::rfc5280;
use serde_json::json;

use super::asn1::encode;
use super::ca_certificate::CaCertificate;
use super::certificate::{Parts, Prepared};
use super::issuer_usage::{IssuerUsage, LeafNotAfterBehavior};
use super::lint::{Advice, Rules};
use super::registry::DEFAULT;
use super::san::AlternativeNames;
use super::validity::{Beyond, Validity};
use super::{Pki, pem};
use crate::engine::Call;
use crate::model::{Data, Fault, Fields, Response};

/// What its new issuer says instead.
const REPLACED: [const_oid::ObjectIdentifier; 4] = [
    rfc5280::ID_CE_AUTHORITY_KEY_IDENTIFIER,
    rfc5280::ID_PE_AUTHORITY_INFO_ACCESS,
    rfc5280::ID_CE_CRL_DISTRIBUTION_POINTS,
    rfc5280::ID_CE_FRESHEST_CRL,
];

impl Pki {
    /// `POST root/sign-self-issued`, whose body may name the issuer, and `issuer/:ref/sign-self-issued`. All stays as it was
    /// but the serial number, the issuer and where that is found.
    pub(super) async fn sign_self_issued(
        &self,
        call: &Call,
        issuer: Option<&str>,
        data: &Data,
    ) -> Result<Response, Fault> {
        let mut fields = Fields::below(data, if issuer.is_some() { &["issuer_ref"] } else { &[] });
        let named = if issuer.is_some() { None } else { fields.filled("issuer_ref")? };
        let given = parse(&mut fields)?;
        let must_match = fields.boolean("require_matching_certificate_algorithms")?.unwrap_or(false);
        let mut warnings = fields.warnings();
        let authority = self.authority.load_full();
        let issuer = authority.issuer(issuer.or(named.as_deref()).unwrap_or(DEFAULT))?;
        let signatory = self.signatory(&call.mount, issuer, IssuerUsage::IssuingCertificates)?;
        let algorithm = signatory.algorithm(0, false)?;
        if must_match && given.x509.algorithm() != Some(algorithm) {
            return Err(Fault::invalid(format!(
                "the certificate is not signed with {}, as the issuer signs, and require_matching_certificate_algorithms is \
                 set",
                algorithm.name()
            )));
        }
        issuer.path_length_below(Some(given.path_length.unwrap_or(0)))?;
        issuer.check_names(&given.x509.subject, &names(&given)?, false)?;
        let beyond = match issuer.record.settings.leaf_not_after_behavior {
            LeafNotAfterBehavior::AlwaysEnforceErr => Beyond::Refuse,
            _ => Beyond::Keep,
        };
        let own = Validity { not_before: given.x509.not_before, not_after: given.x509.not_after };
        let (validity, _) = own.bounded(issuer.certificate.x509.not_after, beyond)?;
        let prepared = Prepared::new(&Parts {
            algorithm,
            issuer: &issuer.certificate.x509.subject,
            validity,
            subject: &given.x509.subject,
            public_key: &given.public_key,
            rules: Rules::Rfc5280,
            advice: Advice::Told,
            extensions: &[&kept(&given)?, issuer.leaf_extensions.as_ref().map_err(Fault::clone)?],
        })?;
        warnings.extend_from_slice(prepared.advice());
        let intended = prepared.record(&self.intents, issuer.id()).await?;
        let signed = intended.sign_and_verify(&signatory.key, &issuer.certificate.public_key, call.terms()).await?;
        let issued = signed.store(&self.store, &self.records, Vec::new()).await?;
        self.counts.stored(&issued.serial());
        self.telemetry.certificate_issued();
        tracing::info!(
            serial = %issued.serial(), issuer = %issuer.id(), key = signatory.key.name(), mount = %call.mount.path,
            namespace = %call.mount.namespace, uid = call.caller.peer.uid, pid = call.caller.peer.pid,
            "self-issued certificate signed"
        );
        let value = json!({
            "certificate": pem::encode_trimmed(pem::CERTIFICATE, issued.der())?,
            "issuing_ca": issuer.certificate.pem,
        });
        Ok(Response::with_warnings(value.as_object().cloned().unwrap_or_default(), warnings))
    }
}

fn parse(fields: &mut Fields<'_>) -> Result<CaCertificate, Fault> {
    let text = fields.filled("certificate")?.ok_or_else(|| Fault::invalid("certificate is empty: expected PEM"))?;
    let der = pem::decode(&text, &[pem::CERTIFICATE]).ok_or_else(|| {
        Fault::invalid("certificate could not be PEM-decoded: expected one PEM block \"CERTIFICATE\"")
    })?;
    let given = CaCertificate::parse(&der)?;
    if !given.is_root() {
        return Err(Fault::invalid("given certificate is not self-issued: its subject is not its issuer"));
    }
    if !given.x509.is_signed_with(&given.public_key)? {
        return Err(Fault::invalid(
            "given certificate is not signed with its own key, or with a weak or unknown algorithm",
        ));
    }
    Ok(given)
}

/// The extensions that stay, encoded.
fn kept(given: &CaCertificate) -> Result<Vec<u8>, Fault> {
    let own = given.x509.parsed.tbs_certificate().extensions().into_iter().flatten();
    let kept = own.filter(|extension| !REPLACED.contains(&extension.extn_id));
    kept.map(encode).collect::<Result<Vec<_>, _>>().map(|encoded| encoded.concat())
}

/// Its alternative names, to be judged by name constraints.
fn names(given: &CaCertificate) -> Result<AlternativeNames, Fault> {
    let mut names = AlternativeNames::default();
    let own = given.x509.parsed.tbs_certificate().extensions().into_iter().flatten();
    for extension in own.filter(|extension| extension.extn_id == rfc5280::ID_CE_SUBJECT_ALT_NAME) {
        names.read(extension.extn_value.as_bytes())?;
    }
    Ok(names)
}
