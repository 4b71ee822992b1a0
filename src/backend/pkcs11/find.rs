//! Finding a private key, and its public half in whatever form the token gives it.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::Session as NativeSession;

use super::class::Function;
use super::fault::{self, NativeError};
use crate::backend::{Fate, FoundKey, KeySelector};
use crate::config::Profile;
use crate::crypto;
use crate::model::{Curve, Fault, PublicKey};

/// DER of the named curves' object identifiers, as `CKA_EC_PARAMS` holds them.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
/// Ed25519 by its object identifier (RFC 8410), and by the name PKCS#11 v3.0 has for it.
pub(super) const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";

/// DER of a curve's object identifier.
pub(super) fn curve_params(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => P256,
        Curve::P384 => P384,
        Curve::P521 => P521,
    }
}

/// The one private key of this selector.
pub(super) fn find(
    session: &NativeSession,
    selector: &KeySelector,
    profile: Profile,
) -> Result<Option<FoundKey>, NativeError> {
    let mut template = vec![Attribute::Class(ObjectClass::PRIVATE_KEY)];
    template.extend(selector.label.as_ref().map(|label| Attribute::Label(label.as_bytes().to_vec())));
    template.extend(selector.id.as_ref().map(|id| Attribute::Id(id.clone())));
    let objects = objects(session, &template, profile)?;
    match objects.as_slice() {
        [] => Ok(None),
        [one] => describe(session, *one, profile).map(Some),
        many => Err(ambiguous(session, many, profile)?),
    }
}

fn objects(
    session: &NativeSession,
    template: &[Attribute],
    profile: Profile,
) -> Result<Vec<ObjectHandle>, NativeError> {
    session.find_objects(template).map_err(|error| fault::from_cryptoki(profile, Function::FindObjects, &error))
}

fn ambiguous(session: &NativeSession, many: &[ObjectHandle], profile: Profile) -> Result<NativeError, NativeError> {
    let mut ids = Vec::new();
    for object in many {
        ids.push(hex::encode(id_and_label(session, *object, profile)?.0));
    }
    let reason = format!("{} private keys match; name one by its key_id: {}", many.len(), ids.join(", "));
    Ok(fault::keep(Fault::invalid(reason)))
}

fn id_and_label(
    session: &NativeSession,
    key: ObjectHandle,
    profile: Profile,
) -> Result<(Vec<u8>, String), NativeError> {
    let mut found = (Vec::new(), String::new());
    for attribute in attributes(session, key, &[AttributeType::Id, AttributeType::Label], profile)? {
        match attribute {
            Attribute::Id(id) => found.0 = id,
            Attribute::Label(label) => found.1 = String::from_utf8_lossy(&label).into_owned(),
            _ => {}
        }
    }
    Ok(found)
}

fn attributes(
    session: &NativeSession,
    object: ObjectHandle,
    types: &[AttributeType],
    profile: Profile,
) -> Result<Vec<Attribute>, NativeError> {
    session
        .get_attributes(object, types)
        .map_err(|error| fault::from_cryptoki(profile, Function::GetAttributeValue, &error))
}

/// What is known of a private key.
pub(super) fn describe(session: &NativeSession, key: ObjectHandle, profile: Profile) -> Result<FoundKey, NativeError> {
    let (id, label) = id_and_label(session, key, profile)?;
    let kind = attributes(session, key, &[AttributeType::KeyType], profile)?;
    let Some(Attribute::KeyType(key_type)) = kind.into_iter().next() else {
        return Err(no_public(&label, "the token does not say what kind of key it is"));
    };
    // The public object first: it says most. Some tokens keep what is needed on the private one.
    let mut sources = public_objects(session, &id, &label, key_type, profile)?;
    sources.push(key);
    for source in sources {
        if let Some(public) = public_key(session, source, key_type, profile)? {
            return Ok(FoundKey { handle: key.handle(), public, id, label });
        }
    }
    Err(no_public(&label, "the token holds no public key of the same id or label; store one beside it"))
}

fn no_public(label: &str, why: &str) -> NativeError {
    let what = format!("private key {label:?}: {why}");
    fault::keep(Fault::NotSupported { what })
}

fn public_objects(
    session: &NativeSession,
    id: &[u8],
    label: &str,
    key_type: KeyType,
    profile: Profile,
) -> Result<Vec<ObjectHandle>, NativeError> {
    let by = if id.is_empty() { Attribute::Label(label.as_bytes().to_vec()) } else { Attribute::Id(id.to_vec()) };
    let template = [Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(key_type), by];
    let found = objects(session, &template, profile)?;
    // By label, another key pair's public key may come along: then none of them is to be trusted.
    Ok(if id.is_empty() && found.len() > 1 { Vec::new() } else { found })
}

/// The public key an object tells of, if it does.
fn public_key(
    session: &NativeSession,
    object: ObjectHandle,
    key_type: KeyType,
    profile: Profile,
) -> Result<Option<PublicKey>, NativeError> {
    let wanted: &[AttributeType] = match key_type {
        KeyType::RSA => &[AttributeType::PublicKeyInfo, AttributeType::Modulus, AttributeType::PublicExponent],
        KeyType::EC | KeyType::EC_EDWARDS => {
            &[AttributeType::PublicKeyInfo, AttributeType::EcParams, AttributeType::EcPoint]
        }
        other => return Err(no_public("", &format!("keys of type {other} are not supported"))),
    };
    let (mut info, mut modulus, mut exponent, mut params, mut point) = (vec![], vec![], vec![], vec![], vec![]);
    // One at a time: a token that lacks one attribute may answer for none of a list.
    for kind in wanted {
        let said = match attributes(session, object, &[*kind], profile) {
            Ok(said) => said,
            // It does not tell, or not this one; what is wrong with the session is wrong with every answer.
            Err(refused) if refused.error.fate == Fate::Keep => continue,
            Err(error) => return Err(error),
        };
        for attribute in said {
            match attribute {
                Attribute::PublicKeyInfo(value) => info = value,
                Attribute::Modulus(value) => modulus = value,
                Attribute::PublicExponent(value) => exponent = value,
                Attribute::EcParams(value) => params = value,
                Attribute::EcPoint(value) => point = value,
                _ => {}
            }
        }
    }
    if !info.is_empty()
        && let Ok(public) = crypto::parse_spki(&info)
    {
        return Ok(Some(public));
    }
    let built = match key_type {
        KeyType::RSA if !modulus.is_empty() && !exponent.is_empty() => crypto::rsa_spki(&modulus, &exponent),
        KeyType::EC | KeyType::EC_EDWARDS if !point.is_empty() => ec_public(&params, &point),
        _ => return Ok(None),
    };
    built.map(Some).map_err(fault::keep)
}

/// An EC public key of `CKA_EC_PARAMS` and `CKA_EC_POINT`. The point is a DER OCTET STRING by the standard, and bare bytes
/// on some tokens.
fn ec_public(params: &[u8], point: &[u8]) -> Result<PublicKey, Fault> {
    let curve = match params {
        P256 => Curve::P256,
        P384 => Curve::P384,
        P521 => Curve::P521,
        ED25519 | EDWARDS25519 => return crypto::ed25519_spki(unwrap_octets(point, 32)),
        other => return Err(Fault::invalid(format!("EC parameters {} are not supported", hex::encode(other)))),
    };
    crypto::ec_spki(curve, unwrap_octets(point, 2 * curve.field_bytes() + 1))
}

/// The `len` bytes in a DER OCTET STRING, or the bytes themselves where they are not wrapped.
fn unwrap_octets(bytes: &[u8], len: usize) -> &[u8] {
    match bytes {
        [0x04, short, rest @ ..] if usize::from(*short) == len && rest.len() == len => rest,
        [0x04, 0x81, long, rest @ ..] if usize::from(*long) == len && rest.len() == len => rest,
        bare => bare,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_taken_wrapped_and_bare() {
        let bare = [&[4][..], &[1; 64]].concat();
        let wrapped = [&[4, 65][..], &bare].concat();
        assert_eq!(ec_public(P256, &bare), ec_public(P256, &wrapped));
        let long = [&[4][..], &[1; 132]].concat();
        let wrapped_long = [&[4, 0x81, 133][..], &long].concat();
        assert_eq!(ec_public(P521, &long), ec_public(P521, &wrapped_long));
        assert_eq!(ec_public(ED25519, &[7; 32]), ec_public(EDWARDS25519, &[&[4, 32][..], &[7; 32]].concat()));
        assert!(ec_public(&[6, 1, 1], &bare).is_err());
    }
}
