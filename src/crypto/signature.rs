//! The forms signatures take.

use bytes::Bytes;
use der::asn1::UintRef;
use der::{Decode, Encode, Sequence};

use crate::model::{Curve, Fault, Hash, KeyKind};

/// Ecdsa-Sig-Value (RFC 3279, 2.2.3).
#[derive(Sequence)]
struct EcdsaSignature<'a> {
    r: UintRef<'a>,
    s: UintRef<'a>,
}

/// DER `SEQUENCE { r, s }` of a raw `r || s` of any even length.
pub fn ecdsa_der_from_raw(raw: &[u8]) -> Result<Bytes, Fault> {
    let (r, s) = raw.split_at(raw.len() / 2);
    if r.len() != s.len() || r.is_empty() {
        return Err(Fault::DeviceError { what: format!("an ECDSA signature of {} bytes", raw.len()) });
    }
    let encode = || EcdsaSignature { r: UintRef::new(r)?, s: UintRef::new(s)? }.to_der();
    encode().map(Bytes::from).map_err(|error| Fault::internal(format!("cannot encode an ECDSA signature: {error}")))
}

/// Raw `r || s`, each as wide as the curve's field, of DER. Refuses what is not exactly one such sequence.
pub fn ecdsa_raw_from_der(der: &[u8], curve: Curve) -> Result<Bytes, Fault> {
    let wrong = || Fault::invalid("the signature is no DER ECDSA signature of this curve");
    let signature = EcdsaSignature::from_der(der).map_err(|_| wrong())?;
    let width = curve.field_bytes();
    let mut raw = vec![0; 2 * width];
    for (part, place) in [signature.r, signature.s].iter().zip(raw.chunks_mut(width)) {
        let bytes = part.as_bytes();
        let start = width.checked_sub(bytes.len()).ok_or_else(wrong)?;
        place[start..].copy_from_slice(bytes);
    }
    Ok(Bytes::from(raw))
}

/// The DER of a DigestInfo up to the digest (RFC 8017, 9.2, notes 1 and 2); empty for [`Hash::None`].
pub const fn digest_info(hash: Hash) -> &'static [u8] {
    match hash {
        Hash::None => &[],
        Hash::Sha1 => &[0x30, 0x21, 0x30, 0x09, 0x06, 0x05, 0x2b, 0x0e, 0x03, 0x02, 0x1a, 0x05, 0x00, 0x04, 0x14],
        Hash::Sha2_224 => const { &nist(0x2d, 0x04, 0x1c) },
        Hash::Sha2_256 => const { &nist(0x31, 0x01, 0x20) },
        Hash::Sha2_384 => const { &nist(0x41, 0x02, 0x30) },
        Hash::Sha2_512 => const { &nist(0x51, 0x03, 0x40) },
        Hash::Sha3_224 => const { &nist(0x2d, 0x07, 0x1c) },
        Hash::Sha3_256 => const { &nist(0x31, 0x08, 0x20) },
        Hash::Sha3_384 => const { &nist(0x41, 0x09, 0x30) },
        Hash::Sha3_512 => const { &nist(0x51, 0x0a, 0x40) },
    }
}

/// A DigestInfo of a hash in NIST's arc 2.16.840.1.101.3.4.2.
const fn nist(total: u8, arc: u8, digest: u8) -> [u8; 19] {
    [0x30, total, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, arc, 0x05, 0x00, 0x04, digest]
}

/// The longest PSS salt that fits (RFC 8017, 9.1.1): `emLen - hLen - 2`; 0 for other keys.
pub fn max_pss_salt(kind: KeyKind, hash: Hash) -> u16 {
    let KeyKind::Rsa { bits } = kind else { return 0 };
    let encoded = (bits as usize - 1).div_ceil(8);
    u16::try_from(encoded.saturating_sub(hash.digest_bytes() + 2)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn raw_and_der_are_two_forms_of_one_signature(raw in proptest::collection::vec(any::<u8>(), 96)) {
            let der = ecdsa_der_from_raw(&raw).unwrap();
            prop_assert_eq!(ecdsa_raw_from_der(&der, Curve::P384).unwrap(), raw);
        }

        #[test]
        fn any_bytes_are_a_signature_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..150)) {
            let _ = ecdsa_raw_from_der(&bytes, Curve::P256);
            let _ = ecdsa_der_from_raw(&bytes);
        }
    }

    #[test]
    fn the_longest_salt_of_rsa_2048_with_sha_256_is_222() {
        assert_eq!(max_pss_salt(KeyKind::Rsa { bits: 2048 }, Hash::Sha2_256), 222);
    }
}
