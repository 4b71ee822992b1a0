//! How a managed key is stored.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::abilities::own_named;
use super::cloud_record::{CloudRecord, unknown};
use super::mechanism::Mechanism;
use super::pkcs11::{Pkcs11, curve_name, oaep_hash_name, oaep_hash_named};
use super::ready::Ready;
use super::registry::Entry;
use super::secret_record::SecretRecord;
use super::settings::{Native, Settings, names};
use crate::config::{Pin, Reference};
use crate::crypto;
use crate::model::{
    CheckMethod, CheckValue, CipherScheme, Curve, Fault, Hash, KeyIdentity, KeyKind, KeyUsage, MlDsa, Namespace,
    TokenSelector,
};
use crate::store::Versioned;

/// The collection of managed keys of a namespace; the record's name is the key's name.
pub(super) const COLLECTION: &str = "managed-keys";

/// Encrypted by the barrier like every record: the PIN in it is as safe as the store.
#[derive(Clone, Default, Serialize, Deserialize)]
pub(super) struct KeyRecord {
    uuid: String,
    library: String,
    /// The token by one of three names; none of them where the library is a pool.
    token_label: Option<String>,
    #[serde(default)]
    token_serial: Option<String>,
    slot: Option<u64>,
    key_label: Option<String>,
    key_id: Option<String>,
    mechanism: u64,
    pin: SecretRecord,
    /// Where the PIN stands, instead.
    #[serde(default)]
    pin_reference: Option<String>,
    curve: Option<String>,
    #[serde(default)]
    parameter_set: Option<MlDsa>,
    key_bits: u32,
    allow_generate_key: bool,
    allow_replace_key: bool,
    allow_store_key: bool,
    any_mount: bool,
    #[serde(default)]
    allow_raw_signing: bool,
    force_rw_session: bool,
    hmac_key_label: Option<String>,
    max_parallel: Option<u32>,
    usages: Vec<String>,
    #[serde(default)]
    rsa_oaep_hash: Option<String>,
    /// The UUID of the mount that it was made for.
    #[serde(default)]
    owner: Option<String>,
    /// Since when it names what it names.
    #[serde(default)]
    named_since: u64,
    /// The names of what its token showed that it does.
    #[serde(default)]
    shown: Option<Vec<String>>,
    /// Of a key in a cloud, what it is and where; what is said of tokens is empty then.
    #[serde(default)]
    cloud: Option<CloudRecord>,
    /// DER of the public key recorded at first use.
    #[serde(with = "hex::serde")]
    public_key: Vec<u8>,
    /// What is recorded of a secret key instead.
    #[serde(default)]
    check_value: Option<CheckRecord>,
}

/// A check value as it is stored.
#[derive(Clone, Serialize, Deserialize)]
struct CheckRecord {
    /// Whether it is an AES key; else one for HMAC.
    aes: bool,
    bits: u32,
    /// The hash of the HMAC that was made; else an AES key encrypted a block.
    hmac: Option<String>,
    /// What an AES key opened instead.
    #[serde(default)]
    opened: Option<OpenedRecord>,
    #[serde(with = "hex::serde")]
    digest: [u8; 32],
}

#[derive(Clone, Serialize, Deserialize)]
struct OpenedRecord {
    /// Whether by AES-GCM; else in its service's own form.
    gcm: bool,
    #[serde(with = "hex::serde")]
    sealed: Vec<u8>,
    /// SHA-256 of the key's lasting name.
    #[serde(with = "hex::serde")]
    name: [u8; 32],
}

impl CheckRecord {
    fn of(value: &CheckValue) -> CheckRecord {
        let (aes, bits) = match value.kind {
            KeyKind::Aes { bits } => (true, bits),
            KeyKind::Hmac { bits } => (false, bits),
            KeyKind::Rsa { .. } | KeyKind::Ec(_) | KeyKind::Ed25519 | KeyKind::MlDsa(_) => (false, 0),
        };
        let (hmac, opened) = match value.method {
            CheckMethod::Block => (None, None),
            CheckMethod::Hmac(hash) => (Some(hash.name().to_owned()), None),
            CheckMethod::Opened(scheme) => {
                let (gcm, sealed, name) = (scheme == CipherScheme::AesGcm, value.sealed.to_vec(), value.lasting());
                (None, Some(OpenedRecord { gcm, sealed, name }))
            }
        };
        CheckRecord { aes, bits, hmac, opened, digest: value.digest }
    }

    fn open(&self) -> Result<CheckValue, Fault> {
        let bits = self.bits;
        let kind = if self.aes { KeyKind::Aes { bits } } else { KeyKind::Hmac { bits } };
        let method = match (&self.opened, self.hmac.as_deref().map(Hash::from_name)) {
            (Some(OpenedRecord { gcm: true, .. }), _) => CheckMethod::Opened(CipherScheme::AesGcm),
            (Some(OpenedRecord { gcm: false, .. }), _) => CheckMethod::Opened(CipherScheme::ServiceAead),
            (None, None) => CheckMethod::Block,
            (None, Some(Some(hash))) => CheckMethod::Hmac(hash),
            (None, Some(None)) => {
                let name = self.hmac.as_deref().unwrap_or_default();
                return Err(unknown(format!("it is known again by an HMAC with {name:?}")));
            }
        };
        let sealed = self.opened.as_ref().map(|opened| opened.sealed.clone().into()).unwrap_or_default();
        let name = self.opened.as_ref().map(|opened| opened.name);
        Ok(CheckValue { kind, method, sealed, name, digest: self.digest })
    }
}

/// What keys on tokens are written as.
const OF_TOKENS: u16 = 1;

impl Versioned for KeyRecord {
    /// 2: keys in clouds. A build that does not know them would take one for a key on a token.
    const VERSION: u16 = 2;

    fn version(&self) -> u16 {
        if self.cloud.is_some() { Self::VERSION } else { OF_TOKENS }
    }

    /// Keys in clouds were written as such as well, for a while.
    fn upgrade(version: u16, value: &[u8]) -> Result<KeyRecord, Fault> {
        serde_json::from_slice(value)
            .map_err(|error| Fault::internal(format!("format {version} does not parse at column {}", error.column())))
    }
}

impl KeyRecord {
    /// The same with another UUID.
    pub(super) fn with_uuid(&self, uuid: &str) -> KeyRecord {
        let mut other = self.clone();
        uuid.clone_into(&mut other.uuid);
        other
    }

    pub(super) fn of(entry: &Entry) -> KeyRecord {
        let Entry { uuid, settings, .. } = entry;
        let identity = entry.ready.as_ref().map(|ready| &ready.identity);
        let mut record = KeyRecord {
            uuid: uuid.clone(),
            library: settings.library.clone(),
            allow_generate_key: settings.allow_generate_key,
            allow_replace_key: settings.allow_replace_key,
            allow_store_key: settings.allow_store_key,
            any_mount: settings.any_mount,
            allow_raw_signing: settings.allow_raw_signing,
            max_parallel: settings.max_parallel,
            usages: settings.usages.iter().map(|usage| usage.name().to_owned()).collect(),
            owner: settings.owner.clone(),
            named_since: entry.named_since,
            shown: settings.shown.as_deref().map(|shown| names(shown).into_iter().map(str::to_owned).collect()),
            public_key: identity.and_then(KeyIdentity::public).map(|public| public.spki.to_vec()).unwrap_or_default(),
            check_value: match identity {
                Some(KeyIdentity::Secret(value)) => Some(CheckRecord::of(value)),
                Some(KeyIdentity::Public(_)) | None => None,
            },
            ..KeyRecord::default()
        };
        match &settings.token {
            Some(TokenSelector::Label(label)) => record.token_label = Some(label.clone()),
            Some(TokenSelector::Serial(serial)) => record.token_serial = Some(serial.clone()),
            Some(TokenSelector::Slot(number)) => record.slot = Some(*number),
            Some(TokenSelector::Cloud(key)) => {
                record.cloud = settings.cloud().map(|cloud| CloudRecord::of(key, cloud));
            }
            None => {}
        }
        if let Native::Pkcs11(pkcs11) = &settings.native {
            record.note(pkcs11);
        }
        record
    }

    /// What is said of a key on a token.
    fn note(&mut self, pkcs11: &Pkcs11) {
        match &pkcs11.pin {
            Some(Pin::Itself(pin)) => self.pin = SecretRecord::of(pin),
            Some(Pin::At(reference)) => self.pin_reference = Some(reference.as_str().to_owned()),
            None => {}
        }
        self.key_label = pkcs11.key_label.clone();
        self.key_id = pkcs11.key_id.clone();
        self.mechanism = pkcs11.mechanism.0;
        self.curve = pkcs11.curve.map(|curve| curve_name(curve).to_owned());
        self.parameter_set = pkcs11.parameter_set;
        self.key_bits = pkcs11.key_bits;
        self.force_rw_session = pkcs11.force_rw_session;
        self.hmac_key_label = pkcs11.hmac_key_label.clone();
        self.rsa_oaep_hash = pkcs11.rsa_oaep_hash.map(|hash| oaep_hash_name(hash).to_owned());
    }

    fn pin(&self) -> Result<Option<Pin>, Fault> {
        match &self.pin_reference {
            None => Ok(self.pin.open().map(Pin::Itself)),
            Some(text) => match Reference::parse(text) {
                Ok(Some(reference)) => Ok(Some(Pin::At(reference))),
                Ok(None) | Err(_) => Err(Fault::internal("a managed key's PIN refers to nothing that is known")),
            },
        }
    }

    /// What was recorded of the key at first use.
    fn identity(&self) -> Result<Option<KeyIdentity>, Fault> {
        if let Some(value) = &self.check_value {
            return value.open().map(KeyIdentity::Secret).map(Some);
        }
        (!self.public_key.is_empty()).then(|| crypto::parse_spki(&self.public_key).map(KeyIdentity::from)).transpose()
    }

    fn token(&self) -> Option<TokenSelector> {
        let label = self.token_label.clone().map(TokenSelector::Label);
        let serial = || self.token_serial.clone().map(TokenSelector::Serial);
        label.or_else(serial).or(self.slot.map(TokenSelector::Slot))
    }

    /// What it says of a key on a token. A curve or a hash that is not known is no default: another key would be looked for, or what
    /// was encrypted would not decrypt.
    fn pkcs11(&self) -> Result<Pkcs11, Fault> {
        let curve = |name: &str| Curve::ALL.into_iter().find(|curve| curve_name(*curve) == name);
        Ok(Pkcs11 {
            key_label: self.key_label.clone(),
            key_id: self.key_id.clone(),
            mechanism: Mechanism(self.mechanism),
            pin: self.pin()?,
            curve: known("it is on curve", self.curve.as_deref(), curve)?,
            parameter_set: self.parameter_set,
            key_bits: self.key_bits,
            force_rw_session: self.force_rw_session,
            rsa_oaep_hash: known("it encrypts by OAEP with", self.rsa_oaep_hash.as_deref(), oaep_hash_named)?,
            hmac_key_label: self.hmac_key_label.clone(),
        })
    }

    /// The managed key of this name, which nobody serves yet.
    pub(super) fn open(&self, namespace: &Namespace, name: String) -> Result<Entry, Fault> {
        let identity = self.identity()?;
        let (token, native) = match &self.cloud {
            Some(cloud) => {
                let (key, cloud) = cloud.open()?;
                (Some(TokenSelector::Cloud(Arc::new(key))), Native::Cloud(cloud))
            }
            None => (self.token(), Native::Pkcs11(Box::new(self.pkcs11()?))),
        };
        let usage = |name: &String| KeyUsage::from_name(name).ok_or_else(|| unknown(format!("it is for {name:?}")));
        let settings = Settings {
            library: self.library.clone(),
            token,
            native,
            allow_generate_key: self.allow_generate_key,
            allow_replace_key: self.allow_replace_key,
            allow_store_key: self.allow_store_key,
            any_mount: self.any_mount,
            allow_raw_signing: self.allow_raw_signing,
            max_parallel: self.max_parallel,
            usages: self.usages.iter().map(usage).collect::<Result<_, _>>()?,
            owner: self.owner.clone(),
            shown: self.shown.as_ref().map(|names| names.iter().filter_map(|name| own_named(name)).collect()),
        };
        let (abilities, ready) = (settings.abilities(), identity.map(Ready::new));
        Ok(Entry {
            uuid: self.uuid.clone(),
            name,
            namespace: namespace.clone(),
            settings,
            named_since: self.named_since,
            abilities,
            ready,
            first_use: Arc::default(),
        })
    }
}

/// What a record names, if it names any.
fn known<T>(what: &str, name: Option<&str>, of_name: impl FnOnce(&str) -> Option<T>) -> Result<Option<T>, Fault> {
    name.map(|name| of_name(name).ok_or_else(|| unknown(format!("{what} {name:?}")))).transpose()
}
