//! The `keyway` command: a file per subcommand. Errors are one line and say what to do.
//!
//! Exit codes: 0 done; 1 refused or failed; 2 the request was answered "absent" or partly failed; 64 bad arguments or
//! configuration.

mod args;
mod audit;
mod bench;
mod bulk;
mod connection;
mod dev;
mod logical;
mod login;
mod namespace;
mod operator;
mod output;
mod policy;
mod recover;
mod server;
mod sign;
mod snapshot;
mod status;
mod token;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::cli::output::say;
use args::{Cli, Command, OperatorCommand, PkiCommand};

/// Bad arguments or configuration (`EX_USAGE`).
const USAGE: u8 = 64;

/// Why a command failed, and with which exit code.
#[derive(Debug)]
struct Failure {
    code: u8,
    message: String,
}

impl Failure {
    fn new(message: impl std::fmt::Display) -> Failure {
        Failure { code: 1, message: message.to_string() }
    }

    fn usage(message: impl std::fmt::Display) -> Failure {
        Failure { code: USAGE, message: message.to_string() }
    }
}

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::new(error)
    }
}

/// Runs the command these arguments name.
pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args::two_dashes(arguments)) {
        Ok(cli) => cli,
        Err(error) => {
            // A closed terminal does not want the text.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(USAGE) } else { ExitCode::SUCCESS };
        }
    };
    match execute(cli) {
        Ok(_) if !output::all_written() => ExitCode::FAILURE,
        Ok(code) => code,
        Err(failure) => {
            eprintln!("keyway: {}", failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn execute(cli: Cli) -> Result<ExitCode, Failure> {
    let connect = &cli.connection;
    match cli.command {
        Command::Server(server) => server::run(&server),
        Command::Operator { command: OperatorCommand::Init(args) } => match &args.snapshot {
            Some(snapshot) => recover::run(snapshot, &args),
            None => operator::init(connect, cli.format),
        },
        Command::Operator { command: OperatorCommand::Seal } => operator::seal(connect),
        Command::Operator { command: OperatorCommand::Unseal } => operator::unseal(connect, cli.format),
        Command::Operator { command: OperatorCommand::Snapshot(command) } => snapshot::run(connect, &command),
        Command::Status => status::run(connect, cli.format),
        Command::Read(path) => logical::read(connect, cli.format, &path),
        Command::Write(write) => logical::write(connect, cli.format, &write),
        Command::List(path) => logical::list(connect, cli.format, &path),
        Command::Delete(path) => logical::delete(connect, cli.format, &path),
        Command::Login(args) => login::run(connect, cli.format, &args),
        Command::Token { command } => token::run(connect, cli.format, &command),
        Command::Policy { command } => policy::run(connect, cli.format, &command),
        Command::Namespace { command } => namespace::run(connect, cli.format, &command),
        Command::Sign(sign) => sign::run(connect, &sign),
        Command::Audit { command } => audit::run(connect, cli.format, &command),
        Command::Pki { command: PkiCommand::SignBatch(batch) } => bulk::run(connect, cli.format, &batch),
        Command::Bench(bench) => bench::run(connect, cli.format, &bench),
        Command::Pkcs11Worker { .. } => worker::run(),
        Command::Version => {
            say!("Keyway v{} (Vault API {})", env!("CARGO_PKG_VERSION"), crate::system::VAULT_VERSION);
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A runtime for one client command.
fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
