//! PKCS#10 requests (RFC 2986): read strictly, with their own signature checked.

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use const_oid::db::rfc4519;
use const_oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use const_oid::db::rfc5912::{ID_EXTENSION_REQ, RSA_ENCRYPTION};
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Sequence};
use spki::AlgorithmIdentifierRef;
use x509_cert::attr::Attributes;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::DirectoryString;
use x509_cert::name::Name;
use x509_cert::request::Version;

use super::algorithm::{SignatureAlgorithm, require_certifiable};
use super::asn1::encode;
use super::names;
use super::san::AlternativeNames;
use super::x509::split;
use crate::crypto;
use crate::model::{Fault, KeyKind, PublicKey};

/// The largest request in bytes of DER.
pub(super) const CSR_BYTES_MAX: usize = 64 * 1024;
/// The most attributes of a request's subject.
const SUBJECT_ATTRIBUTES_MAX: usize = 64;
/// RSA keys that get certificates, in bits of the modulus.
const RSA_BITS: std::ops::RangeInclusive<u32> = 2048..=8192;

/// CertificationRequestInfo (RFC 2986, 4.1), borrowed as far as it is copied.
#[derive(Sequence)]
struct Info<'a> {
    version: Version,
    subject: Name,
    public_key: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "IMPLICIT")]
    attributes: Attributes,
}

/// A request whose key is acceptable and whose signature is good. What it asks for is well-formed; whether it is allowed
/// is the role's to say.
#[derive(Clone, Debug)]
pub(super) struct Csr {
    /// The key to certify.
    pub(super) public_key: PublicKey,
    /// DER of the subject.
    pub(super) subject: Vec<u8>,
    /// The subject's common name.
    pub(super) common_name: Option<String>,
    /// The subject's serialNumber attribute.
    pub(super) serial_number: Option<String>,
    /// The subject's userId attributes.
    pub(super) user_ids: Vec<String>,
    /// The subject alternative names asked for.
    pub(super) names: AlternativeNames,
    /// Whether it asks for kinds of alternative names that are never issued.
    pub(super) has_unknown_names: bool,
    /// Every extension asked for, each kind once.
    pub(super) extensions: Vec<Extension>,
}

impl Csr {
    /// Reads and checks a request. Costs one verification of a signature.
    pub(super) fn parse(der: &[u8]) -> Result<Csr, Fault> {
        if der.len() > CSR_BYTES_MAX {
            return Err(Fault::TooLarge {
                what: format!("the certificate request has {} bytes; at most {CSR_BYTES_MAX} are taken", der.len()),
            });
        }
        let (signed, algorithm, signature) = split(der).map_err(malformed)?;
        let algorithm = AlgorithmIdentifierRef::from_der(algorithm).map_err(malformed)?;
        let signature = BitStringRef::from_der(signature).map_err(malformed)?;
        let signature =
            signature.as_bytes().ok_or_else(|| Fault::invalid("the certificate request's signature has odd bits"))?;
        let info = Info::from_der(signed).map_err(malformed)?;
        let public_key = acceptable_key(&encode(&info.public_key)?)?;
        let algorithm = SignatureAlgorithm::read(&algorithm)
            .map_err(|fault| Fault::invalid(format!("certificate request refused: {fault}")))?;
        let csr = Csr::read(&info, public_key)?;
        if !algorithm.verify(&csr.public_key, &Bytes::copy_from_slice(signed), signature)? {
            return Err(Fault::invalid(
                "the certificate request's signature does not verify: it was altered, or signed by another key",
            ));
        }
        Ok(csr)
    }

    fn read(info: &Info<'_>, public_key: PublicKey) -> Result<Csr, Fault> {
        if info.subject.iter().count() > SUBJECT_ATTRIBUTES_MAX {
            return Err(Fault::invalid(format!(
                "the certificate request's subject has more than {SUBJECT_ATTRIBUTES_MAX} attributes"
            )));
        }
        let mut names = AlternativeNames::default();
        let extensions = requested_extensions(&info.attributes)?;
        let all_known = match extensions.iter().find(|wanted| wanted.extn_id == ID_CE_SUBJECT_ALT_NAME) {
            Some(wanted) => names.read(wanted.extn_value.as_bytes())?,
            None => true,
        };
        Ok(Csr {
            public_key,
            subject: encode(&info.subject)?,
            common_name: single(&info.subject, rfc4519::COMMON_NAME, "common name")?,
            serial_number: single(&info.subject, rfc4519::SERIAL_NUMBER, "serialNumber")?,
            user_ids: texts(&info.subject, rfc4519::UID)?,
            names,
            has_unknown_names: !all_known,
            extensions,
        })
    }
}

/// The key, if it is of a kind and size that gets certificates.
pub(super) fn acceptable_key(spki: &[u8]) -> Result<PublicKey, Fault> {
    let refuse = |reason: String| Fault::invalid(format!("the certificate request's key is not acceptable: {reason}"));
    let key = crypto::parse_spki(spki).map_err(|fault| refuse(fault.to_string()))?;
    require_certifiable(key.kind).map_err(|fault| refuse(fault.to_string()))?;
    if let KeyKind::Rsa { bits } = key.kind {
        if !RSA_BITS.contains(&bits) {
            return Err(refuse(format!("RSA keys have 2048 to 8192 bits, this one {bits}")));
        }
        let info = spki::SubjectPublicKeyInfoRef::from_der(spki).map_err(malformed)?;
        if info.algorithm != (AlgorithmIdentifierRef { oid: RSA_ENCRYPTION, parameters: Some(AnyRef::NULL) }) {
            return Err(refuse("its algorithm parameters are not NULL".into()));
        }
        let (modulus, exponent) = crypto::rsa_parts(&key)?;
        if modulus.last().is_none_or(|byte| byte & 1 == 0) {
            return Err(refuse("its modulus is even".into()));
        }
        if !exponent_is_sound(&exponent) {
            return Err(refuse("its public exponent is not an odd number from 3 to 2^32".into()));
        }
    }
    Ok(key)
}

/// Odd, at least 3, at most 2^32 (which, being even, it then is not).
fn exponent_is_sound(exponent: &[u8]) -> bool {
    let value = exponent.iter().try_fold(0_u32, |sum, byte| sum.checked_mul(256)?.checked_add((*byte).into()));
    value.is_some_and(|value| value >= 3 && value % 2 == 1)
}

/// The extensions asked for. One kind twice is refused: who reads it would have to choose.
fn requested_extensions(attributes: &Attributes) -> Result<Vec<Extension>, Fault> {
    let mut found: Vec<Extension> = Vec::new();
    for attribute in attributes.iter().filter(|attribute| attribute.oid == ID_EXTENSION_REQ) {
        for value in attribute.values.iter() {
            for extension in value.decode_as::<Vec<Extension>>().map_err(malformed)? {
                if found.iter().any(|known| known.extn_id == extension.extn_id) {
                    let twice = extension.extn_id;
                    return Err(Fault::invalid(format!(
                        "the certificate request asks for the extension {twice} twice"
                    )));
                }
                found.push(extension);
            }
        }
    }
    Ok(found)
}

fn texts(subject: &Name, oid: ObjectIdentifier) -> Result<Vec<String>, Fault> {
    let attributes = subject.iter().filter(|attribute| attribute.oid == oid);
    attributes
        .map(|attribute| {
            let text = DirectoryString::try_from(&attribute.value).map_err(malformed)?.value().into_owned();
            if !names::is_subject_text(&text, 256) {
                return Err(Fault::invalid(
                    "an attribute of the certificate request's subject is empty, too long or has control characters",
                ));
            }
            Ok(text)
        })
        .collect()
}

fn single(subject: &Name, oid: ObjectIdentifier, what: &str) -> Result<Option<String>, Fault> {
    let mut found = texts(subject, oid)?;
    if found.len() > 1 {
        return Err(Fault::invalid(format!("the certificate request's subject has more than one {what}")));
    }
    Ok(found.pop())
}

fn malformed(error: der::Error) -> Fault {
    Fault::invalid(format!("the certificate request is malformed: {error}"))
}
