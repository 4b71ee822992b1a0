//! `keys/:name/config`: which versions are in use, when the next is made, and whether the key may be deleted. `config/keys`: whether encryption
//! makes keys. `cache-config`: kept for Vault's clients.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::key::TransitKey;
use super::{Transit, auto_rotate};
use crate::model::{Data, Fault, Fields, Response};
use crate::store::{Versioned, Write};

impl Transit {
    /// `POST keys/:name/config`.
    pub(super) async fn configure_key(self: Arc<Self>, name: String, data: Data) -> Result<Response, Fault> {
        self.change(move |transit| {
            let mut table = HashMap::clone(&transit.table.load());
            let key = table
                .get(&name)
                .ok_or_else(|| Fault::invalid(format!("no existing key named {name} could be found")))?;
            let (key, warnings) = configured(key, &data)?;
            transit.store.commit_now(vec![Write::put_record(transit.records.key(&name), &key.record)?])?;
            let shown = key.show(&name)?;
            table.insert(name, Arc::new(key));
            transit.table.store(Arc::new(table));
            Ok(Response::with_warnings(shown, warnings))
        })
        .await
    }
}

/// What `config/keys` says, as it is stored: whether encrypting with a key that is not there makes it, on a mount that makes
/// keys.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct KeysConfig {
    disable_upsert: bool,
}

impl Versioned for KeysConfig {
    const VERSION: u16 = 1;
}

impl Transit {
    /// `GET config/keys`.
    pub(super) async fn read_keys_config(self: Arc<Self>) -> Result<Response, Fault> {
        self.change(|transit| {
            let mut data = Data::new();
            data.insert("disable_upsert".into(), transit.keys_config()?.disable_upsert.into());
            Ok(Response::data(data))
        })
        .await
    }

    /// Whether encrypting never makes a key.
    pub(super) async fn upsert_disabled(self: Arc<Self>) -> Result<bool, Fault> {
        self.change(|transit| Ok(transit.keys_config()?.disable_upsert)).await
    }

    fn keys_config(&self) -> Result<KeysConfig, Fault> {
        let key = self.records.keys_config();
        let record = self.store.get(&key)?;
        Ok(record.map(|record| record.decode::<KeysConfig>(&key)).transpose()?.unwrap_or_default())
    }

    /// `POST config/keys`.
    pub(super) async fn write_keys_config(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let disable_upsert = fields.boolean("disable_upsert")?.unwrap_or(false);
        let warnings = fields.warnings();
        self.change(move |transit| {
            let config = KeysConfig { disable_upsert };
            transit.store.commit_now(vec![Write::put_record(transit.records.keys_config(), &config)?])?;
            let mut data = Data::new();
            data.insert("disable_upsert".into(), disable_upsert.into());
            Ok(Response::with_warnings(data, warnings))
        })
        .await
    }
}

/// The fewest keys of a cache that has a bound, in Vault.
const CACHE_MIN: u64 = 10;

/// What `cache-config` says, as it is stored.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct CacheConfig {
    size: u64,
}

impl Versioned for CacheConfig {
    const VERSION: u16 = 1;
}

impl CacheConfig {
    fn show(&self) -> Data {
        let mut data = Data::new();
        data.insert("size".into(), self.size.into());
        data
    }
}

impl Transit {
    /// `GET cache-config`.
    pub(super) async fn read_cache_config(self: Arc<Self>) -> Result<Response, Fault> {
        self.change(|transit| {
            let key = transit.records.cache_config();
            let record = transit.store.get(&key)?;
            let config = record.map(|record| record.decode::<CacheConfig>(&key)).transpose()?.unwrap_or_default();
            Ok(Response::data(config.show()))
        })
        .await
    }

    /// `POST cache-config`.
    pub(super) async fn write_cache_config(self: Arc<Self>, data: Data) -> Result<Response, Fault> {
        let mut fields = Fields::new(&data);
        let asked = fields.integer("size")?.unwrap_or(0);
        let size = u64::try_from(asked).ok().filter(|size| *size == 0 || *size >= CACHE_MIN);
        let too_small = || Fault::invalid(format!("size must be 0 or a value greater or equal to {CACHE_MIN}"));
        let config = CacheConfig { size: size.ok_or_else(too_small)? };
        let mut warnings = fields.warnings();
        warnings.push("nothing is cached, whatever the size: keys are in their tokens, and never leave them".into());
        self.change(move |transit| {
            transit.store.commit_now(vec![Write::put_record(transit.records.cache_config(), &config)?])?;
            Ok(Response::with_warnings(config.show(), warnings))
        })
        .await
    }
}

/// The key with other settings, and warnings.
fn configured(key: &TransitKey, data: &Data) -> Result<(TransitKey, Vec<String>), Fault> {
    let mut fields = Fields::below(data, &["name"]);
    let mut record = key.record.clone();
    if let Some(seconds) = auto_rotate::period(&mut fields, record.own.as_ref())? {
        record.auto_rotate_seconds = seconds;
    }
    fields.refuse(&["exportable", "allow_plaintext_backup"])?;
    if let Some(version) = version(&mut fields, "min_decryption_version", "min decryption version", key)? {
        // Versions are counted from 1; Vault takes 0 for it.
        record.min_decryption_version = version.max(1);
    }
    if let Some(version) = version(&mut fields, "min_encryption_version", "min encryption version", key)? {
        record.min_encryption_version = version;
    }
    if let Some(allowed) = fields.boolean("deletion_allowed")? {
        record.deletion_allowed = allowed;
    }
    let available = record.min_available_version;
    if record.min_decryption_version < available {
        return Err(Fault::invalid("min decryption version should not be less than min available version"));
    }
    if record.min_encryption_version < available {
        return Err(Fault::invalid("min encryption version should not be less than min available version"));
    }
    let (decryption, encryption) = (record.min_decryption_version, record.min_encryption_version);
    if encryption > 0 && decryption > encryption {
        return Err(Fault::invalid(format!(
            "cannot set min decryption version of {decryption}, min encryption version is {encryption}"
        )));
    }
    Ok((TransitKey::open(record)?, fields.warnings()))
}

fn version(fields: &mut Fields<'_>, name: &'static str, title: &str, key: &TransitKey) -> Result<Option<u32>, Fault> {
    let Some(version) = fields.integer(name)? else { return Ok(None) };
    if version < 0 {
        return Err(Fault::invalid(format!("{title} cannot be negative")));
    }
    match u32::try_from(version) {
        Ok(number) if number <= key.latest() => Ok(Some(number)),
        _ => Err(Fault::invalid(format!("cannot set {title} of {version}, latest key version is {}", key.latest()))),
    }
}
