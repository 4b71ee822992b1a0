//! The functions about the module, its slots and their tokens.

use std::ffi::c_void;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use cryptoki_sys::{
    CK_BBOOL, CK_C_INITIALIZE_ARGS, CK_FLAGS, CK_INFO, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_RV, CK_SLOT_ID,
    CK_SLOT_INFO, CK_TOKEN_INFO, CK_ULONG, CK_UTF8CHAR, CK_VERSION, CKF_CLOCK_ON_TOKEN, CKF_DONT_BLOCK,
    CKF_TOKEN_PRESENT, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL, CKR_CRYPTOKI_ALREADY_INITIALIZED,
    CKR_FUNCTION_NOT_SUPPORTED, CKR_NO_EVENT,
};

use crate::call::{Answer, on_slot, plain};
use crate::clock;
use crate::control;
use crate::function::Function;
use crate::module::Module;
use crate::null;
use crate::real::real;
use crate::slot::Slot;

/// How often a caller who waits for a slot's event is looked after.
const LOOK: Duration = Duration::from_millis(20);

pub(crate) unsafe extern "C" fn C_Initialize<const INSTANCE: usize>(arguments: *mut c_void) -> CK_RV {
    plain::<INSTANCE>(Function::C_Initialize, |module| {
        // In a child of a process that had the module, nobody listens yet.
        if let Err(error) = control::begin(module) {
            eprintln!("hsm-sim: {error}");
            return Err(cryptoki_sys::CKR_GENERAL_ERROR);
        }
        let mut past = module.changing();
        let process = std::process::id();
        if module.life() > 0 {
            if past.process == process {
                return Err(CKR_CRYPTOKI_ALREADY_INITIALIZED);
            }
            // A child has its parent's sessions in memory only.
            module.live(0);
            module.sessions.clear();
        }
        let answer = match module.real() {
            Some(real) => real!(real, C_Initialize(arguments)),
            // SAFETY: the caller passes nothing or valid arguments.
            None => check(unsafe { arguments.cast::<CK_C_INITIALIZE_ARGS>().as_ref() }),
        };
        // One that was not ended well says that it is initialised already, and goes on.
        if !matches!(answer, Ok(()) | Err(CKR_CRYPTOKI_ALREADY_INITIALIZED)) {
            return answer;
        }
        past.lives += 1;
        past.process = process;
        // A module without a token yet may not say which slots it has: it is asked again when somebody wants to know.
        let _ = module.slots.refresh(module);
        module.slots.initialized();
        module.belong_to(INSTANCE);
        module.live(past.lives);
        answer
    })
}

/// Either all the functions for locks or none must be given.
fn check(arguments: Option<&CK_C_INITIALIZE_ARGS>) -> Answer {
    let Some(arguments) = arguments else { return Ok(()) };
    let given = [
        arguments.CreateMutex.is_some(),
        arguments.DestroyMutex.is_some(),
        arguments.LockMutex.is_some(),
        arguments.UnlockMutex.is_some(),
    ];
    let some = given.contains(&true) && given.contains(&false);
    if some || !arguments.pReserved.is_null() { Err(CKR_ARGUMENTS_BAD) } else { Ok(()) }
}

pub(crate) unsafe extern "C" fn C_Finalize<const INSTANCE: usize>(reserved: *mut c_void) -> CK_RV {
    plain::<INSTANCE>(Function::C_Finalize, |module| {
        module.require_initialized()?;
        if !reserved.is_null() {
            return Err(CKR_ARGUMENTS_BAD);
        }
        module.end()
    })
}

pub(crate) unsafe extern "C" fn C_GetInfo<const INSTANCE: usize>(info: *mut CK_INFO) -> CK_RV {
    plain::<INSTANCE>(Function::C_GetInfo, |module| {
        module.require_initialized()?;
        if let Some(real) = module.real() {
            return real!(real, C_GetInfo(info));
        }
        // SAFETY: the caller passes null or a valid place.
        let info = unsafe { info.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        *info = CK_INFO {
            cryptokiVersion: CK_VERSION { major: 2, minor: 40 },
            manufacturerID: null::padded("hsm-sim"),
            libraryDescription: null::padded("a token that is made up"),
            libraryVersion: CK_VERSION { major: 0, minor: 1 },
            ..CK_INFO::default()
        };
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetSlotList<const INSTANCE: usize>(
    present: CK_BBOOL,
    list: *mut CK_SLOT_ID,
    len: *mut CK_ULONG,
) -> CK_RV {
    plain::<INSTANCE>(Function::C_GetSlotList, |module| {
        module.require_initialized()?;
        // SAFETY: the caller passes null or a valid place.
        let len = unsafe { len.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        module.slots.refresh(module)?;
        let slots = listed(module, present != 0)?;
        let room = std::mem::replace(len, slots.len() as CK_ULONG);
        if list.is_null() {
            return Ok(());
        }
        if room < *len {
            return Err(CKR_BUFFER_TOO_SMALL);
        }
        // SAFETY: the caller says that there is room for `room` numbers, which are enough.
        unsafe { ptr::copy_nonoverlapping(slots.as_ptr(), list, slots.len()) };
        Ok(())
    })
}

fn listed(module: &Module, present: bool) -> Answer<Vec<CK_SLOT_ID>> {
    let with_token = match module.real() {
        Some(real) if present => Some(real.slots(true)?),
        _ => None,
    };
    let in_list = |slot: &Slot| {
        with_token.as_ref().is_none_or(|with_token| with_token.contains(&slot.base)) && (!present || slot.is_present())
    };
    let slots = module.slots.all();
    Ok(slots.iter().filter(|slot| in_list(slot)).map(|slot| slot.id()).collect())
}

pub(crate) unsafe extern "C" fn C_GetSlotInfo<const INSTANCE: usize>(id: CK_SLOT_ID, info: *mut CK_SLOT_INFO) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_GetSlotInfo, id, |module, slot| {
        if let Some(real) = module.real() {
            real!(real, C_GetSlotInfo(slot.base, info))?;
        }
        // SAFETY: the caller passes null or a valid place.
        let info = unsafe { info.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        if module.real().is_none() {
            *info = null::token::slot_info(&slot.names().label);
        }
        if !slot.is_present() {
            info.flags &= !CKF_TOKEN_PRESENT;
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetTokenInfo<const INSTANCE: usize>(
    id: CK_SLOT_ID,
    info: *mut CK_TOKEN_INFO,
) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_GetTokenInfo, id, |module, slot| {
        slot.require_token()?;
        if let Some(real) = module.real() {
            real!(real, C_GetTokenInfo(slot.base, info))?;
        }
        // SAFETY: the caller passes null or a valid place.
        let info = unsafe { info.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        if let Some(token) = &slot.null {
            *info = token.info(slot);
        }
        if let Some(most) = slot.told_limit() {
            info.ulMaxSessionCount = most;
            info.ulMaxRwSessionCount = most;
        }
        if slot.clock_is_bad() {
            info.flags |= CKF_CLOCK_ON_TOKEN;
            info.utcTime = [b' '; 16];
        }
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_GetMechanismList<const INSTANCE: usize>(
    id: CK_SLOT_ID,
    list: *mut CK_MECHANISM_TYPE,
    len: *mut CK_ULONG,
) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_GetMechanismList, id, |module, slot| {
        slot.require_token()?;
        match module.real() {
            Some(real) => real!(real, C_GetMechanismList(slot.base, list, len)),
            // SAFETY: the caller passes a valid place for the length, and null or room for so many.
            None => unsafe { null::token::mechanism_list(list, len) },
        }
    })
}

pub(crate) unsafe extern "C" fn C_GetMechanismInfo<const INSTANCE: usize>(
    id: CK_SLOT_ID,
    mechanism: CK_MECHANISM_TYPE,
    info: *mut CK_MECHANISM_INFO,
) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_GetMechanismInfo, id, |module, slot| {
        slot.require_token()?;
        if let Some(real) = module.real() {
            return real!(real, C_GetMechanismInfo(slot.base, mechanism, info));
        }
        // SAFETY: the caller passes null or a valid place.
        let info = unsafe { info.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        *info = null::token::mechanism_info(mechanism)?;
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_InitToken<const INSTANCE: usize>(
    id: CK_SLOT_ID,
    pin: *mut CK_UTF8CHAR,
    len: CK_ULONG,
    label: *mut CK_UTF8CHAR,
) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_InitToken, id, |module, slot| {
        slot.require_token()?;
        let real = module.real().ok_or(CKR_FUNCTION_NOT_SUPPORTED)?;
        real!(real, C_InitToken(slot.base, pin, len, label))
    })
}

pub(crate) unsafe extern "C" fn C_CloseAllSessions<const INSTANCE: usize>(id: CK_SLOT_ID) -> CK_RV {
    on_slot::<INSTANCE>(Function::C_CloseAllSessions, id, |module, slot| {
        slot.require_token()?;
        module.sessions.drop_all(slot, false);
        Ok(())
    })
}

pub(crate) unsafe extern "C" fn C_WaitForSlotEvent<const INSTANCE: usize>(
    flags: CK_FLAGS,
    slot: *mut CK_SLOT_ID,
    reserved: *mut c_void,
) -> CK_RV {
    plain::<INSTANCE>(Function::C_WaitForSlotEvent, |module| {
        module.require_initialized()?;
        // SAFETY: the caller passes null or a valid place.
        let slot = unsafe { slot.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
        loop {
            if let Some(id) = event(module, reserved)? {
                *slot = id;
                return Ok(());
            }
            if flags & CKF_DONT_BLOCK != 0 {
                return Err(CKR_NO_EVENT);
            }
            clock::sleep_until(clock::now() + clock::nanoseconds(LOOK));
            module.require_initialized()?;
        }
    })
}

/// The next slot whose token has come or gone: by our doing, or as the module behind says, if it can.
fn event(module: &Module, reserved: *mut c_void) -> Answer<Option<CK_SLOT_ID>> {
    if let Some(slot) = module.slots.events.lock().pop_front() {
        return Ok(Some(slot.id()));
    }
    let Some(real) = module.real() else { return Ok(None) };
    let mut base = 0;
    match real!(real, C_WaitForSlotEvent(CKF_DONT_BLOCK, &raw mut base, reserved)) {
        Ok(()) => {
            module.slots.refresh(module)?;
            let slots = module.slots.all();
            Ok(slots.iter().map(Arc::as_ref).find(|slot| slot.base == base).map(Slot::id))
        }
        Err(CKR_NO_EVENT | CKR_FUNCTION_NOT_SUPPORTED) => Ok(None),
        Err(rv) => Err(rv),
    }
}
