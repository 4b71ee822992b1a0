//! The backends there are.

use std::sync::Arc;
use std::time::Duration;

use super::Backend;
use super::fake::FakeBackend;
use super::pkcs11::Pkcs11Backend;
use super::process::ProcessBackend;
use crate::config::{Isolation, KmsLibrary, Profile};
use crate::telemetry::LibraryMetrics;

/// The backend of a KMS library. Nothing is loaded yet. A worker process that takes longer than `open_limit` to open its
/// token, to log in or to open a session is killed.
pub fn open(library: &KmsLibrary, open_limit: Duration, metrics: LibraryMetrics) -> Arc<dyn Backend> {
    match (library.profile, library.isolation) {
        (Some(Profile::Fake), _) => Arc::new(FakeBackend::default()),
        (_, Isolation::Process) => Arc::new(ProcessBackend::new(library, open_limit, metrics)),
        (_, Isolation::None) => Arc::new(Pkcs11Backend::new(library, metrics)),
    }
}
