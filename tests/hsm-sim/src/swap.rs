//! Handles that name another key than the one they were handed out for.

use std::sync::Arc;

use cryptoki_sys::CK_OBJECT_HANDLE;

use crate::function::Function;
use crate::module::Module;
use crate::session::Session;

/// The object that a handle for `object` really names in this session.
pub(crate) fn swapped(
    module: &Module,
    session: &Session,
    function: Function,
    object: CK_OBJECT_HANDLE,
) -> CK_OBJECT_HANDLE {
    let _ = (module, session, function, Arc::strong_count(&session.slot));
    object
}
