//! A Transit key: its versions, each a managed key, and which of them are in use. Vault's key document.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::crypto;
use crate::model::{Data, Fault, KeyKind, PublicKey};
use crate::store::Versioned;

/// The type all keys here have.
pub(super) const TYPE: &str = "managed_key";

/// A key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    /// Oldest first; the first is version 1.
    pub(super) versions: Vec<VersionRecord>,
    pub(super) min_decryption_version: u32,
    pub(super) min_encryption_version: u32,
    pub(super) deletion_allowed: bool,
}

/// One version of a key as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct VersionRecord {
    /// The managed key's UUID.
    pub(super) managed_key: String,
    /// Unix seconds.
    pub(super) created: i64,
    /// The public key as it was then: DER of its SubjectPublicKeyInfo, in base64.
    pub(super) public_key: String,
}

impl Versioned for KeyRecord {
    const VERSION: u16 = 1;
}

/// A key, ready for use.
#[derive(Clone, Debug)]
pub(super) struct TransitKey {
    pub(super) record: KeyRecord,
    /// The public key of each version.
    public_keys: Vec<PublicKey>,
}

/// One version of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version<'k> {
    pub(super) number: u32,
    pub(super) managed_key: &'k str,
    pub(super) public_key: &'k PublicKey,
}

impl TransitKey {
    /// A new key with its first version.
    pub(super) fn new(managed_key: &str, public_key: PublicKey) -> TransitKey {
        let version = VersionRecord {
            managed_key: managed_key.to_owned(),
            created: OffsetDateTime::now_utc().unix_timestamp(),
            public_key: STANDARD.encode(&public_key.spki),
        };
        let record = KeyRecord {
            versions: vec![version],
            min_decryption_version: 1,
            min_encryption_version: 0,
            deletion_allowed: false,
        };
        TransitKey { record, public_keys: vec![public_key] }
    }

    /// The key a record is of.
    pub(super) fn open(record: KeyRecord) -> Result<TransitKey, Fault> {
        let damaged = |_| Fault::internal("a Transit key's record holds a public key that cannot be read");
        let open =
            |version: &VersionRecord| crypto::parse_spki(&STANDARD.decode(&version.public_key).map_err(damaged)?);
        let public_keys = record.versions.iter().map(open).collect::<Result<_, _>>()?;
        Ok(TransitKey { record, public_keys })
    }

    /// The same key with other settings.
    pub(super) fn with_record(&self, record: KeyRecord) -> TransitKey {
        TransitKey { record, public_keys: self.public_keys.clone() }
    }

    /// The number of the newest version.
    pub(super) fn latest(&self) -> u32 {
        u32::try_from(self.record.versions.len()).unwrap_or(u32::MAX)
    }

    fn version(&self, number: u32) -> Option<Version<'_>> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        let managed_key = &self.record.versions.get(index)?.managed_key;
        Some(Version { number, managed_key, public_key: self.public_keys.get(index)? })
    }

    /// The version to sign with: 0 asks for the latest.
    pub(super) fn version_to_sign(&self, asked: i64) -> Result<Version<'_>, Fault> {
        let number = match asked {
            0 => self.latest(),
            below if below < 0 => return Err(Fault::invalid("requested version for signing is negative")),
            asked => u32::try_from(asked).unwrap_or(u32::MAX),
        };
        if number < self.record.min_encryption_version {
            return Err(Fault::invalid(
                "requested version for signing is less than the minimum encryption key version",
            ));
        }
        self.version(number)
            .ok_or_else(|| Fault::invalid("requested version for signing is higher than the latest key version"))
    }

    /// The version a signature names.
    pub(super) fn version_to_verify(&self, number: u32) -> Result<Version<'_>, Fault> {
        if number > self.latest() {
            return Err(Fault::invalid("invalid signature: version is too new"));
        }
        if number < self.record.min_decryption_version {
            return Err(Fault::invalid("ciphertext or signature version is disallowed by policy (too old)"));
        }
        self.version(number).ok_or_else(|| Fault::invalid("invalid signature: there is no version 0"))
    }

    /// Vault's key document. The `supports_*` members are the same for every managed key, as in Vault.
    pub(super) fn show(&self, name: &str) -> Result<Data, Fault> {
        let record = &self.record;
        let mut keys = Data::new();
        for (number, (version, public)) in (1..).zip(record.versions.iter().zip(&self.public_keys)) {
            let created = OffsetDateTime::from_unix_timestamp(version.created).ok();
            let entry = json!({
                "name": public.kind.to_string(),
                "public_key": public_text(public)?,
                "certificate_chain": "",
                "hybrid_public_key": "",
                "creation_time": created.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_default(),
                "managed_key_id": version.managed_key,
            });
            keys.insert(u32::to_string(&number), entry);
        }
        let document = json!({
            "name": name,
            "type": TYPE,
            "derived": false,
            "exportable": false,
            "allow_plaintext_backup": false,
            "deletion_allowed": record.deletion_allowed,
            "latest_version": self.latest(),
            "min_available_version": 0,
            "min_decryption_version": record.min_decryption_version,
            "min_encryption_version": record.min_encryption_version,
            "auto_rotate_period": 0,
            "imported_key": false,
            "supports_encryption": true,
            "supports_decryption": true,
            "supports_signing": true,
            "supports_derivation": false,
            "keys": keys,
        });
        document.as_object().cloned().ok_or_else(|| Fault::internal("a key document is no object"))
    }
}

/// PEM; for Ed25519 the 32 bytes in base64.
fn public_text(key: &PublicKey) -> Result<String, Fault> {
    match key.kind {
        KeyKind::Ed25519 => Ok(STANDARD.encode(crypto::subject_public_key(key)?)),
        _ => Ok(crypto::pem("PUBLIC KEY", &key.spki)),
    }
}
