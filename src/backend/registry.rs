//! The backends there are: the one place that knows which are built into this program.

use std::sync::Arc;
use std::time::Duration;

use super::Backend;
use super::fake::FakeBackend;
use super::pkcs11::Pkcs11Backend;
use super::process::ProcessBackend;
use crate::config::{Isolation, KmsLibrary, KmsService, Profile};
use crate::telemetry::{LibraryMetrics, Telemetry};

/// The backend of a KMS library. Nothing is loaded yet. A worker process that takes longer than `open_limit` to open its
/// token, to log in or to open a session is killed.
pub fn open(library: &KmsLibrary, open_limit: Duration, metrics: LibraryMetrics) -> Arc<dyn Backend> {
    match (library.profile, library.isolation) {
        (Some(Profile::Fake), _) => Arc::new(FakeBackend::default()),
        (_, Isolation::Process) => Arc::new(ProcessBackend::new(library, open_limit, metrics)),
        (_, Isolation::None) => Arc::new(Pkcs11Backend::new(library, metrics)),
    }
}

/// The backend of a cloud's key service; `None` where this program was built without it, or the system has no threads for
/// its connections. No call is made.
pub fn open_service(settings: &KmsService, telemetry: &Telemetry) -> Option<Arc<dyn Backend>> {
    match settings.service {
        #[cfg(feature = "awskms")]
        crate::model::CloudService::AwsKms => Some(Arc::new(super::aws::AwsBackend::new(start(settings, telemetry)?))),
        #[cfg(feature = "azurekeyvault")]
        crate::model::CloudService::AzureKeyVault => {
            Some(Arc::new(super::azure::AzureBackend::new(start(settings, telemetry)?)))
        }
        #[cfg(feature = "gcpckms")]
        crate::model::CloudService::GcpCkms => Some(Arc::new(super::gcp::GcpBackend::new(start(settings, telemetry)?))),
        #[cfg(not(all(feature = "awskms", feature = "azurekeyvault", feature = "gcpckms")))]
        _ => {
            let _ = telemetry;
            None
        }
    }
}

/// What all keys of a service share.
#[cfg(feature = "cloud")]
fn start(settings: &KmsService, telemetry: &Telemetry) -> Option<Arc<super::cloud::Service>> {
    let started = super::cloud::Service::start(settings, telemetry);
    started.map_err(|fault| tracing::error!(reason = %fault, "keys in clouds are unavailable; restart Keyway when the system has threads again")).ok()
}
