//! The backends there are.

use std::sync::Arc;

use super::Backend;
use super::pkcs11::Pkcs11Backend;
use crate::config::KmsLibrary;

/// The backend of a KMS library. Nothing is loaded yet.
pub fn open(library: &KmsLibrary) -> Arc<dyn Backend> {
    Arc::new(Pkcs11Backend::new(library))
}
