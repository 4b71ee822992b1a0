//! One session.

use std::sync::Arc;

use bytes::Bytes;
use cryptoki::session::Session as NativeSession;
use cryptoki_sys::{CK_ULONG, CKR_BUFFER_TOO_SMALL, CKR_OK};

use super::client::Initialized;
use super::fault::{self, Function};
use super::mechanism::Prepared;
use super::{find, generate};
use crate::backend::{BackendError, FoundKey, KeySelector, KeyTemplate, Session};
use crate::config::Profile;
use crate::crypto;
use crate::model::{KeyKind, KeyOperation, SignatureScheme};

/// Room for the signatures of every key kind up to RSA-8192.
const SIGNATURE_BYTES: usize = 1024;

pub(super) struct Pkcs11Session {
    // The session before the module: it is closed first.
    native: NativeSession,
    module: Arc<Initialized>,
    profile: Profile,
}

impl Pkcs11Session {
    pub(super) fn new(native: NativeSession, module: Arc<Initialized>, profile: Profile) -> Pkcs11Session {
        Pkcs11Session { native, module, profile }
    }

    /// `C_SignInit` and one `C_Sign`, into a buffer that is large enough for the key's signatures.
    fn sign(&self, handle: u64, mechanism: &mut Prepared<'_>) -> Result<Bytes, BackendError> {
        let session = self.native.handle();
        let error = |function, rv| fault::from_rv(self.profile, function, rv);
        let rv = mechanism.with_native(|native| self.module.table.sign_init(session, native, handle));
        if rv != CKR_OK {
            return Err(error(Function::SignInit, rv));
        }
        let mut buffer = [0; SIGNATURE_BYTES];
        let mut len: CK_ULONG = 0;
        match self.module.table.sign(session, mechanism.data(), &mut buffer, &mut len) {
            CKR_OK => {}
            CKR_BUFFER_TOO_SMALL => {
                // The operation is still active: it is asked again with the room it named.
                let mut larger = vec![0; usize::try_from(len).unwrap_or(usize::MAX).min(1 << 20)];
                return match self.module.table.sign(session, mechanism.data(), &mut larger, &mut len) {
                    CKR_OK => {
                        larger.truncate(usize::try_from(len).unwrap_or(usize::MAX));
                        Ok(Bytes::from(larger))
                    }
                    rv => Err(error(Function::Sign, rv)),
                };
            }
            rv => return Err(error(Function::Sign, rv)),
        }
        let written = usize::try_from(len).unwrap_or(usize::MAX).min(buffer.len());
        Ok(Bytes::copy_from_slice(&buffer[..written]))
    }
}

impl Session for Pkcs11Session {
    fn find(&mut self, selector: &KeySelector) -> Result<Option<FoundKey>, BackendError> {
        find::find(&self.native, selector, self.profile)
    }

    fn generate(&mut self, template: &KeyTemplate) -> Result<FoundKey, BackendError> {
        generate::generate(&self.native, template, self.profile)
    }

    fn perform(&mut self, handle: u64, kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let KeyOperation::Sign { scheme, hash, input } = operation;
        let mut mechanism = Prepared::new(*scheme, *hash, kind, input.as_bytes()).map_err(fault::keep)?;
        let signature = self.sign(handle, &mut mechanism)?;
        match scheme {
            SignatureScheme::Ecdsa => crypto::ecdsa_der_from_raw(&signature).map_err(fault::keep),
            _ => Ok(signature),
        }
    }
}
