//! Keys in Google Cloud KMS. One client for each endpoint and identity, shared by all its keys; one set of connections for all.
//!
//! - `client.rs`: the calls of one key, and the checksums of what is sent and answered
//! - `credentials.rs`: by whose word they are made
//! - `mechanism.rs`: the service's words for operations
//! - `sealing.rs`: the calls of secret keys that encrypt
//! - `find.rs`: what the service says of a key
//! - `fault.rs`: its errors, classed
//! - `transport.rs`: Google's interface over connections of our own
//!
//! This room must not know: requests, namespaces, or who may name which endpoint.

mod client;
mod credentials;
mod fault;
mod find;
mod mechanism;
mod sealing;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use google_cloud_kms_v1::client::KeyManagementService;
use parking_lot::Mutex;

use self::client::GcpKey;
use self::credentials::Source;
use self::transport::Rest;
use super::cloud::{CloudDevice, Keeper, Service, ill};
use super::{Backend, BackendError, Device};
use crate::model::{CloudCredentials, CloudKey, Fault, TokenSelector};

/// What a client is made of: whoever has the same shares it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Reach {
    endpoint: Option<String>,
    source: Source,
}

/// A client and the credentials that its calls carry.
struct Shared {
    client: KeyManagementService,
    keeper: Arc<Keeper<Source>>,
}

/// The backend of `gcpckms`.
pub(super) struct GcpBackend {
    service: Arc<Service>,
    clients: Mutex<HashMap<Reach, Weak<Shared>>>,
}

impl GcpBackend {
    /// The backend of this service. No call is made.
    pub(super) fn new(service: Arc<Service>) -> GcpBackend {
        GcpBackend { service, clients: Mutex::default() }
    }

    fn shared(&self, key: &CloudKey) -> Result<Arc<Shared>, BackendError> {
        let source = match &key.credentials {
            CloudCredentials::Own => Source::Own,
            CloudCredentials::GoogleJson(json) => Source::Json(json.clone()),
            CloudCredentials::GoogleFile(path) => Source::File(path.clone()),
            _ => return Err(not_of_google()),
        };
        let reach = Reach { endpoint: key.endpoint.clone(), source };
        let mut clients = self.clients.lock();
        if let Some(shared) = clients.get(&reach).and_then(Weak::upgrade) {
            return Ok(shared);
        }
        let made =
            self.make(&reach).map_err(|what| ill("unavailable", format!("Google Cloud KMS key {key}: {what}")))?;
        let made = Arc::new(made);
        clients.retain(|_, shared| shared.strong_count() > 0);
        clients.insert(reach, Arc::downgrade(&made));
        Ok(made)
    }

    /// A client that tries each call once: who tries again, and when, is decided above.
    fn make(&self, reach: &Reach) -> Result<Shared, String> {
        let keeper = Keeper::start(reach.source.clone(), reach.source.owner(), &self.service);
        let rest = Rest::new(reach.endpoint.as_deref(), &self.service, Arc::clone(&keeper))?;
        Ok(Shared { client: KeyManagementService::from_stub(rest), keeper })
    }
}

fn not_of_google() -> BackendError {
    BackendError::keep(Fault::internal("a key of another service was asked of Google Cloud KMS"))
}

impl Backend for GcpBackend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let TokenSelector::Cloud(key) = token else { return Err(not_of_google()) };
        let shared = self.shared(key)?;
        let client = GcpKey::new(key, shared, Arc::clone(&self.service));
        let client = client.ok_or_else(not_of_google)?;
        Ok(Box::new(CloudDevice::new(key, Arc::new(client), Arc::clone(&self.service))))
    }

    fn has_login(&self) -> bool {
        false
    }
}
