//! The backends there are.

use std::sync::Arc;

use super::Backend;
use super::fake::FakeBackend;
use super::pkcs11::Pkcs11Backend;
use crate::config::{KmsLibrary, Profile};

/// The backend of a KMS library. Nothing is loaded yet.
pub fn open(library: &KmsLibrary) -> Arc<dyn Backend> {
    match library.profile {
        Some(Profile::Fake) => Arc::new(FakeBackend::default()),
        _ => Arc::new(Pkcs11Backend::new(library)),
    }
}
