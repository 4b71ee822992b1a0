//! `bench`: what Keyway adds to the bare token.
//!
//! A SoftHSM2 token of its own is made. Then a loop in this process, which calls the token with the same number of
//! sessions and the same two calls a signature, and Keyway, reached over its socket, take turns: machines are noisy, and
//! only what ran side by side can be compared. Each round gives one ratio; the median of the ratios is shown with its
//! bootstrapped 95 % interval.

mod baseline;
mod child;
mod footprint;
mod load;
mod report;
mod statistics;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use super::args::{self, BenchKey, BenchWhat, Connection, Format};
use super::{Failure, dev, runtime};
use baseline::Baseline;
use child::Child;
use load::{Load, Work};
use report::{Measurement, Side};
use statistics::Summary;

/// Tells the second run which folder is its own.
const HOME: &str = "KEYWAY_BENCH_HOME";
const PREFIX: &str = "keyway-bench-";
/// Rounds that are run before those that count.
const WARM_UP: u16 = 2;

pub(super) fn run(_: &Connection, format: Format, args: &args::Bench) -> Result<ExitCode, Failure> {
    let claimed = dev::Home::claim(HOME, PREFIX)?;
    let home = claimed.0.clone();
    leave_nothing_behind(home.clone())?;
    let loads = args.loads.iter().map(|text| Load::parse(text)).collect::<Result<Vec<_>, _>>()?;
    let measured = match args.what {
        BenchWhat::Footprint => return footprint::run(format, &home),
        BenchWhat::Overhead => overhead(args, &loads, &home)?,
        BenchWhat::Sign | BenchWhat::Certificates => paired(args, &loads, &home)?,
    };
    report::print(format, args, &measured)?;
    Ok(ExitCode::SUCCESS)
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

/// Keyway and the bare token in turns.
fn paired(args: &args::Bench, loads: &[Load], home: &Path) -> Result<Vec<Measurement>, Failure> {
    let runtime = runtime()?;
    let child = Child::start(home, false)?;
    let sessions = std::thread::available_parallelism().map_or(1, usize::from);
    let mut measured = Vec::new();
    for &key in &args.keys {
        let label = name(key);
        let work = runtime.block_on(async {
            child.prepare_key(key, label).await?;
            match args.what {
                BenchWhat::Certificates => child.prepare_authority(label, home).await,
                _ => Ok(Work::sign(label)),
            }
        })?;
        let mut baseline = Baseline::open(key, label, sessions)?;
        for &load in loads {
            let clients = runtime.block_on(child.clients(load.clients))?;
            let mut measurement = Measurement::new(label, load);
            for round in 0..args.rounds + WARM_UP {
                let span = Duration::from_millis(args.round_ms);
                let mut direct = || Side::measure(None, || baseline.run(load.in_flight(), span));
                let through =
                    || Side::measure(Some(child.pid()), || Ok(runtime.block_on(load.run(&clients, &work, span))));
                // Whoever goes second finds a warm machine: they take turns at that too.
                let (direct, through) = if round % 2 == 0 {
                    let direct = direct()?;
                    (direct, through()?)
                } else {
                    let through = through()?;
                    (direct()?, through)
                };
                if round >= WARM_UP {
                    measurement.push(Some(direct), through);
                }
            }
            clients.iter().for_each(crate::client::Framed::close);
            eprintln!("{}", measurement.line());
            measured.push(measurement);
        }
    }
    Ok(measured)
}

/// The daemon alone, on keys in its memory.
fn overhead(args: &args::Bench, loads: &[Load], home: &Path) -> Result<Vec<Measurement>, Failure> {
    let runtime = runtime()?;
    let child = Child::start(home, true)?;
    runtime.block_on(child.prepare_key(BenchKey::P256, "fake"))?;
    let mut measured = Vec::new();
    for &load in loads {
        let clients = runtime.block_on(child.clients(load.clients))?;
        let work = Work::sign("fake");
        let mut measurement = Measurement::new("fake", load);
        for round in 0..args.rounds + WARM_UP {
            let span = Duration::from_millis(args.round_ms);
            let side = Side::measure(Some(child.pid()), || Ok(runtime.block_on(load.run(&clients, &work, span))))?;
            if round >= WARM_UP {
                measurement.push(None, side);
            }
        }
        clients.iter().for_each(crate::client::Framed::close);
        eprintln!("{}", measurement.line());
        measured.push(measurement);
    }
    Ok(measured)
}

const fn name(key: BenchKey) -> &'static str {
    match key {
        BenchKey::P256 => "p256",
        BenchKey::Rsa2048 => "rsa2048",
    }
}
