//! A made-up token: its PIN and its keys.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cryptoki_sys::{
    CK_FLAGS, CK_MECHANISM_INFO, CK_MECHANISM_TYPE, CK_OBJECT_HANDLE, CK_SESSION_INFO, CK_SLOT_INFO, CK_TOKEN_INFO,
    CK_ULONG, CKF_DECRYPT, CKF_ENCRYPT, CKF_GENERATE, CKF_GENERATE_KEY_PAIR, CKF_HW, CKF_LOGIN_REQUIRED,
    CKF_REMOVABLE_DEVICE, CKF_RNG, CKF_RW_SESSION, CKF_SIGN, CKF_TOKEN_INITIALIZED, CKF_TOKEN_PRESENT,
    CKF_USER_PIN_COUNT_LOW, CKF_USER_PIN_FINAL_TRY, CKF_USER_PIN_INITIALIZED, CKF_USER_PIN_LOCKED, CKM_AES_KEY_GEN,
    CKM_EC_KEY_PAIR_GEN, CKM_ECDSA, CKM_ECDSA_SHA256, CKM_GENERIC_SECRET_KEY_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN,
    CKM_SHA224_HMAC, CKM_SHA256_HMAC, CKM_SHA384_HMAC, CKM_SHA512_HMAC, CKR_ARGUMENTS_BAD, CKR_BUFFER_TOO_SMALL,
    CKR_DEVICE_MEMORY, CKR_MECHANISM_INVALID, CKR_PIN_INCORRECT, CKR_PIN_LOCKED, CKR_USER_ALREADY_LOGGED_IN,
    CKS_RO_PUBLIC_SESSION, CKS_RO_USER_FUNCTIONS, CKS_RW_PUBLIC_SESSION, CKS_RW_USER_FUNCTIONS,
};
use parking_lot::RwLock;

use super::attributes::Object;
use super::key::Key;
use super::{ciphering, padded, signing};
use crate::call::Answer;
use crate::settings::{KeyKind, NullSlot};
use crate::slot::Slot;

/// The mechanisms that make keys.
const GENERATIONS: [CK_MECHANISM_TYPE; 4] =
    [CKM_EC_KEY_PAIR_GEN, CKM_RSA_PKCS_KEY_PAIR_GEN, CKM_AES_KEY_GEN, CKM_GENERIC_SECRET_KEY_GEN];

/// A token of null mode.
pub(crate) struct NullToken {
    pin: Vec<u8>,
    tries: u64,
    logged_in: AtomicBool,
    keys: RwLock<Keys>,
    /// Keys that were generated, by all processes; without a folder, nobody else learns of them.
    file: Option<PathBuf>,
}

#[derive(Default)]
struct Keys {
    known: Vec<&'static Key>,
    /// Bytes of the file that are read.
    read: u64,
}

impl NullToken {
    pub(crate) fn new(settings: &NullSlot, serial: &str, folder: Option<&Path>) -> Result<NullToken, String> {
        let mut keys = Keys::default();
        for key in &settings.keys {
            let id = key.id.as_deref().map(|id| unhex(id).ok_or_else(|| format!("key {:?}: id {id:?}", key.label)));
            keys.known.push(Key::new(key.kind, &key.label, id.transpose()?));
        }
        Ok(NullToken {
            pin: settings.pin.clone().into_bytes(),
            tries: settings.tries,
            logged_in: AtomicBool::new(false),
            keys: RwLock::new(keys),
            file: folder.map(|folder| folder.join(format!("keys.{}", hex(serial.as_bytes())))),
        })
    }

    pub(crate) fn log_out(&self) {
        self.logged_in.store(false, Ordering::Release);
    }

    pub(super) fn is_logged_in(&self) -> bool {
        self.logged_in.load(Ordering::Acquire)
    }

    pub(super) fn log_in(&self, slot: &Slot, pin: &[u8]) -> Answer {
        let wrong = &slot.device.servers.wrong_pins;
        if self.is_logged_in() {
            return Err(CKR_USER_ALREADY_LOGGED_IN);
        }
        if wrong.load(Ordering::Acquire) >= self.tries {
            return Err(CKR_PIN_LOCKED);
        }
        if pin != self.pin {
            wrong.fetch_add(1, Ordering::AcqRel);
            return Err(CKR_PIN_INCORRECT);
        }
        wrong.store(0, Ordering::Release);
        self.logged_in.store(true, Ordering::Release);
        Ok(())
    }

    pub(crate) fn info(&self, slot: &Slot) -> CK_TOKEN_INFO {
        let names = slot.names();
        let left = self.tries.saturating_sub(slot.device.servers.wrong_pins.load(Ordering::Acquire));
        let mut flags = CKF_RNG | CKF_LOGIN_REQUIRED | CKF_USER_PIN_INITIALIZED | CKF_TOKEN_INITIALIZED;
        flags |= if left < self.tries { CKF_USER_PIN_COUNT_LOW } else { 0 };
        flags |= if left == 1 { CKF_USER_PIN_FINAL_TRY } else { 0 };
        flags |= if left == 0 { CKF_USER_PIN_LOCKED } else { 0 };
        CK_TOKEN_INFO {
            label: padded(&names.label),
            manufacturerID: padded("hsm-sim"),
            model: padded("null"),
            serialNumber: padded(&names.serial),
            flags,
            ulSessionCount: slot.open_sessions(),
            ulMinPinLen: 1,
            ulMaxPinLen: 255,
            utcTime: [b'0'; 16],
            ..CK_TOKEN_INFO::default()
        }
    }

    pub(crate) fn session_info(&self, flags: CK_FLAGS) -> CK_SESSION_INFO {
        let state = match (flags & CKF_RW_SESSION != 0, self.is_logged_in()) {
            (false, false) => CKS_RO_PUBLIC_SESSION,
            (false, true) => CKS_RO_USER_FUNCTIONS,
            (true, false) => CKS_RW_PUBLIC_SESSION,
            (true, true) => CKS_RW_USER_FUNCTIONS,
        };
        CK_SESSION_INFO { state, flags, ..CK_SESSION_INFO::default() }
    }

    /// The key and half of an object's handle. Each key has two in turn, the private one first.
    pub(super) fn object(&self, handle: CK_OBJECT_HANDLE) -> Option<(&'static Key, bool)> {
        let number = usize::try_from(handle.checked_sub(1)?).ok()?;
        let key = *self.keys.read().known.get(number / 2)?;
        Some((key, number.is_multiple_of(2)))
    }

    /// The handles of objects that match, as far as they are visible.
    pub(super) fn find(&self, matches: impl Fn(Object<'_>) -> bool) -> Vec<CK_OBJECT_HANDLE> {
        self.read_file(&mut self.keys.write());
        let keys = self.keys.read().known.clone();
        let mut found = Vec::new();
        for (handle, key) in (1..).step_by(2).zip(keys) {
            let halves = [(handle, true), (handle + 1, false)];
            let halves = halves.into_iter().take(if key.kind.is_secret() { 1 } else { 2 });
            let halves = halves.filter(|(_, private)| !private || self.is_logged_in());
            found.extend(halves.filter(|(_, private)| matches(Object { key, private: *private })).map(|half| half.0));
        }
        found
    }

    /// The private or secret key of this label.
    pub(crate) fn private_key(&self, label: &str) -> Option<CK_OBJECT_HANDLE> {
        self.find(|object| object.private && object.key.label == label).first().copied()
    }

    /// Whether the private key behind a handle has this label.
    pub(crate) fn is_private_key(&self, handle: CK_OBJECT_HANDLE, label: &str) -> bool {
        self.object(handle).is_some_and(|(key, private)| private && key.label == label)
    }

    /// A new key pair; answers the handle of its private half.
    pub(super) fn add(&self, kind: KeyKind, label: &str, id: Option<Vec<u8>>) -> Answer<CK_OBJECT_HANDLE> {
        let key = Key::new(kind, label, id);
        let mut keys = self.keys.write();
        self.read_file(&mut keys);
        if let Some(path) = &self.file {
            let line = format!("{} {} {}\n", kind.name(), hex(&key.id), hex(label.as_bytes()));
            let file = File::options().append(true).create(true).open(path);
            let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
            written.map_err(|_| CKR_DEVICE_MEMORY)?;
            self.read_file(&mut keys);
        } else {
            keys.known.push(key);
        }
        let place = keys.known.iter().rposition(|known| known.label == label && known.id == key.id);
        place.map(|place| place as CK_ULONG * 2 + 1).ok_or(CKR_DEVICE_MEMORY)
    }

    /// Takes in what was generated, here or elsewhere, since the last time.
    fn read_file(&self, keys: &mut Keys) {
        let Some(mut file) = self.file.as_ref().and_then(|path| File::open(path).ok()) else { return };
        if file.metadata().is_ok_and(|file| file.len() <= keys.read) {
            return;
        }
        let mut text = String::new();
        if file.seek(SeekFrom::Start(keys.read)).is_err() || file.read_to_string(&mut text).is_err() {
            return;
        }
        // What another process is only writing is for the next time.
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        keys.read += whole as u64;
        for line in text[..whole].lines() {
            let mut words = line.split(' ');
            let (kind, id, label) = (words.next(), words.next(), words.next());
            let Some(kind) = KeyKind::ALL.into_iter().find(|known| kind == Some(known.name())) else { continue };
            let label = label.and_then(unhex).and_then(|label| String::from_utf8(label).ok());
            keys.known.extend(label.map(|label| Key::new(kind, &label, id.and_then(unhex))));
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

pub(crate) fn slot_info(label: &str) -> CK_SLOT_INFO {
    CK_SLOT_INFO {
        slotDescription: padded(&format!("hsm-sim {label}")),
        manufacturerID: padded("hsm-sim"),
        flags: CKF_TOKEN_PRESENT | CKF_REMOVABLE_DEVICE,
        ..CK_SLOT_INFO::default()
    }
}

/// Writes the mechanisms of a token.
///
/// # Safety
///
/// `len` must be null or valid; `list` null or with room for `*len` numbers.
pub(crate) unsafe fn mechanism_list(list: *mut CK_MECHANISM_TYPE, len: *mut CK_ULONG) -> Answer {
    // SAFETY: as the caller says.
    let len = unsafe { len.as_mut() }.ok_or(CKR_ARGUMENTS_BAD)?;
    let all = [&GENERATIONS[..], signing::MECHANISMS, ciphering::MECHANISMS].concat();
    let room = std::mem::replace(len, all.len() as CK_ULONG);
    if list.is_null() {
        return Ok(());
    }
    if room < *len {
        return Err(CKR_BUFFER_TOO_SMALL);
    }
    // SAFETY: as the caller says, there is room for `room` numbers, and these are fewer.
    unsafe { list.copy_from_nonoverlapping(all.as_ptr(), all.len()) };
    Ok(())
}

pub(crate) fn mechanism_info(mechanism: CK_MECHANISM_TYPE) -> Answer<CK_MECHANISM_INFO> {
    let secret = ciphering::MECHANISMS.contains(&mechanism) || mechanism == CKM_AES_KEY_GEN;
    // Of secret keys, in bytes.
    let bits = match mechanism {
        CKM_ECDSA | CKM_ECDSA_SHA256 | CKM_EC_KEY_PAIR_GEN => 256,
        CKM_SHA224_HMAC | CKM_SHA256_HMAC | CKM_SHA384_HMAC | CKM_SHA512_HMAC | CKM_GENERIC_SECRET_KEY_GEN => 64,
        _ if secret => 32,
        _ => 2048,
    };
    let use_flag = match mechanism {
        CKM_EC_KEY_PAIR_GEN | CKM_RSA_PKCS_KEY_PAIR_GEN => CKF_GENERATE_KEY_PAIR,
        CKM_AES_KEY_GEN | CKM_GENERIC_SECRET_KEY_GEN => CKF_GENERATE,
        known if signing::MECHANISMS.contains(&known) => CKF_SIGN,
        known if ciphering::MECHANISMS.contains(&known) => CKF_ENCRYPT | CKF_DECRYPT,
        _ => return Err(CKR_MECHANISM_INVALID),
    };
    Ok(CK_MECHANISM_INFO { ulMinKeySize: bits, ulMaxKeySize: bits, flags: CKF_HW | use_flag })
}
