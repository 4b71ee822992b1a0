//! The issuers and keys of a mount and which are the defaults, as data: how they are found and what changes when one comes
//! or goes. It reads and writes no store itself: a changed copy says what to write.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::ca_certificate::CaCertificate;
use super::issuer::{IssuerRecord, IssuerSettings};
use super::key::{Key, KeyRecord};
use super::pem;
use super::records::Records;
use crate::engine::name;
use crate::model::{Fault, PublicKey};
use crate::store::{Store, Versioned, Write};

/// The most issuers of one mount.
pub(super) const ISSUERS_MAX: usize = 1000;
/// The most keys of one mount.
pub(super) const KEYS_MAX: usize = 1000;
/// What stands for the default issuer or key in a reference.
pub(super) const DEFAULT: &str = "default";

/// `config/issuers`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IssuersConfig {
    /// The id of the default issuer; empty if there is none.
    pub(super) default: String,
    pub(super) default_follows_latest_issuer: bool,
}

impl Versioned for IssuersConfig {
    const VERSION: u16 = 1;
}

/// `config/keys`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeysConfig {
    /// The id of the default key; empty if there is none.
    pub(super) default: String,
}

impl Versioned for KeysConfig {
    const VERSION: u16 = 1;
}

/// An issuer's record and its certificate, read.
#[derive(Clone, Debug)]
pub(super) struct IssuerEntry {
    pub(super) record: Arc<IssuerRecord>,
    pub(super) certificate: Arc<CaCertificate>,
}

/// The issuers and keys of a mount. Cheap enough to copy for a change.
#[derive(Clone, Debug, Default)]
pub(super) struct Registry {
    pub(super) keys: BTreeMap<String, Arc<Key>>,
    pub(super) issuers: BTreeMap<String, IssuerEntry>,
    pub(super) issuers_config: IssuersConfig,
    pub(super) keys_config: KeysConfig,
}

/// What became of something that was to be added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It is new, under this id.
    New(String),
    /// It was there, under this id.
    Known(String),
}

impl Added {
    /// Its id.
    pub(super) fn id(&self) -> &str {
        match self {
            Added::New(id) | Added::Known(id) => id,
        }
    }
}

impl Registry {
    /// What the store has.
    pub(super) fn load(store: &Store, records: &Records) -> Result<Registry, Fault> {
        let mut registry = Registry {
            issuers_config: store.read(&records.issuers_config())?.unwrap_or_default(),
            keys_config: store.read(&records.keys_config())?.unwrap_or_default(),
            ..Registry::default()
        };
        for (id, record) in
            store.read_all::<KeyRecord>(records.namespace(), &records.collection("keys"), None, KEYS_MAX)?
        {
            registry.keys.insert(id, Arc::new(Key::from_record(record)?));
        }
        let collection = records.collection("issuers");
        for (id, record) in store.read_all::<IssuerRecord>(records.namespace(), &collection, None, ISSUERS_MAX)? {
            let damaged = |what: &str| {
                Fault::internal(format!("the stored certificate of issuer {} is damaged: {what}", record.id))
            };
            let der = pem::decode(&record.certificate, &[pem::CERTIFICATE]).ok_or_else(|| damaged("no PEM"))?;
            let certificate = CaCertificate::parse(&der).map_err(|fault| damaged(&fault.to_string()))?;
            registry.issuers.insert(id, IssuerEntry { record: record.into(), certificate: certificate.into() });
        }
        Ok(registry)
    }

    /// The writes that make of `before`, which the store has, this.
    pub(super) fn writes_since(&self, before: &Registry, records: &Records) -> Result<Vec<Write>, Fault> {
        let mut writes = Vec::new();
        for (id, key) in &self.keys {
            if before.keys.get(id).is_none_or(|old| old.record != key.record) {
                writes.push(Write::put_record(records.key_entry(id), &key.record)?);
            }
        }
        for (id, issuer) in &self.issuers {
            if before.issuers.get(id).is_none_or(|old| old.record != issuer.record) {
                writes.push(Write::put_record(records.issuer(id), issuer.record.as_ref())?);
            }
        }
        let gone = before.keys.keys().filter(|id| !self.keys.contains_key(*id)).map(|id| records.key_entry(id));
        let lost = before.issuers.keys().filter(|id| !self.issuers.contains_key(*id)).map(|id| records.issuer(id));
        writes.extend(gone.chain(lost).map(|key| Write::Delete { key }));
        if self.issuers_config != before.issuers_config {
            writes.push(Write::put_record(records.issuers_config(), &self.issuers_config)?);
        }
        if self.keys_config != before.keys_config {
            writes.push(Write::put_record(records.keys_config(), &self.keys_config)?);
        }
        Ok(writes)
    }

    /// The id of the issuer that `reference` means: an id, a name, or `default`.
    pub(super) fn issuer_id(&self, reference: &str) -> Result<&str, Fault> {
        let unknown = || Fault::invalid(format!("unable to find PKI issuer for reference: {reference}"));
        if reference == DEFAULT {
            return Some(self.issuers_config.default.as_str()).filter(|id| !id.is_empty()).ok_or_else(|| {
                Fault::invalid(
                    "no default issuer currently configured: make one with root/generate/kms, import one, or name one with \
                     config/issuers",
                )
            });
        }
        if let Some((id, _)) = self.issuers.get_key_value(reference) {
            return Ok(id);
        }
        let named = self.issuers.iter().find(|(_, issuer)| issuer.record.settings.name == reference);
        named.filter(|_| !reference.is_empty()).map(|(id, _)| id.as_str()).ok_or_else(unknown)
    }

    /// The key that `reference` means: an id, a name, or `default`.
    pub(super) fn key(&self, reference: &str) -> Result<&Arc<Key>, Fault> {
        let unknown = || Fault::invalid(format!("unable to find PKI key for reference: {reference}"));
        if reference == DEFAULT {
            return self.keys.get(&self.keys_config.default).ok_or_else(|| {
                Fault::invalid("no default key currently configured: make one with keys/generate/kms, or name one with config/keys")
            });
        }
        let named = || self.keys.values().find(|key| key.record.name == reference);
        self.keys.get(reference).or_else(named).filter(|_| !reference.is_empty()).ok_or_else(unknown)
    }

    /// The issuer of this id.
    pub(super) fn issuer(&self, id: &str) -> Result<&IssuerEntry, Fault> {
        self.issuers.get(id).ok_or_else(|| Fault::invalid(format!("unable to find PKI issuer for reference: {id}")))
    }

    /// Changes an issuer's record.
    pub(super) fn update_issuer(&mut self, id: &str, change: impl FnOnce(&mut IssuerRecord)) -> Result<(), Fault> {
        let unknown = || Fault::invalid(format!("unable to find PKI issuer for reference: {id}"));
        change(Arc::make_mut(&mut self.issuers.get_mut(id).ok_or_else(unknown)?.record));
        Ok(())
    }

    /// Refuses a name that cannot be an issuer's, or is another's.
    pub(super) fn check_issuer_name(&self, name: &str, own: &str) -> Result<(), Fault> {
        let taken = self.issuers.iter().any(|(id, issuer)| id != own && issuer.record.settings.name == name);
        check_name("issuer", name, taken)
    }

    /// Refuses a name that cannot be a key's, or is another's.
    pub(super) fn check_key_name(&self, name: &str, own: &str) -> Result<(), Fault> {
        let taken = self.keys.iter().any(|(id, key)| id != own && key.record.name == name);
        check_name("key", name, taken)
    }

    /// Adds a key over a managed key, unless it is there: then that gets the name, if it has none. The first key becomes
    /// the default. Issuers whose key it is and that had none have it from now on.
    pub(super) fn add_key(&mut self, name: &str, managed_key: &str, public_key: &PublicKey) -> Result<Added, Fault> {
        let same = self.keys.values().find(|key| key.public_key.spki == public_key.spki).cloned();
        if let Some(known) = same {
            let id = known.record.id.clone();
            if known.record.name.is_empty() && !name.is_empty() {
                self.rename_key(&id, name)?;
            }
            return Ok(Added::Known(id));
        }
        self.check_key_name(name, "")?;
        if self.keys.len() >= KEYS_MAX {
            return Err(Fault::invalid(format!("this mount has {KEYS_MAX} keys, as many as there may be")));
        }
        let key = Key::new(name.to_owned(), managed_key, public_key)?;
        let id = key.record.id.clone();
        self.keys.insert(id.clone(), Arc::new(key));
        if self.keys_config.default.is_empty() {
            self.keys_config.default.clone_from(&id);
        }
        for issuer in self.issuers.values_mut() {
            if issuer.record.key_id.is_empty() && issuer.certificate.public_key.spki == public_key.spki {
                Arc::make_mut(&mut issuer.record).key_id.clone_from(&id);
            }
        }
        Ok(Added::New(id))
    }

    /// Gives a key another name, or takes it away.
    pub(super) fn rename_key(&mut self, id: &str, name: &str) -> Result<(), Fault> {
        self.check_key_name(name, id)?;
        let unknown = || Fault::invalid(format!("unable to find PKI key for reference: {id}"));
        Arc::make_mut(self.keys.get_mut(id).ok_or_else(unknown)?).record.name = name.to_owned();
        Ok(())
    }

    /// Adds an issuer, unless its certificate is there. Its key is the one here that fits, if there is one. Who the default
    /// is, is for [`Registry::choose_default`].
    pub(super) fn add_issuer(
        &mut self,
        certificate: &Arc<CaCertificate>,
        settings: IssuerSettings,
    ) -> Result<Added, Fault> {
        let der = &certificate.x509.der;
        if let Some((id, _)) = self.issuers.iter().find(|(_, issuer)| issuer.certificate.x509.der == *der) {
            return Ok(Added::Known(id.clone()));
        }
        self.check_issuer_name(&settings.name, "")?;
        if self.issuers.len() >= ISSUERS_MAX {
            return Err(Fault::invalid(format!("this mount has {ISSUERS_MAX} issuers, as many as there may be")));
        }
        let spki = &certificate.public_key.spki;
        let key = self.keys.values().find(|key| key.public_key.spki == *spki);
        let usage = settings.usage.within(certificate);
        let record = IssuerRecord {
            id: uuid::Uuid::new_v4().to_string(),
            key_id: key.map(|key| key.record.id.clone()).unwrap_or_default(),
            certificate: pem::encode(pem::CERTIFICATE, der)?,
            revoked: None,
            settings: IssuerSettings { usage, ..settings },
        };
        let id = record.id.clone();
        self.issuers.insert(id.clone(), IssuerEntry { record: record.into(), certificate: Arc::clone(certificate) });
        Ok(Added::New(id))
    }

    /// Makes one of the issuers just added the default: where there was none, the first, one with a key before others; and
    /// where the default follows the latest, the one with a key. Answers a warning where several might be meant.
    pub(super) fn choose_default(&mut self, added: &[String]) -> Option<String> {
        let has_key = |id: &&String| self.issuers.get(*id).is_some_and(|issuer| !issuer.record.key_id.is_empty());
        let with_keys: Vec<&String> = added.iter().filter(has_key).collect();
        if self.issuers_config.default.is_empty() {
            if let Some(first) = with_keys.first().copied().or(added.first()) {
                self.issuers_config.default.clone_from(first);
            }
        } else if self.issuers_config.default_follows_latest_issuer {
            match with_keys[..] {
                [] => {}
                [one] => self.issuers_config.default.clone_from(one),
                _ => {
                    return Some(
                        "Default issuer left unchanged: could not select new issuer automatically as multiple imported \
                         issuers have their key here."
                            .into(),
                    );
                }
            }
        }
        None
    }

    /// Removes an issuer. Answers whether it was the default.
    pub(super) fn remove_issuer(&mut self, id: &str) -> bool {
        self.issuers.remove(id);
        for issuer in self.issuers.values_mut() {
            if issuer.record.settings.manual_chain.iter().any(|link| link == id) {
                Arc::make_mut(&mut issuer.record).settings.manual_chain.retain(|link| link != id);
            }
        }
        let was_default = self.issuers_config.default == id;
        if was_default {
            self.issuers_config.default.clear();
        }
        was_default
    }

    /// Removes a key that no issuer has. Answers whether it was the default.
    pub(super) fn remove_key(&mut self, id: &str) -> Result<bool, Fault> {
        if let Some(user) = self.issuers.values().find(|issuer| issuer.record.key_id == id) {
            return Err(Fault::invalid(format!("Failed to Delete Key.  Key in Use by Issuer: {}", user.record.id)));
        }
        self.keys.remove(id);
        let was_default = self.keys_config.default == id;
        if was_default {
            self.keys_config.default.clear();
        }
        Ok(was_default)
    }
}

fn check_name(what: &str, name: &str, taken: bool) -> Result<(), Fault> {
    if name.is_empty() {
        return Ok(());
    }
    if name == DEFAULT {
        return Err(Fault::invalid(format!("{what}_name can not be the reserved word \"default\"")));
    }
    if !name::is_name(name) {
        return Err(Fault::invalid(format!(
            "{what}_name {name:?} has characters other than letters, digits, _, - and ."
        )));
    }
    if taken {
        return Err(Fault::invalid(format!("{what} name already in use: {name}")));
    }
    Ok(())
}
