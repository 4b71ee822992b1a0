//! The fields of a `pkcs11` managed key: reading them from a request, showing them again.

use serde_json::{Value, json};

use super::mechanism::Mechanism;
use super::settings::{REDACTED, required};
use crate::config::{Pin, Reference};
use crate::model::{Curve, Data, Fault, Fields, Hash, KeyKind, MlDsa, Namespace, Secret, TokenSelector};
use crate::supervisor::{KeySelector, LibraryInfo};

/// How a key on a token is named, and what is done with it.
#[derive(Clone, Debug)]
pub(super) struct Pkcs11 {
    /// Its label; given, a generated key gets it.
    pub(super) key_label: Option<String>,
    /// Its `CKA_ID` in hexadecimal.
    pub(super) key_id: Option<String>,
    /// What it is used with.
    pub(super) mechanism: Mechanism,
    /// Its own PIN, where the library has none; or where it stands.
    pub(super) pin: Option<Pin>,
    /// The curve of a key to be generated.
    pub(super) curve: Option<Curve>,
    /// The parameter set of an ML-DSA key to be generated.
    pub(super) parameter_set: Option<MlDsa>,
    /// The size of an RSA, AES or HMAC key to be generated; 0 where it is not given.
    pub(super) key_bits: u32,
    /// Kept for Vault's clients: every session is a read/write session here.
    pub(super) force_rw_session: bool,
    /// The hash of OAEP, where the mechanism is that.
    pub(super) rsa_oaep_hash: Option<Hash>,
    /// Kept for Vault's clients: no mechanism here pairs a key with an HMAC key.
    pub(super) hmac_key_label: Option<String>,
}

impl Pkcs11 {
    /// Reads a create or update request of `namespace`, with the token, where `info` is no pool's. `old` lends its PIN where the
    /// request leaves it out or sends it back redacted; an empty PIN takes the key's own away.
    pub(super) fn read(
        namespace: &Namespace,
        fields: &mut Fields<'_>,
        old: Option<&Pkcs11>,
        library: &str,
        info: &LibraryInfo,
    ) -> Result<(Option<TokenSelector>, Pkcs11), Fault> {
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
        let token = if info.is_pool { no_token(fields, library)? } else { Some(token(fields)?) };
        let this = Pkcs11 {
            mechanism,
            curve: curve(fields)?,
            parameter_set: parameter_set(fields)?,
            key_bits: mechanism.check_bits(fields.integer("key_bits")?.unwrap_or(0))?,
            rsa_oaep_hash: oaep_hash(fields, mechanism)?,
            force_rw_session: fields.boolean("force_rw_session")?.unwrap_or(false),
            hmac_key_label: fields.filled("hmac_key_label")?,
            key_label,
            key_id,
            pin,
        };
        Ok((token, this))
    }

    /// What a mount makes for itself of this kind, by this label.
    pub(super) fn made(label: &str, kind: KeyKind) -> Pkcs11 {
        let (curve, parameter_set, key_bits): (Option<Curve>, Option<MlDsa>, u32) = match kind {
            KeyKind::Ec(curve) => (Some(curve), None, 0),
            KeyKind::MlDsa(set) => (None, Some(set), 0),
            KeyKind::Ed25519 => (None, None, 0),
            KeyKind::Rsa { bits } | KeyKind::Aes { bits } | KeyKind::Hmac { bits } => (None, None, bits),
        };
        Pkcs11 {
            key_label: Some(label.to_owned()),
            key_id: None,
            mechanism: Mechanism::of_kind(kind),
            pin: None,
            curve,
            parameter_set,
            key_bits,
            force_rw_session: false,
            rsa_oaep_hash: None,
            hmac_key_label: None,
        }
    }

    /// How to find the key on its token.
    pub(super) fn selector(&self) -> KeySelector {
        let id = self.key_id.as_deref().and_then(|id| decode_id(id).ok());
        KeySelector { label: self.key_label.clone(), id, secret: self.mechanism.is_secret(), cloud: None }
    }

    /// The label of a key to be generated, and what it is to be; else why none can be.
    pub(super) fn to_generate(&self) -> Result<(&str, KeyKind), Fault> {
        match (&self.key_label, &self.key_id) {
            (Some(label), None) => {
                let kind = self.mechanism.generated_kind(self.key_bits, self.curve, self.parameter_set)?;
                Ok((label, kind))
            }
            _ => Err(Fault::invalid(
                "a key with a key_id cannot be generated, since the token gives ids: make it there, or leave key_id out",
            )),
        }
    }

    /// Shows its fields, and those of its token.
    pub(super) fn show(&self, library: &str, token: Option<&TokenSelector>, data: &mut Data) {
        let (slot, token_label) = match token {
            Some(TokenSelector::Slot(slot)) => (json!(slot), ""),
            Some(TokenSelector::Label(label)) => (json!(0), label.as_str()),
            Some(TokenSelector::Serial(_) | TokenSelector::Cloud(_)) | None => (json!(0), ""),
        };
        let mut put = |name: &str, value: Value| data.insert(name.to_owned(), value);
        put("library", library.into());
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
        put("force_rw_session", self.force_rw_session.into());
        if let Some(set) = self.parameter_set {
            put("parameter_set", set.number().to_string().into());
        }
        if self.mechanism.takes_oaep_hash() {
            put("rsa_oaep_hash", self.rsa_oaep_hash.map(oaep_hash_name).unwrap_or_default().into());
        }
        if let Some(label) = &self.hmac_key_label {
            put("hmac_key_label", label.as_str().into());
        }
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

/// The curve of a key to generate.
pub(super) fn curve(fields: &mut Fields<'_>) -> Result<Option<Curve>, Fault> {
    let Some(name) = fields.filled("curve")? else { return Ok(None) };
    let curve = Curve::ALL.into_iter().find(|curve| curve_name(*curve) == name);
    let unknown = || Fault::invalid(format!("curve {name:?} is not supported: use P256, P384, P521 or secp256k1"));
    curve.map(Some).ok_or_else(unknown)
}

/// As Vault's Transit calls it.
fn parameter_set(fields: &mut Fields<'_>) -> Result<Option<MlDsa>, Fault> {
    let Some(number) = fields.filled("parameter_set")? else { return Ok(None) };
    let found = MlDsa::ALL.into_iter().find(|set| set.number().to_string() == number);
    let unknown = || Fault::invalid(format!("parameter_set {number:?} is not supported: use 44, 65 or 87"));
    found.map(Some).ok_or_else(unknown)
}

/// The curve's name in this API; the last is not one of Vault's.
pub(super) fn curve_name(curve: Curve) -> &'static str {
    match curve {
        Curve::P256 => "P256",
        Curve::P384 => "P384",
        Curve::P521 => "P521",
        Curve::Secp256k1 => "secp256k1",
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

/// Hexadecimal, with or without `0x` and colons; not empty, which would name any key.
fn decode_id(id: &str) -> Result<Vec<u8>, Fault> {
    let digits: String = id.strip_prefix("0x").unwrap_or(id).chars().filter(|c| *c != ':').collect();
    let decoded = hex::decode(&digits).ok().filter(|bytes| !bytes.is_empty());
    decoded.ok_or_else(|| Fault::invalid(format!("key_id {id:?} is not hexadecimal, such as 0x1a2b")))
}
