//! `keys/:name/config`: which versions are in use, and whether the key may be deleted.

use std::collections::HashMap;
use std::sync::Arc;

use super::Transit;
use super::key::TransitKey;
use super::keys::refuse_auto_rotation;
use crate::model::{Data, Fault, Fields, Response};
use crate::store::Write;

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

/// The key with other settings, and warnings.
fn configured(key: &TransitKey, data: &Data) -> Result<(TransitKey, Vec<String>), Fault> {
    let mut fields = Fields::below(data, &["name"]);
    let mut record = key.record.clone();
    refuse_auto_rotation(&mut fields)?;
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
    let (decryption, encryption) = (record.min_decryption_version, record.min_encryption_version);
    if encryption > 0 && decryption > encryption {
        return Err(Fault::invalid(format!(
            "cannot set min decryption version of {decryption}, min encryption version is {encryption}"
        )));
    }
    Ok((key.with_record(record), fields.warnings()))
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
