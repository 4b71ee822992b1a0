//! Public keys as SubjectPublicKeyInfo (RFC 5280, 4.1.2.7; RFC 3279, RFC 5480, RFC 8410).

use bytes::Bytes;
use const_oid::ObjectIdentifier;
use const_oid::db::fips204::{ID_ML_DSA_44, ID_ML_DSA_65, ID_ML_DSA_87};
use const_oid::db::rfc5912::{ID_EC_PUBLIC_KEY, RSA_ENCRYPTION, SECP_256_R_1, SECP_384_R_1, SECP_521_R_1};
use const_oid::db::rfc8410::ID_ED_25519;
use der::asn1::{AnyRef, BitStringRef, UintRef};
use der::{Decode, Encode, Sequence};
use spki::{AlgorithmIdentifierRef, SubjectPublicKeyInfoRef};

use crate::model::{Curve, Fault, KeyKind, MlDsa, PublicKey};

/// RSAPublicKey (RFC 8017, A.1.1).
#[derive(Sequence)]
struct RsaPublicKey<'a> {
    modulus: UintRef<'a>,
    exponent: UintRef<'a>,
}

/// `secp256k1` (SEC 2, A.2.1).
const SECP_256_K_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.10");

/// The object identifier of a named curve.
const fn curve_oid(curve: Curve) -> ObjectIdentifier {
    match curve {
        Curve::P256 => SECP_256_R_1,
        Curve::P384 => SECP_384_R_1,
        Curve::P521 => SECP_521_R_1,
        Curve::Secp256k1 => SECP_256_K_1,
    }
}

/// An RSA key from its modulus and exponent, big-endian; leading zeros are dropped.
pub fn rsa_spki(modulus: &[u8], exponent: &[u8]) -> Result<PublicKey, Fault> {
    let key = (|| {
        let key = RsaPublicKey { modulus: UintRef::new(modulus)?, exponent: UintRef::new(exponent)? };
        key.to_der()
    })()
    .map_err(malformed)?;
    build(RSA_ENCRYPTION, Some(AnyRef::NULL), &key)
}

/// An EC key from its uncompressed point (`04 || x || y`; SEC 1, 2.3.3).
pub fn ec_spki(curve: Curve, point: &[u8]) -> Result<PublicKey, Fault> {
    if point.len() != 2 * curve.field_bytes() + 1 || point.first() != Some(&4) {
        return Err(Fault::invalid(format!("this is no uncompressed point of {}", curve.name())));
    }
    let oid = curve_oid(curve);
    build(ID_EC_PUBLIC_KEY, Some(AnyRef::from(&oid)), point)
}

/// An Ed25519 key from its 32 bytes (RFC 8032).
pub fn ed25519_spki(key: &[u8]) -> Result<PublicKey, Fault> {
    if key.len() != 32 {
        return Err(Fault::invalid("an Ed25519 public key has 32 bytes"));
    }
    build(ID_ED_25519, None, key)
}

/// An ML-DSA key from its bytes (FIPS 204, 7.2; RFC 9881, 4): their number tells the parameter set.
pub fn ml_dsa_spki(key: &[u8]) -> Result<PublicKey, Fault> {
    let set = MlDsa::ALL.into_iter().find(|set| set.public_bytes() == key.len());
    let odd = || Fault::invalid(format!("an ML-DSA public key of {} bytes is none", key.len()));
    build(ml_dsa_oid(set.ok_or_else(odd)?), None, key)
}

/// The object identifier of a parameter set, of keys and of signatures (RFC 9881, 2).
pub const fn ml_dsa_oid(set: MlDsa) -> ObjectIdentifier {
    match set {
        MlDsa::MlDsa44 => ID_ML_DSA_44,
        MlDsa::MlDsa65 => ID_ML_DSA_65,
        MlDsa::MlDsa87 => ID_ML_DSA_87,
    }
}

fn build(oid: ObjectIdentifier, parameters: Option<AnyRef<'_>>, key: &[u8]) -> Result<PublicKey, Fault> {
    let algorithm = AlgorithmIdentifierRef { oid, parameters };
    let subject_public_key = BitStringRef::from_bytes(key).map_err(malformed)?;
    let der = SubjectPublicKeyInfoRef { algorithm, subject_public_key }.to_der().map_err(malformed)?;
    parse_spki(&der)
}

/// A key from its DER. Refuses kinds Keyway does not know.
pub fn parse_spki(der: &[u8]) -> Result<PublicKey, Fault> {
    let kind = spki_kind(AnyRef::from_der(der).map_err(malformed)?)?;
    Ok(PublicKey { kind, spki: Bytes::copy_from_slice(der) })
}

/// The kind of the key in a SubjectPublicKeyInfo. Refuses those Keyway does not know.
pub fn spki_kind(spki: AnyRef<'_>) -> Result<KeyKind, Fault> {
    let spki = spki.decode_as::<SubjectPublicKeyInfoRef<'_>>().map_err(malformed)?;
    let key = spki.subject_public_key.as_bytes().ok_or_else(|| Fault::invalid("the public key has odd bits"))?;
    Ok(match spki.algorithm.oid {
        RSA_ENCRYPTION => {
            let rsa = RsaPublicKey::from_der(key).map_err(malformed)?;
            let leading = rsa.modulus.as_bytes().first().map_or(0, |byte| byte.leading_zeros());
            let bits = u32::try_from(rsa.modulus.as_bytes().len() * 8).unwrap_or(u32::MAX) - leading;
            KeyKind::Rsa { bits }
        }
        ID_EC_PUBLIC_KEY => {
            let oid = spki.algorithm.parameters_oid().map_err(|_| Fault::invalid("the EC key names no curve"))?;
            let curve = Curve::ALL.into_iter().find(|curve| curve_oid(*curve) == oid);
            let curve = curve.ok_or_else(|| Fault::invalid(format!("EC curve {oid} is not supported")))?;
            if key.len() != 2 * curve.field_bytes() + 1 || key.first() != Some(&4) {
                return Err(Fault::invalid("the EC key is no uncompressed point of its curve"));
            }
            KeyKind::Ec(curve)
        }
        ID_ED_25519 if key.len() == 32 && spki.algorithm.parameters.is_none() => KeyKind::Ed25519,
        other => {
            let known = MlDsa::ALL.into_iter().find(|set| {
                ml_dsa_oid(*set) == other && set.public_bytes() == key.len() && spki.algorithm.parameters.is_none()
            });
            let unknown = || Fault::invalid(format!("public key algorithm {other} is not supported"));
            KeyKind::MlDsa(known.ok_or_else(unknown)?)
        }
    })
}

/// The key's own bytes: what is in the BIT STRING of its SubjectPublicKeyInfo.
pub fn subject_public_key(key: &PublicKey) -> Result<&[u8], Fault> {
    // They come last: those of a curve's point, whose length is known, are its end.
    if let KeyKind::Ec(curve) = key.kind
        && let Some(start) = key.spki.len().checked_sub(2 * curve.field_bytes() + 1)
        && let Some(point) = key.spki.get(start..)
    {
        return Ok(point);
    }
    let spki = SubjectPublicKeyInfoRef::from_der(&key.spki).map_err(malformed)?;
    spki.subject_public_key.as_bytes().ok_or_else(|| Fault::invalid("the public key has odd bits"))
}

/// The modulus and exponent of an RSA key, big-endian without leading zeros.
pub fn rsa_parts(key: &PublicKey) -> Result<(Vec<u8>, Vec<u8>), Fault> {
    let rsa = RsaPublicKey::from_der(subject_public_key(key)?).map_err(malformed)?;
    Ok((rsa.modulus.as_bytes().to_vec(), rsa.exponent.as_bytes().to_vec()))
}

/// PEM (RFC 7468) of DER under a label such as `PUBLIC KEY`, with a final newline.
pub fn pem(label: &'static str, der: &[u8]) -> String {
    // The labels are ours and well formed, the only way to fail.
    der::pem::encode_string(label, der::pem::LineEnding::LF, der).unwrap_or_default()
}

fn malformed(error: der::Error) -> Fault {
    Fault::invalid(format!("the public key is malformed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keys_of_each_kind_come_back_as_they_went() {
        let rsa = rsa_spki(&[&[0xc1; 256][..]].concat(), &[1, 0, 1]).unwrap();
        assert_eq!(rsa.kind, KeyKind::Rsa { bits: 2048 });
        assert_eq!(rsa_parts(&rsa).unwrap(), (vec![0xc1; 256], vec![1, 0, 1]));
        let ec = ec_spki(Curve::P384, &[&[4][..], &[7; 96]].concat()).unwrap();
        assert_eq!(ec.kind, KeyKind::Ec(Curve::P384));
        assert_eq!(subject_public_key(&ec).unwrap(), [&[4][..], &[7; 96]].concat());
        let ed = ed25519_spki(&[9; 32]).unwrap();
        assert_eq!(parse_spki(&ed.spki).unwrap(), ed);
        assert_eq!(subject_public_key(&ed).unwrap(), [9; 32]);
        for set in MlDsa::ALL {
            let key = ml_dsa_spki(&vec![7; set.public_bytes()]).unwrap();
            assert_eq!(key.kind, KeyKind::MlDsa(set));
            assert_eq!(parse_spki(&key.spki).unwrap(), key);
        }
        assert!(ml_dsa_spki(&[7; 1000]).is_err());
        assert!(pem("PUBLIC KEY", &ed.spki).starts_with("-----BEGIN PUBLIC KEY-----\n"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_key_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse_spki(&bytes);
        }
    }
}
