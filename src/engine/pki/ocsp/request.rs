//! OCSP requests (RFC 6960, 4.1; the nonce: RFC 9654).

use const_oid::db::{rfc5912, rfc6960};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Encode, Sequence, Tag, Tagged};
use spki::AlgorithmIdentifierRef;
use x509_cert::ext::Extension;

use super::super::serial::Serial;
use crate::model::Hash;

/// The largest request that is read, in bytes. One for a single certificate takes about 120.
pub(super) const BYTES_MAX: usize = 4096;
/// The most certificates one request asks for.
const CERTIFICATES_MAX: usize = 16;
/// The longest nonce (RFC 9654, 2.1).
const NONCE_MAX: usize = 128;

/// A request, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::pki) struct Request {
    /// What it asks for; at least one.
    pub(in crate::engine::pki) certificates: Vec<CertId>,
    /// The nonce to be sent back.
    pub(in crate::engine::pki) nonce: Option<Vec<u8>>,
}

/// How a request names a certificate (RFC 6960, 4.1.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::engine::pki) struct CertId {
    /// Its DER, which the response repeats.
    pub(in crate::engine::pki) der: Vec<u8>,
    /// What hashed the issuer.
    pub(in crate::engine::pki) hash: Hash,
    /// Digest of the DER of the issuer's name.
    pub(in crate::engine::pki) name: Vec<u8>,
    /// Digest of the issuer's public key: the bits without tag, length and unused-bits octet.
    pub(in crate::engine::pki) key: Vec<u8>,
    /// `None` for a serial number no certificate has.
    pub(in crate::engine::pki) serial: Option<Serial>,
}

/// A signature of the requestor is not looked at: answers are for everyone.
#[derive(Sequence)]
struct OcspRequest<'a> {
    tbs: TbsRequest<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    signature: Option<AnyRef<'a>>,
}

#[derive(Sequence)]
struct TbsRequest<'a> {
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    version: Option<u8>,
    #[asn1(context_specific = "1", tag_mode = "EXPLICIT", optional = "true")]
    requestor: Option<AnyRef<'a>>,
    list: Vec<SingleRequest<'a>>,
    #[asn1(context_specific = "2", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct SingleRequest<'a> {
    certificate: AnyRef<'a>,
    #[asn1(context_specific = "0", tag_mode = "EXPLICIT", optional = "true")]
    extensions: Option<Vec<Extension>>,
}

#[derive(Sequence)]
struct CertIdRef<'a> {
    algorithm: AlgorithmIdentifierRef<'a>,
    name: &'a OctetStringRef,
    key: &'a OctetStringRef,
    serial: AnyRef<'a>,
}

impl Request {
    /// Reads a request; `None` if it is malformed, too large, or has a critical extension nobody here knows.
    pub(in crate::engine::pki) fn parse(der: &[u8]) -> Option<Request> {
        if der.len() > BYTES_MAX {
            return None;
        }
        let tbs = OcspRequest::from_der(der).ok()?.tbs;
        let count = tbs.list.len();
        if tbs.version.unwrap_or(0) != 0 || count == 0 || count > CERTIFICATES_MAX {
            return None;
        }
        let nonce = nonce(tbs.extensions.unwrap_or_default())?;
        let certificates = tbs.list.iter().map(CertId::read).collect::<Option<_>>()?;
        Some(Request { certificates, nonce })
    }
}

impl CertId {
    fn read(single: &SingleRequest<'_>) -> Option<CertId> {
        if single.extensions.iter().flatten().any(|extension| extension.critical) {
            return None;
        }
        let der = single.certificate.to_der().ok()?;
        let id = CertIdRef::from_der(&der).ok()?;
        let hash = match id.algorithm.oid {
            rfc5912::ID_SHA_1 => Hash::Sha1,
            rfc5912::ID_SHA_256 => Hash::Sha2_256,
            rfc5912::ID_SHA_384 => Hash::Sha2_384,
            rfc5912::ID_SHA_512 => Hash::Sha2_512,
            _ => return None,
        };
        if id.serial.tag() != Tag::Integer || id.algorithm.parameters.is_some_and(|parameters| !parameters.is_null()) {
            return None;
        }
        let digits = id.serial.value();
        let is_negative = digits.first().is_some_and(|first| first & 0x80 != 0);
        let serial = if is_negative { None } else { Serial::from_bytes(digits) };
        // One serial number is written in one way: answers are kept by what the request says.
        if serial.is_some_and(|serial| serial.der().get(2..) != Some(digits)) {
            return None;
        }
        let (name, key) = (id.name.as_bytes().to_vec(), id.key.as_bytes().to_vec());
        Some(CertId { hash, name, key, serial, der })
    }
}

/// The nonce among the extensions of a request, if there is one; `None` where one of them cannot be taken.
fn nonce(extensions: Vec<Extension>) -> Option<Option<Vec<u8>>> {
    let mut nonce = None;
    for extension in extensions {
        if extension.extn_id == rfc6960::ID_PKIX_OCSP_NONCE {
            let value = extension.extn_value.as_bytes();
            // Clients before RFC 8954 sent the bytes as they are, without the inner OCTET STRING.
            let bytes = <&OctetStringRef>::from_der(value).map_or(value, OctetStringRef::as_bytes);
            if bytes.is_empty() || bytes.len() > NONCE_MAX {
                return None;
            }
            nonce = Some(value.to_vec());
        } else if extension.critical {
            return None;
        }
    }
    Some(nonce)
}
