//! The calls of null mode.

use std::slice;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_ATTRIBUTE_TYPE, CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_ULONG, CK_USER_TYPE, CKA_EC_PARAMS,
    CKA_ID, CKA_LABEL, CKA_MODULUS_BITS, CKA_VALUE_LEN, CKM_AES_KEY_GEN, CKM_EC_KEY_PAIR_GEN,
    CKM_GENERIC_SECRET_KEY_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_DOMAIN_PARAMS_INVALID, CKR_FUNCTION_FAILED, CKR_GENERAL_ERROR, CKR_KEY_HANDLE_INVALID, CKR_KEY_SIZE_RANGE,
    CKR_MECHANISM_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OPERATION_ACTIVE, CKR_OPERATION_NOT_INITIALIZED,
    CKR_TEMPLATE_INCOMPLETE, CKR_USER_NOT_LOGGED_IN, CKR_USER_TYPE_INVALID, CKU_USER,
};

use super::attributes::{self, Object};
use super::ciphering::Ciphering;
use super::key::Key;
use super::memory::Memory;
use super::signing::Scheme;
use super::token::NullToken;
use crate::call::{Answer, Call};
use crate::function::Function;
use crate::settings::KeyKind;

/// What goes on in a session.
#[derive(Default)]
pub(crate) struct Operations {
    pub(crate) sign: Option<Signing>,
    pub(crate) encrypt: Option<Ciphering>,
    pub(crate) decrypt: Option<Ciphering>,
    /// Objects that are found and not handed out yet, the last one first.
    find: Option<Vec<CK_OBJECT_HANDLE>>,
    /// The object that was used last. Handles here name the same for ever.
    used: Option<(CK_OBJECT_HANDLE, &'static Key, bool)>,
    memory: Memory,
}

impl Operations {
    /// The place of what this function begins or ends.
    pub(crate) fn cipher(&mut self, function: Function) -> &mut Option<Ciphering> {
        match function {
            Function::C_EncryptInit | Function::C_Encrypt => &mut self.encrypt,
            _ => &mut self.decrypt,
        }
    }

    /// The key and half of an object's handle. Who uses the same again asks nobody.
    fn object(&mut self, token: &NullToken, handle: CK_OBJECT_HANDLE) -> Option<(&'static Key, bool)> {
        if let Some((used, key, private)) = self.used
            && used == handle
        {
            return Some((key, private));
        }
        let (key, private) = token.object(handle)?;
        self.used = Some((handle, key, private));
        Some((key, private))
    }
}

/// A signature that has begun.
pub(crate) struct Signing {
    key: &'static Key,
    scheme: Scheme,
    /// What `C_SignUpdate` has brought.
    parts: Option<Vec<u8>>,
}

type Template = (*mut CK_ATTRIBUTE, CK_ULONG);

fn token<'c>(call: &'c Call<'_>) -> Answer<&'c NullToken> {
    call.session.slot.null.as_ref().ok_or(CKR_GENERAL_ERROR)
}

/// The bytes a caller gave.
///
/// # Safety
///
/// `data` must be null or point to `len` bytes that stay as they are for `'d`.
unsafe fn bytes<'d>(data: *const CK_BYTE, len: CK_ULONG) -> Answer<&'d [u8]> {
    match (data.is_null(), usize::try_from(len)) {
        (_, Ok(0)) => Ok(&[]),
        // SAFETY: as the caller says.
        (false, Ok(len)) => Ok(unsafe { slice::from_raw_parts(data, len) }),
        _ => Err(CKR_ARGUMENTS_BAD),
    }
}

/// # Safety
///
/// `pin` must be null or point to `len` bytes.
pub(crate) unsafe fn login(call: &Call<'_>, user: CK_USER_TYPE, pin: *mut CK_BYTE, len: CK_ULONG) -> Answer {
    if user != CKU_USER {
        return Err(CKR_USER_TYPE_INVALID);
    }
    // SAFETY: as the caller says.
    token(call)?.log_in(&call.session.slot, unsafe { bytes(pin, len) }?)
}

pub(crate) fn logout(call: &Call<'_>) -> Answer {
    let token = token(call)?;
    if !token.is_logged_in() {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    token.log_out();
    Ok(())
}

/// # Safety
///
/// `template` must be null or point to `len` attributes with values as long as they say.
pub(crate) unsafe fn find_init(call: &Call<'_>, template: *mut CK_ATTRIBUTE, len: CK_ULONG) -> Answer {
    let mut operations = call.session.operations.lock();
    if operations.find.is_some() {
        return Err(CKR_OPERATION_ACTIVE);
    }
    // SAFETY: as the caller says.
    let template = unsafe { attributes::read(template, len) };
    let mut found = token(call)?.find(|object| object.matches(&template));
    found.reverse();
    operations.find = Some(found);
    Ok(())
}

/// # Safety
///
/// `objects` must have room for `most` handles, and `len` be null or valid.
pub(crate) unsafe fn find(
    call: &Call<'_>,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    len: *mut CK_ULONG,
) -> Answer {
    let mut operations = call.session.operations.lock();
    let left = operations.find.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
    // SAFETY: as the caller says.
    let len = unsafe { len.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
    if objects.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    let taken = left.len().min(usize::try_from(most).unwrap_or(usize::MAX));
    for place in 0..taken {
        // SAFETY: below `most`, for which there is room.
        unsafe { objects.add(place).write(left.pop().unwrap_or(0)) };
    }
    *len = taken as CK_ULONG;
    Ok(())
}

pub(crate) fn find_final(call: &Call<'_>) -> Answer {
    let ended = call.session.operations.lock().find.take();
    ended.map(drop).ok_or(CKR_OPERATION_NOT_INITIALIZED)
}

/// # Safety
///
/// `template` must point to `len` attributes, each null or with room for as much as it says.
pub(crate) unsafe fn attributes(
    call: &Call<'_>,
    object: CK_OBJECT_HANDLE,
    template: *mut CK_ATTRIBUTE,
    len: CK_ULONG,
) -> Answer {
    let token = token(call)?;
    let (key, private) = token.object(object).ok_or(CKR_OBJECT_HANDLE_INVALID)?;
    if private && !token.is_logged_in() {
        return Err(CKR_OBJECT_HANDLE_INVALID);
    }
    if template.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: as the caller says.
    let wanted = unsafe { slice::from_raw_parts_mut(template, usize::try_from(len).unwrap_or(0)) };
    // SAFETY: as the caller says.
    unsafe { Object { key, private }.write(wanted) }
}

/// # Safety
///
/// `random` must have room for `len` bytes.
pub(crate) unsafe fn random(random: *mut CK_BYTE, len: CK_ULONG) -> Answer {
    if random.is_null() {
        return Err(CKR_ARGUMENTS_BAD);
    }
    // SAFETY: as the caller says.
    let room = unsafe { slice::from_raw_parts_mut(random, usize::try_from(len).unwrap_or(0)) };
    aws_lc_rs::rand::fill(room).map_err(|_| CKR_FUNCTION_FAILED)
}

/// # Safety
///
/// `mechanism` must be null or valid, with a parameter as long as it says.
pub(crate) unsafe fn sign_init(call: &Call<'_>, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> Answer {
    let token = token(call)?;
    // SAFETY: as the caller says.
    let mechanism = unsafe { mechanism.as_ref() }.ok_or(CKR_ARGUMENTS_BAD)?;
    let mut operations = call.session.operations.lock();
    if operations.sign.is_some() {
        return Err(CKR_OPERATION_ACTIVE);
    }
    if !token.is_logged_in() {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    let (key, private) = operations.object(token, key).ok_or(CKR_KEY_HANDLE_INVALID)?;
    if !private {
        return Err(CKR_KEY_HANDLE_INVALID);
    }
    // SAFETY: as the caller says.
    let scheme = unsafe { Scheme::read(mechanism, key) }?;
    operations.sign = Some(Signing { key, scheme, parts: None });
    Ok(())
}

/// # Safety
///
/// `data` must be null or point to so many bytes; `len` be null or valid; `signature` be null or have room for `*len`.
pub(crate) unsafe fn sign(
    call: &Call<'_>,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    signature: *mut CK_BYTE,
    len: *mut CK_ULONG,
) -> Answer {
    let mut operations = call.session.operations.lock();
    let Some(signing) = operations.sign.take() else { return Err(CKR_OPERATION_NOT_INITIALIZED) };
    // SAFETY: as the caller says.
    let data = unsafe { bytes(data, data_len) }?;
    // SAFETY: as the caller says.
    let Some(room) = unsafe { room(&signing, signature, len) }? else {
        operations.sign = Some(signing);
        return if signature.is_null() { Ok(()) } else { Err(CKR_BUFFER_TOO_SMALL) };
    };
    operations.memory.sign(signing.key, signing.scheme, data, room)
}

/// The caller's room for a signature. Nothing where there is none, or too little; its length is told in any case.
///
/// # Safety
///
/// `len` must be null or valid; `signature` null or with room for `*len` bytes.
unsafe fn room<'r>(signing: &Signing, signature: *mut CK_BYTE, len: *mut CK_ULONG) -> Answer<Option<&'r mut [u8]>> {
    // SAFETY: as the caller says.
    let len = unsafe { len.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
    let needed = signing.scheme.bytes(signing.key);
    let given = std::mem::replace(len, needed as CK_ULONG);
    if signature.is_null() || given < *len {
        return Ok(None);
    }
    // SAFETY: not null, and as the caller says, there is room for `given` bytes, which are no fewer.
    Ok(Some(unsafe { slice::from_raw_parts_mut(signature, needed) }))
}

/// # Safety
///
/// `part` must be null or point to `len` bytes.
pub(crate) unsafe fn sign_update(call: &Call<'_>, part: *mut CK_BYTE, len: CK_ULONG) -> Answer {
    let mut operations = call.session.operations.lock();
    let signing = operations.sign.as_mut().ok_or(CKR_OPERATION_NOT_INITIALIZED)?;
    // SAFETY: as the caller says.
    let part = unsafe { bytes(part, len) }?;
    signing.parts.get_or_insert_default().extend_from_slice(part);
    Ok(())
}

/// # Safety
///
/// `len` must be null or valid; `signature` null or with room for `*len` bytes.
pub(crate) unsafe fn sign_final(call: &Call<'_>, signature: *mut CK_BYTE, len: *mut CK_ULONG) -> Answer {
    let mut operations = call.session.operations.lock();
    let Some(signing) = operations.sign.take() else { return Err(CKR_OPERATION_NOT_INITIALIZED) };
    // SAFETY: as the caller says.
    let Some(room) = unsafe { room(&signing, signature, len) }? else {
        operations.sign = Some(signing);
        return if signature.is_null() { Ok(()) } else { Err(CKR_BUFFER_TOO_SMALL) };
    };
    operations.memory.sign(signing.key, signing.scheme, signing.parts.as_deref().unwrap_or_default(), room)
}

/// What `C_EncryptInit` and `C_DecryptInit` begin.
///
/// # Safety
///
/// `mechanism` must be null or valid, with a parameter as long as it says.
pub(crate) unsafe fn cipher_init(call: &Call<'_>, mechanism: *mut CK_MECHANISM, key: CK_OBJECT_HANDLE) -> Answer {
    let token = token(call)?;
    // SAFETY: as the caller says.
    let mechanism = unsafe { mechanism.as_ref() }.ok_or(CKR_ARGUMENTS_BAD)?;
    let mut operations = call.session.operations.lock();
    let place = operations.cipher(call.function);
    if place.is_some() {
        return Err(CKR_OPERATION_ACTIVE);
    }
    if !token.is_logged_in() {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    let (key, _) = token.object(key).ok_or(CKR_KEY_HANDLE_INVALID)?;
    // SAFETY: as the caller says.
    *place = Some(unsafe { Ciphering::read(mechanism, key) }?);
    Ok(())
}

/// What `C_Encrypt` and `C_Decrypt` end.
///
/// # Safety
///
/// `data` must be null or point to so many bytes; `len` be null or valid; `out` be null or have room for `*len`.
pub(crate) unsafe fn cipher(
    call: &Call<'_>,
    data: *mut CK_BYTE,
    data_len: CK_ULONG,
    out: *mut CK_BYTE,
    len: *mut CK_ULONG,
) -> Answer {
    let mut operations = call.session.operations.lock();
    let place = operations.cipher(call.function);
    let Some(ciphering) = place.take() else { return Err(CKR_OPERATION_NOT_INITIALIZED) };
    // SAFETY: as the caller says.
    let (data, len) = unsafe { (bytes(data, data_len)?, len.as_mut().ok_or(CKR_ARGUMENTS_BAD)?) };
    let made = match call.function {
        Function::C_Encrypt => ciphering.encrypt(data),
        _ => ciphering.decrypt(data),
    }?;
    let given = std::mem::replace(len, made.len() as CK_ULONG);
    if out.is_null() || given < *len {
        *place = Some(ciphering);
        return if out.is_null() { Ok(()) } else { Err(CKR_BUFFER_TOO_SMALL) };
    }
    // SAFETY: not null, and as the caller says, there is room for `given` bytes, which are no fewer.
    unsafe { out.copy_from_nonoverlapping(made.as_ptr(), made.len()) };
    Ok(())
}

/// # Safety
///
/// `mechanism` must be null or valid, the template null or as long as it says, the place for the handle null or valid.
pub(crate) unsafe fn generate_secret(
    call: &Call<'_>,
    mechanism: *mut CK_MECHANISM,
    template: Template,
    handle: *mut CK_OBJECT_HANDLE,
) -> Answer {
    let token = token(call)?;
    if !token.is_logged_in() {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    // SAFETY: as the caller says.
    let mechanism = unsafe { mechanism.as_ref() }.ok_or(CKR_ARGUMENTS_BAD)?;
    // SAFETY: as the caller says.
    let template = unsafe { attributes::read(template.0, template.1) };
    let of = |kind| template.iter().find(|(known, _)| *known == kind).map(|(_, value)| value.clone());
    let (kind, bytes) = match mechanism.mechanism {
        CKM_AES_KEY_GEN => (KeyKind::Aes256, 32_u64),
        CKM_GENERIC_SECRET_KEY_GEN => (KeyKind::Hmac512, 64),
        _ => return Err(CKR_MECHANISM_INVALID),
    };
    match of(CKA_VALUE_LEN) {
        Some(len) if len == bytes.to_ne_bytes() => {}
        Some(_) => return Err(CKR_KEY_SIZE_RANGE),
        None => return Err(CKR_TEMPLATE_INCOMPLETE),
    }
    let label = String::from_utf8_lossy(&of(CKA_LABEL).unwrap_or_default()).into_owned();
    let made = token.add(kind, &label, of(CKA_ID))?;
    // SAFETY: as the caller says.
    *unsafe { handle.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)? = made;
    Ok(())
}

/// # Safety
///
/// `mechanism` must be null or valid, both templates null or as long as they say, the places for handles null or valid.
pub(crate) unsafe fn generate(
    call: &Call<'_>,
    mechanism: *mut CK_MECHANISM,
    (public, private): (Template, Template),
    (public_key, private_key): (*mut CK_OBJECT_HANDLE, *mut CK_OBJECT_HANDLE),
) -> Answer {
    let token = token(call)?;
    if !token.is_logged_in() {
        return Err(CKR_USER_NOT_LOGGED_IN);
    }
    // SAFETY: as the caller says.
    let mechanism = unsafe { mechanism.as_ref() }.ok_or(CKR_ARGUMENTS_BAD)?;
    // SAFETY: as the caller says.
    let (public, private) = unsafe { (attributes::read(public.0, public.1), attributes::read(private.0, private.1)) };
    let of = |template: &[(CK_ATTRIBUTE_TYPE, Vec<u8>)], kind| {
        template.iter().find(|(known, _)| *known == kind).map(|(_, value)| value.clone())
    };
    let kind = match mechanism.mechanism {
        CKM_EC_KEY_PAIR_GEN => match of(&public, CKA_EC_PARAMS) {
            Some(curve) if curve == attributes::P256 => KeyKind::P256,
            Some(_) => return Err(CKR_DOMAIN_PARAMS_INVALID),
            None => return Err(CKR_TEMPLATE_INCOMPLETE),
        },
        CKM_RSA_PKCS_KEY_PAIR_GEN => match of(&public, CKA_MODULUS_BITS) {
            Some(bits) if bits == 2048_u64.to_ne_bytes() => KeyKind::Rsa2048,
            Some(_) => return Err(CKR_KEY_SIZE_RANGE),
            None => return Err(CKR_TEMPLATE_INCOMPLETE),
        },
        _ => return Err(CKR_MECHANISM_INVALID),
    };
    let either = |kind| of(&private, kind).or_else(|| of(&public, kind));
    let label = String::from_utf8_lossy(&either(CKA_LABEL).unwrap_or_default()).into_owned();
    let handle = token.add(kind, &label, either(CKA_ID))?;
    // SAFETY: as the caller says.
    let places = unsafe { (public_key.as_mut(), private_key.as_mut()) };
    let (Some(public_key), Some(private_key)) = places else { return Err(CKR_ARGUMENTS_BAD) };
    (*private_key, *public_key) = (handle, handle + 1);
    Ok(())
}
