//! One session.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptoki::session::{Session, SessionState};
use cryptoki::slot::Slot;
use cryptoki_sys::{CK_SESSION_HANDLE, CK_ULONG, CKR_BUFFER_TOO_SMALL, CKR_OK, CKR_USER_NOT_LOGGED_IN};

use super::class::{self, Function};
use super::client::{self, Initialized};
use super::fault::{self, NativeError};
use super::mechanism::Prepared;
use super::table::Table;
use super::{find, generate};
use crate::backend::{BackendError, Fate, FoundKey, KeySelector, KeyTemplate};
use crate::config::Profile;
use crate::crypto;
use crate::model::{KeyKind, KeyOperation, SignatureScheme};

/// Room for the signatures of every key kind up to RSA-8192.
const SIGNATURE_BYTES: usize = 1024;
/// Room for a module that wants more of it than its signatures take.
const ROOM_MAX: usize = 1 << 20;
/// A login that is denied so soon has not taken: another one would not either.
const LOGIN_TAKES: Duration = Duration::from_secs(5);

/// A session number, closed when dropped while it is surely still ours. Otherwise it is forgotten: in another generation
/// of the module, or once the module has dropped it, the number may be another session's.
pub(super) struct NativeSession {
    // `cryptoki` is told not to close it.
    pub(super) native: Session,
    module: Arc<Initialized>,
    /// Whether the module has said that it knows it no more.
    gone: Cell<bool>,
}

impl NativeSession {
    /// Opens a session. Every one is a read/write session: keys are generated in them, and some HSMs (AWS CloudHSM) have no
    /// others.
    pub(super) fn open(module: &Arc<Initialized>, slot: Slot, profile: Profile) -> Result<NativeSession, NativeError> {
        client::check_present(module, profile, Function::OpenSession)?;
        let opened = module.native.context.open_rw_session_no_drop(slot);
        let native = opened.map_err(|error| fault::from_cryptoki(profile, Function::OpenSession, &error))?;
        Ok(NativeSession { native, module: Arc::clone(module), gone: Cell::new(false) })
    }

    pub(super) fn handle(&self) -> CK_SESSION_HANDLE {
        self.native.handle()
    }

    pub(super) fn table(&self) -> &Table {
        &self.module.native.table
    }

    /// Notes what an error says of this session and of the whole module, and hands the error on.
    pub(super) fn note(&self, error: NativeError) -> BackendError {
        if error.rv.is_some_and(class::is_session_gone) {
            self.gone.set(true);
        }
        client::note(&self.module, error)
    }
}

impl Drop for NativeSession {
    fn drop(&mut self) {
        if !self.gone.get() && self.module.is_present() {
            // Whatever it answers, we know the session no more.
            let _ = self.table().close_session(self.handle());
        }
    }
}

pub(super) struct Pkcs11Session {
    session: NativeSession,
    profile: Profile,
    /// When the login it lives by was done, if one was.
    login: Option<Instant>,
}

impl Pkcs11Session {
    pub(super) fn new(session: NativeSession, profile: Profile, login: Option<Instant>) -> Pkcs11Session {
        Pkcs11Session { session, profile, login }
    }

    /// Whether the module says that nobody is logged in: then a private key that is there is not seen. One that does not
    /// say is believed.
    fn is_logged_out(&self) -> bool {
        self.session.native.get_session_info().is_ok_and(|info| is_public(info.session_state()))
    }

    /// What of the session and the module an error ends.
    fn judge(&self, error: NativeError) -> BackendError {
        let mut error = self.session.note(error);
        if error.fate == Fate::LoginAgain && self.login.is_some_and(|login| login.elapsed() < LOGIN_TAKES) {
            self.session.module.outdate();
            error.fate = Fate::Reinitialize;
        }
        error
    }

    /// `C_SignInit` and one `C_Sign`, into a buffer that is large enough for the key's signatures.
    fn sign(&self, handle: u64, kind: KeyKind, mechanism: &mut Prepared<'_>) -> Result<Bytes, NativeError> {
        client::check_present(&self.session.module, self.profile, Function::SignInit)?;
        let (session, table) = (self.session.handle(), self.session.table());
        let error = |function, rv| fault::from_rv(self.profile, function, rv);
        let rv = mechanism.with_native(|native| table.sign_init(session, native, handle));
        if rv != CKR_OK {
            return Err(error(Function::SignInit, rv));
        }
        let mut buffer = [0; SIGNATURE_BYTES];
        let mut larger = Vec::new();
        let mut len: CK_ULONG = 0;
        let mut rv = table.sign(session, mechanism.data(), &mut buffer, &mut len);
        if rv == CKR_BUFFER_TOO_SMALL {
            // The operation is still active: it is asked again with the room it named.
            larger.resize(usize::try_from(len).unwrap_or(usize::MAX).min(ROOM_MAX), 0);
            rv = table.sign(session, mechanism.data(), &mut larger, &mut len);
        }
        if rv != CKR_OK {
            return Err(error(Function::Sign, rv));
        }
        let written = if larger.is_empty() { &buffer[..] } else { &larger };
        let signature = usize::try_from(len).ok().filter(|len| can_be_signature(kind, *len));
        match signature.and_then(|len| written.get(..len)) {
            Some(signature) => Ok(Bytes::copy_from_slice(signature)),
            None => {
                Err(fault::unreadable(Function::Sign, &format!("a signature of {len} bytes by a key of kind {kind}")))
            }
        }
    }
}

/// Whether a key's signature can be of so many bytes, as PKCS#11 has it: for ECDSA, `r` and `s` of one length.
fn can_be_signature(kind: KeyKind, bytes: usize) -> bool {
    match kind {
        KeyKind::Rsa { bits } => bytes == bits.div_ceil(8) as usize,
        KeyKind::Ec(curve) => bytes > 0 && bytes <= 2 * curve.field_bytes() && bytes.is_multiple_of(2),
        KeyKind::Ed25519 => bytes == 64,
    }
}

impl crate::backend::Session for Pkcs11Session {
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        let found = client::check_present(&self.session.module, self.profile, Function::FindObjects)
            .and_then(|()| find::find(&self.session, selector, self.profile))
            .map_err(|error| self.judge(error))?;
        if found.is_none() && self.is_logged_out() {
            let error = fault::from_rv(self.profile, Function::FindObjects, CKR_USER_NOT_LOGGED_IN);
            return Err(self.judge(error));
        }
        if found.is_none() && self.profile.traits().reads_keys_once {
            self.session.module.outdate();
        }
        Ok(found)
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        client::check_present(&self.session.module, self.profile, Function::GenerateKeyPair)
            .and_then(|()| generate::generate(&self.session, template, self.profile))
            .map_err(|error| self.judge(error))
    }

    fn check_alive(&mut self) -> Result<(), BackendError> {
        let info = client::check_present(&self.session.module, self.profile, Function::GetSessionInfo).and_then(|()| {
            let info = self.session.native.get_session_info();
            info.map_err(|error| fault::from_cryptoki(self.profile, Function::GetSessionInfo, &error))
        });
        let state = info.map_err(|error| self.judge(error))?.session_state();
        if self.login.is_some() && is_public(state) {
            let error = fault::from_rv(self.profile, Function::GetSessionInfo, CKR_USER_NOT_LOGGED_IN);
            return Err(self.judge(error));
        }
        Ok(())
    }

    fn perform(&mut self, handle: u64, kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let KeyOperation::Sign { scheme, hash, input } = operation;
        let mut mechanism = Prepared::new(*scheme, *hash, kind, input.as_bytes()).map_err(BackendError::keep)?;
        let signature = self.sign(handle, kind, &mut mechanism).map_err(|error| self.judge(error))?;
        match scheme {
            SignatureScheme::Ecdsa => crypto::ecdsa_der_from_raw(&signature).map_err(BackendError::keep),
            _ => Ok(signature),
        }
    }
}

/// Whether nobody is logged in.
fn is_public(state: SessionState) -> bool {
    matches!(state, SessionState::RoPublic | SessionState::RwPublic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Curve;

    #[test]
    fn signatures_are_as_long_as_their_keys_make_them() {
        for (kind, can, cannot) in [
            (KeyKind::Rsa { bits: 2048 }, &[256][..], &[0, 255, 257, 1024][..]),
            (KeyKind::Rsa { bits: 3071 }, &[384], &[383]),
            (KeyKind::Ec(Curve::P256), &[64, 62], &[0, 63, 65, 66]),
            (KeyKind::Ec(Curve::P521), &[132], &[133, 134]),
            (KeyKind::Ed25519, &[64], &[0, 63, 65]),
        ] {
            assert!(can.iter().all(|bytes| can_be_signature(kind, *bytes)), "{kind}");
            assert!(!cannot.iter().any(|bytes| can_be_signature(kind, *bytes)), "{kind}");
        }
    }
}
