//! The `keyway` program: arguments, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    keyway::cli::run(std::env::args_os())
}
