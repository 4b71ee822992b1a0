//! Algorithms by their names in Azure, and which keys they are for.

use super::error::Error;
use super::kind::{Kty, curve_name};
use crate::keys::{Curve, Hash, Kind, Mode, RsaCipher, Scheme};

/// How to sign.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Signing {
    /// A digest of this length.
    Digest(Scheme, usize),
    /// Any bytes that fit.
    Raw,
    Mac(Hash),
}

/// How to encrypt, or to wrap.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Ciphering {
    Rsa(RsaCipher),
    Gcm,
    Block(Mode),
    Wrap,
}

/// The way of signing that an algorithm is, if it is one for a key of this kind. `kid` is for the error.
pub(super) fn signing(name: &str, kty: Kty, kind: Kind, kid: &str) -> Result<Signing, Error> {
    let rsa = |scheme: fn(Hash) -> Scheme, hash: Hash| Signing::Digest(scheme(hash), hash.len());
    let (signing, for_type, curve) = match name {
        "RS256" => (rsa(Scheme::RsaPkcs1, Hash::Sha256), "RSA", None),
        "RS384" => (rsa(Scheme::RsaPkcs1, Hash::Sha384), "RSA", None),
        "RS512" => (rsa(Scheme::RsaPkcs1, Hash::Sha512), "RSA", None),
        "PS256" => (rsa(Scheme::RsaPss, Hash::Sha256), "RSA", None),
        "PS384" => (rsa(Scheme::RsaPss, Hash::Sha384), "RSA", None),
        "PS512" => (rsa(Scheme::RsaPss, Hash::Sha512), "RSA", None),
        "RSNULL" => (Signing::Raw, "RSA", None),
        "ES256" => (Signing::Digest(Scheme::EcdsaFixed, 32), "EC", Some(Curve::P256)),
        "ES256K" => (Signing::Digest(Scheme::EcdsaFixed, 32), "EC", Some(Curve::Secp256k1)),
        "ES384" => (Signing::Digest(Scheme::EcdsaFixed, 48), "EC", Some(Curve::P384)),
        "ES512" => (Signing::Digest(Scheme::EcdsaFixed, 64), "EC", Some(Curve::P521)),
        "HS256" => (Signing::Mac(Hash::Sha256), "oct-HSM", None),
        "HS384" => (Signing::Mac(Hash::Sha384), "oct-HSM", None),
        "HS512" => (Signing::Mac(Hash::Sha512), "oct-HSM", None),
        _ => return Err(unknown(name)),
    };
    if !kty.name().starts_with(for_type) {
        return Err(incompatible("signing", name, kty, for_type, kid));
    }
    match (curve, kind) {
        (Some(wanted), Kind::Ec(curve)) if wanted != curve => Err(Error::bad(format!(
            "Key and signing algorithm are incompatible. Key {kid} is a key on curve '{}', and algorithm '{name}' can only \
             be used with a key on curve '{}'.",
            curve_name(curve),
            curve_name(wanted)
        ))),
        _ => Ok(signing),
    }
}

/// The way of encrypting or wrapping that an algorithm is, if it is one for a key of this kind.
pub(super) fn ciphering(name: &str, wrap: bool, kty: Kty, kind: Kind, kid: &str) -> Result<Ciphering, Error> {
    let (ciphering, bits) = match name {
        "RSA1_5" => (Ciphering::Rsa(RsaCipher::Pkcs1), None),
        "RSA-OAEP" => (Ciphering::Rsa(RsaCipher::Oaep(Hash::Sha1)), None),
        "RSA-OAEP-256" => (Ciphering::Rsa(RsaCipher::Oaep(Hash::Sha256)), None),
        "A128KW" if wrap => (Ciphering::Wrap, Some(128)),
        "A192KW" if wrap => (Ciphering::Wrap, Some(192)),
        "A256KW" if wrap => (Ciphering::Wrap, Some(256)),
        "CKM_AES_KEY_WRAP" if wrap => (Ciphering::Wrap, None),
        _ if wrap => return Err(unknown(name)),
        "A128GCM" => (Ciphering::Gcm, Some(128)),
        "A192GCM" => (Ciphering::Gcm, Some(192)),
        "A256GCM" => (Ciphering::Gcm, Some(256)),
        "A128CBC" => (Ciphering::Block(Mode::Cbc), Some(128)),
        "A192CBC" => (Ciphering::Block(Mode::Cbc), Some(192)),
        "A256CBC" => (Ciphering::Block(Mode::Cbc), Some(256)),
        "A128CBCPAD" => (Ciphering::Block(Mode::CbcPad), Some(128)),
        "A192CBCPAD" => (Ciphering::Block(Mode::CbcPad), Some(192)),
        "A256CBCPAD" => (Ciphering::Block(Mode::CbcPad), Some(256)),
        _ => return Err(unknown(name)),
    };
    let for_type = if matches!(ciphering, Ciphering::Rsa(_)) { "RSA" } else { "oct-HSM" };
    if !kty.name().starts_with(for_type) {
        return Err(incompatible("encryption", name, kty, for_type, kid));
    }
    match (bits, kind) {
        (Some(wanted), Kind::Aes { bits }) if wanted != bits => Err(Error::bad(format!(
            "Key and encryption algorithm are incompatible. Key {kid} has {bits} bits, and algorithm '{name}' can only be \
             used with a key of {wanted}."
        ))),
        _ => Ok(ciphering),
    }
}

fn unknown(name: &str) -> Error {
    Error::bad(format!("Property  has invalid value\r\nUnknown or unsupported algorithm: {name}"))
}

fn incompatible(what: &str, name: &str, kty: Kty, for_type: &str, kid: &str) -> Error {
    let types = match for_type {
        "oct-HSM" => "'oct-HSM'".to_owned(),
        for_type => format!("'{for_type}' or '{for_type}-HSM'"),
    };
    Error::bad(format!(
        "Key and {what} algorithm are incompatible. Key {kid} is of type '{}', and algorithm '{name}' can only be used with \
         a key of type {types}.",
        kty.name()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn algorithms_are_for_their_keys() {
        let rsa = (Kty::Rsa { hsm: true }, Kind::Rsa { bits: 2048 });
        let ec = (Kty::Ec { hsm: false }, Kind::Ec(Curve::P256));
        let oct = (Kty::Oct, Kind::Aes { bits: 256 });
        let sign = |name, key: (Kty, Kind)| signing(name, key.0, key.1, "k");
        assert_eq!(sign("PS384", rsa), Ok(Signing::Digest(Scheme::RsaPss(Hash::Sha384), 48)));
        assert_eq!(sign("ES256", ec), Ok(Signing::Digest(Scheme::EcdsaFixed, 32)));
        assert_eq!(sign("HS512", oct), Ok(Signing::Mac(Hash::Sha512)));
        for (name, key) in [("ES256", rsa), ("RS256", ec), ("ES256K", ec), ("ES384", ec), ("HS256", ec), ("EdDSA", ec)]
        {
            assert!(sign(name, key).is_err(), "{name}");
        }
        let cipher = |name, wrap, key: (Kty, Kind)| ciphering(name, wrap, key.0, key.1, "k");
        assert_eq!(cipher("RSA-OAEP", true, rsa), Ok(Ciphering::Rsa(RsaCipher::Oaep(Hash::Sha1))));
        assert_eq!(cipher("A256GCM", false, oct), Ok(Ciphering::Gcm));
        assert_eq!(cipher("A256KW", true, oct), Ok(Ciphering::Wrap));
        for (name, wrap) in [("A128GCM", false), ("A256KW", false), ("A256GCM", true), ("RSA-OAEP", false)] {
            assert!(cipher(name, wrap, oct).is_err(), "{name}");
        }
    }
}
