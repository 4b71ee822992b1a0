//! The fields of a `pkcs11` managed key: reading them from a request, showing them again.

use serde_json::{Value, json};

use super::abilities::{Abilities, Own};
use super::mechanism::Mechanism;
use crate::config::{Pin, Reference};
use crate::model::{Curve, Data, Fault, Fields, Hash, KeyUsage, KeyUsages, MlDsa, Namespace, Secret, TokenSelector};
use crate::supervisor::{KeySelector, KeyTemplate, LibraryInfo};

/// What a secret reads as, and what may be sent back to keep it.
const REDACTED: &str = "redacted";

/// A `pkcs11` managed key's configuration.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The name of the KMS library, or of the pool.
    pub library: String,
    /// The token; `None` where `library` names a pool.
    pub token: Option<TokenSelector>,
    /// Its label; given, a generated key gets it.
    pub key_label: Option<String>,
    /// Its `CKA_ID` in hexadecimal.
    pub key_id: Option<String>,
    /// What it is used with.
    pub mechanism: Mechanism,
    /// Its own PIN, where the library has none; or where it stands.
    pub pin: Option<Pin>,
    /// The curve of a key to be generated.
    pub curve: Option<Curve>,
    /// The parameter set of an ML-DSA key to be generated.
    pub parameter_set: Option<MlDsa>,
    /// The size of an RSA, AES or HMAC key to be generated; 0 where it is not given.
    pub key_bits: u32,
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
    /// Kept for Vault's clients: every session is a read/write session here.
    pub force_rw_session: bool,
    /// The hash of OAEP, where the mechanism is that.
    pub rsa_oaep_hash: Option<Hash>,
    /// Kept for Vault's clients: no mechanism here pairs a key with an HMAC key.
    pub hmac_key_label: Option<String>,
    /// Most jobs of the key in flight.
    pub max_parallel: Option<u32>,
    /// What it may be used for.
    pub usages: KeyUsages,
    /// The UUID of the mount that it was made for, which alone may use it; `None` where an operator registered it.
    pub owner: Option<String>,
    /// What its token showed that such a key does; `None` where it does what its mechanism does.
    pub(super) shown: Option<Vec<&'static Own>>,
}

impl Settings {
    /// Reads a create or update request of `namespace`. `old` lends its PIN where the request leaves it out or sends it back redacted; an
    /// empty PIN takes the key's own away. `look_up` finds the library or pool named, and refuses an unknown one.
    pub fn read(
        namespace: &Namespace,
        fields: &mut Fields<'_>,
        old: Option<&Settings>,
        look_up: impl FnOnce(&str) -> Result<LibraryInfo, Fault>,
    ) -> Result<Settings, Fault> {
        let library = fields.filled("library")?.ok_or_else(|| required("library"))?;
        let info = look_up(&library)?;
        let key_label = fields.filled("key_label")?;
        let key_id = fields.filled("key_id")?;
        if key_label.is_none() && key_id.is_none() {
            return Err(Fault::invalid("one of key_label and key_id is required"));
        }
        if let Some(id) = &key_id {
            decode_id(id)?;
        }
        let pin = match (fields.text("pin")?, old) {
            (Some(pin), _) if pin.is_empty() => None,
            (Some(pin), None) if pin == REDACTED => {
                return Err(Fault::invalid(
                    "pin \"redacted\" keeps a PIN, but this key has none yet: send the PIN itself",
                ));
            }
            (Some(pin), _) if pin != REDACTED => Some(own_pin(namespace, pin)?),
            (_, old) => old.and_then(|old| old.pin.clone()),
        };
        if info.is_pool && pin.is_some() {
            let why = "the PINs of a kms_pool stand in the configuration";
            return Err(Fault::invalid(format!("pin cannot be given with library {library:?}: {why}")));
        }
        if pin.is_none() && !info.has_pin {
            return Err(Fault::invalid(format!("pin is required: kms_library {library:?} has none")));
        }
        let mechanism = mechanism(fields)?;
        Ok(Settings {
            token: if info.is_pool { no_token(fields, &library)? } else { Some(token(fields)?) },
            mechanism,
            curve: curve(fields)?,
            parameter_set: parameter_set(fields)?,
            key_bits: mechanism.check_bits(fields.integer("key_bits")?.unwrap_or(0))?,
            rsa_oaep_hash: oaep_hash(fields, mechanism)?,
            allow_generate_key: fields.boolean("allow_generate_key")?.unwrap_or(false),
            allow_replace_key: fields.boolean("allow_replace_key")?.unwrap_or(false),
            allow_store_key: fields.boolean("allow_store_key")?.unwrap_or(false),
            any_mount: fields.boolean("any_mount")?.unwrap_or(false),
            allow_raw_signing: fields.boolean("allow_raw_signing")?.unwrap_or(false),
            force_rw_session: fields.boolean("force_rw_session")?.unwrap_or(false),
            hmac_key_label: fields.filled("hmac_key_label")?,
            max_parallel: max_parallel(fields)?,
            usages: usages(fields)?,
            owner: owner(fields, old)?,
            shown: shown(fields, old)?,
            library,
            key_label,
            key_id,
            pin,
        })
    }

    /// How to find the key on its token.
    pub fn selector(&self) -> KeySelector {
        let id = self.key_id.as_deref().and_then(|id| decode_id(id).ok());
        KeySelector { label: self.key_label.clone(), id, secret: self.mechanism.is_secret() }
    }

    /// What to generate at first use, if the key is absent then; else why nothing can be.
    pub fn template(&self) -> Result<KeyTemplate, Fault> {
        if !self.allow_generate_key {
            return Err(Fault::invalid(
                "allow_generate_key is false: make the key on the token, or allow its generation",
            ));
        }
        match (&self.key_label, &self.key_id) {
            (Some(label), None) => {
                let kind = self.mechanism.generated_kind(self.key_bits, self.curve, self.parameter_set)?;
                let all = self.mechanism.uses();
                // The token is told what the operator allows; where that is nothing of what the key can do, all of it.
                let uses = Some(self.usages.and(all)).filter(|uses| !uses.is_empty()).unwrap_or(all);
                Ok(KeyTemplate { kind, label: label.clone(), uses })
            }
            _ => Err(Fault::invalid(
                "a key with a key_id cannot be generated, since the token gives ids: make it there, or leave key_id out",
            )),
        }
    }

    /// What an operator who allows generation should know: that it will fail, if the key is absent.
    pub fn generation_warning(&self) -> Option<String> {
        let why = self.template().err().filter(|_| self.allow_generate_key)?;
        Some(format!("allow_generate_key has no effect: {why}"))
    }

    /// What an operator should know whose key may do nothing.
    pub fn usage_warning(&self) -> Option<String> {
        let does = self.mechanism.uses();
        if does.is_empty() || !self.usages.and(does).is_empty() {
            return None;
        }
        let names: Vec<&str> = does.iter().map(KeyUsage::name).collect();
        let mechanism = self.mechanism;
        Some(format!("usages allow nothing that {mechanism} does: add some of {} to them", names.join(", ")))
    }

    /// What an operator should know whose key's PIN cannot be had from where it stands, now. Blocks.
    pub fn pin_warning(&self) -> Option<String> {
        let why = self.pin.as_ref()?.reference()?.fetch().err()?;
        Some(format!("pin: {why}; it is fetched whenever the token is logged in to, so put it there"))
    }

    /// Whether `other` names the same token, or pool.
    pub fn same_token(&self, other: &Settings) -> bool {
        self.library.eq_ignore_ascii_case(&other.library) && self.token == other.token
    }

    /// Whether `other` names the same key in the same place.
    pub fn same_key(&self, other: &Settings) -> bool {
        self.same_token(other) && self.selector() == other.selector() && self.abilities() == other.abilities()
    }

    /// Whether `other` names a key in the same words.
    pub(super) fn names_as(&self, other: &Settings) -> bool {
        self.same_token(other) && self.selector() == other.selector()
    }

    /// What the key does.
    pub(super) fn abilities(&self) -> Abilities {
        match &self.shown {
            Some(shown) => Abilities::shown(self.mechanism, shown),
            None => self.mechanism.abilities(self.rsa_oaep_hash),
        }
    }

    /// The fields as a read shows them, secrets redacted.
    pub fn show(&self, name: &str, uuid: &str) -> Data {
        let (slot, token_label) = match &self.token {
            Some(TokenSelector::Slot(slot)) => (json!(slot), ""),
            Some(TokenSelector::Label(label)) => (json!(0), label.as_str()),
            Some(TokenSelector::Serial(_)) | None => (json!(0), ""),
        };
        let usages: Vec<&str> = self.usages.iter().map(KeyUsage::name).collect();
        let mut data = Data::new();
        let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
        put("UUID", uuid.into());
        put("name", name.into());
        put("type", "pkcs11".into());
        put("library", self.library.as_str().into());
        put("slot", slot);
        put("token_label", token_label.into());
        put("key_label", self.key_label.as_deref().unwrap_or_default().into());
        put("key_id", self.key_id.as_deref().unwrap_or_default().into());
        put("mechanism", self.mechanism.0.into());
        put("key_bits", self.key_bits.into());
        put("curve", self.curve.map(curve_name).unwrap_or_default().into());
        put(
            "pin",
            match &self.pin {
                Some(Pin::Itself(_)) => REDACTED.into(),
                Some(Pin::At(reference)) => reference.as_str().into(),
                None => "".into(),
            },
        );
        put("allow_generate_key", self.allow_generate_key.into());
        put("allow_replace_key", self.allow_replace_key.into());
        put("allow_store_key", self.allow_store_key.into());
        put("any_mount", self.any_mount.into());
        put("allow_raw_signing", self.allow_raw_signing.into());
        put("force_rw_session", self.force_rw_session.into());
        put("usages", usages.into());
        if let Some(owner) = &self.owner {
            put("owner", owner.as_str().into());
        }
        if let Some(shown) = &self.shown {
            put("abilities", names(shown).into());
        }
        if let Some(set) = self.parameter_set {
            put("parameter_set", set.number().to_string().into());
        }
        if self.mechanism.takes_oaep_hash() {
            put("rsa_oaep_hash", self.rsa_oaep_hash.map(oaep_hash_name).unwrap_or_default().into());
        }
        if let Some(label) = &self.hmac_key_label {
            put("hmac_key_label", label.as_str().into());
        }
        if let Some(max_parallel) = self.max_parallel {
            put("max_parallel", max_parallel.into());
        }
        data
    }
}

/// A PIN, or where it stands. No tenant makes the daemon read a file, or its environment; and whoever means that is not
/// to have the reference itself tried on a token.
fn own_pin(namespace: &Namespace, pin: String) -> Result<Pin, Fault> {
    if !namespace.is_root() && Reference::is_one(&pin) {
        return Err(Fault::invalid(format!(
            "pin begins with {:?}, as a reference to a PIN does, which only managed keys of the root namespace may have: send \
             the PIN itself",
            pin.split_inclusive(':').next().unwrap_or_default()
        )));
    }
    let reference = Reference::parse(&pin).map_err(|why| Fault::invalid(format!("pin: {why}")))?;
    Ok(reference.map_or_else(|| Pin::Itself(Secret::new(pin.into_bytes())), Pin::At))
}

fn required(name: &str) -> Fault {
    Fault::invalid(format!("missing required field {name:?}"))
}

/// A pool's members name their tokens; slot 0 is what clients send who name none.
fn no_token(fields: &mut Fields<'_>, pool: &str) -> Result<Option<TokenSelector>, Fault> {
    let slot = fields.filled("slot")?.filter(|slot| slot != "0");
    if slot.is_some() || fields.filled("token_label")?.is_some() {
        let why = "the members of a kms_pool name their tokens in the configuration";
        return Err(Fault::invalid(format!("slot and token_label cannot be given with library {pool:?}: {why}")));
    }
    Ok(None)
}

/// An empty `token_label` beside a slot is taken as absent, as clients send it.
fn token(fields: &mut Fields<'_>) -> Result<TokenSelector, Fault> {
    let label = fields.filled("token_label")?;
    let slot = fields.filled("slot")?;
    match (label, slot) {
        (Some(_), Some(slot)) if slot != "0" => Err(Fault::invalid("only one of slot and token_label may be given")),
        (Some(label), _) => Ok(TokenSelector::Label(label)),
        (None, Some(slot)) => slot
            .parse()
            .map(TokenSelector::Slot)
            .map_err(|_| Fault::invalid(format!("slot {slot:?} is not a decimal number"))),
        (None, None) => Err(Fault::invalid("one of slot and token_label is required")),
    }
}

fn mechanism(fields: &mut Fields<'_>) -> Result<Mechanism, Fault> {
    let text = fields.filled("mechanism")?.ok_or_else(|| required("mechanism"))?;
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16),
        None => text.parse(),
    };
    let wrong = || Fault::invalid(format!("mechanism {text:?} is not a number such as 0x1041"));
    number.map(Mechanism).map_err(|_| wrong())
}

fn curve(fields: &mut Fields<'_>) -> Result<Option<Curve>, Fault> {
    match fields.filled("curve")?.as_deref() {
        None => Ok(None),
        Some("P256") => Ok(Some(Curve::P256)),
        Some("P384") => Ok(Some(Curve::P384)),
        Some("P521") => Ok(Some(Curve::P521)),
        Some(other) => Err(Fault::invalid(format!("curve {other:?} is not supported: use P256, P384 or P521"))),
    }
}

/// As Vault's Transit calls it.
fn parameter_set(fields: &mut Fields<'_>) -> Result<Option<MlDsa>, Fault> {
    let Some(number) = fields.filled("parameter_set")? else { return Ok(None) };
    let found = MlDsa::ALL.into_iter().find(|set| set.number().to_string() == number);
    let unknown = || Fault::invalid(format!("parameter_set {number:?} is not supported: use 44, 65 or 87"));
    found.map(Some).ok_or_else(unknown)
}

/// The curve's name in this API.
pub(super) fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P256",
        Curve::P384 => "P384",
        Curve::P521 => "P521",
    }
}

/// The hashes of OAEP, by their names in this API.
const OAEP_HASHES: [(&str, Hash); 5] = [
    ("sha1", Hash::Sha1),
    ("sha224", Hash::Sha2_224),
    ("sha256", Hash::Sha2_256),
    ("sha384", Hash::Sha2_384),
    ("sha512", Hash::Sha2_512),
];

/// The hash of OAEP that this API calls `name`.
pub(super) fn oaep_hash_named(name: &str) -> Option<Hash> {
    OAEP_HASHES.into_iter().find(|(known, _)| *known == name).map(|(_, hash)| hash)
}

/// The name of a hash of OAEP in this API.
pub(super) fn oaep_hash_name(hash: Hash) -> &'static str {
    OAEP_HASHES.into_iter().find(|(_, known)| *known == hash).map_or("", |(name, _)| name)
}

fn oaep_hash(fields: &mut Fields<'_>, mechanism: Mechanism) -> Result<Option<Hash>, Fault> {
    let Some(name) = fields.filled("rsa_oaep_hash")? else { return Ok(None) };
    if !mechanism.takes_oaep_hash() {
        return Err(Fault::invalid(format!(
            "rsa_oaep_hash is for CKM_RSA_PKCS_OAEP, and the mechanism is {mechanism}"
        )));
    }
    oaep_hash_named(&name).map(Some).ok_or_else(|| {
        let known: Vec<&str> = OAEP_HASHES.into_iter().map(|(name, _)| name).collect();
        Fault::invalid(format!("rsa_oaep_hash {name:?} is not supported: use {}", known.join(", ")))
    })
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

fn usages(fields: &mut Fields<'_>) -> Result<KeyUsages, Fault> {
    let Some(names) = fields.list("usages")? else { return Ok(KeyUsages::default()) };
    if names.is_empty() {
        return Ok(KeyUsages::default());
    }
    let usage = |name: &String| {
        let by_number = || KeyUsage::ALL.into_iter().find(|usage| name.parse() == Ok(*usage as u8));
        KeyUsage::from_name(name).or_else(by_number).ok_or_else(|| {
            let known: Vec<&str> = KeyUsage::ALL.into_iter().map(KeyUsage::name).collect();
            Fault::invalid(format!("usage {name:?} is unknown: use some of {}", known.join(", ")))
        })
    };
    names.iter().map(usage).collect()
}

/// Hexadecimal, with or without `0x` and colons; not empty, which would name any key.
fn decode_id(id: &str) -> Result<Vec<u8>, Fault> {
    let digits: String = id.strip_prefix("0x").unwrap_or(id).chars().filter(|c| *c != ':').collect();
    let decoded = hex::decode(&digits).ok().filter(|bytes| !bytes.is_empty());
    decoded.ok_or_else(|| Fault::invalid(format!("key_id {id:?} is not hexadecimal, such as 0x1a2b")))
}

#[cfg(test)]
#[path = "settings_tests.rs"]
mod tests;
