//! Key pairs made for a client, who gets the private half once: nothing of it is kept, and what was in memory is wiped.

use aws_lc_rs::encoding::{AsDer, EcPrivateKeyRfc5915Der, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, PqdsaKeyPair};
use der::asn1::{AnyRef, OctetStringRef};
use der::{Decode, Sequence};

use super::software::ml_dsa_signing;
use super::{ec_spki, ed25519_spki, ml_dsa_spki, parse_spki};
use crate::model::{Curve, Fault, KeyKind, MlDsa, PublicKey, Secret};

/// PrivateKeyInfo (RFC 5208, 5), as far as it wraps a key.
#[derive(Sequence)]
struct PrivateKeyInfo<'a> {
    version: u8,
    algorithm: AnyRef<'a>,
    private_key: &'a OctetStringRef,
}

/// A key pair, its private half in both of the forms clients ask for.
pub struct GeneratedKey {
    /// The public half.
    pub public: PublicKey,
    /// DER of the PKCS#8 PrivateKeyInfo.
    pub pkcs8: Secret,
    /// DER of the form of its kind: RSAPrivateKey (RFC 8017, A.1.2), ECPrivateKey (RFC 5915); Ed25519 and ML-DSA have
    /// none but PKCS#8.
    pub traditional: Secret,
    /// The PEM label of `traditional`.
    pub traditional_label: &'static str,
}

/// The PEM label of PKCS#8.
pub const PKCS8_LABEL: &str = "PRIVATE KEY";

impl GeneratedKey {
    /// Makes one. An RSA key takes a tenth of a second to many seconds of CPU: not for a thread that others wait for.
    pub fn generate(kind: KeyKind) -> Result<GeneratedKey, Fault> {
        match kind {
            KeyKind::Rsa { bits } => rsa(bits),
            KeyKind::Ec(curve) => ec(curve),
            KeyKind::Ed25519 => ed25519(),
            KeyKind::MlDsa(set) => ml_dsa(set),
            KeyKind::Aes { .. } | KeyKind::Hmac { .. } => {
                Err(Fault::NotSupported { what: format!("key pairs of kind {kind}") })
            }
        }
    }
}

fn rsa(bits: u32) -> Result<GeneratedKey, Fault> {
    let size = match bits {
        2048 => KeySize::Rsa2048,
        3072 => KeySize::Rsa3072,
        4096 => KeySize::Rsa4096,
        8192 => KeySize::Rsa8192,
        other => {
            return Err(Fault::invalid(format!(
                "RSA keys of {other} bits are not made: expected 2048, 3072, 4096 or 8192"
            )));
        }
    };
    let pair = RsaKeyPair::generate(size).map_err(failed)?;
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    let info = PrivateKeyInfo::from_der(pkcs8.as_ref()).map_err(|_| failed(aws_lc_rs::error::Unspecified))?;
    Ok(GeneratedKey {
        public: parse_spki(pair.public_key().as_der().map_err(failed)?.as_ref())?,
        traditional: Secret::new(info.private_key.as_bytes()),
        traditional_label: "RSA PRIVATE KEY",
        pkcs8: Secret::new(pkcs8.as_ref()),
    })
}

fn ec(curve: Curve) -> Result<GeneratedKey, Fault> {
    let algorithm = match curve {
        Curve::P256 => &sig::ECDSA_P256_SHA256_ASN1_SIGNING,
        Curve::P384 => &sig::ECDSA_P384_SHA384_ASN1_SIGNING,
        Curve::P521 => &sig::ECDSA_P521_SHA512_ASN1_SIGNING,
        Curve::Secp256k1 => &sig::ECDSA_P256K1_SHA256_ASN1_SIGNING,
    };
    let pair = EcdsaKeyPair::generate(algorithm).map_err(failed)?;
    let traditional: EcPrivateKeyRfc5915Der<'_> = pair.private_key().as_der().map_err(failed)?;
    Ok(GeneratedKey {
        public: ec_spki(curve, pair.public_key().as_ref())?,
        pkcs8: Secret::new(pair.to_pkcs8v1().map_err(failed)?.as_ref()),
        traditional: Secret::new(traditional.as_ref()),
        traditional_label: "EC PRIVATE KEY",
    })
}

fn ed25519() -> Result<GeneratedKey, Fault> {
    let pair = Ed25519KeyPair::generate().map_err(failed)?;
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der().map_err(failed)?;
    Ok(GeneratedKey {
        public: ed25519_spki(pair.public_key().as_ref())?,
        pkcs8: Secret::new(pkcs8.as_ref()),
        traditional: Secret::new(pkcs8.as_ref()),
        traditional_label: PKCS8_LABEL,
    })
}

fn ml_dsa(set: MlDsa) -> Result<GeneratedKey, Fault> {
    let pair = PqdsaKeyPair::generate(ml_dsa_signing(set)).map_err(failed)?;
    let pkcs8 = pair.to_pkcs8v1().map_err(failed)?;
    Ok(GeneratedKey {
        public: ml_dsa_spki(pair.public_key().as_ref())?,
        pkcs8: Secret::new(pkcs8.as_ref()),
        traditional: Secret::new(pkcs8.as_ref()),
        traditional_label: PKCS8_LABEL,
    })
}

fn failed(_: aws_lc_rs::error::Unspecified) -> Fault {
    Fault::internal("a key pair could not be made")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_each_kind_are_made_and_differ() {
        for kind in [
            KeyKind::Rsa { bits: 2048 },
            KeyKind::Ec(Curve::P256),
            KeyKind::Ec(Curve::P384),
            KeyKind::Ec(Curve::P521),
            KeyKind::Ec(Curve::Secp256k1),
            KeyKind::Ed25519,
            KeyKind::MlDsa(MlDsa::MlDsa44),
            KeyKind::MlDsa(MlDsa::MlDsa87),
        ] {
            let (one, other) = (GeneratedKey::generate(kind).unwrap(), GeneratedKey::generate(kind).unwrap());
            assert_eq!(one.public.kind, kind);
            assert!(one.public != other.public && one.pkcs8.expose() != other.pkcs8.expose());
        }
        assert!(GeneratedKey::generate(KeyKind::Rsa { bits: 1024 }).is_err());
    }
}
