//! References to secrets that stand elsewhere: `env:NAME`, `file:/path`, `credential:NAME` (a systemd credential). What they
//! refer to is read when it is needed, and kept nowhere.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::OFlags;

use crate::model::Secret;

/// A secret is at most this many bytes.
const SIZE_MAX: usize = 4096;
/// So much of a file is read: a secret of the most bytes, and the end of its line.
const READ_MAX: u64 = SIZE_MAX as u64 + 3;
/// How references begin.
const SCHEMES: [&str; 3] = ["env:", "file:", "credential:"];

/// The environment variables that secrets were read from.
static VARIABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The environment variables that secrets were read from, or are to be, of every configuration and managed key this process has
/// read. No other process is to be given them.
pub fn secret_variables() -> Vec<String> {
    VARIABLES.lock().iter().cloned().collect()
}

/// Where a secret stands: `env:NAME`, `file:/path` or `credential:NAME`. Not a secret itself.
#[derive(Clone, PartialEq, Eq)]
pub struct Reference(String);

impl Reference {
    /// Whether a text begins as a reference does.
    pub fn is_one(text: &str) -> bool {
        SCHEMES.iter().any(|scheme| text.starts_with(scheme))
    }

    /// The reference that `text` is, if it begins as one. Nothing is read.
    ///
    /// # Errors
    /// Why it can refer to nothing.
    pub fn parse(text: &str) -> Result<Option<Reference>, String> {
        if !Reference::is_one(text) {
            return Ok(None);
        }
        if text.len() > SIZE_MAX {
            return Err(format!("expected a reference of at most {SIZE_MAX} bytes"));
        }
        let wrong = |what: &str| Err(format!("expected {what}, not {text:?}"));
        match text.split_once(':') {
            Some(("env", "")) => return wrong("the name of an environment variable after \"env:\""),
            Some(("env", name)) => drop(VARIABLES.lock().insert(name.to_owned())),
            Some(("file", path)) if !path.starts_with('/') => return wrong("an absolute path after \"file:\""),
            Some(("credential", name)) if name.is_empty() || name.contains('/') || name.starts_with('.') => {
                return wrong("the name of a credential after \"credential:\"");
            }
            _ => {}
        }
        Ok(Some(Reference(text.to_owned())))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What it refers to now: one line, without its end. Blocks. A file that is none, such as a device, is not read.
    ///
    /// # Errors
    /// Why there is nothing, or nothing that could be a secret.
    pub fn fetch(&self) -> Result<Secret, String> {
        if let Some(path) = self.path()? {
            let kind = std::fs::metadata(&path).map_err(|error| unreadable(&path, &error))?;
            if !kind.is_file() {
                return Err(format!("{} is not a file", path.display()));
            }
        }
        self.fetch_from_anywhere()
    }

    /// The same from whatever has a path: the configuration may refer to a pipe.
    fn fetch_from_anywhere(&self) -> Result<Secret, String> {
        if let Some(path) = self.path()? {
            return from_file(&path);
        }
        let name = self.0.strip_prefix("env:").unwrap_or_default();
        let value = std::env::var(name).map_err(|_| format!("expected the environment variable {name} to be set"))?;
        checked(value.into_bytes(), &format!("the environment variable {name}"))
    }

    /// The path of the file it refers to, if that is one.
    fn path(&self) -> Result<Option<PathBuf>, String> {
        match self.0.split_once(':') {
            Some(("file", path)) => Ok(Some(path.into())),
            Some(("credential", name)) => {
                let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
                let folder = folder.ok_or(
                    "expected systemd to pass credentials (LoadCredential= in the unit); CREDENTIALS_DIRECTORY is not set",
                )?;
                Ok(Some(folder.join(name)))
            }
            _ => Ok(None),
        }
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A PIN as a managed key has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pin {
    /// The PIN.
    Itself(Secret),
    /// Where it stands: read anew at every login.
    At(Reference),
}

impl Pin {
    /// The PIN, wherever it stands. Blocks.
    ///
    /// # Errors
    /// Why what it refers to cannot be had.
    pub fn fetch(&self) -> Result<Secret, String> {
        match self {
            Pin::Itself(pin) => Ok(pin.clone()),
            Pin::At(reference) => reference.fetch(),
        }
    }

    /// The reference, where it is one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Pin::Itself(_) => None,
            Pin::At(reference) => Some(reference),
        }
    }

    /// What tells it from others.
    pub fn key(&self) -> (bool, &[u8]) {
        match self {
            Pin::Itself(pin) => (false, pin.expose()),
            Pin::At(reference) => (true, reference.0.as_bytes()),
        }
    }
}

impl From<Secret> for Pin {
    fn from(pin: Secret) -> Pin {
        Pin::Itself(pin)
    }
}

/// Fetches what `text` refers to; a text without a known scheme is the secret itself, which is the second answer.
pub(super) fn fetch(text: &str) -> Result<(Secret, bool), String> {
    match Reference::parse(text)? {
        Some(reference) => reference.fetch_from_anywhere().map(|secret| (secret, false)),
        None => checked(text.as_bytes().to_vec(), "it").map(|secret| (secret, true)),
    }
}

fn from_file(path: &Path) -> Result<Secret, String> {
    let unreadable = |error| unreadable(path, &error);
    // What became a terminal meanwhile is not to become ours.
    let file = std::fs::File::options().read(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(path);
    let mut text = Vec::new();
    file.map_err(unreadable)?.take(READ_MAX).read_to_end(&mut text).map_err(unreadable)?;
    checked(text, &path.display().to_string())
}

fn unreadable(path: &Path, error: &std::io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

/// One line, without its end.
fn checked(mut value: Vec<u8>, whose: &str) -> Result<Secret, String> {
    while value.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        value.pop();
    }
    if value.is_empty() || value.len() > SIZE_MAX {
        return Err(format!("expected {whose} to hold 1 to {SIZE_MAX} bytes"));
    }
    Ok(Secret::new(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_reference_is_told_from_one_that_refers_to_nothing() {
        for text in ["", "1234", "env", "FILE:/x", " file:/x", "pin:env:X"] {
            assert_eq!(Reference::parse(text), Ok(None), "{text}");
        }
        for text in
            ["env:", "file:", "file:x", "file:~/x", "credential:", "credential:a/b", "credential:..", "credential:.x"]
        {
            assert!(Reference::parse(text).unwrap_err().contains(text), "{text}");
        }
        assert!(Reference::parse(&format!("file:/{}", "x".repeat(SIZE_MAX))).is_err());
    }

    #[test]
    fn a_file_is_read_as_it_is_now_and_nothing_but_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pin");
        let reference = Reference::parse(&format!("file:{}", path.display())).unwrap().unwrap();
        assert!(reference.fetch().unwrap_err().contains("cannot be read"));
        for pin in ["1234", "98 76"] {
            std::fs::write(&path, format!("{pin}\r\n")).unwrap();
            assert_eq!(reference.fetch().unwrap().expose_str(), Some(pin));
        }
        std::fs::write(&path, "1".repeat(SIZE_MAX + 1)).unwrap();
        assert!(reference.fetch().unwrap_err().contains("1 to 4096 bytes"));
        for other in ["file:/dev/zero".to_owned(), format!("file:{}", folder.path().display())] {
            let told = Reference::parse(&other).unwrap().unwrap().fetch().unwrap_err();
            assert!(told.contains("is not a file"), "{told}");
        }
    }

    #[test]
    fn a_variable_that_holds_a_secret_is_known_before_it_is_read() {
        Reference::parse("env:KEYWAY_A_PIN_OF_NOBODY").unwrap().unwrap();
        assert!(secret_variables().contains(&"KEYWAY_A_PIN_OF_NOBODY".to_owned()));
    }
}
