//! Putting DER together from pieces that are encoded already, and reporting what cannot be encoded.

use der::asn1::ObjectIdentifier;
use der::{Encode, Header, Length, Tag, TagNumber};

use crate::model::Fault;

/// One TLV whose value is `parts`, one after the other.
pub(super) fn tlv(tag: Tag, parts: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    let mut length = 0;
    for part in parts {
        length += part.len();
    }
    // A header takes at most 6 bytes below 4 GiB.
    let mut bytes = Vec::with_capacity(length + 6);
    header(tag, length)?.encode_to_vec(&mut bytes).map_err(unencodable)?;
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// A SEQUENCE of `parts`.
pub(super) fn sequence(parts: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    tlv(Tag::Sequence, parts)
}

/// `[number]` EXPLICIT around `parts`.
pub(super) fn explicit(number: u32, parts: &[&[u8]]) -> Result<Vec<u8>, Fault> {
    tlv(Tag::ContextSpecific { constructed: true, number: TagNumber(number) }, parts)
}

/// A BIT STRING of whole bytes.
pub(super) fn bit_string(bytes: &[u8]) -> Result<Vec<u8>, Fault> {
    tlv(Tag::BitString, &[&[0], bytes])
}

/// An extension (RFC 5280, 4.1).
pub(super) fn extension(oid: ObjectIdentifier, critical: bool, value: &[u8]) -> Result<Vec<u8>, Fault> {
    let oid = encode(&oid)?;
    let value = tlv(Tag::OctetString, &[value])?;
    // DER leaves a default out: FALSE is not written.
    let critical: &[u8] = if critical { &[0x01, 0x01, 0xFF] } else { &[] };
    sequence(&[&oid, critical, &value])
}

/// DER of a value that was checked before.
pub(super) fn encode(value: &impl Encode) -> Result<Vec<u8>, Fault> {
    value.to_der().map_err(unencodable)
}

/// What to say when a checked value does not encode: a bug of ours.
pub(super) fn unencodable(error: der::Error) -> Fault {
    Fault::internal(format!("a value cannot be written as DER: {error}"))
}

fn header(tag: Tag, length: usize) -> Result<Header, Fault> {
    Ok(Header::new(tag, Length::try_from(length).map_err(unencodable)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal() {
        assert_eq!(sequence(&[&[5, 0]]).unwrap(), [0x30, 2, 5, 0]);
        let long = sequence(&[&[0; 200]]).unwrap();
        assert_eq!(&long[..3], [0x30, 0x81, 200]);
        assert_eq!(explicit(3, &[&[]]).unwrap(), [0xA3, 0]);
        assert_eq!(bit_string(&[1]).unwrap(), [3, 2, 0, 1]);
    }

    #[test]
    fn a_false_critical_flag_is_left_out() {
        let oid = ObjectIdentifier::new_unwrap("2.5.29.15");
        assert_eq!(extension(oid, false, &[5, 0]).unwrap(), [0x30, 9, 6, 3, 0x55, 29, 15, 4, 2, 5, 0]);
        assert_eq!(extension(oid, true, &[5, 0]).unwrap()[7..10], [1, 1, 0xFF]);
    }
}
