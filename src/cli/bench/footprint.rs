//! How long a start takes, and how much memory the daemon needs.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;

use super::child::Child;
use super::settings::Settings;
use super::{Failure, Format, output, runtime};
use crate::cli::output::say;
use crate::wire::proto;

/// Starts that are timed.
const STARTS: usize = 7;
/// Connections that are held open.
const CONNECTIONS: usize = 1000;

pub(super) fn run(format: Format, settings: &Settings, home: &Path) -> Result<ExitCode, Failure> {
    let mut starts = Vec::new();
    for number in 0..STARTS {
        let own = home.join(format!("start-{number}"));
        std::fs::create_dir(&own)?;
        starts.push(Child::start(&own, settings)?.started_in.as_secs_f64() * 1e3);
    }
    starts.sort_by(f64::total_cmp);
    let start_ms = starts.get(STARTS / 2).copied().unwrap_or(f64::NAN);
    let runtime = runtime()?;
    let child = Child::start(home, settings)?;
    let idle = memory(child.pid())?;
    let clients = runtime.block_on(child.clients("", proto::Class::Interactive, CONNECTIONS))?;
    let connected = memory(child.pid())?;
    drop(clients);
    let binary = std::fs::metadata(std::env::current_exe()?)?.len();
    if format == Format::Json {
        let body = json!({
            "what": "footprint", "start_ms": start_ms, "idle_kib": idle, "connected_kib": connected,
            "binary_bytes": binary,
        });
        output::print(format, &body)?;
        return Ok(ExitCode::SUCCESS);
    }
    say!("start to first answer  {start_ms:.0} ms (median of {STARTS})");
    say!("memory, idle           {idle} KiB");
    say!("memory, {CONNECTIONS} clients   {connected} KiB");
    say!("program                {} KiB", binary / 1024);
    Ok(ExitCode::SUCCESS)
}

/// Resident memory in KiB.
pub(super) fn memory(pid: u32) -> Result<u64, Failure> {
    of_status(pid, "VmRSS:")
}

/// The largest resident memory since [`reset_peak`], in KiB.
pub(super) fn peak(pid: u32) -> Result<u64, Failure> {
    of_status(pid, "VmHWM:")
}

/// Forgets the largest resident memory so far (proc(5), clear_refs).
pub(super) fn reset_peak(pid: u32) -> Result<(), Failure> {
    Ok(std::fs::write(format!("/proc/{pid}/clear_refs"), "5")?)
}

fn of_status(pid: u32, field: &str) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kib = line.and_then(|line| line.trim().split(' ').next()?.parse().ok());
    kib.ok_or_else(|| Failure::new("the daemon's memory cannot be read"))
}
