//! The functions that use keys.

use cryptoki_sys::{CK_ATTRIBUTE, CK_BYTE, CK_MECHANISM, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_ULONG};

use crate::call::{Call, in_session};
use crate::function::Function;
use crate::null;
use crate::real::real;

type Bytes = *mut CK_BYTE;
type Len = *mut CK_ULONG;
type Key = CK_OBJECT_HANDLE;

/// Spoils a signature or its length if the rules say so.
///
/// # Safety
///
/// The places must be those of a call that has succeeded.
unsafe fn spoil(call: &Call<'_>, signature: Bytes, len: Len) {
    if signature.is_null() {
        return;
    }
    // SAFETY: the call has succeeded, so that this is a valid place.
    let len = unsafe { &mut *len };
    if call.wrong_signature {
        // SAFETY: the call has put a signature of this length there.
        let signature = unsafe { std::slice::from_raw_parts_mut(signature, usize::try_from(*len).unwrap_or(0)) };
        if let Some(last) = signature.last_mut() {
            *last ^= 1;
        }
    }
    call.stretch(len);
}

/// Tells the length of what was written wrong, if the rules say so.
///
/// # Safety
///
/// The places must be those of a call that has succeeded.
unsafe fn stretch(call: &Call<'_>, out: Bytes, len: Len) {
    if !out.is_null() {
        // SAFETY: the call has succeeded, so that this is a valid place.
        call.stretch(unsafe { &mut *len });
    }
}

forwarded! {
    C_SignInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key)
        // SAFETY: the caller passes a valid mechanism with its parameter.
        null(|call| unsafe { null::operation::sign_init(call, mechanism, key) });
    C_Sign(data: Bytes, data_len: CK_ULONG, signature: Bytes, len: Len) query(signature.is_null())
        // SAFETY: the caller passes so much data, and null or so much room.
        null(|call| unsafe { null::operation::sign(call, data, data_len, signature, len) })
        // SAFETY: it has succeeded.
        then(|call| unsafe { spoil(call, signature, len) });
    C_SignUpdate(part: Bytes, len: CK_ULONG)
        // SAFETY: the caller passes so much data.
        null(|call| unsafe { null::operation::sign_update(call, part, len) });
    C_SignFinal(signature: Bytes, len: Len) query(signature.is_null())
        // SAFETY: the caller passes null or so much room.
        null(|call| unsafe { null::operation::sign_final(call, signature, len) })
        // SAFETY: it has succeeded.
        then(|call| unsafe { spoil(call, signature, len) });
    C_GenerateKeyPair(
        mechanism: *mut CK_MECHANISM, public: *mut CK_ATTRIBUTE, public_len: CK_ULONG, private: *mut CK_ATTRIBUTE,
        private_len: CK_ULONG, public_key: *mut Key, private_key: *mut Key
    ) gives(public_key, private_key)
        // SAFETY: the caller passes a mechanism, two templates, and places for both handles.
        null(|call| unsafe {
            let templates = ((public, public_len), (private, private_len));
            null::operation::generate(call, mechanism, templates, (public_key, private_key))
        });

    C_EncryptInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key)
        // SAFETY: the caller passes a valid mechanism with its parameter.
        null(|call| unsafe { null::operation::cipher_init(call, mechanism, key) });
    C_Encrypt(data: Bytes, data_len: CK_ULONG, out: Bytes, len: Len) query(out.is_null())
        // SAFETY: the caller passes so much data, and null or so much room.
        null(|call| unsafe { null::operation::cipher(call, data, data_len, out, len) })
        // SAFETY: it has succeeded.
        then(|call| unsafe { stretch(call, out, len) });
    C_EncryptUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_EncryptFinal(out: Bytes, len: Len) query(out.is_null());
    C_DecryptInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key)
        // SAFETY: the caller passes a valid mechanism with its parameter.
        null(|call| unsafe { null::operation::cipher_init(call, mechanism, key) });
    C_Decrypt(data: Bytes, data_len: CK_ULONG, out: Bytes, len: Len) query(out.is_null())
        // SAFETY: the caller passes so much data, and null or so much room.
        null(|call| unsafe { null::operation::cipher(call, data, data_len, out, len) })
        // SAFETY: it has succeeded.
        then(|call| unsafe { stretch(call, out, len) });
    C_DecryptUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_DecryptFinal(out: Bytes, len: Len) query(out.is_null());
    C_DigestInit(mechanism: *mut CK_MECHANISM);
    C_Digest(data: Bytes, data_len: CK_ULONG, digest: Bytes, len: Len) query(digest.is_null());
    C_DigestUpdate(part: Bytes, len: CK_ULONG);
    C_DigestKey(key: Key) takes(key);
    C_DigestFinal(digest: Bytes, len: Len) query(digest.is_null());
    C_SignRecoverInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key);
    C_SignRecover(data: Bytes, data_len: CK_ULONG, signature: Bytes, len: Len) query(signature.is_null());
    C_VerifyInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key);
    C_Verify(data: Bytes, data_len: CK_ULONG, signature: Bytes, len: CK_ULONG);
    C_VerifyUpdate(part: Bytes, len: CK_ULONG);
    C_VerifyFinal(signature: Bytes, len: CK_ULONG);
    C_VerifyRecoverInit(mechanism: *mut CK_MECHANISM, key: Key) takes(key);
    C_VerifyRecover(signature: Bytes, signature_len: CK_ULONG, data: Bytes, len: Len) query(data.is_null());
    C_DigestEncryptUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_DecryptDigestUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_SignEncryptUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_DecryptVerifyUpdate(part: Bytes, part_len: CK_ULONG, out: Bytes, len: Len);
    C_GenerateKey(mechanism: *mut CK_MECHANISM, template: *mut CK_ATTRIBUTE, len: CK_ULONG, key: *mut Key) gives(key)
        // SAFETY: the caller passes a mechanism, a template, and a place for the handle.
        null(|call| unsafe { null::operation::generate_secret(call, mechanism, (template, len), key) });
    C_WrapKey(mechanism: *mut CK_MECHANISM, wrapping: Key, key: Key, out: Bytes, len: Len) takes(wrapping, key)
        query(out.is_null());
    C_UnwrapKey(
        mechanism: *mut CK_MECHANISM, unwrapping: Key, wrapped: Bytes, wrapped_len: CK_ULONG,
        template: *mut CK_ATTRIBUTE, len: CK_ULONG, key: *mut Key
    ) takes(unwrapping) gives(key);
    C_DeriveKey(
        mechanism: *mut CK_MECHANISM, base: Key, template: *mut CK_ATTRIBUTE, len: CK_ULONG, key: *mut Key
    ) takes(base) gives(key);
}
