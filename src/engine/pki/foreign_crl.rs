//! CRLs that clients bring: read by their very bytes, and believed only where an issuer's own key signed them.

use bytes::Bytes;
use der::asn1::{AnyRef, BitStringRef};
use der::{Decode, Tag, Tagged};
use spki::AlgorithmIdentifierRef;
use x509_cert::time::Time;

use super::algorithm::SignatureAlgorithm;
use super::serial::Serial;
use super::x509::split;
use crate::model::{Fault, PublicKey};

/// A revoked certificate, and when that was, in Unix seconds.
pub(super) type Revoked = (Serial, u64);

/// What a CRL (DER) lists, if `key` signed it. `index` names it in errors.
pub(super) fn read(der: &[u8], key: &PublicKey, index: usize) -> Result<Vec<Revoked>, Fault> {
    let malformed = || Fault::invalid(format!("failed decoding crl {index}: it is malformed"));
    let (signed, algorithm, signature) = split(der).map_err(|_| malformed())?;
    let identifier = AlgorithmIdentifierRef::from_der(algorithm).map_err(|_| malformed())?;
    let signature = BitStringRef::from_der(signature).map_err(|_| malformed())?.as_bytes().unwrap_or_default();
    let not_signed = || Fault::invalid(format!("CRL index: {index} was not signed by requested issuer"));
    // An algorithm that is weak or not known proves nothing.
    let algorithm = SignatureAlgorithm::read(&identifier).map_err(|_| not_signed())?;
    if !algorithm.verify(key, &Bytes::copy_from_slice(signed), signature)? {
        return Err(not_signed());
    }
    entries(signed).ok_or_else(malformed)
}

/// The values inside a constructed value, one after the other; the last is `None` where one is malformed.
fn values(outer: AnyRef<'_>) -> impl Iterator<Item = Option<AnyRef<'_>>> {
    let mut left = outer.value();
    std::iter::from_fn(move || {
        if left.is_empty() {
            return None;
        }
        let read = AnyRef::from_der_partial(left).ok();
        left = read.map_or(&[], |(_, rest)| rest);
        Some(read.map(|(value, _)| value))
    })
}

/// The entries of a TBSCertList (RFC 5280, 5.1): the one SEQUENCE behind the times, if there is one.
fn entries(signed: &[u8]) -> Option<Vec<Revoked>> {
    let parts: Vec<AnyRef<'_>> = values(AnyRef::from_der(signed).ok()?).collect::<Option<_>>()?;
    let is_time = |part: &AnyRef<'_>| matches!(part.tag(), Tag::UtcTime | Tag::GeneralizedTime);
    let after = parts.iter().rposition(is_time)? + 1;
    let Some(list) = parts.get(after).filter(|part| part.tag() == Tag::Sequence) else { return Some(Vec::new()) };
    values(*list).map(|entry| revoked(entry?)).collect()
}

fn revoked(entry: AnyRef<'_>) -> Option<Revoked> {
    let mut parts = values(entry);
    let (number, time) = (parts.next()??, parts.next()??);
    let is_positive = number.value().first().is_some_and(|byte| byte & 0x80 == 0);
    let serial = Serial::from_bytes(number.value()).filter(|_| number.tag() == Tag::Integer && is_positive)?;
    let time: Time = time.decode_as().ok()?;
    Some((serial, time.to_unix_duration().as_secs()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = entries(&bytes);
            let _ = split(&bytes);
        }
    }

    #[test]
    fn numbers_that_are_none_of_ours_are_refused() {
        let entry = |number: &[u8]| [&[0x30, number.len() as u8 + 15], number, b"\x17\x0d491231235959Z"].concat();
        let read = |bytes: &[u8]| revoked(AnyRef::from_der(bytes).unwrap()).map(|(serial, _)| serial.to_string());
        assert_eq!(read(&entry(&[2, 1, 0x0A])), Some("0a".into()));
        assert_eq!(read(&entry(&[2, 1, 0x8A])), None, "negative");
        assert_eq!(read(&entry(&[2, 1, 0])), None, "zero");
        assert_eq!(read(&entry(&[4, 1, 1])), None, "no integer");
    }
}
