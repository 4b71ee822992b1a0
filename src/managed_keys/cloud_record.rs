//! How the place, kind and credentials of a key in a cloud are stored.

use serde::{Deserialize, Serialize};

use super::cloud::{Cloud, cipher_name};
use super::secret_record::SecretRecord;
use crate::model::{CipherScheme, CloudCredentials, CloudKey, CloudKind, CloudPlace, CloudService, CloudUse, Fault};

/// One key. Encrypted by the barrier like every record: the secrets in it are as safe as the store.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct CloudRecord {
    service: String,
    /// What it is: the service's own word, and what it is for.
    native: String,
    does: Use,
    #[serde(default)]
    envelope: bool,
    /// The usual way of encryption.
    #[serde(default)]
    cipher: Option<String>,
    name: String,
    place: PlaceRecord,
    endpoint: Option<String>,
    credentials: CredentialsRecord,
    /// The same key elsewhere, by the same word.
    #[serde(default)]
    replicas: Vec<CopyRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
struct CopyRecord {
    name: String,
    place: PlaceRecord,
    endpoint: Option<String>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Use {
    Sign,
    Decrypt,
    Mac,
    SignOrDecrypt,
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
    Azure { tenant_id: String, client_id: String, client_secret: Option<SecretRecord> },
    GoogleJson(SecretRecord),
    GoogleFile(std::path::PathBuf),
}

impl PlaceRecord {
    fn of(place: CloudPlace) -> PlaceRecord {
        match place {
            CloudPlace::Aws { region } => PlaceRecord::Aws { region },
            CloudPlace::Azure { vault, domain, version } => PlaceRecord::Azure { vault, domain, version },
            CloudPlace::Google { project, region, key_ring, version, .. } => {
                PlaceRecord::Google { project, region, key_ring, version }
            }
        }
    }

    fn open(self, kind: &'static CloudKind) -> CloudPlace {
        match self {
            PlaceRecord::Aws { region } => CloudPlace::Aws { region },
            PlaceRecord::Azure { vault, domain, version } => CloudPlace::Azure { vault, domain, version },
            PlaceRecord::Google { project, region, key_ring, version } => {
                CloudPlace::Google { project, region, key_ring, version, algorithm: kind.native }
            }
        }
    }
}

impl CopyRecord {
    fn of(key: &CloudKey) -> CopyRecord {
        let (name, place) = (key.name.clone(), PlaceRecord::of(key.place.clone()));
        CopyRecord { name, place, endpoint: key.endpoint.clone() }
    }

    fn open(&self, of: &CloudKey, kind: &'static CloudKind) -> CloudKey {
        let (name, place, endpoint) = (self.name.clone(), self.place.clone().open(kind), self.endpoint.clone());
        CloudKey { name, place, endpoint, credentials: of.credentials.clone(), replicas: Vec::new() }
    }
}

impl CloudRecord {
    pub(super) fn of(key: &CloudKey, cloud: &Cloud) -> CloudRecord {
        let kind = cloud.kind;
        CloudRecord {
            service: key.service().name().to_owned(),
            native: kind.native.to_owned(),
            envelope: cloud.envelope,
            cipher: cloud.cipher.map(|scheme| cipher_name(scheme).to_owned()),
            does: match kind.does {
                CloudUse::Sign => Use::Sign,
                CloudUse::Decrypt => Use::Decrypt,
                CloudUse::Mac => Use::Mac,
                CloudUse::SignOrDecrypt => Use::SignOrDecrypt,
            },
            name: key.name.clone(),
            place: PlaceRecord::of(key.place.clone()),
            replicas: key.replicas.iter().map(CopyRecord::of).collect(),
            endpoint: key.endpoint.clone(),
            credentials: match &key.credentials {
                CloudCredentials::Own => CredentialsRecord::Own,
                CloudCredentials::Aws { access_key, secret_key } => {
                    CredentialsRecord::Aws { access_key: access_key.clone(), secret_key: SecretRecord::of(secret_key) }
                }
                CloudCredentials::Azure { tenant_id, client_id, client_secret } => CredentialsRecord::Azure {
                    tenant_id: tenant_id.clone(),
                    client_id: client_id.clone(),
                    client_secret: client_secret.as_ref().map(SecretRecord::of),
                },
                CloudCredentials::GoogleJson(json) => CredentialsRecord::GoogleJson(SecretRecord::of(json)),
                CloudCredentials::GoogleFile(path) => CredentialsRecord::GoogleFile(path.clone()),
            },
        }
    }

    pub(super) fn open(&self) -> Result<(CloudKey, Cloud), Fault> {
        let does = match self.does {
            Use::Sign => CloudUse::Sign,
            Use::Decrypt => CloudUse::Decrypt,
            Use::Mac => CloudUse::Mac,
            Use::SignOrDecrypt => CloudUse::SignOrDecrypt,
        };
        let service = CloudService::from_name(&self.service);
        let mut kinds = service.map_or(&[][..], CloudService::kinds).iter();
        let kind = kinds.find(|kind| kind.native == self.native && kind.does == does);
        let kind = kind.ok_or_else(|| unknown(format!("it is of kind {:?} of {:?}", self.native, self.service)))?;
        let credentials = match &self.credentials {
            CredentialsRecord::Own => CloudCredentials::Own,
            CredentialsRecord::Aws { access_key, secret_key } => CloudCredentials::Aws {
                access_key: access_key.clone(),
                secret_key: secret_key.open().unwrap_or_default(),
            },
            CredentialsRecord::Azure { tenant_id, client_id, client_secret } => CloudCredentials::Azure {
                tenant_id: tenant_id.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.as_ref().and_then(SecretRecord::open),
            },
            CredentialsRecord::GoogleJson(json) => CloudCredentials::GoogleJson(json.open().unwrap_or_default()),
            CredentialsRecord::GoogleFile(path) => CloudCredentials::GoogleFile(path.clone()),
        };
        let (name, place, endpoint) = (self.name.clone(), self.place.clone().open(kind), self.endpoint.clone());
        let mut key = CloudKey { name, place, endpoint, credentials, replicas: Vec::new() };
        key.replicas = self.replicas.iter().map(|copy| copy.open(&key, kind)).collect();
        let cipher = self.cipher.as_deref().map(|name| usual(kind, name)).transpose()?;
        Ok((key, Cloud { kind, envelope: self.envelope, cipher }))
    }
}

/// The way of encryption of this name. In another one, what was encrypted would not decrypt, and what is would not elsewhere.
fn usual(kind: &CloudKind, name: &str) -> Result<CipherScheme, Fault> {
    let known = kind.decrypts.iter().map(|(scheme, _)| *scheme).find(|scheme| cipher_name(*scheme) == name);
    known.ok_or_else(|| unknown(format!("it encrypts by {name:?}, being of kind {:?}", kind.native)))
}

/// That a record says what this build does not know.
pub(super) fn unknown(what: String) -> Fault {
    let what = format!("{what}, which this Keyway does not know: run the version that wrote it, or a newer one");
    Fault::Unavailable { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Hash, KeyKind};

    #[test]
    fn what_another_version_wrote_is_not_taken_for_something_else() {
        let kind = CloudService::AwsKms
            .kinds()
            .iter()
            .find(|kind| kind.native == "RSA_2048" && kind.does == CloudUse::Decrypt);
        let kind = kind.unwrap();
        assert_eq!(kind.kind, KeyKind::Rsa { bits: 2048 });
        let place = CloudPlace::Aws { region: None };
        let (name, credentials) = ("alias/k".to_owned(), CloudCredentials::Own);
        let key = CloudKey { name, place, endpoint: None, credentials, replicas: Vec::new() };
        let cipher = Some(CipherScheme::RsaOaep { hash: Hash::Sha1 });
        let record = CloudRecord::of(&key, &Cloud { kind, envelope: false, cipher });
        assert_eq!(record.open().map(|(_, cloud)| cloud.cipher), Ok(cipher));
        let none = CloudRecord { cipher: None, ..record.clone() };
        assert_eq!(none.open().map(|(_, cloud)| cloud.cipher), Ok(None));
        let mut newer = [record.clone(), record];
        newer[0].cipher = Some("sha3-256".into());
        newer[1].native = "RSA_16384".into();
        for record in newer {
            let Err(Fault::Unavailable { what }) = record.open().map(drop) else { panic!("it was opened") };
            assert!(what.contains("does not know: run the version that wrote it"), "{what}");
        }
    }
}
