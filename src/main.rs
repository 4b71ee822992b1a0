//! The `keyway` program: arguments, run, exit code.

use std::process::ExitCode;

/// Answers are made by one thread and freed by another, which the system's allocator is slow at.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    keyway::cli::run(std::env::args_os())
}
