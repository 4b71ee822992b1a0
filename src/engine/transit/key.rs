//! A Transit key: its versions, each a managed key, and which of them are in use. Vault's key document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::certificate::chain_text;
use super::own_type::OwnType;
use crate::crypto;
use crate::managed_keys::Handle;
use crate::model::{Data, Fault, KeyIdentity, KeyKind, PublicKey};
use crate::store::Versioned;

/// The type of the keys whose managed keys an operator registers.
pub(super) const TYPE: &str = "managed_key";

/// A key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// Oldest first; the first is version 1, and those that were trimmed are gone.
    pub(super) versions: Vec<VersionRecord>,
    pub(super) min_decryption_version: u32,
    pub(super) min_encryption_version: u32,
    pub(super) deletion_allowed: bool,
    /// Versions below are gone; 0 where none was ever trimmed.
    #[serde(default)]
    pub(super) min_available_version: u32,
    /// The type of a key whose versions the mount makes itself; `None` where each is a managed key that a request named.
    #[serde(default)]
    pub(super) own: Option<OwnType>,
    /// How old the newest version becomes before the next is made; 0 where a request alone makes one.
    #[serde(default)]
    pub(super) auto_rotate_seconds: u64,
}

/// One version of a key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    /// The managed key's UUID.
    pub(super) managed_key: String,
    /// Unix seconds.
    pub(super) created: i64,
    /// The public key as it was then: DER of its SubjectPublicKeyInfo, in base64. Empty for a secret key.
    pub(super) public_key: String,
    /// What a secret key is, for the key document.
    #[serde(default)]
    pub(super) secret: Option<String>,
    /// The hash of OAEP with this version, by the name that managed keys have for it: what was encrypted decrypts with no other.
    #[serde(default)]
    pub(super) oaep_hash: Option<String>,
    /// The certificate of its public key and those above it: DER, in base64.
    #[serde(default)]
    pub(super) certificate_chain: Vec<String>,
}

impl Versioned for KeyRecord {
    const VERSION: u16 = 1;
}

impl KeyRecord {
    /// The number of the newest version.
    pub(super) fn latest(&self) -> u32 {
        self.oldest() + u32::try_from(self.versions.len()).unwrap_or(u32::MAX) - 1
    }

    /// The number of the oldest version there is.
    pub(super) fn oldest(&self) -> u32 {
        self.min_available_version.max(1)
    }

    /// The type, by Vault's name.
    pub(super) fn type_name(&self) -> &str {
        self.own.as_ref().map_or(TYPE, OwnType::name)
    }

    /// Each version with its number.
    pub(super) fn numbered(&self) -> impl Iterator<Item = (u32, &VersionRecord)> {
        (self.oldest()..).zip(&self.versions)
    }
}

impl VersionRecord {
    /// A new version, of this managed key.
    pub(super) fn new(managed_key: &Handle, identity: &KeyIdentity) -> VersionRecord {
        VersionRecord {
            managed_key: managed_key.uuid().to_owned(),
            created: OffsetDateTime::now_utc().unix_timestamp(),
            public_key: identity.public().map(|public| STANDARD.encode(&public.spki)).unwrap_or_default(),
            secret: identity.kind().is_secret().then(|| identity.kind().to_string()),
            oaep_hash: managed_key.oaep_hash().map(str::to_owned),
            certificate_chain: Vec::new(),
        }
    }

    fn public(&self) -> Result<Option<PublicKey>, Fault> {
        if self.secret.is_some() {
            return Ok(None);
        }
        let damaged = |_| Fault::internal("a Transit key's record holds a public key that cannot be read");
        crypto::parse_spki(&STANDARD.decode(&self.public_key).map_err(damaged)?).map(Some)
    }
}

/// A key, ready for use.
#[derive(Clone, Debug)]
pub(super) struct TransitKey {
    pub(super) record: KeyRecord,
    /// The public key of each version that has one.
    public_keys: Vec<Option<PublicKey>>,
}

/// One version of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version<'k> {
    pub(super) number: u32,
    pub(super) managed_key: &'k str,
    public_key: Option<&'k PublicKey>,
}

impl<'k> Version<'k> {
    /// Its public key; a secret key has none.
    pub(super) fn public_key(&self) -> Result<&'k PublicKey, Fault> {
        self.public_key.ok_or_else(|| Fault::NotSupported {
            what: format!(
                "this with version {} of the key, which is a secret key and makes no signatures",
                self.number
            ),
        })
    }

    pub(super) fn has_public_key(&self) -> bool {
        self.public_key.is_some()
    }
}

impl TransitKey {
    /// A new key with its first version.
    pub(super) fn new(
        managed_key: &Handle,
        identity: &KeyIdentity,
        own: Option<OwnType>,
        auto_rotate_seconds: u64,
    ) -> Result<TransitKey, Fault> {
        TransitKey::open(KeyRecord {
            versions: vec![VersionRecord::new(managed_key, identity)],
            min_decryption_version: 1,
            min_encryption_version: 0,
            deletion_allowed: false,
            min_available_version: 0,
            own,
            auto_rotate_seconds,
        })
    }

    /// The key a record is of.
    pub(super) fn open(record: KeyRecord) -> Result<TransitKey, Fault> {
        let public_keys = record.versions.iter().map(VersionRecord::public).collect::<Result<_, _>>()?;
        Ok(TransitKey { record, public_keys })
    }

    /// The number of the newest version.
    pub(super) fn latest(&self) -> u32 {
        self.record.latest()
    }

    /// The version of this number, whatever it may be used for.
    pub(super) fn version(&self, number: u32) -> Option<Version<'_>> {
        let index = usize::try_from(number.checked_sub(self.record.oldest())?).ok()?;
        let managed_key = &self.record.versions.get(index)?.managed_key;
        Some(Version { number, managed_key, public_key: self.public_keys.get(index)?.as_ref() })
    }

    /// The version to sign, or encrypt, with: 0 asks for the latest. `deed` is `signing` or `encryption`.
    pub(super) fn version_to_make(&self, asked: i64, deed: &str) -> Result<Version<'_>, Fault> {
        let refused = |why: &str| Fault::invalid(format!("requested version for {deed} is {why}"));
        let number = match asked {
            0 => self.latest(),
            below if below < 0 => return Err(refused("negative")),
            asked => u32::try_from(asked).unwrap_or(u32::MAX),
        };
        if number < self.record.min_encryption_version {
            return Err(refused("less than the minimum encryption key version"));
        }
        if number < self.record.oldest() {
            return Err(refused("less than the minimum available key version"));
        }
        self.version(number).ok_or_else(|| refused("higher than the latest key version"))
    }

    /// The version a value names: a `signature` or a `ciphertext`. Vault takes version 0 of a ciphertext for the first.
    pub(super) fn version_to_read(&self, number: u32, value: &str) -> Result<Version<'_>, Fault> {
        if number > self.latest() {
            return Err(Fault::invalid(format!("invalid {value}: version is too new")));
        }
        if number < self.record.min_decryption_version {
            return Err(Fault::invalid("ciphertext or signature version is disallowed by policy (too old)"));
        }
        self.version(number).ok_or_else(|| Fault::invalid(format!("invalid {value}: there is no version {number}")))
    }

    /// Vault's key document. The `supports_*` members are the same for every key of type `managed_key`, as in Vault. A secret key
    /// that the mount made is told by its time alone, as clients expect it of their type.
    pub(super) fn show(&self, name: &str) -> Result<Data, Fault> {
        let record = &self.record;
        let mut keys = Data::new();
        for ((number, version), public) in record.numbered().zip(&self.public_keys) {
            let created = OffsetDateTime::from_unix_timestamp(version.created).ok();
            if record.own.is_some() && public.is_none() {
                keys.insert(u32::to_string(&number), version.created.into());
                continue;
            }
            let name = public.as_ref().map(|public| public.kind.to_string());
            let mut entry = json!({
                "name": name.or_else(|| version.secret.clone()).unwrap_or_default(),
                "public_key": public.as_ref().map(public_text).transpose()?.unwrap_or_default(),
                "certificate_chain": chain_text(&version.certificate_chain)?,
                "hybrid_public_key": "",
                "creation_time": created.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
                "managed_key_id": version.managed_key,
            });
            if let (Some(hash), Some(entry)) = (&version.oaep_hash, entry.as_object_mut()) {
                entry.insert("rsa_oaep_hash".into(), hash.as_str().into());
            }
            keys.insert(u32::to_string(&number), entry);
        }
        let (encrypts, signs) = record.own.as_ref().map_or((true, true), OwnType::supports);
        let document = json!({
            "name": name,
            "type": record.type_name(),
            "derived": false,
            "exportable": false,
            "allow_plaintext_backup": false,
            "deletion_allowed": record.deletion_allowed,
            "latest_version": self.latest(),
            "min_available_version": record.min_available_version,
            "min_decryption_version": record.min_decryption_version,
            "min_encryption_version": record.min_encryption_version,
            "auto_rotate_period": record.auto_rotate_seconds,
            "imported_key": false,
            "supports_encryption": encrypts,
            "supports_decryption": encrypts,
            "supports_signing": signs,
            "supports_derivation": false,
            "keys": keys,
        });
        let mut document =
            document.as_object().cloned().ok_or_else(|| Fault::internal("a key document is no object"))?;
        if let Some(own) = &record.own {
            own.add_to(&mut document);
        }
        Ok(document)
    }
}

/// PEM; for Ed25519 the 32 bytes in base64.
pub(super) fn public_text(key: &PublicKey) -> Result<String, Fault> {
    match key.kind {
        KeyKind::Ed25519 => Ok(STANDARD.encode(crypto::subject_public_key(key)?)),
        _ => Ok(crypto::pem("PUBLIC KEY", &key.spki)),
    }
}
