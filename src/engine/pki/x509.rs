//! Certificates as they are read: by their very bytes, since what an issuer is called and what a signature covers depend
//! on them.

use bytes::Bytes;
use const_oid::AssociatedOid;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Reader, SliceReader, Tag, Tagged};
use spki::AlgorithmIdentifierRef;
use x509_cert::Certificate;
use x509_cert::ext::pkix::{AuthorityKeyIdentifier, SubjectKeyIdentifier};
use x509_cert::time::Time;

use super::algorithm::SignatureAlgorithm;
use super::serial::Serial;
use crate::model::{Fault, PublicKey};

/// The largest certificate read, in bytes of DER.
pub(super) const CERTIFICATE_BYTES_MAX: usize = 64 * 1024;

/// A certificate, well-formed; whether its signature is good was not asked.
#[derive(Clone, Debug)]
pub(super) struct X509 {
    pub(super) der: Bytes,
    /// DER of the subject's Name, as the certificate has it.
    pub(super) subject: Bytes,
    /// DER of the issuer's Name, as the certificate has it.
    pub(super) issuer: Bytes,
    /// DER of the SubjectPublicKeyInfo.
    pub(super) spki: Bytes,
    pub(super) serial: Serial,
    /// `notBefore` in Unix seconds.
    pub(super) not_before: u64,
    /// `notAfter` in Unix seconds.
    pub(super) not_after: u64,
    /// The SubjectKeyIdentifier, if it has one.
    pub(super) subject_key_identifier: Option<Vec<u8>>,
    /// The AuthorityKeyIdentifier's key identifier, if it has one.
    pub(super) authority_key_identifier: Option<Vec<u8>>,
    pub(super) parsed: Certificate,
    /// What the signature covers.
    signed: Bytes,
    /// `None` for one that is weak or unknown: such a signature proves nothing here.
    algorithm: Option<SignatureAlgorithm>,
    signature: Bytes,
}

impl X509 {
    /// Reads one certificate. `what` names it in errors: `the certificate`.
    pub(super) fn parse(der: &[u8], what: &str) -> Result<X509, Fault> {
        if der.len() > CERTIFICATE_BYTES_MAX {
            let size = der.len();
            return Err(Fault::TooLarge {
                what: format!("{what} has {size} bytes; at most {CERTIFICATE_BYTES_MAX} are taken"),
            });
        }
        let malformed = |error: der::Error| Fault::invalid(format!("{what} is malformed: {error}"));
        let parsed = Certificate::from_der(der).map_err(malformed)?;
        let (signed, algorithm, signature) = split(der).map_err(malformed)?;
        let names = raw_names(signed).map_err(malformed)?;
        let identifier = AlgorithmIdentifierRef::from_der(algorithm).map_err(malformed)?;
        let signature = BitStringRef::from_der(signature).map_err(malformed)?.as_bytes().unwrap_or_default();
        let tbs = parsed.tbs_certificate();
        let serial = Serial::from_bytes(tbs.serial_number().as_bytes())
            .ok_or_else(|| Fault::invalid(format!("{what} has a serial number that is zero or too long")))?;
        let own: Option<SubjectKeyIdentifier> = single(&parsed, what)?;
        let authority: Option<AuthorityKeyIdentifier> = single(&parsed, what)?;
        let authority = authority.and_then(|extension| extension.key_identifier);
        Ok(X509 {
            der: Bytes::copy_from_slice(der),
            subject: Bytes::copy_from_slice(names.subject),
            issuer: Bytes::copy_from_slice(names.issuer),
            spki: Bytes::copy_from_slice(names.spki),
            serial,
            not_before: tbs.validity().not_before.to_unix_duration().as_secs(),
            not_after: tbs.validity().not_after.to_unix_duration().as_secs(),
            subject_key_identifier: own.map(|extension| extension.0.as_bytes().to_vec()),
            authority_key_identifier: authority.map(|identifier| identifier.as_bytes().to_vec()),
            signed: Bytes::copy_from_slice(signed),
            algorithm: SignatureAlgorithm::read(&identifier).ok(),
            signature: Bytes::copy_from_slice(signature),
            parsed,
        })
    }

    /// Whether subject and issuer have the same name.
    pub(super) fn is_self_issued(&self) -> bool {
        self.subject == self.issuer
    }

    /// Whether this key made its signature. Costs one verification.
    pub(super) fn is_signed_with(&self, key: &PublicKey) -> Result<bool, Fault> {
        match self.algorithm {
            Some(algorithm) => algorithm.verify(key, &self.signed, &self.signature),
            None => Ok(false),
        }
    }

    /// The algorithm of its signature, if it is one that counts.
    pub(super) fn algorithm(&self) -> Option<SignatureAlgorithm> {
        self.algorithm
    }
}

/// The one extension of this kind, if there is one. One that does not parse, or comes twice, is refused.
pub(super) fn single<'c, T: Decode<'c, Error = der::Error> + AssociatedOid>(
    certificate: &'c Certificate,
    what: &str,
) -> Result<Option<T>, Fault> {
    let malformed = |_| Fault::invalid(format!("{what} has an extension {} that is malformed, or there twice", T::OID));
    let found = certificate.tbs_certificate().get_extension::<T>().map_err(malformed)?;
    Ok(found.map(|(_, extension)| extension))
}

/// The three members of a signed structure, each with its tag and length.
pub(super) fn split(der: &[u8]) -> der::Result<(&[u8], &[u8], &[u8])> {
    let mut outer = SliceReader::new(der)?;
    let parts = outer
        .sequence(|inner| -> der::Result<_> { Ok((inner.tlv_bytes()?, inner.tlv_bytes()?, inner.tlv_bytes()?)) })?;
    outer.finish()?;
    Ok(parts)
}

/// `notAfter` of a certificate in Unix seconds, with nothing else of it read. `None` if it is none.
pub(super) fn not_after(der: &[u8]) -> Option<u64> {
    let (tbs, _) = AnyRef::from_der_partial(AnyRef::from_der(der).ok()?.value()).ok()?;
    let mut left = tbs.value();
    let mut next = || {
        let (value, rest) = AnyRef::from_der_partial(left).ok()?;
        left = rest;
        Some(value)
    };
    // The version, `[0] EXPLICIT`, is left out for v1; then the serial number, the algorithm and the issuer.
    let first = next()?;
    let others = if first.tag() == Tag::Integer { 2 } else { 3 };
    (0..others).try_for_each(|_| next().map(drop))?;
    let (_, after) = AnyRef::from_der_partial(next()?.value()).ok()?;
    Some(Time::from_der(after).ok()?.to_unix_duration().as_secs())
}

struct RawNames<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    spki: &'a [u8],
}

/// The names and the key of a TBSCertificate (RFC 5280, 4.1), as it writes them.
fn raw_names(tbs: &[u8]) -> der::Result<RawNames<'_>> {
    let mut outer = SliceReader::new(tbs)?;
    outer.sequence(|inner| -> der::Result<_> {
        // The version, `[0] EXPLICIT`, is left out for v1; then the serial number.
        if inner.tlv_bytes()?.first() == Some(&0xA0) {
            inner.tlv_bytes()?;
        }
        let _algorithm = inner.tlv_bytes()?;
        let issuer = inner.tlv_bytes()?;
        let _validity = inner.tlv_bytes()?;
        let (subject, spki) = (inner.tlv_bytes()?, inner.tlv_bytes()?);
        while !inner.is_finished() {
            inner.tlv_bytes()?;
        }
        Ok(RawNames { issuer, subject, spki })
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_have_an_end_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(not_after(&bytes), None);
        }
    }
}
