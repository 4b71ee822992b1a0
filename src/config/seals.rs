//! `seal "file" { … }` and `seal "pkcs11" { … }`: what guards the root key, and what guarded it before.

use super::reader::{Reader, text};
use super::reference;
use super::stanzas::library_at;
use super::{KmsLibrary, Seal, changes};
use crate::model::{Secret, TokenSelector};

/// What the library of a seal is called that no `kms_library` stanza names.
const OWN_LIBRARY: &str = "seal";

/// `seal "pkcs11" { … }`: an AES key of 256 bits in an HSM.
#[derive(Clone, Debug)]
pub struct Pkcs11Seal {
    /// The library: that of a `kms_library` stanza, or one of its own.
    pub library: KmsLibrary,
    /// Which of its tokens.
    pub token: TokenSelector,
    /// The token's user PIN, already fetched from its reference.
    pub pin: Secret,
    /// The key's label.
    pub key_label: String,
    /// Whether the key is made, if it is not there when the store is initialised or this seal takes over.
    pub generate_key: bool,
}

impl PartialEq for Pkcs11Seal {
    fn eq(&self, other: &Pkcs11Seal) -> bool {
        self.library.name == other.library.name
            && self.library.library == other.library.library
            && self.library.isolation == other.library.isolation
            && self.token == other.token
            && changes::same_pin(Some(&self.pin), Some(&other.pin))
            && self.key_label == other.key_label
            && self.generate_key == other.generate_key
    }
}

impl Eq for Pkcs11Seal {}

/// A seal as its stanza has it: its library may be in another stanza, further down.
pub(super) enum Draft {
    File(Seal),
    Pkcs11(Pkcs11Draft),
}

pub(super) struct Pkcs11Draft {
    library: String,
    token: TokenSelector,
    pin: Option<Secret>,
    /// The PIN stands in the file itself.
    pub(super) inline: bool,
    key_label: String,
    generate_key: bool,
}

/// A seal, and whether it is the former one.
pub(super) fn seal(stanza: &mut Reader<'_>, kind: &str) -> Option<(Draft, bool)> {
    let disabled = stanza.flag("disabled").unwrap_or(false);
    let draft = match kind {
        "file" => Draft::File(Seal::File { path: stanza.required_path("path")? }),
        _ => Draft::Pkcs11(pkcs11(stanza)?),
    };
    Some((draft, disabled))
}

fn pkcs11(stanza: &mut Reader<'_>) -> Option<Pkcs11Draft> {
    let library = stanza.required("library");
    let token = stanza.token("a seal \"pkcs11\"");
    let pin = stanza.parsed("pin", |expression| reference::fetch(text(expression)?));
    let (pin, inline) = pin.map_or((None, false), |(pin, inline)| (Some(pin), inline));
    let key_label = stanza.required("key_label");
    let generate_key = stanza.flag("generate_key").unwrap_or(false);
    Some(Pkcs11Draft { library: library?, token: token?, pin, inline, key_label: key_label?, generate_key })
}

impl Draft {
    /// The seal, with its library.
    ///
    /// # Errors
    ///
    /// What is missing.
    pub(super) fn finish(self, libraries: &[(KmsLibrary, String)]) -> Result<Seal, String> {
        let draft = match self {
            Draft::File(seal) => return Ok(seal),
            Draft::Pkcs11(draft) => draft,
        };
        let named = libraries.iter().find(|(library, _)| library.name.eq_ignore_ascii_case(&draft.library));
        let library = match named {
            Some((library, _)) => library.clone(),
            None if draft.library.starts_with('/') => library_at(OWN_LIBRARY, draft.library.as_ref()),
            None => {
                let name = &draft.library;
                return Err(format!(
                    "seal \"pkcs11\": there is no kms_library {name:?}: name one, or give the path of a shared object"
                ));
            }
        };
        let pin = draft.pin.or_else(|| library.pin.clone());
        let pin = pin.ok_or("seal \"pkcs11\" needs a pin: its library has none")?;
        let Pkcs11Draft { token, key_label, generate_key, .. } = draft;
        Ok(Seal::Pkcs11(Box::new(Pkcs11Seal { library, token, pin, key_label, generate_key })))
    }
}
