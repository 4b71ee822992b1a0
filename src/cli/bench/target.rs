//! The tokens that are measured, opened in this process too, and the keys on them.

use super::Failure;
use super::args::{OwnKey, Tokens};
use super::settings::Settings;
use super::spec::KeyName;
use crate::backend::{BackendError, Device, KeySelector, KeyTemplate, registry};
use crate::config::{Config, Isolation, KmsLibrary, Limits, or_cores};
use crate::model::{Curve, Hash, KeyKind, KeyUsages, PublicKey, Secret, SignatureScheme, TokenSelector};
use crate::telemetry::LibraryMetrics;

/// How a signature is asked for: with a digest, so that neither side hashes.
pub(super) const HASH: Hash = Hash::Sha2_256;

/// One token.
pub(super) struct Slot {
    pub(super) token: TokenSelector,
    pub(super) device: Box<dyn Device>,
    /// As many as the daemon will have.
    pub(super) sessions: usize,
}

/// All the tokens of one measurement: one, or a pool.
pub(super) struct Target {
    slots: Vec<Slot>,
    generate: bool,
    /// Whether the token is the bench's own.
    own: bool,
}

/// A key that is measured with.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// As the results name it.
    pub(super) shown: String,
    /// Of the managed key and the Transit key.
    pub(super) name: String,
    pub(super) label: String,
    pub(super) kind: KeyKind,
    /// `None` for a key that the daemon makes in its own memory.
    pub(super) public: Option<PublicKey>,
}

impl Key {
    /// A key of a daemon with keys in its memory.
    pub(super) fn fake() -> Key {
        let (shown, kind) = ("fake".to_owned(), KeyKind::Ec(Curve::P256));
        Key { name: shown.clone(), label: shown.clone(), shown, kind, public: None }
    }

    /// The signature it makes here.
    pub(super) fn scheme(&self) -> SignatureScheme {
        match self.kind {
            KeyKind::Rsa { .. } => SignatureScheme::RsaPkcs1,
            _ => SignatureScheme::Ecdsa,
        }
    }

    /// The mechanism its managed key has.
    pub(super) fn mechanism(&self) -> &'static str {
        match self.kind {
            KeyKind::Rsa { .. } => "0x0001",
            _ => "0x1041",
        }
    }
}

impl Target {
    /// Opens the tokens of the daemon's configuration, and logs in to each.
    pub(super) fn open(tokens: &Tokens, settings: &Settings, config: &Config) -> Result<Target, Failure> {
        let library = |name: &str| config.kms_libraries.iter().find(|library| library.name == name);
        let missing = || Failure::new("a member's library is not configured");
        let mut slots = Vec::new();
        if let Some(label) = &settings.token {
            let library = library(&settings.library).ok_or_else(missing)?;
            slots.push(Slot::open(library, &TokenSelector::Label(label.clone()), None, None)?);
        }
        for member in config.kms_pools.iter().flat_map(|pool| &pool.members) {
            let library = library(&member.library).ok_or_else(missing)?;
            slots.push(Slot::open(library, &member.token, member.pin.as_ref(), member.max_sessions)?);
        }
        let own = tokens.library.is_none() && tokens.members.is_empty();
        if tokens.generate_keys && slots.len() > 1 {
            let why = "every member of a pool must hold the same key: copy one with the vendor's tool";
            return Err(Failure::usage(format!("-generate-keys makes no keys in a pool: {why}")));
        }
        Ok(Target { slots, generate: own || tokens.generate_keys, own })
    }

    /// Whether keys of the bench's own may be made.
    pub(super) fn may_generate(&self) -> bool {
        self.generate
    }

    pub(super) fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// The key of this name in a namespace, which every token must hold. One of the bench's own is generated where it is
    /// absent, if that was allowed.
    pub(super) fn key(&self, name: &KeyName, namespace: &str) -> Result<Key, Failure> {
        let (shown, label, wanted) = match name {
            KeyName::Own(own) => (kind_name(*own).to_owned(), own_label(*own, namespace), Some(own_kind(*own))),
            KeyName::Label(label) => (label.clone(), label.clone(), None),
        };
        let mut found: Option<PublicKey> = None;
        for slot in &self.slots {
            let public = slot.find(&label, wanted.filter(|_| self.generate), self.own)?;
            if found.as_ref().is_some_and(|known| known.spki != public.spki) {
                let why = "copy one key to all with the vendor's tool";
                return Err(Failure::new(format!("{label:?} is another key on token {}: {why}", slot.token)));
            }
            found = Some(public);
        }
        let public = found.ok_or_else(|| Failure::new("there is no token"))?;
        let kind = public.kind;
        if kind == KeyKind::Ed25519 || wanted.is_some_and(|wanted| wanted != kind) {
            return Err(Failure::usage(format!(
                "{label:?} is a key of kind {kind}, which is not what is measured here"
            )));
        }
        Ok(Key { shown, name: path_name(&label), label, kind, public: Some(public) })
    }
}

impl Slot {
    fn open(
        library: &KmsLibrary,
        token: &TokenSelector,
        pin: Option<&Secret>,
        sessions: Option<usize>,
    ) -> Result<Slot, Failure> {
        // Loaded here, wherever the daemon has it: the loop calls it directly.
        let here = KmsLibrary { isolation: Isolation::None, ..library.clone() };
        let backend = registry::open(&here, Limits::default().call_open, LibraryMetrics::default());
        let device = backend.open(token).map_err(failed)?;
        let pin =
            pin.or(library.pin.as_ref()).ok_or_else(|| Failure::usage("give -pin env:NAME or -pin file:/path"))?;
        let flags = device.pin_flags().map_err(failed)?;
        if flags.final_try || flags.locked {
            let why = "log in with the vendor's tool first";
            return Err(Failure::new(format!("token {token} allows one last try of its PIN, or none: {why}")));
        }
        device.login(pin).map_err(failed)?;
        let wanted = sessions.or(library.max_sessions);
        let wanted = wanted.unwrap_or_else(|| or_cores(device.info().profile.traits().sessions));
        // As the daemon counts: one more is its own.
        let allowed = device.info().max_sessions.map_or(usize::MAX, |most| most.saturating_sub(1).max(1));
        Ok(Slot { token: token.clone(), device, sessions: wanted.min(allowed) })
    }

    /// The public half of the key with this label; one of `make` is generated where there is none.
    fn find(&self, label: &str, make: Option<KeyKind>, own: bool) -> Result<PublicKey, Failure> {
        let mut session = self.device.open_session().map_err(failed)?;
        let selector = KeySelector { label: Some(label.to_owned()), id: None, secret: false, cloud: None };
        if let Some(found) = session.find(&selector).map_err(failed)? {
            return found.public.ok_or_else(|| Failure::new("a key pair without a public half"));
        }
        let Some(kind) = make else {
            let what = "name a key of yours with -key-label, or let the bench make its own with -generate-keys";
            return Err(Failure::new(format!("there is no key {label:?} on token {}: {what}", self.token)));
        };
        if !own {
            eprintln!("generating {label:?} on token {}: it stays there", self.token);
        }
        let template = KeyTemplate { kind, label: label.to_owned(), uses: KeyUsages::default(), cloud: None };
        let made = session.generate(&template).map_err(failed)?;
        made.public.ok_or_else(|| Failure::new("a key pair without a public half"))
    }
}

/// An error of a token, as the bench ends with it.
pub(super) fn failed(error: BackendError) -> Failure {
    Failure::new(error.fault)
}

/// How arguments and results name it.
pub(super) const fn kind_name(key: OwnKey) -> &'static str {
    match key {
        OwnKey::P256 => "p256",
        OwnKey::Rsa2048 => "rsa2048",
    }
}

const fn own_kind(key: OwnKey) -> KeyKind {
    match key {
        OwnKey::P256 => KeyKind::Ec(Curve::P256),
        OwnKey::Rsa2048 => KeyKind::Rsa { bits: 2048 },
    }
}

/// A namespace has keys of its own: a token's object belongs to one namespace.
fn own_label(key: OwnKey, namespace: &str) -> String {
    let between = if namespace.is_empty() { String::new() } else { format!("{}-", encoded(namespace)) };
    format!("keyway-bench-{between}{}", kind_name(key))
}

/// A label as a name in the API's paths, which begins and ends with a letter.
fn path_name(label: &str) -> String {
    format!("k{}k", encoded(label))
}

/// A text in small letters, digits, dashes and underscores: no two texts become one.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("_{byte:02x}") }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_namespace_has_keys_of_its_own() {
        assert_eq!(own_label(OwnKey::P256, ""), "keyway-bench-p256");
        assert_eq!(own_label(OwnKey::Rsa2048, "team-a"), "keyway-bench-team-a-rsa2048");
        assert_ne!(own_label(OwnKey::P256, "a/b"), own_label(OwnKey::P256, "a-b"));
    }

    #[test]
    fn any_label_makes_a_name_of_its_own() {
        assert_eq!(path_name("CA/2026-"), "k_43_41_2f2026-k");
        assert_ne!(path_name("a b"), path_name("a_b"));
        assert_ne!(path_name("CA"), path_name("ca"));
    }
}
