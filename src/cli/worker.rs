//! `pkcs11-worker`: runs the library of a `kms_library` apart from the daemon, which alone starts it.

use std::process::ExitCode;

use super::Failure;
use crate::backend::process::worker;

pub(super) fn run() -> Result<ExitCode, Failure> {
    worker::run().map_err(Failure::new)?;
    Ok(ExitCode::SUCCESS)
}
