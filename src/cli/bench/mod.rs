//! `bench`: what Keyway adds to the bare token, and what streams of requests feel of each other. `benches/README.md` is for
//! those who run it.
//!
//! The token is SoftHSM2's, made for the bench, or any other. Two kinds of measurement: in [`paired`], Keyway and what it
//! is compared with take turns, and give ratios with their 95 % intervals; in [`streams`], requests come at a rate or keep
//! a load in flight, and give latencies and shares.

pub(super) mod args;
mod awake;
mod baseline;
mod child;
mod closed;
mod echo;
mod footprint;
mod open;
mod over_http;
mod paired;
mod prepare;
mod random;
mod registrations;
mod report;
mod schedule;
mod settings;
mod side;
mod spec;
mod statistics;
mod stored;
mod stored_report;
mod stored_rotation;
mod stream_report;
mod streams;
mod tally;
mod target;
mod work;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{Connection, Format};
use super::{Failure, dev, output, runtime};
use args::{Bench, What};
use awake::Awake;
use settings::Settings;

/// Tells the second run which folder is its own.
const HOME: &str = "KEYWAY_BENCH_HOME";
const PREFIX: &str = "keyway-bench-";
/// How long after the end of a run an answer may still come: longer than any deadline the daemon allows by default.
const ANSWER_MAX: Duration = Duration::from_secs(70);

pub(super) fn run(_: &Connection, format: Format, args: &Bench) -> Result<ExitCode, Failure> {
    let streams = !args.streams.streams.is_empty() || args.streams.rate.is_some();
    let what = args.what.unwrap_or(if streams { What::Streams } else { What::Sign });
    if streams && what != What::Streams {
        return Err(Failure::usage("-stream and -rate are for -what streams alone"));
    }
    if args.rounds.batch.is_some() && !matches!(what, What::Certificates | What::Batches) {
        return Err(Failure::usage("-batch is for -what certificates and batches alone"));
    }
    if (args.burden.policy || args.burden.audit) && matches!(what, What::Streams | What::Stored | What::Footprint) {
        return Err(Failure::usage("-policy and -audit are not for -what streams, stored and footprint"));
    }
    let own = args.token.library.is_none() && args.token.members.is_empty();
    let claimed = if own { dev::Home::claim(HOME, PREFIX)? } else { private_folder()? };
    let home = claimed.0.clone();
    leave_nothing_behind(home.clone())?;
    let _awake = Awake::keep(args.keep_awake)?;
    let measured = match what {
        What::Streams => return streams::run(args, format, &home),
        What::Stored => return stored::run(args, format, &home),
        What::Registrations => return registrations::run(args, format, &home),
        What::Footprint => return footprint::run(format, &Settings::new(&args.token, &[])?, &home),
        What::Echo | What::Overhead if own => paired::run_fake(args, what, &home)?,
        What::Sign
        | What::Certificates
        | What::Echo
        | What::Overhead
        | What::Issue
        | What::Ocsp
        | What::OcspNonce
        | What::Batches => paired::run(args, what, &Settings::new(&args.token, &[])?, &home)?,
    };
    report::print(format, args, what, &measured)?;
    Ok(ExitCode::SUCCESS)
}

/// A folder without a token of its own.
fn private_folder() -> Result<dev::Home, Failure> {
    Ok(dev::Home(tempfile::Builder::new().prefix(PREFIX).tempdir()?.keep()))
}

/// When a signal ends the measuring, ends the daemon and removes the folder too.
fn leave_nothing_behind(home: PathBuf) -> Result<(), Failure> {
    let runtime = runtime()?;
    let mut terminate = runtime.block_on(async { signal(SignalKind::terminate()) })?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
            }
        });
        child::end_running();
        drop(dev::Home(home));
        std::process::exit(130)
    });
    Ok(())
}
