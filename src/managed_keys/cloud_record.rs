//! How the place, kind and credentials of a key in a cloud are stored.

use serde::{Deserialize, Serialize};

use super::secret_record::SecretRecord;
use crate::model::{CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, CloudUse, Fault};

/// One key. Encrypted by the barrier like every record: the secrets in it are as safe as the store.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CloudRecord {
    service: String,
    /// What it is: the service's own word, and what it is for.
    native: String,
    does: Use,
    name: String,
    place: PlaceRecord,
    endpoint: Option<String>,
    credentials: CredentialsRecord,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Use {
    Sign,
    Decrypt,
    Mac,
}

#[derive(Clone, Serialize, Deserialize)]
enum PlaceRecord {
    Aws { region: Option<String> },
    Azure { vault: String, domain: String, version: Option<String> },
    Google { project: String, region: String, key_ring: String, version: String },
}

#[derive(Clone, Serialize, Deserialize)]
enum CredentialsRecord {
    Own,
    Aws { access_key: String, secret_key: SecretRecord },
    Azure { tenant_id: String, client_id: String, client_secret: SecretRecord },
    GoogleJson(SecretRecord),
    GoogleFile(std::path::PathBuf),
}

impl CloudRecord {
    pub(super) fn of(key: &CloudKey, kind: &CloudKind) -> CloudRecord {
        CloudRecord {
            service: key.service().name().to_owned(),
            native: kind.native.to_owned(),
            does: match kind.does {
                CloudUse::Sign => Use::Sign,
                CloudUse::Decrypt => Use::Decrypt,
                CloudUse::Mac => Use::Mac,
            },
            name: key.name.clone(),
            place: match key.place.clone() {
                CloudPlace::Aws { region } => PlaceRecord::Aws { region },
                CloudPlace::Azure { vault, domain, version } => PlaceRecord::Azure { vault, domain, version },
                CloudPlace::Google { project, region, key_ring, version } => {
                    PlaceRecord::Google { project, region, key_ring, version }
                }
            },
            endpoint: key.endpoint.clone(),
            credentials: match &key.credentials {
                CloudCredentials::Own => CredentialsRecord::Own,
                CloudCredentials::Aws { access_key, secret_key } => {
                    CredentialsRecord::Aws { access_key: access_key.clone(), secret_key: SecretRecord::of(secret_key) }
                }
                CloudCredentials::Azure { tenant_id, client_id, client_secret } => CredentialsRecord::Azure {
                    tenant_id: tenant_id.clone(),
                    client_id: client_id.clone(),
                    client_secret: SecretRecord::of(client_secret),
                },
                CloudCredentials::GoogleJson(json) => CredentialsRecord::GoogleJson(SecretRecord::of(json)),
                CloudCredentials::GoogleFile(path) => CredentialsRecord::GoogleFile(path.clone()),
            },
        }
    }

    pub(super) fn open(&self) -> Result<(CloudKey, &'static CloudKind), Fault> {
        let does = match self.does {
            Use::Sign => CloudUse::Sign,
            Use::Decrypt => CloudUse::Decrypt,
            Use::Mac => CloudUse::Mac,
        };
        let service = CloudService::from_name(&self.service);
        let mut kinds = service.map_or(&[][..], CloudService::kinds).iter();
        let kind = kinds.find(|kind| kind.native == self.native && kind.does == does);
        let kind = kind.ok_or_else(|| Fault::internal("a managed key in a cloud is of a kind that is not known"))?;
        let place = match self.place.clone() {
            PlaceRecord::Aws { region } => CloudPlace::Aws { region },
            PlaceRecord::Azure { vault, domain, version } => CloudPlace::Azure { vault, domain, version },
            PlaceRecord::Google { project, region, key_ring, version } => {
                CloudPlace::Google { project, region, key_ring, version }
            }
        };
        let credentials = match &self.credentials {
            CredentialsRecord::Own => CloudCredentials::Own,
            CredentialsRecord::Aws { access_key, secret_key } => CloudCredentials::Aws {
                access_key: access_key.clone(),
                secret_key: secret_key.open().unwrap_or_default(),
            },
            CredentialsRecord::Azure { tenant_id, client_id, client_secret } => CloudCredentials::Azure {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.open().unwrap_or_default(),
            },
            CredentialsRecord::GoogleJson(json) => CloudCredentials::GoogleJson(json.open().unwrap_or_default()),
            CredentialsRecord::GoogleFile(path) => CloudCredentials::GoogleFile(path.clone()),
        };
        Ok((CloudKey { name: self.name.clone(), place, endpoint: self.endpoint.clone(), credentials }, kind))
    }
}
