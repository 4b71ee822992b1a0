//! References to secrets that stand elsewhere: `env:NAME`, `file:/path`, `credential:NAME` (a systemd credential).

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use crate::model::Secret;

/// A secret is at most this many bytes.
const SIZE_MAX: usize = 4096;

/// The environment variables that secrets were read from.
static VARIABLES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// The environment variables that secrets were read from, of every configuration this process has read. No other process
/// is to be given them.
pub fn secret_variables() -> Vec<String> {
    VARIABLES.lock().iter().cloned().collect()
}

/// Fetches what `text` refers to; a text without a known scheme is the secret itself, which is the second answer.
pub(super) fn fetch(text: &str) -> Result<(Secret, bool), String> {
    if let Some(name) = text.strip_prefix("env:") {
        let value = std::env::var(name).map_err(|_| format!("expected the environment variable {name} to be set"))?;
        VARIABLES.lock().insert(name.to_owned());
        return checked(value.into_bytes(), &format!("the environment variable {name}"));
    }
    if let Some(path) = text.strip_prefix("file:") {
        return from_file(Path::new(path));
    }
    if let Some(name) = text.strip_prefix("credential:") {
        if name.contains('/') || name.starts_with('.') {
            return Err(format!("expected the name of a credential, not {name:?}"));
        }
        let folder = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        let folder = folder.ok_or(
            "expected systemd to pass credentials (LoadCredential= in the unit); CREDENTIALS_DIRECTORY is not set",
        )?;
        return from_file(&folder.join(name));
    }
    checked(text.as_bytes().to_vec(), "it").map(|(secret, _)| (secret, true))
}

fn from_file(path: &Path) -> Result<(Secret, bool), String> {
    let text = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    checked(text, &path.display().to_string())
}

/// One line, without its end.
fn checked(mut value: Vec<u8>, whose: &str) -> Result<(Secret, bool), String> {
    while value.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        value.pop();
    }
    if value.is_empty() || value.len() > SIZE_MAX {
        return Err(format!("expected {whose} to hold 1 to {SIZE_MAX} bytes"));
    }
    Ok((Secret::new(value), false))
}
