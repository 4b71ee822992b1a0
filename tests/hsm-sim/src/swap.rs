//! Handles that name another key than the one they were handed out for.

use std::ptr;

use cryptoki_sys::{
    CK_ATTRIBUTE, CK_OBJECT_CLASS, CK_OBJECT_HANDLE, CK_SESSION_HANDLE, CK_ULONG, CKA_CLASS, CKA_LABEL,
    CKF_SERIAL_SESSION, CKO_PRIVATE_KEY, CKO_SECRET_KEY,
};

use crate::call::Answer;
use crate::command::Swap;
use crate::function::Function;
use crate::module::Module;
use crate::real::{Real, real};
use crate::session::Session;

/// The object that a handle for `object` really names in this session.
pub(crate) fn swapped(
    module: &Module,
    session: &Session,
    function: Function,
    object: CK_OBJECT_HANDLE,
) -> CK_OBJECT_HANDLE {
    let swaps = session.slot.swaps(session.handle);
    for swap in swaps.iter().filter(|swap| function.takes_key() || !swap.in_use_only) {
        // Without that other key, the handle names what it did.
        if let Some(other) = other_key(module, session, swap, object) {
            return other;
        }
    }
    object
}

/// The other key, if `object` is the private or secret key that is swapped for it.
fn other_key(module: &Module, session: &Session, swap: &Swap, object: CK_OBJECT_HANDLE) -> Option<CK_OBJECT_HANDLE> {
    if let Some(token) = &session.slot.null {
        return token.is_private_key(object, &swap.label).then(|| token.private_key(&swap.other))?;
    }
    let real = module.real()?;
    // In a session of our own: the caller's may be in the middle of a search.
    let mut own = 0;
    real!(real, C_OpenSession(session.slot.base, CKF_SERIAL_SESSION, ptr::null_mut(), None, &raw mut own)).ok()?;
    let found = private_keys(real, own, &swap.label)
        .and_then(|keys| if keys.contains(&object) { private_keys(real, own, &swap.other) } else { Ok(Vec::new()) });
    // Nothing depends on it.
    let _ = real!(real, C_CloseSession(own));
    found.ok()?.first().copied()
}

/// The private and secret keys of this label.
fn private_keys(real: &Real, session: CK_SESSION_HANDLE, label: &str) -> Answer<Vec<CK_OBJECT_HANDLE>> {
    Ok([keys(real, session, CKO_PRIVATE_KEY, label)?, keys(real, session, CKO_SECRET_KEY, label)?].concat())
}

fn keys(
    real: &Real,
    session: CK_SESSION_HANDLE,
    mut class: CK_OBJECT_CLASS,
    label: &str,
) -> Answer<Vec<CK_OBJECT_HANDLE>> {
    let mut template = [
        CK_ATTRIBUTE { type_: CKA_CLASS, pValue: (&raw mut class).cast(), ulValueLen: size_of_val(&class) as CK_ULONG },
        CK_ATTRIBUTE {
            type_: CKA_LABEL,
            pValue: label.as_ptr().cast_mut().cast(),
            ulValueLen: label.len() as CK_ULONG,
        },
    ];
    real!(real, C_FindObjectsInit(session, template.as_mut_ptr(), template.len() as CK_ULONG))?;
    let (mut found, mut len) = ([0; 16], 0);
    let searched = real!(real, C_FindObjects(session, found.as_mut_ptr(), found.len() as CK_ULONG, &raw mut len));
    real!(real, C_FindObjectsFinal(session))?;
    searched?;
    Ok(found[..usize::try_from(len).unwrap_or(0).min(found.len())].to_vec())
}
