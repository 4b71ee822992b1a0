//! A vault: keys with their versions, and those that were deleted and can still be had back.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::error::Error;
use super::kind::{Kty, jwk};
use super::place::Vault as Address;
use crate::keys::Key;

/// How long a deleted key can be had back.
const RECOVERABLE_DAYS: i64 = 7;
/// Versions of one key, and keys of one vault.
const MOST: usize = 10_000;

/// A key with its versions, the latest last.
#[derive(Clone, Default)]
pub(super) struct Entry {
    versions: Vec<Version>,
}

/// A version of a key.
#[derive(Clone)]
pub(super) struct Version {
    pub(super) id: String,
    pub(super) kty: Kty,
    pub(super) key: Arc<Key>,
    pub(super) operations: Vec<String>,
    pub(super) attributes: Attributes,
    pub(super) tags: Value,
}

/// Times are in seconds of Unix time.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Attributes {
    pub(super) disabled: bool,
    pub(super) not_before: Option<i64>,
    pub(super) expires: Option<i64>,
    pub(super) created: i64,
    pub(super) updated: i64,
}

#[derive(Default)]
pub(super) struct Vault {
    keys: BTreeMap<String, Entry>,
    /// Each with the time of its deletion.
    deleted: BTreeMap<String, (Entry, i64)>,
}

impl Attributes {
    /// As the body of a request has them, over what is there.
    pub(super) fn with(mut self, body: &Value) -> Attributes {
        let given = &body["attributes"];
        if let Some(enabled) = given["enabled"].as_bool() {
            self.disabled = !enabled;
        }
        self.not_before = given["nbf"].as_i64().or(self.not_before);
        self.expires = given["exp"].as_i64().or(self.expires);
        self
    }

    /// Whether a key may be used for an operation now.
    pub(super) fn allow(&self, operation: &str, now: i64) -> Result<(), Error> {
        let public = matches!(operation, "verify" | "encrypt" | "wrapkey");
        let backward = matches!(operation, "verify" | "decrypt" | "unwrapkey");
        if self.disabled && !public {
            return Err(Error::disabled(operation));
        }
        if self.expires.is_some_and(|expires| expires <= now) && !backward {
            return Err(Error::expired(operation));
        }
        if self.not_before.is_some_and(|begins| begins > now) && !backward {
            return Err(Error::not_yet_valid(operation));
        }
        Ok(())
    }

    fn json(&self, kty: Kty) -> Value {
        let mut attributes = json!({
            "enabled": !self.disabled,
            "created": self.created,
            "updated": self.updated,
            "recoveryLevel": "CustomizedRecoverable+Purgeable",
            "recoverableDays": RECOVERABLE_DAYS,
            "exportable": false,
        });
        if let Some(begins) = self.not_before {
            attributes["nbf"] = begins.into();
        }
        if let Some(expires) = self.expires {
            attributes["exp"] = expires.into();
        }
        if kty.name().ends_with("-HSM") {
            attributes["hsmPlatform"] = "2".into();
        }
        attributes
    }
}

impl Version {
    /// Azure's key bundle.
    pub(super) fn bundle(&self, address: &Address, name: &str) -> Value {
        let mut key = jwk(self.kty, &self.key);
        key.insert("kid".into(), address.kid(name, Some(&self.id)).into());
        key.insert("key_ops".into(), json!(self.operations));
        let mut bundle = json!({"key": key, "attributes": self.attributes.json(self.kty)});
        if !self.tags.is_null() {
            bundle["tags"] = self.tags.clone();
        }
        bundle
    }

    fn item(&self, kid: String) -> Value {
        let mut item = json!({"kid": kid, "attributes": self.attributes.json(self.kty)});
        if !self.tags.is_null() {
            item["tags"] = self.tags.clone();
        }
        item
    }
}

impl Vault {
    /// Whether a key of this name can be made.
    pub(super) fn free(&self, name: &str) -> Result<(), Error> {
        let good =
            (1..=127).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if !good {
            return Err(Error::bad(format!("The request URI contains an invalid name: {name}")));
        }
        if self.deleted.contains_key(&key(name)) {
            return Err(Error::name_in_use(name));
        }
        let versions = self.keys.get(&key(name)).map_or(0, |entry| entry.versions.len());
        if self.keys.len() >= MOST || versions >= MOST {
            return Err(Error::new(403, "Forbidden", "The vault has too many keys."));
        }
        Ok(())
    }

    /// Adds a version of a key, or a key.
    pub(super) fn add(&mut self, name: &str, version: Version) -> Result<(), Error> {
        self.free(name)?;
        self.keys.entry(key(name)).or_default().versions.push(version);
        Ok(())
    }

    /// A version of a key, the latest if none is named.
    pub(super) fn version(&mut self, name: &str, id: Option<&str>) -> Result<&mut Version, Error> {
        let versions = self.keys.get_mut(&key(name)).map(|entry| &mut entry.versions);
        let found = versions.and_then(|versions| match id {
            Some(id) => versions.iter_mut().find(|version| version.id == id),
            None => versions.last_mut(),
        });
        found.ok_or_else(|| match id {
            Some(id) => Error::not_found(&format!("{name}/{id}")),
            None => Error::not_found(name),
        })
    }

    /// Every key, by the latest version, after the one that a page before ended with.
    pub(super) fn list(&self, address: &Address, after: Option<&str>, most: usize) -> Page {
        let later = self.keys.iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let items = later
            .filter_map(|(name, entry)| Some((name.clone(), entry.versions.last()?.item(address.kid(name, None)))));
        Page::of(items, most)
    }

    /// Every version of a key.
    pub(super) fn versions(&self, address: &Address, name: &str, after: Option<&str>, most: usize) -> Page {
        let none = Vec::new();
        let versions = self.keys.get(&key(name)).map_or(&none, |entry| &entry.versions);
        let mut sorted: Vec<&Version> = versions.iter().collect();
        sorted.sort_by(|one, other| one.id.cmp(&other.id));
        let later = sorted.into_iter().filter(|version| after.is_none_or(|after| version.id.as_str() > after));
        let items = later.map(|version| (version.id.clone(), version.item(address.kid(name, Some(&version.id)))));
        Page::of(items, most)
    }

    pub(super) fn deleted_keys(&self, address: &Address, after: Option<&str>, most: usize) -> Page {
        let later = self.deleted.iter().filter(|(name, _)| after.is_none_or(|after| name.as_str() > after));
        let items = later.filter_map(|(name, (entry, at))| {
            let item = entry.versions.last()?.item(address.kid(name, None));
            Some((name.clone(), with_deletion(item, address, name, *at)))
        });
        Page::of(items, most)
    }

    pub(super) fn delete(&mut self, address: &Address, name: &str, now: i64) -> Result<Value, Error> {
        let entry = self.keys.remove(&key(name)).ok_or_else(|| Error::not_found(name))?;
        self.deleted.insert(key(name), (entry, now));
        self.deleted(address, name)
    }

    pub(super) fn deleted(&self, address: &Address, name: &str) -> Result<Value, Error> {
        let found = self.deleted.get(&key(name)).and_then(|(entry, at)| Some((entry.versions.last()?, *at)));
        let (version, at) = found.ok_or_else(|| Error::deleted_not_found(name))?;
        Ok(with_deletion(version.bundle(address, name), address, name, at))
    }

    /// A key that is there, as one that was deleted now.
    pub(super) fn as_deleted(&mut self, address: &Address, name: &str, now: i64) -> Result<Value, Error> {
        let bundle = self.version(name, None)?.bundle(address, name);
        Ok(with_deletion(bundle, address, name, now))
    }

    pub(super) fn recover(&mut self, address: &Address, name: &str) -> Result<Value, Error> {
        let (entry, _) = self.deleted.remove(&key(name)).ok_or_else(|| Error::deleted_not_found(name))?;
        self.keys.insert(key(name), entry);
        Ok(self.version(name, None)?.bundle(address, name))
    }

    pub(super) fn purge(&mut self, name: &str) -> Result<(), Error> {
        self.deleted.remove(&key(name)).map(drop).ok_or_else(|| Error::deleted_not_found(name))
    }
}

/// Names are the same in capitals.
fn key(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn with_deletion(mut value: Value, address: &Address, name: &str, at: i64) -> Value {
    value["recoveryId"] = format!("{}/deletedkeys/{name}", address.base).into();
    value["deletedDate"] = at.into();
    value["scheduledPurgeDate"] = (at + RECOVERABLE_DAYS * 86_400).into();
    value
}

/// A part of a list.
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    /// What the next page comes after.
    pub(super) after: Option<String>,
}

impl Page {
    fn of(mut items: impl Iterator<Item = (String, Value)>, most: usize) -> Page {
        let (names, values): (Vec<String>, Vec<Value>) = items.by_ref().take(most).unzip();
        let more = items.next().is_some();
        Page { items: values, after: names.last().filter(|_| more).cloned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_and_expired_keys_do_what_the_service_lets_them() {
        let disabled = Attributes { disabled: true, ..Attributes::default() };
        let expired = Attributes { expires: Some(5), ..Attributes::default() };
        let early = Attributes { not_before: Some(50), ..Attributes::default() };
        for (operation, when_disabled, when_invalid) in [
            ("sign", false, false),
            ("verify", true, true),
            ("encrypt", true, false),
            ("decrypt", false, true),
            ("wrapkey", true, false),
            ("unwrapkey", false, true),
        ] {
            assert_eq!(disabled.allow(operation, 10).is_ok(), when_disabled, "{operation}");
            assert_eq!(expired.allow(operation, 10).is_ok(), when_invalid, "{operation}");
            assert_eq!(early.allow(operation, 10).is_ok(), when_invalid, "{operation}");
        }
    }
}
