//! Finding a private key, and its public half in whatever form the token gives it; or a secret key.

use cryptoki_sys::{
    CK_KEY_TYPE, CK_OBJECT_HANDLE, CK_ULONG, CKA_CLASS, CKA_EC_PARAMS, CKA_EC_POINT, CKA_ID, CKA_KEY_TYPE, CKA_LABEL,
    CKA_MODULUS, CKA_PARAMETER_SET, CKA_PUBLIC_EXPONENT, CKA_PUBLIC_KEY_INFO, CKA_VALUE, CKA_VALUE_LEN, CKK_AES,
    CKK_EC, CKK_EC_EDWARDS, CKK_GENERIC_SECRET, CKK_ML_DSA, CKK_RSA, CKK_SHA_1_HMAC, CKK_SHA224_HMAC, CKK_SHA256_HMAC,
    CKK_SHA384_HMAC, CKK_SHA512_HMAC, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, CKO_SECRET_KEY,
};

use super::fault::{self, NativeError};
use super::objects::{self, Value};
use super::session::NativeSession;
use crate::backend::{Fate, FoundKey, KeySelector};
use crate::config::Profile;
use crate::crypto;
use crate::model::{Curve, Fault, KeyKind, PublicKey};

/// DER of the named curves' object identifiers, as `CKA_EC_PARAMS` holds them.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];
const SECP256K1: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x0a];
/// Ed25519 by its object identifier (RFC 8410), and by the name PKCS#11 v3.0 has for it.
pub(super) const ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
const EDWARDS25519: &[u8] = b"\x13\x0cedwards25519";
/// So many ids are named where too many keys match.
const IDS_NAMED: usize = 8;

/// DER of a curve's object identifier.
pub(super) fn curve_params(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => P256,
        Curve::P384 => P384,
        Curve::P521 => P521,
        Curve::Secp256k1 => SECP256K1,
    }
}

/// The one private or secret key of this selector.
pub(super) fn find(
    session: &NativeSession,
    selector: &KeySelector,
    profile: Profile,
) -> Result<Option<FoundKey>, NativeError> {
    let class = if selector.secret { CKO_SECRET_KEY } else { CKO_PRIVATE_KEY };
    let mut template = vec![(CKA_CLASS, Value::Number(class))];
    template.extend(selector.label.as_ref().map(|label| (CKA_LABEL, Value::Bytes(label.as_bytes()))));
    template.extend(selector.id.as_ref().map(|id| (CKA_ID, Value::Bytes(id))));
    let objects = objects::find(session, &template, profile)?;
    match objects.as_slice() {
        [] => Ok(None),
        [one] if selector.secret => describe_secret(session, *one, profile).map(Some),
        [one] => describe(session, *one, profile).map(Some),
        many => Err(ambiguous(session, many, profile)?),
    }
}

fn ambiguous(session: &NativeSession, many: &[CK_OBJECT_HANDLE], profile: Profile) -> Result<NativeError, NativeError> {
    let mut ids = Vec::new();
    for object in many.iter().take(IDS_NAMED) {
        ids.push(hex::encode(id_and_label(session, *object, profile)?.0));
    }
    let more = if many.len() > ids.len() { " and others" } else { "" };
    let reason = format!("{} keys match; name one by its key_id: {}{more}", many.len(), ids.join(", "));
    Ok(fault::keep(Fault::invalid(reason)))
}

fn id_and_label(
    session: &NativeSession,
    key: CK_OBJECT_HANDLE,
    profile: Profile,
) -> Result<(Vec<u8>, String), NativeError> {
    let [id, label] = objects::read(session, key, [CKA_ID, CKA_LABEL], profile)?.map(Option::unwrap_or_default);
    Ok((id, String::from_utf8_lossy(&label).into_owned()))
}

/// What is known of a private key.
pub(super) fn describe(
    session: &NativeSession,
    key: CK_OBJECT_HANDLE,
    profile: Profile,
) -> Result<FoundKey, NativeError> {
    let (id, label) = id_and_label(session, key, profile)?;
    let [kind] = objects::read(session, key, [CKA_KEY_TYPE], profile)?;
    let Some(key_type) = kind.and_then(|kind| kind.try_into().ok()).map(CK_KEY_TYPE::from_ne_bytes) else {
        return Err(no_public(&label, "the token does not say what kind of key it is"));
    };
    // The public object first: it says most. Some tokens keep what is needed on the private one.
    let mut sources = public_objects(session, &id, &label, key_type, profile)?;
    sources.push(key);
    for source in sources {
        if let Some(public) = public_key(session, source, key_type, profile)? {
            return Ok(FoundKey::new(key, public.kind, Some(public), id, &label));
        }
    }
    Err(no_public(&label, "the token holds no public key of the same id or label; store one beside it"))
}

/// What is known of a secret key.
pub(super) fn describe_secret(
    session: &NativeSession,
    key: CK_OBJECT_HANDLE,
    profile: Profile,
) -> Result<FoundKey, NativeError> {
    let (id, label) = id_and_label(session, key, profile)?;
    let number = |value: Option<Vec<u8>>| value.and_then(|value| value.try_into().ok()).map(CK_ULONG::from_ne_bytes);
    let refused = |why: String| fault::keep(Fault::NotSupported { what: format!("secret key {label:?}: {why}") });
    // One at a time: not every token tells the length of what it does not give out.
    let [key_type] = objects::read(session, key, [CKA_KEY_TYPE], profile)?.map(number);
    let [len] = objects::read(session, key, [CKA_VALUE_LEN], profile)?.map(number);
    let bits = len.and_then(|len| u32::try_from(len).ok()).and_then(|len| len.checked_mul(8)).unwrap_or(0);
    let kind = match key_type {
        Some(CKK_AES) if matches!(bits, 128 | 192 | 256) => KeyKind::Aes { bits },
        Some(CKK_AES) => return Err(refused("the token does not tell how long this AES key is".into())),
        Some(
            CKK_GENERIC_SECRET | CKK_SHA_1_HMAC | CKK_SHA224_HMAC | CKK_SHA256_HMAC | CKK_SHA384_HMAC | CKK_SHA512_HMAC,
        ) => KeyKind::Hmac { bits },
        Some(other) => return Err(refused(format!("keys of type {other:#x} are not supported"))),
        None => return Err(refused("the token does not say what kind of key it is".into())),
    };
    Ok(FoundKey::new(key, kind, None, id, &label))
}

fn no_public(label: &str, why: &str) -> NativeError {
    let what = format!("private key {label:?}: {why}");
    fault::keep(Fault::NotSupported { what })
}

fn public_objects(
    session: &NativeSession,
    id: &[u8],
    label: &str,
    key_type: CK_KEY_TYPE,
    profile: Profile,
) -> Result<Vec<CK_OBJECT_HANDLE>, NativeError> {
    let by = if id.is_empty() { (CKA_LABEL, Value::Bytes(label.as_bytes())) } else { (CKA_ID, Value::Bytes(id)) };
    let template = [(CKA_CLASS, Value::Number(CKO_PUBLIC_KEY)), (CKA_KEY_TYPE, Value::Number(key_type)), by];
    let found = objects::find(session, &template, profile)?;
    // By label, another key pair's public key may come along: then none of them is to be trusted.
    Ok(if id.is_empty() && found.len() > 1 { Vec::new() } else { found })
}

/// The public key an object tells of, if it does.
fn public_key(
    session: &NativeSession,
    object: CK_OBJECT_HANDLE,
    key_type: CK_KEY_TYPE,
    profile: Profile,
) -> Result<Option<PublicKey>, NativeError> {
    // One at a time: a token that lacks one attribute may answer for none of a list.
    let read = |kind| match objects::read(session, object, [kind], profile) {
        Ok([value]) => Ok(value.unwrap_or_default()),
        // It does not tell, or not this one; what is wrong with the session is wrong with every answer.
        Err(refused) if refused.error.fate == Fate::Keep => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let (one, other) = match key_type {
        CKK_RSA => (CKA_MODULUS, CKA_PUBLIC_EXPONENT),
        CKK_EC | CKK_EC_EDWARDS => (CKA_EC_PARAMS, CKA_EC_POINT),
        // Of a private object the value is secret, and not given out.
        CKK_ML_DSA => (CKA_PARAMETER_SET, CKA_VALUE),
        other => return Err(no_public("", &format!("keys of type {other:#x} are not supported"))),
    };
    let info = read(CKA_PUBLIC_KEY_INFO)?;
    if !info.is_empty()
        && let Ok(public) = crypto::parse_spki(&info)
    {
        return Ok(Some(public));
    }
    let (one, other) = (read(one)?, read(other)?);
    let built = match key_type {
        _ if other.is_empty() => return Ok(None),
        CKK_RSA if one.is_empty() => return Ok(None),
        CKK_RSA => crypto::rsa_spki(&one, &other),
        CKK_ML_DSA => crypto::ml_dsa_spki(&other),
        _ => ec_public(&one, &other),
    };
    built.map(Some).map_err(fault::keep)
}

/// An EC public key of `CKA_EC_PARAMS` and `CKA_EC_POINT`. The point is a DER OCTET STRING by the standard, and bare bytes
/// on some tokens.
fn ec_public(params: &[u8], point: &[u8]) -> Result<PublicKey, Fault> {
    if [ED25519, EDWARDS25519].contains(&params) {
        return crypto::ed25519_spki(unwrap_octets(point, 32));
    }
    let curve = Curve::ALL.into_iter().find(|curve| curve_params(*curve) == params);
    let curve =
        curve.ok_or_else(|| Fault::invalid(format!("EC parameters {} are not supported", hex::encode(params))))?;
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
