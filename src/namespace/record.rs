//! How a mount is stored.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Listing, Mount, MountConfig, Namespace};
use crate::store::Versioned;

/// The collection of mounts of a namespace; the record's name is the mount's path.
pub(super) const COLLECTION: &str = "mounts";

#[derive(Serialize, Deserialize)]
pub(super) struct MountRecord {
    engine: String,
    uuid: String,
    accessor: String,
    description: String,
    options: BTreeMap<String, String>,
    default_lease_ttl_seconds: u64,
    max_lease_ttl_seconds: u64,
    allowed_managed_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passthrough_request_headers: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    allowed_response_headers: Vec<String>,
    #[serde(default)]
    audit_non_hmac_request_keys: Vec<String>,
    #[serde(default)]
    audit_non_hmac_response_keys: Vec<String>,
    /// By Vault's name.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    listing_visibility: String,
    #[serde(default)]
    local: bool,
}

impl Versioned for MountRecord {
    const VERSION: u16 = 1;
}

impl MountRecord {
    pub(super) fn of(mount: &Mount) -> MountRecord {
        MountRecord {
            engine: mount.engine.clone(),
            uuid: mount.uuid.clone(),
            accessor: mount.accessor.clone(),
            description: mount.description.clone(),
            options: mount.options.clone(),
            default_lease_ttl_seconds: mount.config.default_lease_ttl.as_secs(),
            max_lease_ttl_seconds: mount.config.max_lease_ttl.as_secs(),
            allowed_managed_keys: mount.config.allowed_managed_keys.clone(),
            passthrough_request_headers: mount.config.passthrough_request_headers.clone(),
            allowed_response_headers: mount.config.allowed_response_headers.clone(),
            audit_non_hmac_request_keys: mount.config.audit_non_hmac_request_keys.clone(),
            audit_non_hmac_response_keys: mount.config.audit_non_hmac_response_keys.clone(),
            listing_visibility: mount.config.listing.name().to_owned(),
            local: mount.config.is_local,
        }
    }

    pub(super) fn into_mount(self, namespace: &Namespace, path: String) -> Mount {
        Mount {
            namespace: namespace.clone(),
            path,
            engine: self.engine,
            uuid: self.uuid,
            accessor: self.accessor,
            description: self.description,
            options: self.options,
            config: MountConfig {
                default_lease_ttl: Duration::from_secs(self.default_lease_ttl_seconds),
                max_lease_ttl: Duration::from_secs(self.max_lease_ttl_seconds),
                allowed_managed_keys: self.allowed_managed_keys,
                passthrough_request_headers: self.passthrough_request_headers,
                allowed_response_headers: self.allowed_response_headers,
                audit_non_hmac_request_keys: self.audit_non_hmac_request_keys,
                audit_non_hmac_response_keys: self.audit_non_hmac_response_keys,
                // One of a version to come is shown to nobody more.
                listing: Listing::from_name(&self.listing_visibility).unwrap_or_default(),
                is_local: self.local,
            },
        }
    }
}
