//! Programs in Python that judge what Keyway makes.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The python that `tests/python/install` made, where tests/run has had it made.
pub(crate) fn python() -> Option<PathBuf> {
    let found = std::env::var_os("KEYWAY_TEST_PYTHON").map(PathBuf::from);
    if found.is_none() {
        eprintln!("not asked: KEYWAY_TEST_PYTHON names no python");
    }
    found
}

/// Runs a script of `tests/python`; answers what it printed.
pub(crate) fn run(python: &Path, script: &str, arguments: &[String]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/python").join(script);
    let output = Command::new(python).arg(&script).args(arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}", script.display());
    String::from_utf8_lossy(&output.stdout).into_owned()
}
