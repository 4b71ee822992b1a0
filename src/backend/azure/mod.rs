//! Keys in Azure Key Vault and Azure Managed HSM. One client for each vault and identity, shared by all its keys; one set of
//! connections for all.
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

use azure_core::http::{ClientOptions, RetryOptions};
use azure_security_keyvault_keys::{KeyClient, KeyClientOptions};
use parking_lot::Mutex;

use self::client::AzureKey;
use self::credentials::{Entra, Identity, Who};
use super::cloud::{CloudDevice, Keeper, Service, ill};
use super::{Backend, BackendError, Device};
use crate::model::{CloudCredentials, CloudKey, CloudPlace, Fault, TokenSelector};

/// What a client is made of: whoever has the same shares it.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Reach {
    /// The vault's URL.
    url: String,
    /// The domain of the service, for which tokens are.
    domain: String,
    /// Whether the URL is the service's own for this domain.
    public: bool,
    who: Who,
}

/// One vault, as one identity reaches it.
struct Vault {
    client: KeyClient,
    identity: Arc<Identity>,
}

/// The backend of `azurekeyvault`.
pub(super) struct AzureBackend {
    service: Arc<Service>,
    vaults: Mutex<HashMap<Reach, Weak<Vault>>>,
}

impl AzureBackend {
    /// The backend of this service. No call is made.
    pub(super) fn new(service: Arc<Service>) -> AzureBackend {
        AzureBackend { service, vaults: Mutex::default() }
    }

    fn vault(&self, key: &CloudKey) -> Result<Arc<Vault>, BackendError> {
        let reach = reach(key)?;
        let mut vaults = self.vaults.lock();
        if let Some(vault) = vaults.get(&reach).and_then(Weak::upgrade) {
            return Ok(vault);
        }
        let made =
            self.make(&reach).map_err(|what| ill("unavailable", format!("Azure Key Vault key {key}: {what}")))?;
        let vault = Arc::new(made);
        vaults.retain(|_, vault| vault.strong_count() > 0);
        vaults.insert(reach, Arc::downgrade(&vault));
        Ok(vault)
    }

    /// A client that tries each call once: who tries again, and when, is decided above.
    fn make(&self, reach: &Reach) -> Result<Vault, String> {
        let options = |connections| {
            let transport = Some(transport::of(connections));
            ClientOptions { transport, retry: RetryOptions::none(), ..ClientOptions::default() }
        };
        let entra = Entra::new(reach.who.clone(), &reach.domain, options(self.service.transport()?));
        let owner = entra.owner();
        let identity = Keeper::start(entra, owner, &self.service);
        // Whatever a private endpoint says that it is: the identity gives out tokens for the domain alone.
        let verify_challenge_resource = Some(reach.public);
        let client_options = options(self.service.transport_to(&reach.url)?);
        let options = KeyClientOptions { client_options, verify_challenge_resource, ..KeyClientOptions::default() };
        let credential = Arc::new(credentials::Lent(Arc::clone(&identity)));
        let client = KeyClient::new(&reach.url, credential, Some(options)).map_err(|error| error.to_string())?;
        Ok(Vault { client, identity })
    }
}

fn reach(key: &CloudKey) -> Result<Reach, BackendError> {
    let CloudPlace::Azure { vault, domain, .. } = &key.place else { return Err(not_of_azure()) };
    let CloudCredentials::Azure { tenant_id, client_id, client_secret } = &key.credentials else {
        return Err(not_of_azure());
    };
    let (url, public) = match &key.endpoint {
        Some(endpoint) => (endpoint.clone(), false),
        None => (format!("https://{vault}.{domain}"), true),
    };
    let who = Who { tenant_id: tenant_id.clone(), client_id: client_id.clone(), client_secret: client_secret.clone() };
    Ok(Reach { url, domain: domain.clone(), public, who })
}

fn not_of_azure() -> BackendError {
    BackendError::keep(Fault::internal("a key of another service was asked of Azure Key Vault"))
}

impl Backend for AzureBackend {
    fn open(&self, token: &TokenSelector) -> Result<Box<dyn Device>, BackendError> {
        let TokenSelector::Cloud(key) = token else { return Err(not_of_azure()) };
        let client = AzureKey::new(key, self.vault(key)?, Arc::clone(&self.service));
        Ok(Box::new(CloudDevice::new(key, Arc::new(client), Arc::clone(&self.service))))
    }

    fn has_login(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(endpoint: Option<&str>) -> CloudKey {
        let place = CloudPlace::Azure { vault: "v".into(), domain: "vault.azure.net".into(), version: None };
        let credentials =
            CloudCredentials::Azure { tenant_id: "t".into(), client_id: String::new(), client_secret: None };
        CloudKey { name: "k".into(), place, endpoint: endpoint.map(str::to_owned), credentials, replicas: Vec::new() }
    }

    #[test]
    fn a_vault_is_reached_by_its_name_or_by_the_endpoint_named_for_it() {
        let own = reach(&key(None)).ok().unwrap();
        assert_eq!((own.url.as_str(), own.public), ("https://v.vault.azure.net", true));
        let other = reach(&key(Some("https://private.example/vault"))).ok().unwrap();
        assert_eq!((other.url.as_str(), other.public), ("https://private.example/vault", false));
        assert_eq!(other.domain, "vault.azure.net");
    }
}
