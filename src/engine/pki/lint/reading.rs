//! Reading a TBSCertificate where it lies: every certificate is linted, so nothing is copied.

use const_oid::ObjectIdentifier;
use der::asn1::AnyRef;
use der::{Decode, Tag, TagNumber};
use x509_cert::time::Time;

/// The values inside a constructed value, one after the other. Ends early where one is malformed: see [`well_formed`].
#[derive(Clone, Copy)]
pub(super) struct Values<'a>(&'a [u8]);

impl<'a> Iterator for Values<'a> {
    type Item = AnyRef<'a>;

    fn next(&mut self) -> Option<AnyRef<'a>> {
        let (value, rest) = first(self.0)?;
        self.0 = rest;
        Some(value)
    }
}

/// The first value of some DER, and what follows it. Nearly all values have a tag of one byte and a length of one or two: these
/// are cut off here, which is most of what reading costs; the others by `der`, which judges these alike.
fn first(der: &[u8]) -> Option<(AnyRef<'_>, &[u8])> {
    let (tag, length, rest) = match *der {
        [tag, length @ 0..=0x7F, ref rest @ ..] | [tag, 0x81, length @ 0x80..=0xFF, ref rest @ ..] => {
            (tag, length, rest)
        }
        _ => return AnyRef::from_der_partial(der).ok(),
    };
    let Some(tag) = usual(tag) else { return AnyRef::from_der_partial(der).ok() };
    let (value, rest) = rest.split_at_checked(usize::from(length))?;
    Some((AnyRef::new(tag, value).ok()?, rest))
}

/// The tag that this byte alone is, if it is one that certificates are full of.
const fn usual(byte: u8) -> Option<Tag> {
    Some(match byte {
        0x01 => Tag::Boolean,
        0x02 => Tag::Integer,
        0x03 => Tag::BitString,
        0x04 => Tag::OctetString,
        0x06 => Tag::ObjectIdentifier,
        0x0C => Tag::Utf8String,
        0x13 => Tag::PrintableString,
        0x16 => Tag::Ia5String,
        0x17 => Tag::UtcTime,
        0x18 => Tag::GeneralizedTime,
        0x30 => Tag::Sequence,
        0x31 => Tag::Set,
        0x80..=0x9E => Tag::ContextSpecific { constructed: false, number: TagNumber((byte & 0x1F) as u32) },
        0xA0..=0xBE => Tag::ContextSpecific { constructed: true, number: TagNumber((byte & 0x1F) as u32) },
        _ => return None,
    })
}

/// The values of a SEQUENCE or SET.
pub(super) fn values(outer: AnyRef<'_>) -> Values<'_> {
    Values(outer.value())
}

/// Whether all of it is values, one after the other.
fn well_formed(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match first(bytes) {
            Some((_, rest)) => bytes = rest,
            None => return false,
        }
    }
    true
}

/// The one SEQUENCE that `der` is, if it is well formed so far.
pub(super) fn sequence(der: &[u8]) -> Option<AnyRef<'_>> {
    let (outer, rest) = first(der)?;
    let is_one = rest.is_empty() && der::Tagged::tag(&outer) == Tag::Sequence;
    (is_one && well_formed(outer.value())).then_some(outer)
}

/// The number of a context-specific tag.
pub(super) fn context(value: AnyRef<'_>) -> Option<u32> {
    match der::Tagged::tag(&value) {
        Tag::ContextSpecific { number: TagNumber(number), .. } => Some(number),
        _ => None,
    }
}

/// A Time.
pub(super) fn time(value: AnyRef<'_>) -> Option<Time> {
    match der::Tagged::tag(&value) {
        Tag::UtcTime => value.decode_as().ok().map(Time::UtcTime),
        Tag::GeneralizedTime => value.decode_as().ok().map(Time::GeneralTime),
        _ => None,
    }
}

/// An extension.
#[derive(Clone, Copy)]
pub(super) struct Extension<'a> {
    pub(super) oid: ObjectIdentifier,
    pub(super) critical: bool,
    pub(super) value: &'a [u8],
}

impl<'a> Extension<'a> {
    pub(super) fn read(outer: AnyRef<'a>) -> Option<Extension<'a>> {
        let mut parts = values(outer);
        let oid = parts.next()?.decode_as().ok()?;
        let second = parts.next()?;
        let (critical, value) = match parts.next() {
            Some(value) => (second.decode_as().ok()?, value),
            None => (false, second),
        };
        let fits = der::Tagged::tag(&value) == Tag::OctetString && parts.next().is_none();
        fits.then_some(Extension { oid, critical, value: value.value() })
    }
}

/// One attribute of a distinguished name.
#[derive(Clone, Copy)]
pub(super) struct Attribute<'a> {
    pub(super) oid: ObjectIdentifier,
    pub(super) value: AnyRef<'a>,
}

/// The attributes of a Name, in order.
pub(super) fn attributes<'a>(name: AnyRef<'a>) -> impl Iterator<Item = Attribute<'a>> + use<'a> {
    values(name).flat_map(values).filter_map(|pair| {
        let mut parts = values(pair);
        Some(Attribute { oid: parts.next()?.decode_as().ok()?, value: parts.next()? })
    })
}

/// A GeneralName.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GeneralName<'a> {
    Email(&'a str),
    Dns(&'a str),
    Uri(&'a str),
    Ip(&'a [u8]),
    /// Of another kind, or not ASCII where it has to be: the number of its tag.
    Other(u32),
}

impl<'a> GeneralName<'a> {
    pub(super) fn read(value: AnyRef<'a>) -> GeneralName<'a> {
        let number = context(value).unwrap_or(u32::MAX);
        let ia5 = || std::str::from_utf8(value.value()).ok().filter(|text| text.is_ascii());
        match (number, ia5()) {
            (1, Some(text)) => GeneralName::Email(text),
            (2, Some(text)) => GeneralName::Dns(text),
            (6, Some(text)) => GeneralName::Uri(text),
            (7, _) => GeneralName::Ip(value.value()),
            _ => GeneralName::Other(number),
        }
    }
}

/// The names of a distribution point, where it gives them in full: `[0] { [0] { GeneralName … } }`.
pub(super) fn full_name<'a>(point: AnyRef<'a>) -> Option<impl Iterator<Item = GeneralName<'a>> + use<'a>> {
    let name = values(point).next().filter(|part| context(*part) == Some(0))?;
    let full = values(name).next().filter(|part| context(*part) == Some(0))?;
    Some(values(full).map(GeneralName::read))
}

/// The method and place of each AccessDescription.
pub(super) fn accesses<'a>(
    value: AnyRef<'a>,
) -> impl Iterator<Item = Option<(ObjectIdentifier, GeneralName<'a>)>> + use<'a> {
    values(value).map(|access| {
        let mut parts = values(access);
        Some((parts.next()?.decode_as().ok()?, GeneralName::read(parts.next()?)))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_are_cut_off_as_der_cuts_them(
            tag in any::<u8>(),
            length in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..4),
                (0_u8..128).prop_map(|length| vec![length]),
                (0_u8..=255).prop_map(|length| vec![0x81, length]),
            ],
            value in proptest::collection::vec(any::<u8>(), 0..260),
        ) {
            let der = [&[tag][..], &length, &value].concat();
            prop_assert_eq!(first(&der), AnyRef::from_der_partial(&der).ok());
        }
    }

    #[test]
    fn every_tag_of_one_byte_is_read_as_der_reads_it() {
        for tag in 0..=u8::MAX {
            for der in
                [vec![tag, 0], vec![tag, 1, 0], vec![tag, 0x81, 0x80], [vec![tag, 0x81, 0x80], vec![0; 129]].concat()]
            {
                assert_eq!(first(&der), AnyRef::from_der_partial(&der).ok(), "{tag:x}");
            }
        }
    }
}
