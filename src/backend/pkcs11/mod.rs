//! Keys behind a PKCS#11 module (PKCS#11 v2.40 and later). The one place of the daemon with unsafe code.
//!
//! `cryptoki` does the set-up: initialisation, slots, login, finding, generation. The hot calls, `C_SignInit` and `C_Sign`,
//! go through a small function table of our own, since `cryptoki` asks for a signature's size before each one.

#![expect(unsafe_code, reason = "calls into a C library")]

mod client;
mod device;
mod fault;
mod find;
mod generate;
mod mechanism;
mod session;
mod table;

use std::sync::Arc;

use super::{Backend, BackendError, Device, TokenSelector};
use crate::config::{KmsLibrary, Profile};
use client::Module;

/// Sessions of a slot where neither the operator nor the token says: network HSMs answer in parallel.
const NETWORK_SESSIONS: usize = 16;
/// A Luna partition's sweet spot.
const LUNA_SESSIONS: usize = 30;
/// An nShield's.
const NSHIELD_SESSIONS: usize = 60;
/// A YubiHSM 2 allows 16 sessions in all, and works on one thing at a time.
const YUBIHSM_SESSIONS: usize = 4;

/// One KMS library.
pub struct Pkcs11Backend {
    module: Arc<Module>,
    profile: Profile,
}

impl Pkcs11Backend {
    /// The library's backend. Nothing is loaded before the first device is opened.
    pub fn new(library: &KmsLibrary) -> Pkcs11Backend {
        Pkcs11Backend { module: Module::at(&library.library), profile: library.profile }
    }
}

impl Backend for Pkcs11Backend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        device::open(&self.module, token, self.profile)
    }

    fn default_sessions(&self) -> usize {
        match self.profile {
            // Soft tokens compute on our own cores: more sessions only make them wait for each other.
            Profile::SoftHsm | Profile::Kryoptic | Profile::Generic | Profile::Fake => {
                std::thread::available_parallelism().map_or(2, usize::from)
            }
            Profile::Luna => LUNA_SESSIONS,
            Profile::NShield => NSHIELD_SESSIONS,
            Profile::CloudHsm => NETWORK_SESSIONS,
            Profile::YubiHsm => YUBIHSM_SESSIONS,
        }
    }
}
