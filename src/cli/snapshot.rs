//! `operator snapshot`: the whole store in a file, and back.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tempfile::NamedTempFile;

use super::args::{Connection, SnapshotCommand};
use super::{Failure, runtime};
use crate::cli::output::say;

const PATH: &str = "sys/storage/raft/snapshot";

pub(super) fn run(connect: &Connection, command: &SnapshotCommand) -> Result<ExitCode, Failure> {
    match command {
        SnapshotCommand::Save { file } => save(connect, file),
        SnapshotCommand::Restore { file, force } => restore(connect, file, *force),
    }
}

/// Under another name first, with mode 0600: half a snapshot is none.
fn save(connect: &Connection, file: &Path) -> Result<ExitCode, Failure> {
    let failed = |error: io::Error| Failure::new(format!("{}: {error}", file.display()));
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut early = NamedTempFile::new_in(folder).map_err(failed)?;
    let mut http = connect.http()?;
    // It is of the whole daemon, whatever namespace is worked in.
    http.namespace = None;
    let bytes = runtime()?.block_on(http.download(PATH, early.as_file_mut()))?;
    early.as_file().sync_all().map_err(failed)?;
    early.persist(file).map_err(|error| failed(error.error))?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)?;
    say!(
        "Saved {bytes} bytes. They open under the seal's key alone: keep a copy of that, and keep it apart from them."
    );
    Ok(ExitCode::SUCCESS)
}

fn restore(connect: &Connection, file: &Path, force: bool) -> Result<ExitCode, Failure> {
    let from = File::open(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let mut http = connect.http()?;
    http.namespace = None;
    let path = if force { format!("{PATH}-force") } else { PATH.to_owned() };
    let answer = runtime()?.block_on(http.upload(&path, from))?;
    answer.success().map_err(|refused| match refused.to_string() {
        told if told.contains("is not initialized") => Failure::new(format!(
            "{told}; or, to have the store made of this snapshot, stop Keyway, move its storage file away, and run `keyway operator \
             init -snapshot {} -config PATH`",
            file.display()
        )),
        told => Failure::new(told),
    })?;
    say!("Restored: the daemon serves what was saved, with the tokens and policies of then.");
    say_what_is_to_be_done();
    Ok(ExitCode::SUCCESS)
}

/// What the world remembers, and a state of the past does not.
pub(super) fn say_what_is_to_be_done() {
    say!("Have a new CRL made by every mount that made one since, and revoke again what was revoked since.");
}
