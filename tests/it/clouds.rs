//! Simulated clouds for stories: the program that plays them, and what a daemon is told of them.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

#[path = "../cloud-sim/tests/client.rs"]
pub(crate) mod client;

pub(crate) use client::Cloud;

/// The simulator, built by cargo once per run where it is older than its sources.
pub(crate) fn simulator() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let binary = Path::new(env!("CARGO_BIN_EXE_keyway")).parent().unwrap().join("cloud-sim");
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cloud-sim");
        let built = binary.metadata().and_then(|file| file.modified()).unwrap_or(SystemTime::UNIX_EPOCH);
        if newest(&sources.join("src")).max(changed(&sources.join("Cargo.toml"))) > built {
            crate::sim::build("cloud-sim");
        }
        binary
    })
}

fn changed(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

/// When the newest file below a folder was changed.
fn newest(folder: &Path) -> SystemTime {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.map(|path| if path.is_dir() { newest(&path) } else { changed(&path) }).max().unwrap()
}
