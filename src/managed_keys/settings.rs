//! The fields of a managed key that all types share, and of its type: reading them from a request, showing them again.

use std::sync::Arc;

use serde_json::Value;

use super::abilities::{Abilities, Own};
use super::cloud::Cloud;
use super::key_type::KeyType;
use super::pkcs11::Pkcs11;
use crate::config::Pin;
use crate::model::{
    CloudKind, CloudService, CloudUse, Data, Fault, Fields, KeyUsage, KeyUsages, Namespace, TokenSelector,
};
use crate::supervisor::{KeySelector, KeyTemplate, LibraryInfo};

/// What a secret reads as, and what may be sent back to keep it.
pub(super) const REDACTED: &str = "redacted";

/// The type of keys on tokens.
pub(super) const PKCS11: &str = "pkcs11";

/// A managed key's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the KMS library, of the pool, or of the cloud's key service.
    pub library: String,
    /// The token, or the key in a cloud; `None` where `library` names a pool.
    pub token: Option<TokenSelector>,
    /// What its type says of it.
    pub(super) native: Native,
    /// Whether an absent key is generated at first use.
    pub allow_generate_key: bool,
    /// Kept for Vault's clients; no endpoint replaces a key.
    pub allow_replace_key: bool,
    /// Kept for Vault's clients; no endpoint stores a key.
    pub allow_store_key: bool,
    /// Whether every mount of the namespace may use it.
    pub any_mount: bool,
    /// Whether engines of several types may use its key: then what Transit's clients give is signed by an issuer's key, too.
    pub allow_raw_signing: bool,
    /// Most jobs of the key in flight.
    pub max_parallel: Option<u32>,
    /// What it may be used for.
    pub usages: KeyUsages,
    /// The UUID of the mount that it was made for, which alone may use it; `None` where an operator registered it.
    pub owner: Option<String>,
    /// What its token showed that such a key does; `None` where it does what its type does.
    pub(super) shown: Option<Vec<&'static Own>>,
}

/// What a type says of a key.
#[derive(Clone, Debug)]
pub(super) enum Native {
    /// One on a token.
    Pkcs11(Box<Pkcs11>),
    /// One in a cloud.
    Cloud(Cloud),
}

/// The types of managed keys that there are.
pub(super) fn is_type(name: &str) -> bool {
    name == PKCS11 || CloudService::from_name(name).is_some()
}

impl Settings {
    /// Reads a create or update request of `namespace` for a key of this type. `old` lends its secrets where the request leaves
    /// them out or sends them back redacted. `look_up` finds the library, pool or service named, and refuses an unknown one.
    pub fn read(
        namespace: &Namespace,
        key_type: &str,
        fields: &mut Fields<'_>,
        old: Option<&Settings>,
        look_up: impl FnOnce(&str) -> Result<LibraryInfo, Fault>,
    ) -> Result<Settings, Fault> {
        let library = match CloudService::from_name(key_type) {
            Some(service) => service.name().to_owned(),
            None => fields.filled("library")?.ok_or_else(|| required("library"))?,
        };
        let info = look_up(&library)?;
        let given = usages(fields)?;
        let (token, native) = match &info.service {
            Some(service) => {
                let old = match old.map(|old| &old.token) {
                    Some(Some(TokenSelector::Cloud(old))) => Some(old.as_ref()),
                    _ => None,
                };
                let (key, cloud) = Cloud::read(namespace, service, fields, old, given)?;
                (Some(TokenSelector::Cloud(Arc::new(key))), Native::Cloud(cloud))
            }
            None => {
                let old = match old.map(|old| &old.native) {
                    Some(Native::Pkcs11(old)) => Some(old.as_ref()),
                    _ => None,
                };
                let (token, pkcs11) = Pkcs11::read(namespace, fields, old, &library, &info)?;
                (token, Native::Pkcs11(Box::new(pkcs11)))
            }
        };
        let default_usages = || match &native {
            Native::Cloud(cloud) if cloud.kind.does != CloudUse::SignOrDecrypt => cloud.kind.does.usages(),
            _ => KeyUsages::default(),
        };
        let settings = Settings {
            usages: given.unwrap_or_else(default_usages),
            allow_generate_key: fields.boolean("allow_generate_key")?.unwrap_or(false),
            allow_replace_key: fields.boolean("allow_replace_key")?.unwrap_or(false),
            allow_store_key: fields.boolean("allow_store_key")?.unwrap_or(false),
            any_mount: fields.boolean("any_mount")?.unwrap_or(false),
            allow_raw_signing: fields.boolean("allow_raw_signing")?.unwrap_or(false),
            max_parallel: max_parallel(fields)?,
            owner: owner(fields, old)?,
            shown: shown(fields, old)?,
            library,
            token,
            native,
        };
        if let (true, Some(TokenSelector::Cloud(key))) = (settings.allow_generate_key, &settings.token) {
            super::cloud::check_generation(key)?;
        }
        Ok(settings)
    }

    /// Its type, by its name in the API.
    pub(super) fn type_name(&self) -> &'static str {
        match &self.native {
            Native::Pkcs11(_) => PKCS11,
            Native::Cloud(cloud) => cloud.kind.service.name(),
        }
    }

    /// What it is registered as.
    pub(super) fn key_type(&self) -> KeyType {
        match &self.native {
            Native::Pkcs11(pkcs11) => KeyType::Mechanism(pkcs11.mechanism),
            Native::Cloud(cloud) => KeyType::Cloud(cloud.kind),
        }
    }

    /// Of a key in a cloud, what is said of it.
    pub(super) fn cloud(&self) -> Option<&Cloud> {
        match &self.native {
            Native::Cloud(cloud) => Some(cloud),
            Native::Pkcs11(_) => None,
        }
    }

    /// Of a key in a cloud, what it is there.
    pub(super) fn cloud_kind(&self) -> Option<&'static CloudKind> {
        self.cloud().map(|cloud| cloud.kind)
    }

    /// Its own PIN.
    pub(super) fn pin(&self) -> Option<&Pin> {
        match &self.native {
            Native::Pkcs11(pkcs11) => pkcs11.pin.as_ref(),
            Native::Cloud(_) => None,
        }
    }

    /// By what the operator shares it among namespaces: its label, or in a cloud its name with its place.
    pub(super) fn shared_name(&self) -> Option<String> {
        match &self.token {
            Some(TokenSelector::Cloud(key)) => Some(key.whole_name()),
            _ => self.key_label().map(str::to_owned),
        }
    }

    /// Its label on its token, or its name in its cloud.
    pub(super) fn key_label(&self) -> Option<&str> {
        match (&self.native, &self.token) {
            (Native::Pkcs11(pkcs11), _) => pkcs11.key_label.as_deref(),
            (Native::Cloud(_), Some(TokenSelector::Cloud(key))) => Some(&key.name),
            (Native::Cloud(_), _) => None,
        }
    }

    /// How to find the key on its token.
    pub fn selector(&self) -> KeySelector {
        match &self.native {
            Native::Pkcs11(pkcs11) => pkcs11.selector(),
            Native::Cloud(cloud) => KeySelector {
                label: self.key_label().map(|name| match cloud.kind.service {
                    // Names there are the same in whatever case.
                    CloudService::AzureKeyVault => name.to_ascii_lowercase(),
                    CloudService::AwsKms | CloudService::GcpCkms => name.to_owned(),
                }),
                id: None,
                secret: cloud.kind.kind.is_secret(),
                cloud: Some(cloud.kind),
            },
        }
    }

    /// What to generate at first use, if the key is absent then; else why nothing can be.
    pub fn template(&self) -> Result<KeyTemplate, Fault> {
        if !self.allow_generate_key {
            let place = if let Native::Cloud(cloud) = &self.native { cloud.kind.service.title() } else { "the token" };
            let what = format!("allow_generate_key is false: make the key on {place}, or allow its generation");
            return Err(Fault::invalid(what));
        }
        let (label, kind) = match &self.native {
            Native::Pkcs11(pkcs11) => pkcs11.to_generate()?,
            Native::Cloud(cloud) => (self.key_label().unwrap_or_default(), cloud.kind.kind),
        };
        let all = self.key_type().uses();
        // The token is told what the operator allows; where that is nothing of what the key can do, all of it.
        let uses = Some(self.usages.and(all)).filter(|uses| !uses.is_empty()).unwrap_or(all);
        Ok(KeyTemplate { kind, label: label.to_owned(), uses, cloud: self.cloud_kind() })
    }

    /// What an operator who allows generation should know: that it will fail, if the key is absent.
    pub fn generation_warning(&self) -> Option<String> {
        let why = self.template().err().filter(|_| self.allow_generate_key)?;
        Some(format!("allow_generate_key has no effect: {why}"))
    }

    /// What an operator should know whose key may do nothing.
    pub fn usage_warning(&self) -> Option<String> {
        let key_type = self.key_type();
        let does = key_type.uses();
        if does.is_empty() || !self.usages.and(does).is_empty() {
            return None;
        }
        let names: Vec<&str> = does.iter().map(KeyUsage::name).collect();
        Some(format!("usages allow nothing that {key_type} does: add some of {} to them", names.join(", ")))
    }

    /// What an operator should know whose key's PIN cannot be had from where it stands, now. Blocks.
    pub fn pin_warning(&self) -> Option<String> {
        let why = self.pin()?.reference()?.fetch().err()?;
        Some(format!("pin: {why}; it is fetched whenever the token is logged in to, so put it there"))
    }

    /// Whether `other` names the same token, or pool; of a key in a cloud, by the same word.
    pub fn same_token(&self, other: &Settings) -> bool {
        self.library.eq_ignore_ascii_case(&other.library) && self.token == other.token
    }

    /// Whether `other` names the same key in the same place, by whoever's word.
    pub fn same_key(&self, other: &Settings) -> bool {
        self.names_as(other) && self.abilities() == other.abilities()
    }

    /// Whether `other` names a key in the same words.
    pub(super) fn names_as(&self, other: &Settings) -> bool {
        let same_place = match (&self.token, &other.token) {
            (Some(TokenSelector::Cloud(own)), Some(TokenSelector::Cloud(other))) => own.is_named_as(other),
            _ => self.same_token(other),
        };
        // What it is said to be may be corrected: that names no other key.
        let name = |of: &Settings| KeySelector { cloud: None, ..of.selector() };
        same_place && name(self) == name(other)
    }

    /// What the key does.
    pub(super) fn abilities(&self) -> Abilities {
        let (oaep_hash, cipher) = match &self.native {
            Native::Pkcs11(pkcs11) => (pkcs11.rsa_oaep_hash, None),
            Native::Cloud(cloud) => (None, cloud.cipher),
        };
        match &self.shown {
            Some(shown) => Abilities::shown(self.key_type(), shown),
            None => self.key_type().abilities(oaep_hash, cipher),
        }
    }

    /// The fields as a read shows them, secrets redacted.
    pub fn show(&self, name: &str, uuid: &str) -> Data {
        let usages: Vec<&str> = self.usages.iter().map(KeyUsage::name).collect();
        let mut data = Data::new();
        data.insert("UUID".into(), uuid.into());
        data.insert("name".into(), name.into());
        data.insert("type".into(), self.type_name().into());
        match (&self.native, &self.token) {
            (Native::Pkcs11(pkcs11), token) => pkcs11.show(&self.library, token.as_ref(), &mut data),
            (Native::Cloud(cloud), Some(TokenSelector::Cloud(key))) => cloud.show(key, &mut data),
            (Native::Cloud(_), _) => {}
        }
        let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
        put("allow_generate_key", self.allow_generate_key.into());
        put("allow_replace_key", self.allow_replace_key.into());
        put("allow_store_key", self.allow_store_key.into());
        put("any_mount", self.any_mount.into());
        put("allow_raw_signing", self.allow_raw_signing.into());
        put("usages", usages.into());
        if let Some(owner) = &self.owner {
            put("owner", owner.as_str().into());
        }
        if let Some(shown) = &self.shown {
            put("abilities", names(shown).into());
        }
        if let Some(max_parallel) = self.max_parallel {
            put("max_parallel", max_parallel.into());
        }
        data
    }
}

pub(super) fn required(name: &str) -> Fault {
    Fault::invalid(format!("missing required field {name:?}"))
}

/// A key has the owner that it was made for, or none: no request changes that, or lets other mounts use such a key.
fn owner(fields: &mut Fields<'_>, old: Option<&Settings>) -> Result<Option<String>, Fault> {
    let owner = old.and_then(|old| old.owner.clone());
    if fields.filled("owner")?.is_some_and(|asked| Some(&asked) != owner.as_ref()) {
        return Err(Fault::invalid("owner cannot be set: it is the mount that a key was made for"));
    }
    if owner.is_some() && fields.boolean("any_mount")?.unwrap_or(false) {
        return Err(Fault::invalid("any_mount cannot be set: the key was made for one mount, which alone may use it"));
    }
    Ok(owner)
}

/// The names of what a token has shown.
pub(super) fn names(shown: &[&'static Own]) -> Vec<&'static str> {
    shown.iter().map(|own| own.name).collect()
}

/// No request changes what a token has shown.
fn shown(fields: &mut Fields<'_>, old: Option<&Settings>) -> Result<Option<Vec<&'static Own>>, Fault> {
    let shown = old.and_then(|old| old.shown.clone());
    if fields.list("abilities")?.is_some_and(|asked| shown.as_deref().map(names).unwrap_or_default() != asked) {
        return Err(Fault::invalid("abilities cannot be set: they are what the token showed when the key was made"));
    }
    Ok(shown)
}

fn max_parallel(fields: &mut Fields<'_>) -> Result<Option<u32>, Fault> {
    match fields.integer("max_parallel")? {
        None | Some(0) => Ok(None),
        Some(cap) => match u32::try_from(cap) {
            Ok(cap) => Ok(Some(cap)),
            Err(_) => Err(Fault::invalid("max_parallel must be a positive number")),
        },
    }
}

/// `None` where nothing is said.
fn usages(fields: &mut Fields<'_>) -> Result<Option<KeyUsages>, Fault> {
    let Some(names) = fields.list("usages")?.filter(|names| !names.is_empty()) else { return Ok(None) };
    let usage = |name: &String| {
        let by_number = || KeyUsage::ALL.into_iter().find(|usage| name.parse() == Ok(*usage as u8));
        KeyUsage::from_name(name).or_else(by_number).ok_or_else(|| {
            let known: Vec<&str> = KeyUsage::ALL.into_iter().map(KeyUsage::name).collect();
            Fault::invalid(format!("usage {name:?} is unknown: use some of {}", known.join(", ")))
        })
    };
    names.iter().map(usage).collect::<Result<_, _>>().map(Some)
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
