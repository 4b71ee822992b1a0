//! `operator init -snapshot`: a store made of a snapshot, while no daemon runs.

use std::fs::File;
use std::path::Path;
use std::process::ExitCode;

use super::args::InitArgs;
use super::{Failure, snapshot};
use crate::cli::output::say;
use crate::config::{Config, Storage};
use crate::daemon::{make_store, memory};

pub(super) fn run(file: &Path, args: &InitArgs) -> Result<ExitCode, Failure> {
    let Some(path) = &args.config else {
        return Err(Failure::usage("give -config PATH: it names the storage file and the seal"));
    };
    let config = Config::load(path).map_err(Failure::usage)?;
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    memory::guard(config.memory);
    let mut from = File::open(file).map_err(|error| Failure::new(format!("{}: {error}", file.display())))?;
    let records = make_store(&config, &mut from, args.force_final_pin_try)?;
    let place = match &config.storage {
        Storage::Redb { path } => path.display().to_string(),
        Storage::Memory => "memory".to_owned(),
    };
    say!("{place} was made of the snapshot: {records} records, each verified.");
    say!("Start Keyway: it serves what was saved, with the tokens and policies of then; there is no new root token.");
    snapshot::say_what_is_to_be_done();
    Ok(ExitCode::SUCCESS)
}
