//! The way of every C call through the simulator: counted, delayed, judged by the rules, done, served, logged.

use std::sync::Arc;

use cryptoki_sys::{
    CK_OBJECT_HANDLE, CK_RV, CK_SESSION_HANDLE, CK_SLOT_ID, CK_ULONG, CKR_CRYPTOKI_NOT_INITIALIZED, CKR_GENERAL_ERROR,
    CKR_KEY_HANDLE_INVALID, CKR_OBJECT_HANDLE_INVALID, CKR_OK, CKR_SLOT_ID_INVALID, CKR_USER_NOT_LOGGED_IN,
};

use crate::clock;
use crate::function::Function;
use crate::module::{Module, module};
use crate::real::{Real, real};
use crate::rules::Verdict;
use crate::session::Session;
use crate::slot::Slot;
use crate::swap;

/// What a call comes to; an error is any return value but `CKR_OK`.
pub(crate) type Answer<T = ()> = Result<T, CK_RV>;

pub(crate) fn answer(rv: CK_RV) -> Answer {
    if rv == CKR_OK { Ok(()) } else { Err(rv) }
}

/// A call in a session.
pub(crate) struct Call<'c> {
    pub(crate) module: &'static Module,
    pub(crate) session: &'c Session,
    pub(crate) function: Function,
    /// Whether its signature is to be spoilt.
    pub(crate) wrong_signature: bool,
    /// Whether its lengths are to be told wrong.
    wrong_length: bool,
}

/// What a length that is told wrong is too much by.
const TOO_MUCH: CK_ULONG = 1 << 20;

impl Call<'_> {
    /// The module behind and its session, in real mode.
    pub(crate) fn real(&self) -> Option<(&'static Real, CK_SESSION_HANDLE)> {
        Some((self.module.real()?, self.session.real.as_ref()?.handle))
    }

    /// The object behind a handle that a caller gave.
    pub(crate) fn object(&self, handle: CK_OBJECT_HANDLE) -> Answer<CK_OBJECT_HANDLE> {
        if handle == 0 {
            return Ok(0);
        }
        let invalid = if self.function.takes_key() { CKR_KEY_HANDLE_INVALID } else { CKR_OBJECT_HANDLE_INVALID };
        let object = self.session.slot.take_back(handle).ok_or(invalid)?;
        Ok(swap::swapped(self.module, self.session, self.function, object))
    }

    /// Tells a length beyond what there is room for, if the rules say so.
    pub(crate) fn stretch(&self, len: &mut CK_ULONG) {
        if self.wrong_length {
            *len += TOO_MUCH;
        }
    }

    /// Gives a caller a handle for the object that the module behind has put at `place`.
    ///
    /// # Safety
    ///
    /// `place` must be null or a valid place for a handle.
    pub(crate) unsafe fn hand_out(&self, place: *mut CK_OBJECT_HANDLE) {
        // SAFETY: as the caller says.
        if let Some(object) = unsafe { place.as_mut() } {
            *object = self.session.slot.hand_out(*object);
        }
    }
}

/// A call that is about no slot and no session.
pub(crate) fn plain<const INSTANCE: usize>(function: Function, body: impl FnOnce(&'static Module) -> Answer) -> CK_RV {
    logged(INSTANCE, function, 0, |module, _| {
        let verdict = module.rules.judge(function, None);
        if let Some(rv) = verdict.fail {
            return Err(rv);
        }
        finish(verdict, body(module))
    })
}

/// A call about a slot.
pub(crate) fn on_slot<const INSTANCE: usize>(
    function: Function,
    id: CK_SLOT_ID,
    body: impl FnOnce(&'static Module, &Arc<Slot>) -> Answer,
) -> CK_RV {
    logged(INSTANCE, function, 0, |module, about| {
        module.require_initialized()?;
        let slot = module.slots.find(id).ok_or(CKR_SLOT_ID_INVALID)?;
        about.slot = Some(id);
        slot.calls.add(function, 0);
        slot.travel();
        let verdict = module.rules.judge(function, Some(&slot));
        if let Some(rv) = verdict.fail {
            return Err(rv);
        }
        finish(verdict, body(module, &slot))
    })
}

/// A call in a session. A `query` only asks for a length, which costs the device nothing.
pub(crate) fn in_session<const INSTANCE: usize>(
    function: Function,
    handle: CK_SESSION_HANDLE,
    query: bool,
    body: impl FnOnce(&Call<'_>) -> Answer,
) -> CK_RV {
    logged(INSTANCE, function, handle, |module, about| {
        module.require_initialized()?;
        let session = module.sessions.get(handle)?;
        session.touch();
        let slot = &session.slot;
        about.slot = Some(slot.id());
        slot.calls.add(function, handle);
        slot.travel();
        let verdict = module.rules.judge(function, Some(slot));
        // Much may have happened while it was on its way, or hung.
        session.check()?;
        let Verdict { wrong_signature, wrong_length, .. } = verdict;
        let call = Call { module, session: &session, function, wrong_signature, wrong_length };
        let forgotten = slot.forgotten.load(std::sync::atomic::Ordering::Acquire) && function.is_private();
        if let Some(rv) = verdict.fail.or(forgotten.then_some(CKR_USER_NOT_LOGGED_IN)) {
            end_operation(&call, query, body);
            return Err(rv);
        }
        let reserved = if function.is_served() && !query { slot.device.reserve(handle) } else { None };
        let done = body(&call);
        if let Some(reserved) = reserved {
            slot.device.finish(&reserved);
        }
        session.touch();
        if function != Function::C_CloseSession {
            session.check()?;
        }
        finish(verdict, done)
    })
}

fn finish(verdict: Verdict, done: Answer) -> Answer {
    done?;
    verdict.late.map_or(Ok(()), Err)
}

/// A call that ends an operation ends it whether it succeeds or fails; so the module behind must do it, for nothing.
fn end_operation(call: &Call<'_>, query: bool, body: impl FnOnce(&Call<'_>) -> Answer) {
    use Function as F;
    let ends = matches!(
        call.function,
        F::C_Sign
            | F::C_SignFinal
            | F::C_SignRecover
            | F::C_Verify
            | F::C_VerifyFinal
            | F::C_VerifyRecover
            | F::C_Encrypt
            | F::C_EncryptFinal
            | F::C_Decrypt
            | F::C_DecryptFinal
            | F::C_Digest
            | F::C_DigestFinal
    );
    if ends && !query {
        // The caller never learns what came of it.
        let _ = body(call);
        return;
    }
    let Some((real, session)) = call.real() else {
        if matches!(call.function, F::C_Sign | F::C_SignUpdate | F::C_SignFinal) {
            call.session.operations.lock().sign = None;
        }
        return;
    };
    let mut scratch = [0_u8; 2048];
    let mut data = [0_u8; 32];
    let (mut len, data_len) = (scratch.len() as CK_ULONG, data.len() as CK_ULONG);
    let (place, length, data) = (scratch.as_mut_ptr(), &raw mut len, data.as_mut_ptr());
    let _ = match call.function {
        F::C_Sign => real!(real, C_Sign(session, data, data_len, place, length)),
        F::C_Digest => real!(real, C_Digest(session, data, data_len, place, length)),
        F::C_Encrypt => real!(real, C_Encrypt(session, data, data_len, place, length)),
        F::C_Decrypt => real!(real, C_Decrypt(session, data, data_len, place, length)),
        F::C_SignUpdate | F::C_SignFinal => real!(real, C_SignFinal(session, place, length)),
        F::C_DigestUpdate | F::C_DigestKey | F::C_DigestFinal => real!(real, C_DigestFinal(session, place, length)),
        F::C_EncryptUpdate | F::C_EncryptFinal => real!(real, C_EncryptFinal(session, place, length)),
        F::C_DecryptUpdate | F::C_DecryptFinal => real!(real, C_DecryptFinal(session, place, length)),
        F::C_VerifyUpdate => real!(real, C_VerifyFinal(session, place, 256)),
        _ => Ok(()),
    };
}

/// What the log says a call was about.
pub(crate) struct About {
    pub(crate) slot: Option<CK_SLOT_ID>,
    pub(crate) session: CK_SESSION_HANDLE,
}

/// A `session` of 0 is none.
fn logged(
    instance: usize,
    function: Function,
    session: CK_SESSION_HANDLE,
    body: impl FnOnce(&'static Module, &mut About) -> Answer,
) -> CK_RV {
    let Some(module) = module() else { return CKR_GENERAL_ERROR };
    module.shared.calls.add(function, session);
    if function != Function::C_Initialize && !module.belongs_to(instance) {
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    let mut about = About { slot: None, session };
    if !module.log.is_on() {
        return body(module, &mut about).err().unwrap_or(CKR_OK);
    }
    let began = clock::now();
    let rv = body(module, &mut about).err().unwrap_or(CKR_OK);
    module.log.write(function, &about, rv, clock::now().saturating_sub(began));
    rv
}
