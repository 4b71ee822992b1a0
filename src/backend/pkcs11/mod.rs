//! Keys behind a PKCS#11 module (PKCS#11 v2.40 and later). The one place of the daemon with unsafe code.
//!
//! Every call goes through one function list, `table` and `setup`, and the constants are those of `cryptoki-sys`. Not through
//! `cryptoki`: it gets a list of its own, where some modules give another instance each time; it asks for a signature's size
//! before each one; and it believes any length a module tells.

#![expect(unsafe_code, reason = "calls into a C library")]

mod class;
#[cfg(test)]
mod class_tests;
mod client;
mod device;
mod fault;
mod find;
mod generate;
mod generation;
mod mechanism;
mod objects;
mod return_value;
mod session;
mod setup;
mod table;
mod token_info;

use std::path::Path;
use std::sync::Arc;

use super::{Backend, BackendError, Device};
use crate::config::{KmsLibrary, Profile};
use crate::model::TokenSelector;
use crate::telemetry::LibraryMetrics;
use client::Module;

/// Every cause that errors of this border carry, apart from their faults' labels.
pub(super) const CAUSES: &[&str] = return_value::NAMES;

/// One KMS library.
pub struct Pkcs11Backend {
    module: Arc<Module>,
    /// `None`: by what the module says of itself.
    profile: Option<Profile>,
    metrics: LibraryMetrics,
}

impl Pkcs11Backend {
    /// The library's backend. Nothing is loaded before the first device is opened.
    pub fn new(library: &KmsLibrary, metrics: LibraryMetrics) -> Pkcs11Backend {
        Pkcs11Backend { metrics, ..Pkcs11Backend::at(&library.library, library.profile) }
    }

    /// The backend of the shared object at `path`, which counts nothing.
    pub fn at(path: &Path, profile: Option<Profile>) -> Pkcs11Backend {
        Pkcs11Backend { module: Module::at(path), profile, metrics: LibraryMetrics::default() }
    }
}

impl Backend for Pkcs11Backend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        device::open(&self.module, token, self.profile, &self.metrics)
    }
}
