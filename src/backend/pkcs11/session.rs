//! One session.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cryptoki_sys::{
    CK_SESSION_HANDLE, CK_SESSION_INFO, CK_SLOT_ID, CK_STATE, CK_ULONG, CKR_BUFFER_TOO_SMALL, CKR_OK,
    CKR_USER_NOT_LOGGED_IN, CKS_RO_PUBLIC_SESSION, CKS_RW_PUBLIC_SESSION,
};
use zeroize::Zeroizing;

use super::class::{self, Function};
use super::client::{self, Initialized};
use super::fault::{self, NativeError};
use super::mechanism::Prepared;
use super::table::{Deed, Table};
use super::{find, generate};
use crate::backend::sampler::Sampler;
use crate::backend::{BackendError, Fate, FoundKey, KeySelector, KeyTemplate};
use crate::config::Profile;
use crate::crypto;
use crate::model::{BLOCK_BYTES, Cipher, GCM_TAG_BYTES, Hash, KeyKind, KeyOperation, SignatureScheme, wiped};

/// Room that a module is given for a signature or a MAC at least: that of every key kind up to RSA-8192. Some want more of it than
/// their answers take.
const ROOM: usize = 1024;
/// Room for a module that wants more of it than its answers take.
const ROOM_MAX: usize = 1 << 20;
/// A login that is denied so soon has not taken: another one would not either.
const LOGIN_TAKES: Duration = Duration::from_secs(5);

/// A session number, closed when dropped while it is surely still ours. Otherwise it is forgotten: in another generation
/// of the module, or once the module has dropped it, the number may be another session's.
pub(super) struct NativeSession {
    handle: CK_SESSION_HANDLE,
    module: Arc<Initialized>,
    /// Whether the module has said that it knows it no more.
    gone: AtomicBool,
}

impl NativeSession {
    /// Opens a session. Every one is a read/write session: keys are generated in them, and some HSMs (AWS CloudHSM) have no
    /// others.
    pub(super) fn open(
        module: &Arc<Initialized>,
        slot: CK_SLOT_ID,
        profile: Profile,
    ) -> Result<NativeSession, NativeError> {
        client::check_present(module, profile, Function::OpenSession)?;
        let mut handle = 0;
        fault::check(profile, Function::OpenSession, module.native.setup.open_session(slot, &mut handle))?;
        Ok(NativeSession { handle, module: Arc::clone(module), gone: AtomicBool::new(false) })
    }

    pub(super) fn handle(&self) -> CK_SESSION_HANDLE {
        self.handle
    }

    pub(super) fn table(&self) -> &Table {
        &self.module.native
    }

    /// Notes what an error says of this session and of the whole module, and hands the error on.
    pub(super) fn note(&self, error: NativeError) -> BackendError {
        if error.rv.is_some_and(class::is_session_gone) {
            self.gone.store(true, Ordering::Relaxed);
        }
        client::note(&self.module, error)
    }

    /// Closes it, unless that is done, or its number may be another session's by now.
    pub(super) fn close(&self) {
        if !self.gone.swap(true, Ordering::Relaxed) && self.module.is_present() {
            // Whatever it answers, we know the session no more.
            let _ = self.table().setup.close_session(self.handle());
        }
    }
}

impl Drop for NativeSession {
    fn drop(&mut self) {
        self.close();
    }
}

pub(super) struct Pkcs11Session {
    /// Its device may hold on to it, but does nothing with it.
    session: Arc<NativeSession>,
    profile: Profile,
    /// When the login it lives by was done, if one was.
    login: Option<Instant>,
    sampler: Sampler,
    /// For signatures and MACs. Of what lies in it from before, nothing is read.
    room: Vec<u8>,
}

impl Pkcs11Session {
    pub(super) fn new(session: Arc<NativeSession>, profile: Profile, login: Option<Instant>) -> Pkcs11Session {
        Pkcs11Session { session, profile, login, sampler: Sampler::default(), room: vec![0; ROOM] }
    }

    /// What the module says of who is logged in.
    fn state(&self) -> Result<CK_STATE, NativeError> {
        let mut info = CK_SESSION_INFO::default();
        let rv = self.session.table().setup.get_session_info(self.session.handle(), &mut info);
        fault::check(self.profile, Function::GetSessionInfo, rv).map(|()| info.state)
    }

    /// Whether the module says that nobody is logged in: then a private key that is there is not seen. One that does not
    /// say is believed.
    fn is_logged_out(&self) -> bool {
        self.state().is_ok_and(is_public)
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

    /// The two calls of one operation, into `room`.
    fn run(&self, deed: Deed, handle: u64, mechanism: &mut Prepared<'_>, room: &mut [u8]) -> Result<Made, NativeError> {
        let (begin, finish) = deed.functions();
        client::check_present(&self.session.module, self.profile, begin)?;
        let (session, table) = (self.session.handle(), self.session.table());
        let error = |function, rv| fault::from_rv(self.profile, function, rv);
        let rv = mechanism.with_native(|native| table.begin(deed, session, native, handle));
        if rv != CKR_OK {
            return Err(error(begin, rv));
        }
        let (mut len, mut larger): (CK_ULONG, _) = (0, None);
        let mut rv = table.finish(deed, session, mechanism.data(), room, &mut len);
        if rv == CKR_BUFFER_TOO_SMALL {
            // The operation is still active: it is asked again with the room it named.
            let most = room.len().saturating_add(ROOM_MAX);
            let wanted = usize::try_from(len).unwrap_or(usize::MAX).min(most);
            let larger = larger.insert(Zeroizing::new(vec![0; wanted]));
            rv = table.finish(deed, session, mechanism.data(), larger, &mut len);
        }
        if rv != CKR_OK {
            return Err(error(finish, rv));
        }
        self.session.module.note_work();
        Ok(Made { len, larger })
    }

    /// A signature.
    fn sign(
        &self,
        handle: u64,
        kind: KeyKind,
        mechanism: &mut Prepared<'_>,
        room: &mut Vec<u8>,
    ) -> Result<Bytes, NativeError> {
        let room = cleared(room, signature_bytes_max(kind));
        let made = self.run(Deed::Sign, handle, mechanism, room)?;
        match made.read(room).filter(|signature| can_be_signature(kind, signature.len())) {
            Some(signature) => Ok(Bytes::copy_from_slice(signature)),
            None => {
                let what = format!("a signature of {} bytes by a key of kind {kind}", made.len);
                Err(fault::unreadable(Function::Sign, &what))
            }
        }
    }

    fn mac(
        &self,
        handle: u64,
        hash: Hash,
        mechanism: &mut Prepared<'_>,
        room: &mut Vec<u8>,
    ) -> Result<Bytes, NativeError> {
        let room = cleared(room, hash.digest_bytes());
        let made = self.run(Deed::Sign, handle, mechanism, room)?;
        match made.read(room).filter(|mac| mac.len() == hash.digest_bytes()) {
            Some(mac) => Ok(Bytes::copy_from_slice(mac)),
            None => {
                let what = format!("an HMAC with {} of {} bytes", hash.name(), made.len);
                Err(fault::unreadable(Function::Sign, &what))
            }
        }
    }

    /// The IV, and behind it what was encrypted.
    fn encrypt(&self, handle: u64, cipher: &Cipher, mechanism: &mut Prepared<'_>) -> Result<Bytes, NativeError> {
        let own_iv = self.profile.traits().makes_gcm_iv && matches!(cipher, Cipher::AesGcm { .. });
        if own_iv {
            mechanism.ask_for_iv();
        }
        let front = mechanism.iv().len();
        let expected = ciphertext_bytes(cipher, mechanism.data().len());
        let mut made = vec![0; front + expected];
        let told = self.run(Deed::Encrypt, handle, mechanism, &mut made[front..])?;
        if told.read(&made[front..]).is_none_or(|written| written.len() != expected) {
            let what = format!("{} bytes, where {expected} were to come", told.len);
            return Err(fault::unreadable(Function::Encrypt, &what));
        }
        if let Some(larger) = &told.larger {
            made[front..].copy_from_slice(&larger[..expected]);
        }
        if own_iv && mechanism.iv().iter().all(|byte| *byte == 0) {
            return Err(fault::unreadable(Function::Encrypt, "the token was to make an IV, and made none"));
        }
        made[..front].copy_from_slice(mechanism.iv());
        Ok(made.into())
    }

    fn decrypt(
        &self,
        handle: u64,
        kind: KeyKind,
        cipher: &Cipher,
        mechanism: &mut Prepared<'_>,
    ) -> Result<Bytes, NativeError> {
        let given = mechanism.data().len();
        // No plaintext is longer than its ciphertext; some modules want room for as much.
        let mut made = Zeroizing::new(vec![0; given.max(BLOCK_BYTES)]);
        let Made { len, mut larger } = self.run(Deed::Decrypt, handle, mechanism, &mut made)?;
        let written = larger.as_mut().unwrap_or(&mut made);
        match usize::try_from(len) {
            Ok(len) if len <= written.len() && can_be_plaintext(kind, cipher, given, len) => {
                written.truncate(len);
                Ok(wiped(std::mem::take(written)))
            }
            _ => Err(fault::unreadable(Function::Decrypt, &format!("{len} bytes of a ciphertext of {given}"))),
        }
    }

    /// One operation, in two native calls.
    fn operate(
        &self,
        handle: u64,
        kind: KeyKind,
        operation: &KeyOperation,
        room: &mut Vec<u8>,
    ) -> Result<Bytes, BackendError> {
        let keep = BackendError::keep;
        let made = match operation {
            KeyOperation::Sign { scheme, hash, input } => {
                let mut mechanism = Prepared::sign(*scheme, *hash, kind, input.as_bytes()).map_err(keep)?;
                let signature = self.sign(handle, kind, &mut mechanism, room).map_err(|error| self.judge(error))?;
                return match scheme {
                    SignatureScheme::Ecdsa => crypto::ecdsa_der_from_raw(&signature).map_err(keep),
                    _ => Ok(signature),
                };
            }
            KeyOperation::Encrypt { cipher, plaintext } => {
                let mut mechanism = Prepared::cipher(cipher, plaintext.expose()).map_err(keep)?;
                self.encrypt(handle, cipher, &mut mechanism)
            }
            KeyOperation::Decrypt { cipher, ciphertext } => {
                let mut mechanism = Prepared::cipher(cipher, ciphertext).map_err(keep)?;
                self.decrypt(handle, kind, cipher, &mut mechanism)
            }
            KeyOperation::Mac { hash, message } => {
                let mut mechanism = Prepared::mac(*hash, message.expose()).map_err(keep)?;
                self.mac(handle, *hash, &mut mechanism, room)
            }
        };
        made.map_err(|error| self.judge(error))
    }
}

/// What an operation made, by the module's word.
struct Made {
    len: CK_ULONG,
    /// Where it lies, if the module wanted more room than it was given.
    larger: Option<Zeroizing<Vec<u8>>>,
}

impl Made {
    /// What was made, if there is so much in this room, which was given first, or in the other.
    fn read<'m>(&'m self, room: &'m [u8]) -> Option<&'m [u8]> {
        let written = self.larger.as_ref().map_or(room, |larger| larger);
        usize::try_from(self.len).ok().and_then(|len| written.get(..len))
    }
}

/// Room for so many bytes, and at least [`ROOM`]. Those bytes are cleared: no more are read, and what a module says that it wrote it
/// may not have.
fn cleared(room: &mut Vec<u8>, bytes: usize) -> &mut [u8] {
    room.resize(bytes.max(ROOM), 0);
    room[..bytes].fill(0);
    room
}

/// How many bytes of ciphertext so many bytes become; with the tag of GCM.
fn ciphertext_bytes(cipher: &Cipher, plaintext: usize) -> usize {
    match cipher {
        Cipher::AesGcm { .. } => plaintext + GCM_TAG_BYTES,
        Cipher::AesCbc { padded: true, .. } => (plaintext / BLOCK_BYTES + 1) * BLOCK_BYTES,
        Cipher::AesCbc { padded: false, .. }
        | Cipher::AesBlock
        | Cipher::ServiceAead { .. }
        | Cipher::RsaPkcs1
        | Cipher::RsaOaep { .. } => plaintext,
    }
}

/// Whether so many bytes of ciphertext can become so many of plaintext.
fn can_be_plaintext(kind: KeyKind, cipher: &Cipher, ciphertext: usize, plaintext: usize) -> bool {
    match (cipher, kind) {
        (Cipher::AesGcm { .. }, _) => plaintext + GCM_TAG_BYTES == ciphertext,
        (Cipher::AesCbc { padded: true, .. }, _) => plaintext < ciphertext && plaintext + BLOCK_BYTES >= ciphertext,
        (Cipher::AesCbc { padded: false, .. } | Cipher::AesBlock, _) => plaintext == ciphertext,
        (Cipher::RsaPkcs1 | Cipher::RsaOaep { .. }, KeyKind::Rsa { bits }) => {
            let most = cipher.scheme().and_then(|scheme| crypto::rsa_plaintext_max(bits, scheme));
            most.is_some_and(|most| plaintext <= most)
        }
        (Cipher::RsaPkcs1 | Cipher::RsaOaep { .. } | Cipher::ServiceAead { .. }, _) => false,
    }
}

/// How long a key's signatures are, or can be, as PKCS#11 has them; zero of a key that makes none.
fn signature_bytes_max(kind: KeyKind) -> usize {
    match kind {
        KeyKind::Rsa { bits } => bits.div_ceil(8) as usize,
        KeyKind::Ec(curve) => 2 * curve.field_bytes(),
        KeyKind::Ed25519 => 64,
        KeyKind::MlDsa(set) => set.signature_bytes(),
        KeyKind::Aes { .. } | KeyKind::Hmac { .. } => 0,
    }
}

/// Whether a key's signature can be of so many bytes: of ECDSA, `r` and `s` are of one length, which may be less than the field's.
fn can_be_signature(kind: KeyKind, bytes: usize) -> bool {
    let most = signature_bytes_max(kind);
    match kind {
        KeyKind::Ec(_) => bytes > 0 && bytes <= most && bytes.is_multiple_of(2),
        _ => bytes > 0 && bytes == most,
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
        let state = client::check_present(&self.session.module, self.profile, Function::GetSessionInfo)
            .and_then(|()| self.state())
            .map_err(|error| self.judge(error))?;
        if self.login.is_some() && is_public(state) {
            let error = fault::from_rv(self.profile, Function::GetSessionInfo, CKR_USER_NOT_LOGGED_IN);
            return Err(self.judge(error));
        }
        Ok(())
    }

    fn perform(&mut self, handle: u64, kind: KeyKind, operation: &KeyOperation) -> Result<Bytes, BackendError> {
        let sample = self.sampler.begin();
        let mut room = std::mem::take(&mut self.room);
        let answer = self.operate(handle, kind, operation, &mut room);
        self.room = room;
        let answer = answer?;
        if let Some(sample) = sample {
            self.sampler.end(sample);
        }
        Ok(answer)
    }

    fn computes_here(&mut self) -> Option<bool> {
        self.sampler.computed()
    }
}

/// Whether nobody is logged in.
fn is_public(state: CK_STATE) -> bool {
    matches!(state, CKS_RO_PUBLIC_SESSION | CKS_RW_PUBLIC_SESSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Curve;

    #[test]
    fn ciphertexts_and_plaintexts_are_as_long_as_their_ciphers_make_them() {
        let gcm = Cipher::AesGcm { iv: [0; 12], associated_data: Bytes::new() };
        let cbc = |padded| Cipher::AesCbc { iv: [0; 16], padded };
        let made = |cipher: &Cipher, sizes: [usize; 3]| sizes.map(|bytes| ciphertext_bytes(cipher, bytes));
        assert_eq!(made(&gcm, [0, 1, 32]), [16, 17, 48]);
        assert_eq!(made(&cbc(true), [0, 15, 16]), [16, 16, 32]);
        assert_eq!(made(&cbc(false), [16, 32, 48]), [16, 32, 48]);
        let (aes, rsa) = (KeyKind::Aes { bits: 256 }, KeyKind::Rsa { bits: 2048 });
        let oaep = Cipher::RsaOaep { hash: Hash::Sha2_256 };
        for (kind, cipher, given, can, cannot) in [
            (aes, &gcm, 20, &[4][..], &[3, 5, 20][..]),
            (aes, &cbc(true), 32, &[16, 31], &[15, 32]),
            (aes, &cbc(false), 32, &[32], &[31, 33]),
            (rsa, &oaep, 256, &[0, 190], &[191, 256]),
            (rsa, &Cipher::RsaPkcs1, 256, &[245], &[246]),
            (aes, &oaep, 256, &[], &[10]),
        ] {
            assert!(can.iter().all(|bytes| can_be_plaintext(kind, cipher, given, *bytes)), "{cipher:?}");
            assert!(!cannot.iter().any(|bytes| can_be_plaintext(kind, cipher, given, *bytes)), "{cipher:?}");
        }
    }

    #[test]
    fn only_what_there_is_room_for_is_read_and_nothing_of_what_was_there_before() {
        let mut room = vec![7; ROOM];
        let given = cleared(&mut room, 64);
        assert!(given.len() == ROOM && given[..64] == [0; 64]);
        let made =
            |len, larger: Option<&[u8]>| Made { len, larger: larger.map(|bytes| Zeroizing::new(bytes.to_vec())) };
        assert_eq!(made(64, None).read(given), Some(&[0; 64][..]));
        assert_eq!(made(ROOM as CK_ULONG + 1, None).read(given), None);
        assert_eq!(made(2, Some(&[1, 2, 3])).read(given), Some(&[1, 2][..]));
        // It wanted less room than it says that it filled, or none.
        assert!(made(32, Some(&[1])).read(given).is_none() && made(32, Some(&[])).read(given).is_none());
        assert_eq!(cleared(&mut room, 4_627).len(), 4_627);
        assert_eq!(cleared(&mut room, 4).len(), ROOM);
    }

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
