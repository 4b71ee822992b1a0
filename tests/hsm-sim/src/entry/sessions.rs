//! The functions about sessions, objects and attributes.

use std::ffi::c_void;
use std::ptr;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_BYTE, CK_FLAGS, CK_NOTIFY, CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SESSION_INFO,
    CK_SLOT_ID, CK_ULONG, CK_USER_TYPE, CK_UTF8CHAR, CKF_SERIAL_SESSION, CKR_ARGUMENTS_BAD, CKR_FUNCTION_NOT_PARALLEL,
    CKR_SESSION_PARALLEL_NOT_SUPPORTED,
};

use crate::call::{Call, in_session, on_slot};
use crate::function::Function;
use crate::null;
use crate::real::{RealSession, real};

pub(crate) unsafe extern "C" fn C_OpenSession<const INSTANCE: usize>(
    id: CK_SLOT_ID,
    flags: CK_FLAGS,
    _application: *mut c_void,
    _notify: CK_NOTIFY,
    session: *mut CK_SESSION_HANDLE,
) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_OpenSession, id, |module, slot| {
        slot.require_token()?;
        // SAFETY: the caller passes null or a valid place.
        let session = unsafe { session.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        if flags & CKF_SERIAL_SESSION == 0 {
            return Err(CKR_SESSION_PARALLEL_NOT_SUPPORTED);
        }
        module.sessions.drop_idle(slot);
        slot.take_session()?;
        let life = module.life();
        let real = match module.real() {
            None => None,
            Some(real) => {
                let mut handle = 0;
                // Callbacks would tell of sessions by the handles of the module behind: nobody would know them.
                let opened = real!(real, C_OpenSession(slot.base, flags, ptr::null_mut(), None, &raw mut handle));
                opened.inspect_err(|_| slot.leave_session())?;
                Some(RealSession { handle, life })
            }
        };
        *session = module.sessions.add(slot, flags, real);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_CloseSession<const INSTANCE: usize>(session: CK_SESSION_HANDLE) -> CK_RV {
    in_session::<INSTANCE>(Function::C_CloseSession, session, false, |call| {
        call.module.sessions.close(call.session.handle);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetSessionInfo<const INSTANCE: usize>(
    session: CK_SESSION_HANDLE,
    info: *mut CK_SESSION_INFO,
) -> CK_RV {
    in_session::<INSTANCE>(Function::C_GetSessionInfo, session, false, |call| {
        if let Some((real, session)) = call.real() {
            real!(real, C_GetSessionInfo(session, info))?;
        }
        // SAFETY: the caller passes null or a valid place.
        let info = unsafe { info.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        if let Some(token) = &call.session.slot.null {
            *info = token.session_info(call.session.flags);
        }
        info.slotID = call.session.slot.id();
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_Login<const INSTANCE: usize>(
    session: CK_SESSION_HANDLE,
    user: CK_USER_TYPE,
    pin: *mut CK_UTF8CHAR,
    len: CK_ULONG,
) -> CK_RV {
    in_session::<INSTANCE>(Function::C_Login, session, false, |call| {
        match call.real() {
            Some((real, session)) => real!(real, C_Login(session, user, pin, len))?,
            // SAFETY: the caller passes a PIN of this length.
            None => unsafe { null::operation::login(call, user, pin, len) }?,
        }
        call.session.slot.forgotten.store(false, std::sync::atomic::Ordering::Release);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_FindObjects<const INSTANCE: usize>(
    session: CK_SESSION_HANDLE,
    objects: *mut CK_OBJECT_HANDLE,
    most: CK_ULONG,
    len: *mut CK_ULONG,
) -> CK_RV {
    in_session::<INSTANCE>(Function::C_FindObjects, session, false, |call| {
        match call.real() {
            Some((real, session)) => real!(real, C_FindObjects(session, objects, most, len))?,
            // SAFETY: the caller passes room for so many handles and a place for their number.
            None => unsafe { null::operation::find(call, objects, most, len) }?,
        }
        // SAFETY: the call has succeeded, so that this is a valid place.
        let len = unsafe { &mut *len };
        if *len > 0 {
            // SAFETY: the call has succeeded, so that there was room; it has written so many handles.
            let found = unsafe { std::slice::from_raw_parts_mut(objects, usize::try_from(*len).unwrap_or(0)) };
            found.iter_mut().for_each(|object| *object = call.session.slot.hand_out(*object));
        }
        call.stretch(len);
        Ok(())
    })
}

/// Tells wrong lengths of attributes if the rules say so.
///
/// # Safety
///
/// The template must be that of a call that has succeeded.
unsafe fn stretch(call: &Call<'_>, template: *mut CK_ATTRIBUTE, len: CK_ULONG) {
    for place in 0..usize::try_from(len).unwrap_or(0) {
        // SAFETY: the call has succeeded, so that the caller gave so many attributes.
        let attribute = unsafe { &mut *template.add(place) };
        if !attribute.pValue.is_null() {
            call.stretch(&mut attribute.ulValueLen);
        }
    }
}

// A function that is nowhere parallel any more.
pub(crate) unsafe extern "C" fn C_GetFunctionStatus<const INSTANCE: usize>(session: CK_SESSION_HANDLE) -> CK_RV {
    in_session::<INSTANCE>(Function::C_GetFunctionStatus, session, false, |_| Err(CKR_FUNCTION_NOT_PARALLEL))
}

pub(crate) unsafe extern "C" fn C_CancelFunction<const INSTANCE: usize>(session: CK_SESSION_HANDLE) -> CK_RV {
    in_session::<INSTANCE>(Function::C_CancelFunction, session, false, |_| Err(CKR_FUNCTION_NOT_PARALLEL))
}

forwarded! {
    C_InitPIN(pin: *mut CK_UTF8CHAR, len: CK_ULONG);
    C_SetPIN(old: *mut CK_UTF8CHAR, old_len: CK_ULONG, new: *mut CK_UTF8CHAR, new_len: CK_ULONG);
    C_Logout() null(null::operation::logout);
    C_CreateObject(template: *mut CK_ATTRIBUTE, len: CK_ULONG, object: *mut CK_OBJECT_HANDLE) gives(object);
    C_CopyObject(
        object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, len: CK_ULONG, copy: *mut CK_OBJECT_HANDLE
    ) takes(object) gives(copy);
    C_DestroyObject(object: CK_OBJECT_HANDLE) takes(object);
    C_GetObjectSize(object: CK_OBJECT_HANDLE, size: *mut CK_ULONG) takes(object);
    C_GetAttributeValue(object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, len: CK_ULONG) takes(object)
        // SAFETY: the caller passes so many attributes, each null or with room for its value.
        null(|call| unsafe { null::operation::attributes(call, object, template, len) })
        // SAFETY: it has succeeded.
        then(|call| unsafe { stretch(call, template, len) });
    C_SetAttributeValue(object: CK_OBJECT_HANDLE, template: *mut CK_ATTRIBUTE, len: CK_ULONG) takes(object);
    C_FindObjectsInit(template: *mut CK_ATTRIBUTE, len: CK_ULONG)
        // SAFETY: the caller passes so many attributes, each with a value.
        null(|call| unsafe { null::operation::find_init(call, template, len) });
    C_FindObjectsFinal() null(null::operation::find_final);
    C_GetOperationState(state: *mut CK_BYTE, len: *mut CK_ULONG);
    C_SetOperationState(
        state: *mut CK_BYTE, len: CK_ULONG, encryption: CK_OBJECT_HANDLE, authentication: CK_OBJECT_HANDLE
    ) takes(encryption, authentication);
    C_SeedRandom(seed: *mut CK_BYTE, len: CK_ULONG);
    C_GenerateRandom(random: *mut CK_BYTE, len: CK_ULONG)
        // SAFETY: the caller passes room for so many bytes.
        null(|_| unsafe { null::operation::random(random, len) });
}
