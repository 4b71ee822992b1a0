//! `server`: runs the daemon.

use std::process::ExitCode;

use super::args::Server;
use super::{Failure, dev};
use crate::cli::output::say;
use crate::config::{Config, Isolation, KmsLibrary};
use crate::daemon::{Daemon, Ended, Start, memory};
use crate::telemetry::log;

pub(super) fn run(args: &Server) -> Result<ExitCode, Failure> {
    if args.dev {
        return dev::run(args);
    }
    let Some(path) = &args.config else {
        return Err(Failure::usage("give -config PATH, or -dev to try Keyway out"));
    };
    let loaded = Config::load(path).map_err(Failure::usage)?;
    for warning in &loaded.warnings {
        eprintln!("warning: {warning}");
    }
    if args.check {
        say!("{}: the configuration is good", path.display());
        loaded.kms_libraries.iter().for_each(|library| say!("{}", place(library)));
        return Ok(ExitCode::SUCCESS);
    }
    log::init(loaded.log_level, loaded.log_format);
    memory::guard(loaded.memory);
    let start =
        Start { configuration: Some(path.clone()), final_pin_try: args.force_final_pin_try, ..Start::default() };
    serve(&loaded, start, |daemon| {
        for address in daemon.addresses() {
            tracing::info!(address = %address.display(), "listening");
        }
        if let Some(address) = daemon.metrics_address() {
            tracing::info!(address, "metrics are served");
        }
    })
}

/// Where a library's code runs, which may be its profile's choice.
fn place(library: &KmsLibrary) -> String {
    let place = match (library.isolation, library.workers) {
        (Isolation::None, _) => "in the daemon".to_owned(),
        (Isolation::Process, 1) => "in a worker process of each token".to_owned(),
        (Isolation::Process, workers) => format!("in {workers} worker processes of each token"),
    };
    let profile = library.profile.map_or("by what it says of itself", |profile| profile.traits().name);
    format!("kms_library {:?}: {place}; profile: {profile}", library.name)
}

/// Runs a daemon to its end. `up` is told when it serves.
pub(super) fn serve(config: &Config, start: Start, up: impl FnOnce(&Daemon)) -> Result<ExitCode, Failure> {
    let ended: Result<Ended, Failure> = actix::System::new().block_on(async {
        let daemon = Daemon::start(config, start).await?;
        up(&daemon);
        Ok(daemon.run().await)
    });
    Ok(if ended?.clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
