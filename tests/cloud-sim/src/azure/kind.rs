//! Types of keys in Azure's words, and what may be asked for with them.

use serde_json::{Map, Value, json};

use super::error::Error;
use crate::keys::{Curve, Jwk, Key, Kind};

/// What a key may be used for.
pub(super) const OPERATIONS: [&str; 8] =
    ["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey", "import", "export"];

/// Azure's `kty`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kty {
    Rsa { hsm: bool },
    Ec { hsm: bool },
    Oct,
}

impl Kty {
    pub(super) fn name(self) -> &'static str {
        match self {
            Kty::Rsa { hsm: false } => "RSA",
            Kty::Rsa { hsm: true } => "RSA-HSM",
            Kty::Ec { hsm: false } => "EC",
            Kty::Ec { hsm: true } => "EC-HSM",
            Kty::Oct => "oct-HSM",
        }
    }

    /// The type that is asked for. Managed HSMs have no others than those of an HSM, and only they have symmetric ones.
    fn asked(name: &str, managed: bool) -> Result<Kty, Error> {
        match name {
            "RSA" => Ok(Kty::Rsa { hsm: managed }),
            "RSA-HSM" => Ok(Kty::Rsa { hsm: true }),
            "EC" => Ok(Kty::Ec { hsm: managed }),
            "EC-HSM" => Ok(Kty::Ec { hsm: true }),
            "oct" | "oct-HSM" if managed => Ok(Kty::Oct),
            _ => Err(Error::bad(format!("Property  has invalid value\r\nInvalid kty value: {name}"))),
        }
    }

    /// What a key may be used for if nobody says.
    pub(super) fn usual_operations(self) -> &'static [&'static str] {
        match self {
            Kty::Rsa { .. } => &["encrypt", "decrypt", "sign", "verify", "wrapKey", "unwrapKey"],
            Kty::Ec { .. } => &["sign", "verify"],
            Kty::Oct => &["encrypt", "decrypt", "wrapKey", "unwrapKey"],
        }
    }
}

/// Azure's name of a curve.
pub(super) fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P-256",
        Curve::P384 => "P-384",
        Curve::P521 => "P-521",
        Curve::Secp256k1 => "P-256K",
    }
}

fn curve(name: &str) -> Result<Curve, Error> {
    match name {
        "P-256" => Ok(Curve::P256),
        "P-384" => Ok(Curve::P384),
        "P-521" => Ok(Curve::P521),
        "P-256K" | "SECP256K1" => Ok(Curve::Secp256k1),
        _ => Err(Error::bad(format!("Property  has invalid value\r\nInvalid crv value: {name}"))),
    }
}

/// The type and the kind of key that a request to create one asks for.
pub(super) fn wanted(body: &Value, managed: bool) -> Result<(Kty, Kind), Error> {
    let Some(name) = body["kty"].as_str() else { return Err(Error::bad("Property kty is required")) };
    let kty = Kty::asked(name, managed)?;
    let size = match &body["key_size"] {
        Value::Null => None,
        size => Some(size.as_u64().and_then(|size| u32::try_from(size).ok()).unwrap_or(0)),
    };
    let kind = match (kty, size) {
        (Kty::Rsa { .. }, size @ (None | Some(2048 | 3072 | 4096))) => Kind::Rsa { bits: size.unwrap_or(2048) },
        (Kty::Ec { .. }, _) => Kind::Ec(curve(body["crv"].as_str().unwrap_or("P-256"))?),
        (Kty::Oct, size @ (None | Some(128 | 192 | 256))) => Kind::Aes { bits: size.unwrap_or(256) },
        _ => return Err(Error::bad("Property  has invalid value\r\nInvalid key_size value")),
    };
    Ok((kty, kind))
}

/// The operations that are asked for, all of them known.
pub(super) fn operations(body: &Value) -> Result<Option<Vec<String>>, Error> {
    let Some(list) = body["key_ops"].as_array() else { return Ok(None) };
    let known = |value: &Value| {
        let name = value.as_str().unwrap_or_default();
        OPERATIONS
            .contains(&name)
            .then(|| name.to_owned())
            .ok_or_else(|| Error::bad(format!("Property  has invalid value\r\nInvalid key_ops value: {value}")))
    };
    list.iter().map(known).collect::<Result<_, _>>().map(Some)
}

/// The JSON web key: type and public part.
pub(super) fn jwk(kty: Kty, key: &Key) -> Map<String, Value> {
    let text = super::operate::encode;
    let mut fields = Map::new();
    fields.insert("kty".into(), kty.name().into());
    let parts = match key.jwk() {
        Some(Jwk::Rsa { n, e }) => vec![("n", json!(text(&n))), ("e", json!(text(&e)))],
        Some(Jwk::Ec { curve, x, y }) => {
            vec![("crv", json!(curve_name(curve))), ("x", json!(text(&x))), ("y", json!(text(&y)))]
        }
        Some(Jwk::Ed25519 { .. }) | None => Vec::new(),
    };
    fields.extend(parts.into_iter().map(|(name, value)| (name.to_owned(), value)));
    fields
}
