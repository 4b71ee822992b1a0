//! Keys in AWS KMS. One client for each region, endpoint and identity, shared by all its keys.
//!
//! - `client.rs`: the calls of one key
//! - `credentials.rs`: by whose word they are made
//! - `mechanism.rs`: the service's words for operations
//! - `find.rs`: what the service says of a key
//! - `fault.rs`: its errors, classed
//! - `transport.rs`: its clients' requests on the connections of the service
//!
//! This room must not know: requests, namespaces, or who may name which endpoint.

mod client;
mod credentials;
mod fault;
mod find;
mod mechanism;
mod transport;

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use self::client::AwsKey;
use self::credentials::{Identity, Reached};
use super::cloud::{CloudDevice, Service, ill};
use super::{Backend, BackendError, Device};
use crate::model::{CloudCredentials, CloudKey, CloudPlace, Fault, TokenSelector, aws_region};

/// What a client is made of: whoever has the same shares it.
#[derive(PartialEq, Eq, Hash)]
struct Reach {
    region: Option<String>,
    endpoint: Option<String>,
    identity: Identity,
}

/// The backend of `awskms`.
pub(super) struct AwsBackend {
    service: Arc<Service>,
    clients: Mutex<HashMap<Reach, Weak<Reached>>>,
}

impl AwsBackend {
    /// The backend of this service. No call is made.
    pub(super) fn new(service: Arc<Service>) -> AwsBackend {
        AwsBackend { service, clients: Mutex::default() }
    }

    fn client(&self, key: &CloudKey) -> Result<Arc<Reached>, BackendError> {
        let CloudPlace::Aws { region } = &key.place else { return Err(not_of_aws()) };
        let (access_key, secret_key) = match &key.credentials {
            CloudCredentials::Own => (None, None),
            CloudCredentials::Aws { access_key, secret_key } => (Some(access_key.clone()), Some(secret_key.clone())),
            _ => return Err(not_of_aws()),
        };
        let identity = Identity { access_key, secret_key };
        let region = region.clone().or_else(|| aws_region(&key.name).map(str::to_owned));
        let reach = Reach { region, endpoint: key.endpoint.clone(), identity };
        if let Some(client) = self.clients.lock().get(&reach).and_then(Weak::upgrade) {
            return Ok(client);
        }
        // Not under the lock: others are not to wait for what the environment takes to answer.
        let made = credentials::client(&reach, &self.service);
        let made = Arc::new(made.map_err(|what| ill("unavailable", format!("AWS KMS key {key}: {what}")))?);
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(&reach).and_then(Weak::upgrade) {
            return Ok(client);
        }
        clients.retain(|_, client| client.strong_count() > 0);
        clients.insert(reach, Arc::downgrade(&made));
        Ok(made)
    }
}

fn not_of_aws() -> BackendError {
    BackendError::keep(Fault::internal("a key of another service was asked of AWS KMS"))
}

impl Backend for AwsBackend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let TokenSelector::Cloud(key) = token else { return Err(not_of_aws()) };
        let client = AwsKey::new(key, self.client(key)?, Arc::clone(&self.service));
        Ok(Box::new(CloudDevice::new(key, Arc::new(client), Arc::clone(&self.service))))
    }

    fn has_login(&self) -> bool {
        false
    }
}
