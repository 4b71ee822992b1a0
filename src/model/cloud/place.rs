//! Where a cloud key is, and by whose word it is used.

use std::hash::{Hash, Hasher};
use std::path::PathBuf;

use super::CloudService;
use crate::model::Secret;

/// Most letters of an account that are shown.
const ACCOUNT_LETTERS: usize = 128;

/// One key in a cloud. Two are the same where all of it is: by other credentials it is another's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudKey {
    /// What it is called there: of AWS KMS a key id, ARN or alias.
    pub name: String,
    /// Where it is.
    pub place: CloudPlace,
    /// The URL of the service, in the place of its public one.
    pub endpoint: Option<String>,
    /// By whose word.
    pub credentials: CloudCredentials,
    /// The same key elsewhere, each without replicas of its own: as good as this one, and served beside it.
    pub replicas: Vec<CloudKey>,
}

/// Where a cloud key is, in the words of its service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CloudPlace {
    /// AWS KMS.
    Aws {
        /// Such as `eu-central-1`; `None` is where the daemon's own environment says.
        region: Option<String>,
    },
    /// Azure Key Vault, and Managed HSM.
    Azure {
        /// The name of the vault.
        vault: String,
        /// The domain of the service: `vault.azure.net`, `managedhsm.azure.net`.
        domain: String,
        /// The version of the key; `None` is the newest at first use.
        version: Option<String>,
    },
    /// Google Cloud KMS.
    Google {
        /// The project's id.
        project: String,
        /// The location, such as `europe-west1`.
        region: String,
        /// The key ring.
        key_ring: String,
        /// The version of the key.
        version: String,
        /// What its versions must be, by the service's own word.
        algorithm: &'static str,
    },
}

/// By whose word a cloud key is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloudCredentials {
    /// The daemon's own: its environment, profile, instance, pod or workload.
    Own,
    /// An access key of AWS.
    Aws {
        /// Its id.
        access_key: String,
        /// Its secret.
        secret_key: Secret,
    },
    /// An application of Microsoft Entra ID; without a secret, the daemon's own identity in this tenant.
    Azure {
        /// The tenant's id.
        tenant_id: String,
        /// The application's id. Of the daemon's own identities, which; empty is the one there is.
        client_id: String,
        /// Its secret.
        client_secret: Option<Secret>,
    },
    /// A Google credential file's contents.
    GoogleJson(Secret),
    /// The path of a Google credential file.
    GoogleFile(PathBuf),
}

impl CloudCredentials {
    /// Whether they are the daemon's own, or lie on its host: not everybody may have them.
    pub const fn are_the_daemons(&self) -> bool {
        match self {
            CloudCredentials::Own | CloudCredentials::GoogleFile(_) => true,
            CloudCredentials::Azure { client_secret, .. } => client_secret.is_none(),
            CloudCredentials::Aws { .. } | CloudCredentials::GoogleJson(_) => false,
        }
    }
}

impl CloudPlace {
    /// Whether both name one place. A version that is not named is whichever was recorded.
    fn is_named_as(&self, other: &CloudPlace) -> bool {
        match (self, other) {
            (
                CloudPlace::Azure { vault, domain, version },
                CloudPlace::Azure { vault: other_vault, domain: other_domain, version: other_version },
            ) => {
                let same_version = version.is_none() || other_version.is_none() || version == other_version;
                vault.eq_ignore_ascii_case(other_vault) && domain == other_domain && same_version
            }
            _ => self == other,
        }
    }
}

impl CloudKey {
    /// The service that has it.
    pub const fn service(&self) -> CloudService {
        match self.place {
            CloudPlace::Aws { .. } => CloudService::AwsKms,
            CloudPlace::Azure { .. } => CloudService::AzureKeyVault,
            CloudPlace::Google { .. } => CloudService::GcpCkms,
        }
    }

    /// This key and its replicas, each by itself.
    pub fn copies(&self) -> impl Iterator<Item = CloudKey> {
        let alone = CloudKey { replicas: Vec::new(), ..self.clone() };
        std::iter::once(alone).chain(self.replicas.iter().cloned())
    }

    /// Whether it, or a copy of it, is at another endpoint than the service's public one.
    pub fn is_elsewhere(&self) -> bool {
        self.endpoint.is_some() || self.replicas.iter().any(|copy| copy.endpoint.is_some())
    }

    /// Whether both name one key in the same words, whoever's word it is used by.
    pub fn is_named_as(&self, other: &CloudKey) -> bool {
        let same_name = match self.place {
            // Names there are the same in whatever case.
            CloudPlace::Azure { .. } => self.name.eq_ignore_ascii_case(&other.name),
            CloudPlace::Aws { .. } | CloudPlace::Google { .. } => self.name == other.name,
        };
        same_name && self.place.is_named_as(&other.place) && self.endpoint == other.endpoint
    }
}

/// By what is no secret; what is equal hashes alike.
impl Hash for CloudKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.place.hash(state);
        self.endpoint.hash(state);
    }
}

/// Fit for metrics and logs: it names no secret. Keys by other credentials than the daemon's own say by whose.
impl std::fmt::Display for CloudKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.whole_name())?;
        match &self.credentials {
            CloudCredentials::Own => Ok(()),
            // As AWS's own console shows access keys: enough to tell them apart.
            CloudCredentials::Aws { access_key, .. } => {
                let letters = access_key.chars().count();
                write!(f, " by …{}", access_key.chars().skip(letters.saturating_sub(4)).collect::<String>())
            }
            CloudCredentials::Azure { client_id, .. } if client_id.is_empty() => Ok(()),
            CloudCredentials::Azure { client_id, .. } => write!(f, " by {client_id}"),
            CloudCredentials::GoogleJson(json) => match google_account(json) {
                Some(account) => write!(f, " by {account}"),
                None => f.write_str(" by its own credentials"),
            },
            CloudCredentials::GoogleFile(path) => write!(f, " by {}", path.display()),
        }?;
        match self.replicas.len() {
            0 => Ok(()),
            replicas => write!(f, " and {replicas} more"),
        }
    }
}

impl CloudKey {
    /// Its name with its place, whoever's word it is used by.
    pub fn whole_name(&self) -> String {
        let name = &self.name;
        match &self.place {
            CloudPlace::Aws { region: Some(region) } if !name.starts_with(ARN) => format!("{region}/{name}"),
            CloudPlace::Aws { .. } => name.clone(),
            CloudPlace::Azure { vault, domain, version: Some(version) } => {
                format!("{vault}.{domain}/{name}/{version}")
            }
            CloudPlace::Azure { vault, domain, version: None } => format!("{vault}.{domain}/{name}"),
            CloudPlace::Google { project, region, key_ring, version, .. } => {
                format!("{project}/{region}/{key_ring}/{name}/{version}")
            }
        }
    }
}

/// What begins an ARN of AWS.
pub const ARN: &str = "arn:";

/// The region in an ARN of a key of AWS KMS, or of an alias: `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`. None where it is no such.
pub fn aws_region(name: &str) -> Option<&str> {
    let mut parts = name.strip_prefix(ARN)?.splitn(5, ':').skip(1);
    let (service, region, account, key) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_key = key.strip_prefix("key/").or(key.strip_prefix("alias/")).is_some_and(|id| !id.is_empty());
    (service == "kms" && !region.is_empty() && !account.is_empty() && is_key).then_some(region)
}

/// The service account of a credential file, as far as it is fit to be shown.
pub fn google_account(json: &Secret) -> Option<String> {
    let json: serde_json::Value = serde_json::from_slice(json.expose()).ok()?;
    let account = json.get("client_email")?.as_str()?;
    let shown = |c: &char| c.is_ascii_alphanumeric() || "-_.@".contains(*c);
    Some(account.chars().filter(shown).take(ACCOUNT_LETTERS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region() {
        assert_eq!(aws_region("arn:aws:kms:eu-west-1:111122223333:key/1234"), Some("eu-west-1"));
        assert_eq!(aws_region("arn:aws-cn:kms:cn-north-1:1:alias/a"), Some("cn-north-1"));
        for other in ["alias/arn", "1234", "arn:aws:kms", "arn:aws:kms::1:key/2", "mrk-1234"] {
            assert_eq!(aws_region(other), None, "{other}");
        }
    }
}
