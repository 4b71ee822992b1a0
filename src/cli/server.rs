//! `server`: runs the daemon.

use std::process::ExitCode;

use super::args::Server;
use super::{Failure, dev};
use crate::cli::output::say;
use crate::config::Config;
use crate::daemon::{Daemon, Ended, Start};
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
        return Ok(ExitCode::SUCCESS);
    }
    log::init(loaded.log_level, loaded.log_format);
    let start = Start { final_pin_try: args.force_final_pin_try, ..Start::default() };
    serve(&loaded, start, |daemon| {
        for address in daemon.addresses() {
            tracing::info!(address = %address.display(), "listening");
        }
        if let Some(address) = daemon.metrics_address() {
            tracing::info!(address, "metrics are served");
        }
    })
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
