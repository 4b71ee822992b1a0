//! What a PKCS#11 mechanism number means for a managed key.

use crate::model::{Curve, Fault, KeyKind, SignatureScheme};

/// `CKM_RSA_PKCS`.
const RSA_PKCS: u64 = 0x0001;
/// `CKM_RSA_PKCS_OAEP`.
const RSA_PKCS_OAEP: u64 = 0x0009;
/// `CKM_RSA_PKCS_PSS`.
const RSA_PKCS_PSS: u64 = 0x000d;
/// `CKM_ECDSA`.
const ECDSA: u64 = 0x1041;
/// `CKM_EDDSA`.
const EDDSA: u64 = 0x1057;

/// A mechanism, by its number. Any number is accepted and stored; keys of those listed here can be generated, and all of
/// these but `CKM_RSA_PKCS_OAEP` can sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mechanism(pub u64);

impl Mechanism {
    /// The kind of key to generate for it, from `key_bits` and `curve`.
    pub fn generated_kind(self, key_bits: u32, curve: Option<Curve>) -> Result<KeyKind, Fault> {
        match self.0 {
            RSA_PKCS | RSA_PKCS_PSS | RSA_PKCS_OAEP => match key_bits {
                2048 | 3072 | 4096 => Ok(KeyKind::Rsa { bits: key_bits }),
                0 => Err(Fault::invalid("key_bits is required to generate an RSA key: 2048, 3072 or 4096")),
                other => Err(Fault::invalid(format!("key_bits {other} is not supported: use 2048, 3072 or 4096"))),
            },
            ECDSA => curve
                .map(KeyKind::Ec)
                .ok_or_else(|| Fault::invalid("curve is required to generate an EC key: P256, P384 or P521")),
            EDDSA => Ok(KeyKind::Ed25519),
            other => Err(Fault::invalid(format!("cannot generate a key for mechanism {other}"))),
        }
    }

    /// Refuses a key that this mechanism cannot use.
    pub fn require_kind(self, key: &str, kind: KeyKind) -> Result<(), Fault> {
        let fits = match self.0 {
            RSA_PKCS | RSA_PKCS_PSS | RSA_PKCS_OAEP => matches!(kind, KeyKind::Rsa { .. }),
            ECDSA => matches!(kind, KeyKind::Ec(_)),
            EDDSA => kind == KeyKind::Ed25519,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        Err(Fault::invalid(format!(
            "managed key {key:?} has mechanism {self}, but the key on the token is {kind}: correct the mechanism or the key's label"
        )))
    }

    /// The scheme used when the client names none. `salt` is the PSS salt length to use.
    pub fn default_scheme(self, key: &str, salt: u16) -> Result<SignatureScheme, Fault> {
        match self.0 {
            RSA_PKCS => Ok(SignatureScheme::RsaPkcs1),
            RSA_PKCS_PSS => Ok(SignatureScheme::RsaPss { salt }),
            ECDSA => Ok(SignatureScheme::Ecdsa),
            EDDSA => Ok(SignatureScheme::Ed25519),
            _ => Err(self.cannot_sign(key)),
        }
    }

    /// Refuses a scheme the mechanism is not for; as [`Fault::NotSupported`], if it makes no signatures at all.
    pub fn require_scheme(self, key: &str, scheme: SignatureScheme) -> Result<(), Fault> {
        self.default_scheme(key, 0)?;
        let fits = match scheme {
            SignatureScheme::RsaPkcs1 => self.0 == RSA_PKCS,
            SignatureScheme::RsaPss { .. } => self.0 == RSA_PKCS_PSS,
            SignatureScheme::Ecdsa => self.0 == ECDSA,
            SignatureScheme::Ed25519 => self.0 == EDDSA,
        };
        if fits {
            return Ok(());
        }
        let asked = match scheme {
            SignatureScheme::RsaPkcs1 => "RSA PKCS#1 v1.5 signatures",
            SignatureScheme::RsaPss { .. } => "RSA PSS signatures",
            SignatureScheme::Ecdsa => "ECDSA signatures",
            SignatureScheme::Ed25519 => "Ed25519 signatures",
        };
        Err(Fault::invalid(format!("managed key {key:?} is registered for mechanism {self}, which makes no {asked}")))
    }

    fn cannot_sign(self, key: &str) -> Fault {
        Fault::NotSupported { what: format!("signing with managed key {key:?}, whose mechanism is {self}") }
    }
}

impl std::fmt::Display for Mechanism {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = match self.0 {
            RSA_PKCS => "CKM_RSA_PKCS",
            RSA_PKCS_OAEP => "CKM_RSA_PKCS_OAEP",
            RSA_PKCS_PSS => "CKM_RSA_PKCS_PSS",
            ECDSA => "CKM_ECDSA",
            EDDSA => "CKM_EDDSA",
            other => return write!(f, "{other:#06x}"),
        };
        write!(f, "{name} ({:#06x})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PSS: SignatureScheme = SignatureScheme::RsaPss { salt: 32 };

    #[test]
    fn each_mechanism_signs_in_its_own_way_only() {
        let schemes = [SignatureScheme::RsaPkcs1, PSS, SignatureScheme::Ecdsa, SignatureScheme::Ed25519];
        for (index, number) in [RSA_PKCS, RSA_PKCS_PSS, ECDSA, EDDSA].into_iter().enumerate() {
            let mechanism = Mechanism(number);
            assert_eq!(mechanism.default_scheme("k", 32), Ok(schemes[index]));
            for scheme in schemes {
                assert_eq!(mechanism.require_scheme("k", scheme).is_ok(), scheme == schemes[index], "{mechanism}");
            }
        }
        let refused = Mechanism(RSA_PKCS_PSS).require_scheme("ca", SignatureScheme::RsaPkcs1).unwrap_err();
        let text = "managed key \"ca\" is registered for mechanism CKM_RSA_PKCS_PSS (0x000d), which makes no RSA PKCS#1 v1.5 \
                    signatures";
        assert_eq!(refused, Fault::invalid(text));
    }

    #[test]
    fn a_mechanism_that_cannot_sign_says_so_whatever_is_asked() {
        for number in [RSA_PKCS_OAEP, 0x1087, 0, 0x1_0000_0001] {
            let refused = Mechanism(number).require_scheme("k", PSS).unwrap_err();
            assert!(matches!(refused, Fault::NotSupported { .. }), "{refused}");
            assert_eq!(Mechanism(number).default_scheme("k", 32), Err(refused));
        }
    }

    #[test]
    fn what_is_generated_follows_from_mechanism_size_and_curve() {
        let kind = |number, bits, curve| Mechanism(number).generated_kind(bits, curve);
        assert_eq!(kind(RSA_PKCS, 3072, None), Ok(KeyKind::Rsa { bits: 3072 }));
        assert_eq!(kind(RSA_PKCS_PSS, 2048, Some(Curve::P256)), Ok(KeyKind::Rsa { bits: 2048 }));
        assert_eq!(kind(ECDSA, 0, Some(Curve::P521)), Ok(KeyKind::Ec(Curve::P521)));
        assert_eq!(kind(EDDSA, 0, None), Ok(KeyKind::Ed25519));
        assert_eq!(kind(0, 2048, None), Err(Fault::invalid("cannot generate a key for mechanism 0")));
        assert!(
            kind(RSA_PKCS, 0, None).is_err() && kind(RSA_PKCS, 1024, None).is_err() && kind(ECDSA, 256, None).is_err()
        );
    }

    #[test]
    fn a_key_must_fit_its_mechanism() {
        let p256 = KeyKind::Ec(Curve::P256);
        for (number, fits) in [(ECDSA, true), (RSA_PKCS, false), (RSA_PKCS_OAEP, false), (EDDSA, false), (0x1087, true)]
        {
            assert_eq!(Mechanism(number).require_kind("k", p256).is_ok(), fits, "{number:#x}");
        }
    }
}
