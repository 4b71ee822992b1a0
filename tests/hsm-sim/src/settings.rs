//! What a module is told when it is loaded: by a file beside its own, or else by the environment.

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use serde::Deserialize;

/// The settings of one module.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Where counts, steering, sockets and logs are: beside the module by default.
    pub(crate) folder: Option<PathBuf>,
    pub(crate) real: Option<Real>,
    pub(crate) null: Option<Null>,
    /// Whether each `C_GetFunctionList` gives another instance, as p11-kit's modules do.
    #[serde(default)]
    pub(crate) instances: bool,
    /// Commands that hold from the beginning.
    #[serde(default)]
    pub(crate) steering: Vec<String>,
}

/// A real module behind this one.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Real {
    pub(crate) module: PathBuf,
    /// Set in the process before the module is loaded.
    #[serde(default)]
    pub(crate) environment: BTreeMap<String, String>,
}

/// Nothing behind this one: it answers by itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Null {
    pub(crate) slots: Vec<NullSlot>,
}

/// A slot with a token that the module makes up.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NullSlot {
    pub(crate) label: String,
    /// At most 16 bytes; made up by default.
    pub(crate) serial: Option<String>,
    pub(crate) pin: String,
    /// Wrong PINs until it is locked.
    #[serde(default = "tries")]
    pub(crate) tries: u64,
    #[serde(default)]
    pub(crate) keys: Vec<NullKey>,
}

fn tries() -> u64 {
    3
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NullKey {
    pub(crate) label: String,
    #[serde(default)]
    pub(crate) kind: KeyKind,
    /// `CKA_ID` in hexadecimal; made from the label by default.
    pub(crate) id: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "lowercase")]
pub(crate) enum KeyKind {
    #[default]
    P256,
    Rsa2048,
    /// A secret AES key.
    Aes256,
    /// A secret key of no particular kind, long enough for the HMACs of SHA-2.
    Hmac512,
}

impl KeyKind {
    pub(crate) const ALL: [KeyKind; 4] = [KeyKind::P256, KeyKind::Rsa2048, KeyKind::Aes256, KeyKind::Hmac512];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            KeyKind::P256 => "p256",
            KeyKind::Rsa2048 => "rsa2048",
            KeyKind::Aes256 => "aes256",
            KeyKind::Hmac512 => "hmac512",
        }
    }

    /// Whether it is one object, and no pair of two.
    pub(crate) const fn is_secret(self) -> bool {
        matches!(self, KeyKind::Aes256 | KeyKind::Hmac512)
    }
}

impl Settings {
    /// The settings of this copy of the module.
    pub(crate) fn load() -> Result<Settings, String> {
        let module = own_file()?;
        let beside = |ending: &str| {
            let mut name = module.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let file = beside(".json");
        let text = match std::fs::read_to_string(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Settings::environment(&file),
            Err(error) => return Err(format!("{}: {error}", file.display())),
        };
        let mut settings: Settings =
            serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        settings.folder.get_or_insert_with(|| beside(".d"));
        Ok(settings)
    }

    fn environment(file: &Path) -> Result<Settings, String> {
        let module = std::env::var_os("HSM_SIM_MODULE").map(PathBuf::from);
        let module = module.ok_or_else(|| format!("neither {} nor HSM_SIM_MODULE is there", file.display()))?;
        let folder = std::env::var_os("HSM_SIM_FOLDER").map(PathBuf::from);
        let real = Some(Real { module, environment: BTreeMap::new() });
        Ok(Settings { folder, real, null: None, instances: false, steering: Vec::new() })
    }
}

/// The file this code was loaded from; it is kept loaded for good, since threads of its own run in it.
fn own_file() -> Result<PathBuf, String> {
    static HERE: u8 = 0;
    // SAFETY: only filled with zeroes here, and they are good for plain pointers.
    let mut found: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: `found` is a valid place; any address may be asked for.
    let known = unsafe { libc::dladdr(ptr::from_ref(&HERE).cast(), &raw mut found) };
    if known == 0 || found.dli_fname.is_null() {
        return Err("the loader does not know this module's file".into());
    }
    // SAFETY: the loader's text of the file's name, which lives as long as the library.
    let name = unsafe { CStr::from_ptr(found.dli_fname) };
    // SAFETY: the library is loaded already; this only marks it as one that stays.
    let kept = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD | libc::RTLD_NODELETE) };
    if kept.is_null() {
        return Err(format!("{} cannot be kept loaded", name.to_string_lossy()));
    }
    Ok(PathBuf::from(OsStr::from_bytes(name.to_bytes())))
}
