//! OCSP responses (RFC 6960, 4.2), by the issuer's own key.

use bytes::Bytes;
use const_oid::db::rfc6960;
use der::Tag;
use der::asn1::GeneralizedTime;

use super::super::algorithm::SignatureAlgorithm;
use super::super::asn1::{bit_string, encode, explicit, extension, sequence, tlv, unencodable};
use super::super::extensions::KeyIdentifier;
use super::request::CertId;
use crate::model::Fault;

/// What is answered where there is no certificate's state to tell (RFC 6960, 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::pki) enum Refusal {
    /// The request cannot be read.
    Malformed = 1,
    /// Something failed here.
    Internal = 2,
    /// Come again later.
    TryLater = 3,
    /// It asks for what this responder does not answer for.
    Unauthorized = 6,
}

/// The state of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::engine::pki) enum Status {
    /// Issued, and not revoked.
    Good,
    /// Revoked at this time, in Unix seconds; no reason is kept.
    Revoked(u64),
    /// Not known here.
    Unknown,
}

/// A response about to be signed.
pub(in crate::engine::pki) struct Unsigned {
    identifier: Vec<u8>,
    /// DER of ResponseData: what is signed.
    pub(in crate::engine::pki) data: Bytes,
}

impl Refusal {
    /// The whole answer, which nobody signs.
    pub(in crate::engine::pki) fn encode(self) -> Result<Vec<u8>, Fault> {
        sequence(&[&tlv(Tag::Enumerated, &[&[self as u8]])?])
    }
}

impl Unsigned {
    /// Encodes the states of certificates of one issuer, true from `now` until `until` (Unix seconds; `None` does not say).
    /// `nonce` is the value of the request's extension.
    pub(in crate::engine::pki) fn new(
        algorithm: SignatureAlgorithm,
        responder: &KeyIdentifier,
        states: &[(&CertId, Status)],
        nonce: Option<&[u8]>,
        now: u64,
        until: Option<u64>,
    ) -> Result<Unsigned, Fault> {
        // byKey [2]
        let responder = explicit(2, &[&tlv(Tag::OctetString, &[responder])?])?;
        let singles =
            states.iter().map(|(id, status)| single(id, *status, now, until)).collect::<Result<Vec<_>, _>>()?;
        let singles: Vec<&[u8]> = singles.iter().map(Vec::as_slice).collect();
        let extensions = match nonce {
            Some(value) => explicit(1, &[&sequence(&[&extension(rfc6960::ID_PKIX_OCSP_NONCE, false, value)?])?])?,
            None => Vec::new(),
        };
        let data = sequence(&[&responder, &time(now)?, &sequence(&singles)?, &extensions])?;
        Ok(Unsigned { identifier: algorithm.identifier()?, data: data.into() })
    }

    /// The whole answer.
    pub(in crate::engine::pki) fn signed(&self, signature: &[u8]) -> Result<Bytes, Fault> {
        let basic = sequence(&[&self.data, &self.identifier, &bit_string(signature)?])?;
        let kind = encode(&rfc6960::ID_PKIX_OCSP_BASIC)?;
        let bytes = explicit(0, &[&sequence(&[&kind, &tlv(Tag::OctetString, &[&basic])?])?])?;
        Ok(sequence(&[&tlv(Tag::Enumerated, &[&[0]])?, &bytes])?.into())
    }
}

/// SingleResponse.
fn single(id: &CertId, status: Status, now: u64, until: Option<u64>) -> Result<Vec<u8>, Fault> {
    let status = match status {
        // IMPLICIT NULL.
        Status::Good => vec![0x80, 0],
        Status::Unknown => vec![0x82, 0],
        // IMPLICIT RevokedInfo, a SEQUENCE.
        Status::Revoked(at) => explicit(1, &[&time(at)?])?,
    };
    let until = until.map(|until| explicit(0, &[&time(until)?])).transpose()?.unwrap_or_default();
    sequence(&[&id.der, &status, &time(now)?, &until])
}

/// GeneralizedTime, in every year.
fn time(seconds: u64) -> Result<Vec<u8>, Fault> {
    let span = std::time::Duration::from_secs(seconds);
    encode(&GeneralizedTime::from_unix_duration(span).map_err(unencodable)?)
}
