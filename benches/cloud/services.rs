//! The three services: how each is simulated, and what a daemon is told of its key, P-256 in all.

use std::path::Path;

use serde_json::{Value, json};

use crate::QUOTA;
use crate::client::Cloud;
use crate::direct::Direct;

const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
const RING: &str = "projects/bench/locations/europe-west3/keyRings/ca";

/// A service that signs.
pub(crate) trait Service {
    /// As in the table of results.
    fn name(&self) -> &'static str;
    /// As a managed key's type.
    fn backend(&self) -> &'static str;
    /// The service's own word for a signature.
    fn signing(&self) -> &'static str;
    /// Starts one. What it writes is in this folder.
    fn cloud(&self, sim: &Path, folder: &Path) -> Cloud;
    /// More of the daemon's `kms_service`.
    fn settings(&self, folder: &Path) -> String;
    /// What the daemon has in its environment.
    fn environment(&self, _cloud: &Cloud) -> Option<(&'static str, String)> {
        None
    }
    /// The managed key.
    fn key(&self, cloud: &Cloud, folder: &Path) -> Value;
    /// The service's client without Keyway, where that is measured.
    fn direct(&self, _cloud: &Cloud) -> Option<Direct> {
        None
    }
    /// What is metered, where more is to be asked for than is allowed.
    fn bucket(&self) -> Option<&'static str> {
        None
    }
}

/// AWS KMS, over plain HTTP.
pub(crate) struct Aws;
/// Azure Key Vault, over TLS: its client takes nothing else.
pub(crate) struct Azure;
/// Google Cloud KMS, over plain HTTP.
pub(crate) struct Google;

impl Service for Aws {
    fn name(&self) -> &'static str {
        "Keyway, AWS"
    }

    fn backend(&self) -> &'static str {
        "awskms"
    }

    fn signing(&self) -> &'static str {
        "Sign"
    }

    fn cloud(&self, sim: &Path, _: &Path) -> Cloud {
        Cloud::start(sim, None, &["aws"])
    }

    fn settings(&self, _: &Path) -> String {
        String::new()
    }

    fn key(&self, cloud: &Cloud, _: &Path) -> Value {
        json!({
            "kms_key": "alias/doc", "key_type": "ECDSA", "curve": "P256", "region": "eu-west-1", "endpoint": cloud.url,
            "access_key": "AKIDTEST", "secret_key": "secret", "allow_generate_key": true, "any_mount": true,
        })
    }

    fn direct(&self, cloud: &Cloud) -> Option<Direct> {
        Some(Direct::new(cloud, "alias/doc"))
    }

    fn bucket(&self) -> Option<&'static str> {
        Some("eu-west-1/ecc")
    }
}

impl Service for Azure {
    fn name(&self) -> &'static str {
        "Keyway, Azure"
    }

    fn backend(&self) -> &'static str {
        "azurekeyvault"
    }

    fn signing(&self) -> &'static str {
        "sign"
    }

    fn cloud(&self, sim: &Path, folder: &Path) -> Cloud {
        Cloud::start(sim, Some(&folder.join("azure.pem")), &["azure", "--client", "app:secret"])
    }

    fn settings(&self, folder: &Path) -> String {
        let ca = folder.join("azure.pem");
        format!("ca_file = \"{}\"\n quota \"vault\" {{ per_second = {QUOTA} }}", ca.display())
    }

    fn environment(&self, cloud: &Cloud) -> Option<(&'static str, String)> {
        Some(("AZURE_AUTHORITY_HOST", cloud.url.clone()))
    }

    fn key(&self, cloud: &Cloud, _: &Path) -> Value {
        json!({
            "tenant_id": TENANT, "client_id": "app", "client_secret": "secret", "vault_name": "one", "key_name": "doc",
            "resource": "vault.azure.net", "endpoint": format!("{}/vault/one", cloud.url),
            "key_type": "EC", "curve": "P256", "allow_generate_key": true, "any_mount": true,
        })
    }
}

impl Service for Google {
    fn name(&self) -> &'static str {
        "Keyway, Google"
    }

    fn backend(&self) -> &'static str {
        "gcpckms"
    }

    fn signing(&self) -> &'static str {
        "asymmetricSign"
    }

    fn cloud(&self, sim: &Path, folder: &Path) -> Cloud {
        let account = folder.join("account.json");
        let account = account.to_str().expect("a path in UTF-8");
        Cloud::start(sim, None, &["google", "--key-ring", RING, "--service-account", account])
    }

    fn settings(&self, _: &Path) -> String {
        format!("quota \"cryptographic\" {{ per_second = {QUOTA} }}")
    }

    fn key(&self, cloud: &Cloud, folder: &Path) -> Value {
        json!({
            "project": "bench", "region": "europe-west3", "key_ring": "ca", "crypto_key": "doc",
            "algorithm": "EC_SIGN_P256_SHA256", "endpoint": cloud.url, "credentials": folder.join("account.json"),
            "allow_generate_key": true, "any_mount": true,
        })
    }
}
